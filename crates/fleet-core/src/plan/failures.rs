//! Units that systemd has given up: they are moved to another machine, each time after a longer
//! pause, so often as their `RescheduleOnFailure=` allows; then they stay failed, and say so.
//!
//! systemd's own restarts come first: a unit that is being restarted is `activating`, and has not
//! failed for us. How often a unit was moved stands with its placement, so that a new leader goes
//! on counting; only the pause begins anew with it.

use std::sync::Arc;

use super::Planner;
use super::moves::{Cause, Move};
use crate::cluster::{Timer, Unit, Wish};
use crate::name::UnitName;
use crate::records::{Failures, MachineId, MemberStatus, PlacementRecord};
use crate::text::time_of_day;

/// Before the first move. A unit that systemd restarts may be seen to have failed for a moment, and
/// whoever has just made a mistake may want to mend it where it is.
const FIRST_MOVE_PAUSE_MS: u64 = 2_000;
/// The pauses double up to this: what is wrong may pass, and is then found out soon enough.
const MAX_MOVE_PAUSE_MS: u64 = 600_000;
/// A unit that has run for so long after a move has not failed for the same reason when it fails
/// again: its moves are counted anew.
const LASTING_SUCCESS_MS: u64 = 600_000;

/// The pause before the next move of a unit that has been moved so often.
fn pause_ms(moves: u32) -> u64 {
    if planted!("the back-off is not waited for") {
        return 0;
    }
    let doubled = FIRST_MOVE_PAUSE_MS.saturating_mul(1 << moves.min(16));
    doubled.min(MAX_MOVE_PAUSE_MS)
}

