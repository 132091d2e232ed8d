//! What the engine has to write, given all that it knows: pure, and only as much work as has
//! changed.
//!
//! A plan is made in this order: machines (who is present, suspect, lost), units that changed,
//! then placements, dependencies first, until nothing is marked any more. Each result is applied
//! to the [`Cluster`] at once, so that later decisions of the same plan see it; what was touched
//! is compared with what was before, and the difference is the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use explain::Tally;

use crate::cluster::{Assigned, Cluster, Timer, Unit};
use crate::events::{self, Event};
use crate::name::UnitName;
use crate::records::{
    AssignmentRecord, Decision, Failures, MachineId, MemberRecord, Order, PlacementRecord, Refusal,
};

mod avoided;
mod back_off;
mod exclusive;
mod explain;
mod failures;
mod global;
mod machines;
mod moves;
mod ordinary;
mod placing;
mod strays;

pub use moves::DEFAULT_DRAIN_PARALLEL;

#[cfg(test)]
mod avoided_fixtures;
#[cfg(test)]
mod damage_fixtures;
#[cfg(test)]
mod drain_fixtures;
#[cfg(test)]
mod exclusive_fixtures;
#[cfg(test)]
mod failures_fixtures;
#[cfg(test)]
mod farewell_fixtures;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod global_fixtures;
#[cfg(test)]
mod groups_fixtures;
#[cfg(test)]
mod loss_fixtures;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod moves_fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod replaces_fixtures;
#[cfg(test)]
mod rules_fixtures;
#[cfg(test)]
mod strays_fixtures;

/// Writes of one change at most, so that each change fits one transaction of the store with
/// room for its guards, and for the states that go with assignments. Only a global unit has more;
/// each of its machines stands alone.
pub const MAX_CHANGE_WRITES: usize = 60;

/// The time of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds of a clock that never jumps; it decides.
    pub monotonic_ms: u64,
    /// Milliseconds since the Unix epoch; it only stands in records.
    pub unix_ms: u64,
}

/// What is to be written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// In this order; each is one transaction, or part of one.
    pub changes: Vec<Change>,
    /// When to plan again though nothing has happened, in monotonic milliseconds.
    pub revisit: Option<u64>,
}

/// The writes for one unit or one machine that belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What it is about.
    pub subject: Subject,
    /// All or none of them.
    pub writes: Vec<Write>,
    /// Why, in words.
    pub reason: String,
    /// It holds only while these machines are away: they are given up, or a unit that they had goes
    /// elsewhere.
    pub while_absent: Vec<MachineId>,
    /// What of it is worth telling.
    pub events: Vec<Event>,
}

/// What a change is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// A unit.
    Unit(UnitName),
    /// A machine.
    Machine(MachineId),
}

/// One key to write or to remove (`None`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// `placements/<unit>`
    Placement(UnitName, Option<PlacementRecord>),
    /// `assignments/<machine>/<unit>`
    Assignment(MachineId, UnitName, Option<AssignmentRecord>),
    /// Remove the tombstone `units/<unit>`, if it is still of this generation.
    DeleteUnit(UnitName, u64),
    /// `members/<id>`
    Member(MachineId, MemberRecord),
}

impl Cluster {
    /// Decides about everything that is marked. The cluster is afterwards as if the plan had
    /// been written: planning again gives the empty plan.
    pub fn plan(&mut self, now: Now) -> Plan {
        Planner::new(self, now).run()
    }
}

/// A plan in the making.
pub(crate) struct Planner<'c> {
    pub(crate) cluster: &'c mut Cluster,
    pub(crate) now: Now,
    /// What has been touched, as it was before.
    touched: BTreeMap<UnitName, Touched>,
    machine_changes: Vec<Change>,
    /// Units to be placed once all releases are known.
    pub(crate) to_place: BTreeMap<UnitName, placing::Among>,
    /// Units to be placed after their peers.
    pub(crate) after_peers: BTreeMap<UnitName, placing::Among>,
    /// Units that have begun to wait: their reasons are given at the end.
    pub(crate) new_waits: BTreeSet<UnitName>,
    /// Whether another plan has to follow at once.
    unfinished: bool,
}

/// A unit as it was when this plan first touched it.
struct Touched {
    seq: u64,
    placement: Option<Box<PlacementRecord>>,
    assignments: BTreeMap<MachineId, Option<Assigned>>,
    /// Why each assignment was touched.
    reasons: BTreeMap<MachineId, String>,
    /// Remove the tombstone of this generation.
    buried: Option<u64>,
}

impl<'c> Planner<'c> {
    fn new(cluster: &'c mut Cluster, now: Now) -> Self {
        Planner {
            cluster,
            now,
            touched: BTreeMap::new(),
            machine_changes: Vec::new(),
            to_place: BTreeMap::new(),
            after_peers: BTreeMap::new(),
            new_waits: Default::default(),
            unfinished: false,
        }
    }

