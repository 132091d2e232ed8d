//! `fleetctl help`

use crate::cli;
use crate::commands::Outcome;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Print help on a command
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The command; without it: what commands there are
    command: Option<String>,
}

pub(crate) fn run(args: Args, ui: &Ui) -> Outcome {
    let help = cli::help(args.command.as_deref());
    ui.data(&help.map_err(|error| CommandError::usage(error.0))?);
    Ok(Exit::Success)
}
