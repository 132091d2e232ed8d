//! From settings to a client of fleetd. Nothing is sent yet.

use std::path::PathBuf;
use std::sync::Arc;

use fleet_api::client::{
    Client, Endpoint, TcpEndpoint, TlsDial, TlsError, TlsFiles, first_of_list,
};

use fleet_pki::files;

use crate::error::CommandError;
use crate::global::Settings;
use crate::ssh::tunnel::{Say, Tunnel, control_path};
use crate::ssh::{Destination, Options};
use crate::ui::{self, Ui};

/// A client for where the settings point.
pub(crate) fn client(settings: &Settings, ssh: &Options, ui: &Ui) -> Result<Client, CommandError> {
    check_driver(&settings.driver)?;
    let endpoint = endpoint(settings, ui)?;
    ui.debug(&format!("the endpoint is {endpoint}"));
    let tunnel = ssh.tunnel.as_ref().map(|through| {
        ui.debug(&format!("the way there is {} at {through:?}", ssh.program));
        let say: Say = Arc::new(ui::say_to_stderr);
        Tunnel::new(ssh.clone(), through.clone(), endpoint.clone(), say)
    });
    let client = over(tunnel, endpoint, settings)?;
    if client.endpoint().is_plaintext() && settings.tls != TlsFiles::default() {
        ui.warning(&format!(
            "{} is asked without TLS, and its files are not used: write https:// for it",
            client.endpoint()
        ));
    }
    Ok(client)
}

/// A client for another address of this kind, without a tunnel: that of a cluster to move on
/// from. `what` is the flag that names it.
pub(crate) fn other(text: &str, what: &str, settings: &Settings) -> Result<Client, CommandError> {
    let endpoint = Endpoint::parse(text).map_err(|error| {
        CommandError::new(format!(
            "invalid argument \"{text}\" for \"{what}\" flag: {error}"
        ))
    })?;
    over(None, endpoint, settings)
}

fn over(
    tunnel: Option<Tunnel>,
    endpoint: Endpoint,
    settings: &Settings,
) -> Result<Client, CommandError> {
    let client = match (tunnel, tls_endpoint(&endpoint)) {
        (None, None) => Client::new(endpoint),
        (Some(tunnel), None) => Client::with_dial(endpoint, Arc::new(tunnel)),
        (tunnel, Some(to)) => {
            let usual = [
                settings.user_directory.clone(),
                Some(PathBuf::from(files::MACHINE_DIRECTORY)),
            ];
            let files = tls_files(&settings.tls, usual.into_iter().flatten());
            let way = match tunnel {
                None => TlsDial::over_tcp(to, &files),
                Some(tunnel) => TlsDial::over(Arc::new(tunnel), to, &files),
            };
            let way = way.map_err(|error| no_tls(&error))?;
            Client::with_dial(endpoint, Arc::new(way))
        }
    };
    let client = match settings.debug {
        true => client.traced(|line| ui::say_to_stderr(&format!("DEBUG {line}"))),
        false => client,
    };
    Ok(match settings.request_timeout {
        Some(timeout) => client.answer_timeout(timeout),
        None => client,
    })
}

/// How other machines are reached.
pub(crate) fn ssh(settings: &Settings) -> Result<Options, CommandError> {
    let tunnel = settings
        .tunnel
        .as_deref()
        .map(Destination::parse)
        .transpose();
    let tunnel = tunnel.map_err(|reason| {
        unable(&format!("failed initializing SSH client: {reason}"))
            .hint("write it as --tunnel=host, --tunnel=host:port or --tunnel=user@host")
    })?;
    let ssh = &settings.ssh;
    let control_path = tunnel
        .as_ref()
        .and_then(|_| control_path(ssh.runtime_dir.as_deref(), &ssh.known_hosts_file));
    Ok(Options {
        program: ssh.program.clone(),
        username: ssh.username.clone(),
        timeout: ssh.timeout,
        strict_host_key_checking: ssh.strict_host_key_checking,
        known_hosts_file: ssh.known_hosts_file.clone(),
        tunnel,
        control_path,
    })
}

/// The files of TLS: if none was named, those that `fleetctl join` or `fleetctl init` has put into the
/// first of these directories where there are any that we can read.
fn tls_files(named: &TlsFiles, usual: impl Iterator<Item = PathBuf>) -> TlsFiles {
    if *named != TlsFiles::default() {
        return named.clone();
    }
    let mut found = usual.map(|dir| TlsFiles {
        ca: Some(dir.join(files::CA)),
        certificate: Some(dir.join(files::USER)),
        key: Some(dir.join(files::USER_KEY)),
    });
    let is_ours = |files: &TlsFiles| {
        let mut all = [&files.ca, &files.certificate, &files.key].into_iter();
        all.all(|file| {
            file.as_ref()
                .is_some_and(|file| std::fs::File::open(file).is_ok())
        })
    };
    found.find(is_ours).unwrap_or_default()
}

