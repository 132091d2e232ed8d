//! Machines that have refused a unit, or failed to start it, are not asked again at once.

use std::sync::Arc;

use super::Planner;
use crate::cluster::{BackOff, Timer};
use crate::name::UnitName;
use crate::records::{MachineId, Reached};

/// First pause before a machine that refused a unit is asked again: long enough for a person
/// to mend what was refused, short enough not to be forgotten.
const FIRST_BACK_OFF_MS: u64 = 15_000;
/// Pauses double up to this.
const MAX_BACK_OFF_MS: u64 = 600_000;

impl Planner<'_> {
    /// Whether the machine's agent has refused what it was last assigned; the refusal is noted.
    pub(crate) fn note_refusal(&mut self, name: &UnitName, id: &MachineId) -> bool {
        let Some(unit) = self.cluster.units.get(name) else {
            return false;
        };
        let (Some(assigned), Some(state)) = (unit.assignments.get(id), unit.states.get(id)) else {
            return false;
        };
        if state.reached != Reached::Refused || state.decision < assigned.decision {
            return false;
        }
        self.back_off(name, id, false);
        true
    }

    /// The unit failed on a machine that it was being moved to; the machine is not tried again
    /// at once.
    pub(crate) fn note_failure(&mut self, name: &UnitName, id: &MachineId) {
        self.back_off(name, id, true);
    }

    fn back_off(&mut self, name: &UnitName, id: &MachineId, failed: bool) {
        let now_ms = self.now.monotonic_ms;
        let Some(unit) = self.cluster.units.get_mut(name) else {
            return;
        };
        let why = unit.states.get(id).and_then(|state| state.why.clone());
        let why = why.unwrap_or_else(|| Arc::from("no reason given"));
        let back_offs = &mut unit.rare_mut().back_offs;
        let times = back_offs.get(id).map_or(0, |back_off| back_off.times) + 1;
        let pause = FIRST_BACK_OFF_MS.saturating_mul(1 << (times - 1).min(16));
        let until = now_ms.saturating_add(pause.min(MAX_BACK_OFF_MS));
        let back_off = BackOff {
            until,
            times,
            why,
            failed,
        };
        back_offs.insert(id.clone(), back_off);
        let timer = Timer::BackOff(name.clone(), id.clone());
        self.cluster.timers.insert((until, timer));
    }

    /// Whether there is a machine that is not asked again yet.
    pub(crate) fn is_backed_off(&self, name: &UnitName) -> bool {
        let unit = self.cluster.units.get(name);
        let rare = unit.and_then(|unit| unit.rare.as_ref());
        rare.is_some_and(|rare| {
            let mut back_offs = rare.back_offs.values();
            back_offs.any(|back_off| self.now.monotonic_ms < back_off.until)
        })
    }
}
