//! `fleetctl list-units`

use std::borrow::Cow;

use fleet_api::client::Error;
use fleet_api::v2::{StateRow, UnitRow};
use fleet_core::name::UnitName;
use serde::Serialize;

use crate::commands::listing::{Field, JsonList, ListFlags, Machines, Printing, same};
use crate::commands::{Context, Outcome};
use crate::error::CommandError;

mod watch;

/// Blanks between columns.
const GUTTERS: &[usize] = &[2];

/// The original's default.
const DEFAULT_FIELDS: &str = "unit,machine,active,sub";

/// What our table shows of a unit, and what tells which rows it has.
const SHOWN: &[&str] = &["description", "global", "machineID", "states"];

/// What JSON has of it.
const IN_JSON: &[&str] = &["description", "global", "hash", "machineID", "states"];

/// What the original's table may show of it.
const IN_ORIGINAL: &[&str] = &["hash", "states"];

/// Digits of a short hash.
const SHORT_HASH: usize = 7;

/// Behind the ACTIVE of a state that may be out of date. Whoever looks for `active` does not
/// find it, and whoever cuts columns finds them in their places.
const STALE: &str = "?";

/// A unit on a machine, in the original's table.
struct Row<'a> {
    unit: &'a UnitRow<'a>,
    machines: &'a Machines,
    state: &'a StateRow<'a>,
}

/// The columns of the original's table.
fn fields<'a>() -> [Field<Row<'a>>; 6] {
    [
        Field {
            name: "unit",
            cell: |row, _| row.unit.name.to_string(),
        },
        Field {
            name: "machine",
            cell: |row, full| match &*row.state.machine_id {
                "" => String::new(),
                id => row.machines.legend(id, full),
            },
        },
        Field {
            name: "load",
            cell: |row, _| row.state.load.to_string(),
        },
        Field {
            name: "active",
            cell: |row, _| row.state.active.to_string(),
        },
        Field {
            name: "sub",
            cell: |row, _| row.state.sub.to_string(),
        },
        Field {
            name: "hash",
            cell: |row, full| short_hash(row.unit.hash_of(row.state), full),
        },
    ]
}

/// List units with what systemd says of them
///
/// One row for each unit (global units: one for each machine that has it), and one more for each
/// other machine where it still runs; "?" behind ACTIVE marks the last report of a machine that is
/// not present. Fields: unit, machine, load, active, sub, hash; with --fields or --full only units
/// that systemd knows are listed. With --watch rows come for as long as you look, each with the time
/// (UTC, of this computer) at which it was seen; a unit that there is no more is "gone".
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    list: ListFlags,

    /// Go on with each row that changes, as it changes; -o json: a document a line
    #[arg(long, short = 'w', conflicts_with_all = ["fields", "full"])]
    watch: bool,
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
    /// When it was seen, in milliseconds since 1970; with --watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_ms: Option<u64>,
    /// It is not there any more; with --watch.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let flags = &args.list;
    if args.watch {
        return watch::run(flags, context).await;
    }
    let table = fields();
    let original = flags.original(&table, DEFAULT_FIELDS)?;
    let (fleet, ui) = (context.fleet, context.ui);
    if flags.is_json() {
        let mut list = JsonList::new(ui);
        let listed = fleet.rows(IN_JSON, |units| {
            let mut items = Vec::new();
            each_row(units, |unit, state| items.push(json_row(unit, state)));
            list.items(&items);
        });
        let listed = listed.await.map_err(failed);
        return list.finish(listed);
    }
    let Some(fields) = original else {
        let header = ["UNIT", "LOAD", "ACTIVE", "SUB", "DESC", "MACHINE"];
        let mut table = Printing::ours(ui, flags, &header, GUTTERS);
        let listed = fleet.rows(SHOWN, |units| {
            each_row(units, |unit, state| print_ours(&mut table, unit, state));
            table.flush();
        });
        let listed = listed.await.map_err(failed);
        return table.finish(listed);
    };
    // Without them addresses are missing, and that is all.
    let machines = fleet.machines().await.unwrap_or_default();
    let machines = &Machines::new(machines);
    let mut table = Printing::original(ui, flags, &fields);
    let listed = fleet.rows(IN_ORIGINAL, |units| {
        let columns = self::fields();
        let fields = same(&columns, &fields);
        let states = units
            .iter()
            .flat_map(|unit| known_states(unit).map(move |state| (unit, state)));
        for (unit, state) in states.filter(|(_, state)| !machines.is_lost(&state.machine_id)) {
            let row = Row {
                unit,
                machines,
                state,
            };
            table.fields(&fields, &row, flags.full);
        }
        table.flush();
    });
    let listed = listed.await.map_err(failed);
    table.finish(listed)
}

