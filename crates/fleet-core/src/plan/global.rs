//! Global units: one assignment for each machine that qualifies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Planner, Whereabouts};
use crate::cluster::{Machine, Wish};
use crate::name::UnitName;
use crate::records::{MachineId, MemberStatus, Order, Refusal};
use crate::schedule::{No, Stopping, closed_because, loadable, metadata_matches};

/// As many different refusals are named; more would not be read.
pub(crate) const MAX_REFUSALS: usize = 8;

impl Planner<'_> {
    /// Looks at a global unit on all machines: after all ordinary units that have changed, and
    /// in the order of the names, whichever of its machines are marked already.
    pub(crate) fn review_global(&mut self, name: &UnitName, wish: &Wish) {
        self.cluster.waiting.remove(name);
        if wish.order(name).is_none() {
            self.cluster.marks.globals.remove(name);
            self.stop_global(name, wish);
            return;
        }
        let machines = self.cluster.machines.keys().cloned();
        let marks = &mut self.cluster.marks;
        marks
            .globals
            .entry(name.clone())
            .or_default()
            .extend(machines);
    }

    /// Looks at a global unit on some machines.
    pub(crate) fn review_global_on(&mut self, name: &UnitName, machines: &BTreeSet<MachineId>) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let Some(wish) = unit.wish.clone() else {
            return;
        };
        if unit.is_frozen() || !wish.requirements.global {
            return;
        }
        self.remove_confirmed(name);
        let Some(order) = wish.order(name) else {
            self.stop_global(name, &wish);
            return;
        };
        for id in machines {
            let no = self.judge_global(name, &wish, order, id);
            if let Some(unit) = self.cluster.units.get_mut(name) {
                match no {
                    Verdict::Runs => {
                        if let Some(rare) = &mut unit.rare {
                            rare.refused_by.remove(id);
                        }
                    }
                    Verdict::Refused(no) => {
                        let why = Arc::from(no.to_string());
                        unit.rare_mut().refused_by.insert(id.clone(), why);
                    }
                    Verdict::AsItWas => {}
                }
            }
        }
        self.summarize(name);
    }

    fn judge_global(
        &mut self,
        name: &UnitName,
        wish: &Wish,
        order: Order,
        id: &MachineId,
    ) -> Verdict {
        let Some(machine) = self.cluster.machines.get(id) else {
            return Verdict::Runs; // It is gone for good; so is its refusal.
        };
        let runs = machine.runs(name.as_str());
        match machine.status {
            MemberStatus::Retired => return Verdict::Runs,
            MemberStatus::Present => {}
            // Absent machines keep what they have, and learn of the newest wish on return.
            _ => {
                if runs {
                    self.renew(name, wish, order, id);
                }
                return Verdict::AsItWas;
            }
        }
        if runs && self.note_refusal(name, id) {
            let why = "its machine has refused it".to_owned();
            self.assign(name, id, Order::Gone, why);
            return self
                .agent_refusal(name, id)
                .map_or(Verdict::AsItWas, Verdict::Refused);
        }
        let Some(machine) = self.cluster.machines.get(id) else {
            return Verdict::Runs;
        };
        if runs && self.cluster.is_drained_of_others(id) {
            let no = No::Closed("the machine is being drained".to_owned());
            let why = format!(
                "{} is being drained, and nothing else is left there",
                id.short()
            );
            self.assign(name, id, Order::Gone, why);
            return Verdict::Refused(no);
        }
        if runs {
            return match self.may_stay_global(name, wish, machine) {
                Ok(()) => {
                    self.renew(name, wish, order, id);
                    Verdict::Runs
                }
                Err(no) => {
                    let why = format!("it may not stay on {}: {no}", id.short());
                    self.assign(name, id, Order::Gone, why);
                    Verdict::Refused(no)
                }
            };
        }
        let judged = match closed_because(machine) {
            Some(why) => Err(No::Closed(why)),
            None => self.may_come_global(name, wish, machine),
        };
        match (judged, self.agent_refusal(name, id)) {
            (Err(no), _) | (Ok(()), Some(no)) => Verdict::Refused(no),
            (Ok(()), None) => {
                let reason = "global: the machine qualifies".to_owned();
                self.assign(name, id, order, reason);
                Verdict::Runs
            }
        }
    }

    fn agent_refusal(&self, name: &UnitName, id: &MachineId) -> Option<No> {
        let unit = self.cluster.units.get(name)?;
        if unit.goes_by_a_higher_number(id) {
            return Some(No::StrayThere);
        }
        let back_off = unit.back_off(id, self.now.monotonic_ms)?;
        Some(No::RefusedByAgent(back_off.why.clone()))
    }

    /// An ordinary unit that is placed there stays, and the global unit gives way; of two
    /// global units the one with the newer wish does.
    fn may_stay_global(&self, name: &UnitName, wish: &Wish, machine: &Machine) -> Result<(), No> {
        if !machine.damaged.is_empty() {
            return Ok(());
        }
        let needs = &wish.requirements;
        metadata_matches(needs, machine)?;
        let rank = self.cluster.rank(name);
        for other in self.cluster.conflicting(name, needs, machine) {
            let loses = !self.cluster.is_global(&other) || self.cluster.rank(&other) < rank;
            if machine.runs(other.as_str()) && loses {
                return Err(self
                    .cluster
                    .conflict_words(name, needs, &other, Stopping(false)));
            }
        }
        Ok(())
    }

    fn may_come_global(&self, name: &UnitName, wish: &Wish, machine: &Machine) -> Result<(), No> {
        loadable(name)?;
        let needs = &wish.requirements;
        metadata_matches(needs, machine)?;
        match self.cluster.conflicting(name, needs, machine).first() {
            Some(other) => {
                let stopping = Stopping(!machine.runs(other.as_str()));
                Err(self.cluster.conflict_words(name, needs, other, stopping))
            }
            None => Ok(()),
        }
    }

    /// A global unit that is wanted nowhere any more.
    fn stop_global(&mut self, name: &UnitName, wish: &Wish) {
        if let Some(rare) = self
            .cluster
            .units
            .get_mut(name)
            .and_then(|unit| unit.rare.as_mut())
        {
            rare.refused_by.clear();
        }
        self.stop(name, wish);
    }

    /// Writes on how many machines a global unit is, and what keeps it from the others.
    fn summarize(&mut self, name: &UnitName) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let assigned = unit.wanted_at().count();
        let refused_by = unit.rare.as_ref().map(|rare| &rare.refused_by);
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for why in refused_by.into_iter().flat_map(|by| by.values()) {
            *counts.entry(why).or_default() += 1;
        }
        let refused: u32 = counts.values().sum();
        let assigned = u32::try_from(assigned).unwrap_or(u32::MAX);
        let whereabouts = Whereabouts {
            reason: "global: on every machine that qualifies".to_owned(),
            refusals: most_frequent(counts.into_iter().map(|(why, n)| (why.to_owned(), n))),
            considered: assigned.saturating_add(refused),
            assigned,
            ..Whereabouts::default()
        };
        self.settle(name, whereabouts);
    }
}

/// What became of a global unit on a machine.
enum Verdict {
    Runs,
    Refused(No),
    AsItWas,
}

/// The most frequent refusals, in a fixed order.
pub(crate) fn most_frequent(counts: impl Iterator<Item = (String, u32)>) -> Vec<Refusal> {
    let mut refusals: Vec<_> = counts
        .map(|(requirement, machines)| Refusal {
            requirement,
            machines,
        })
        .collect();
    refusals.sort_by(|a, b| {
        b.machines
            .cmp(&a.machines)
            .then_with(|| a.requirement.cmp(&b.requirement))
    });
    refusals.truncate(MAX_REFUSALS);
    refusals
}