    fn run(mut self) -> Plan {
        self.run_timers();
        self.count_outcomes();
        self.review_machines();
        // What this plan takes from outside; what it marks itself comes on top, so that chains
        // are placed in one plan.
        let later = self.put_off();
        loop {
            if let Some(name) = self.cluster.marks.releases.pop_first() {
                self.remove_confirmed(&name);
            } else if let Some(name) = self.cluster.marks.units.pop_first() {
                self.review(&name);
            } else if let Some((name, machines)) = self.cluster.marks.globals.pop_first() {
                self.review_global_on(&name, &machines);
            } else if let Some((name, machines)) = self.cluster.marks.peeks.pop_first() {
                self.peek(&name, machines);
            } else if let Some((name, among)) = self.to_place.pop_first() {
                self.place(name, among);
            } else if let Some((name, among)) = self.after_peers.pop_first() {
                // The peers have found no place, or wait for each other.
                self.place_one(&name, among, false);
            } else if let Some(name) = self.next_drained() {
                self.place_one(&name, None, true);
            } else {
                break;
            }
        }
        self.unfinished |= !later.is_empty();
        // A million may be left: what is added are the few.
        let few = std::mem::replace(&mut self.cluster.marks.units, later);
        self.cluster.marks.units.extend(few);
        self.explain_waits();
        let mut changes = self.machine_changes;
        for (name, touched) in self.touched {
            finish(self.cluster, &name, touched, &mut changes);
            self.cluster.drop_if_void(&name);
        }
        self.cluster.is_followed = true;
        let timer = self.cluster.timers.first().map(|(at, _)| *at);
        let explain = self.cluster.explain.due_at();
        Plan {
            changes,
            revisit: if self.unfinished {
                Some(self.now.monotonic_ms)
            } else {
                timer.into_iter().chain(explain).min()
            },
        }
    }

    /// Leaves as many marked units as one plan looks at; returns the others, at no cost for them.
    fn put_off(&mut self) -> BTreeSet<UnitName> {
        let marked = &mut self.cluster.marks.units;
        if marked.len() <= self.cluster.settings.max_units_per_plan {
            return BTreeSet::new();
        }
        let mut later = std::mem::take(marked);
        while marked.len() < self.cluster.settings.max_units_per_plan
            && let Some(name) = later.pop_first()
        {
            marked.insert(name);
        }
        later
    }

    fn run_timers(&mut self) {
        while let Some((at, _)) = self.cluster.timers.first()
            && *at <= self.now.monotonic_ms
            && let Some((_, timer)) = self.cluster.timers.pop_first()
        {
            match timer {
                Timer::Machine(id) => {
                    self.cluster.marks.machines.insert(id);
                }
                Timer::Unit(name) => {
                    self.cluster.marks.units.insert(name);
                }
                Timer::BackOff(name, id) => {
                    let marks = &mut self.cluster.marks;
                    marks
                        .units
                        .extend(self.cluster.waiting.for_room.iter().cloned());
                    if self.cluster.globals.contains_key(&name) {
                        marks.globals.entry(name).or_default().insert(id);
                    } else {
                        marks.peeks.entry(name).or_default().insert(id);
                    }
                }
            }
        }
    }

    /// A unit that is about to change; remembers how it was.
    fn touch(&mut self, name: &UnitName) -> &mut Touched {
        let revision = self.cluster.revision;
        let unit = self.cluster.units.get(name);
        self.touched.entry(name.clone()).or_insert_with(|| Touched {
            // One number for all that this plan decides about the unit, above all earlier ones.
            seq: (revision + 1).max(unit.map_or(0, |unit| unit.last_seq) + 1),
            placement: unit.and_then(|unit| unit.placement.clone()),
            assignments: BTreeMap::new(),
            reasons: BTreeMap::new(),
            buried: None,
        })
    }

    /// The decision that this plan takes about a unit.
    pub(crate) fn decision(&mut self, name: &UnitName) -> Decision {
        let unit = self.cluster.units.get(name);
        let wish = unit.and_then(|unit| unit.wish.as_ref());
        let known = unit.and_then(|unit| unit.placement.as_ref());
        let generation = wish.map(|wish| wish.generation);
        Decision {
            generation: generation
                .or(known.map(|p| p.decision.generation))
                .unwrap_or(0),
            seq: self.touch(name).seq,
        }
    }

    /// Writes an assignment, by the wish of the unit.
    pub(crate) fn assign(&mut self, name: &UnitName, id: &MachineId, order: Order, reason: String) {
        if order == Order::Gone && self.never_had(name, id) {
            self.undo(name, id);
            return;
        }
        let decision = self.decision(name);
        self.assign_as(name, id, order, decision, reason);
    }

