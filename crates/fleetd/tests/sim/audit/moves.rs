//! What must hold when a machine is given up, and when a unit goes from one machine to another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::records::{
    AssignmentRecord, Decision, DesiredState, MachineRecord, MemberRecord, MemberStatus, Order,
};
use fleetd::store::codec::Document;
use fleetd::store::keys::{self, Key};
use fleetd::store::{Entry, Event};
use tokio::time::Instant;

use super::{Absences, Audit, NEWS, Running, Seen, Writer, is_global, is_patient, is_plain, short};
use crate::chance::lock;
use crate::host::Behaviour;
use crate::users::LOST_AFTER;

/// What somebody has heard of the presence of others: not more than has reached it.
#[derive(Default)]
pub(super) struct Told {
    /// Who has vanished.
    absent: Absences,
    /// Whose last word was a farewell.
    leaving: BTreeSet<String>,
}

impl Told {
    fn hears(&mut self, entry: &Entry) {
        let Key::Machine(other) = keys::parse(&entry.key) else {
            return;
        };
        // Garbage says nothing.
        let Ok(said) = MachineRecord::decode(&entry.key, &entry.value) else {
            return;
        };
        match said.says_farewell() {
            true => self.leaving.insert(other.to_owned()),
            false => self.leaving.remove(other),
        };
    }
}

impl Audit {
    /// Somebody has read everything.
    pub fn has_read(&self, machine: &str, entries: &[Entry]) {
        let mut seen = lock(&self.seen);
        let is_there = |other: &str| {
            let key = keys::machine(other);
            entries.iter().any(|entry| entry.key == key)
        };
        // Whoever reads anew gives everybody the whole grace anew.
        let absent = seen.members.keys().filter(|other| !is_there(other));
        let absent = absent.map(|other| (other.clone(), Instant::now()));
        let mut told = Told {
            absent: absent.collect(),
            leaving: BTreeSet::new(),
        };
        for entry in entries {
            told.hears(entry);
        }
        seen.told.insert(machine.to_owned(), told);
    }

    /// Somebody who watches everything has heard news.
    pub fn is_told(&self, machine: &str, events: &[Event]) {
        let mut seen = lock(&self.seen);
        let told = seen.told.entry(machine.to_owned()).or_default();
        for event in events {
            let (Event::Put(Entry { key, .. }) | Event::Delete { key, .. }) = event;
            let Key::Machine(other) = keys::parse(key) else {
                continue;
            };
            match event {
                Event::Put(entry) => {
                    told.absent.remove(other);
                    told.hears(entry);
                }
                // Its end was meant, as far as who hears of it can know.
                Event::Delete { .. } if told.leaving.contains(other) => {}
                Event::Delete { .. } => {
                    told.absent.insert(other.to_owned(), Instant::now());
                }
            }
        }
    }

    /// Whom somebody knows to have vanished.
    pub fn knows(&self, machine: &str) -> Absences {
        let seen = lock(&self.seen);
        let told = seen.told.get(machine);
        told.map(|told| told.absent.clone()).unwrap_or_default()
    }

    /// A machine is given up only after its grace, and not when too many are away with it, as far
    /// as who gives it up can know.
    pub(super) fn check_loss(&self, seen: &Seen, machine: &str, writer: &Writer) {
        let now = Instant::now();
        let at = short(machine);
        // The news may have been on its way: the store compares.
        let Some(Some(since)) = seen.absent_since.get(machine).copied() else {
            let why = format!("{at} was given up while it was present");
            return self.sim.fail(why);
        };
        let grace = self.grace(seen, machine);
        if now - since < grace {
            self.sim.fail(format!(
                "{at} was given up {:?} after its lease had ended, not after {grace:?}",
                now - since
            ));
        }
        let Some(heard) = writer.knows.get(machine) else {
            return;
        };
        // Who vanished a moment after the freeze had begun is in it, and it ends for all at once.
        let is_over = now - since + self.graces.lost_after >= self.graces.freeze_for;
        if has_left(seen, machine) || is_over {
            return;
        }
        // Nobody may have seen it come back since.
        let is_thawed = seen.thawed_machines.contains(machine);
        if is_thawed || seen.thawed.is_some_and(|thawed| thawed >= since) {
            return;
        }
        // Who vanished about the same time for whoever decides, and has not been given up before.
        let window = self.graces.lost_after / 2;
        let with_it = writer.knows.iter().filter(|(other, gone)| {
            let status = seen.members.get(*other).map(|member| member.status);
            let is_known = status.is_some_and(|status| {
                !matches!(
                    status,
                    MemberStatus::Lost | MemberStatus::Retired | MemberStatus::Unsupervised
                )
            });
            let apart = (**gone).max(*heard) - (**gone).min(*heard);
            apart < window && is_known && !has_left(seen, other)
        });
        let n_with_it = with_it.count();
        let n_members = seen.members.len();
        if n_with_it > (n_members * 34 / 100).max(1) {
            self.sim.fail(format!(
                "{at} was given up although {n_with_it} of {n_members} vanished with it"
            ));
        }
    }

