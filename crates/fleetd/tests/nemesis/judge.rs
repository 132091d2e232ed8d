//! What must hold of the history of a round. Pure: histories in, convictions out.
//!
//! A stop is accounted for by a user who asked for it, by a drain of its machine, or by a second
//! copy that was started because one of the two machines could not be seen for a while, or because
//! etcd was replaced by an old copy. Everything else is no reason: fleetd that was killed,
//! upgraded or stopped, members of etcd that die, stand still, are cut off or have no majority.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::clock::{Micros, seconds};
use crate::faults::Done;
use crate::history::{Copy, End};
use crate::schedule::{Fault, Lane};
use crate::users::{Act, is_global};

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
        if copy.end != End::Stopped {
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
            let overlap = case.overlap(one, other);
            found.overlap = found.overlap.max(overlap);
            if overlap > OVERLAP_BOUND {
                found.convictions.push(Conviction {
                    unit: one.unit.clone(),
                    hosts: vec![one.host, other.host],
                    at: one.from.max(other.from),
                    what: format!(
                        "ran on hosts {} and {} for {:.1} s after everything was undone",
                        one.host + 1,
                        other.host + 1,
                        overlap as f64 / 1e6,
                    ),
                });
            }
        }
    }
    found
}

impl Case<'_> {
    fn account(&self, stopped: &Copy) -> Option<Account> {
        let at = stopped.until;
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
        is_restored.then_some(Account::Restored)
    }

    /// Other copies of the unit, elsewhere; none of a global unit.
    fn others<'b>(&'b self, copy: &'b Copy) -> impl Iterator<Item = &'b Copy> {
        let same = |other: &&Copy| other.unit == copy.unit && other.host != copy.host;
        let is_counted = move |other: &&Copy| !is_global(&copy.unit) && other.until >= self.begun;
        self.copies.iter().filter(same).filter(is_counted)
    }

    /// How long both ran after everything was undone that struck their machines or the store.
    fn overlap(&self, one: &Copy, other: &Copy) -> Micros {
        if one.unit != other.unit || one.host == other.host || is_global(&one.unit) {
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

/// The machine may be given up for it.
fn hides_machine(done: &Done) -> bool {
    let is_machine = matches!(done.lane, Lane::Host(_));
    is_machine && done.fault.may_move_units() && done.ended - done.begun >= SEEN_AGAIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn copy(unit: &str, host: usize, from: Micros, until: Micros, end: End) -> Copy {
        Copy {
            host,
            unit: unit.to_owned(),
            invocation: format!("{unit} on {host} at {from}"),
            from: from * SECOND,
            until: until * SECOND,
            end,
        }
    }

    fn done(lane: Lane, fault: Fault, begun: Micros, ended: Micros) -> Done {
        Done {
            lane,
            fault,
            begun: begun * SECOND,
            ended: ended * SECOND,
            struck: begun * SECOND,
        }
    }

    fn convicted(copies: &[Copy], acts: &[Act], faults: &[Done]) -> Vec<String> {
        let case = Case {
            begun: 0,
            copies,
            acts,
            faults,
        };
        let convictions = judge(&case).convictions.into_iter();
        convictions.map(|found| found.what).collect()
    }

    #[test]
    fn a_stop_without_a_reason_is_found_whatever_else_was_broken() {
        let copies = [copy("steady1.service", 1, 1, 30, End::Stopped)];
        let faults = [
            done(Lane::Host(1), Fault::KillFleetd(3), 20, 22),
            done(Lane::Host(1), Fault::Upgrade, 23, 24),
            done(Lane::Host(1), Fault::PauseFleetd, 25, 26),
            done(Lane::Host(2), Fault::CutPower, 10, 20),
            done(Lane::Store, Fault::LoseQuorum(0), 10, 20),
            done(Lane::Store, Fault::Restore, 21, 29),
            done(Lane::Operator, Fault::Drain(0), 10, 20),
        ];
        let found = convicted(&copies, &[], &faults);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("nothing accounts for it"), "{found:?}");
    }

    #[test]
    fn users_drains_and_machines_that_were_not_to_be_seen_account_for_stops() {
        let stopped = copy("steady1.service", 1, 1, 30, End::Stopped);
        let there = copy("steady1.service", 2, 20, 99, End::None);
        let act = |begun: Micros| Act {
            unit: "steady1.service".to_owned(),
            what: "stop".to_owned(),
            begun: begun * SECOND,
        };
        let one = [stopped.clone()];
        assert_eq!(convicted(&one, &[act(29)], &[]).len(), 0);
        assert_eq!(convicted(&one, &[act(31)], &[]).len(), 1);
        // Who asked for a start has not asked for a stop.
        let start = Act {
            what: "start --no-block /units/1/steady1.service".to_owned(),
            ..act(29)
        };
        assert_eq!(convicted(&one, &[start], &[]).len(), 1);
        let drain = |host, begun| [done(Lane::Operator, Fault::Drain(host), begun, begun + 5)];
        assert_eq!(convicted(&one, &[], &drain(1, 10)).len(), 0);
        assert_eq!(convicted(&one, &[], &drain(1, 31)).len(), 1);
        assert_eq!(convicted(&one, &[], &drain(2, 10)).len(), 1);
        let long_ago = [copy("steady1.service", 1, 1, 60, End::Stopped)];
        assert_eq!(convicted(&long_ago, &[], &drain(1, 10)).len(), 1);

        // It was cut off, started elsewhere, and stopped when it was back.
        let two = [stopped, there];
        let cut = |lane, begun, ended| [done(lane, Fault::CutCable, begun, ended)];
        assert_eq!(convicted(&two, &[], &cut(Lane::Host(1), 10, 28)).len(), 0);
        // Too short; too late; another machine.
        assert_eq!(convicted(&two, &[], &cut(Lane::Host(1), 19, 20)).len(), 1);
        assert_eq!(convicted(&two, &[], &cut(Lane::Host(1), 21, 28)).len(), 1);
        assert_eq!(convicted(&two, &[], &cut(Lane::Host(3), 10, 28)).len(), 1);
        // Without another copy there is no reason to stop it.
        assert_eq!(convicted(&one, &[], &cut(Lane::Host(1), 10, 28)).len(), 1);
        let restore = [done(Lane::Store, Fault::Restore, 10, 28)];
        assert_eq!(convicted(&two, &[], &restore).len(), 0);
        assert_eq!(convicted(&one, &[], &restore).len(), 1);
    }

    #[test]
    fn a_global_unit_has_no_other_copy() {
        let copies = [
            copy("everywhere.service", 1, 1, 30, End::Stopped),
            copy("everywhere.service", 2, 20, 99, End::None),
        ];
        let cut = [done(Lane::Host(1), Fault::CutCable, 10, 28)];
        assert_eq!(convicted(&copies, &[], &cut).len(), 1);
    }

    #[test]
    fn two_copies_that_last_are_found() {
        let copies = [
            copy("steady1.service", 1, 1, 99, End::None),
            copy("steady1.service", 2, 20, 99, End::None),
        ];
        let cut = |ended| [done(Lane::Host(1), Fault::CutCable, 10, ended)];
        assert_eq!(convicted(&copies, &[], &cut(90)).len(), 0);
        let found = convicted(&copies, &[], &cut(30));
        assert_eq!(
            found,
            ["ran on hosts 2 and 3 for 69.0 s after everything was undone"]
        );
    }
}
