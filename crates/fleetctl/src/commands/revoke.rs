//! `fleetctl revoke`

use fleet_api::client::Error;
use fleet_api::v2::RevokeRequest;

use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::report::visible;
use crate::when;

/// Do not believe certificates any more
///
/// Those of a user or a machine that were made until now, or a single one. It holds at once, on every
/// machine, and cuts open connections; nothing takes it back. Who is to be let in again joins anew
/// ("fleetctl join-token"), a minute later at the earliest. What runs on a machine that is revoked
/// goes on running.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// user:NAME, machine:ID or serial:HEX
    #[arg(value_name = "WHO")]
    who: Vec<String>,

    /// Why, for those who ask later
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    why: String,

    /// Show who is revoked
    #[arg(long)]
    list: bool,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    if args.who.is_empty() && !args.list {
        return Err(CommandError::usage("nobody is named")
            .hint("name user:NAME, machine:ID or serial:HEX; --list shows who is revoked"));
    }
    for who in &args.who {
        let wanted = RevokeRequest {
            name: who.clone(),
            why: args.why.clone(),
        };
        let revoked = context.fleet.client.revoke(&wanted).await;
        revoked.map_err(|error| failed(&error))?;
        context.ui.note(&format!("Revoked {who}"));
    }
    if args.list {
        let listing = context.fleet.client.revocations().await;
        for revoked in listing.map_err(|error| failed(&error))?.revocations {
            let by = match revoked.by.as_str() {
                "" => String::new(),
                by => format!(" by {by}"),
            };
            let why = match revoked.why.as_str() {
                "" => String::new(),
                why => format!(": {why}"),
            };
            let line = format!("{} {}{by}{why}", revoked.name, when::utc(revoked.at_ms));
            context.ui.line(&visible(&line));
        }
    }
    Ok(Exit::Success)
}

fn failed(error: &Error) -> CommandError {
    match error {
        Error::NoV2 => CommandError::new("this fleetd knows no revocations: upgrade it"),
        Error::Answer { message, .. } => CommandError::new(message.clone()),
        error => CommandError::api("Error revoking", error),
    }
}
