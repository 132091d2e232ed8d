//! How long an exclusive unit may outlive the last sign of a machine.
//!
//! A machine's systemd stops such units when its lease has ended, whatever has become of its fleetd. The
//! time counts from the end of the lease in the store: the machine's own ends no later, except
//! when the key was removed before its time. So the whole length of the lease is added.

use std::time::Duration;

use super::{Cluster, Unit};
use crate::exclusive::{MARGIN, UNKNOWN_LEASE};
use crate::name::UnitName;
use crate::records::{MachineId, Reached};

/// What is known of the end of an exclusive unit on a machine that is away.
pub(crate) enum End {
    /// It has stopped when so much time has passed since the machine vanished.
    After(Duration),
    /// What runs there is bound to no lease, or its stop has no end.
    Unknown,
}

/// A machine that may run an exclusive unit that this store does not know of.
pub(crate) struct Doubter<'a> {
    pub(crate) id: &'a MachineId,
    pub(crate) is_there: bool,
    /// Until then, in monotonic milliseconds; None: nobody knows.
    pub(crate) until: Option<u64>,
}

impl Unit {
    /// How long after a machine vanished its copy may run.
    pub(crate) fn end_at(&self, id: &MachineId) -> End {
        let wish = self.wish.as_ref();
        let Some(within) = wish.and_then(|wish| wish.requirements.stops_within) else {
            return End::Unknown;
        };
        let lease = match self.states.get(id) {
            // Nothing has been said of it; what it was assigned last would be bound.
            None => UNKNOWN_LEASE,
            Some(state) => match (state.leased_ms, state.reached) {
                (Some(lease), _) => Duration::from_millis(lease),
                (None, Reached::Gone | Reached::Refused) => Duration::ZERO,
                (None, _) => return End::Unknown,
            },
        };
        End::After(lease.saturating_add(within).saturating_add(MARGIN))
    }
}

impl Cluster {
    /// When a unit has certainly stopped on a machine that is away, in monotonic milliseconds. None:
    /// nobody knows.
    pub(crate) fn surely_ended_at(&self, unit: &Unit, id: &MachineId, now_ms: u64) -> Option<u64> {
        let machine = self.machines.get(id)?;
        match unit.end_at(id) {
            End::After(_) if planted!("an exclusive unit moves when its machine is lost") => {
                Some(0)
            }
            End::After(time) => {
                let vanished_at = machine.vanished_at.unwrap_or(now_ms);
                let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                Some(vanished_at.saturating_add(time))
            }
            End::Unknown => None,
        }
    }

    /// The machines that may run an exclusive unit whatever this store says of it, since they do not
    /// believe it: while they are there, and when they have vanished until it has surely stopped.
    pub(crate) fn doubters_with(
        &self,
        name: &UnitName,
        now_ms: u64,
    ) -> impl Iterator<Item = Doubter<'_>> {
        let unit = self.units.get(name);
        self.doubters.iter().filter_map(move |id| {
            let is_there = self.machines.get(id)?.doubts_store();
            let until = match is_there {
                true => None,
                false => self.surely_ended_at(unit?, id, now_ms),
            };
            let has_ended = until.is_some_and(|until| until <= now_ms);
            let doubter = Doubter {
                id,
                is_there,
                until,
            };
            (!has_ended).then_some(doubter)
        })
    }
}
