//! What becomes of copies that nobody has ordered. Absence is no order: they keep running, and are
//! told to go by a decision of their own, once it is certain that nobody misses them.

use super::Planner;
use crate::cluster::{Machine, Reported, Unit, Wish};
use crate::name::UnitName;
use crate::records::{Decision, MachineId, MemberStatus, Order, Reached};

impl Planner<'_> {
    /// Copies elsewhere are too many while the unit is well where it is to be. Returns what was
    /// said of it, if there were any.
    pub(crate) fn call_off_strays(&mut self, name: &UnitName, home: &MachineId) -> Option<String> {
        let unit = self.cluster.units.get(name)?;
        if !unit.has_strays() || !self.is_well_at(unit, home) {
            return None;
        }
        let at = home.short();
        let order = unit.assignments.get(home).map(|assigned| assigned.order);
        // A copy that runs is missed by nobody only where another one runs.
        let runs = order == Some(Order::Launched);
        let called_off = self.call_off(name, &format!("it is well on {at}"), |said| {
            runs || said.reached == Reached::Loaded
        });
        let first = called_off.first()?.short();
        Some(format!(
            "it is well on {at}; a copy on {first}, which nobody has ordered, is told to go"
        ))
    }

    /// Copies that were started before it was said that the unit is wanted nowhere.
    pub(crate) fn call_off_older_strays(&mut self, name: &UnitName, wish: &Wish, why: &str) {
        self.call_off(name, why, |said| said.decision.generation < wish.generation);
    }

    /// It can be relied on: what a machine has said that is away, or that it is to leave, is not
    /// enough.
    fn is_well_at(&self, unit: &Unit, home: &MachineId) -> bool {
        let machine = self.cluster.machines.get(home);
        self.is_there(home)
            && machine.is_some_and(|machine| !machine.is_being_left())
            && unit.assignments.get(home).is_some_and(|assigned| {
                unit.has_started(home, assigned.decision, assigned.order)
                    && !unit.states.get(home).is_some_and(|state| state.failed)
            })
    }

    /// Who does not believe the store stops nothing on its word, and may not yet have said what its
    /// units really are.
    fn is_there(&self, id: &MachineId) -> bool {
        let machine = self.cluster.machines.get(id);
        self.cluster.status(id) == MemberStatus::Present
            && !machine.is_some_and(Machine::doubts_store)
    }

    fn call_off(
        &mut self,
        name: &UnitName,
        why: &str,
        is_meant: impl Fn(&Reported) -> bool,
    ) -> Vec<MachineId> {
        let Some(unit) = self.cluster.units.get(name) else {
            return Vec::new();
        };
        let strays: Vec<(MachineId, Decision)> = unit
            .strays()
            // Who is away cannot confirm it; who has retired never will.
            .filter(|(id, said)| is_meant(said) && self.is_there(id))
            .map(|(id, said)| (id.clone(), said.decision))
            .collect();
        let machines = strays.iter().map(|(id, _)| id.clone()).collect();
        for (id, done) in strays {
            // Above what the machine has done, or it would pass the order over as an old one: it may
            // have carried out a wish that this store has never had.
            let next = self.decision(name);
            let decision = Decision {
                generation: next.generation.max(done.generation),
                seq: next.seq.max(done.seq.saturating_add(1)),
            };
            self.assign_as(name, &id, Order::Gone, decision, why.to_owned());
        }
        machines
    }
}
