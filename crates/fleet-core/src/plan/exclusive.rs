//! Exclusive units on machines that nobody can see: when it is certain that they have stopped
//! there, and what is said until then.
//!
//! A machine's systemd stops them when its lease has ended, whatever has become of its fleetd. The
//! time counts from the end of the lease in the store: the machine's own ends no later, except
//! when the key was removed before its time. So the whole length of the lease is added.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Planner;
use crate::cluster::{Assigned, Cluster, Machine, Timer, Unit, Wish};
use crate::exclusive::{MARGIN, UNKNOWN_LEASE};
use crate::name::UnitName;
use crate::records::{MachineId, MemberStatus, Order, Reached};
use crate::text::time_of_day;

/// What is known of the end of an exclusive unit on a machine that is away.
enum End {
    /// It has stopped when so much time has passed since the machine vanished.
    After(Duration),
    /// What runs there is bound to no lease, or its stop has no end.
    Unknown,
}

impl Planner<'_> {
    /// Whether an exclusive unit has certainly stopped on a machine that is away. If not, it is
    /// looked at again when it has.
    pub(crate) fn awaits_end(&mut self, name: &UnitName, id: &MachineId) -> bool {
        let Some(unit) = self.cluster.units.get(name) else {
            return true;
        };
        let due = self.due(unit, id);
        if let Some(due) = due
            && self.now.monotonic_ms < due
        {
            self.cluster.timers.insert((due, Timer::Unit(name.clone())));
        }
        due.is_some_and(|due| due <= self.now.monotonic_ms)
    }

    /// As [`Planner::awaits_end`] for any unit; one that is not exclusive is not waited for.
    pub(crate) fn has_surely_ended(&self, unit: &Unit, id: &MachineId) -> bool {
        let exclusive = unit.wish.as_ref().is_some_and(|w| w.requirements.exclusive);
        !exclusive
            || self
                .due(unit, id)
                .is_some_and(|due| due <= self.now.monotonic_ms)
    }

    /// When it has certainly stopped, in monotonic milliseconds.
    fn due(&self, unit: &Unit, id: &MachineId) -> Option<u64> {
        let machine = self.cluster.machines.get(id)?;
        match end(unit, id) {
            End::After(_) if planted!("an exclusive unit moves when its machine is lost") => {
                Some(0)
            }
            End::After(time) => {
                let vanished_at = machine.vanished_at.unwrap_or(self.now.monotonic_ms);
                Some(vanished_at.saturating_add(milliseconds(time)))
            }
            End::Unknown => None,
        }
    }

    /// Why an exclusive unit is still placed on a machine that is given up.
    pub(crate) fn why_still_there(
        &self,
        name: &UnitName,
        wish: &Wish,
        id: &MachineId,
    ) -> Option<String> {
        let machine = self.cluster.machines.get(id)?;
        let given_up = matches!(machine.status, MemberStatus::Lost | MemberStatus::Retired);
        if !wish.requirements.exclusive || !given_up || !machine.is_absent() {
            return None;
        }
        let unit = self.cluster.units.get(name)?;
        let at = id.short();
        Some(match end(unit, id) {
            End::After(time) => format!(
                "{at}{STILL_THERE}is Exclusive and may still be stopping there: it starts elsewhere \
                 at {} UTC, when it has certainly ended",
                clock_time(machine, time)
            ),
            End::Unknown => format!(
                "{at}{STILL_THERE}was started there before it was Exclusive, or its stop has no end: \
                 nobody knows whether it still runs, and it waits until {at} is back"
            ),
        })
    }
}

/// In every reason of [`Planner::why_still_there`], and in no other.
const STILL_THERE: &str = " is lost; it ";

/// Whether a reason is one of [`Planner::why_still_there`].
pub(super) fn is_still_there(reason: &str) -> bool {
    reason.contains(STILL_THERE)
}

/// How long after a machine vanished its copy may run.
fn end(unit: &Unit, id: &MachineId) -> End {
    let within = unit
        .wish
        .as_ref()
        .and_then(|wish| wish.requirements.stops_within);
    let Some(within) = within else {
        return End::Unknown;
    };
    let lease = match unit.states.get(id) {
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

/// The machines of which a change believes that they are away: the unit gets another machine, and
/// they had it. Whoever stood still for a while hears only then that one is back.
pub(super) fn relied_on(
    cluster: &Cluster,
    unit: Option<&Unit>,
    touched: &BTreeMap<MachineId, Option<Assigned>>,
) -> Vec<MachineId> {
    let Some(unit) = unit.filter(|unit| !unit.is_global()) else {
        return Vec::new();
    };
    let exclusive = unit.wish.as_ref().is_some_and(|w| w.requirements.exclusive);
    let begins = unit.home().is_some_and(|home| {
        let before = touched.get(home);
        before.is_some_and(|before| before.is_none_or(|before| before.order == Order::Gone))
    });
    if !begins {
        return Vec::new();
    }
    let is_absent = |id: &MachineId| cluster.machines.get(id).is_some_and(Machine::is_absent);
    let others = unit
        .assignments
        .iter()
        .filter(|(id, _)| unit.home() != Some(*id));
    // Who has retired loses its assignment in the same change.
    let retired = touched.iter().filter_map(|(id, before)| {
        let before = before.as_ref()?;
        unit.assignments.get(id).is_none().then_some((id, before))
    });
    others
        .chain(retired)
        .filter(|(id, assigned)| match exclusive {
            // It may start there the moment they are back.
            true => !unit.has_reached(id, assigned.decision, Order::Gone),
            false => is_absent(id),
        })
        .map(|(id, _)| id.clone())
        .collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The time of day, some time after the machine vanished.
fn clock_time(machine: &Machine, time: Duration) -> String {
    let at = machine.vanished_unix_ms.saturating_add(milliseconds(time));
    // Whole seconds, rounded up.
    time_of_day(at.div_ceil(1_000) * 1_000)
}
