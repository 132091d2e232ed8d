//! `fleetctl load`

use crate::commands::flags::{BlockFlags, CreateFlags, OutputFlags};
use crate::commands::launch::{self, Launch};
use crate::commands::{Context, Outcome};
use crate::report::Goal;
use crate::wishes::Wording;

/// Give units to machines without starting them
///
/// Units that fleet does not have yet are submitted first. A launched unit is refused, since it
/// would be stopped: that is what stop is for.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Unit files, names of units, or patterns of either
    #[arg(value_name = "UNIT", value_hint = clap::ValueHint::FilePath)]
    units: Vec<String>,

    #[command(flatten)]
    block: BlockFlags,

    #[command(flatten)]
    create: CreateFlags,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let load = Launch {
        wording: Wording {
            verb: "load",
            doing: "loading",
        },
        goal: Some(Goal::Loaded),
        replaceable: &[Goal::Inactive, Goal::Loaded],
        bounds: args.block.bounds(),
    };
    let report = args.output.report(context.ui);
    launch::run(context, &report, &args.units, &args.create, load).await
}
