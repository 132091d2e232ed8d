//! Copies of units on machines that have no order about them: what an old copy of the store does
//! not know of, or what its keys had lost.

use super::Cluster;
use super::facts::Reported;
use super::unit::Unit;
use crate::name::UnitName;
use crate::records::{MachineId, Reached};

impl Unit {
    /// The machine says that it has it, and has no order about it.
    pub(crate) fn is_stray(&self, id: &MachineId) -> bool {
        let is_here = |reached| matches!(reached, Reached::Loaded | Reached::Launched);
        self.assignments.get(id).is_none()
            && (self.states.get(id)).is_some_and(|state| is_here(state.reached))
    }

    /// Those machines, and what each has said.
    pub(crate) fn strays(&self) -> impl Iterator<Item = (&MachineId, &Reported)> {
        self.states.iter().filter(|(id, _)| self.is_stray(id))
    }

    /// One machine at least has it without an order.
    pub(crate) fn has_strays(&self) -> bool {
        self.strays().next().is_some()
    }
}

impl Cluster {
    /// A state or an assignment of a unit on a machine has changed: notes whether it is a stray
    /// there now.
    pub(crate) fn note_stray(&mut self, name: &UnitName, id: &MachineId) -> bool {
        let is_stray = self.units.get(name).is_some_and(|unit| unit.is_stray(id));
        if is_stray {
            let strays = self.strays.entry(id.clone()).or_default();
            strays.insert(name.clone());
        } else if let Some(strays) = self.strays.get_mut(id) {
            strays.remove(name);
            if strays.is_empty() {
                self.strays.remove(id);
            }
        }
        is_stray
    }

    /// A machine is there again: what it has without an order can be told to go.
    pub(crate) fn look_at_strays_of(&mut self, id: &MachineId) {
        let strays = self.strays.get(id).into_iter().flatten();
        self.marks.units.extend(strays.cloned());
    }

    /// A machine believes the store again: what it has without an order can be told to go, and
    /// what it says of its units counts for copies elsewhere.
    pub(crate) fn look_at_all_strays(&mut self) {
        let strays = self.strays.values().flatten();
        self.marks.units.extend(strays.cloned());
    }
}
