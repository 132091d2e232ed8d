//! The way to other machines: the user's own `ssh`.
//!
//! fleetctl speaks no SSH itself. It runs `ssh`, so `~/.ssh/config`, agents, hardware keys, jump
//! hosts and prompts work as the user knows them. What the original's flags ask for is said with
//! `-o`, which wins over the configuration files.
//!
//! - [`arguments`]: options → argument vectors; pure.
//! - [`known_hosts`]: where keys of known hosts are kept.
//! - [`lookup`]: which machine a machine's or unit's name means; pure.
//! - [`run`]: commands and shells on other machines, at the user's terminal.
//! - [`tunnel`]: HTTP to fleetd through an ssh of our own, one for a whole command.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) mod arguments;
mod child;
mod failure;
pub(crate) mod known_hosts;
pub(crate) mod lookup;
pub(crate) mod run;
pub(crate) mod tunnel;

/// Names a program to run in the place of `ssh`.
pub(crate) const PROGRAM_VARIABLE: &str = "FLEETCTL_SSH";

/// How connections are made: the global flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// `ssh`, or what [`PROGRAM_VARIABLE`] names.
    pub(crate) program: String,
    /// `--ssh-username`; empty: as ssh itself decides.
    pub(crate) username: String,
    /// `--ssh-timeout`; zero: as long as the system waits.
    pub(crate) timeout: Duration,
    /// `--strict-host-key-checking`: ask about unknown keys and refuse changed ones. Otherwise
    /// all are accepted and none is stored.
    pub(crate) strict_host_key_checking: bool,
    /// `--known-hosts-file`, with its `~` expanded.
    pub(crate) known_hosts_file: PathBuf,
    /// `--tunnel`: all connections go through this host.
    pub(crate) tunnel: Option<Destination>,
    /// A socket of the tunnel's own ssh, on which other connections may share it.
    pub(crate) control_path: Option<PathBuf>,
}

/// `[user@]host[:port]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Destination {
    /// None: that of [`Options::username`].
    pub(crate) user: Option<String>,
    /// Name or address; IPv6 without brackets.
    pub(crate) host: String,
    /// None: as ssh itself decides, mostly 22.
    pub(crate) port: Option<u16>,
}

impl Destination {
    /// A host without more.
    pub(crate) fn host(host: &str) -> Destination {
        Destination {
            user: None,
            host: host.to_owned(),
            port: None,
        }
    }

    /// Reads `[user@]host[:port]`. An IPv6 address needs brackets only in front of a port.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Destination, String> {
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
                None => return Err(format!("\"{text}\" has a [ without its ]")),
            },
            None => match rest.split_once(':') {
                Some((_, port)) if port.contains(':') => (rest, None),
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let is_odd = |part: &str| {
            part.is_empty()
                || part.starts_with('-')
                || part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if is_odd(host) || user.is_some_and(is_odd) {
            return Err(format!(
                "\"{text}\" names no host: write it as host or host:port"
            ));
        }
        let port = match port {
            None => None,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(format!("invalid port \"{port}\" in \"{text}\"")),
            },
        };
        Ok(Destination {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let parse = |text| {
            let d = Destination::parse(text).unwrap();
            (d.user.unwrap_or_default(), d.host, d.port)
        };
        for (text, user, host, port) in [
            ("h", "", "h", None),
            ("h:2222", "", "h", Some(2222)),
            ("me@h.example:22", "me", "h.example", Some(22)),
            ("a@b@h", "a@b", "h", None),
            ("fd00::1", "", "fd00::1", None),
            ("[fd00::1]", "", "fd00::1", None),
            ("me@[fd00::1]:2222", "me", "fd00::1", Some(2222)),
        ] {
            assert_eq!(
                parse(text),
                (user.to_owned(), host.to_owned(), port),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_destination() {
        for (text, message) in [
            ("", "\"\" names no host: write it as host or host:port"),
            (
                "-oProxyCommand=x",
                "\"-oProxyCommand=x\" names no host: write it as host or host:port",
            ),
            (
                "h x",
                "\"h x\" names no host: write it as host or host:port",
            ),
            ("@h", "\"@h\" names no host: write it as host or host:port"),
            ("h:", "invalid port \"\" in \"h:\""),
            ("h:0", "invalid port \"0\" in \"h:0\""),
            ("[fd00::1", "\"[fd00::1\" has a [ without its ]"),
            ("[fd00::1]22x", "invalid port \"22x\" in \"[fd00::1]22x\""),
        ] {
            assert_eq!(Destination::parse(text).unwrap_err(), message);
        }
    }
}
