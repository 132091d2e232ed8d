//! `fleetctl verify`, which the original had given up already.

use crate::commands::Outcome;
use crate::exit::Exit;
use crate::ui::Ui;

/// DEPRECATED - No longer works
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[arg(hide = true)]
    units: Vec<String>,
}

pub(crate) fn run(_args: Args, ui: &Ui) -> Outcome {
    ui.note("Command \"verify\" is deprecated, DEPRECATED - No longer works");
    ui.warning("The signed/verified units feature is DEPRECATED and cannot be used.");
    Ok(Exit::Usage)
}
