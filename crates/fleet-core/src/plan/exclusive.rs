//! Exclusive units on machines that nobody can see: when it is certain that they have stopped
//! there, and what is said until then. How long they may run there: `cluster::bound`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Planner;
use crate::cluster::{Assigned, Cluster, End, Machine, Timer, Unit, Wish};
use crate::name::UnitName;
use crate::records::{MachineId, MemberStatus, Order};
use crate::text::time_of_day;

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
        let now_ms = self.now.monotonic_ms;
        self.cluster.surely_ended_at(unit, id, now_ms)
    }

    /// It waits for machines that did not believe this store and have vanished: it is looked at again
    /// when one of them has surely stopped it.
    pub(crate) fn await_doubters(&mut self, name: &UnitName) {
        let now_ms = self.now.monotonic_ms;
        let doubters = self.cluster.doubters_with(name, now_ms);
        let first = doubters.filter_map(|doubter| doubter.until).min();
        if let Some(due) = first {
            self.cluster.timers.insert((due, Timer::Unit(name.clone())));
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
        Some(match unit.end_at(id) {
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
