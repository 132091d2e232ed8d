//! `fleetctl list-units`

use fleet_api::v2::{StateView, UnitView};
use fleet_core::name::UnitName;
use serde::Serialize;

use crate::commands::listing::{Field, ListFlags, Machines, print_original, print_ours, to_json};
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;

/// Blanks between columns.
const GUTTERS: [usize; 1] = [2];

/// The original's default.
const DEFAULT_FIELDS: &str = "unit,machine,active,sub";

/// Digits of a short hash.
const SHORT_HASH: usize = 7;

/// Behind the ACTIVE of a state that may be out of date. Whoever looks for `active` does not
/// find it, and whoever cuts columns finds them in their places.
const STALE: &str = "?";

/// A unit on a machine, in the original's table.
struct Row<'a> {
    unit: &'a str,
    legends: [String; 2],
    state: &'a StateView,
}

/// The columns of the original's table.
fn fields<'a>() -> [Field<Row<'a>>; 6] {
    [
        Field {
            name: "unit",
            cell: |row, _| row.unit.to_owned(),
        },
        Field {
            name: "machine",
            cell: |row, full| row.legends[usize::from(full)].clone(),
        },
        Field {
            name: "load",
            cell: |row, _| row.state.load.clone(),
        },
        Field {
            name: "active",
            cell: |row, _| row.state.active.clone(),
        },
        Field {
            name: "sub",
            cell: |row, _| row.state.sub.clone(),
        },
        Field {
            name: "hash",
            cell: |row, full| short_hash(&row.state.hash, full),
        },
    ]
}

/// List units with what systemd says of them
///
/// One row for each unit (global units: one for each machine that has it), and one more for each
/// other machine where it still runs; "?" behind ACTIVE marks the last report of a machine that is
/// not present. Fields: unit, machine, load, active, sub, hash; with --fields or --full only units
/// that systemd knows are listed.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    list: ListFlags,
}

/// A row in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonRow<'a> {
    unit: &'a str,
    load: Option<&'a str>,
    active: Option<&'a str>,
    sub: Option<&'a str>,
    description: Option<&'a str>,
    #[serde(rename = "machineID")]
    machine_id: Option<&'a str>,
    hash: Option<&'a str>,
    stale: bool,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let flags = &args.list;
    let table = fields();
    let original = flags.original(&table, DEFAULT_FIELDS)?;
    let units = context.fleet.units().await.map_err(|error| {
        CommandError::api("Error retrieving list of units from repository", &error)
    })?;
    if flags.is_json() {
        let rows: Vec<JsonRow<'_>> = rows(&units).map(json_row).collect();
        context.ui.data(&to_json(&rows)?);
        return Ok(Exit::Success);
    }
    let Some(fields) = original else {
        let header = ["UNIT", "LOAD", "ACTIVE", "SUB", "DESC", "MACHINE"];
        print_ours(
            context.ui,
            flags,
            &header,
            rows(&units).map(our_row),
            &GUTTERS,
        );
        return Ok(Exit::Success);
    };
    // Without them addresses are missing, and that is all.
    let machines = context.fleet.machines().await.unwrap_or_default();
    let machines = Machines::new(machines);
    let rows: Vec<Row<'_>> = units
        .iter()
        .flat_map(|unit| known_states(unit).map(move |state| (unit, state)))
        .filter(|(_, state)| !machines.is_lost(&state.machine_id))
        .map(|(unit, state)| Row {
            unit: &unit.name,
            legends: [false, true].map(|full| match state.machine_id.as_str() {
                "" => String::new(),
                id => machines.legend(id, full),
            }),
            state,
        })
        .collect();
    print_original(context.ui, flags, &fields, &rows);
    Ok(Exit::Success)
}

/// Those that systemd has said something of.
fn known_states(unit: &UnitView) -> impl Iterator<Item = &StateView> {
    unit.states.iter().filter(|state| !state.load.is_empty())
}

/// The rows of our table: a unit and what is known of it on one machine.
fn rows(units: &[UnitView]) -> impl Iterator<Item = (&UnitView, Option<&StateView>)> {
    units
        .iter()
        .filter(|unit| !is_template(unit))
        .flat_map(|unit| {
            let mut states: Vec<Option<&StateView>> = if unit.global {
                known_states(unit).map(Some).collect()
            } else {
                let placed = placed_state(unit);
                let others = other_copies(unit, placed).map(Some);
                std::iter::once(placed).chain(others).collect()
            };
            if states.is_empty() {
                states.push(None);
            }
            states.into_iter().map(move |state| (unit, state))
        })
}

/// How a unit is on its machine; while it has none, how it is where it is leaving.
fn placed_state(unit: &UnitView) -> Option<&StateView> {
    match &unit.machine_id {
        Some(id) => known_states(unit).find(|state| state.machine_id == *id),
        None => known_states(unit).next(),
    }
}

/// Where else it runs: it is about to be stopped there, as after a cut that is over.
fn other_copies<'a>(
    unit: &'a UnitView,
    placed: Option<&'a StateView>,
) -> impl Iterator<Item = &'a StateView> {
    let shown = machine_of(unit, placed);
    known_states(unit)
        .filter(move |state| Some(state.machine_id.as_str()) != shown)
        .filter(|state| !state.stale && !matches!(state.active.as_str(), "inactive" | "failed"))
}

fn machine_of<'a>(unit: &'a UnitView, state: Option<&'a StateView>) -> Option<&'a str> {
    match state {
        Some(state) => Some(state.machine_id.as_str()),
        None => unit.machine_id.as_deref(),
    }
}

fn our_row((unit, state): (&UnitView, Option<&StateView>)) -> Vec<String> {
    let machine = machine_of(unit, state).unwrap_or_default().to_owned();
    let Some(state) = state else {
        let nothing = String::new;
        return vec![
            unit.name.clone(),
            nothing(),
            nothing(),
            nothing(),
            nothing(),
            machine,
        ];
    };
    let stale = if state.stale { STALE } else { "" };
    vec![
        unit.name.clone(),
        state.load.clone(),
        format!("{}{stale}", state.active),
        state.sub.clone(),
        on_one_line(description(unit, state)),
        machine,
    ]
}

fn json_row<'a>((unit, state): (&'a UnitView, Option<&'a StateView>)) -> JsonRow<'a> {
    JsonRow {
        unit: &unit.name,
        load: state.map(|state| state.load.as_str()),
        active: state.map(|state| state.active.as_str()),
        sub: state.map(|state| state.sub.as_str()),
        description: state
            .map(|state| description(unit, state))
            .filter(|text| !text.is_empty()),
        machine_id: machine_of(unit, state),
        hash: state.map(|state| state.hash.as_str()),
        stale: state.is_some_and(|state| state.stale),
    }
}

/// What systemd calls it; what its file says if systemd was not asked.
fn description<'a>(unit: &'a UnitView, state: &'a StateView) -> &'a str {
    match state.description.as_str() {
        "" => unit.description.as_deref().unwrap_or_default(),
        description => description,
    }
}

fn on_one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

fn is_template(unit: &UnitView) -> bool {
    UnitName::parse(&unit.name).is_ok_and(|name| name.is_template())
}

pub(crate) fn short_hash(hash: &str, full: bool) -> String {
    let digits = if full { hash.len() } else { SHORT_HASH };
    hash.chars().take(digits).collect()
}
