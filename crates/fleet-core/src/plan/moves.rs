//! Units that leave a machine though they run there: why, when it is their turn, and how the old
//! copy gives way to the new one. A move starts the unit at its new machine before it is stopped
//! at the old one, unless the unit is exclusive.

use std::sync::Arc;

use super::{Planner, Whereabouts};
use crate::body::BodyHash;
use crate::cluster::{Assigned, Cluster, Machine, Reported, Timer, Unit, Wish};
use crate::name::UnitName;
use crate::records::{Decision, MachineId, MemberStatus, Order, Reached};
use crate::schedule::No;

/// So many units (with those that follow them) leave a drained machine at once, unless its drain
/// says otherwise: a machine is empty soon, and those that take its units are not overrun.
pub const DEFAULT_DRAIN_PARALLEL: u32 = 8;

/// A unit is to leave its machine, but keeps it until another one has started it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Move {
    pub(crate) from: MachineId,
    pub(crate) cause: Cause,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    Lost,
    Drained,
    ShutDown,
    ReplacedBy(UnitName),
    /// The machine, the units around it or its own requirements have changed. What it runs has
    /// not.
    Unfit(No),
    /// systemd there has given it up: why.
    Failed(Arc<str>),
}

impl Move {
    pub(crate) fn words(&self) -> String {
        self.cause.words(&self.from)
    }
}

impl Cause {
    /// In words, of a unit on this machine.
    pub(crate) fn words(&self, from: &MachineId) -> String {
        let from = from.short();
        match self {
            Cause::Lost => format!("{from} is lost"),
            Cause::Drained => format!("{from} is being drained"),
            Cause::ShutDown => format!("{from} is shutting down"),
            Cause::ReplacedBy(unit) => format!("{unit} replaces it on {from}"),
            Cause::Unfit(no) => format!("it no longer fits {from}: {no}"),
            Cause::Failed(why) => format!("it failed on {from}: {why}"),
        }
    }
}

/// What becomes of a unit that could leave a drained machine now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// It goes.
    Go,
    /// It waits for others to have gone, and stays as it is.
    Queue,
    /// It goes when the unit goes that it follows.
    Follow,
}