    /// Who has been away for so long and has not been given up, nor has left in order.
    pub fn waited_for(&self, time: Duration) -> Absences {
        let seen = lock(&self.seen);
        let is_patient = |machine: &String, since: &Instant| {
            let member = seen.members.get(machine);
            member.is_some_and(|member| member.status == MemberStatus::Suspect)
                && since.elapsed() >= self.graces.lost_after + time
                && !has_left(&seen, machine)
        };
        let absent = seen.absent_since.iter();
        let absent = absent.filter_map(|(machine, since)| Some((machine.clone(), (*since)?)));
        absent.filter(|(id, since)| is_patient(id, since)).collect()
    }

    /// Somebody has said that these are gone, and they have not come back.
    pub fn must_be_given_up(&self, waited_for: &Absences) {
        let seen = lock(&self.seen);
        for (machine, since) in waited_for {
            let is_still_away = seen.absent_since.get(machine) == Some(&Some(*since));
            let status = seen.members.get(machine).map(|member| member.status);
            if is_still_away && status == Some(MemberStatus::Suspect) {
                let at = short(machine);
                let why = format!("{at} is waited for though somebody said that it is gone");
                self.sim.fail(why);
            }
        }
    }

    /// How long a machine may be away before it is given up.
    fn grace(&self, seen: &Seen, machine: &str) -> Duration {
        let said = seen.said.get(machine);
        let is_unsupervised = said.is_some_and(MachineRecord::is_stopped_in_order);
        // Without any leader while it was said and for as long as its lease lived, nobody knows.
        let member = seen.members.get(machine);
        let is_known = member.is_some_and(|member| {
            member.status == MemberStatus::Unsupervised || member.reason == MemberRecord::LEAVES
        });
        match is_unsupervised && is_known {
            true => self.graces.unsupervised,
            false => self.graces.lost_after,
        }
    }

    /// A plain unit gets another machine than the one that has it: only when that one is drained,
    /// shuts down, or has been away for as long as the unit bears, or when its user asked again.
    /// `had`: where it was wanted before the transaction, of which the orders to leave may come first.
    pub(super) fn check_new_home(
        &self,
        seen: &Seen,
        machine: &str,
        unit: &str,
        record: &AssignmentRecord,
        had: &BTreeMap<String, AssignmentRecord>,
    ) {
        if !is_plain(unit) || record.order == Order::Gone || seen.restored.is_some() {
            return;
        }
        let is_wanted = |record: &AssignmentRecord| record.order == Order::Launched;
        let has_it = |record: &AssignmentRecord| record.order != Order::Gone;
        if had.get(machine).is_some_and(has_it) {
            return;
        }
        let now = Instant::now();
        let others = had.iter().filter(|(_, other)| {
            is_wanted(other) && other.decision.generation == record.decision.generation
        });
        // The newer copy of two, given up where it came to, leaves again.
        let copies = had.values().filter(|other| has_it(other)).count();
        // On its way already, it goes on from where it was to come to.
        let newest = had.iter().filter(|(_, other)| has_it(other));
        let newest = newest.max_by_key(|(_, other)| other.decision);
        if copies > 1 && newest.is_some_and(|(at, _)| is_left(seen, at)) {
            return;
        }
        for (other, _) in others {
            if is_left(seen, other) || copies > 1 && seen.failing.has_failed(unit, other) {
                continue;
            }
            // Its loss was judged when it was written down. It was back since, but no leader has
            // seen it, and it is away again.
            let member = seen.members.get(other);
            let is_lost = member.is_some_and(|member| member.status == MemberStatus::Lost);
            if is_lost && seen.absent_since.get(other).copied().flatten().is_some() {
                continue;
            }
            let at = short(other);
            match seen.absent_since.get(other).copied().flatten() {
                Some(since) => {
                    let grace = self.grace(seen, other);
                    let grace = if is_patient(unit) {
                        grace.max(LOST_AFTER)
                    } else {
                        grace
                    };
                    if now - since < grace {
                        self.sim.fail(format!(
                            "{unit} was moved {:?} after {at} had vanished, not after {grace:?}",
                            now - since
                        ));
                    }
                }
                None => {
                    let back = seen.back_since.get(other);
                    if back.is_none_or(|back| now - *back >= NEWS) {
                        let why = format!("{unit} was moved off {at}, which is present");
                        self.sim.fail(why);
                    }
                }
            }
        }
    }

