//! What must hold of the history of a round. Pure: histories in, convictions out.
//!
//! A stop is accounted for by a user who asked for it, by a drain of its machine, or by a second
//! copy that was started because one of the two machines could not be seen for a while, or because
//! etcd was replaced by an old copy; that of an exclusive unit also by a lease that could not be
//! renewed. Everything else is no reason: fleetd that was killed, upgraded or stopped, members of
//! etcd that die, stand still, are cut off or have no majority. What else a unit asks for is in
//! [`rules`].

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::clock::{Micros, seconds};
use crate::faults::Done;
use crate::history::{Copy, End};
use crate::schedule::{Fault, Lane};
use crate::users::Act;
use crate::workload::{self, is_global};

/// A machine that was not to be seen for less than this is not given up: well below the lease of
/// the cluster under test.
const SEEN_AGAIN: Micros = 1_500_000;
/// What was asked, or was out of sight, has consequences for so long: requests have deadlines, and
/// a unit that failed to start elsewhere is tried again later.
const LATE: Micros = 20_000_000;
/// Two copies of a unit, once everything that struck their machines and the store is undone. The
/// promise is 2 s after a heal; this is a computer that others share, and fleetd may be starting.
const OVERLAP_BOUND: Micros = 20_000_000;

/// Why a copy was stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Account {
    User,
    Drain,
    Moved,
    Restored,
    /// Its machine could not renew its lease.
    Lease,
    /// It has failed by itself, where it was to fail.
    Failed,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Conviction {
    pub(crate) unit: String,
    pub(crate) hosts: Vec<usize>,
    pub(crate) at: Micros,
    pub(crate) what: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) convictions: Vec<Conviction>,
    pub(crate) stops: BTreeMap<Account, usize>,
    /// Copies that ran on, or were ended by a power cut.
    pub(crate) n_copies: usize,
    /// The longest that one unit ran twice after everything was undone.
    pub(crate) overlap: Micros,
}

/// Everything that has happened in a round.
pub(crate) struct Case<'a> {
    pub(crate) begun: Micros,
    pub(crate) copies: &'a [Copy],
    pub(crate) acts: &'a [Act],
    pub(crate) faults: &'a [Done],
}

pub(crate) fn judge(case: &Case<'_>) -> Judgement {
    let mut found = Judgement::default();
    for copy in case.copies.iter().filter(|copy| copy.until >= case.begun) {
        found.n_copies += 1;
        if !matches!(copy.end, End::Stopped | End::Failed) {
            continue;
        }
        match case.account(copy) {
            Some(account) => *found.stops.entry(account).or_default() += 1,
            None => found.convictions.push(Conviction {
                unit: copy.unit.clone(),
                hosts: vec![copy.host],
                at: copy.until,
                what: format!(
                    "was stopped on host {} (invocation {}), and nothing accounts for it{}",
                    copy.host + 1,
                    copy.invocation,
                    case.beside(copy),
                ),
            }),
        }
    }
    for (idx, one) in case.copies.iter().enumerate() {
        for other in &case.copies[idx + 1..] {
            if let Some(twice) = case.runs_twice(one, other) {
                found.convictions.push(twice);
            }
            let overlap = case.overlap(one, other);
            found.overlap = found.overlap.max(overlap);
            if overlap > OVERLAP_BOUND {
                found.convictions.push(case.ran_beside(one, other, overlap));
            }
        }
    }
    found.convictions.extend(case.early_moves());
    found.convictions.extend(case.too_many_moves());
    found
}

