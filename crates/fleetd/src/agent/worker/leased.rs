//! What the agent says of exclusive units: how long they may outlive the last sign of their machine.

use fleet_core::agent::Observed;
use fleet_core::name::UnitName;
use fleet_core::records::StateRecord;

use super::{LAST_WORDS, Worker};
use crate::units::is_exclusive;

impl Worker {
    /// How long after the last sign of this machine a unit may run here, if it is bound to the lease.
    pub(super) fn leased_ms(&mut self, unit: &UnitName, observed: &Observed) -> Option<u64> {
        self.lease = self.lease.max(self.config.borrow().ttl);
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        if observed.is_exclusive {
            // A fleetd before may have prolonged the lease, and said so.
            let before = self.publisher.published(unit).and_then(|s| s.leased_ms);
            let stands = !observed.is_lease_set && !observed.is_down();
            return Some(before.filter(|_| stands).unwrap_or(lease));
        }
        // What is not here yet will be bound when it is.
        let comes = observed.file.is_none() && observed.is_down();
        let text = self.desired.get(unit).map(|assigned| &assigned.text);
        (comes && text.is_some_and(|text| is_exclusive(text))).then_some(lease)
    }

    /// What is to be said of the exclusive units that run here, when fleetd is stopped and the machine
    /// is not: they are kept until it is back, for as long as the cluster leaves them here. It is all
    /// of them or none: they have one lease.
    pub(super) async fn bound_until_back(&mut self) -> Vec<(UnitName, StateRecord)> {
        let grace = self.config.borrow().unsupervised_grace;
        let kept = u64::try_from((self.lease + grace).as_millis()).unwrap_or(u64::MAX);
        let mut bound = Vec::new();
        for (unit, observed) in self.manager.observe_all() {
            if !observed.is_exclusive {
                continue;
            }
            match self.publisher.published(&unit) {
                _ if observed.is_down() && observed.working.is_none() => {}
                Some(state) if observed.working.is_none() => {
                    let mut state = state.clone();
                    state.leased_ms = Some(kept);
                    bound.push((unit, state));
                }
                // It is on its way, or nobody knows of it yet.
                _ => return Vec::new(),
            }
        }
        let asked = tokio::time::timeout(LAST_WORDS, self.manager.is_shutting_down());
        match bound.is_empty() || asked.await != Ok(false) {
            true => Vec::new(),
            false => bound,
        }
    }
}
