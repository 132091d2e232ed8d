//! How a machine stands, and why.

use fleet_api::v2::{MachineUnit, MachineView};

use super::Told;
use crate::commands::listing::PRESENT;
use crate::report::visible;
use crate::when;

/// So many units of a machine are named.
const MAX_NAMED: usize = 20;

/// What is to be said of a machine. Without its units nothing more than an original fleetd says.
pub(super) fn told(machine: &MachineView, units: Option<&[MachineUnit]>) -> Told {
    let mut rows = Vec::new();
    if machine.since_ms > 0 {
        rows.push(("since", when::since(machine.since_ms)));
    }
    if machine.first_seen_ms > 0 {
        rows.push(("joined", when::since(machine.first_seen_ms)));
    }
    if !machine.reason.is_empty() {
        rows.push(("because", visible(&machine.reason).into_owned()));
    }
    if !machine.metadata.is_empty() {
        let pairs = machine.metadata.iter();
        let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        rows.push(("metadata", visible(&pairs.join(",")).into_owned()));
    }
    if !machine.version.is_empty() {
        rows.push(("version", machine.version.clone()));
    }
    if let Some(units) = units {
        rows.push(("takes", takes(machine)));
        rows.extend(told_units(units));
    }
    let address = match machine.primary_ip.as_str() {
        "" => String::new(),
        address => format!(" ({address})"),
    };
    Told {
        headline: format!("machine {}{address} is {}", machine.id, machine.status),
        rows,
    }
}

/// What would have it take units again.
pub(crate) fn cures(machine: &MachineView) -> Vec<String> {
    let id = &machine.id;
    let mut cures = Vec::new();
    if machine.frozen {
        cures.push("if it and the others are really gone: fleetctl thaw".to_owned());
    }
    match machine.status.as_str() {
        PRESENT => {}
        "unsupervised" => cures.push("start fleetd there again: systemctl start fleet".to_owned()),
        "retired" => {}
        _ => cures.push(
            "see whether it is on, reaches etcd, and fleetd runs there: systemctl status fleet"
                .to_owned(),
        ),
    }
    if machine.cordoned || machine.avoided.is_some() {
        cures.push(format!("fleetctl uncordon {id}"));
    }
    if machine.trouble.is_some() {
        cures.push("see there: journalctl -u fleet".to_owned());
    }
    cures
}

fn takes(machine: &MachineView) -> String {
    let nothing = |why: &str| format!("no new units: {why}");
    if machine.status != PRESENT {
        return nothing("it is not present");
    }
    if machine.draining {
        return nothing("it is being drained");
    }
    if machine.cordoned {
        return nothing("it is cordoned");
    }
    if let Some(trouble) = &machine.trouble {
        return format!("units as far as it can: {}", visible(trouble));
    }
    match &machine.avoided {
        Some(why) => format!("new units last: {}", visible(why)),
        None => "new units".to_owned(),
    }
}

/// A row for each of its units, up to a bound.
fn told_units(units: &[MachineUnit]) -> Vec<(&'static str, String)> {
    if units.is_empty() {
        return vec![("units", "none".to_owned())];
    }
    let named = units.iter().take(MAX_NAMED).map(|unit| {
        let reason = visible(&unit.reason);
        match reason.is_empty() {
            true => format!("{} ({})", unit.name, unit.order),
            false => format!("{} ({}): {reason}", unit.name, unit.order),
        }
    });
    let more = units.len().saturating_sub(MAX_NAMED);
    let more = (more > 0).then(|| format!("and {more} more"));
    named.chain(more).map(|text| ("units", text)).collect()
}
