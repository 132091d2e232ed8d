//! Why units wait, in words and numbers.
//!
//! Counting refusals asks every machine, so it is done when a unit begins to wait, and again
//! when machines have changed, but then at most once a second and within a budget: reasons may
//! be a little late, placements are not.

use std::collections::BTreeMap;

use super::global::most_frequent;
use super::moves::{Cause, Move};
use super::{Planner, Whereabouts};
use crate::cluster::Wish;
use crate::name::UnitName;
use crate::records::{MemberStatus, Refusal};
use crate::schedule::{Search, metadata_words};

/// Between two rounds in which all reasons are given anew.
const EXPLAIN_PAUSE_MS: u64 = 1000;
/// A unit that finds a machine asks so many others why not they: about 10 µs at most. What waits
/// is asked about however many there are, since then somebody has to act.
const MAX_ASKED_WHEN_PLACED: usize = 100;

impl Planner<'_> {
    pub(crate) fn explain_waits(&mut self) {
        let now_ms = self.now.monotonic_ms;
        let mut budget = self.cluster.settings.explain_budget;
        let cost = self.cluster.machines.len().max(1);
        for name in std::mem::take(&mut self.new_waits) {
            if !self.cluster.waiting.units.contains_key(&name) {
                continue;
            }
            self.explain_one(&name, budget >= cost);
            if budget < cost {
                self.cluster.explain.queue.insert(name);
            }
            budget = budget.saturating_sub(cost);
        }
        if now_ms < self.cluster.explain.not_before || self.cluster.explain.due_at().is_none() {
            return;
        }
        if std::mem::take(&mut self.cluster.explain.all) {
            let waiting = self.cluster.waiting.units.keys().cloned();
            self.cluster.explain.queue.extend(waiting);
        }
        while budget >= cost
            && let Some(name) = self.cluster.explain.queue.pop_first()
        {
            if self.cluster.waiting.units.contains_key(&name) {
                self.explain_one(&name, true);
                budget -= cost;
            }
        }
        self.cluster.explain.not_before = now_ms + EXPLAIN_PAUSE_MS;
    }

    /// Writes why a unit waits. Without `count` it is said only that it does.
    fn explain_one(&mut self, name: &UnitName, count: bool) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let (Some(wish), home) = (unit.wish.clone(), unit.home().cloned()) else {
            return;
        };
        let moves = match home.clone() {
            Some(from) => match self.cause_to_move(name, &wish, &from) {
                Some(cause) => Some(Move { from, cause }),
                None => return,
            },
            None => None,
        };
        let mut whereabouts = if count {
            self.count_refusals(name, &wish, moves.as_ref())
        } else {
            Whereabouts {
                reason: "no machine may run it; the reasons are being counted".to_owned(),
                ..Whereabouts::default()
            }
        };
        if let Some(moves) = &moves {
            whereabouts.reason = format!(
                "{}, and it stays there: {}",
                moves.words(),
                whereabouts.reason
            );
        }
        whereabouts.leaving = self.leaving(name, home.as_ref());
        whereabouts.machine = home;
        self.settle(name, whereabouts);
        // It would leave for its failure, too, if there were not a better reason.
        if moves.is_some_and(|moves| {
            matches!(moves.cause, Cause::Failed(_))
                || self.is_moved_for_failure(name, &wish, &moves.from)
        }) {
            self.note_stuck(name);
        }
    }

    fn count_refusals(&self, name: &UnitName, wish: &Wish, moves: Option<&Move>) -> Whereabouts {
        if moves.is_none()
            && let Some(circle) = self.cluster.cycle(name)
        {
            return Whereabouts {
                reason: format!("MachineOf goes in a circle: {}", circle.join(" → ")),
                ..Whereabouts::default()
            };
        }
        let Tally {
            refusals,
            considered,
        } = self.ask_all(&self.search(name, wish, moves, None));
        Whereabouts {
            reason: words(&refusals, considered, moves.is_some()),
            refusals,
            considered,
            ..Whereabouts::default()
        }
    }

    /// What kept a unit from other machines that has found one. In a large cluster not every machine
    /// is asked for it: there the metadata is counted, by its index.
    pub(crate) fn passed_over(&self, search: &Search<'_>) -> Tally {
        if self.cluster.machines.len() <= MAX_ASKED_WHEN_PLACED {
            return self.ask_all(search);
        }
        let metadata = &search.needs.metadata;
        let counts = metadata.iter().map(|(key, values)| {
            let n = self.cluster.open.without(key, values);
            (metadata_words(key, values), saturated(n))
        });
        Tally {
            refusals: most_frequent(counts.filter(|(_, n)| *n > 0)),
            considered: saturated(self.cluster.open.all.len()),
        }
    }

    fn ask_all(&self, search: &Search<'_>) -> Tally {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let mut considered = 0;
        for (id, machine) in &self.cluster.machines {
            let is_none = machine.status == MemberStatus::Retired || machine.was_never_seen();
            if is_none || search.except == Some(id) {
                continue;
            }
            considered += 1;
            if let Err(no) = self.cluster.judge_all(search, id, machine) {
                *counts.entry(no.to_string()).or_default() += 1;
            }
        }
        Tally {
            refusals: most_frequent(counts.into_iter()),
            considered,
        }
    }
}

