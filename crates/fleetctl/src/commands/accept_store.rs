//! `fleetctl accept-store`

use fleet_api::client::Error;

use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::machines::original;

/// Have machines believe this store, though their units came from another one
///
/// A machine that finds an empty, older or foreign store stops nothing on its word, and says so
/// in its log. Bring the right store back, and all goes on. If there is none, say with this
/// command that the store as it is now counts: units that it says are elsewhere or gone are
/// stopped then; those that it does not know keep running.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context<'_>) -> Outcome {
    match context.fleet.client.accept_store().await {
        Ok(()) => {
            let what = "The store is to be believed: machines that hold their units are told.";
            context.ui.note(what);
            Ok(Exit::Success)
        }
        Err(Error::NoV2) => Err(original()),
        Err(error) => Err(CommandError::api("Error accepting the store", &error)),
    }
}