impl Case<'_> {
    fn account(&self, stopped: &Copy) -> Option<Account> {
        let at = stopped.until;
        let unit = workload::unit(&stopped.unit);
        if stopped.end == End::Failed && unit.is_some_and(|unit| unit.fails_on(stopped.host)) {
            return Some(Account::Failed);
        }
        let asked = |act: &Act| {
            let is_now = stopped.from - LATE <= act.begun && act.begun <= at;
            act.unit == stopped.unit && act.may_stop() && is_now
        };
        if self.acts.iter().any(asked) {
            return Some(Account::User);
        }
        let before = || self.faults.iter().filter(move |done| done.begun <= at);
        let others = || self.others(stopped).filter(move |other| other.from <= at);
        // A machine that was cut off gives up later what has been moved meanwhile.
        let drained = |done: &Done| {
            let is_then = |at: Micros| done.begun <= at && at <= done.ended + LATE;
            is_then(at) || others().any(|other| is_then(other.from))
        };
        if before().any(|done| done.fault == Fault::Drain(stopped.host) && drained(done)) {
            return Some(Account::Drain);
        }
        // One of the two machines could not be seen when the later copy was started.
        let is_moved = others().any(|other| {
            let second = stopped.from.max(other.from);
            before().any(|done| {
                let hosts = [Lane::Host(stopped.host), Lane::Host(other.host)];
                let is_then = done.begun <= second && second <= done.ended + LATE;
                hosts.contains(&done.lane) && is_then && hides_machine(done)
            })
        });
        if is_moved {
            return Some(Account::Moved);
        }
        let restored = |done: &Done| done.fault == Fault::Restore && done.struck <= at;
        let is_restored = before().any(restored) && others().next().is_some();
        if is_restored {
            return Some(Account::Restored);
        }
        let has_lease = unit.is_some_and(workload::Unit::is_exclusive);
        (has_lease && self.lease_may_have_ended(stopped.host, at)).then_some(Account::Lease)
    }

    /// Other copies of the unit, elsewhere; none of a global unit.
    fn others<'b>(&'b self, copy: &'b Copy) -> impl Iterator<Item = &'b Copy> {
        let same = |other: &&Copy| other.unit == copy.unit && other.host != copy.host;
        let is_counted = move |other: &&Copy| !is_global(&copy.unit) && other.until >= self.begun;
        self.copies.iter().filter(same).filter(is_counted)
    }

    /// How long two copies ran that are not to run beside each other, of one unit anywhere or of two
    /// on one host, after everything was undone that struck their machines or the store.
    fn overlap(&self, one: &Copy, other: &Copy) -> Micros {
        let is_same = one.unit == other.unit && one.host != other.host && !is_global(&one.unit);
        let is_pair = is_same || one.host == other.host && are_apart(one, other);
        if !is_pair {
            return 0;
        }
        let (mut from, until) = (one.from.max(other.from), one.until.min(other.until));
        // What struck in earlier rounds is not known here, and was judged there.
        if until < self.begun {
            return 0;
        }
        for done in self.faults {
            let concerns = match done.lane {
                Lane::Host(host) => host == one.host || host == other.host,
                Lane::Store | Lane::Operator => true,
            };
            if concerns && done.begun < until {
                from = from.max(done.ended.min(until));
            }
        }
        (until - from).max(0)
    }

    fn ran_beside(&self, one: &Copy, other: &Copy, overlap: Micros) -> Conviction {
        let seconds = overlap as f64 / 1e6;
        let (here, there) = (one.host + 1, other.host + 1);
        let what = match one.unit == other.unit {
            true => {
                format!(
                    "ran on hosts {here} and {there} for {seconds:.1} s after everything was undone"
                )
            }
            false => format!(
                "ran beside {} on host {here} for {seconds:.1} s after everything was undone",
                other.unit
            ),
        };
        Conviction {
            unit: one.unit.clone(),
            hosts: vec![one.host, other.host],
            at: one.from.max(other.from),
            what,
        }
    }

    /// What else was known about the unit, for people.
    fn beside(&self, copy: &Copy) -> String {
        let mut text = String::new();
        for other in self.others(copy) {
            let _ = write!(
                text,
                "; another copy ran on host {} from {:+.1} s to {:+.1} s ({:?})",
                other.host + 1,
                seconds(copy.until, other.from),
                seconds(copy.until, other.until),
                other.end,
            );
        }
        text
    }
}

fn are_apart(one: &Copy, other: &Copy) -> bool {
    let pair = workload::unit(&one.unit).zip(workload::unit(&other.unit));
    pair.is_some_and(|(one, other)| one.is_apart(other))
}

/// The machine may be given up for it.
fn hides_machine(done: &Done) -> bool {
    let is_machine = matches!(done.lane, Lane::Host(_));
    is_machine && done.fault.may_move_units() && done.ended - done.begun >= SEEN_AGAIN
}
