//! What single units ask for: at most one copy, a grace of their own, a bounded number of moves.

use std::time::Duration;

use super::{Case, Conviction, LATE, hides_machine};
use crate::clock::{Micros, seconds};
use crate::faults::Done;
use crate::history::{Copy, End};
use crate::schedule::{Fault, Lane};
use crate::workload::{self, Unit};
use crate::{LEASE, LOST_AFTER};

/// What is left of a lease at least when its machine vanishes: it is renewed six times as often,
/// and a renewal may have been late.
const LEASE_LEFT: Micros = micros(LEASE) * 2 / 3;
/// A lease ends when it could not be renewed for its length; counted is what strikes the machine or
/// the store for so much of the time before. After each of them it takes a while to go on.
const UNRENEWED: Micros = micros(LEASE) / 2;
/// etcd has no leader, and renews nothing, for so long when one of its members goes, which may lead, or
/// is back that could not be heard: it has asked for votes meanwhile, and deposes whoever leads. Measured:
/// 2.6 s.
const ELECTION: Micros = 2_500_000;
/// A machine that was hidden is not to be seen at once: fleetd is slow on a busy computer.
const FOUND_AGAIN: Micros = 5_000_000;

const fn micros(time: Duration) -> Micros {
    time.as_micros() as Micros
}

