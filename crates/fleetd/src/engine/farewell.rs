//! The last that an engine does when its fleetd is stopped: it sees to it that this is written down as
//! meant.
//!
//! Who leaves in order says so in its presence, which ends with its lease. A leader that sees it
//! notes it in the machine's membership record, which stays. When all of them are stopped at once
//! nobody may be left to see the last ones leave, and the next leader would take them for lost. So a
//! leader notes its own machine; whoever does not lead waits until it is noted, and leads for just that
//! when nobody else does.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::{MachineId, MachineRecord, MemberRecord, MemberStatus};
use tokio::sync::watch;
use tracing::warn;

use super::Farewell;
use super::leadership::{Campaign, Leadership, changed};
use crate::agent::Standing;
use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::Document;
use crate::store::{Compare, Error, Op, Revision, Store, Txn, keys};

/// An agent that stops has said so by then; its own parts end within two seconds.
const SAID_WITHIN: Duration = Duration::from_secs(3);

/// For so long a leader's stop is held up by a store that does not answer, before it gives leadership
/// back.
const NOTED_WITHIN: Duration = Duration::from_millis(500);

/// For so long the stop of a fleetd that does not lead waits for its note. Leaders write it within
/// milliseconds; one that has died with its machine does not before its lease ends, and nobody waits for
/// that.
const SEEN_OFF_WITHIN: Duration = Duration::from_secs(1);

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
pub(super) async fn note(
    store: &Arc<dyn Store>,
    leadership: &Leadership,
    machine: &MachineId,
) -> Farewell {
    let noting = try_note(store, leadership, machine);
    match tokio::time::timeout(NOTED_WITHIN, noting).await {
        Ok(Ok(())) => Farewell::Noted,
        Ok(Err(_)) | Err(_) => Farewell::Open,
    }
}

/// Waits until it is noted that this machine's fleetd is stopped in order, if it has said so. When
/// nobody leads, and it may, it does so itself.
pub(super) async fn see_off(candidate: &Campaign<'_>, may_lead: bool) {
    let seeing = try_see_off(candidate, may_lead);
    let why = match tokio::time::timeout(SEEN_OFF_WITHIN, seeing).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nobody has answered in time".to_owned(),
    };
    warn!(
        why,
        "that fleetd stops here in order is not noted: the next leader may take this machine for lost"
    );
}

