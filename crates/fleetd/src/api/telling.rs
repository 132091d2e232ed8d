//! What users do through this API, among the events: written with what they do.

use fleet_core::records::MachineId;
use tokio::sync::Mutex;

use super::Shared;
use crate::events::{self, Event, Owner, Ring};
use crate::store::{Error, Revision, Txn};

/// The ring of this machine's API.
pub(crate) struct Telling {
    machine: MachineId,
    /// Read before the first write: until then it is not known where it goes on.
    ring: Mutex<Option<Ring>>,
}

impl Telling {
    pub(crate) fn new(machine: MachineId) -> Telling {
        Telling {
            machine,
            ring: Mutex::new(None),
        }
    }
}

impl Shared {
    /// Runs a transaction that tells what it is about: who does what. It has at least
    /// [`events::MAX_PUTS`] operations and [`events::MAX_BYTES`] less than a store takes.
    pub(crate) async fn commit(
        &self,
        mut txn: Txn,
        by: &str,
        events: Vec<Event>,
    ) -> Result<Revision, Error> {
        if let Some(Telling { machine, ring }) = &self.telling {
            let mut ring = ring.lock().await;
            let ring = match &mut *ring {
                Some(ring) => ring,
                unread => {
                    let owner = Owner::Api(machine.clone());
                    unread.insert(Ring::read(&*self.store, owner).await?)
                }
            };
            txn.ops.extend(ring.puts(by, events.clone()));
        }
        let revision = self.store.commit(txn).await?;
        events
            .iter()
            .for_each(|event| events::log(event, by, revision));
        Ok(revision)
    }
}
