//! Global flags as typed, and what they mean together with the environment.
//!
//! The command line wins over `FLEETCTL_*`, which wins over the defaults. An environment value
//! that cannot be read is ignored, as in the original.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fleet_api::client::TlsFiles;
use fleet_api::registry::DEFAULT_PREFIX;

use crate::ssh::PROGRAM_VARIABLE;
use crate::ssh::known_hosts::expand_tilde;

/// Where fleetd listens unless the user says otherwise; the first that exists is taken.
const DEFAULT_SOCKETS: [&str; 2] = ["/var/run/fleet.sock", "/run/fleet.sock"];

/// The original's default of `--ssh-timeout`, in seconds.
const SSH_TIMEOUT: f64 = 10.0;

/// The original's default of `--ssh-username`.
const SSH_USERNAME: &str = "core";

/// The original's default of `--known-hosts-file`.
const KNOWN_HOSTS_FILE: &str = "~/.fleetctl/known_hosts";

/// Longest timeout that a flag may ask for; more is taken for this.
const MAX_TIMEOUT_SECONDS: f64 = 86_400.0;

/// Flags of all commands, as typed: None where the user said nothing.
#[derive(Args, Debug, Default, Clone)]
#[command(next_help_heading = "Global flags")]
pub(crate) struct GlobalArgs {
    /// Where fleetd listens: unix:///path, http://host:port[/base] or https://…
    /// [default: unix:///var/run/fleet.sock, or $XDG_RUNTIME_DIR/fleet.sock]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,

    /// How to reach the cluster; API is the only one
    #[arg(long, global = true, value_name = "DRIVER")]
    driver: Option<String>,

    /// Reach the endpoint, and all machines, through SSH on this host; it runs your own ssh, so
    /// ~/.ssh/config, agents and jump hosts work, and needs fleetctl there for a unix endpoint
    #[arg(long, global = true, value_name = "[USER@]HOST[:PORT]")]
    tunnel: Option<String>,

    /// User of SSH connections; empty: whom ~/.ssh/config says [default: core]
    #[arg(long, global = true, value_name = "USER")]
    ssh_username: Option<String>,

    /// Seconds in which an SSH host must answer; 0: as long as the system waits [default: 10]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    ssh_timeout: Option<f64>,

    /// Ask about unknown SSH host keys and refuse changed ones; false: accept all, store none
    /// [default: true]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = go_bool)]
    strict_host_key_checking: Option<bool>,

    /// Where SSH host keys are kept; ~ and ~user are expanded [default: ~/.fleetctl/known_hosts]
    #[arg(long, global = true, value_name = "FILE")]
    known_hosts_file: Option<String>,

    /// Seconds in which each answer must come [default: 30]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    request_timeout: Option<f64>,

    /// Certificates of the CAs by which fleetd's is verified, over https://
    /// [default: ca.pem beside our certificate, else those that this computer trusts]
    #[arg(long, global = true, value_name = "FILE", alias = "etcd-cafile")]
    ca_file: Option<String>,

    /// Our certificate, for a fleetd that wants one [default: user.pem in ~/.config/fleet or
    /// /etc/fleet/pki, where fleetctl join and fleetctl init put it]
    #[arg(long, global = true, value_name = "FILE", alias = "etcd-certfile")]
    cert_file: Option<String>,

    /// Our certificate's key
    #[arg(long, global = true, value_name = "FILE", alias = "etcd-keyfile")]
    key_file: Option<String>,

    /// Say on stderr what is asked of fleetd
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = go_bool)]
    debug: Option<bool>,

    /// Only for import --etcd-v2; the original's etcd driver is gone
    #[arg(long, global = true, hide = true)]
    etcd_key_prefix: Option<String>,

    /// Accepted for the original's sake; the API is the only driver
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = go_bool)]
    experimental_api: Option<bool>,
}

/// What the global flags and the environment mean.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// As given; None: one of `default_sockets`.
    pub(crate) endpoint: Option<String>,
    /// Where fleetd may listen by default, best first.
    pub(crate) default_sockets: Vec<PathBuf>,
    pub(crate) driver: String,
    pub(crate) tunnel: Option<String>,
    pub(crate) ssh: Ssh,
    /// Bound of each answer, if the user gave one.
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) tls: TlsFiles,
    /// Where a person's certificate is kept.
    pub(crate) user_directory: Option<PathBuf>,
    /// What an old cluster in etcd is read with.
    pub(crate) etcd: Etcd,
    pub(crate) debug: bool,
    /// No colour, wherever the output goes.
    pub(crate) no_color: bool,
}

