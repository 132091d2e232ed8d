//! Units that run on one machine: where they are, and whether they may stay.

use std::collections::BTreeSet;

use super::exclusive::is_still_there;
use super::{Planner, Whereabouts};
use crate::cluster::Wish;
use crate::name::UnitName;
use crate::records::{DesiredState, MachineId, MemberStatus, Order, PlacementRecord};
use crate::schedule::No;

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

    /// It has to look for a machine among all.
    pub(crate) fn look(&mut self, name: &UnitName) {
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
        self.note_health(name, wish, &home);
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
        let gone = gone && self.has_surely_ended(unit, &id);
        if gone || unit.assignments.get(&id).is_some() {
            return None;
        }
        self.assign(name, &id, order, "its assignment had vanished".to_owned());
        Some(id)
    }

    /// The unit stays; its machine learns of a newer wish.
    pub(crate) fn keep(&mut self, name: &UnitName, wish: &Wish, order: Order, home: &MachineId) {
        let waited = self.cluster.waiting.units.contains_key(name);
        self.cluster.waiting.remove(name);
        self.renew(name, wish, order, home);
        let called_off = self.call_off_strays(name, home);
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let old = unit.placement.as_deref();
        let still_there = self.why_still_there(name, wish, home);
        let stands = |old: &PlacementRecord| {
            old.machine.as_ref() == Some(home)
                && !waited
                && old.refusals.is_empty()
                && !is_still_there(&old.reason)
        };
        let reason = match old {
            _ if still_there.is_some() => still_there.unwrap_or_default(),
            _ if called_off.is_some() => called_off.unwrap_or_default(),
            Some(old) if stands(old) => old.reason.clone(),
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
        let reason = if old.body != wish.body {
            "its contents have changed"
        } else if old.hash != wish.hash {
            "its requirements have changed"
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
    pub(crate) fn stop_first(&mut self, name: &UnitName, home: &MachineId, no: &No) {
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
        self.forget_failure(name);
        let why = match wish.desired {
            DesiredState::Destroyed => "it was destroyed",
            DesiredState::Inactive => "it was unloaded",
            DesiredState::Loaded | DesiredState::Launched => "a template runs nowhere",
        };
        self.withdraw(name, why);
        self.call_off_older_strays(name, wish, why);
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
}
