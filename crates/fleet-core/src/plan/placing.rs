//! Where units go that look for a machine.

use std::collections::BTreeSet;

use super::explain::Tally;
use super::moves::{Cause, Move, Turn};
use super::{Planner, Whereabouts};
use crate::cluster::{Score, Wait, Wish};
use crate::name::UnitName;
use crate::records::{MachineId, Order};
use crate::schedule::{Found, Search};

/// A unit looks for a machine: among these, which have changed so that they may do, or among
/// all.
pub(crate) type Among = Option<BTreeSet<MachineId>>;

impl Planner<'_> {
    /// Places a unit; if a peer is still to be placed, that comes first. Its followers are
    /// looked at when a unit has got its place, so the order of names is kept whether or not
    /// they were to be placed anyway.
    pub(crate) fn place(&mut self, name: UnitName, among: Among) {
        let wish = self
            .cluster
            .units
            .get(&name)
            .and_then(|unit| unit.wish.as_ref());
        let peers = wish.map_or(Vec::new(), |wish| wish.requirements.machine_of.clone());
        if peers.iter().any(|peer| self.is_unsettled(peer)) {
            self.after_peers.insert(name, among);
        } else {
            self.place_one(&name, among, false);
        }
    }

    /// Whether a unit is to be placed, or would be if it were looked at: so the order does not
    /// depend on whether it is.
    fn is_unsettled(&mut self, name: &str) -> bool {
        if self.to_place.contains_key(name) {
            return true;
        }
        let Some((name, unit)) = self.cluster.units.get_key_value(name) else {
            return false;
        };
        let wish = unit.wish.clone();
        let wish = wish.filter(|wish| !wish.requirements.global && wish.order(name).is_some());
        let Some(wish) = wish.filter(|_| !unit.is_frozen()) else {
            return false;
        };
        match unit.home().cloned() {
            None => true,
            Some(home) => {
                let name = name.clone();
                self.cause_to_move(&name, &wish, &home).is_some()
            }
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
                let here = self.why_here(name, &wish, &score, is_preferred);
                if let Some(moves) = &moves {
                    self.count_failure(name, moves);
                }
                let why = match &moves {
                    Some(moves) => Some(self.why_moved(name, &wish, moves)),
                    None => self.why_moved_before(name, &wish),
                };
                let reason = match why {
                    Some(why) => format!("{why}; {here}"),
                    None => here,
                };
                let tally = self.passed_over(&search);
                let to = (&score.machine, Some(tally));
                self.settle_at(name, &wish, order, to, moves, reason);
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
        let could_stay = moves.is_some_and(|moves| self.could_stay(name, wish, &moves.from));
        Search {
            unit: name,
            needs: &wish.requirements,
            now_ms: self.now.monotonic_ms,
            // What is moved has left it behind.
            prefer: wish.prefer.as_ref().filter(|_| moves.is_none()),
            except: moves.map(|moves| &moves.from),
            only,
            // Moved without need, a group moves as one or not at all.
            with_followers: could_stay
                && matches!(
                    cause,
                    Some(Cause::Drained | Cause::ReplacedBy(_) | Cause::Failed(_))
                ),
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
            // Who has refused it had it not, though it may have taken it since: an exclusive unit
            // waits for its word. Who is lost is not waited for.
            .filter(|id| {
                let refused = self
                    .cluster
                    .units
                    .get(name)
                    .is_some_and(|unit| unit.has_backed_off(id));
                let never_had_it = refused && !wish.requirements.exclusive;
                !never_had_it && !self.is_lost_for(name, wish, id)
            })
            .collect();
        // Who is named already stays named while it is waited for.
        let named = self.cluster.units.get(name).and_then(|unit| {
            let leaving = unit.placement.as_ref()?.leaving.as_ref()?;
            awaited.iter().find(|id| *id == leaving)
        });
        let Some(first) = named.or(awaited.first()) else {
            return false;
        };
        let search = self.search(name, wish, None, None);
        if awaited.len() == 1
            && !self.cluster.failed_on(name).contains(first)
            && self.cluster.may_return(&search, first)
        {
            let reason = format!("it was still on {}", first.short());
            self.settle_at(name, wish, order, (first, None), None, reason);
        } else {
            self.cluster.waiting.remove(name);
            let whereabouts = Whereabouts {
                leaving: Some(first.clone()),
                reason: self
                    .why_still_there(name, wish, first)
                    .unwrap_or_else(|| self.why_awaited(name, first)),
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

    /// The unit goes to a machine, which was found among others or not.
    fn settle_at(
        &mut self,
        name: &UnitName,
        wish: &Wish,
        order: Order,
        (id, tally): (&MachineId, Option<Tally>),
        moves: Option<Move>,
        reason: String,
    ) {
        self.forget_failure(name);
        if let Some(moves) = &moves {
            // What this plan has said to the old machine would be as new as what it says now.
            self.undo(name, &moves.from);
            let unit = self.cluster.units.get(name);
            let copies = unit.map_or(0, |unit| unit.wanted_at().count());
            // Only this plan has sent it there: nobody has it, and nothing is to be waited for.
            let is_nowhere = unit.is_none_or(|unit| unit.assignments.is_empty());
            if wish.requirements.exclusive && moves.cause != Cause::Lost && !is_nowhere {
                // Never two copies, not for a moment.
                self.withdraw(name, &moves.words());
                let why = self.why_moved(name, wish, moves);
                let whereabouts = Whereabouts {
                    leaving: Some(moves.from.clone()),
                    reason: format!("{why}; waits until {} has stopped it", moves.from.short()),
                    ..Whereabouts::default()
                };
                self.cluster.waiting.remove(name);
                self.settle(name, whereabouts);
                return;
            }
            let failed = matches!(moves.cause, Cause::Failed(_));
            if copies > 1 || wish.requirements.exclusive || failed {
                // A handover to that machine was under way, and the older copy is still kept; or
                // what has failed there must not run again.
                self.assign(name, &moves.from, Order::Gone, moves.words());
            }
        }
        self.cluster.waiting.remove(name);
        self.assign(name, id, order, reason.clone());
        let whereabouts = Whereabouts {
            machine: Some(id.clone()),
            leaving: self.leaving(name, Some(id)),
            reason,
            tally,
            ..Whereabouts::default()
        };
        self.settle(name, whereabouts);
        self.look_at_replaced(name, wish, id);
    }

    /// Units that this one replaces on its machine are to move.
    pub(crate) fn look_at_replaced(&mut self, name: &UnitName, wish: &Wish, id: &MachineId) {
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
        // It could go on where it is, unless it may not even stay there.
        let misfit = moves
            .as_ref()
            .filter(|moves| moves.cause != Cause::Lost)
            .and_then(|moves| {
                let stay = &mut BTreeSet::new();
                let stay = self.cluster.may_stay(name, needs, &moves.from, stay);
                stay.err().map(|no| (moves.from.clone(), no))
            });
        if let Some((from, no)) = &misfit {
            // A machine that has failed to start it is tried again; what runs waits for that.
            let is_same = self.body_at(name, from) == Some(wish.body);
            if needs.exclusive || !is_same || !self.is_backed_off(name) {
                self.stop_first(name, from, no);
                return;
            }
        } else if peeked {
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
            self.renew(name, wish, order, &moves.from);
            if moves.cause == Cause::Drained && !self.cluster.waiting.units.contains_key(name) {
                // Those that follow it need not wait for it to leave.
                let followers = self.cluster.followers.get(name.as_str());
                let followers = followers.into_iter().flatten().cloned();
                self.cluster.marks.units.extend(followers);
            }
        }
        if needs.exclusive {
            self.await_doubters(name);
        }
        let wait = Wait {
            wait_for: self.cluster.wait_for(needs),
            patterns: needs.patterns().into_iter().cloned().collect(),
            for_room: for_want_of_room,
        };
        self.cluster.waiting.insert(name, wait);
        self.new_waits.insert(name.clone());
    }

    /// Why this machine and no other.
    fn why_here(&self, name: &UnitName, wish: &Wish, score: &Score, is_preferred: bool) -> String {
        let why = self.why_chosen(name, wish, score.units, is_preferred);
        let machine = self.cluster.machines.get(&score.machine);
        match machine.and_then(|machine| machine.avoided.as_ref()) {
            Some(avoided) => format!(
                "{why}; it is avoided, but no other will do: {}",
                avoided.why
            ),
            None => why,
        }
    }

    fn why_chosen(&self, name: &UnitName, wish: &Wish, units: usize, is_preferred: bool) -> String {
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
        let fewest = format!("fewest units ({units}) of the machines that may run it");
        // Whoever counts will ask about the empty one.
        let passed_over = self
            .cluster
            .open
            .avoided()
            .find(|score| score.units < units);
        match passed_over {
            Some(score) => format!("{fewest}; {} is avoided", score.machine.short()),
            None => fewest,
        }
    }
}
