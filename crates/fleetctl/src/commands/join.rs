//! `fleetctl join`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet_api::client::{Client, Endpoint, Error, TlsDial};
use fleet_api::v2::CertificateRequest;
use fleet_pki::{Subject, Token, files, fingerprint};

use super::init::{failed, key_and_request, machine_id, read};
use crate::commands::Outcome;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::ui::Ui;
use crate::when;

/// Get a certificate with a token that an admin has made
///
/// "fleetctl join-token" prints the whole command. With a token for a machine run it there, as root:
/// the key and the certificate go to /etc/fleet/pki, and fleetd renews it from then on. With a token
/// for a user they go to ~/.config/fleet, where fleetctl finds them. The key is made here and stays
/// here. The token says by which CA fleetd is verified, so that it is shown to nobody else.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The token
    token: String,

    /// A fleetd on a machine with the CA's key: https://host:port
    #[arg(value_name = "URL")]
    url: String,

    /// Where the files go
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,

    /// This machine's id, instead of that in /etc/machine-id
    #[arg(long, value_name = "ID")]
    machine: Option<String>,
}

pub(crate) async fn run(args: Args, user_directory: Option<&Path>, ui: &Ui) -> Outcome {
    let token = Token::parse(&args.token).map_err(|error| failed(&error))?;
    let Ok(Endpoint::Tcp(to)) = Endpoint::parse(&args.url) else {
        return Err(not_https(&args.url));
    };
    if !to.tls {
        return Err(not_https(&args.url));
    }
    let user = match &token.claims.subject {
        Some(subject @ Subject::User(_)) => Some(subject.clone()),
        _ => None,
    };
    let subject = match &user {
        Some(user) => user.clone(),
        None => Subject::Machine(machine_id(args.machine)?),
    };
    let usual = match user {
        Some(_) => user_directory,
        None => Some(Path::new(files::MACHINE_DIRECTORY)),
    };
    let Some(dir) = args.directory.as_deref().or(usual) else {
        return Err(
            CommandError::new("there is no home directory to put the files into")
                .hint("name one: --directory=DIR"),
        );
    };
    let (certificate, key) = match subject {
        Subject::User(_) => (files::USER, files::USER_KEY),
        Subject::Machine(_) => (files::MACHINE, files::MACHINE_KEY),
    };
    let ca = dir.join(files::CA);
    let is_pinned = |pem: &str| {
        let certificates = TlsDial::certificates_in(pem);
        certificates.iter().any(|der| fingerprint(der) == token.ca)
    };
    if ca.exists() && !is_pinned(&read(&ca)?) {
        return Err(CommandError::new(format!(
            "{} is another cluster's CA than that of the token",
            ca.display()
        ))
        .hint("who is to leave that cluster for this one removes the files there first"));
    }
    files::directory(dir).map_err(|error| failed(&error))?;
    let request = key_and_request(&dir.join(key), &subject)?;
    let pin = token.ca;
    let dial = TlsDial::pinned(&to, Arc::new(move |der: &[u8]| fingerprint(der) == pin))
        .map_err(|error| failed(&error))?;
    let client = Client::with_dial(Endpoint::Tcp(to), Arc::new(dial));
    let wanted = CertificateRequest {
        token: args.token.trim().to_owned(),
        machine: match &subject {
            Subject::Machine(id) => id.clone(),
            Subject::User(_) => String::new(),
        },
        request: request.request_pem,
    };
    let answer = match client.join(&wanted).await {
        Ok(answer) => answer,
        Err(Error::Answer { message, .. }) => return Err(CommandError::new(message)),
        Err(error) => return Err(CommandError::api("Error joining", &error)),
    };
    if !is_pinned(&answer.ca) {
        return Err(CommandError::new(
            "fleetd has answered with another CA than that of the token",
        ));
    }
    let path = dir.join(certificate);
    files::replace(&ca, &answer.ca).map_err(|error| failed(&error))?;
    files::replace(&path, &answer.certificate).map_err(|error| failed(&error))?;
    ui.note(&format!(
        "Joined as {}, until {}: {}",
        answer.subject,
        when::utc(answer.expires_ms),
        path.display()
    ));
    ui.hint(&match subject {
        Subject::Machine(_) => {
            "systemctl reload fleet, with api_listen=0.0.0.0:49153 in fleet.conf: fleetd serves over \
             TLS, and renews the certificate by itself"
                .to_owned()
        }
        Subject::User(_) => format!("fleetctl --endpoint={} list-machines", args.url),
    });
    Ok(Exit::Success)
}

fn not_https(url: &str) -> CommandError {
    CommandError::usage(format!("\"{url}\" is no endpoint to join through"))
        .hint("write it as https://host:port")
}