impl Planner<'_> {
    /// Why a unit should leave a machine on which it could go on for now.
    pub(crate) fn cause_to_move(
        &mut self,
        name: &UnitName,
        wish: &Wish,
        home: &MachineId,
    ) -> Option<Cause> {
        if self.is_lost_for(name, wish, home)
            || planted!("a failed unit has lost its machine") && self.has_failed(name, wish, home)
        {
            return Some(Cause::Lost);
        }
        let machine = self.cluster.machines.get(home)?;
        if machine.is_shutting_down() {
            return Some(Cause::ShutDown);
        }
        if machine.is_drained() {
            return Some(Cause::Drained);
        }
        let needs = &wish.requirements;
        if let Some(replacer) = self.cluster.replacer(name, needs, machine)
            && self.cluster.is_on(replacer.as_str(), home)
        {
            return Some(Cause::ReplacedBy(replacer));
        }
        if self.is_moved_for_failure(name, wish, home) {
            return Some(Cause::Failed(self.why_failed(name, home)));
        }
        // New contents are no move: the old ones are stopped first, wherever the new ones go.
        if needs.exclusive || self.body_at(name, home) != Some(wish.body) {
            return None;
        }
        let stay = self
            .cluster
            .may_stay(name, needs, home, &mut Default::default());
        stay.err().map(Cause::Unfit)
    }

    /// What a machine was assigned to run before this plan.
    pub(crate) fn body_at(&self, name: &UnitName, id: &MachineId) -> Option<BodyHash> {
        let touched = self.touched.get(name);
        let before = touched.and_then(|touched| touched.assignments.get(id));
        match before {
            Some(before) => before.map(|assigned| assigned.body),
            None => {
                let unit = self.cluster.units.get(name)?;
                unit.assignments.get(id).map(|assigned| assigned.body)
            }
        }
    }

    /// Whether the machine has been away for as long as this unit bears.
    pub(crate) fn is_lost_for(&mut self, name: &UnitName, wish: &Wish, id: &MachineId) -> bool {
        self.is_given_up(name, wish, id)
            && (!wish.requirements.exclusive || self.awaits_end(name, id))
    }

    fn is_given_up(&mut self, name: &UnitName, wish: &Wish, id: &MachineId) -> bool {
        let status = self.cluster.status(id);
        if !matches!(
            status,
            MemberStatus::Lost | MemberStatus::Suspect | MemberStatus::Retired
        ) {
            return false;
        }
        let lost = status != MemberStatus::Suspect;
        let Some(grace) = wish.requirements.lost_after else {
            return lost;
        };
        let vanished_at = self.cluster.machines.get(id).and_then(|m| m.vanished_at);
        let Some(vanished_at) = vanished_at else {
            return lost;
        };
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let due = vanished_at.saturating_add(grace);
        if self.now.monotonic_ms < due && !planted!("LostAfter is not waited for") {
            self.cluster.timers.insert((due, Timer::Unit(name.clone())));
            return false;
        }
        if lost {
            return true;
        }
        let frozen = self.is_frozen_since(vanished_at);
        if frozen {
            self.cluster.impatient.insert(name.clone());
        }
        !frozen
    }

    /// Two machines have the unit: the older one gives it up once the newer one has started it,
    /// or keeps it if it has come back before that, or if the newer one has failed. Returns the
    /// machine that is to have it.
    pub(crate) fn advance_handover(
        &mut self,
        name: &UnitName,
        wish: &Wish,
        order: Order,
        home: MachineId,
    ) -> MachineId {
        let Some(unit) = self.cluster.units.get(name) else {
            return home;
        };
        let placement = unit.placement.as_deref();
        let leaving = placement
            .filter(|placement| placement.machine.as_ref() == Some(&home))
            .and_then(|placement| placement.leaving.clone());
        let mut others: Vec<_> = unit
            .wanted_at()
            .filter(|(id, _)| **id != home)
            .map(|(id, assigned)| (id.clone(), *assigned))
            .collect();
        // What is well comes before what has failed.
        others.sort_by_key(|(id, assigned)| unit.has_failed(id, assigned.decision));
        if others.is_empty() {
            return home;
        }
        let Some(assigned) = unit.assignments.get(&home).copied() else {
            return home;
        };
        // What a machine that has vanished has started may be no more. Nor is what is only loaded
        // there started.
        let started = unit.has_started(&home, assigned.decision, assigned.order)
            && (assigned.order == order || order == Order::Loaded)
            && matches!(
                self.cluster.status(&home),
                MemberStatus::Present | MemberStatus::Unsupervised
            )
            && !self.peer_moves_along(wish, &home)
            || planted!("the old copy stops first");
        let is_well = started && !unit.has_failed(&home, assigned.decision);
        let mut leaving = leaving;
        if leaving.is_none() && !is_well {
            // It was global until now. Where it runs, it stays, or goes on until it has started.
            let stays =
                |(id, old): &&(MachineId, Assigned)| self.still_runs(name, wish, id, *old, order);
            if let Some((keeper, _)) = others.iter().find(stays).cloned() {
                let why = format!("{} runs it already", keeper.short());
                self.withdraw(name, &why);
                self.go_back(name, order, &home, &keeper, why);
                return keeper;
            }
            let runs = |(id, old): &&(MachineId, Assigned)| {
                !wish.requirements.exclusive
                    && self.cluster.status(id) == MemberStatus::Present
                    && self
                        .cluster
                        .units
                        .get(name)
                        .is_some_and(|unit| unit.has_reached(id, old.decision, old.order))
            };
            leaving = others.iter().find(runs).map(|(id, _)| id.clone());
        }
        for (other, old) in others {
            if leaving.as_ref() != Some(&other) {
                let why = format!("{} has it by a newer decision", home.short());
                self.assign(name, &other, Order::Gone, why);
            } else if self.has_failed_there(name, &home, &other) {
                self.note_failure(name, &home);
                let why = format!("it failed on {}", home.short());
                self.go_back(name, order, &home, &other, why);
                return other;
            } else if started && self.may_come_back(name, &home, &other) {
                // With what runs well, as far as is known: it is called off then that failed here.
            } else if started || planted!("a move stops the old copy first") {
                let why = format!("{} has started it", home.short());
                self.assign(name, &other, Order::Gone, why);
                // Those that follow it have waited for this.
                let followers = self.cluster.followers.get(name.as_str());
                let followers = followers.into_iter().flatten().cloned();
                self.cluster.marks.units.extend(followers);
            } else if self.still_runs(name, wish, &other, old, order) {
                let why = format!("{} is back and still has it", other.short());
                self.go_back(name, order, &home, &other, why);
                return other;
            } else if self.is_lost_for(name, wish, &home)
                && self.still_has(name, wish, &other, old.decision)
            {
                let why = format!(
                    "{} is lost, and {} still has it",
                    home.short(),
                    other.short()
                );
                // Until it is well there, what is back may run where it was starting.
                self.turn_back(name, order, &other, why);
                return other;
            } else if self.follows_back(wish, &home, &other) {
                let why = format!("what it follows stays on {}", other.short());
                self.go_back(name, order, &home, &other, why);
                return other;
            }
        }
        home
    }

    /// The newer copy is given up, and the older one kept.
    fn go_back(
        &mut self,
        name: &UnitName,
        order: Order,
        from: &MachineId,
        to: &MachineId,
        why: String,
    ) {
        self.assign(name, from, Order::Gone, why.clone());
        self.turn_back(name, order, to, why);
    }

    /// The older copy is the one that is wanted from now on; what becomes of the newer one is seen then.
    fn turn_back(&mut self, name: &UnitName, order: Order, to: &MachineId, why: String) {
        self.assign(name, to, order, why.clone());
        let whereabouts = Whereabouts {
            machine: Some(to.clone()),
            leaving: self.leaving(name, Some(to)),
            reason: why,
            ..Whereabouts::default()
        };
        self.settle(name, whereabouts);
    }

    /// What it follows is still being handed over to the same machine, and may yet go back.
    fn peer_moves_along(&self, wish: &Wish, home: &MachineId) -> bool {
        let peers = wish.requirements.machine_of.iter();
        peers
            .filter_map(|peer| self.cluster.units.get(peer.as_str()))
            .any(|peer| {
                !peer.is_global()
                    && !peer.is_frozen()
                    && peer.home() == Some(home)
                    && peer.wanted_at().count() > 1
            })
    }

    /// What it follows has gone back to the older machine, or never left it.
    fn follows_back(&self, wish: &Wish, home: &MachineId, other: &MachineId) -> bool {
        let needs = &wish.requirements;
        self.cluster.peers_match(needs, home, &[]).is_err()
            && self.cluster.peers_match(needs, other, &[]).is_ok()
    }

    /// The new machine has started it, and systemd there has given it up; the old one has vanished
    /// with a copy that was well or about to be, or has not yet said what became of it.
    fn may_come_back(&self, name: &UnitName, home: &MachineId, other: &MachineId) -> bool {
        let Some(unit) = self.cluster.units.get(name) else {
            return false;
        };
        let has_said = unit.assignments.get(other).is_none_or(|old| {
            old.order != Order::Launched || unit.has_reached(other, old.decision, old.order)
        });
        // What goes down in order stops its units.
        let may_have_it = |machine: &Machine| match machine.is_absent() {
            true => !machine.shut_down,
            false => !machine.is_shutting_down() && !has_said,
        };
        let Some(machine) = self.cluster.machines.get(other) else {
            return false;
        };
        let is_launched = |old: &Assigned| old.order == Order::Launched;
        let was_well = |state: &Reported| match state.reached {
            Reached::Launched | Reached::Working => !state.failed,
            // That was before it was told to start it.
            Reached::Loaded => !machine.is_absent(),
            Reached::Gone | Reached::Refused => false,
        };
        may_have_it(machine)
            && unit.states.get(home).is_some_and(|state| state.failed)
            && match unit.states.get(other) {
                Some(state) => was_well(state),
                // It may have started it, and not come to say so.
                None => unit.assignments.get(other).is_some_and(is_launched),
            }
    }

    /// systemd at the new machine has given up a unit that is well at the old one.
    fn has_failed_there(&self, name: &UnitName, home: &MachineId, other: &MachineId) -> bool {
        let Some(unit) = self.cluster.units.get(name) else {
            return false;
        };
        let (Some(new), Some(old)) = (unit.assignments.get(home), unit.assignments.get(other))
        else {
            return false;
        };
        let failed = |id: &MachineId| unit.states.get(id).is_some_and(|state| state.failed);
        let stays_up = |machine: &Machine| {
            machine.status == MemberStatus::Present && !machine.is_shutting_down()
        };
        self.cluster.machines.get(other).is_some_and(stays_up)
            && new.order == Order::Launched
            && unit.has_reached(home, new.decision, new.order)
            && failed(home)
            && unit.has_reached(other, old.decision, old.order)
            && !failed(other)
    }

    /// The original, away for a while, is back and has lost nothing of what is wanted: one that is only
    /// loaded there is no reason to call off the newer copy, which may be starting. Nor is what has failed
    /// meanwhile, while the newer one may well run. What stands there of it may be of before a reboot, as
    /// long as the machine has not reached its systemd.
    fn still_runs(
        &self,
        name: &UnitName,
        wish: &Wish,
        id: &MachineId,
        old: Assigned,
        wanted: Order,
    ) -> bool {
        let unit = self.cluster.units.get(name);
        let runs = |unit: &Unit| {
            (old.order == wanted || wanted == Order::Loaded)
                && unit.has_reached(id, old.decision, old.order)
                && !unit.has_failed(id, old.decision)
        };
        let machine = self.cluster.machines.get(id);
        let has_looked = machine.is_some_and(|machine| !machine.is_in_trouble());
        unit.is_some_and(runs) && has_looked && self.suits(name, wish, id)
    }

    /// The older machine is there and has not yet said what became of its copy: it may be starting
    /// it anew.
    fn still_has(&self, name: &UnitName, wish: &Wish, id: &MachineId, decision: Decision) -> bool {
        let unit = self.cluster.units.get(name);
        !wish.requirements.exclusive
            && unit.is_some_and(|unit| !unit.has_failed(id, decision) && !unit.has_backed_off(id))
            && self.suits(name, wish, id)
    }

    /// A machine that has a unit is there, and may go on having it.
    fn suits(&self, name: &UnitName, wish: &Wish, id: &MachineId) -> bool {
        let needs = &wish.requirements;
        self.cluster.machines.get(id).is_some_and(|machine| {
            machine.status == MemberStatus::Present
                && !machine.is_being_left()
                && self.cluster.replacer(name, needs, machine).is_none()
        }) && self
            .cluster
            .may_stay(name, needs, id, &mut Default::default())
            .is_ok()
    }

    /// Whether a unit that has found another machine leaves its drained one now. Whoever may go
    /// is first gathered, so that it does not depend on who was looked at first who goes first.
    pub(crate) fn turn(&self, wish: &Wish, from: &MachineId, is_called: bool) -> Turn {
        let mut peers = self.cluster.ordinary_peers(wish);
        if peers.any(|peer| peer.home() == Some(from)) {
            Turn::Follow
        } else if is_called || self.cluster.ordinary_peers(wish).next().is_some() {
            Turn::Go
        } else {
            Turn::Queue
        }
    }

    /// Whether what a unit follows is on the drained machine and may still leave it.
    pub(crate) fn awaits_peer(&self, wish: &Wish, from: &MachineId) -> bool {
        let peers = wish.requirements.machine_of.iter();
        peers
            .filter_map(|peer| self.cluster.units.get_key_value(peer.as_str()))
            .any(|(name, peer)| {
                !peer.is_global()
                    && peer.home() == Some(from)
                    && !self.cluster.waiting.units.contains_key(name)
            })
    }

    /// The next unit whose turn it is to leave a drained machine.
    pub(crate) fn next_drained(&mut self) -> Option<UnitName> {
        let cluster = &self.cluster;
        let id = cluster
            .drains
            .iter()
            .find(|(id, queue)| !queue.is_empty() && cluster.may_leave(id));
        let id = id.map(|(id, _)| id.clone())?;
        self.cluster.drains.get_mut(&id)?.pop_first()
    }
}

