//! Why a unit is where it is.

use std::collections::BTreeSet;

use fleet_api::v2::{MachineView, RefusalView, StateView, UnitView};
use fleet_core::cure::cure;

use super::Told;
use crate::commands::listing::PRESENT;
use crate::report::{legend, visible};
use crate::when;

/// What is to be said of a unit. `keeps_reasons`: fleetd is no original one.
pub(super) fn told(unit: &UnitView, machines: &[MachineView], keeps_reasons: bool) -> Told {
    let mut rows = vec![("wished", wished(unit))];
    if let Some(decided) = decided(unit, keeps_reasons) {
        rows.push(decided);
    }
    if let Some(id) = &unit.leaving_id {
        rows.push((
            "leaving",
            format!("{}, until it has stopped there", shown(id, machines)),
        ));
    }
    if let Some(asked) = asked(unit) {
        rows.push(("asked", asked));
    }
    for state in &unit.states {
        rows.push(("systemd", systemd(state, machines)));
        let lines = state.log.iter();
        rows.extend(lines.map(|line| ("log", visible(line).into_owned())));
    }
    Told {
        headline: headline(unit, machines),
        rows,
    }
}

/// What would help, each once.
pub(crate) fn cures(unit: &UnitView) -> Vec<String> {
    let mut cures: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    let mut add = |cure: String| {
        if known.insert(cure.clone()) {
            cures.push(cure);
        }
    };
    // What has a place needs no cure for where else it might be.
    for RefusalView { requirement, .. } in &unit.refusals {
        if let Some(cure) = cure(&unit.name, requirement) {
            add(cure);
        }
    }
    if is_idle(unit) {
        add(format!("fleetctl start {} has it run", unit.name));
    }
    for state in unit.states.iter() {
        if state.reached == "refused" {
            let why = state.why.as_deref().unwrap_or_default();
            let words = format!("the machine refused it: {why}");
            cure(&unit.name, &words).into_iter().for_each(&mut add);
        } else if state.active == "failed" {
            add(format!(
                "fleetctl journal {0} shows more; fleetctl start {0} starts it again",
                unit.name
            ));
        }
        if state.stale {
            let id = short(&state.machine_id);
            add(format!("fleetctl why {id} says what is with that machine"));
        }
    }
    let is_decided = !unit.reason.is_empty();
    if !is_decided && unit.machine_id.is_none() && !is_idle(unit) {
        add("fleetctl doctor says whether somebody leads".to_owned());
    }
    cures
}

/// It is not wished to run, and is nowhere.
fn is_idle(unit: &UnitView) -> bool {
    unit.desired_state == "inactive" && unit.machine_id.is_none() && unit.leaving_id.is_none()
}

fn headline(unit: &UnitView, machines: &[MachineView]) -> String {
    let name = &unit.name;
    if unit.global {
        let active = unit.states.iter().filter(|state| state.active == "active");
        return format!(
            "{name} is global, and active on {} machines",
            active.count()
        );
    }
    let Some(id) = &unit.machine_id else {
        return match (&unit.leaving_id, is_idle(unit)) {
            (Some(from), _) => format!("{name} is leaving {}", shown(from, machines)),
            (None, true) => format!("{name} is inactive, and nobody wishes more"),
            (None, false) => format!("{name} is pending: it has no machine"),
        };
    };
    let state = unit.states.iter().find(|state| state.machine_id == *id);
    let how = match state {
        Some(state) if state.reached == "refused" => "refused".to_owned(),
        Some(state) if !state.active.is_empty() => format!("{} ({})", state.active, state.sub),
        _ => "not reported yet".to_owned(),
    };
    format!("{name} is {how} on {}", shown(id, machines))
}

/// `launched, since 2026-11-28 11:20:03 UTC (4 min ago), by uid 0`
fn wished(unit: &UnitView) -> String {
    let mut text = unit.desired_state.clone();
    if unit.changed_ms > 0 {
        text.push_str(&format!(", since {}", when::since(unit.changed_ms)));
    }
    if !unit.changed_by.is_empty() {
        text.push_str(&format!(", by {}", visible(&unit.changed_by)));
    }
    text
}

fn decided(unit: &UnitView, keeps_reasons: bool) -> Option<(&'static str, String)> {
    if is_idle(unit) && unit.reason.is_empty() {
        return None;
    }
    let label = match unit.machine_id.is_some() || unit.global {
        true => "placed",
        false => "pending",
    };
    if unit.reason.is_empty() {
        let why = match keeps_reasons {
            true => "nobody has decided yet",
            false => "this fleetd is an original one, which keeps no reasons",
        };
        return Some((label, why.to_owned()));
    }
    let reason = visible(&unit.reason);
    let text = match unit.since_ms {
        0 => reason.into_owned(),
        ms => format!("since {}: {reason}", when::since(ms)),
    };
    Some((label, text))
}

/// `3 machines: MachineMetadata region=eu refused 2, Conflicts with b.service refused 1`
fn asked(unit: &UnitView) -> Option<String> {
    let refusals = match unit.refusals.is_empty() {
        true => &unit.passed_over,
        false => &unit.refusals,
    };
    if unit.considered == 0 {
        return None;
    }
    let counted = match unit.considered {
        1 => "1 machine".to_owned(),
        n => format!("{n} machines"),
    };
    if refusals.is_empty() {
        return Some(format!("{counted}: none refused it"));
    }
    let words = refusals.iter().map(|refusal| {
        let requirement = visible(&refusal.requirement);
        format!("{requirement} refused {}", refusal.machines)
    });
    Some(format!(
        "{counted}: {}",
        words.collect::<Vec<_>>().join(", ")
    ))
}

/// `loaded, active (running) on 63d22e36.../172.30.1.2`
fn systemd(state: &StateView, machines: &[MachineView]) -> String {
    let on = shown(&state.machine_id, machines);
    let mut text = match (state.reached.as_str(), state.load.is_empty()) {
        ("refused", _) => format!("was not asked: {on} refused the unit"),
        (_, true) => format!("has nothing of it yet on {on}"),
        (_, false) => format!("{}, {} ({}) on {on}", state.load, state.active, state.sub),
    };
    if let Some(why) = &state.why {
        text.push_str(&format!(": {}", visible(why)));
    }
    if state.stale {
        text.push_str(" (its last report: the machine is not present)");
    }
    text
}

fn shown(id: &str, machines: &[MachineView]) -> String {
    let machine = machines.iter().find(|machine| machine.id == id);
    let address = machine.filter(|machine| machine.status == PRESENT);
    legend(id, address.map_or("", |machine| &machine.primary_ip), false)
}

/// A beginning of an id that fleetctl takes for it.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