fn tls_endpoint(endpoint: &Endpoint) -> Option<&TcpEndpoint> {
    match endpoint {
        Endpoint::Tcp(to) if to.tls => Some(to),
        _ => None,
    }
}

fn no_tls(error: &TlsError) -> CommandError {
    let hint = match error {
        TlsError::Read { .. } | TlsError::NotPem { .. } | TlsError::BadPair { .. } => {
            "TLS takes its files from --ca-file, --cert-file and --key-file, or from \
             FLEETCTL_CA_FILE, FLEETCTL_CERT_FILE and FLEETCTL_KEY_FILE"
        }
        TlsError::Half(..) => "--cert-file and --key-file go together",
        TlsError::NoSystemCas => "name the CA that signed fleetd's certificate: --ca-file=FILE",
        TlsError::BadName(_) | TlsError::Setup(_) => "write it as https://host:port",
    };
    unable(&error.to_string()).hint(hint)
}

fn check_driver(driver: &str) -> Result<(), CommandError> {
    match driver.to_ascii_lowercase().as_str() {
        "api" => Ok(()),
        "etcd" => Err(unable(
            "the etcd driver is gone: it went around every check of the API",
        )
        .hint("drop --driver=etcd and give a fleetd as --endpoint=unix:///run/fleet.sock or http://host:port")),
        _ => Err(unable(&format!("unrecognized driver \"{driver}\""))
            .hint("API is the only driver")),
    }
}

fn endpoint(settings: &Settings, ui: &Ui) -> Result<Endpoint, CommandError> {
    let Some(text) = &settings.endpoint else {
        return Ok(Endpoint::Unix(match settings.tunnel {
            None => default_socket(&settings.default_sockets),
            // It is another machine's, of which we see no file.
            Some(_) => settings
                .default_sockets
                .first()
                .cloned()
                .unwrap_or_default(),
        }));
    };
    let first = first_of_list(text);
    if first != text {
        ui.warning(&format!(
            "multiple endpoints provided but only the first ({first}) is used"
        ));
    }
    Endpoint::parse(text).map_err(|error| {
        unable(&error.to_string())
            .hint("write it as unix:///run/fleet.sock, http://host:port or https://host:port")
    })
}

/// The first that exists; the first one if none does.
fn default_socket(sockets: &[PathBuf]) -> PathBuf {
    let existing = sockets.iter().find(|socket| socket.exists());
    existing.or(sockets.first()).cloned().unwrap_or_default()
}

fn unable(reason: &str) -> CommandError {
    CommandError::new(format!("Unable to initialize client: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_socket_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, present) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&present, "").unwrap();
        let sockets = [absent.clone(), present.clone()];
        assert_eq!(default_socket(&sockets), present);
        assert_eq!(default_socket(&sockets[..1]), absent);
    }

    #[test]
    fn files_that_fleetctl_has_put_down_are_found_and_named_ones_win() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, machine) = (dir.path().join("mine"), dir.path().join("machine"));
        for dir in [&mine, &machine] {
            std::fs::create_dir(dir).unwrap();
        }
        let usual = || [mine.clone(), machine.clone()].into_iter();
        let none = TlsFiles::default();
        let put = |dir: &std::path::Path, file: &str| std::fs::write(dir.join(file), "").unwrap();
        assert_eq!(tls_files(&none, usual()), none);
        for file in [files::CA, files::USER, files::USER_KEY] {
            put(&machine, file);
        }
        // Half of them is none.
        put(&mine, files::USER);
        let found = tls_files(&none, usual());
        assert_eq!(found.certificate, Some(machine.join(files::USER)));
        put(&mine, files::USER_KEY);
        put(&mine, files::CA);
        let found = tls_files(&none, usual());
        assert_eq!(found.ca, Some(mine.join(files::CA)));
        let named = TlsFiles {
            ca: Some("/ca".into()),
            ..none
        };
        assert_eq!(tls_files(&named, usual()), named);
    }

    #[test]
    fn drivers() {
        assert!(check_driver("API").is_ok());
        assert!(check_driver("api").is_ok());
        let message = |driver| check_driver(driver).unwrap_err().message;
        assert_eq!(
            message("foo"),
            "Unable to initialize client: unrecognized driver \"foo\""
        );
        assert!(message("etcd").contains("the etcd driver is gone"));
    }
}
