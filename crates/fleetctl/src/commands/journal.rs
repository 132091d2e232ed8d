//! `fleetctl journal`

use std::io::IsTerminal;

use fleet_core::name::with_default_type;

use crate::commands::ssh::SshPort;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::ssh::arguments::Session;
use crate::ssh::{lookup, run};

/// Print the last lines of a unit's journal
///
/// Runs journalctl on the unit's machine, through ssh unless that is this one, and ends with its
/// status; 255 if the connection fails. Whoever may not read the journal there takes --sudo.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// How many lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: u32,

    /// Go on printing lines as they come
    #[arg(long, short = 'f', alias = "f")]
    follow: bool,

    /// Run journalctl with sudo
    #[arg(long)]
    sudo: bool,

    /// journalctl's output mode: short, cat, json, verbose…
    #[arg(long, short = 'o', value_name = "MODE", default_value = "short")]
    output: String,

    #[command(flatten)]
    port: SshPort,

    /// The unit
    #[arg(value_name = "UNIT")]
    units: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let [unit] = args.units.as_slice() else {
        return Err(CommandError::new("One unit file must be provided."));
    };
    let name = with_default_type(unit);
    let failed = |error| CommandError::api(&format!("Error retrieving unit {name}"), &error);
    let Some(unit) = context.fleet.unit(&name).await.map_err(failed)? else {
        return Err(CommandError::new(format!("Unit {name} does not exist.")));
    };
    let machines = context.fleet.machines().await.map_err(failed)?;
    let place = lookup::journal(&unit, &machines)?;
    // sudo asks for a password on a terminal only, and Ctrl-C ends a journal that is followed
    // at the far side only if there is one.
    let is_interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let session = Session {
        port: args.port.ssh_port,
        forward_agent: false,
        tty: Some(is_interactive && (args.sudo || args.follow)),
    };
    run::at(context.ssh, &place, session, &words(&args, &name)).await
}

fn words(args: &Args, unit: &str) -> Vec<String> {
    let lines = args.lines.to_string();
    let sudo = args.sudo.then_some("sudo");
    let follow = args.follow.then_some("-f");
    let journalctl = [
        "journalctl",
        "--unit",
        unit,
        "--no-pager",
        "-n",
        &lines,
        "--output",
        &args.output,
    ];
    let words = sudo.into_iter().chain(journalctl).chain(follow);
    words.map(str::to_owned).collect()
}
