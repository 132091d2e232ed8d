//! A unit as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Assigned, Place, Reported, Wish};
use crate::records::{Decision, MachineId, Order, PlacementRecord, Reached};
use crate::small_map::SmallMap;

#[derive(Clone, Default, Debug)]
pub(crate) struct Unit {
    pub(crate) wish: Option<Wish>,
    pub(crate) placement: Option<Box<PlacementRecord>>,
    pub(crate) assignments: SmallMap<MachineId, Assigned>,
    pub(crate) states: SmallMap<MachineId, Reported>,
    /// The highest seq that any decision on it has had.
    pub(crate) last_seq: u64,
    /// What only few units have.
    pub(crate) rare: Option<Box<Rare>>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Rare {
    /// Its keys that cannot be read; while there are any, nothing about it changes.
    pub(crate) damaged: BTreeSet<Place>,
    /// Machines whose agents have refused it.
    pub(crate) back_offs: BTreeMap<MachineId, BackOff>,
    /// It has failed and is moved then, in monotonic milliseconds, if it has not recovered.
    pub(crate) move_due: Option<u64>,
    /// It was moved because it had failed, and has lasted when it is well until then.
    pub(crate) lasts_at: Option<u64>,
    /// Of a global unit: the machines that may not run it, and why.
    pub(crate) refused_by: BTreeMap<MachineId, Arc<str>>,
}

/// An agent's refusal, or a failure that ended a move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BackOff {
    /// Not tried there before this, in monotonic milliseconds.
    pub(crate) until: u64,
    /// How often in a row.
    pub(crate) times: u32,
    pub(crate) why: Arc<str>,
    /// It failed there while it was being moved; otherwise it was refused.
    pub(crate) failed: bool,
}

impl Unit {
    /// The machine that is to run it: of those where it is wanted, the one decided last.
    pub(crate) fn home(&self) -> Option<&MachineId> {
        self.wanted_at()
            .max_by(|(a_id, a), (b_id, b)| a.decision.cmp(&b.decision).then(b_id.cmp(a_id)))
            .map(|(id, _)| id)
    }

    /// The machines with an assignment that wants it to be there.
    pub(crate) fn wanted_at(&self) -> impl Iterator<Item = (&MachineId, &Assigned)> {
        self.assignments
            .iter()
            .filter(|(_, assigned)| assigned.order != Order::Gone)
    }

    pub(crate) fn is_global(&self) -> bool {
        self.wish
            .as_ref()
            .is_some_and(|wish| wish.requirements.global)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| !rare.damaged.is_empty())
    }

    /// Wanted at two machines: the older one keeps it until the newer one has started it.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.placement
            .as_ref()
            .is_some_and(|placement| placement.machine.is_some() && placement.leaving.is_some())
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The refusal of a machine that still counts.
    pub(crate) fn back_off(&self, machine: &MachineId, now_ms: u64) -> Option<&BackOff> {
        let back_off = self.rare.as_ref()?.back_offs.get(machine)?;
        (now_ms < back_off.until).then_some(back_off)
    }

    pub(crate) fn has_backed_off(&self, machine: &MachineId) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| rare.back_offs.contains_key(machine))
    }

    pub(crate) fn forget_back_offs(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.back_offs.clear();
        }
    }

    /// The agent has carried out at least this decision, and come as far as the order says.
    pub(crate) fn has_reached(
        &self,
        machine: &MachineId,
        decision: Decision,
        order: Order,
    ) -> bool {
        self.states.get(machine).is_some_and(|state| {
            state.decision >= decision
                && match order {
                    Order::Gone => state.reached == Reached::Gone,
                    Order::Loaded => matches!(state.reached, Reached::Loaded | Reached::Launched),
                    Order::Launched => state.reached == Reached::Launched,
                }
        })
    }

    /// As [`Unit::has_reached`], and what was to be started is not still on its way.
    pub(crate) fn has_started(
        &self,
        machine: &MachineId,
        decision: Decision,
        order: Order,
    ) -> bool {
        self.has_reached(machine, decision, order)
            && !(order == Order::Launched
                && self.states.get(machine).is_some_and(|state| state.starting))
    }

    /// systemd has started the newest decision and has given the unit up. What restarts by itself
    /// is `activating` meanwhile.
    pub(crate) fn has_failed(&self, machine: &MachineId, decision: Decision) -> bool {
        let has_given_up = |state: &Reported| {
            state.failed || state.starting && planted!("systemd's own restarts are not waited for")
        };
        self.has_reached(machine, decision, Order::Launched)
            && self.states.get(machine).is_some_and(has_given_up)
    }

    /// It has been started, has not failed, and is not on its way any more.
    pub(crate) fn is_well(&self, machine: &MachineId, decision: Decision) -> bool {
        self.has_started(machine, decision, Order::Launched) && !self.has_failed(machine, decision)
    }

    /// Its failures are a reason to move it.
    pub(crate) fn moves_when_it_fails(&self) -> bool {
        self.wish.as_ref().is_some_and(|wish| {
            !wish.requirements.global && wish.requirements.reschedule_on_failure > 0
        })
    }

    /// The machine is to stop a copy that a wish had started which this store has never had, and has
    /// not confirmed it. Its order is numbered above that wish, and so above all that this store can
    /// say of the unit: another order would count as an older one there.
    pub(crate) fn goes_by_a_higher_number(&self, machine: &MachineId) -> bool {
        let Some(wish) = &self.wish else {
            return false;
        };
        self.assignments.get(machine).is_some_and(|assigned| {
            assigned.order == Order::Gone && assigned.decision.generation > wish.generation
        })
    }

    pub(crate) fn has_no_wish(&self) -> bool {
        self.wish.is_none()
    }

    pub(crate) fn is_void(&self) -> bool {
        self.wish.is_none()
            && self.placement.is_none()
            && self.assignments.is_empty()
            && self.states.is_empty()
            && !self.is_frozen()
    }
}
