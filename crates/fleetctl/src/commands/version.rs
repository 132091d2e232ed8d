//! `fleetctl version`

use crate::cli;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::ui::Ui;

/// Print fleetctl's version
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args, ui: &Ui) -> Outcome {
    ui.line(&cli::version_line());
    Ok(Exit::Success)
}
