//! `fleetctl start`

use crate::commands::flags::{BlockFlags, CreateFlags, OutputFlags};
use crate::commands::launch::{self, Launch};
use crate::commands::{Context, Outcome};
use crate::report::Goal;
use crate::wishes::Wording;

/// Start units, and wait until systemd says that they run
///
/// Units that fleet does not have yet are submitted first. A unit that fails is told with its
/// last lines in the journal. Neither Ctrl-C nor the end of the wait takes the request back.
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
    let start = Launch {
        wording: Wording {
            verb: "start",
            doing: "starting",
        },
        goal: Some(Goal::Launched),
        replaceable: &[Goal::Inactive, Goal::Loaded, Goal::Launched],
        bounds: args.block.bounds(),
    };
    let report = args.output.report(context.ui);
    launch::run(context, &report, &args.units, &args.create, start).await
}
