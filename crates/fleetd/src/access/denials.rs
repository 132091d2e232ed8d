//! What was refused, among the events and in the journal: all of it, in a bounded number of writes.
//!
//! The first refusal is told at once. What follows within [`EVERY`] is told together, the same ones
//! as one with their number. Refusals have a ring of their own, so that a flood of them pushes out
//! nothing but older refusals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::events::EventKind;
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use tracing::{debug, info};

use super::Verb;
use crate::events::{self, Event, Owner, Ring};
use crate::store::{Store, Txn};
use crate::task;

/// One write in this time: an operator who looks for the cause sees it soon, and a flood costs the
/// store nothing.
const EVERY: Duration = Duration::from_secs(10);

/// So many different refusals are told in one write; of more only their number is.
const MAX_TOLD: usize = 16;

/// Something that was refused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Denial {
    pub(crate) by: String,
    pub(crate) verb: Verb,
    pub(crate) unit: Option<String>,
    pub(crate) machine: Option<String>,
    pub(crate) why: String,
}

/// Where refusals are told. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Denials {
    machine: MachineId,
    store: Arc<dyn Store>,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    /// Not told yet, and how often.
    told: BTreeMap<Denial, u64>,
    /// So many more, of which nothing else is kept.
    n_more: u64,
    /// Somebody will tell them.
    is_told: bool,
}

impl Denials {
    pub(crate) fn new(machine: MachineId, store: Arc<dyn Store>) -> Denials {
        Denials {
            machine,
            store,
            held: Arc::default(),
        }
    }

    /// Tells of a refusal. Nobody waits for it.
    pub(crate) fn note(&self, denial: Denial) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = held.told.len() >= MAX_TOLD;
        match held.told.get_mut(&denial) {
            Some(n_times) => *n_times += 1,
            None if is_full => held.n_more += 1,
            None => {
                let Denial {
                    by,
                    verb,
                    unit,
                    machine,
                    why,
                } = &denial;
                let verb = verb.as_str();
                info!(
                    by,
                    verb,
                    unit,
                    machine,
                    reason = why,
                    "a request was denied"
                );
                held.told.insert(denial, 1);
            }
        }
        if !held.is_told {
            held.is_told = true;
            task::spawn(self.clone().tell());
        }
    }

    async fn tell(self) {
        let mut ring = None;
        loop {
            let (told, n_more) = {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                if held.told.is_empty() {
                    held.is_told = false;
                    return;
                }
                (
                    std::mem::take(&mut held.told),
                    std::mem::take(&mut held.n_more),
                )
            };
            if let Err(error) = self.write(&mut ring, told, n_more).await {
                // They are in the journal.
                debug!(%error, "refusals could not be told among the events");
                ring = None;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn write(
        &self,
        ring: &mut Option<Ring>,
        told: BTreeMap<Denial, u64>,
        n_more: u64,
    ) -> Result<(), crate::store::Error> {
        let ring = match ring {
            Some(ring) => ring,
            unread => {
                let owner = Owner::Denials(self.machine.clone());
                unread.insert(Ring::read(&*self.store, owner).await?)
            }
        };
        let mut by_whom: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        let last = told.len().saturating_sub(1);
        for (idx, (denial, n_times)) in told.into_iter().enumerate() {
            let mut why = denial.why;
            if n_times > 1 {
                why.push_str(&format!(" ({n_times} times)"));
            }
            if idx == last && n_more > 0 {
                why.push_str(&format!("; {n_more} other requests were denied meanwhile"));
            }
            by_whom.entry(denial.by).or_default().push(Event {
                kind: EventKind::Denied,
                unit: denial.unit.and_then(|name| UnitName::parse(&name).ok()),
                machine: denial.machine.map(|id| MachineId::new(&id)),
                from: None,
                why,
            });
        }
        let mut txn = Txn::default();
        for (by, events) in &by_whom {
            txn.ops.extend(ring.puts(by, events.clone()));
        }
        let revision = self.store.commit(txn).await?;
        for (by, told) in &by_whom {
            told.iter()
                .for_each(|event| events::log(event, by, revision));
        }
        Ok(())
    }
}