/// Which requirement refused how many of the machines that were looked at.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) considered: u32,
}

fn saturated(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn words(refusals: &[Refusal], considered: u32, moves: bool) -> String {
    let other = if moves { "other " } else { "" };
    match refusals {
        [] => format!("the cluster has no {other}machine"),
        [only] if only.machines == considered => {
            format!("no {other}machine may run it: {}", only.requirement)
        }
        _ => {
            let parts: Vec<_> = refusals
                .iter()
                .map(|refusal| format!("{} ({})", refusal.requirement, refusal.machines))
                .collect();
            format!(
                "no {other}machine of {considered} may run it: {}",
                parts.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::model::{Model, name, unit_record};
    use crate::records::{DesiredState, MachineId, MachineRecord, PlacementRecord};

    /// Where a unit goes in a cluster in which one machine of ten is in the region eu, and `other` is
    /// on one machine.
    fn placed(n_machines: usize, lines: &[&str]) -> PlacementRecord {
        let mut model = Model::default();
        for n in 0..n_machines {
            let region = if n % 10 == 0 { "eu" } else { "us" };
            let record = MachineRecord {
                metadata: BTreeMap::from([("region".to_owned(), region.to_owned())]),
                ..MachineRecord::default()
            };
            model.set_presence(&MachineId::new(&format!("m{n:03}")), Some(record));
        }
        let launched = |lines| unit_record(DesiredState::Launched, lines);
        model.set_unit(&name("other.service"), launched(&[]));
        model.plan();
        model.set_unit(&name("a.service"), launched(lines));
        model.plan();
        // A new wish that changes nothing about where it is keeps what was found then.
        model.set_desired(&name("a.service"), DesiredState::Loaded);
        model.plan();
        let unit = &model.cluster.units[&name("a.service")];
        *unit.placement.clone().unwrap()
    }

    fn refusal(requirement: &str, machines: u32) -> Refusal {
        Refusal {
            requirement: requirement.to_owned(),
            machines,
        }
    }

    #[test]
    fn what_was_passed_over_stands_with_the_placement() {
        let lines = ["MachineMetadata=region=eu", "Conflicts=other.service"];
        let small = placed(20, &lines);
        assert_eq!(small.considered, 20);
        let expected = [
            refusal("MachineMetadata region=eu", 18),
            refusal("Conflicts with other.service", 1),
        ];
        assert_eq!(small.passed_over, expected);
        assert_eq!(placed(20, &[]).passed_over, []);
    }

    #[test]
    fn a_large_cluster_is_not_asked_machine_by_machine() {
        let lines = ["MachineMetadata=region=eu", "Conflicts=other.service"];
        let large = placed(MAX_ASKED_WHEN_PLACED + 10, &lines);
        assert_eq!(large.considered, 110);
        let expected = [refusal("MachineMetadata region=eu", 99)];
        assert_eq!(large.passed_over, expected);
    }
}
