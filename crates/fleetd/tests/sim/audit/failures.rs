//! What must hold when units fail: those that ask for it are moved when systemd has given them up,
//! so often and so slowly as they may be, others never; and a machine on which many fail comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::records::{
    AssignmentRecord, Failures, MachineRecord, MachineWish, MemberRecord, MemberStatus, Order,
};
use fleetd::store::codec::Document;
use fleetd::store::keys::{self, Key};
use fleetd::store::{Entry, Event, Op, Txn};
use tokio::time::Instant;

use super::moves::is_left;
use super::{Audit, NEWS, Seen, is_plain, moves_when_it_fails, short};
use crate::chance::lock;
use crate::users::MOST_MOVES;

/// RELIABILITY.md: 2 s before the first move, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// What has been well for so long since its last move is moved anew.
const LASTS: Duration = Duration::from_secs(600);

/// By unit and machine.
type Place = (String, String);

#[derive(Default)]
pub(super) struct Failing {
    /// Where units are failed now.
    now: BTreeSet<Place>,
    /// When each first failed there since it was sent there, or was wanted anew.
    since: BTreeMap<Place, Instant>,
    /// Where a unit ever failed, or was refused.
    ever: BTreeSet<Place>,
    /// When a machine was told to give it up.
    withdrawn: BTreeMap<Place, Instant>,
    /// How often each was moved for that, of which generation, and when last.
    moves: BTreeMap<String, (u64, u32, Instant)>,
    /// The machines that take no units; when that ended.
    closed: BTreeMap<String, Option<Instant>>,
    /// Documents about machines that cannot be read.
    garbled: BTreeSet<String>,
}

impl Failing {
    /// Whether a unit has failed at a machine since it was last sent there.
    pub(super) fn has_failed(&self, unit: &str, machine: &str) -> bool {
        let place = (unit.to_owned(), machine.to_owned());
        self.since.contains_key(&place)
    }

    /// Whether it failed at its new machine only after the old one had been told to give it up.
    pub(super) fn failed_later(&self, unit: &str, new: &str, old: &str) -> bool {
        let at = |machine: &str| (unit.to_owned(), machine.to_owned());
        let withdrawn = self.withdrawn.get(&at(old));
        let since = self.since.get(&at(new));
        withdrawn.is_some_and(|told| since.is_some_and(|since| since >= told))
    }

    /// A machine refuses a unit.
    pub(super) fn refused(&mut self, unit: &str, machine: &str) {
        self.ever.insert((unit.to_owned(), machine.to_owned()));
    }

    pub(super) fn wished(&mut self, machine: &str, wish: Option<&MachineWish>) {
        if wish.is_some_and(|wish| wish.drain || wish.cordon) {
            self.closed.insert(machine.to_owned(), None);
        } else if let Some(until) = self.closed.get_mut(machine) {
            until.get_or_insert_with(Instant::now);
        }
    }

    /// Documents are read as the leader reads them.
    pub(super) fn told(&mut self, event: &Event) {
        let (key, is_well) = match event {
            Event::Put(Entry { key, value, .. }) => match keys::parse(key) {
                Key::Machine(_) => (key, MachineRecord::decode(key, value).is_ok()),
                Key::Member(_) => (key, MemberRecord::decode(key, value).is_ok()),
                Key::MachineWish(_) => (key, MachineWish::decode(key, value).is_ok()),
                _ => return,
            },
            Event::Delete { key, .. } => (key, true),
        };
        match is_well {
            true => self.garbled.remove(key),
            false => self.garbled.insert(key.clone()),
        };
    }

    fn is_garbled(&self, machine: &str) -> bool {
        let of_it = [
            keys::machine(machine),
            keys::member(machine),
            keys::machine_wish(machine),
        ];
        of_it.iter().any(|key| self.garbled.contains(key))
    }

    fn anew(&mut self, place: Place) {
        match self.now.contains(&place) {
            true => self.since.insert(place, Instant::now()),
            false => self.since.remove(&place),
        };
    }
}

/// Where each unit of a transaction was wanted before it.
pub(super) type Before = BTreeMap<String, BTreeMap<String, AssignmentRecord>>;

impl Audit {
    /// A unit is down at a machine, and systemd has given it up, or has not.
    pub fn is_failed(&self, machine: &str, unit: &str, is_failed: bool) {
        let place = (unit.to_owned(), machine.to_owned());
        let failing = &mut lock(&self.seen).failing;
        if !is_failed {
            failing.now.remove(&place);
            return;
        }
        failing.ever.insert(place.clone());
        failing.now.insert(place.clone());
        failing.since.entry(place).or_insert_with(Instant::now);
    }

    /// What a transaction is going to change.
    pub(super) fn before(&self, seen: &Seen, txn: &Txn) -> Before {
        let touched = txn.ops.iter().filter_map(|op| {
            let (Op::Put { key, .. } | Op::Delete { key }) = op;
            match keys::parse(key) {
                Key::Assignment(_, unit) => Some(unit.to_owned()),
                _ => None,
            }
        });
        let before = |unit: String| {
            let standing = seen.standing.get(&unit).cloned().unwrap_or_default();
            (unit, standing)
        };
        touched.map(before).collect()
    }

