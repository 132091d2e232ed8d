//! Units that run on one machine: where they are, whether they may stay, where they go.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::moves::{Cause, Move, Turn};
use super::{Planner, Whereabouts};
use crate::cluster::{BackOff, Timer, Wait, Wish};
use crate::name::UnitName;
use crate::records::{DesiredState, MachineId, MemberStatus, Order, Reached};
use crate::schedule::{Found, No, Search};

/// First pause before a machine that refused a unit is asked again: long enough for a person
/// to mend what was refused, short enough not to be forgotten.
const FIRST_BACK_OFF_MS: u64 = 15_000;
/// Pauses double up to this.
const MAX_BACK_OFF_MS: u64 = 600_000;

/// A unit looks for a machine: among these, which have changed so that they may do, or among
/// all.
pub(crate) type Among = Option<BTreeSet<MachineId>>;

impl Planner<'_> {
    /// Looks at a unit that has changed: takes back what may not stay, and notes what has to
    /// be placed.
    pub(crate) fn review(&mut self, name: &UnitName) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        if unit.is_frozen() {
            self.cluster.waiting.remove(name);
            return;
        }
        self.remove_confirmed(name);
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        match unit.wish.clone() {
            // A wish that vanished is damage: what runs is left alone.
            None => {
                if unit.assignments.is_empty() && unit.placement.is_some() {
                    self.bury(name, None);
                }
                self.cluster.waiting.remove(name);
            }
            Some(wish) if wish.requirements.global => self.review_global(name, &wish),
            Some(wish) => match wish.order(name) {
                Some(order) => self.review_wanted(name, &wish, order),
                None => self.stop(name, &wish),
            },
        }
    }

    /// Places a unit; if a peer is still to be placed, that comes first. Its followers are
    /// looked at when a unit has got its place, so the order of names is kept whether or not
    /// they were to be placed anyway.
    pub(crate) fn place(&mut self, name: UnitName, among: Among) {
        let wish = self
            .cluster
            .units
            .get(&name)
            .and_then(|unit| unit.wish.as_ref());
        let peers = wish.map_or(&[][..], |wish| &wish.requirements.machine_of);
        if peers
            .iter()
            .any(|peer| self.to_place.contains_key(peer.as_str()))
        {
            self.after_peers.insert(name, among);
        } else {
            self.place_one(&name, among, false);
        }
    }

    /// These machines may have become good for a waiting unit.
    pub(crate) fn peek(&mut self, name: &UnitName, machines: BTreeSet<MachineId>) {
        if !self.cluster.waiting.units.contains_key(name) {
            return;
        }
        let among = match self.to_place.get_mut(name) {
            Some(among) => Some(among),
            None => self.after_peers.get_mut(name),
        };
        match among {
            None => {
                self.to_place.insert(name.clone(), Some(machines));
            }
            Some(Some(among)) => among.extend(machines),
            Some(None) => {}
        }
    }

    /// It has to look for a machine among all.
    fn look(&mut self, name: &UnitName) {
        self.after_peers.remove(name);
        self.to_place.insert(name.clone(), None);
    }

    fn review_wanted(&mut self, name: &UnitName, wish: &Wish, order: Order) {
        let Some(mut home) = self.home_or_restored(name, order) else {
            self.look(name);
            return;
        };
        if self.note_refusal(name, &home) {
            self.assign(
                name,
                &home,
                Order::Gone,
                "its machine has refused it".to_owned(),
            );
            match self.cluster.units.get(name).and_then(|unit| unit.home()) {
                Some(older) => home = older.clone(), // Its handover has failed.
                None => {
                    self.look(name);
                    return;
                }
            }
        }
        home = self.advance_handover(name, wish, order, home);
        if self.cause_to_move(name, wish, &home).is_some() {
            self.look(name);
            return;
        }
        let mut gives_way = BTreeSet::new();
        let needs = &wish.requirements;
        match self.cluster.may_stay(name, needs, &home, &mut gives_way) {
            Ok(()) => self.keep(name, wish, order, &home),
            Err(no) => self.stop_first(name, &home, &no),
        }
        for other in gives_way {
            if self.cluster.is_global(&other) {
                let machines = self.cluster.marks.globals.entry(other).or_default();
                machines.insert(home.clone());
            } else {
                self.cluster.marks.units.insert(other);
            }
        }
    }

    /// The machine that has the unit. An assignment that vanished while its placement stands is
    /// damage, and is written again.
    fn home_or_restored(&mut self, name: &UnitName, order: Order) -> Option<MachineId> {
        let unit = self.cluster.units.get(name)?;
        if let Some(home) = unit.home() {
            return Some(home.clone());
        }
        let id = unit.placement.as_ref()?.machine.clone()?;
        let gone = matches!(
            self.cluster.status(&id),
            MemberStatus::Lost | MemberStatus::Retired
        );
        if gone || unit.assignments.get(&id).is_some() {
            return None;
        }
        self.assign(name, &id, order, "its assignment had vanished".to_owned());
        Some(id)
    }

    /// The unit stays; its machine learns of a newer wish.
    fn keep(&mut self, name: &UnitName, wish: &Wish, order: Order, home: &MachineId) {
        let waited = self.cluster.waiting.units.contains_key(name);
        self.cluster.waiting.remove(name);
        self.renew(name, wish, order, home);
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let old = unit.placement.as_deref();
        let reason = match old {
            Some(old)
                if old.machine.as_ref() == Some(home) && !waited && old.refusals.is_empty() =>
            {
                old.reason.clone()
            }
            Some(_) => format!("it stays on {}", home.short()),
            None => format!("it was found on {}", home.short()),
        };
        let whereabouts = Whereabouts {
            machine: Some(home.clone()),
            leaving: self.leaving(name, Some(home)),
            reason,
            ..Whereabouts::default()
        };
        self.settle(name, whereabouts);
        self.look_at_replaced(name, wish, home);
    }

    /// Rewrites the assignment if it carries an older wish.
    pub(crate) fn renew(&mut self, name: &UnitName, wish: &Wish, order: Order, home: &MachineId) {
        let unit = self.cluster.units.get(name);
        let Some(old) = unit.and_then(|unit| unit.assignments.get(home)).copied() else {
            return;
        };
        let reason = if old.hash != wish.hash {
            "its contents have changed"
        } else if old.restarts != wish.restarts {
            "a restart was asked for"
        } else if old.order != order {
            match order {
                Order::Launched => "its start was asked for",
                _ => "its stop was asked for",
            }
        } else if old.decision.generation != wish.generation {
            "it was asked for anew"
        } else {
            return;
        };
        self.assign(name, home, order, reason.to_owned());
    }

    /// The machine, other than its home, that still has something of the unit.
    pub(crate) fn leaving(&self, name: &UnitName, home: Option<&MachineId>) -> Option<MachineId> {
        let unit = self.cluster.units.get(name)?;
        let mut others = unit.assignments.iter().filter(|(id, _)| Some(*id) != home);
        let wanted = unit.wanted_at().find(|(id, _)| Some(*id) != home);
        wanted
            .map(|(id, _)| id)
            .or_else(|| others.next().map(|(id, _)| id))
            .cloned()
    }

    /// The unit may not stay: it is stopped, and placed anew once that is confirmed.
    fn stop_first(&mut self, name: &UnitName, home: &MachineId, no: &No) {
        let why = format!("it may not stay on {}: {no}", home.short());
        self.withdraw(name, &why);
        self.look(name);
    }

    /// Orders every machine that has the unit to stop it.
    pub(crate) fn withdraw(&mut self, name: &UnitName, why: &str) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let machines: Vec<_> = unit.wanted_at().map(|(id, _)| id.clone()).collect();
        for id in machines {
            self.assign(name, &id, Order::Gone, why.to_owned());
        }
    }

    /// The unit is wanted nowhere.
    pub(crate) fn stop(&mut self, name: &UnitName, wish: &Wish) {
        self.cluster.waiting.remove(name);
        let why = match wish.desired {
            DesiredState::Destroyed => "it was destroyed",
            DesiredState::Inactive => "it was unloaded",
            DesiredState::Loaded | DesiredState::Launched => "a template runs nowhere",
        };
        self.withdraw(name, why);
        match self.leaving(name, None) {
            None => {
                let destroyed = wish.desired == DesiredState::Destroyed;
                self.bury(name, destroyed.then_some(wish.generation));
            }
            Some(id) => {
                let whereabouts = Whereabouts {
                    reason: format!("{why}; {} has not yet confirmed its stop", id.short()),
                    leaving: Some(id),
                    ..Whereabouts::default()
                };
                self.settle(name, whereabouts);
            }
        }
    }

    /// Finds a machine for one unit, or lets it wait. `is_called`: it is its turn to leave a
    /// drained machine.
    pub(crate) fn place_one(&mut self, name: &UnitName, only: Among, is_called: bool) {
        let Some(wish) = self
            .cluster
            .units
            .get(name)
            .and_then(|unit| unit.wish.clone())
        else {
            return;
        };
        let Some(order) = wish.order(name) else {
            return;
        };
        if wish.requirements.global {
            return; // It was an ordinary unit when it was noted.
        }
        // Since it was noted, others may have gone their way.
        let home = self
            .cluster
            .units
            .get(name)
            .and_then(|unit| unit.home().cloned());
        let moves = match home {
            None => None,
            Some(from) => match self.cause_to_move(name, &wish, &from) {
                Some(cause) => Some(Move { from, cause }),
                None => {
                    self.cluster.marks.units.insert(name.clone());
                    return;
                }
            },
        };
        if moves.is_none() && self.awaits_stop(name, &wish, order) {
            return;
        }
        let search = self.search(name, &wish, moves.as_ref(), only.as_ref());
        let circle = match &moves {
            None if !wish.requirements.machine_of.is_empty() => self.cluster.cycle(name),
            _ => None,
        };
        let found = match circle {
            None => self.cluster.find(&search),
            Some(_) => Found::Nowhere {
                for_want_of_room: false,
            },
        };
        match found {
            Found::At(score) => {
                if let Some(moves) = &moves
                    && moves.cause == Cause::Drained
                    && self.could_stay(name, &wish, &moves.from)
                    && self.stays_for_now(name, &wish, order, moves, is_called)
                {
                    return;
                }
                let is_preferred = search.prefer == Some(&score.machine);
                let here = self.why_here(name, &wish, score.units, is_preferred);
                let reason = match &moves {
                    Some(moves) => format!("{}; {here}", moves.words()),
                    None => here,
                };
                self.settle_at(name, &wish, order, &score.machine, moves, reason);
            }
            Found::Nowhere { for_want_of_room } => {
                if let Some(moves) = &moves
                    && moves.cause == Cause::Drained
                    && self.could_stay(name, &wish, &moves.from)
                    && self.awaits_peer(&wish, &moves.from)
                {
                    self.keep(name, &wish, order, &moves.from);
                    return;
                }
                self.wait(name, &wish, order, moves, only.is_some(), for_want_of_room);
            }
        }
    }

    fn could_stay(&self, name: &UnitName, wish: &Wish, id: &MachineId) -> bool {
        let needs = &wish.requirements;
        let stay = self.cluster.may_stay(name, needs, id, &mut BTreeSet::new());
        stay.is_ok()
    }

    /// It could leave its drained machine, but it is not its turn yet.
    fn stays_for_now(
        &mut self,
        name: &UnitName,
        wish: &Wish,
        order: Order,
        moves: &Move,
        is_called: bool,
    ) -> bool {
        match self.turn(wish, &moves.from, is_called) {
            Turn::Go => return false,
            Turn::Follow => {}
            Turn::Queue => {
                let queue = self.cluster.drains.entry(moves.from.clone()).or_default();
                queue.insert(name.clone());
            }
        }
        self.keep(name, wish, order, &moves.from);
        true
    }

    /// How a unit looks for a machine.
    pub(crate) fn search<'a>(
        &self,
        name: &'a UnitName,
        wish: &'a Wish,
        moves: Option<&'a Move>,
        only: Option<&'a BTreeSet<MachineId>>,
    ) -> Search<'a> {
        let cause = moves.map(|moves| &moves.cause);
        Search {
            unit: name,
            needs: &wish.requirements,
            now_ms: self.now.monotonic_ms,
            // What is moved has left it behind.
            prefer: wish.prefer.as_ref().filter(|_| moves.is_none()),
            except: moves.map(|moves| &moves.from),
            only,
            // Moved without need, a group moves as one or not at all.
            with_followers: matches!(cause, Some(Cause::Drained | Cause::ReplacedBy(_))),
            makes_room: matches!(cause, Some(Cause::ReplacedBy(_))),
        }
    }

    /// While a machine has not confirmed the stop, the unit runs nowhere else. It may go back
    /// there, though, if that is the only such machine.
    fn awaits_stop(&mut self, name: &UnitName, wish: &Wish, order: Order) -> bool {
        let Some(unit) = self.cluster.units.get(name) else {
            return false;
        };
        let stopping: Vec<_> = unit.assignments.iter().map(|(id, _)| id.clone()).collect();
        let awaited: Vec<_> = stopping
            .into_iter()
            // Who has refused it never had it; who is lost is not waited for.
            .filter(|id| {
                let refused = self
                    .cluster
                    .units
                    .get(name)
                    .is_some_and(|unit| unit.has_backed_off(id));
                !refused && !self.is_lost_for(name, wish, id)
            })
            .collect();
        let Some(first) = awaited.first() else {
            return false;
        };
        let search = self.search(name, wish, None, None);
        if awaited.len() == 1 && self.cluster.may_return(&search, first) {
            let reason = format!("it was still on {}", first.short());
            self.settle_at(name, wish, order, first, None, reason);
        } else {
            self.cluster.waiting.remove(name);
            let whereabouts = Whereabouts {
                leaving: Some(first.clone()),
                reason: self.why_awaited(name, first),
                ..Whereabouts::default()
            };
            self.settle(name, whereabouts);
        }
        true
    }

    /// Why a unit is to be stopped first, as long as it waits for that.
    fn why_awaited(&self, name: &UnitName, id: &MachineId) -> String {
        let waits = format!("waits until {} has stopped it", id.short());
        if let Some(why) = self
            .touched
            .get(name)
            .and_then(|touched| touched.reasons.get(id))
        {
            return format!("{why}; {waits}");
        }
        let unit = self.cluster.units.get(name);
        match unit.and_then(|unit| unit.placement.as_deref()) {
            Some(old) if old.machine.is_none() && old.reason.ends_with(&waits) => {
                old.reason.clone()
            }
            _ => waits,
        }
    }

    /// The unit goes to a machine.
    fn settle_at(
        &mut self,
        name: &UnitName,
        wish: &Wish,
        order: Order,
        id: &MachineId,
        moves: Option<Move>,
        reason: String,
    ) {
        if let Some(moves) = &moves {
            // What this plan has said to the old machine would be as new as what it says now.
            self.undo(name, &moves.from);
            let unit = self.cluster.units.get(name);
            let copies = unit.map_or(0, |unit| unit.wanted_at().count());
            if wish.requirements.exclusive && moves.cause != Cause::Lost {
                // Never two copies, not for a moment.
                self.withdraw(name, &moves.words());
                let whereabouts = Whereabouts {
                    leaving: Some(moves.from.clone()),
                    reason: format!("{}; waits until it is stopped there", moves.words()),
                    ..Whereabouts::default()
                };
                self.cluster.waiting.remove(name);
                self.settle(name, whereabouts);
                return;
            }
            if copies > 1 || wish.requirements.exclusive {
                // A handover to that machine was under way; the older copy is still kept.
                self.assign(name, &moves.from, Order::Gone, moves.words());
            }
        }
        self.cluster.waiting.remove(name);
        self.assign(name, id, order, reason.clone());
        let whereabouts = Whereabouts {
            machine: Some(id.clone()),
            leaving: self.leaving(name, Some(id)),
            reason,
            ..Whereabouts::default()
        };
        self.settle(name, whereabouts);
        self.look_at_replaced(name, wish, id);
    }

    /// Units that this one replaces on its machine are to move.
    fn look_at_replaced(&mut self, name: &UnitName, wish: &Wish, id: &MachineId) {
        if let Some(machine) = self.cluster.machines.get(id) {
            let replaced = self.cluster.replaced(name, &wish.requirements, machine);
            self.cluster.marks.units.extend(replaced);
        }
    }

    /// No machine can have the unit now.
    fn wait(
        &mut self,
        name: &UnitName,
        wish: &Wish,
        order: Order,
        moves: Option<Move>,
        peeked: bool,
        for_want_of_room: bool,
    ) {
        let needs = &wish.requirements;
        if peeked {
            if for_want_of_room && let Some(wait) = self.cluster.waiting.units.get(name) {
                let wait = Wait {
                    for_room: true,
                    ..wait.clone()
                };
                self.cluster.waiting.insert(name, wait);
            }
            return;
        }
        if let Some(moves) = &moves {
            if moves.cause != Cause::Lost {
                // It could go on where it is, unless it may not even stay there.
                let stay = self
                    .cluster
                    .may_stay(name, needs, &moves.from, &mut BTreeSet::new());
                if let Err(no) = stay {
                    self.stop_first(name, &moves.from, &no);
                    return;
                }
            }
            self.renew(name, wish, order, &moves.from);
            if moves.cause == Cause::Drained && !self.cluster.waiting.units.contains_key(name) {
                // Those that follow it need not wait for it to leave.
                let followers = self.cluster.followers.get(name.as_str());
                let followers = followers.into_iter().flatten().cloned();
                self.cluster.marks.units.extend(followers);
            }
        }
        let wait = Wait {
            wait_for: self.cluster.wait_for(needs),
            patterns: needs.patterns().into_iter().cloned().collect(),
            for_room: for_want_of_room,
        };
        self.cluster.waiting.insert(name, wait);
        self.new_waits.insert(name.clone());
    }

    /// Whether the machine's agent has refused what it was last assigned; the refusal is noted.
    pub(crate) fn note_refusal(&mut self, name: &UnitName, id: &MachineId) -> bool {
        let Some(unit) = self.cluster.units.get(name) else {
            return false;
        };
        let (Some(assigned), Some(state)) = (unit.assignments.get(id), unit.states.get(id)) else {
            return false;
        };
        if state.reached != Reached::Refused || state.decision < assigned.decision {
            return false;
        }
        self.back_off(name, id, false);
        true
    }

    /// The unit failed on a machine that it was being moved to; the machine is not tried again
    /// at once.
    pub(crate) fn note_failure(&mut self, name: &UnitName, id: &MachineId) {
        self.back_off(name, id, true);
    }

    fn back_off(&mut self, name: &UnitName, id: &MachineId, failed: bool) {
        let now_ms = self.now.monotonic_ms;
        let Some(unit) = self.cluster.units.get_mut(name) else {
            return;
        };
        let why = unit.states.get(id).and_then(|state| state.why.clone());
        let why = why.unwrap_or_else(|| Arc::from("no reason given"));
        let back_offs = &mut unit.rare_mut().back_offs;
        let times = back_offs.get(id).map_or(0, |back_off| back_off.times) + 1;
        let pause = FIRST_BACK_OFF_MS.saturating_mul(1 << (times - 1).min(16));
        let until = now_ms.saturating_add(pause.min(MAX_BACK_OFF_MS));
        let back_off = BackOff {
            until,
            times,
            why,
            failed,
        };
        back_offs.insert(id.clone(), back_off);
        let timer = Timer::BackOff(name.clone(), id.clone());
        self.cluster.timers.insert((until, timer));
    }

    /// Why this machine and no other.
    fn why_here(&self, name: &UnitName, wish: &Wish, units: usize, is_preferred: bool) -> String {
        let needs = &wish.requirements;
        let unit = self.cluster.units.get(name);
        let rare = unit.and_then(|unit| unit.rare.as_ref());
        let refused = rare.and_then(|rare| {
            let mut back_offs = rare.back_offs.iter();
            back_offs.rfind(|(_, back_off)| self.now.monotonic_ms < back_off.until)
        });
        if let Some((id, back_off)) = refused {
            let what = match back_off.failed {
                true => format!("it failed on {}", id.short()),
                false => format!("{} has refused it", id.short()),
            };
            return format!("{what}: {}", back_off.why);
        }
        if is_preferred {
            return "it ran there when it was brought over".to_owned();
        }
        if needs.machine_id.is_some() {
            return "MachineID names this machine".to_owned();
        }
        if !needs.machine_of.is_empty() {
            return format!("MachineOf {}", needs.machine_of.join(", "));
        }
        format!("fewest units ({units}) of the machines that may run it")
    }
}
