//! `fleetctl why`

use fleet_api::v2::{MachineUnit, MachineView, UnitView};
use fleet_core::name::with_default_type;
use serde::Serialize;

use crate::commands::flags::{Format, OutputFlags};
use crate::commands::listing::to_json;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::machines;
use crate::names::{globs, is_pattern};
use crate::report::Report;

mod machine;
mod unit;

pub(crate) use machine::cures as cures_of_machine;
pub(crate) use unit::cures as cures_of_unit;

/// Say why a unit is where it is, or waits, and how a machine stands
///
/// Of a unit: what is wished and by whom, where it runs and since when, the last decision with what
/// refused how many machines, and what would end a wait. Of a machine: its status, why it takes no new
/// units, and what it has. All of it stands with the decision; nothing is worked out anew.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Units (patterns, too), and machines by any beginning of their ids
    #[arg(value_name = "UNIT|MACHINE")]
    things: Vec<String>,

    #[command(flatten)]
    output: OutputFlags,
}

/// What a unit or a machine was asked about.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Answer {
    Unit {
        unit: Box<UnitView>,
        cures: Vec<String>,
    },
    Machine {
        machine: Box<MachineView>,
        /// None: an original fleetd does not tell.
        #[serde(skip_serializing_if = "Option::is_none")]
        units: Option<Vec<MachineUnit>>,
        cures: Vec<String>,
    },
}

/// Lines of `label text` below a headline.
struct Told {
    headline: String,
    rows: Vec<(&'static str, String)>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    if args.things.is_empty() {
        return Err(CommandError::new("No unit and no machine is named.")
            .hint("fleetctl why UNIT, or fleetctl why MACHINE with any beginning of its id"));
    }
    let report = Report::new(context.ui, false);
    let failed = |error| CommandError::api("", &error);
    let machines = context.fleet.machines().await.map_err(failed)?;
    let mut answers = Vec::new();
    for thing in &args.things {
        let before = answers.len();
        for name in units_meant(context, thing).await? {
            if let Some(unit) = context.fleet.unit(&name).await.map_err(failed)? {
                let cures = unit::cures(&unit);
                let unit = Box::new(UnitView { text: None, ..unit });
                answers.push(Answer::Unit { unit, cures });
            }
        }
        let machine = machines::find(&machines, thing);
        if let Ok(machine) = &machine {
            answers.push(about_machine(context, machine).await?);
        }
        if answers.len() == before {
            not_found(&report, thing, machine.err());
        }
    }
    if args.output.output == Format::Json {
        context.ui.data(&to_json(&answers)?);
        return Ok(report.exit());
    }
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            context.ui.line("");
        }
        tell(context, answer, &machines);
    }
    Ok(report.exit())
}

/// The units that a word may mean.
async fn units_meant(context: &Context<'_>, thing: &str) -> Result<Vec<String>, CommandError> {
    if !is_pattern(thing) {
        return Ok(vec![with_default_type(thing)]);
    }
    let patterns = globs(thing);
    let units = context.fleet.matching(&patterns).await;
    let units = units.map_err(|error| CommandError::api("", &error))?;
    Ok(units.into_iter().map(|unit| unit.name).collect())
}

async fn about_machine(
    context: &Context<'_>,
    machine: &MachineView,
) -> Result<Answer, CommandError> {
    let units = match context.fleet.speaks_only_v1() {
        true => None,
        false => {
            let units = context.fleet.units_of_machine(&machine.id).await;
            Some(units.map_err(|error| CommandError::api("", &error))?)
        }
    };
    Ok(Answer::Machine {
        cures: machine::cures(machine),
        machine: Box::new(machine.clone()),
        units,
    })
}

fn not_found(report: &Report<'_>, thing: &str, as_machine: Option<CommandError>) {
    // Several machines are named: that is no unit's name.
    let several = as_machine.filter(|error| error.message.contains("is not clear"));
    let error = several.unwrap_or_else(|| {
        CommandError::new(format!(
            "{thing} is not known: neither a unit nor the beginning of a machine's id"
        ))
        .hint("fleetctl list-unit-files and fleetctl list-machines --all show what is known")
    });
    report.failed(thing, &error.message);
    report.hint_once(&error.hints);
}

fn tell(context: &Context<'_>, answer: &Answer, machines: &[MachineView]) {
    let (told, cures) = match answer {
        Answer::Unit { unit, cures } => {
            let keeps_reasons = !context.fleet.speaks_only_v1();
            (unit::told(unit, machines, keeps_reasons), cures)
        }
        Answer::Machine {
            machine,
            units,
            cures,
        } => (machine::told(machine, units.as_deref()), cures),
    };
    context.ui.line(&told.headline);
    let cures = cures.iter().map(|cure| ("cure", cure.clone()));
    let mut last = "";
    for (label, text) in told.rows.into_iter().chain(cures) {
        let shown = if label == last { "" } else { label };
        context.ui.line(&format!("  {shown:<10}{text}"));
        last = label;
    }
}
