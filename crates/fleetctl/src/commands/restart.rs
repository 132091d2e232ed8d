//! `fleetctl restart`

use std::collections::BTreeSet;

use fleet_api::v2::UnitView;
use fleet_core::validate::UnknownKeys;

use crate::commands::flags::{BlockFlags, OutputFlags};
use crate::commands::launch::{self, Launch};
use crate::commands::put_down::{NOT_FOUND, is_wanted, known_units};
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::names::is_pattern;
use crate::report::{Goal, Report};
use crate::wait::Bounds;
use crate::wishes::{self, Manner, Wish, Wording};

const WORDING: Wording = Wording {
    verb: "restart",
    doing: "restarting",
};

/// Stop units and start them again, on all machines that run them
///
/// They stay where they are. A unit that is loaded is started; one that is inactive is refused,
/// and so is one that fleet does not have: it is submitted, if there is a file for it.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Names of units, or patterns of them
    #[arg(value_name = "UNIT")]
    units: Vec<String>,

    #[command(flatten)]
    block: BlockFlags,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    if args.units.is_empty() {
        context.ui.note("No units given");
        return Ok(Exit::Success);
    }
    let report = args.output.report(context.ui);
    let Some(units) = units(context, &report, &args).await? else {
        wishes::tell_interrupted(&report);
        return Ok(Exit::Interrupted);
    };
    if units.is_empty() && report.exit() == Exit::Success {
        context
            .ui
            .note("Nothing to restart: what matches is inactive");
    }
    let wishes: Vec<Wish> = units
        .iter()
        .filter_map(|unit| wish(context, &report, unit))
        .collect();
    let restarted: Vec<String> = wishes
        .iter()
        .filter(|wish| wish.restart)
        .map(|wish| wish.name.clone())
        .collect();
    let manner = Manner {
        wording: WORDING,
        bounds: args.block.bounds(),
        unknown_keys: UnknownKeys::Default,
        tells_created: false,
        stops: false,
    };
    let waited = wishes::carry_out(context.fleet, &report, wishes, manner).await;
    if waited.interrupted {
        wishes::tell_interrupted(&report);
        return Ok(Exit::Interrupted);
    }
    for name in restarted
        .iter()
        .filter(|name| waited.reached.contains(name))
    {
        context.ui.note(&format!("Unit({name}) was restarted."));
    }
    Ok(report.exit())
}

/// The units that are meant; None: interrupted. As the original's first step, one that fleet does
/// not have is submitted if there is a file for it, and one that differs from its file is told.
async fn units(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &Args,
) -> Result<Option<Vec<UnitView>>, CommandError> {
    let (patterns, names): (Vec<String>, Vec<String>) =
        args.units.iter().cloned().partition(|arg| is_pattern(arg));
    let submit = Launch {
        wording: WORDING,
        goal: None,
        replaceable: &[],
        bounds: Some(Bounds::of_attempts(0)),
    };
    let known = launch::known_or_submitted(context, report, &names, submit).await?;
    let Some(mut units) = known else {
        return Ok(None);
    };
    let mut seen: BTreeSet<String> = units.iter().map(|unit| unit.name.clone()).collect();
    let matching = known_units(context, report, &patterns, is_wanted, NOT_FOUND).await?;
    units.extend(
        matching
            .into_iter()
            .filter(|unit| seen.insert(unit.name.clone())),
    );
    Ok(Some(units))
}

fn wish(context: &Context<'_>, report: &Report<'_>, unit: &UnitView) -> Option<Wish> {
    let name = &unit.name;
    let restart = match unit.desired_state.as_str() {
        "launched" => true,
        "loaded" => {
            context
                .ui
                .note(&format!("Unit({name}) already loaded, starting."));
            false
        }
        _ => {
            let text = format!("Unable to restart unit {name} in state inactive");
            report.failed(name, &text);
            return None;
        }
    };
    let invocations = unit.states.iter().map(|state| state.invocation_id.clone());
    Some(Wish {
        restart,
        before: invocations.filter(|id| restart && !id.is_empty()).collect(),
        ..Wish::new(name, Some(Goal::Launched), unit.global)
    })
}
