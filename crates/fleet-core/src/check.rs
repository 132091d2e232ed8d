//! What must hold in every state that the cluster can reach.
//!
//! Tests, the simulator and `fleetctl doctor` share it. It looks at the cluster as the planner
//! has left it: whatever is marked for the next plan is not judged.

use std::collections::BTreeSet;
use std::fmt;

use crate::cluster::{Cluster, Unit};
use crate::name::UnitName;
use crate::records::{MachineId, MemberStatus, Order};
use crate::schedule::metadata_matches;

/// Something that must never be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// The unit that it concerns.
    pub unit: UnitName,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.unit, self.what)
    }
}

/// All violations, in the order of the units' names.
pub fn check(cluster: &Cluster) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, unit) in &cluster.units {
        // What is frozen, or about to be looked at, is allowed to be out of order.
        if unit.is_frozen() || cluster.marks.units.contains(name) {
            continue;
        }
        let mut say = |what: String| {
            violations.push(Violation {
                unit: name.clone(),
                what,
            });
        };
        let order = unit.wish.as_ref().and_then(|wish| wish.order(name));
        if unit.wish.is_some() && order.is_none() && unit.wanted_at().next().is_some() {
            say("it is wanted nowhere, yet a machine has it".to_owned());
        }
        if unit.is_global() {
            check_machines_of(cluster, name, unit, &mut say);
            continue;
        }
        // What has lost its wish is left alone, and may have been global.
        if unit.wish.is_some() {
            check_copies(unit, &mut say);
        }
        check_placement(unit, order, &mut say);
        check_machines_of(cluster, name, unit, &mut say);
    }
    violations
}

/// At most one machine wants an ordinary unit, or two while it is handed over.
fn check_copies(unit: &Unit, say: &mut impl FnMut(String)) {
    let copies: Vec<_> = unit.wanted_at().map(|(id, _)| id).collect();
    let leaving = unit.placement.as_ref().and_then(|p| p.leaving.as_ref());
    let handed_over = copies.len() == 2 && leaving.is_some_and(|id| copies.contains(&id));
    if copies.len() > 1 && !handed_over {
        say(format!("{} machines have it: {copies:?}", copies.len()));
    }
}

/// The placement tells where the unit is; a wait has its reason.
fn check_placement(unit: &Unit, order: Option<Order>, say: &mut impl FnMut(String)) {
    let home = unit.home();
    let Some(placement) = unit.placement.as_deref() else {
        if unit.wish.is_some() && (home.is_some() || order.is_some()) {
            say("it has no placement".to_owned());
        }
        return;
    };
    if placement.reason.is_empty() {
        say("its placement gives no reason".to_owned());
    }
    if unit.wish.is_some() && placement.machine.as_ref() != home {
        let at = &placement.machine;
        say(format!(
            "its placement says {at:?}, its assignments say {home:?}"
        ));
    }
    if let Some(wish) = &unit.wish
        && placement.decision.generation == wish.generation
        && placement.failures.moves > wish.requirements.reschedule_on_failure
    {
        let (moves, limit) = (
            placement.failures.moves,
            wish.requirements.reschedule_on_failure,
        );
        say(format!(
            "its failures have moved it {moves} times, not {limit} at most"
        ));
    }
    let assigned = home.and_then(|id| unit.assignments.get(id));
    if assigned.is_some_and(|assigned| assigned.decision != placement.decision) {
        say("placement and assignment carry different decisions".to_owned());
    }
}

/// The hard rules hold on every machine that has the unit. A machine that is lost or absent is
/// left alone, and so is the older of two copies.
fn check_machines_of(
    cluster: &Cluster,
    name: &UnitName,
    unit: &Unit,
    say: &mut impl FnMut(String),
) {
    let Some(wish) = &unit.wish else {
        return;
    };
    let needs = &wish.requirements;
    for (id, assigned) in unit.wanted_at() {
        let Some(machine) = cluster.machines.get(id) else {
            continue;
        };
        let judged = machine.status == MemberStatus::Present && machine.damaged.is_empty();
        if !judged || (!unit.is_global() && unit.home() != Some(id)) {
            continue;
        }
        let at = id.short();
        if assigned.decision.generation < wish.generation {
            say(format!("its machine {at} does not know its newest wish"));
        }
        if cluster.stays_for_now(name) {
            continue;
        }
        if !matches_id(needs.machine_id.as_deref(), id) {
            say(format!("it is on {at}, which its MachineID does not name"));
        }
        if let Err(no) = metadata_matches(needs, machine) {
            say(format!("it is on {at} in spite of {no}"));
        }
        for peer in &needs.machine_of {
            if !cluster.is_on(peer, id) {
                say(format!(
                    "it is on {at} without {peer}, which it has to follow"
                ));
            }
        }
        let frozen = |unit: &UnitName| cluster.units.get(unit).is_none_or(|unit| unit.is_frozen());
        // The older copy of a unit that is handed over is on its way out.
        let leaves =
            |unit: &UnitName| !cluster.is_on(unit.as_str(), id) || cluster.stays_for_now(unit);
        let conflicting: BTreeSet<_> = cluster
            .conflicting(name, needs, machine)
            .into_iter()
            .filter(|other| machine.runs(other.as_str()) && !frozen(other) && !leaves(other))
            .collect();
        if let Some(other) = conflicting.first() {
            say(format!(
                "it is on {at} together with {other}, with which it conflicts"
            ));
        }
    }
}

fn matches_id(wanted: Option<&str>, id: &MachineId) -> bool {
    wanted.is_none_or(|wanted| wanted == id.as_str() || wanted == id.short())
}

impl Cluster {
    /// It is to leave its machine, and the other one has failed to start it: it goes on where it is
    /// until that one is tried again.
    pub(crate) fn stays_for_now(&self, name: &UnitName) -> bool {
        let rare = self.units.get(name).and_then(|unit| unit.rare.as_ref());
        self.waiting.units.contains_key(name) && rare.is_some_and(|r| !r.back_offs.is_empty())
    }
}
