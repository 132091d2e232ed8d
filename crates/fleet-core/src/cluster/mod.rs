//! The cluster as the leader knows it: units, machines, where units are, what was reported,
//! what is damaged; with the indices that keep a decision cheap and the marks of what has
//! changed since the last plan.
//!
//! [`Cluster::apply`] takes in what the store says, [`Cluster::plan`] decides. A plan is applied
//! to the cluster as it is made, as if every write of it had succeeded: whoever cannot write it
//! throws the cluster away and makes a new one from a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod bound;
mod facts;
mod index;
mod machine;
mod roll;
mod strays;
mod unit;

pub(crate) use bound::End;
pub use facts::{Assigned, Fact, Place, Reported, Wish};
pub use index::Score;
pub(crate) use index::{OpenMachines, PatternSet, Wait, WaitFor, Waiting, matching};
pub(crate) use machine::{Machine, Outcome};
pub(crate) use unit::{BackOff, Unit};

use crate::glob::Glob;
use crate::name::UnitName;
use crate::records::{MachineId, MachineRecord, MemberRecord, MemberStatus, Order, Reached};

/// What can be configured about planning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// From suspect to lost, unless a unit says `LostAfter=`.
    pub lost_after_ms: u64,
    /// From an orderly stop of fleetd until its machine is given up.
    pub unsupervised_grace_ms: u64,
    /// When more machines than this share of the members, and more than one, vanish at once,
    /// nothing is moved: more likely it is us who cannot see them.
    pub freeze_percent: u32,
    /// So far apart the ends of their leases may be seen although they vanished at the same time.
    pub spread_ms: u64,
    /// How long such a freeze lasts at most.
    pub freeze_for_ms: u64,
    /// At most so many changed units are looked at in one plan, so that no event waits long
    /// behind a storm; the next plan goes on.
    pub max_units_per_plan: usize,
    /// At most so many (unit, machine) pairs are judged in one plan only to count refusals:
    /// about 30 ms of work.
    pub explain_budget: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            lost_after_ms: 5_000,
            unsupervised_grace_ms: 600_000,
            freeze_percent: 34,
            spread_ms: 1_000,
            freeze_for_ms: 300_000,
            max_units_per_plan: 4096,
            explain_budget: 100_000,
        }
    }
}

/// The cluster. Cloning it gives an independent copy (for simulations and tests).
#[derive(Clone, Default, Debug)]
pub struct Cluster {
    pub(crate) settings: Settings,
    /// The newest store revision that has been seen.
    pub(crate) revision: u64,
    pub(crate) units: BTreeMap<UnitName, Unit>,
    pub(crate) machines: BTreeMap<MachineId, Machine>,
    /// From a unit to those that name it in `MachineOf`.
    pub(crate) followers: BTreeMap<Arc<str>, BTreeSet<UnitName>>,
    /// All global units.
    pub(crate) globals: BTreeMap<UnitName, ()>,
    pub(crate) global_conflicts: PatternSet,
    pub(crate) open: OpenMachines,
    pub(crate) waiting: Waiting,
    pub(crate) marks: Marks,
    pub(crate) timers: BTreeSet<(u64, Timer)>,
    pub(crate) explain: Explain,
    /// Who is away.
    pub(crate) roll: roll::Roll,
    /// Set while nothing is declared lost.
    pub(crate) freeze: Option<Freeze>,
    /// The units that could leave each drained machine, and wait for their turn.
    pub(crate) drains: BTreeMap<MachineId, BTreeSet<UnitName>>,
    /// It has been planned for: what is reported from now on is news.
    pub(crate) is_followed: bool,
    /// What each machine has without an order, as it said last.
    pub(crate) strays: BTreeMap<MachineId, BTreeSet<UnitName>>,
    /// The machines that do not believe this store, or did not when they were seen last.
    pub(crate) doubters: BTreeSet<MachineId>,
    /// Units whose own, shorter grace has ended while too many machines are away.
    pub(crate) impatient: BTreeSet<UnitName>,
}

