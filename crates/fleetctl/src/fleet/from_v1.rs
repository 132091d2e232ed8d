//! What an original fleetd says, in the shape of v2.

use std::collections::BTreeMap;

use fleet_api::v1::{Machine, Unit, UnitState};
use fleet_api::v2::{MachineView, StateView, UnitView};
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::{UnitFile, UnitOption};

/// Units with their states; both in byte order of the units' names.
pub(super) fn units(units: Vec<Unit>, states: Vec<UnitState>) -> Vec<UnitView> {
    let mut states_of: BTreeMap<String, Vec<UnitState>> = BTreeMap::new();
    for state in states {
        states_of.entry(state.name.clone()).or_default().push(state);
    }
    let view = |unit: Unit| {
        let states = states_of.remove(&unit.name).unwrap_or_default();
        one(unit, states)
    };
    units.into_iter().map(view).collect()
}

fn one(unit: Unit, states: Vec<UnitState>) -> UnitView {
    let file = UnitFile::from_options(options_of(&unit));
    let description = file.description().map(str::to_owned);
    let global = Requirements::parse(&file, None).0.global;
    UnitView {
        hash: file.hash().to_string(),
        desired_state: unit.desired_state,
        current_state: Some(unit.current_state).filter(|state| !global && !state.is_empty()),
        global,
        machine_id: Some(unit.machine_id).filter(|id| !id.is_empty()),
        states: states
            .into_iter()
            .map(|state| self::state(state, description.clone()))
            .collect(),
        description,
        text: Some(file.to_text()),
        name: unit.name,
        ..UnitView::default()
    }
}

fn state(state: UnitState, description: Option<String>) -> StateView {
    StateView {
        machine_id: state.machine_id,
        load: state.load,
        active: state.active,
        sub: state.sub,
        hash: state.hash,
        description: description.unwrap_or_default(),
        ..StateView::default()
    }
}

pub(super) fn machine(machine: Machine) -> MachineView {
    MachineView {
        id: machine.id,
        primary_ip: machine.primary_ip,
        metadata: machine.metadata,
        status: "present".to_owned(),
        ..MachineView::default()
    }
}

/// A unit's options as fleet-core has them.
pub(crate) fn options_of(unit: &Unit) -> Vec<UnitOption> {
    let options = unit.options.iter();
    options
        .map(|option| UnitOption::new(&option.section, &option.name, &option.value))
        .collect()
}