    /// Writes an assignment, by the wish of the unit, that counts as this decision.
    fn assign_as(
        &mut self,
        name: &UnitName,
        id: &MachineId,
        order: Order,
        decision: Decision,
        reason: String,
    ) {
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let old = unit.assignments.get(id).copied();
        let (hash, body) = match (&unit.wish, old) {
            // What is to go is what was there.
            (_, Some(old)) if order == Order::Gone => (old.hash, old.body),
            (Some(wish), _) => (wish.hash, wish.body),
            (None, Some(old)) => (old.hash, old.body),
            (None, None) => return,
        };
        let restarts = unit.wish.as_ref().map_or(0, |wish| wish.restarts);
        let assigned = Assigned {
            decision,
            order,
            hash,
            body,
            restarts,
        };
        if unit.has_reached(id, decision, order) {
            // It was there without an order, by a wish that this store has never had: no report
            // will come that has it looked at again.
            self.cluster.marks.units.insert(name.clone());
        }
        let touched = self.touch(name);
        touched.assignments.entry(id.clone()).or_insert(old);
        touched.reasons.insert(id.clone(), reason);
        self.cluster.set_assigned(name, id, Some(assigned));
    }

    /// Takes back what this plan has decided about a unit on a machine.
    pub(crate) fn undo(&mut self, name: &UnitName, id: &MachineId) {
        let touched = self.touched.get(name);
        if let Some(before) = touched
            .and_then(|touched| touched.assignments.get(id))
            .copied()
        {
            self.cluster.set_assigned(name, id, before);
        }
    }

    /// Only this plan, which is not written yet, wants the unit on that machine.
    fn never_had(&self, name: &UnitName, id: &MachineId) -> bool {
        let touched = self.touched.get(name);
        let before = touched.and_then(|touched| touched.assignments.get(id));
        before.is_some_and(|before| before.is_none_or(|before| before.order == Order::Gone))
    }

    /// Removes an assignment whose machine has nothing left of the unit.
    pub(crate) fn unassign(&mut self, name: &UnitName, id: &MachineId, reason: &str) {
        let unit = self.cluster.units.get(name);
        let old = unit.and_then(|unit| unit.assignments.get(id)).copied();
        let touched = self.touch(name);
        touched.assignments.entry(id.clone()).or_insert(old);
        touched.reasons.insert(id.clone(), reason.to_owned());
        self.cluster.set_assigned(name, id, None);
    }

    /// Writes the placement, if it says something new. The same whereabouts for the same wish
    /// keep their decision: only the explanation has changed then.
    pub(crate) fn settle(&mut self, name: &UnitName, to: Whereabouts) {
        let now_ms = self.now.unix_ms;
        let Some(unit) = self.cluster.units.get(name) else {
            return;
        };
        let generation = unit.wish.as_ref().map_or(0, |wish| wish.generation);
        let old = unit.placement.as_deref();
        // A newer wish is a new beginning.
        let failures = old
            .filter(|old| old.decision.generation == generation)
            .map_or_else(Failures::default, |old| match old.machine == to.machine {
                true => old.failures.clone(),
                // What was to become of it there is settled.
                false => Failures {
                    next_ms: 0,
                    stays: false,
                    ..old.failures.clone()
                },
            });
        // Where it stays, it stands by what was found when it came.
        let (passed_over, considered) = match (to.tally, old) {
            (Some(tally), _) => (tally.refusals, tally.considered),
            (None, Some(old))
                if to.machine.is_some()
                    && old.machine == to.machine
                    && to.considered == 0
                    && old.refusals.is_empty() =>
            {
                (old.passed_over.clone(), old.considered)
            }
            (None, _) => (Vec::new(), to.considered),
        };
        let home_decision = to
            .machine
            .as_ref()
            .and_then(|id| unit.assignments.get(id))
            .map(|assigned| assigned.decision);
        let same = old.filter(|old| {
            old.machine == to.machine
                && old.leaving == to.leaving
                && old.decision.generation == generation
        });
        let decision = match (home_decision, same) {
            // The placement carries the decision of the assignment at its machine.
            (Some(decision), _) => decision,
            (None, Some(same)) => same.decision,
            (None, None) => self.decision(name),
        };
        let unit = self.cluster.units.get(name);
        let since_ms = match unit.and_then(|unit| unit.placement.as_deref()) {
            Some(old) if old.decision == decision => old.since_ms,
            _ => now_ms,
        };
        let record = PlacementRecord {
            machine: to.machine,
            leaving: to.leaving,
            decision,
            reason: to.reason,
            refusals: to.refusals,
            passed_over,
            considered,
            assigned: to.assigned,
            failures,
            since_ms,
        };
        self.set_placement(name, Some(record));
    }

