//! `fleetctl join-token`

use fleet_api::client::Error;
use fleet_api::v2::{JoinTokenRequest, ROLE_MACHINE};

use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::when;

/// Let a machine or a user in, once
///
/// Prints the command to run there: "fleetctl join" with a token that is good once, for an hour. It
/// carries the fingerprint of the cluster's CA, so that whoever joins knows whom to believe. Ask a
/// machine that has the CA's key ("fleetctl init" was run there).
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// What it lets in as: machine, or a user's role: viewer, operator, admin, or one of your own
    #[arg(long, value_name = "ROLE", default_value = ROLE_MACHINE)]
    role: String,

    /// The user's name, with a role of users
    #[arg(long, value_name = "NAME", conflicts_with_all = ["machine", "host"])]
    user: Option<String>,

    /// Only the machine with this id, also if it has a certificate already
    #[arg(long, value_name = "ID")]
    machine: Option<String>,

    /// A host name or address under which the machine is reached, beside the address that it joins
    /// from; may be given several times
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,

    /// How long it may be used: 10m, 2h, 7d at most
    #[arg(long, value_name = "DURATION", value_parser = ttl, default_value = "1h")]
    ttl: u64,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let wanted = JoinTokenRequest {
        role: args.role,
        name: args.user.or(args.machine).unwrap_or_default(),
        hosts: args.host,
        ttl_s: args.ttl,
    };
    let made = match context.fleet.client.join_token(&wanted).await {
        Ok(made) => made,
        Err(Error::NoV2) => {
            return Err(CommandError::new(
                "this fleetd knows no join tokens: upgrade it",
            ));
        }
        Err(Error::Answer { message, .. }) => return Err(CommandError::new(message)),
        Err(error) => return Err(CommandError::api("Error making a token", &error)),
    };
    let url = match made.endpoint.as_str() {
        "" => "https://HOST:PORT",
        endpoint => endpoint,
    };
    context
        .ui
        .line(&format!("fleetctl join {} {url}", made.token));
    context.ui.note(&format!(
        "It lets in once, until {}.",
        when::utc(made.expires_ms)
    ));
    Ok(Exit::Success)
}

fn ttl(text: &str) -> Result<u64, String> {
    match when::while_of(text).map(|ms| ms / 1_000) {
        Some(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("write it as 30s, 10m, 2h or 7d".to_owned()),
    }
}
