//! `fleetctl cordon`

use fleet_api::v2::MachineChange;

use crate::commands::flags::OutputFlags;
use crate::commands::{Context, Outcome};
use crate::machines;

/// Let machines take no new units
///
/// What runs there goes on. Machines are named by any beginning of their ids; "fleetctl uncordon"
/// opens them again.
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
        cordoned: Some(true),
        ..MachineChange::default()
    };
    for machine in machines::named(context.fleet, &report, &args.machines).await? {
        machines::change(context.fleet, &report, &machine, &change, "cordoned").await?;
    }
    Ok(report.exit())
}
