//! `fleetctl list-unit-files`

use fleet_api::client::Error;
use fleet_api::v2::UnitRow;
use serde::Serialize;

use crate::commands::list_units::short_hash;
use crate::commands::listing::{Field, JsonList, ListFlags, Machines, Printing, same};
use crate::commands::{Context, Outcome};
use crate::error::CommandError;

/// Blanks between columns.
const GUTTERS: &[usize] = &[2];

/// The original's default.
const DEFAULT_FIELDS: &str = "unit,hash,dstate,state,target";

/// What our table shows of a unit.
const SHOWN: &[&str] = &[
    "hash",
    "desiredState",
    "currentState",
    "global",
    "machineID",
];

/// What JSON has of it, and what the original's table may show.
const ALL: &[&str] = &[
    "hash",
    "desiredState",
    "currentState",
    "description",
    "global",
    "machineID",
];

/// What stands for the machines of a global unit.
const GLOBAL: &str = "global";

/// A unit in the original's table.
struct Row<'a> {
    unit: &'a UnitRow<'a>,
    machines: &'a Machines,
}

/// The columns of the original's table.
fn fields<'a>() -> [Field<Row<'a>>; 8] {
    [
        Field {
            name: "unit",
            cell: |row, _| row.unit.name.to_string(),
        },
        Field {
            name: "hash",
            cell: |row, full| short_hash(&row.unit.hash, full),
        },
        Field {
            name: "desc",
            cell: |row, _| {
                row.unit
                    .description
                    .as_deref()
                    .unwrap_or_default()
                    .to_owned()
            },
        },
        Field {
            name: "global",
            cell: |row, _| row.unit.global.to_string(),
        },
        Field {
            name: "dstate",
            cell: |row, _| row.unit.desired_state.to_string(),
        },
        Field {
            name: "state",
            cell: |row, _| state(row.unit).to_owned(),
        },
        Field {
            name: "target",
            cell: target,
        },
        Field {
            name: "tmachine",
            cell: target,
        },
    ]
}

/// List all units and templates that fleet has, with what is wished for them
///
/// Fields: unit, hash, desc, global, dstate, state, target.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    list: ListFlags,
}

/// A unit in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonRow<'a> {
    unit: &'a str,
    hash: &'a str,
    description: Option<&'a str>,
    global: bool,
    desired_state: &'a str,
    current_state: Option<&'a str>,
    #[serde(rename = "machineID")]
    machine_id: Option<&'a str>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let flags = &args.list;
    let table = fields();
    let original = flags.original(&table, DEFAULT_FIELDS)?;
    let (fleet, ui) = (context.fleet, context.ui);
    if flags.is_json() {
        let mut list = JsonList::new(ui);
        let listed = fleet.rows(ALL, |units| {
            let items: Vec<JsonRow<'_>> = units.iter().map(json_row).collect();
            list.items(&items);
        });
        let listed = listed.await.map_err(failed);
        return list.finish(listed);
    }
    let Some(fields) = original else {
        let header = ["UNIT", "HASH", "DSTATE", "STATE", "TARGET"];
        let mut table = Printing::ours(ui, flags, &header, GUTTERS);
        let listed = fleet.rows(SHOWN, |units| {
            for unit in units {
                let target = match &unit.machine_id {
                    _ if unit.global => GLOBAL,
                    Some(id) => id,
                    None => "",
                };
                let hash = short_hash(&unit.hash, false);
                table.row([&unit.name, &*hash, &unit.desired_state, state(unit), target]);
            }
            table.flush();
        });
        let listed = listed.await.map_err(failed);
        return table.finish(listed);
    };
    if fields.iter().any(|field| field.name == "tmachine") {
        let text = "The \"tmachine\" field is deprecated. Use \"target\" instead";
        ui.warning(text);
    }
    // Without them addresses are missing, and that is all.
    let machines = fleet.machines().await.unwrap_or_default();
    let machines = &Machines::new(machines);
    let mut table = Printing::original(ui, flags, &fields);
    let listed = fleet.rows(ALL, |units| {
        let columns = self::fields();
        let fields = same(&columns, &fields);
        for unit in units {
            table.fields(&fields, &Row { unit, machines }, flags.full);
        }
        table.flush();
    });
    let listed = listed.await.map_err(failed);
    table.finish(listed)
}

fn failed(error: Error) -> CommandError {
    CommandError::api("Error retrieving list of units from repository", &error)
}

fn target(row: &Row<'_>, full: bool) -> String {
    match &row.unit.machine_id {
        _ if row.unit.global => GLOBAL.to_owned(),
        Some(id) => row.machines.legend(id, full),
        None => String::new(),
    }
}

fn state<'a>(unit: &'a UnitRow<'_>) -> &'a str {
    let state = unit.current_state.as_deref().filter(|_| !unit.global);
    state.unwrap_or_default()
}

fn json_row<'a>(unit: &'a UnitRow<'a>) -> JsonRow<'a> {
    JsonRow {
        unit: &unit.name,
        hash: &unit.hash,
        description: unit.description.as_deref(),
        global: unit.global,
        desired_state: &unit.desired_state,
        current_state: unit.current_state.as_deref().filter(|_| !unit.global),
        machine_id: unit.machine_id.as_deref(),
    }
}