fn failed(error: Error) -> CommandError {
    CommandError::api("Error retrieving list of units from repository", &error)
}

/// Those that systemd has said something of.
fn known_states<'a>(unit: &'a UnitRow<'a>) -> impl Iterator<Item = &'a StateRow<'a>> {
    unit.states.iter().filter(|state| !state.load.is_empty())
}

/// The rows of our table: a unit and what is known of it on one machine.
fn each_row<'a>(
    units: &'a [UnitRow<'a>],
    mut each: impl FnMut(&'a UnitRow<'a>, Option<&'a StateRow<'a>>),
) {
    for unit in units.iter().filter(|unit| !is_template(unit)) {
        let placed = match unit.global {
            true => None,
            false => placed_state(unit),
        };
        if !unit.global || known_states(unit).next().is_none() {
            each(unit, placed);
        }
        match unit.global {
            true => known_states(unit).for_each(|state| each(unit, Some(state))),
            false => other_copies(unit, placed).for_each(|state| each(unit, Some(state))),
        }
    }
}

/// How a unit is on its machine; while it has none, how it is where it is leaving.
fn placed_state<'a>(unit: &'a UnitRow<'a>) -> Option<&'a StateRow<'a>> {
    match &unit.machine_id {
        Some(id) => known_states(unit).find(|state| *state.machine_id == **id),
        None => known_states(unit).next(),
    }
}

/// Where else it runs: it is about to be stopped there, as after a cut that is over.
fn other_copies<'a>(
    unit: &'a UnitRow<'a>,
    placed: Option<&'a StateRow<'a>>,
) -> impl Iterator<Item = &'a StateRow<'a>> {
    let shown = machine_of(unit, placed);
    known_states(unit)
        .filter(move |state| Some(&*state.machine_id) != shown)
        .filter(|state| !state.stale && !matches!(&*state.active, "inactive" | "failed"))
}

fn machine_of<'a>(unit: &'a UnitRow<'a>, state: Option<&'a StateRow<'a>>) -> Option<&'a str> {
    match state {
        Some(state) => Some(&state.machine_id),
        None => unit.machine_id.as_deref(),
    }
}

fn print_ours(table: &mut Printing<'_>, unit: &UnitRow<'_>, state: Option<&StateRow<'_>>) {
    let cells = cells(unit, state);
    table.row(cells.each_ref().map(|cell| &**cell));
}

/// The cells of our table.
fn cells<'a>(unit: &'a UnitRow<'a>, state: Option<&'a StateRow<'a>>) -> [Cow<'a, str>; 6] {
    let machine = machine_of(unit, state).unwrap_or_default();
    let Some(state) = state else {
        let name = &*unit.name;
        return [name, "", "", "", "", machine].map(Cow::Borrowed);
    };
    let active = match state.stale {
        false => Cow::Borrowed(&*state.active),
        true => format!("{}{STALE}", state.active).into(),
    };
    [
        (&*unit.name).into(),
        (&*state.load).into(),
        active,
        (&*state.sub).into(),
        on_one_line(unit.description_of(state)),
        machine.into(),
    ]
}

fn json_row<'a>(unit: &'a UnitRow<'a>, state: Option<&'a StateRow<'a>>) -> JsonRow<'a> {
    JsonRow {
        unit: &unit.name,
        load: state.map(|state| &*state.load),
        active: state.map(|state| &*state.active),
        sub: state.map(|state| &*state.sub),
        description: state
            .map(|state| unit.description_of(state))
            .filter(|text| !text.is_empty()),
        machine_id: machine_of(unit, state),
        hash: state.map(|state| unit.hash_of(state)),
        stale: state.is_some_and(|state| state.stale),
        at_ms: None,
        gone: false,
    }
}

fn on_one_line(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        true => text.replace(char::is_control, " ").into(),
        false => text.into(),
    }
}

fn is_template(unit: &UnitRow<'_>) -> bool {
    // Most names need no closer look.
    unit.name.contains('@') && UnitName::parse(&unit.name).is_ok_and(|name| name.is_template())
}

pub(crate) fn short_hash(hash: &str, full: bool) -> String {
    let digits = if full { hash.len() } else { SHORT_HASH };
    hash.chars().take(digits).collect()
}
