//! `fleetctl __man`: what `make install` writes the manual pages with.

use std::path::PathBuf;

use crate::cli;
use crate::commands::Outcome;
use crate::error::CommandError;
use crate::exit::Exit;

/// Write the manual pages into a directory
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The directory
    directory: PathBuf,
}

pub(crate) fn run(args: Args) -> Outcome {
    for page in cli::man_pages() {
        let path = args.directory.join(page.file);
        std::fs::write(&path, page.text).map_err(|error| {
            CommandError::new(format!("failed to write {}: {error}", path.display()))
        })?;
    }
    Ok(Exit::Success)
}
