//! The events of machines that are gone: who told them does not write over them any more, so the leader
//! removes them when nobody asks for them any more.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::MachineId;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::events::MACHINE;
use crate::store::keys::{self, EventWriter};
use crate::store::{Compare, Error, MAX_TXN_OPS, Op, Store, Txn};
use crate::task;

/// What a machine has told is kept for so long after it was seen last.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Looked for so often, and when a leader begins.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks for rings that nobody needs.
#[derive(Debug, Default)]
pub(super) struct OldRings {
    looked_at: Option<Instant>,
}

impl OldRings {
    /// When it is time to look.
    pub(super) fn due(&self) -> Instant {
        self.looked_at.map_or_else(Instant::now, |at| at + EVERY)
    }

    /// Removes the rings of these machines in the background, while this fence holds.
    pub(super) fn remove(
        &mut self,
        store: &Arc<dyn Store>,
        fence: Vec<Compare>,
        gone: Vec<MachineId>,
    ) {
        self.looked_at = Some(Instant::now());
        let store = Arc::clone(store);
        if gone.is_empty() {
            return;
        }
        task::spawn(async move {
            // Whoever leads next, or this one tomorrow, does the rest.
            if let Err(problem) = remove(&*store, &fence, &gone).await {
                debug!(%problem, "events of machines that are gone are not removed yet");
            }
        });
    }
}

async fn remove(store: &dyn Store, fence: &[Compare], gone: &[MachineId]) -> Result<(), Error> {
    for machines in gone.chunks(MAX_TXN_OPS / 3) {
        // A ring begins with its first slot, and has it from then on.
        let first = |machine: &MachineId| {
            let machine = machine.as_str();
            let writers = [
                EventWriter::Agent(machine),
                EventWriter::Api(machine),
                EventWriter::Denials(machine),
            ];
            writers.map(|of| keys::event(of, 0))
        };
        let firsts: Vec<String> = machines.iter().flat_map(first).collect();
        for entry in store.read_keys(&firsts).await?.entries {
            let keys::Key::Event(writer, _) = keys::parse(&entry.key) else {
                continue;
            };
            let slots = (0..MACHINE.slots).map(|slot| Op::Delete {
                key: keys::event(writer, slot),
            });
            let txn = Txn {
                compares: fence.to_vec(),
                ops: slots.collect(),
            };
            let revision = store.commit(txn).await?;
            info!(%writer, revision, "events of a machine that is gone for long are removed");
        }
    }
    Ok(())
}