/// How SSH connections are made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ssh {
    pub(crate) username: String,
    pub(crate) timeout: Duration,
    pub(crate) strict_host_key_checking: bool,
    pub(crate) known_hosts_file: PathBuf,
    /// `ssh`, unless another program shall be run in its place.
    pub(crate) program: String,
    /// The user's own directory for sockets.
    pub(crate) runtime_dir: Option<PathBuf>,
}

/// How an original cluster's etcd is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Etcd {
    /// Of all its keys.
    pub(crate) key_prefix: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Settings {
    /// Flags over `FLEETCTL_*` over defaults. `env` looks up a variable.
    pub(crate) fn new(args: GlobalArgs, env: &dyn Fn(&str) -> Option<String>) -> Settings {
        let text = |flag: Option<String>, names: &[&str]| {
            flag.or_else(|| names.iter().find_map(|name| env(name)))
                .filter(|text| !text.is_empty())
        };
        let number = |flag: Option<f64>, name: &str| {
            flag.or_else(|| env(name).and_then(|text| seconds(&text).ok()))
        };
        let boolean = |flag: Option<bool>, name: &str| {
            flag.or_else(|| env(name).and_then(|text| go_bool(&text).ok()))
        };
        let home = env("HOME").unwrap_or_default();
        let file = |flag: Option<String>, names: &[&str]| {
            text(flag, names).map(|path| expand_home(&path, &home))
        };
        let known_hosts = text(args.known_hosts_file, &["FLEETCTL_KNOWN_HOSTS_FILE"])
            .unwrap_or_else(|| KNOWN_HOSTS_FILE.to_owned());
        Settings {
            endpoint: text(args.endpoint, &["FLEETCTL_ENDPOINT"]),
            default_sockets: default_sockets(env("XDG_RUNTIME_DIR")),
            driver: text(args.driver, &["FLEETCTL_DRIVER"]).unwrap_or_else(|| "API".to_owned()),
            tunnel: text(args.tunnel, &["FLEETCTL_TUNNEL"]),
            ssh: Ssh {
                // Said to be empty: whom ~/.ssh/config says.
                username: args
                    .ssh_username
                    .or_else(|| env("FLEETCTL_SSH_USERNAME"))
                    .unwrap_or_else(|| SSH_USERNAME.to_owned()),
                timeout: Duration::from_secs_f64(
                    number(args.ssh_timeout, "FLEETCTL_SSH_TIMEOUT").unwrap_or(SSH_TIMEOUT),
                ),
                strict_host_key_checking: boolean(
                    args.strict_host_key_checking,
                    "FLEETCTL_STRICT_HOST_KEY_CHECKING",
                )
                .unwrap_or(true),
                known_hosts_file: expand_tilde(&known_hosts, &home),
                program: text(None, &[PROGRAM_VARIABLE]).unwrap_or_else(|| "ssh".to_owned()),
                runtime_dir: env("XDG_RUNTIME_DIR").map(PathBuf::from),
            },
            request_timeout: number(args.request_timeout, "FLEETCTL_REQUEST_TIMEOUT")
                .filter(|seconds| *seconds > 0.0)
                .map(Duration::from_secs_f64),
            tls: TlsFiles {
                ca: file(args.ca_file, &["FLEETCTL_CA_FILE", "FLEETCTL_ETCD_CAFILE"]),
                certificate: file(
                    args.cert_file,
                    &["FLEETCTL_CERT_FILE", "FLEETCTL_ETCD_CERTFILE"],
                ),
                key: file(
                    args.key_file,
                    &["FLEETCTL_KEY_FILE", "FLEETCTL_ETCD_KEYFILE"],
                ),
            },
            user_directory: env("XDG_CONFIG_HOME")
                .filter(|dir| Path::new(dir).is_absolute())
                .map(PathBuf::from)
                .or_else(|| (!home.is_empty()).then(|| Path::new(&home).join(".config")))
                .map(|dir| dir.join("fleet")),
            etcd: Etcd {
                key_prefix: text(args.etcd_key_prefix, &["FLEETCTL_ETCD_KEY_PREFIX"])
                    .unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
                username: text(None, &["FLEETCTL_ETCD_USERNAME"]),
                password: text(None, &["FLEETCTL_ETCD_PASSWORD"]),
            },
            debug: boolean(args.debug, "FLEETCTL_DEBUG").unwrap_or(false),
            no_color: env("NO_COLOR").is_some_and(|value| !value.is_empty()),
        }
    }
}

