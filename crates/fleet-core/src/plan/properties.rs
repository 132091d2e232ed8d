//! Random histories: whatever happens in whatever order, every plan keeps the promises.

mod histories;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::model::{Model, assert_sound, name, unit_record};
use super::{Plan, Write};
use crate::cluster::{Cluster, Settings};
use crate::name::UnitName;
use crate::records::{DesiredState, MachineId, MachineRecord, MachineWish, Order, Reached};
use crate::schedule::{Found, Search};

const MACHINES: [&str; 5] = ["m1", "m2", "m3", "m4", "m5"];
const UNITS: [&str; 9] = [
    "a.service",
    "b.service",
    "c.service",
    "d.service",
    "g.service",
    "h.service",
    "w@1.service",
    "w@2.service",
    "w@3.service",
];
const REQUIREMENTS: [&[&str]; 19] = [
    &[],
    &[],
    &["MachineID=m2"],
    &["MachineOf=a.service"],
    &["MachineOf=b.service"],
    &["MachineOf=a.service", "MachineOf=b.service"],
    &["MachineOf=g.service"],
    &["MachineMetadata=r=eu"],
    &[
        "MachineMetadata=r=eu",
        "MachineMetadata=r=us",
        "MachineMetadata=d=ssd",
    ],
    &["Conflicts=w@*.service"],
    &["Conflicts=a.service", "MachineMetadata=d=ssd"],
    &["Replaces=a.service"],
    &["Replaces=w@?.service", "MachineMetadata=r=eu"],
    &["Global=true", "MachineMetadata=r=eu"],
    &["Global=true", "Conflicts=w@*.service"],
    &["LostAfter=2s"],
    &["RescheduleOnFailure=2"],
    &["RescheduleOnFailure=1", "Exclusive=yes"],
    &["RescheduleOnFailure=yes", "MachineOf=a.service"],
];

