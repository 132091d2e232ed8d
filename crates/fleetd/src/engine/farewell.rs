//! The last that a leader does when its fleetd is stopped: it writes down that this is meant.
//!
//! Who leaves in order says so in its presence, which ends with its lease. A leader that sees it
//! notes it in the machine's membership record, which stays. When all of them are stopped at once
//! nobody is left to see the last one leave, and the next leader would take it for lost.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::{MachineId, MachineRecord, MemberRecord, MemberStatus};
use tokio::sync::watch;
use tracing::warn;

use super::leadership::Leadership;
use crate::agent::Standing;
use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::Document;
use crate::store::{Compare, Error, Op, Store, Txn, keys};

/// An agent that stops has said so by then; its own parts end within two seconds.
const SAID_WITHIN: Duration = Duration::from_secs(3);

/// For so long the stop is held up by a store that does not answer.
const NOTED_WITHIN: Duration = Duration::from_millis(500);

/// Waits until fleetd is to stop and its agent, if it has one, has ended.
pub(super) async fn said(standing: Option<watch::Receiver<Standing>>, mut shutdown: Shutdown) {
    stopped(&mut shutdown).await;
    if let Some(mut standing) = standing {
        // The sender ends with the agent.
        let ended = async { while standing.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(SAID_WITHIN, ended).await;
    }
}

/// Notes that this machine's fleetd is stopped in order, if it has said so.
pub(super) async fn note(store: &Arc<dyn Store>, leadership: &Leadership, machine: &MachineId) {
    let noted = tokio::time::timeout(NOTED_WITHIN, try_note(store, leadership, machine)).await;
    let why = match noted {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the store did not answer in time".to_owned(),
    };
    warn!(
        why,
        "that fleetd stops here in order is not noted: the next leader may take this machine for lost"
    );
}

async fn try_note(
    store: &Arc<dyn Store>,
    leadership: &Leadership,
    machine: &MachineId,
) -> Result<(), Error> {
    let presence = keys::machine(machine.as_str());
    let member = keys::member(machine.as_str());
    let read = store.read_keys(&[presence.clone(), member.clone()]).await?;
    let find = |key: &str| read.entries.iter().find(|entry| entry.key == key);
    let said = find(&presence)
        .and_then(|entry| MachineRecord::decode(&entry.key, &entry.value).ok())
        .is_some_and(|record| record.is_stopped_in_order());
    let Some(entry) = find(&member).filter(|_| said) else {
        return Ok(());
    };
    let mut record = MemberRecord::decode(&entry.key, &entry.value)?;
    if record.status != MemberStatus::Present || record.reason == MemberRecord::LEAVES {
        return Ok(());
    }
    MemberRecord::LEAVES.clone_into(&mut record.reason);
    let mut compares = leadership.compares();
    compares.push(Compare::ModRevision(member.clone(), entry.mod_revision));
    let ops = vec![Op::Put {
        key: member,
        value: record.encode(),
        lease: None,
    }];
    store.commit(Txn { compares, ops }).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::EngineStatus;
    use crate::engine::leadership::Campaign;
    use crate::store::memory::MemoryStore;

    /// What stands in the store of the machine, and who leads.
    struct Rig {
        store: Arc<dyn Store>,
        leadership: Leadership,
        machine: MachineId,
    }

    impl Rig {
        async fn new(status: MemberStatus, trouble: Option<&str>) -> Rig {
            let store: Arc<dyn Store> = MemoryStore::new();
            let machine = MachineId::new("m1");
            let presence = MachineRecord {
                trouble: trouble.map(str::to_owned),
                ..MachineRecord::default()
            };
            let member = MemberRecord {
                status,
                since_ms: 1,
                first_seen_ms: 1,
                public_ip: String::new(),
                metadata: BTreeMap::new(),
                reason: "it joined".to_owned(),
                avoided: None,
            };
            put(&store, keys::machine("m1"), presence.encode()).await;
            put(&store, keys::member("m1"), member.encode()).await;
            let (status, _) = watch::channel(EngineStatus::default());
            let campaign = Campaign {
                store: &store,
                machine: &machine,
                version: 1,
                ttl: Duration::from_secs(60),
                status: &status,
            };
            let leadership = campaign.win().await.unwrap();
            Rig {
                store,
                leadership,
                machine,
            }
        }

        async fn reason(&self) -> String {
            let read = self.store.read_keys(&[keys::member("m1")]).await.unwrap();
            let entry = &read.entries[0];
            let record = MemberRecord::decode(&entry.key, &entry.value).unwrap();
            record.reason
        }

        async fn note(&self) {
            note(&self.store, &self.leadership, &self.machine).await;
        }
    }

    async fn put(store: &Arc<dyn Store>, key: String, value: Vec<u8>) {
        let ops = vec![Op::Put {
            key,
            value,
            lease: None,
        }];
        let compares = Vec::new();
        store.commit(Txn { compares, ops }).await.unwrap();
    }

    const STOPPED: Option<&str> = Some(MachineRecord::STOPPED_IN_ORDER);

    #[tokio::test(start_paused = true)]
    async fn who_has_said_so_leaves_in_order() {
        let rig = Rig::new(MemberStatus::Present, STOPPED).await;
        rig.note().await;
        assert_eq!(rig.reason().await, MemberRecord::LEAVES);
    }

    /// A crash, a machine that goes down, a fleetd that is back, a machine that is given up: none of
    /// them has taken its leave.
    #[tokio::test(start_paused = true)]
    async fn of_who_has_not_said_so_nothing_is_noted() {
        for (status, trouble) in [
            (MemberStatus::Present, None),
            (MemberStatus::Present, Some(MachineRecord::SHUTTING_DOWN)),
            (MemberStatus::Present, Some("systemd cannot be reached: no")),
            (MemberStatus::Lost, STOPPED),
        ] {
            let rig = Rig::new(status, trouble).await;
            rig.note().await;
            assert_eq!(rig.reason().await, "it joined", "{status:?} {trouble:?}");
        }
    }

    /// Whoever leads by now may know better.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_deposed_notes_nothing() {
        let rig = Rig::new(MemberStatus::Present, STOPPED).await;
        let ops = vec![Op::Delete {
            key: keys::LEADER.to_owned(),
        }];
        let compares = Vec::new();
        rig.store.commit(Txn { compares, ops }).await.unwrap();
        let noted = try_note(&rig.store, &rig.leadership, &rig.machine).await;
        assert!(matches!(noted, Err(Error::Conflict)), "{noted:?}");
        rig.note().await;
        assert_eq!(rig.reason().await, "it joined");
    }
}
