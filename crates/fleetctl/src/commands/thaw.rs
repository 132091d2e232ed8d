//! `fleetctl thaw`

use fleet_api::client::Error;

use crate::commands::flags::OutputFlags;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::machines::{original, shown};

/// Give up the machines that are away, though too many vanished at once
///
/// When many machines vanish at once, it is more likely that nobody can see them than that all
/// have died, and nothing is moved until they are back or freeze_for is over. If they are really
/// gone, say so: their units start elsewhere at once. "fleetctl list-machines" names them.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let report = args.output.report(context.ui);
    let machines = match context.fleet.client.thaw().await {
        Ok(listing) => listing.machines,
        Err(Error::NoV2) => return Err(original()),
        Err(error) => return Err(CommandError::api("Error ending the freeze", &error)),
    };
    if machines.is_empty() {
        context.ui.note("Nothing is frozen.");
    }
    for machine in &machines {
        let words = format!("Machine {} given up", shown(machine));
        report.machine("", "given up", machine, &words);
    }
    Ok(report.exit())
}