/// What the next plan has to look at.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Marks {
    pub(crate) machines: BTreeSet<MachineId>,
    pub(crate) units: BTreeSet<UnitName>,
    /// Waiting units that only these machines may have become good for.
    pub(crate) peeks: BTreeMap<UnitName, BTreeSet<MachineId>>,
    /// Global units with a machine that has confirmed its stop: looked at before all others,
    /// so that it does not depend on names who gets the room.
    pub(crate) releases: BTreeSet<UnitName>,
    /// Units that have started well (false) or have failed (true), and where.
    pub(crate) outcomes: Vec<(MachineId, UnitName, bool)>,
    /// Global units to look at on these machines only.
    pub(crate) globals: BTreeMap<UnitName, BTreeSet<MachineId>>,
}

/// What time alone brings about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A machine's grace ends.
    Machine(MachineId),
    /// A unit's own grace ends.
    Unit(UnitName),
    /// A machine that refused a unit may be asked again.
    BackOff(UnitName, MachineId),
}

/// Too many machines have vanished at once; nothing is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Freeze {
    /// In monotonic milliseconds.
    pub(crate) until: u64,
}

/// Waiting units whose reasons are to be counted (again).
#[derive(Clone, Default, Debug)]
pub(crate) struct Explain {
    pub(crate) queue: BTreeSet<UnitName>,
    /// Machines have changed: what every waiting unit was told may be out of date.
    pub(crate) all: bool,
    /// Not before this, in monotonic milliseconds.
    pub(crate) not_before: u64,
}

