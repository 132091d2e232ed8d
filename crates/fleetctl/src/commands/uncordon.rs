//! `fleetctl uncordon`

use fleet_api::v2::MachineChange;

use crate::commands::flags::OutputFlags;
use crate::commands::{Context, Outcome};
use crate::machines;

/// Let machines take units again
///
/// It ends a cordon and a drain, and that a machine is avoided because many units failed there.
/// Units that have left do not come back for that; those that have
/// not arrived elsewhere stay, and global units return.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The machines, by any beginning of their ids
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let report = args.output.report(context.ui);
    let change = MachineChange {
        cordoned: Some(false),
        draining: Some(false),
        max_parallel: None,
    };
    for machine in machines::named(context.fleet, &report, &args.machines).await? {
        machines::change(context.fleet, &report, &machine, &change, "open").await?;
    }
    Ok(report.exit())
}