#[derive(Clone, Debug)]
enum Step {
    Present(usize, usize),
    Cut(usize),
    Wish(usize, usize),
    Unit(usize, usize, usize),
    Desired(usize, usize),
    Agent(usize),
    Refuse(usize, usize),
    Fail(usize, usize),
    Stray(usize, usize, u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let machine = 0..MACHINES.len();
    let unit = 0..UNITS.len();
    let step = prop_oneof![
        3 => (machine.clone(), 0..4_usize).prop_map(|(m, meta)| Step::Present(m, meta)),
        2 => machine.clone().prop_map(Step::Cut),
        2 => (machine.clone(), 0..8_usize).prop_map(|(m, wish)| Step::Wish(m, wish)),
        5 => (unit.clone(), 0..REQUIREMENTS.len(), 0..4_usize).prop_map(|(u, r, d)| Step::Unit(u, r, d)),
        2 => (unit.clone(), 0..4_usize).prop_map(|(u, d)| Step::Desired(u, d)),
        6 => machine.clone().prop_map(Step::Agent),
        1 => (unit.clone(), machine.clone()).prop_map(|(u, m)| Step::Refuse(u, m)),
        3 => (unit.clone(), machine.clone()).prop_map(|(u, m)| Step::Fail(u, m)),
        1 => (unit, machine, 0..200_u64).prop_map(|(u, m, at)| Step::Stray(u, m, at)),
        2 => prop_oneof![8 => 0..8_u64, 1 => Just(700_u64)].prop_map(Step::Wait),
    ];
    proptest::collection::vec((step, any::<bool>()), 1..60).prop_map(|steps| {
        // Several things may happen before the next plan: a wait of nothing stands for it.
        let mut out = Vec::new();
        for (step, then_plan) in steps {
            out.push(step);
            if then_plan {
                out.push(Step::Wait(0));
            }
        }
        out
    })
}

fn desired(n: usize) -> DesiredState {
    [
        DesiredState::Launched,
        DesiredState::Loaded,
        DesiredState::Inactive,
        DesiredState::Destroyed,
    ][n]
}

fn metadata(n: usize) -> BTreeMap<String, String> {
    let pairs: &[(&str, &str)] = [
        &[][..],
        &[("r", "eu")][..],
        &[("r", "us"), ("d", "ssd")][..],
        &[("r", "eu"), ("d", "ssd")][..],
    ][n];
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// Does one step; true if a plan is due.
fn act(model: &mut Model, step: &Step) -> bool {
    match step {
        Step::Present(m, meta) => {
            let record = MachineRecord {
                metadata: metadata(*meta),
                trouble: match (*m, *meta) {
                    (4, 0) => Some("no systemd".to_owned()),
                    (3, 0) => Some(MachineRecord::SHUTTING_DOWN.to_owned()),
                    (2, 0) => Some(MachineRecord::STOPPED_IN_ORDER.to_owned()),
                    _ => None,
                },
                ..MachineRecord::default()
            };
            model.set_presence(&MachineId::new(MACHINES[*m]), Some(record));
        }
        Step::Cut(m) => model.set_presence(&MachineId::new(MACHINES[*m]), None),
        Step::Wish(m, wish) => {
            let wish = MachineWish {
                metadata: metadata(*wish % 4),
                cordon: *wish == 4,
                drain: *wish >= 5,
                max_parallel: u32::from(*wish == 6),
                opened: u64::from(*wish == 7),
            };
            model.set_wish(&MachineId::new(MACHINES[*m]), wish);
        }
        Step::Unit(u, requirements, d) => {
            let mut lines = REQUIREMENTS[*requirements].to_vec();
            let wanted = match desired(*d) {
                // Other contents, too.
                DesiredState::Destroyed => {
                    lines.push("+Nice=1");
                    DesiredState::Launched
                }
                other => other,
            };
            let record = unit_record(wanted, &lines);
            model.set_unit(&name(UNITS[*u]), record);
        }
        Step::Desired(u, d) => {
            let unit = name(UNITS[*u]);
            let tombstone = model
                .units
                .get(&unit)
                .is_some_and(|(record, _)| record.desired == DesiredState::Destroyed);
            if !tombstone {
                model.set_desired(&unit, desired(*d));
            }
        }
        Step::Agent(m) => model.run_agent(&MachineId::new(MACHINES[*m])),
        Step::Refuse(u, m) => {
            let id = MachineId::new(MACHINES[*m]);
            let key = (id.clone(), name(UNITS[*u]));
            let starts = model
                .assignments
                .get(&key)
                .is_some_and(|a| a.order != Order::Gone);
            if starts && model.presences.contains_key(&id) {
                model.report(&key.1, &id, Reached::Refused, Some("no"));
            }
        }
        Step::Fail(u, m) => {
            let id = MachineId::new(MACHINES[*m]);
            let key = (id.clone(), name(UNITS[*u]));
            let starts = model
                .assignments
                .get(&key)
                .is_some_and(|a| a.order == Order::Launched);
            if starts && model.presences.contains_key(&id) {
                model.fail(&key.1, &id, "exit-code");
            }
        }
        Step::Stray(u, m, at) => {
            let (unit, id) = (name(UNITS[*u]), MachineId::new(MACHINES[*m]));
            let is_assigned = model.assignments.contains_key(&(id.clone(), unit.clone()));
            if !is_assigned && model.presences.contains_key(&id) {
                model.stray(&unit, &id, *at);
            }
        }
        Step::Wait(seconds) => {
            model.now_ms += seconds * 1000;
            return true;
        }
    }
    false
}

/// What a plan decides, without its explanations.
fn decisions(plan: &Plan) -> BTreeMap<String, String> {
    let mut decisions = BTreeMap::new();
    for write in plan.changes.iter().flat_map(|change| &change.writes) {
        match write {
            Write::Assignment(id, unit, record) => {
                let order = record
                    .as_ref()
                    .map(|r| (r.order, r.hash, r.decision, r.restarts));
                decisions.insert(format!("{unit}@{id}"), format!("{order:?}"));
            }
            Write::DeleteUnit(unit, generation) => {
                decisions.insert(format!("{unit} buried"), generation.to_string());
            }
            Write::Member(id, record) => {
                decisions.insert(format!("member {id}"), format!("{record:?}"));
            }
            Write::Placement(..) => {}
        }
    }
    decisions
}

fn whereabouts(cluster: &Cluster) -> BTreeMap<UnitName, String> {
    let text = |unit: &crate::cluster::Unit| {
        let placement = unit.placement.as_deref();
        format!(
            "{:?}",
            placement.map(|p| (&p.machine, &p.leaving, p.decision))
        )
    };
    cluster
        .units
        .iter()
        .map(|(name, unit)| (name.clone(), text(unit)))
        .collect()
}

/// The machines that have each unit.
fn homes(model: &Model) -> BTreeMap<UnitName, BTreeSet<MachineId>> {
    let mut homes: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for ((id, unit), record) in &model.assignments {
        if record.order != Order::Gone {
            homes.entry(unit.clone()).or_default().insert(id.clone());
        }
    }
    homes
}

/// Whether a machine runs a unit by what it was assigned last.
fn has_started(model: &Model, unit: &UnitName, id: &MachineId) -> bool {
    let assigned = model.assignments.get(&(id.clone(), unit.clone()));
    let state = model.states.get(&(unit.clone(), id.clone()));
    assigned.is_some_and(|assigned| assigned.order == Order::Launched)
        && state.is_some_and(|state| {
            state.reached == Reached::Launched
                && state.active == "active"
                && assigned.is_some_and(|assigned| state.decision >= assigned.decision)
        })
}

/// Whether a unit, or one that it follows, stays where it no longer fits.
fn stays_for_now(cluster: &Cluster, unit: &UnitName) -> bool {
    let mut asked = vec![unit.clone()];
    let mut next = 0;
    while let Some(unit) = asked.get(next).cloned() {
        if cluster.stays_for_now(&unit) {
            return true;
        }
        let wish = cluster.units.get(&unit).and_then(|unit| unit.wish.as_ref());
        for peer in wish.map_or(&[][..], |wish| &wish.requirements.machine_of) {
            if !asked.iter().any(|asked| asked.as_str() == peer) {
                asked.push(name(peer));
            }
        }
        next += 1;
    }
    false
}

/// Whether another machine may run a unit that was stopped. Who replaces others may perhaps only
/// once it has made room itself.
fn may_run_somewhere(model: &Model, name: &UnitName) -> bool {
    let wish = model
        .cluster
        .units
        .get(name)
        .and_then(|unit| unit.wish.as_ref());
    let wish = wish.filter(|wish| wish.requirements.replaces.is_empty());
    wish.is_some_and(|wish| {
        let search = Search {
            unit: name,
            needs: &wish.requirements,
            now_ms: model.now_ms,
            prefer: None,
            except: None,
            only: None,
            with_followers: false,
            makes_room: false,
        };
        matches!(model.cluster.find(&search), Found::At(_))
    })
}

/// The machines that run each unit which may run twice for a moment, and whose process is to
/// stay as it is.
fn running(model: &Model) -> BTreeMap<UnitName, BTreeSet<MachineId>> {
    let mut running: BTreeMap<UnitName, BTreeSet<MachineId>> = BTreeMap::new();
    for (id, name) in model.assignments.keys() {
        let unit = model.cluster.units.get(name);
        let Some(unit) = unit.filter(|unit| !unit.is_global()) else {
            continue;
        };
        let (Some(wish), Some(assigned)) = (&unit.wish, unit.assignments.get(id)) else {
            continue;
        };
        let stays = wish.desired == DesiredState::Launched
            && !wish.requirements.exclusive
            // Who follows itself may be nowhere.
            && !wish.requirements.machine_of.iter().any(|peer| peer == name.as_str())
            && wish.body == assigned.body;
        let is_well = |presence: &MachineRecord| presence.trouble.is_none();
        if stays && model.presences.get(id).is_some_and(is_well) && has_started(model, name, id) {
            running.entry(name.clone()).or_default().insert(id.clone());
        }
    }
    running
}

fn settings() -> Settings {
    Settings {
        explain_budget: usize::MAX,
        ..Settings::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn every_history_keeps_the_promises(steps in steps()) {
        keeps_the_promises(&steps)?;
    }
}

fn keeps_the_promises(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model {
        cluster: Cluster::new(settings()),
        ..Model::default()
    };
    let mut happened: Vec<&Step> = Vec::new();
    let mut only_joins = true;
    for step in steps {
        happened.push(step);
        only_joins &= match step {
            Step::Present(m, meta) => {
                *meta != 0 && !model.members.contains_key(&MachineId::new(MACHINES[*m]))
            }
            Step::Wait(_) => true,
            _ => false,
        };
        if !act(&mut model, step) {
            continue;
        }
        let mut full = model.cluster.clone();
        full.mark_all();
        let mut twin = model.cluster.clone();
        let before = homes(&model);
        let up = running(&model);
        let absent: BTreeSet<_> = model
            .assignments
            .keys()
            .map(|(id, _)| id.clone())
            .filter(|id| !model.presences.contains_key(id))
            .collect();

        // Equal input gives equal output.
        let now = model.now();
        let plan = model.plan();
        // What runs and is to run elsewhere is not stopped before it has started there.
        let homes_now = homes(&model);
        for (unit, machines) in up {
            let wanted = homes_now.get(&unit).cloned().unwrap_or_default();
            let runs = |id: &MachineId| machines.contains(id) || has_started(&model, &unit, id);
            let is_well = match wanted.is_empty() {
                true => !may_run_somewhere(&model, &unit),
                false => wanted.iter().any(runs),
            };
            prop_assert!(is_well, "{unit}: a gap between {machines:?} and {wanted:?}");
        }
        prop_assert_eq!(&plan, &twin.plan(now));
        // Planning by marks decides as planning everything.
        let full_plan = full.plan(now);
        prop_assert_eq!(decisions(&plan), decisions(&full_plan));
        prop_assert_eq!(whereabouts(&model.cluster), whereabouts(&full));
        // Nothing is violated, and nothing is left to do, not even by a full look.
        assert_sound(&mut model);
        let mut again = model.cluster.clone();
        again.mark_all();
        let again = again.plan(now);
        prop_assert_eq!(decisions(&again), BTreeMap::new());
        // The records tell the whole truth: a new leader finds nothing to move from
        // machines that are there.
        assert_eq!(
            model.placements.len(),
            model
                .cluster
                .units
                .values()
                .filter(|u| u.placement.is_some())
                .count()
        );
        let mut heir = model.restarted(settings());
        heir.plan(now);
        for (unit, machines) in homes(&model) {
            let keeps = |id: &MachineId| {
                let assigned = heir.units.get(&unit).and_then(|u| u.assignments.get(id));
                assigned.is_some_and(|a| a.order != Order::Gone)
            };
            // It knows nothing of refusals, and tries again to empty a machine that is being
            // left: a unit that must not run twice is stopped first.
            let stops_first = |id: &MachineId| {
                let left = model
                    .cluster
                    .machines
                    .get(id)
                    .is_some_and(|m| m.is_being_left());
                // Or whoever has been refused there replaces it again.
                let wish = heir.units.get(&unit).and_then(|unit| unit.wish.as_ref());
                let is_replaced = |needs| {
                    let machine = heir.machines.get(id);
                    machine.is_some_and(|at| heir.replacer(&unit, needs, at).is_some())
                };
                wish.map(|wish| &wish.requirements)
                    .is_some_and(|needs| needs.exclusive && (left || is_replaced(needs)))
            };
            // What failed elsewhere, and so stays where it no longer fits, only this leader knows;
            // what follows it stays with it.
            let only = machines.len() == 1
                && !machines.iter().any(stops_first)
                && !stays_for_now(&model.cluster, &unit);
            prop_assert!(!only || machines.iter().all(keeps), "{unit} {machines:?}");
        }
        // Failures move a unit so often as it asks for, whoever leads.
        for (unit, placement) in &model.placements {
            let moves = placement.failures.moves;
            let wish = &model.cluster.units.get(unit).and_then(|u| u.wish.as_ref());
            let limit = wish.map_or(u32::MAX, |wish| wish.requirements.reschedule_on_failure);
            let same = wish.is_some_and(|w| w.generation == placement.decision.generation);
            prop_assert!(!same || moves <= limit, "{unit}: {moves} of {limit}");
            let inherited = heir.units.get(unit).map_or(0, |u| u.failures().moves);
            prop_assert!(!same || inherited == moves, "{unit}: {moves}, {inherited}");
        }
        // What has failed may move at any time if it asks for that, and takes its followers along.
        let fails = model.states.iter().any(|((unit, _), state)| {
            let record = model.units.get(unit).map(|(record, _)| &record.text);
            let asks = record.is_some_and(|text| text.contains("RescheduleOnFailure"));
            asks && state.active == "failed"
        });
        // A join moves nothing; a loss moves only what was on the machine.
        let after = homes(&model);
        let leaves = model
            .presences
            .values()
            .any(MachineRecord::is_shutting_down);
        // Who replaces others may have to do it again elsewhere, or can only now.
        let replaces = model
            .units
            .values()
            .any(|(record, _)| record.text.contains("Replaces"));
        if only_joins && model.wishes.is_empty() && absent.is_empty() && !fails && !leaves {
            for (unit, machines) in &before {
                let text = model.units.get(unit).map(|(record, _)| &record.text);
                if replaces && text.is_some_and(|text| text.contains("Exclusive")) {
                    continue;
                }
                prop_assert!(
                    after
                        .get(unit)
                        .is_some_and(|after| machines.is_subset(after)),
                    "{unit}"
                );
            }
        }
        let only_losses = happened
            .iter()
            .all(|s| matches!(s, Step::Cut(_) | Step::Wait(_)));
        if only_losses && !replaces && !fails {
            for (unit, machines) in &before {
                if machines.is_disjoint(&absent) {
                    // A machine that refused it may be tried again by now.
                    let kept = after
                        .get(unit)
                        .is_some_and(|after| machines.is_subset(after));
                    prop_assert!(kept, "{unit}");
                }
            }
        }
        happened.clear();
        only_joins = true;
    }
    Ok(())
}

/// A storm is planned in portions: each plan looks at so many units, asks to be followed by
/// another one at once, and none is forgotten.
#[test]
fn what_one_plan_puts_off_the_next_ones_do() {
    let mut model = Model {
        cluster: Cluster::new(Settings {
            max_units_per_plan: 3,
            ..settings()
        }),
        ..Model::default()
    };
    model.set_presence(&MachineId::new("m1"), Some(MachineRecord::default()));
    model.plan();
    for n in 0..8 {
        let record = unit_record(DesiredState::Launched, &[]);
        model.set_unit(&name(&format!("u{n}.service")), record);
    }
    for (n_placed, is_done) in [(3, false), (6, false), (8, true)] {
        let plan = model.plan();
        assert_eq!(model.placements.len(), n_placed);
        assert_eq!(plan.revisit != Some(model.now_ms), is_done);
    }
    assert_sound(&mut model);
}
