//! What a failed ssh means and what can be done about it.

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use fleet_api::client::NoWay;

use super::child::Ended;

/// ssh's own status when the connection fails.
pub(crate) const SSH_FAILED: i32 = 255;

/// A shell's status for a command that it does not find.
const NOT_FOUND: i32 = 127;

/// How far a tunnel had come when it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reached {
    /// Not logged in yet.
    Nothing,
    /// Logged in; no byte of an answer yet.
    Host,
    /// fleetd has answered.
    Fleetd,
}

/// A tunnel that ended before its time, as its reader's error; None if it ended as it should.
/// Only what happens before the first byte is [`NoWay`]: after it, asking again may help.
/// `through` is a destination for people, `has_far_side`: fd-forward runs there.
pub(super) fn of_tunnel(
    through: &str,
    has_far_side: bool,
    reached: Reached,
    ended: &Ended,
) -> Option<io::Error> {
    let words = match ended.last_words.as_str() {
        "" => describe(ended.status),
        words => words.to_owned(),
    };
    let status = ended.status.code();
    let no_way = match reached {
        Reached::Fleetd if ended.status.success() => return None,
        Reached::Fleetd => {
            let message = format!("the tunnel through {through} broke: {words}");
            return Some(io::Error::new(ErrorKind::ConnectionReset, message));
        }
        Reached::Nothing => NoWay {
            message: initializing(&words),
            cures: cures(through, &words),
        },
        Reached::Host if has_far_side && status == Some(NOT_FOUND) => NoWay {
            message: initializing(&format!("Process exited with status {NOT_FOUND}: {words}")),
            cures: vec![format!(
                "install fleetctl on {through} where a shell without login finds it, \
                 such as /usr/local/bin"
            )],
        },
        Reached::Host => NoWay {
            message: format!("the tunnel through {through} reaches no fleetd: {words}"),
            cures: vec![format!(
                "is fleetd running there (systemctl status fleet)? \
                 --endpoint names its address as {through} sees it"
            )],
        },
    };
    Some(no_way.into())
}

/// A tunnel whose connection does not come up.
pub(super) fn too_slow(through: &str) -> NoWay {
    NoWay {
        message: initializing("timed out while initiating SSH connection"),
        cures: cures(through, "timed out"),
    }
}

/// ssh could not be run at all.
pub(crate) fn of_start(program: &str, error: &io::Error) -> NoWay {
    NoWay {
        message: initializing(&format!("failed to run {program}: {error}")),
        cures: vec![format!(
            "install ssh (Debian: openssh-client), or name it in {}",
            super::PROGRAM_VARIABLE
        )],
    }
}

/// In the original's words.
pub(super) fn initializing(reason: &str) -> String {
    format!("Unable to initialize client: failed initializing SSH client: {reason}")
}

/// What can be done, by what ssh said.
fn cures(through: &str, words: &str) -> Vec<String> {
    let has = |part: &str| words.contains(part);
    let cure = if has("Permission denied") || has("Too many authentication failures") {
        format!(
            "{through} takes none of your keys: ssh-add one that it knows, \
             or log in as another user with --ssh-username"
        )
    } else if has("Host key verification failed") {
        "say yes to a key that is right (at a terminal), or put it into the file of \
         --known-hosts-file with ssh-keyscan; ssh-keygen -R forgets one that has changed"
            .to_owned()
    } else if has("Could not resolve") || has("Name or service not known") {
        format!("is {through} the right name? --tunnel takes host or host:port")
    } else if has("timed out") || has("No route") || has("refused") || has("unreachable") {
        format!(
            "is {through} up, and is its sshd at this port (--tunnel=host:port)? \
             --ssh-timeout=SECONDS waits longer"
        )
    } else {
        return Vec::new();
    };
    vec![cure]
}

/// An end without words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("Process exited with status {code}"),
        (None, Some(signal)) => format!("Process was ended by signal {signal}"),
        (None, None) => "Process ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, last_words: &str) -> Ended {
        Ended {
            status: ExitStatus::from_raw(code << 8),
            last_words: last_words.to_owned(),
        }
    }

    #[track_caller]
    fn check(reached: Reached, ended: &Ended, message: &str, cure: &str) {
        let error = of_tunnel("core@gate", true, reached, ended).unwrap();
        assert_eq!(error.to_string(), message);
        let no_way = error.get_ref().unwrap().downcast_ref::<NoWay>().cloned();
        let cures = no_way
            .map_or_else(Vec::new, |no_way| no_way.cures)
            .join("\n");
        assert!(cures.contains(cure), "{cures}");
    }

    #[test]
    fn each_failure_names_host_and_cure() {
        check(
            Reached::Nothing,
            &ended(255, "ssh: connect to host gate port 22: No route to host"),
            "Unable to initialize client: failed initializing SSH client: \
             ssh: connect to host gate port 22: No route to host",
            "is core@gate up",
        );
        check(
            Reached::Nothing,
            &ended(255, "core@gate: Permission denied (publickey)."),
            "Unable to initialize client: failed initializing SSH client: \
             core@gate: Permission denied (publickey).",
            "ssh-add",
        );
        check(
            Reached::Nothing,
            &ended(255, ""),
            "Unable to initialize client: failed initializing SSH client: \
             Process exited with status 255",
            "",
        );
        check(
            Reached::Host,
            &ended(127, "bash: line 1: fleetctl: command not found"),
            "Unable to initialize client: failed initializing SSH client: \
             Process exited with status 127: bash: line 1: fleetctl: command not found",
            "install fleetctl on core@gate",
        );
        check(
            Reached::Host,
            &ended(
                0,
                "Failed dialing remote address: dial unix /run/fleet.sock: connect: no such file or directory",
            ),
            "the tunnel through core@gate reaches no fleetd: Failed dialing remote address: \
             dial unix /run/fleet.sock: connect: no such file or directory",
            "systemctl status fleet",
        );
        check(
            Reached::Fleetd,
            &ended(255, "Connection to gate closed by remote host."),
            "the tunnel through core@gate broke: Connection to gate closed by remote host.",
            "",
        );
    }

    #[test]
    fn an_orderly_end_is_none_of_them() {
        assert!(of_tunnel("gate", true, Reached::Fleetd, &ended(0, "")).is_none());
    }

    #[test]
    fn a_signal_is_named() {
        let killed = Ended {
            status: ExitStatus::from_raw(9),
            last_words: String::new(),
        };
        let error = of_tunnel("gate", false, Reached::Fleetd, &killed).unwrap();
        assert_eq!(
            error.to_string(),
            "the tunnel through gate broke: Process was ended by signal 9"
        );
    }
}