impl Explain {
    /// When the next reasons are due, if any are.
    pub(crate) fn due_at(&self) -> Option<u64> {
        (self.all || !self.queue.is_empty()).then_some(self.not_before)
    }
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        Cluster {
            settings,
            ..Cluster::default()
        }
    }

    /// Plans by other settings from now on. Everything is looked at again: what was not due by
    /// the old ones may be by the new.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
        self.mark_all();
    }

    /// Somebody says that the machines that are away are really gone: a freeze ends, also one that
    /// another leader has recorded and that has not begun for this one yet.
    pub fn thaw(&mut self) {
        let is_frozen = |member: &MemberRecord| member.is_frozen();
        let frozen: Vec<MachineId> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.is_absent())
            .filter(|(_, machine)| machine.member.as_ref().is_some_and(is_frozen))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &frozen {
            self.thaw_machine(id);
        }
        if let Some(freeze) = &mut self.freeze {
            freeze.until = 0;
            let absent = self
                .machines
                .iter()
                .filter(|(_, machine)| machine.is_absent());
            self.marks.machines.extend(absent.map(|(id, _)| id.clone()));
        }
    }

    /// Somebody has said that this machine is really gone, since it was recorded as frozen.
    pub fn thaw_machine(&mut self, id: &MachineId) {
        if let Some(machine) = self.machines.get_mut(id) {
            machine.thawed = true;
            self.marks.machines.insert(id.clone());
        }
    }

    /// Notes that the store has reached a revision: later decisions are numbered above it.
    pub fn observe(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Takes in what one key holds now, and marks what has to be looked at because of it.
    pub fn apply(&mut self, fact: Fact) {
        self.mend(&fact);
        match fact {
            Fact::Unit(name, wish) => self.apply_wish(&name, wish),
            Fact::Presence(id, record) => self.apply_presence(id, record),
            Fact::Member(id, record) => {
                let machine = self.machines.entry(id.clone()).or_default();
                machine.avoided = record.as_ref().and_then(|record| record.avoided.clone());
                machine.member = record;
                // A leader before saw it go.
                if machine.is_absent() && machine.member.as_ref().is_some_and(MemberRecord::doubted)
                {
                    self.doubters.insert(id.clone());
                }
                self.marks.machines.insert(id);
            }
            Fact::MachineWish(id, wish) => {
                self.machines.entry(id.clone()).or_default().wish = wish.unwrap_or_default();
                self.marks.machines.insert(id);
            }
            Fact::Placement(name, record) => {
                let unit = self.units.entry(name.clone()).or_default();
                if let Some(record) = &record {
                    unit.last_seq = unit.last_seq.max(record.decision.seq);
                }
                unit.placement = record.map(Box::new);
                self.marks.units.insert(name);
            }
            Fact::Assignment(id, name, assigned) => {
                self.set_assigned(&name, &id, assigned);
                self.marks.machines.insert(id);
                self.marks.units.insert(name);
            }
            Fact::State(name, id, state) => self.apply_state(name, id, state),
            Fact::Damaged(place) => self.apply_damage(place),
        }
    }

    /// Marks everything, so that the next plan looks at all of it: the reference that planning
    /// by marks is held against.
    pub fn mark_all(&mut self) {
        self.marks.machines.extend(self.machines.keys().cloned());
        self.marks.units.extend(self.units.keys().cloned());
        self.explain.all = true;
    }

    /// A machine that is away and not given up yet, as it is recorded.
    pub fn away(&self) -> Option<(&MachineId, &MemberRecord)> {
        let mut waiting = self.roll.waiting();
        waiting.find_map(|id| Some((id, self.machines.get(id)?.member.as_ref()?)))
    }

    /// About how many units the next plan will look at: those that are marked, and all of the machines
    /// that are marked or whose time has come.
    pub fn work_ahead(&self, monotonic_ms: u64) -> usize {
        let due = self.timers.iter();
        let due = due.take_while(|(at, _)| *at <= monotonic_ms);
        let due = due.filter_map(|(_, timer)| match timer {
            Timer::Machine(id) => Some(id),
            Timer::Unit(_) | Timer::BackOff(..) => None,
        });
        let machines: BTreeSet<&MachineId> = self.marks.machines.iter().chain(due).collect();
        let on_machines = machines.into_iter().filter_map(|id| self.machines.get(id));
        on_machines
            .map(|machine| machine.units.len())
            .sum::<usize>()
            + self.marks.units.len()
            + self.marks.peeks.len()
            + self.marks.releases.len()
            + self.marks.globals.len()
    }

    /// The machines that are not there and have been as they are since before a time, in milliseconds
    /// since the Unix epoch.
    pub fn gone_since(&self, unix_ms: u64) -> Vec<MachineId> {
        let machines = self.machines.iter();
        let gone = machines.filter(|(_, machine)| {
            let member = machine.member.as_ref();
            machine.presence.is_none() && member.is_some_and(|member| member.since_ms < unix_ms)
        });
        gone.map(|(id, _)| id.clone()).collect()
    }

    /// How many units are known.
    pub fn unit_count(&self) -> usize {
        self.units.len()
    }

    /// The keys that could not be read.
    pub fn damaged(&self) -> impl Iterator<Item = &Place> {
        let units = self.units.values().filter_map(|unit| unit.rare.as_ref());
        let machines = self.machines.values().flat_map(|m| &m.damaged);
        units.flat_map(|rare| &rare.damaged).chain(machines)
    }

    /// Units that are wanted on a machine, or on another one, and cannot have it now.
    pub fn waiting_count(&self) -> usize {
        self.waiting.units.len()
    }

    /// Takes back the damage of a key that could be read again.
    fn mend(&mut self, fact: &Fact) {
        if matches!(fact, Fact::Damaged(_)) {
            return;
        }
        let place = fact.place();
        if let Some(unit) = place.unit() {
            if let Some(rare) = self.units.get_mut(unit).and_then(|unit| unit.rare.as_mut())
                && rare.damaged.remove(&place)
            {
                self.marks.units.insert(unit.clone());
            }
        } else if let Some(id) = place.machine()
            && let Some(machine) = self.machines.get_mut(id)
            && machine.damaged.remove(&place)
        {
            self.marks.machines.insert(id.clone());
            self.marks.units.extend(machine.units.keys().cloned());
        }
    }

    fn apply_wish(&mut self, name: &UnitName, wish: Option<Wish>) {
        let unit = self.units.entry(name.clone()).or_default();
        if unit.wish == wish {
            return;
        }
        let old = unit.wish.take();
        if old.as_ref().map(|wish| wish.generation) != wish.as_ref().map(|wish| wish.generation) {
            unit.forget_back_offs();
        }
        let machines: Vec<_> = unit.assignments.iter().map(|(id, _)| id.clone()).collect();
        self.marks.units.insert(name.clone());
        self.marks
            .units
            .extend(self.waiting.for_room.iter().cloned());
        let old_needs = old.map(|wish| wish.requirements);
        let new_needs = wish.as_ref().map(|wish| wish.requirements.clone());
        if old_needs != new_needs {
            if let Some(needs) = &old_needs {
                for peer in &needs.machine_of {
                    if let Some(followers) = self.followers.get_mut(peer.as_str()) {
                        followers.remove(name);
                        if followers.is_empty() {
                            self.followers.remove(peer.as_str());
                        }
                    }
                }
                for id in &machines {
                    let machine = self.machines.entry(id.clone()).or_default();
                    needs
                        .conflicts
                        .iter()
                        .for_each(|p| machine.conflicts.remove(p, name));
                    needs
                        .replaces
                        .iter()
                        .for_each(|p| machine.replaces.remove(p, name));
                }
                if needs.global {
                    self.globals.remove(name);
                    for pattern in &needs.conflicts {
                        self.global_conflicts.remove(pattern, name);
                    }
                }
            }
            if let Some(needs) = &new_needs {
                for peer in &needs.machine_of {
                    let followers = self.followers.entry(Arc::from(peer.as_str()));
                    followers.or_default().insert(name.clone());
                }
                for id in &machines {
                    let machine = self.machines.entry(id.clone()).or_default();
                    // Its neighbours may now have to make room for it, or it for them: whose
                    // turn comes first must not depend on who else was marked.
                    for pattern in needs.patterns() {
                        let neighbours = matching(&machine.units, pattern);
                        self.marks
                            .units
                            .extend(neighbours.map(|(unit, _)| unit.clone()));
                    }

                    needs
                        .conflicts
                        .iter()
                        .for_each(|p| machine.conflicts.insert(p, name));
                    needs
                        .replaces
                        .iter()
                        .for_each(|p| machine.replaces.insert(p, name));
                }
                if needs.global {
                    self.globals.insert(name.clone(), ());
                    for pattern in &needs.conflicts {
                        self.global_conflicts.insert(pattern, name);
                    }
                }
            }
            let was_global = old_needs.as_ref().is_some_and(|needs| needs.global);
            if was_global != new_needs.as_ref().is_some_and(|needs| needs.global) {
                // Where it is now means something else.
                let followers = self.followers.get(name.as_str()).into_iter().flatten();
                self.marks.units.extend(followers.cloned());
                for id in &machines {
                    self.look_at_globals_of(id);
                }
            }
            // Whoever was kept away by what it demanded before may come now.
            if let Some(needs) = &old_needs {
                for id in &machines {
                    self.wake_for_leaver(name, needs.patterns(), id);
                }
            }
        }
        if let Some(unit) = self.units.get_mut(name) {
            unit.wish = wish;
        }
        self.drop_if_void(name);
    }

    fn apply_presence(&mut self, id: MachineId, record: Option<MachineRecord>) {
        let machine = self.machines.entry(id.clone()).or_default();
        if record.is_none() {
            let last = machine.presence.as_ref();
            machine.shut_down = last.is_some_and(MachineRecord::is_shutting_down);
            machine.left_in_order =
                !machine.shut_down && last.is_some_and(MachineRecord::says_farewell);
        } else {
            // A sign of life, also if it vanishes again before anybody has looked.
            machine.vanished_at = None;
            machine.given_up = false;
            machine.thawed = false;
        }
        let was_in_trouble = machine.is_in_trouble();
        machine.presence = record;
        if was_in_trouble && !machine.is_in_trouble() {
            // What it says of its units is what they are now.
            let handed_over = machine.units.keys().filter(|name| {
                let unit = self.units.get(*name);
                unit.is_some_and(Unit::is_handing_over)
            });
            self.marks.units.extend(handed_over.cloned());
        }
        let is_there = machine.presence.is_some();
        match (self.doubters.contains(&id), machine.doubts_store()) {
            (false, true) => {
                self.doubters.insert(id.clone());
            }
            // It may have gone with what this store does not know of.
            (true, false) if !is_there => self.look_at_waiting_exclusive_units(),
            (true, false) => {
                self.doubters.remove(&id);
                self.look_at_all_strays();
                self.look_at_waiting_exclusive_units();
            }
            _ => {}
        }
        self.marks.machines.insert(id);
    }

    /// What must not run twice is placed when nobody doubts the store any more.
    fn look_at_waiting_exclusive_units(&mut self) {
        let waiting = self.waiting.units.keys().filter(|name| {
            let wish = self.units.get(*name).and_then(|unit| unit.wish.as_ref());
            wish.is_some_and(|wish| wish.requirements.exclusive)
        });
        self.marks.units.extend(waiting.cloned());
    }

    fn apply_state(&mut self, name: UnitName, id: MachineId, state: Option<Reported>) {
        let unit = self.units.entry(name.clone()).or_default();
        let refused = state
            .as_ref()
            .is_some_and(|state| state.reached == Reached::Refused);
        let awaited = unit.is_handing_over()
            || unit
                .assignments
                .get(&id)
                .is_some_and(|assigned| assigned.order == Order::Gone);
        let before = unit.states.get(&id);
        let moves = unit.moves_when_it_fails() && before != state.as_ref();
        if self.is_followed
            && let Some(failed) = outcome(before, state.as_ref())
        {
            let outcome = (id.clone(), name.clone(), failed);
            self.marks.outcomes.push(outcome);
        }
        match state {
            Some(state) => {
                unit.states.insert(id.clone(), state);
            }
            None => {
                unit.states.remove(&id);
            }
        }
        // Of a global unit only that machine is looked at: it has a state on each.
        let is_global = unit.is_global();
        let is_frozen = unit.is_frozen();
        let has_strays = !is_global && unit.has_strays();
        let is_stray = self.note_stray(&name, &id);
        if (refused || awaited || moves || has_strays || is_stray) && !is_frozen {
            if is_global {
                self.marks.releases.insert(name.clone());
                self.marks.globals.entry(name).or_default().insert(id);
            } else {
                self.marks.units.insert(name);
            }
        } else {
            self.drop_if_void(&name);
        }
    }

    fn apply_damage(&mut self, place: Place) {
        if let Some(unit) = place.unit().cloned() {
            let unit = self.units.entry(unit).or_default();
            unit.rare_mut().damaged.insert(place);
        } else if let Some(id) = place.machine().cloned() {
            let machine = self.machines.entry(id.clone()).or_default();
            machine.damaged.insert(place);
            self.marks.machines.insert(id);
        }
    }

    /// Forgets a unit of which nothing is left.
    pub(crate) fn drop_if_void(&mut self, name: &UnitName) {
        if self.units.get(name).is_some_and(Unit::is_void) {
            self.units.remove(name);
            self.waiting.remove(name);
        }
    }

    /// Sets or removes an assignment, with all that is derived from it.
    pub(crate) fn set_assigned(&mut self, name: &UnitName, id: &MachineId, to: Option<Assigned>) {
        let unit = self.units.entry(name.clone()).or_default();
        if let Some(assigned) = &to {
            unit.last_seq = unit.last_seq.max(assigned.decision.seq);
        }
        let order = to.map(|assigned| assigned.order);
        let has_followers = self.followers.contains_key(name.as_str());
        let home = has_followers.then(|| unit.home().cloned()).flatten();
        match to {
            Some(assigned) => unit.assignments.insert(id.clone(), assigned),
            None => unit.assignments.remove(id),
        };
        if has_followers && (home.as_ref() != unit.home() || unit.is_global()) {
            let followers = self.followers.get(name.as_str());
            self.marks
                .units
                .extend(followers.into_iter().flatten().cloned());
            // A follower of both this unit and another may let that other one move now.
            self.marks
                .units
                .extend(self.waiting.for_room.iter().cloned());
        }
        let needs = unit.wish.as_ref().map(|wish| wish.requirements.clone());

        let machine = self.machines.entry(id.clone()).or_default();
        let score = machine.score(id);
        let before = match order {
            Some(order) => machine.units.insert(name.clone(), order),
            None => machine.units.remove(name),
        };
        let counted = |order: Option<Order>| order.is_some_and(|order| order != Order::Gone);
        match (counted(before), counted(order)) {
            (false, true) => machine.load += 1,
            (true, false) => machine.load -= 1,
            _ => {}
        }
        // A machine that only a wish or units speak of counts while it has units.
        let is_first_or_last = machine.units.len() <= 1 && before.is_some() != order.is_some();
        if machine.open && machine.load != score.units {
            self.open.remove(&score, &machine.metadata);
            self.open.insert(&machine.score(id), &machine.metadata);
        }
        if let Some(needs) = &needs {
            match (before, order) {
                (None, Some(_)) => {
                    needs
                        .conflicts
                        .iter()
                        .for_each(|p| machine.conflicts.insert(p, name));
                    needs
                        .replaces
                        .iter()
                        .for_each(|p| machine.replaces.insert(p, name));
                }
                (Some(_), None) => {
                    needs
                        .conflicts
                        .iter()
                        .for_each(|p| machine.conflicts.remove(p, name));
                    needs
                        .replaces
                        .iter()
                        .for_each(|p| machine.replaces.remove(p, name));
                }
                _ => {}
            }
        }
        if machine.wish.drain && before.is_some() && order.is_none() {
            self.look_at_globals_of(id);
        }
        if before.is_some() != order.is_some() {
            self.note_stray(name, id);
        }
        if is_first_or_last {
            self.call(id);
        }
        if before.is_some() && !counted(order) {
            let patterns = needs.as_ref().map(|needs| needs.patterns());
            self.wake_for_leaver(name, patterns.unwrap_or_default(), id);
        }
    }

    /// A unit has left a machine, or demands less there: whoever it kept away is looked at.
    pub(crate) fn wake_for_leaver(
        &mut self,
        name: &UnitName,
        patterns: Vec<&Glob>,
        id: &MachineId,
    ) {
        for unit in self.waiting.for_leaver(name, &patterns) {
            let home = self.units.get(&unit).and_then(|unit| unit.home());
            if home == Some(id) {
                self.marks.units.insert(unit);
            } else {
                self.marks.peeks.entry(unit).or_default().insert(id.clone());
            }
        }
        self.marks
            .units
            .extend(self.waiting.for_room.iter().cloned());
        if let Some(machine) = self.machines.get(id) {
            // Who is being handed over to another machine may perhaps stay now, and who is
            // being stopped may come back.
            let by_its = patterns.iter().flat_map(|p| matching(&machine.units, p));
            let by_theirs = machine.conflicts.owners(name.as_str());
            let concerned = by_its.map(|(unit, _)| unit).chain(by_theirs);
            for unit in concerned {
                let home = self.units.get(unit).and_then(|unit| unit.home());
                if home != Some(id) && !self.globals.contains_key(unit) {
                    self.marks.units.insert(unit.clone());
                }
            }
        }
        if !self.globals.is_empty() {
            let by_its = patterns
                .iter()
                .flat_map(|pattern| matching(&self.globals, pattern))
                .map(|(global, ())| global);
            for global in self.global_conflicts.owners(name.as_str()).chain(by_its) {
                let machines = self.marks.globals.entry(global.clone()).or_default();
                machines.insert(id.clone());
            }
        }
    }

    /// Which global units a machine has may have to change.
    pub(crate) fn look_at_globals_of(&mut self, id: &MachineId) {
        for global in self.globals.keys() {
            let machines = self.marks.globals.entry(global.clone()).or_default();
            machines.insert(id.clone());
        }
    }

    /// How the machine is; a machine that nobody knows is lost.
    pub(crate) fn status(&self, id: &MachineId) -> MemberStatus {
        self.machines
            .get(id)
            .map_or(MemberStatus::Lost, |machine| machine.status)
    }

    /// The membership record, as this cluster would write it.
    pub fn member(&self, id: &MachineId) -> Option<&MemberRecord> {
        self.machines.get(id)?.member.as_ref()
    }
}

/// What a new report says of a unit that was started: Some(true) if it has failed since the one
/// before, Some(false) if it has started well since.
fn outcome(before: Option<&Reported>, now: Option<&Reported>) -> Option<bool> {
    let of = |state: &Reported| {
        let is_over = state.reached == Reached::Launched && !state.starting;
        is_over.then_some((state.decision, state.failed))
    };
    let (decision, failed) = of(now?)?;
    (before.and_then(of) != Some((decision, failed))).then_some(failed)
}