    pub(crate) fn set_placement(&mut self, name: &UnitName, to: Option<PlacementRecord>) {
        let unit = self.cluster.units.get(name);
        if unit.and_then(|unit| unit.placement.as_deref()) == to.as_ref() {
            return;
        }
        self.touch(name);
        let unit = self.cluster.units.entry(name.clone()).or_default();
        if let Some(record) = &to {
            unit.last_seq = unit.last_seq.max(record.decision.seq);
        }
        unit.placement = to.map(Box::new);
    }

    /// Nothing is left of the unit: its placement goes, and the tombstone if there is one.
    pub(crate) fn bury(&mut self, name: &UnitName, tombstone: Option<u64>) {
        self.set_placement(name, None);
        if let Some(generation) = tombstone {
            self.touch(name).buried = Some(generation);
            self.cluster
                .apply(crate::cluster::Fact::Unit(name.clone(), None));
            self.cluster.marks.units.remove(name);
        }
        self.cluster.waiting.remove(name);
    }

    /// Removes assignments whose machines have confirmed that nothing is left.
    pub(crate) fn remove_confirmed(&mut self, name: &UnitName) {
        let Some(unit) = self
            .cluster
            .units
            .get(name)
            .filter(|unit| !unit.is_frozen())
        else {
            return;
        };
        let confirmed: Vec<_> = unit
            .assignments
            .iter()
            .filter_map(|(id, assigned)| {
                let done = unit.has_reached(id, assigned.decision, Order::Gone);
                let retired = self.cluster.status(id) == crate::records::MemberStatus::Retired;
                if assigned.order == Order::Gone && done {
                    Some((id.clone(), "its machine has confirmed that it is gone"))
                } else if retired && self.has_surely_ended(unit, id) {
                    Some((id.clone(), "its machine is retired"))
                } else {
                    None
                }
            })
            .collect();
        for (id, reason) in confirmed {
            self.unassign(name, &id, reason);
        }
    }
}

/// What a placement is to say.
#[derive(Clone, Default, Debug)]
pub(crate) struct Whereabouts {
    pub(crate) machine: Option<MachineId>,
    pub(crate) leaving: Option<MachineId>,
    pub(crate) reason: String,
    pub(crate) refusals: Vec<Refusal>,
    /// What kept a unit that has just been placed from other machines.
    pub(crate) tally: Option<Tally>,
    pub(crate) considered: u32,
    pub(crate) assigned: u32,
}

/// The difference between how a unit was and how it is now, as changes.
fn finish(cluster: &Cluster, name: &UnitName, touched: Touched, changes: &mut Vec<Change>) {
    let unit = cluster.units.get(name);
    let mut writes = Vec::new();
    let mut reason = String::new();
    let empty_text: Arc<str> = Arc::from("");
    for (id, before) in &touched.assignments {
        let after = unit.and_then(|unit| unit.assignments.get(id));
        if after == before.as_ref() {
            continue;
        }
        let why = touched.reasons.get(id).cloned().unwrap_or_default();
        let record = after.map(|assigned| AssignmentRecord {
            text: match unit.and_then(|unit| unit.wish.as_ref()) {
                Some(wish) if assigned.order != Order::Gone => wish.text.clone(),
                _ => empty_text.clone(),
            },
            hash: assigned.hash,
            decision: assigned.decision,
            order: assigned.order,
            restarts: assigned.restarts,
            reason: why.clone(),
        });
        if reason.is_empty() {
            reason = why;
        }
        writes.push(Write::Assignment(id.clone(), name.clone(), record));
    }
    let placement = unit.and_then(|unit| unit.placement.as_deref());
    if placement != touched.placement.as_deref() {
        if let Some(placement) = placement {
            reason.clone_from(&placement.reason);
        }
        writes.push(Write::Placement(name.clone(), placement.cloned()));
    }
    if let Some(generation) = touched.buried
        && !planted!("tombstones are left")
        && unit.is_none_or(Unit::has_no_wish)
    {
        if reason.is_empty() {
            reason = "destroyed".to_owned();
        }
        writes.push(Write::DeleteUnit(name.clone(), generation));
    }
    let subject = Subject::Unit(name.clone());
    let while_absent = exclusive::relied_on(cluster, unit, &touched.assignments);
    let before = touched.placement.as_deref();
    let mut change = |writes: Vec<Write>| {
        changes.push(Change {
            subject: subject.clone(),
            events: events::of_unit(name, before, &writes),
            writes,
            reason: reason.clone(),
            while_absent: while_absent.clone(),
        });
    };
    while writes.len() > MAX_CHANGE_WRITES {
        change(writes.drain(..MAX_CHANGE_WRITES).collect());
    }
    if !writes.is_empty() {
        change(writes);
    }
}
