//! `fleetctl list-unit-files`

use fleet_api::v2::UnitView;
use serde::Serialize;

use crate::commands::list_units::short_hash;
use crate::commands::listing::{Field, ListFlags, Machines, print_original, print_ours, to_json};
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;

/// Blanks between columns.
const GUTTERS: [usize; 1] = [2];

/// The original's default.
const DEFAULT_FIELDS: &str = "unit,hash,dstate,state,target";

/// What stands for the machines of a global unit.
const GLOBAL: &str = "global";

/// A unit in the original's table.
struct Row<'a> {
    unit: &'a UnitView,
    legends: [String; 2],
}

/// The columns of the original's table.
fn fields<'a>() -> [Field<Row<'a>>; 8] {
    [
        Field {
            name: "unit",
            cell: |row, _| row.unit.name.clone(),
        },
        Field {
            name: "hash",
            cell: |row, full| short_hash(&row.unit.hash, full),
        },
        Field {
            name: "desc",
            cell: |row, _| row.unit.description.clone().unwrap_or_default(),
        },
        Field {
            name: "global",
            cell: |row, _| row.unit.global.to_string(),
        },
        Field {
            name: "dstate",
            cell: |row, _| row.unit.desired_state.clone(),
        },
        Field {
            name: "state",
            cell: |row, _| state(row.unit),
        },
        Field {
            name: "target",
            cell: |row, full| row.legends[usize::from(full)].clone(),
        },
        Field {
            name: "tmachine",
            cell: |row, full| row.legends[usize::from(full)].clone(),
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
    let units = context.fleet.units().await.map_err(|error| {
        CommandError::api("Error retrieving list of units from repository", &error)
    })?;
    if flags.is_json() {
        let rows: Vec<JsonRow<'_>> = units.iter().map(json_row).collect();
        context.ui.data(&to_json(&rows)?);
        return Ok(Exit::Success);
    }
    let Some(fields) = original else {
        let header = ["UNIT", "HASH", "DSTATE", "STATE", "TARGET"];
        print_ours(
            context.ui,
            flags,
            &header,
            units.iter().map(our_row),
            &GUTTERS,
        );
        return Ok(Exit::Success);
    };
    if fields.iter().any(|field| field.name == "tmachine") {
        let text = "The \"tmachine\" field is deprecated. Use \"target\" instead";
        context.ui.warning(text);
    }
    // Without them addresses are missing, and that is all.
    let machines = context.fleet.machines().await.unwrap_or_default();
    let machines = Machines::new(machines);
    let rows: Vec<Row<'_>> = units
        .iter()
        .map(|unit| Row {
            unit,
            legends: [false, true].map(|full| match &unit.machine_id {
                _ if unit.global => GLOBAL.to_owned(),
                Some(id) => machines.legend(id, full),
                None => String::new(),
            }),
        })
        .collect();
    print_original(context.ui, flags, &fields, &rows);
    Ok(Exit::Success)
}

fn our_row(unit: &UnitView) -> Vec<String> {
    let target = match &unit.machine_id {
        _ if unit.global => GLOBAL.to_owned(),
        Some(id) => id.clone(),
        None => String::new(),
    };
    vec![
        unit.name.clone(),
        short_hash(&unit.hash, false),
        unit.desired_state.clone(),
        state(unit),
        target,
    ]
}

fn state(unit: &UnitView) -> String {
    let state = unit.current_state.clone().filter(|_| !unit.global);
    state.unwrap_or_default()
}

fn json_row(unit: &UnitView) -> JsonRow<'_> {
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