    /// A unit is active on a machine.
    pub fn is_up(&self, machine: &str, unit: &str, decision: Decision) {
        let mut seen = lock(&self.seen);
        let up = seen.up.entry(unit.to_owned()).or_default();
        up.insert(machine.to_owned());
        let key = (unit.to_owned(), machine.to_owned());
        let newest = seen.was_up.entry(key).or_default();
        *newest = decision.max(*newest);
    }

    /// A unit is not active on a machine.
    pub fn is_down(&self, machine: &str, unit: &str) {
        if let Some(up) = lock(&self.seen).up.get_mut(unit) {
            up.remove(machine);
        }
    }

    /// A unit that is active is stopped because another machine has it: there it is, or was, up.
    pub fn hands_over(&self, machine: &str, unit: &str, decision: Decision, running: &Running) {
        let seen = lock(&self.seen);
        if is_global(unit) || !is_plain(unit) || seen.restored.is_some() {
            return;
        }
        let wish = seen.wishes.get(unit).and_then(|wishes| wishes.last());
        let is_as_wished = wish.is_some_and(|(_, wish)| {
            wish.desired == DesiredState::Launched
                && wish.hash == running.hash
                && wish.restarts == running.restarts
                && matches!(Behaviour::of(&wish.text), Behaviour::Runs | Behaviour::Slow)
        });
        let any_time = Decision {
            generation: u64::MAX,
            ..decision
        };
        if !is_as_wished || self.by_wish(&seen, unit, any_time, running) {
            return;
        }
        let home = seen.placements.get(unit).and_then(|p| p.machine.as_ref());
        let Some(home) = home.filter(|home| home.as_str() != machine) else {
            return;
        };
        // Until its new boot has spoken, what was said by the one before counts.
        let back = seen.back_since.get(home.as_str());
        if back.is_some_and(|back| Instant::now() - *back < NEWS) {
            return;
        }
        // Of three copies the newest and the oldest are kept.
        let leaving = seen.placements.get(unit).and_then(|p| p.leaving.as_ref());
        if leaving.is_some_and(|leaving| leaving.as_str() != machine) {
            return;
        }
        if seen.failing.failed_later(unit, home.as_str(), machine) {
            return;
        }
        let mut elsewhere = seen.up.get(unit).into_iter().flatten();
        let key = (unit.to_owned(), home.as_str().to_owned());
        let was_up = seen.was_up.get(&key);
        if elsewhere.all(|other| other == machine)
            && was_up.is_none_or(|newest| *newest <= running.decision)
        {
            self.sim.fail(format!(
                "{unit} was stopped on {} at {decision} before it ran on {}",
                short(machine),
                short(home.as_str())
            ));
        }
    }
}

/// Its units are to leave it, or were until a moment ago.
pub(super) fn is_left(seen: &Seen, machine: &str) -> bool {
    let now = Instant::now();
    let drained = seen.drained.get(machine);
    let said = seen.said.get(machine);
    drained.is_some_and(|ended| ended.is_none_or(|at| now - at < NEWS))
        || said.is_some_and(MachineRecord::is_shutting_down)
}

/// Its end was meant.
fn has_left(seen: &Seen, machine: &str) -> bool {
    let said = seen.said.get(machine);
    said.is_some_and(MachineRecord::says_farewell)
}