impl Cluster {
    /// Whether one more unit may begin to leave a machine.
    fn may_leave(&self, id: &MachineId) -> bool {
        let Some(machine) = self.machines.get(id) else {
            return true;
        };
        let limit = match machine.wish.max_parallel {
            0 => DEFAULT_DRAIN_PARALLEL,
            n => n,
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let leaving = machine.units.keys().filter(|name| {
            self.units.get(*name).is_some_and(|unit| {
                let wish = unit.wish.as_ref();
                !unit.is_global()
                    && wish.is_some_and(|wish| {
                        wish.order(name).is_some() && self.ordinary_peers(wish).next().is_none()
                    })
                    && unit.home() != Some(id)
            })
        });
        leaving.take(limit).count() < limit
    }

    /// The units that a unit follows and that are on one machine themselves.
    fn ordinary_peers<'a>(&'a self, wish: &'a Wish) -> impl Iterator<Item = &'a Unit> {
        let peers = wish.requirements.machine_of.iter();
        peers
            .filter_map(|peer| self.units.get(peer.as_str()))
            .filter(|peer| !peer.is_global())
    }

    /// Nothing but global units is left on a drained machine: now they stop, too.
    pub(crate) fn is_drained_of_others(&self, id: &MachineId) -> bool {
        self.machines.get(id).is_some_and(|machine| {
            machine.is_drained()
                && machine
                    .units
                    .keys()
                    .all(|unit| self.globals.contains_key(unit))
        })
    }
}
