//! `fleetctl drain`

use std::time::Duration;

use fleet_api::v2::MachineChange;
use fleet_core::requirements::time_span;

use crate::commands::flags::OutputFlags;
use crate::commands::{Context, Outcome};
use crate::drain::{self, Drain, Patience};
use crate::exit::Exit;
use crate::machines;

/// Move all units off machines, and let them take no new ones
///
/// A unit is stopped here only when another machine has started it, unless it is Exclusive; units
/// that belong together (MachineOf) move together; global units stop last. It waits and tells
/// each unit that has moved, and which cannot and why: those stay and go on running. If anything
/// is left in the end, it exits with 1; the machine stays drained, and Ctrl-C does not end that.
/// "fleetctl uncordon" does:
///
///   fleetctl drain 148a
///   reboot it, then: fleetctl uncordon 148a
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The machines, by any beginning of their ids
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,

    /// Move at most N units (or groups of them) at once off each machine [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,

    /// Wait so long (5min, 90s) [default: as long as units move, and 10 s for those that cannot]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<Duration>,

    /// Do not wait until it is done
    #[arg(long)]
    no_block: bool,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let report = args.output.report(context.ui);
    let change = MachineChange {
        draining: Some(true),
        // A drain that is asked for anew without a number has the usual one.
        max_parallel: Some(args.max_parallel.unwrap_or(0)),
        ..MachineChange::default()
    };
    let patience = Patience::new(args.deadline);
    let work = async {
        let fleet = context.fleet;
        let mut drains = Vec::new();
        for machine in machines::named(fleet, &report, &args.machines).await? {
            // What is there before, so that the fastest move is told, too.
            let drain = Drain::begin(fleet, machine.clone()).await?;
            if machines::change(fleet, &report, &machine, &change, "draining").await? {
                drains.push(drain);
            }
        }
        if !args.no_block {
            drain::follow(fleet, &report, drains, patience).await;
        }
        Ok(report.exit())
    };
    tokio::select! {
        // The signal first: it is caught before anything is asked.
        biased;
        _ = tokio::signal::ctrl_c() => {
            let what = "Interrupted. What was asked for stands: the drain goes on; \
                        fleetctl uncordon ends it.";
            context.ui.note(what);
            Ok(Exit::Interrupted)
        }
        outcome = work => outcome,
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    time_span(text).ok_or_else(|| "not a time such as 90s, 5min or 1h30m".to_owned())
}
