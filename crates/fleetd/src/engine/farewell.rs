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