async fn try_see_off(candidate: &Campaign<'_>, may_lead: bool) -> Result<(), Error> {
    let (store, machine) = (candidate.store, candidate.machine);
    loop {
        let (revision, open) = read(store, machine).await?;
        if open.is_none() {
            return Ok(());
        }
        let member = keys::member(machine.as_str());
        let leading = async {
            match may_lead {
                // It waits while somebody leads.
                true => candidate.win().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changed(store, &member, revision) => changed?,
            won = leading => {
                let leadership = won?;
                let noted = try_note(store, &leadership, machine).await;
                leadership.resign().await;
                return noted;
            }
        }
    }
}

/// The membership record of a machine that has said that its fleetd is stopped in order, and of which
/// nobody has noted that: its revision in the store, and itself.
type Open = Option<(Revision, MemberRecord)>;

/// Also: at which revision that was so.
async fn read(store: &Arc<dyn Store>, machine: &MachineId) -> Result<(Revision, Open), Error> {
    let presence = keys::machine(machine.as_str());
    let member = keys::member(machine.as_str());
    let read = store.read_keys(&[presence.clone(), member.clone()]).await?;
    let find = |key: &str| read.entries.iter().find(|entry| entry.key == key);
    let said = find(&presence)
        .and_then(|entry| MachineRecord::decode(&entry.key, &entry.value).ok())
        .is_some_and(|record| record.is_stopped_in_order());
    let Some(entry) = find(&member).filter(|_| said) else {
        return Ok((read.revision, None));
    };
    let record = MemberRecord::decode(&entry.key, &entry.value)?;
    let is_open = record.status == MemberStatus::Present && record.reason != MemberRecord::LEAVES;
    let open = is_open.then_some((entry.mod_revision, record));
    Ok((read.revision, open))
}

async fn try_note(
    store: &Arc<dyn Store>,
    leadership: &Leadership,
    machine: &MachineId,
) -> Result<(), Error> {
    let (_, Some((revision, mut record))) = read(store, machine).await? else {
        return Ok(());
    };
    MemberRecord::LEAVES.clone_into(&mut record.reason);
    let member = keys::member(machine.as_str());
    let mut compares = leadership.compares();
    compares.push(Compare::ModRevision(member.clone(), revision));
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
    use crate::lease_thread::LeaseThread;
    use crate::store::Entry;
    use crate::store::memory::MemoryStore;

    /// What stands in the store of the machine, and its candidate for leadership.
    struct Rig {
        store: Arc<dyn Store>,
        machine: MachineId,
        status: watch::Sender<EngineStatus>,
        leases: LeaseThread,
    }

    impl Rig {
        async fn new(status: MemberStatus, trouble: Option<&str>) -> Rig {
            let store: Arc<dyn Store> = MemoryStore::new();
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
            Rig {
                store,
                machine: MachineId::new("m1"),
                status: watch::Sender::default(),
                leases: LeaseThread::default(),
            }
        }

        fn candidate<'a>(&'a self, machine: &'a MachineId) -> Campaign<'a> {
            Campaign {
                store: &self.store,
                machine,
                version: 1,
                ttl: Duration::from_secs(60),
                status: &self.status,
                leases: &self.leases,
            }
        }

        async fn led_by(&self, machine: &str) -> Leadership {
            let machine = MachineId::new(machine);
            self.candidate(&machine).win().await.unwrap()
        }

        async fn get(&self, key: &str) -> Option<Entry> {
            let read = self.store.read_keys(&[key.to_owned()]).await.unwrap();
            read.entries.into_iter().next()
        }

        async fn reason(&self) -> String {
            let entry = self.get(&keys::member("m1")).await.unwrap();
            let record = MemberRecord::decode(&entry.key, &entry.value).unwrap();
            record.reason
        }

        async fn note(&self) {
            let leadership = self.led_by("m1").await;
            note(&self.store, &leadership, &self.machine).await;
        }

        /// Also: how long that took.
        async fn see_off(&self, may_lead: bool) -> Duration {
            let begun = tokio::time::Instant::now();
            see_off(&self.candidate(&self.machine), may_lead).await;
            begun.elapsed()
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
        let leadership = rig.led_by("m1").await;
        let ops = vec![Op::Delete {
            key: keys::LEADER.to_owned(),
        }];
        let compares = Vec::new();
        rig.store.commit(Txn { compares, ops }).await.unwrap();
        let noted = note(&rig.store, &leadership, &rig.machine).await;
        assert_eq!(noted, Farewell::Open);
        assert_eq!(rig.reason().await, "it joined");
    }

    /// The leader has gone before.
    #[tokio::test(start_paused = true)]
    async fn who_leaves_when_nobody_leads_notes_it_itself_and_leads_no_longer_than_that() {
        let rig = Rig::new(MemberStatus::Present, STOPPED).await;
        rig.see_off(true).await;
        assert_eq!(rig.reason().await, MemberRecord::LEAVES);
        assert!(rig.get(keys::LEADER).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_waits_for_the_leaders_note_and_no_longer() {
        for may_lead in [true, false] {
            let rig = Rig::new(MemberStatus::Present, STOPPED).await;
            let leadership = rig.led_by("m2").await;
            let later = SEEN_OFF_WITHIN / 4;
            let noted = async {
                tokio::time::sleep(later).await;
                try_note(&rig.store, &leadership, &rig.machine)
                    .await
                    .unwrap();
            };
            let (took, ()) = tokio::join!(rig.see_off(may_lead), noted);
            assert!(took >= later && took < SEEN_OFF_WITHIN, "{took:?}");
            assert!(rig.get(keys::LEADER).await.is_some(), "it leads on");
        }
    }

    /// The leader takes its leave while the last word of this machine is on its way.
    #[tokio::test(start_paused = true)]
    async fn who_leaves_after_the_leader_takes_the_leadership_that_is_given_back() {
        let rig = Rig::new(MemberStatus::Present, STOPPED).await;
        let leadership = rig.led_by("m2").await;
        let resigns = async {
            tokio::time::sleep(SEEN_OFF_WITHIN / 4).await;
            leadership.resign().await;
        };
        tokio::join!(rig.see_off(true), resigns);
        assert_eq!(rig.reason().await, MemberRecord::LEAVES);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_leader_that_is_dead_nor_for_what_was_not_said() {
        let rig = Rig::new(MemberStatus::Present, STOPPED).await;
        let _leadership = rig.led_by("m2").await;
        assert_eq!(rig.see_off(true).await, SEEN_OFF_WITHIN);
        let rig = Rig::new(MemberStatus::Present, None).await;
        let _leadership = rig.led_by("m2").await;
        assert_eq!(rig.see_off(true).await, Duration::ZERO);
        assert_eq!(rig.reason().await, "it joined");
    }
}