impl Planner<'_> {
    /// Looks whether the unit has failed at its machine, and notes what follows from it: when it
    /// is moved, that it stays, or, if it is well, when that has lasted.
    pub(crate) fn note_health(&mut self, name: &UnitName, wish: &Wish, home: &MachineId) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let known = unit.placement.as_deref().map(|p| &p.failures);
        let known = known.cloned().unwrap_or_default();
        let is_watched = unit.moves_when_it_fails();
        let has_rare = unit
            .rare
            .as_ref()
            .is_some_and(|rare| rare.move_due.is_some() || rare.lasts_at.is_some());
        if !is_watched && known == Failures::default() && !has_rare {
            return;
        }
        if is_watched && self.has_failed(name, wish, home) {
            self.note_failed(name, wish, home, known);
        } else {
            self.note_not_failed(name, wish, home, known);
        }
    }

    fn note_failed(&mut self, name: &UnitName, wish: &Wish, home: &MachineId, known: Failures) {
        let limit = wish.requirements.reschedule_on_failure;
        let Some(unit) = self.cluster.units.get_mut(name) else {
            return;
        };
        let rare = unit.rare_mut();
        rare.lasts_at = None;
        if known.moves >= limit {
            rare.move_due = None;
            let next = Failures {
                next_ms: 0,
                stays: true,
                ..known
            };
            let reason = format!(
                "{}; it stays failed there after {} of at most {limit} moves, until it is started \
                 anew",
                self.failed_words(name, home),
                next.moves,
            );
            self.set_failures(name, next, Some(reason));
            return;
        }
        let now = self.now;
        let pause_ms = match known.stays {
            // It has waited for its turn under another leader, and found no machine.
            true => 0,
            false => pause_ms(known.moves),
        };
        let due = *rare
            .move_due
            .get_or_insert(now.monotonic_ms.saturating_add(pause_ms));
        if due <= now.monotonic_ms {
            return; // It is being moved, or waits for a machine.
        }
        self.cluster.timers.insert((due, Timer::Unit(name.clone())));
        let next_ms = now.unix_ms.saturating_add(due - now.monotonic_ms);
        // The clock of people may have been set meanwhile; what was said stands.
        let is_told = known.next_ms != 0 && known.next_ms.abs_diff(next_ms) < 1_000;
        let next = Failures {
            next_ms: if is_told { known.next_ms } else { next_ms },
            stays: false,
            ..known
        };
        let reason = format!(
            "{}; it is moved at {} UTC, if it has not recovered: move {} of at most {limit}",
            self.failed_words(name, home),
            time_of_day(next.next_ms),
            next.moves + 1,
        );
        self.set_failures(name, next, Some(reason));
    }

    fn note_not_failed(&mut self, name: &UnitName, wish: &Wish, home: &MachineId, known: Failures) {
        let now_ms = self.now.monotonic_ms;
        let Some(unit) = self.cluster.units.get_mut(name) else {
            return;
        };
        let assigned = unit.assignments.get(home).copied();
        let is_well = assigned.is_some_and(|assigned| {
            assigned.decision.generation == wish.generation && unit.is_well(home, assigned.decision)
        });
        if let Some(rare) = &mut unit.rare {
            rare.move_due = None;
            if !is_well || known.moves == 0 {
                rare.lasts_at = None;
            }
        }
        let counts = unit.moves_when_it_fails() && is_well && known.moves > 0;
        if counts {
            let lasts_at = *unit
                .rare_mut()
                .lasts_at
                .get_or_insert(now_ms.saturating_add(LASTING_SUCCESS_MS));
            if lasts_at <= now_ms {
                unit.rare_mut().lasts_at = None;
                let reason = format!(
                    "it has run well on {} for {} min",
                    home.short(),
                    LASTING_SUCCESS_MS / 60_000
                );
                self.set_failures(name, Failures::default(), Some(reason));
                return;
            }
            let timer = Timer::Unit(name.clone());
            self.cluster.timers.insert((lasts_at, timer));
        }
        if known.next_ms != 0 || known.stays {
            let next = Failures {
                next_ms: 0,
                stays: false,
                ..known
            };
            let reason = format!("it stays on {}", home.short());
            self.set_failures(name, next, Some(reason));
        }
    }

    /// systemd at the unit's machine has given up the newest wish. What an absent machine last
    /// said is a matter of loss.
    pub(crate) fn has_failed(&self, name: &UnitName, wish: &Wish, home: &MachineId) -> bool {
        let (Some(unit), Some(machine)) = (
            self.cluster.units.get(name),
            self.cluster.machines.get(home),
        ) else {
            return false;
        };
        let decision = unit.assignments.get(home).map(|assigned| assigned.decision);
        machine.status == MemberStatus::Present
            && !machine.is_shutting_down()
            && decision.is_some_and(|decision| {
                decision.generation == wish.generation && unit.has_failed(home, decision)
            })
    }

    /// Whether the unit is to be moved now because it has failed.
    pub(crate) fn is_moved_for_failure(
        &self,
        name: &UnitName,
        wish: &Wish,
        home: &MachineId,
    ) -> bool {
        let Some(unit) = self.cluster.units.get(name) else {
            return false;
        };
        let due = unit.rare.as_ref().and_then(|rare| rare.move_due);
        due.is_some_and(|due| due <= self.now.monotonic_ms)
            && unit.failures().moves < wish.requirements.reschedule_on_failure
            && self.has_failed(name, wish, home)
    }

    /// The unit leaves a machine because it has failed there: that is counted, with the decision.
    pub(crate) fn count_failure(&mut self, name: &UnitName, moves: &Move) {
        if !matches!(moves.cause, Cause::Failed(_)) {
            return;
        }
        let Some(unit) = self.cluster.units.get_mut(name) else {
            return;
        };
        let mut next = unit.failures();
        if !planted!("moves are not counted") {
            next.moves += 1;
        }
        next.next_ms = 0;
        next.stays = false;
        next.failed_on.retain(|id| *id != moves.from);
        next.failed_on.push(moves.from.clone());
        let n_old = next.failed_on.len().saturating_sub(Failures::MAX_FAILED_ON);
        next.failed_on.drain(..n_old);
        self.set_failures(name, next, None);
    }

    /// What it came to at its machine counts no more: it goes elsewhere, or is wanted nowhere.
    pub(crate) fn forget_failure(&mut self, name: &UnitName) {
        let unit = self.cluster.units.get_mut(name);
        if let Some(rare) = unit.and_then(|unit| unit.rare.as_mut()) {
            rare.move_due = None;
        }
    }

    /// It has failed and would be moved, but no other machine may run it.
    pub(crate) fn note_stuck(&mut self, name: &UnitName) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let next = Failures {
            next_ms: 0,
            stays: true,
            ..unit.failures()
        };
        self.set_failures(name, next, None);
    }

    /// Why a unit is moved; when it is for a failure, which move that is.
    pub(crate) fn why_moved(&self, name: &UnitName, wish: &Wish, moves: &Move) -> String {
        match moves.cause {
            Cause::Failed(_) => {
                format!("{}; {}", moves.words(), self.move_words(name, wish))
            }
            _ => moves.words(),
        }
    }

    /// Why a unit that is nowhere looks for a machine, when it was stopped to be moved.
    pub(crate) fn why_moved_before(&self, name: &UnitName, wish: &Wish) -> Option<String> {
        let from = self.cluster.failed_on(name).last()?;
        let n = self.move_words(name, wish);
        Some(format!("it failed on {}; {n}", from.short()))
    }

    /// `move 2 of at most 5`
    fn move_words(&self, name: &UnitName, wish: &Wish) -> String {
        let unit = self.cluster.units.get(name);
        let moves = unit.map_or(0, |unit| unit.failures().moves);
        let limit = wish.requirements.reschedule_on_failure;
        format!("move {moves} of at most {limit}")
    }

    /// `it failed on 148a18ff: exit code 1`
    fn failed_words(&self, name: &UnitName, home: &MachineId) -> String {
        Cause::Failed(self.why_failed(name, home)).words(home)
    }

    pub(crate) fn why_failed(&self, name: &UnitName, home: &MachineId) -> Arc<str> {
        let unit = self.cluster.units.get(name);
        let state = unit.and_then(|unit| unit.states.get(home));
        let why = state.and_then(|state| state.why.clone());
        why.unwrap_or_else(|| Arc::from("no reason given"))
    }

    fn set_failures(&mut self, name: &UnitName, failures: Failures, reason: Option<String>) {
        let unit = self.cluster.units.get(name);
        let Some(old) = unit.and_then(|unit| unit.placement.as_deref()) else {
            return;
        };
        let record = PlacementRecord {
            failures,
            reason: reason.unwrap_or_else(|| old.reason.clone()),
            ..old.clone()
        };
        self.set_placement(name, Some(record));
    }
}

impl Unit {
    /// What its placement says of the failures of its newest wish.
    fn known_failures(&self) -> Option<&Failures> {
        let generation = self.wish.as_ref()?.generation;
        let placement = self.placement.as_deref()?;
        (placement.decision.generation == generation).then_some(&placement.failures)
    }

    /// What its placement says of its failures.
    pub(crate) fn failures(&self) -> Failures {
        self.known_failures().cloned().unwrap_or_default()
    }

    /// The machines where it failed, which are tried after all others.
    pub(crate) fn failed_on(&self) -> &[MachineId] {
        self.known_failures().map_or(&[], |known| &known.failed_on)
    }
}
