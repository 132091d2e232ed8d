//! `fleetctl destroy`

use crate::commands::flags::{BlockFlags, OutputFlags};
use crate::commands::put_down::{self, Verb};
use crate::commands::{Context, Outcome};

/// Stop units, take them off their machines, and forget them
///
/// Waits until they are really gone.
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
    let report = args.output.report(context.ui);
    let bounds = args.block.bounds();
    put_down::run(context, &report, &args.units, Verb::Destroy, bounds).await
}
