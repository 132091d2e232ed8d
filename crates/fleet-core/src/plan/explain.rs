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

/// Between two rounds in which all reasons are given anew.
const EXPLAIN_PAUSE_MS: u64 = 1000;

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
        let search = self.search(name, wish, moves, None);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let mut considered = 0;
        for (id, machine) in &self.cluster.machines {
            let is_none = machine.status == MemberStatus::Retired || machine.was_never_seen();
            if is_none || search.except == Some(id) {
                continue;
            }
            considered += 1;
            if let Err(no) = self.cluster.judge_all(&search, id, machine) {
                *counts.entry(no.to_string()).or_default() += 1;
            }
        }
        let refusals = most_frequent(counts.into_iter());
        Whereabouts {
            reason: words(&refusals, considered, moves.is_some()),
            refusals,
            considered,
            ..Whereabouts::default()
        }
    }
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
