//! `fleetctl restart`

use fleet_api::v2::UnitView;
use fleet_core::validate::UnknownKeys;

use crate::commands::flags::{BlockFlags, OutputFlags};
use crate::commands::put_down::known_units;
use crate::commands::{Context, Outcome};
use crate::exit::Exit;
use crate::report::{Goal, Report};
use crate::wishes::{self, Manner, Wish, Wording};

/// Stop units and start them again, on all machines that run them
///
/// They stay where they are. A unit that is loaded is started; one that is inactive is refused.
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
    let units = known_units(context, &report, &args.units).await?;
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
        wording: Wording {
            verb: "restart",
            doing: "restarting",
        },
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
