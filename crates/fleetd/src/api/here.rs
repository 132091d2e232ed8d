//! What only machines have: this one's systemd and journal, and the way to those of others.

use std::sync::Arc;

use fleet_core::records::{MachineId, MachineRecord};
use tokio::sync::Semaphore;

use super::failure::Failure;
use super::read::Reading;
use super::request::Call;
use crate::peer::{self, Peer, Peers, Way};
use crate::store::keys;
use crate::units::UnitManager;

/// So many read this machine's journal at the same time, each with a journalctl of its own.
const MAX_JOURNALCTLS: usize = 64;

/// This machine, and the others as it asks them.
pub(crate) struct Here {
    pub(crate) machine: MachineId,
    pub(crate) manager: Arc<dyn UnitManager>,
    pub(crate) journalctls: Arc<Semaphore>,
    peers: Peers,
}

impl Here {
    pub(crate) fn new(
        machine: MachineId,
        manager: Arc<dyn UnitManager>,
        way: Arc<dyn Way>,
    ) -> Here {
        Here {
            peers: Peers::new(machine.clone(), way),
            machine,
            manager,
            journalctls: Arc::new(Semaphore::new(MAX_JOURNALCTLS)),
        }
    }

    /// Another machine, on behalf of whoever asks.
    pub(crate) async fn peer(
        &self,
        reading: &mut Reading<'_>,
        machine: &MachineId,
        behalf: Option<&str>,
    ) -> Result<Result<Peer, peer::Error>, Failure> {
        let entry = reading.key(keys::machine(machine.as_str())).await?;
        let record: Option<MachineRecord> = entry.and_then(|entry| reading.decode(&entry));
        Ok(self.peers.peer(machine, record.as_ref(), behalf))
    }

    /// Refuses what another machine has passed on, and is about yet another one.
    pub(crate) fn check_hop(&self, call: &Call, machine: &str) -> Result<(), Failure> {
        if !is_passed_on(call) || machine == self.machine.as_str() {
            return Ok(());
        }
        Err(Failure::new(
            421,
            format!(
                "this is machine {}, not {machine}, and what was passed on once is not passed on again",
                self.machine.short()
            ),
        ))
    }
}

/// Another machine's fleetd asks on behalf of somebody.
pub(crate) fn is_passed_on(call: &Call) -> bool {
    call.headers.contains_key(fleet_api::HOP_HEADER)
}
