//! `fleetctl init`

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use fleet_pki::{
    ADMIN, Ca, Grant, KeyAndRequest, MACHINE_LIFETIME_MS, Subject, USER_LIFETIME_MS, files,
};

use crate::commands::Outcome;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::ui::Ui;
use crate::when;

/// Where a machine's id is: machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

/// Make the cluster's CA, this machine's certificate and an admin's
///
/// To be run once, as root, on the first machine. The files go to /etc/fleet/pki; fleetd takes them
/// with "systemctl reload fleet", and serves api_listen= over TLS from then on. Others join with
/// "fleetctl join-token" here and "fleetctl join" there. Whoever has ca.key says who belongs to the
/// cluster: copy it, with ca.pem, to a second machine that shall issue certificates, too, and to no
/// other one. What is there already stays as it is.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A host name or address under which this machine is reached, beside its host name and the
    /// address of its default route; may be given several times
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,

    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = files::MACHINE_DIRECTORY, hide_default_value = true)]
    directory: PathBuf,

    /// This machine's id, instead of that in /etc/machine-id
    #[arg(long, value_name = "ID")]
    machine: Option<String>,
}

pub(crate) fn run(args: Args, ui: &Ui) -> Outcome {
    let dir = &args.directory;
    let machine = Subject::Machine(machine_id(args.machine)?);
    let now_ms = when::now_ms();
    files::directory(dir).map_err(|error| failed(&error))?;
    let (ca, is_new) = authority(dir, now_ms)?;
    let mut n_made = usize::from(is_new);
    if is_new {
        ui.note(&format!("Made the cluster's CA: {}", show(dir, files::CA)));
        ui.note(&format!(
            "Its key is {}: whoever has it says who belongs to the cluster",
            show(dir, files::CA_KEY)
        ));
    }
    let mut hosts = args.host;
    hosts.extend(known_hosts());
    hosts.sort();
    hosts.dedup();
    let grant = Grant {
        subject: machine,
        role: None,
        names: hosts,
        lifetime_ms: MACHINE_LIFETIME_MS,
    };
    let pair = [files::MACHINE, files::MACHINE_KEY].map(|file| dir.join(file));
    if certify(&ca, &grant, &pair, now_ms)? {
        n_made += 1;
        ui.note(&format!(
            "Made this machine's certificate, for {}: {}",
            grant.names.join(", "),
            pair[0].display()
        ));
    }
    let admin = Grant {
        subject: Subject::User(ADMIN.to_owned()),
        role: Some(ADMIN.to_owned()),
        names: Vec::new(),
        lifetime_ms: USER_LIFETIME_MS,
    };
    let pair = [files::USER, files::USER_KEY].map(|file| dir.join(file));
    if certify(&ca, &admin, &pair, now_ms)? {
        n_made += 1;
        ui.note(&format!(
            "Made a certificate for user {ADMIN}, until {}: {}",
            when::utc(now_ms + USER_LIFETIME_MS),
            pair[0].display()
        ));
    }
    match n_made {
        0 => ui.note(&format!(
            "Nothing to do: the CA and both certificates are in {}",
            dir.display()
        )),
        _ => ui.hint(
            "systemctl reload fleet, with api_listen=0.0.0.0:49153 in fleet.conf; then fleetctl \
             join-token for each further machine",
        ),
    }
    Ok(Exit::Success)
}

/// The CA in the directory, or a new one.
fn authority(dir: &Path, now_ms: u64) -> Result<(Ca, bool), CommandError> {
    let (pem, key) = (dir.join(files::CA), dir.join(files::CA_KEY));
    match (pem.exists(), key.exists()) {
        (true, true) => {
            let ca = Ca::open(&read(&pem)?, &read(&key)?).map_err(|error| {
                CommandError::new(format!("{} cannot be used: {error}", key.display()))
            })?;
            Ok((ca, false))
        }
        (false, false) => {
            let (ca, key_pem) = Ca::create(now_ms).map_err(|error| failed(&error))?;
            files::write_key(&key, &key_pem).map_err(|error| failed(&error))?;
            files::replace(&pem, ca.bundle_pem()).map_err(|error| failed(&error))?;
            Ok((ca, true))
        }
        (true, false) => Err(CommandError::new(format!(
            "{} is there without its key: this machine belongs to a cluster whose CA's key is elsewhere",
            pem.display()
        ))
        .hint("run fleetctl join-token on a machine that has the key")),
        (false, true) => Err(CommandError::new(format!(
            "{} is there without its certificate, {}",
            key.display(),
            pem.display()
        ))
        .hint("put the certificate back; or, if no certificate was ever made with this key, remove it")),
    }
}

/// Makes key and certificate, unless there is a certificate already. A key that is there is used.
fn certify(
    ca: &Ca,
    grant: &Grant,
    [certificate, key]: &[PathBuf; 2],
    now_ms: u64,
) -> Result<bool, CommandError> {
    if certificate.exists() {
        return Ok(false);
    }
    let request = key_and_request(key, &grant.subject)?;
    let pem = ca
        .sign(&request.request_pem, grant, now_ms)
        .map_err(|error| failed(&error))?;
    files::replace(certificate, &pem).map_err(|error| failed(&error))?;
    Ok(true)
}

/// A request with the key in this file; a new one is written there if there is none.
pub(crate) fn key_and_request(
    key: &Path,
    subject: &Subject,
) -> Result<KeyAndRequest, CommandError> {
    if key.exists() {
        return KeyAndRequest::again(&read(key)?, subject)
            .map_err(|error| CommandError::new(format!("{}: {error}", key.display())));
    }
    let request = KeyAndRequest::new(subject).map_err(|error| failed(&error))?;
    files::write_key(key, &request.key_pem).map_err(|error| failed(&error))?;
    Ok(request)
}

/// This machine's id.
pub(crate) fn machine_id(given: Option<String>) -> Result<String, CommandError> {
    let id = match given {
        Some(id) => id,
        None => read(Path::new(MACHINE_ID))?,
    };
    let id = id.trim().to_ascii_lowercase();
    fleet_pki::check_machine_id(&id).map_err(|error| failed(&error))?;
    Ok(id)
}

/// The host name, and the address by which this machine reaches others.
fn known_hosts() -> Vec<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let is_name = fleet_pki::check_dns_name(&name).is_ok() && name != "localhost";
    // Nothing is sent: the kernel is asked for its route. The addresses are for documentation only.
    let route = |from: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let routes = [route("0.0.0.0", "192.0.2.1"), route("::", "2001:db8::1")];
    let addresses = routes.into_iter().flatten().filter(|ip| !ip.is_loopback());
    let name = is_name.then_some(name);
    name.into_iter()
        .chain(addresses.map(|ip| ip.to_string()))
        .collect()
}

pub(crate) fn read(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path)
        .map_err(|error| CommandError::new(format!("failed to read {}: {error}", path.display())))
}

pub(crate) fn failed(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::new(error.to_string())
}

fn show(dir: &Path, file: &str) -> String {
    dir.join(file).display().to_string()
}