impl Case<'_> {
    /// Whether a machine could not renew its lease for long enough before this point.
    pub(super) fn lease_may_have_ended(&self, host: usize, at: Micros) -> bool {
        let since = at - 2 * micros(LEASE);
        let mut times: Vec<(Micros, Micros)> = self
            .faults
            .iter()
            .filter(|done| ends_leases(done, host))
            .map(|done| {
                let begun = match done.fault {
                    Fault::Restore => done.struck,
                    _ => done.begun,
                };
                (begun.max(since), ended(done).min(at))
            })
            .filter(|(begun, ended)| begun < ended)
            .collect();
        // It is no reason by itself: a lease outlives it.
        if times.is_empty() {
            return false;
        }
        let elections = self.faults.iter().flat_map(elections);
        let elections = elections.map(|begun| (begun.max(since), (begun + ELECTION).min(at)));
        times.extend(elections.filter(|(begun, ended)| begun < ended));
        times.sort_unstable();
        // Several at once count once.
        let (mut sum, mut seen) = (0, since);
        for (begun, ended) in times {
            sum += (ended - begun.max(seen)).max(0);
            seen = seen.max(ended);
        }
        sum >= UNRENEWED
    }

    /// An exclusive unit runs on two hosts at once, whatever strikes.
    pub(super) fn runs_twice(&self, one: &Copy, other: &Copy) -> Option<Conviction> {
        let is_pair = one.unit == other.unit && one.host != other.host;
        if !is_pair || !workload::unit(&one.unit).is_some_and(Unit::is_exclusive) {
            return None;
        }
        let (first, second) = match one.from <= other.from {
            true => (one, other),
            false => (other, one),
        };
        let until = first.until.min(second.until);
        if until <= second.from || until < self.begun || self.is_unknown_to_the_copy(first, second)
        {
            return None;
        }
        Some(Conviction {
            unit: one.unit.clone(),
            hosts: vec![first.host, second.host],
            at: second.from,
            what: format!(
                "is exclusive, and was started on host {} while it ran on host {}: both ran for \
                 {:.3} s",
                second.host + 1,
                first.host + 1,
                seconds(second.from, until),
            ),
        })
    }

    /// The old copy of etcd does not know that the unit runs there, since it was started after the
    /// copy was made, by an order that was given before it was restored, or just then: the exception
    /// that RELIABILITY.md names. What was started later is known.
    fn is_unknown_to_the_copy(&self, first: &Copy, second: &Copy) -> bool {
        let mut restores = self.faults.iter().filter(|d| d.fault == Fault::Restore);
        restores.any(|done| {
            let is_lost = done.begun <= first.from && first.from <= done.struck + LATE;
            is_lost && done.struck <= second.from
        })
    }

    /// Units that were started elsewhere before their machine's grace or their own was over.
    pub(super) fn early_moves(&self) -> Vec<Conviction> {
        let moves = self.copies.iter().filter(|copy| copy.from >= self.begun);
        moves.filter_map(|copy| self.early_move(copy)).collect()
    }

    fn early_move(&self, second: &Copy) -> Option<Conviction> {
        let unit = workload::unit(&second.unit)?;
        let before = self.others(second).filter(|c| c.from < second.from);
        let first = before.max_by_key(|copy| copy.from)?;
        let was_there = first.until >= second.from || first.end == End::Power;
        if !was_there || self.has_other_reason(first, second) {
            return None;
        }
        let vanished = self.vanished(first.host, second.from)?;
        let grace = micros(unit.lost_after().unwrap_or(LOST_AFTER)) + LEASE_LEFT;
        let waited = second.from - vanished;
        (waited < grace).then(|| Conviction {
            unit: second.unit.clone(),
            hosts: vec![first.host, second.host],
            at: second.from,
            what: format!(
                "was started on host {} only {:.1} s after host {}, where it was, began to vanish; \
                 its grace is {:.1} s",
                second.host + 1,
                waited as f64 / 1e6,
                first.host + 1,
                grace as f64 / 1e6,
            ),
        })
    }

    /// A user, a drain, or an old copy of etcd.
    fn has_other_reason(&self, first: &Copy, second: &Copy) -> bool {
        let at = second.from;
        let asked =
            |of: &str, begun: Micros| of == second.unit && at - LATE <= begun && begun <= at;
        let is_then = |done: &Done| done.begun <= at && at <= done.ended + LATE;
        self.acts.iter().any(|act| asked(&act.unit, act.begun))
            || self.faults.iter().any(|done| match done.fault {
                Fault::Drain(host) => host == first.host && is_then(done),
                Fault::Restore => done.struck <= at && at <= done.ended + LATE,
                _ => false,
            })
    }

    /// When a machine began to vanish that is not to be seen at this point, counting what struck it
    /// or the store shortly before as well. None: nothing has struck it.
    fn vanished(&self, host: usize, at: Micros) -> Option<Micros> {
        let mut struck: Vec<&Done> = self
            .faults
            .iter()
            .filter(|done| [Lane::Host(host), Lane::Store].contains(&done.lane))
            .filter(|done| done.begun <= at)
            .collect();
        struck.sort_by_key(|done| done.begun);
        let (mut reaches, mut vanished) = (at, None);
        for done in struck.into_iter().rev() {
            if reaches - ended(done) > FOUND_AGAIN {
                continue;
            }
            reaches = reaches.min(done.begun);
            if done.lane == Lane::Host(host) {
                vanished = Some(done.begun);
            }
        }
        vanished
    }

    /// Units that were moved more often than they allow, because they failed.
    pub(super) fn too_many_moves(&self) -> Vec<Conviction> {
        let units = workload::all().filter_map(|unit| Some((unit, unit.moves_max()?)));
        units
            .filter_map(|(unit, most)| self.too_many_moves_of(unit, most))
            .collect()
    }

    fn too_many_moves_of(&self, unit: &Unit, most: usize) -> Option<Conviction> {
        let mut copies: Vec<&Copy> = self.copies.iter().filter(|c| c.unit == unit.name).collect();
        copies.sort_by_key(|copy| copy.from);
        let mut moves = 0;
        let mut counts_since = self.begun;
        for pair in copies.windows(2) {
            let (failed, next) = (pair[0], pair[1]);
            // A start begins anew; so does who has forgotten the moves.
            let anew = self.anew(unit.name, counts_since, next.from);
            if let Some(anew) = anew {
                (moves, counts_since) = (0, anew);
            }
            let is_move = failed.end == End::Failed && failed.host != next.host;
            if next.from >= self.begun && is_move && !self.was_left(failed.host, next.from) {
                moves += 1;
            }
            if moves > most {
                return Some(Conviction {
                    unit: unit.name.to_owned(),
                    hosts: vec![failed.host, next.host],
                    at: next.from,
                    what: format!("was moved {moves} times because it failed, of at most {most}"),
                });
            }
        }
        None
    }

    /// The last time, in between, from which moves are counted anew.
    fn anew(&self, unit: &str, after: Micros, until: Micros) -> Option<Micros> {
        let acts = self.acts.iter().filter(|act| act.unit == unit);
        let restores = self.faults.iter().filter(|d| d.fault == Fault::Restore);
        acts.map(|act| act.begun)
            .chain(restores.map(|done| done.struck))
            .filter(|at| after < *at && *at <= until)
            .max()
    }

    /// Its units were moved away for another reason.
    fn was_left(&self, host: usize, at: Micros) -> bool {
        self.faults.iter().any(|done| {
            let is_then = done.begun <= at && at <= done.ended + LATE;
            let hidden = done.lane == Lane::Host(host) && hides_machine(done);
            is_then && (hidden || done.fault == Fault::Drain(host))
        })
    }
}

/// Whether no lease of this host is renewed while it lasts.
fn ends_leases(done: &Done, host: usize) -> bool {
    match done.lane {
        Lane::Host(other) => other == host && done.fault.may_move_units(),
        Lane::Store => matches!(done.fault, Fault::LoseQuorum(_) | Fault::Restore),
        Lane::Operator => false,
    }
}

/// When etcd may have had to elect a leader for it.
fn elections(done: &Done) -> impl Iterator<Item = Micros> {
    let (goes, returns) = match done.fault {
        Fault::KillMember(_) => (true, false),
        Fault::PauseMember(_) | Fault::CutMember(_) => (true, true),
        _ => (false, false),
    };
    let goes = goes.then_some(done.begun);
    goes.into_iter().chain(returns.then_some(done.ended))
}

/// When it is over. After a power cut the next presence waits for the end of the one before, which
/// might be a clone's.
fn ended(done: &Done) -> Micros {
    match done.fault {
        Fault::CutPower => done.ended + micros(LEASE),
        _ => done.ended,
    }
}