fn default_sockets(runtime_dir: Option<String>) -> Vec<PathBuf> {
    let mut sockets: Vec<PathBuf> = DEFAULT_SOCKETS.iter().map(PathBuf::from).collect();
    if let Some(dir) = runtime_dir.filter(|dir| Path::new(dir).is_absolute()) {
        sockets.push(Path::new(&dir).join("fleet.sock"));
    }
    sockets
}

/// `~` and `~/…`; `~user` stays as it is, since a directory may have such a name.
fn expand_home(path: &str, home: &str) -> PathBuf {
    match path.strip_prefix('~') {
        Some(rest) if !home.is_empty() && (rest.is_empty() || rest.starts_with('/')) => {
            PathBuf::from(format!("{home}{rest}"))
        }
        _ => PathBuf::from(path),
    }
}

/// Go's words for true and false.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => {
            Ok(seconds.min(MAX_TIMEOUT_SECONDS))
        }
        _ => Err("not a number of seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: GlobalArgs, env: &[(&str, &str)]) -> Settings {
        Settings::new(args, &|name| {
            env.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flags_win_over_the_environment() {
        let args = GlobalArgs {
            endpoint: Some("http://a:1".into()),
            ..GlobalArgs::default()
        };
        let env = [
            ("FLEETCTL_ENDPOINT", "http://b:1"),
            ("FLEETCTL_SSH_USERNAME", "me"),
            ("FLEETCTL_ETCD_CAFILE", "~/ca"),
            ("HOME", "/home/me"),
        ];
        let settings = settings(args, &env);
        assert_eq!(settings.endpoint.as_deref(), Some("http://a:1"));
        assert_eq!(settings.ssh.username, "me");
        assert_eq!(settings.tls.ca, Some("/home/me/ca".into()));
        assert_eq!(
            settings.ssh.known_hosts_file,
            Path::new("/home/me/.fleetctl/known_hosts")
        );
    }

    #[test]
    fn every_variable_has_its_effect() {
        let without = settings(GlobalArgs::default(), &[]);
        for (name, value) in [
            ("FLEETCTL_ENDPOINT", "http://h"),
            ("FLEETCTL_DRIVER", "etcd"),
            ("FLEETCTL_TUNNEL", "h"),
            ("FLEETCTL_SSH_USERNAME", "me"),
            ("FLEETCTL_SSH_TIMEOUT", "1.5"),
            ("FLEETCTL_STRICT_HOST_KEY_CHECKING", "false"),
            ("FLEETCTL_KNOWN_HOSTS_FILE", "/k"),
            ("FLEETCTL_REQUEST_TIMEOUT", "0.5"),
            ("FLEETCTL_CA_FILE", "/ca"),
            ("FLEETCTL_CERT_FILE", "/cert"),
            ("FLEETCTL_KEY_FILE", "/key"),
            ("FLEETCTL_ETCD_CAFILE", "/ca"),
            ("FLEETCTL_ETCD_CERTFILE", "/cert"),
            ("FLEETCTL_ETCD_KEYFILE", "/key"),
            ("FLEETCTL_ETCD_KEY_PREFIX", "/k"),
            ("FLEETCTL_DEBUG", "true"),
            ("NO_COLOR", "1"),
        ] {
            assert_ne!(
                settings(GlobalArgs::default(), &[(name, value)]),
                without,
                "{name}"
            );
        }
        // It had to do with the etcd driver.
        let gone = [("FLEETCTL_EXPERIMENTAL_API", "false")];
        assert_eq!(settings(GlobalArgs::default(), &gone), without);
    }

    #[test]
    fn environment_values_that_cannot_be_read_are_ignored() {
        let env = [
            ("FLEETCTL_REQUEST_TIMEOUT", "soon"),
            ("FLEETCTL_SSH_TIMEOUT", "-1"),
            ("FLEETCTL_STRICT_HOST_KEY_CHECKING", "maybe"),
            ("FLEETCTL_DEBUG", "T"),
        ];
        let settings = settings(GlobalArgs::default(), &env);
        assert_eq!(settings.request_timeout, None);
        assert_eq!(settings.ssh.timeout, Duration::from_secs(10));
        assert!(settings.ssh.strict_host_key_checking);
        assert!(settings.debug);
    }

    #[test]
    fn the_users_own_socket_is_tried_last() {
        let sockets = settings(GlobalArgs::default(), &[("XDG_RUNTIME_DIR", "/run/user/7")]);
        assert_eq!(
            sockets.default_sockets,
            [
                Path::new("/var/run/fleet.sock"),
                Path::new("/run/fleet.sock"),
                Path::new("/run/user/7/fleet.sock")
            ]
        );
    }
}
