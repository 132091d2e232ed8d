//! From settings to a client of fleetd. Nothing is sent yet.

use std::path::PathBuf;

use fleet_api::client::{Client, Endpoint, first_of_list};

use crate::error::CommandError;
use crate::global::Settings;
use crate::ui::Ui;

/// A client for where the settings point.
pub(crate) fn client(settings: &Settings, ui: &Ui) -> Result<Client, CommandError> {
    check_driver(&settings.driver)?;
    let endpoint = endpoint(settings, ui)?;
    if settings.tunnel.is_some() {
        return Err(
            unable("--tunnel is not supported by this version of fleetctl").hint(
                "forward the socket with ssh -L ./fleet.sock:/run/fleet.sock HOST \
             and use --endpoint=unix://$PWD/fleet.sock",
            ),
        );
    }
    if matches!(&endpoint, Endpoint::Tcp(tcp) if tcp.tls) || settings.tls != Default::default() {
        return Err(unable("TLS is not supported by this version of fleetctl")
            .hint("use fleetd's unix socket, forwarded by ssh -L if it is on another machine"));
    }
    ui.debug(&format!("the endpoint is {endpoint}"));
    let client = Client::new(endpoint);
    Ok(match settings.request_timeout {
        Some(timeout) => client.answer_timeout(timeout),
        None => client,
    })
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
        return Ok(Endpoint::Unix(default_socket(&settings.default_sockets)));
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
