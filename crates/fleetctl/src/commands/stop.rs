//! `fleetctl stop`

use crate::commands::flags::{BlockFlags, ConfirmFlags, OutputFlags};
use crate::commands::put_down::{self, PutDown, Verb};
use crate::commands::{Context, Outcome};

/// Stop units, and wait until they have stopped
///
/// They stay on their machines, ready to be started.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Names of units, or patterns of them
    #[arg(value_name = "UNIT")]
    units: Vec<String>,

    #[command(flatten)]
    block: BlockFlags,

    #[command(flatten)]
    confirm: ConfirmFlags,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let report = args.output.report(context.ui);
    let put_down = PutDown {
        verb: Verb::Stop,
        bounds: args.block.bounds(),
        asks: !args.confirm.yes,
    };
    put_down::run(context, &report, &args.units, put_down).await
}