    /// What it has changed: units have come to machines.
    pub(super) fn check_arrivals(
        &self,
        seen: &mut Seen,
        before: &Before,
        was_avoided: &BTreeSet<String>,
    ) {
        for (unit, before) in before {
            let standing = seen.standing.get(unit).cloned().unwrap_or_default();
            for (machine, record) in standing {
                let old = before.get(&machine).filter(|old| old.order != Order::Gone);
                if record.order == Order::Gone {
                    if old.is_some() {
                        let place = (unit.clone(), machine);
                        seen.failing.withdrawn.insert(place, Instant::now());
                    }
                    continue;
                }
                let is_same =
                    old.is_some_and(|old| old.decision.generation == record.decision.generation);
                if !is_same {
                    let place = (unit.clone(), machine.clone());
                    seen.failing.anew(place);
                }
                if old.is_none() {
                    self.check_failure(seen, unit, before, &machine, &record);
                }
                // What has not left it yet may stay there.
                if !before.contains_key(&machine) {
                    self.check_avoided(seen, unit, &machine, was_avoided);
                }
            }
        }
    }

    /// A unit with `RescheduleOnFailure=` has come to a machine from another one. Unless something
    /// happened to that one, it had failed there, for long enough, and may be moved once more.
    fn check_failure(
        &self,
        seen: &mut Seen,
        unit: &str,
        before: &BTreeMap<String, AssignmentRecord>,
        to: &str,
        record: &AssignmentRecord,
    ) {
        if !moves_when_it_fails(unit) || seen.restored.is_some() {
            return;
        }
        let generation = record.decision.generation;
        let mut had_it = before
            .iter()
            .filter(|(_, old)| old.order == Order::Launched);
        let (Some((from, old)), None) = (had_it.next(), had_it.next()) else {
            return; // The newer copy of two goes elsewhere, or it was nowhere.
        };
        if old.decision.generation != generation {
            return;
        }
        let back = seen.back_since.get(from);
        let is_away = seen.absent_since.get(from).copied().flatten().is_some()
            || back.is_some_and(|back| back.elapsed() < NEWS);
        if is_left(seen, from) || is_away {
            return;
        }
        self.sim
            .note("moved-for-failure", format_args!("{unit} to {}", short(to)));
        let now = Instant::now();
        let place = (unit.to_owned(), from.clone());
        let at = short(from);
        let Some(since) = seen.failing.since.get(&place).copied() else {
            self.sim.fail(format!(
                "{unit} was moved off {at}, which is present, and where it has not failed"
            ));
            return;
        };
        let known = seen.failing.moves.get(unit).copied();
        let n_moves = match known {
            Some((of, n, last)) if of == generation && now - last < LASTS => n,
            _ => 0,
        };
        if n_moves >= MOST_MOVES {
            self.sim.fail(format!(
                "{unit} was moved for a failure {} times, and asked for {MOST_MOVES} at most",
                n_moves + 1
            ));
        }
        let pause = FIRST_PAUSE * (1 << n_moves.min(8));
        if now - since < pause {
            self.sim.fail(format!(
                "{unit} was moved {:?} after it had failed on {at}, not after {pause:?}",
                now - since
            ));
        }
        let moves = (generation, n_moves + 1, now);
        seen.failing.moves.insert(unit.to_owned(), moves);
    }

    /// A unit that may run anywhere comes to a machine that breaks units only when nobody else
    /// could take it.
    fn check_avoided(
        &self,
        seen: &Seen,
        unit: &str,
        machine: &str,
        was_avoided: &BTreeSet<String>,
    ) {
        let goes_anywhere = is_plain(unit) || moves_when_it_fails(unit);
        // Where plain0 goes those go that follow it.
        if !goes_anywhere || unit.starts_with("plain0.") || seen.restored.is_some() {
            return;
        }
        let is_avoided = |id: &str| {
            let member = seen.members.get(id);
            member.is_some_and(|member| member.avoided.is_some())
        };
        if !is_avoided(machine) || !was_avoided.contains(machine) {
            return;
        }
        let wanted = seen.standing.get(unit);
        let other = seen.members.iter().find(|(id, member)| {
            let place = (unit.to_owned(), (*id).clone());
            let closed = seen.failing.closed.get(*id);
            let is_open = closed.is_none_or(|end| end.is_some_and(|end| end.elapsed() >= NEWS));
            let back = seen.back_since.get(*id);
            let is_there = seen.absent_since.get(*id).copied().flatten().is_none()
                && back.is_some_and(|back| back.elapsed() >= NEWS);
            let says_well = seen
                .said
                .get(*id)
                .is_some_and(|said| said.trouble.is_none() && said.remark.is_none());
            *id != machine
                && member.status == MemberStatus::Present
                && !is_avoided(id)
                && !was_avoided.contains(*id)
                && is_there
                && is_open
                && says_well
                && !is_left(seen, id)
                && !seen.failing.is_garbled(id)
                && !seen.failing.ever.contains(&place)
                // It comes from there.
                && !wanted.is_some_and(|wanted| wanted.contains_key(*id))
        });
        if let Some((other, _)) = other {
            self.sim.fail(format!(
                "{unit} was sent to {}, which is avoided, and not to {}",
                short(machine),
                short(other)
            ));
        }
    }
}

/// Why a unit that has failed, and would be moved then, has not come to rest; `others`: machines
/// that could take it.
pub fn is_moving(failures: &Failures, reason: &str, others: usize) -> Option<String> {
    if !failures.stays {
        return Some(format!(
            "has failed, and does not say that it stays: {reason}"
        ));
    }
    if failures.moves < MOST_MOVES && others > 0 {
        return Some(format!(
            "has failed, and stays after {} of {MOST_MOVES} moves: {reason}",
            failures.moves
        ));
    }
    (!reason.contains("failed")).then(|| format!("has failed, and says only: {reason}"))
}
