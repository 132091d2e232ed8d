//! Why a command gave up: what it says, what can be done, and with which status it ends.

use std::io::ErrorKind;

use fleet_api::client;

use crate::exit::Exit;

/// Why a command gave up.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// As the original words it, where it does. Empty: all has been said already.
    pub(crate) message: String,
    /// Cures.
    pub(crate) hints: Vec<String>,
    pub(crate) exit: Exit,
}

impl CommandError {
    pub(crate) fn new(message: impl Into<String>) -> CommandError {
        CommandError {
            message: message.into(),
            hints: Vec::new(),
            exit: Exit::Failure,
        }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> CommandError {
        CommandError {
            exit: Exit::Usage,
            ..CommandError::new(message)
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> CommandError {
        self.hints.push(hint.into());
        self
    }

    /// A failed request: `{what}: {the error as the original shows it}`.
    pub(crate) fn api(what: &str, error: &client::Error) -> CommandError {
        let what = match error {
            // It is not about what was asked for.
            client::Error::NoWay(_) => "",
            _ => what,
        };
        let text = error.original_form();
        let message = match what {
            "" => text,
            what => format!("{what}: {text}"),
        };
        CommandError {
            hints: cures(error),
            ..CommandError::new(message)
        }
    }
}

/// What can be done about a failed request.
pub(crate) fn cures(error: &client::Error) -> Vec<String> {
    if let Some(why) = error.store_trouble() {
        return vec![format!("fleetd cannot reach its store: {why}")];
    }
    let cure = match error {
        client::Error::Connect {
            endpoint, source, ..
        } => match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
                "no fleetd listens at {endpoint}: start it (systemctl start fleet), \
                 or say where one is with --endpoint or FLEETCTL_ENDPOINT"
            ),
            ErrorKind::PermissionDenied => format!(
                "{endpoint} may be used by root and the group fleet: join that group \
                 (usermod -aG fleet USER, then log in anew) or run fleetctl as root"
            ),
            _ => format!("is {endpoint} the right place? Say another with --endpoint"),
        },
        client::Error::Timeout { .. } => {
            "the answer takes too long; --request-timeout=SECONDS waits longer".to_owned()
        }
        client::Error::NoWay(no_way) => return no_way.cures.clone(),
        client::Error::Answer {
            code, request_id, ..
        } if *code >= 500 && !request_id.is_empty() => {
            format!("fleetd's log has more about request {request_id}")
        }
        client::Error::Protocol { endpoint, .. } => {
            format!("something other than fleetd may be listening at {endpoint}")
        }
        _ => return Vec::new(),
    };
    vec![cure]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cure_of(kind: ErrorKind) -> String {
        let error = client::Error::Connect {
            endpoint: "unix:///run/fleet.sock".into(),
            original: String::new(),
            source: kind.into(),
        };
        cures(&error).concat()
    }

    #[test]
    fn a_socket_that_cannot_be_used_has_its_cure() {
        let nobody = "no fleetd listens at unix:///run/fleet.sock: start it";
        assert!(cure_of(ErrorKind::NotFound).starts_with(nobody));
        assert!(cure_of(ErrorKind::ConnectionRefused).starts_with(nobody));
        assert!(cure_of(ErrorKind::PermissionDenied).contains("the group fleet"));
    }

    #[test]
    fn the_log_is_named_for_what_is_fleetds_fault_only() {
        let answer = |code| client::Error::Answer {
            code,
            message: "no".into(),
            request_id: "r1".into(),
            body: String::new(),
        };
        assert_eq!(
            cures(&answer(500)),
            ["fleetd's log has more about request r1"]
        );
        assert!(cures(&answer(404)).is_empty());
    }
}
