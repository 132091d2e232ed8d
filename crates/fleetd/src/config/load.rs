//! Where the configuration comes from: file < environment < command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, StoreKind, ini, values};

/// Read when no file is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/fleet/fleet.conf";

/// A configuration file is a page of text; more is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What stops fleetd from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("unable to use config file {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A line of the file is no setting.
    #[error("unable to use config file {path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Which line.
        source: ini::SyntaxError,
    },
    /// A value without which fleetd would do something else than was meant.
    #[error("{origin}: {key}={value:?}: {why}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it, and the cure.
        why: String,
    },
    /// The command line.
    #[error("flag provided but not defined: -{0}")]
    UnknownFlag(String),
    /// The command line.
    #[error("fleetd takes no arguments. Did you mean to invoke fleetctl instead?")]
    Argument,
    /// `systemd_user` without the variable that says where the user's systemd is.
    #[error(
        "systemd_user needs XDG_RUNTIME_DIR in the environment: it names the directory of the user's systemd"
    )]
    NoRuntimeDirectory,
}

/// Where a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Not set anywhere.
    Default,
    /// In the file.
    File(PathBuf),
    /// In this variable.
    Environment(String),
    /// On the command line.
    Flag,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("command line"),
        }
    }
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Serve.
    Run,
    /// Print the configuration and where each value comes from.
    CheckConfig,
    /// Print the version.
    Version,
    /// Print the usage.
    Help,
}

/// A configuration with what is worth saying about it.
#[derive(Debug)]
pub struct Loaded {
    /// The result.
    pub config: Config,
    /// What to do with it.
    pub action: Action,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What is odd: unknown keys, values that were passed over.
    pub warnings: Vec<String>,
    /// The value and origin of each key that was set.
    pub origins: BTreeMap<&'static str, (String, Origin)>,
}

/// How a value becomes part of the configuration.
type Apply = fn(&mut Config, &str) -> Result<(), Bad>;

/// A value that does not fit.
enum Bad {
    /// Passed over with a warning, as the original passed over numbers and bools in silence.
    Ignore(&'static str),
    /// Not to be guessed.
    Fatal(&'static str),
}

/// Each key, in the order of the documentation, with one line of help.
pub const KEYS: &[(&str, &str)] = &[
    ("verbosity", "more than 0: debug logs"),
    (
        "store",
        "auto, etcd or embedded; auto: etcd when etcd_servers is set, else embedded",
    ),
    ("etcd_servers", "comma list of etcd URLs"),
    ("etcd_username", "user of etcd"),
    ("etcd_password", "its password"),
    ("etcd_keyfile", "client key for etcd (PEM)"),
    ("etcd_certfile", "client certificate for etcd (PEM)"),
    ("etcd_cafile", "CA of etcd's certificate (PEM)"),
    ("etcd_key_prefix", "prefix of all keys in etcd"),
    (
        "etcd_request_timeout",
        "bound of one request to etcd, in seconds",
    ),
    (
        "engine_reconcile_interval",
        "slow safety tick of the engine, in seconds",
    ),
    ("public_ip", "address to publish; empty: found out"),
    ("metadata", "k=v,k=v of this machine"),
    (
        "agent_ttl",
        "how long presence outlives the last sign of life (3s)",
    ),
    ("lost_after", "time from suspect to lost (1s)"),
    ("units_directory", "where unit files are written"),
    ("run_directory", "what ends with the boot"),
    ("state_directory", "what outlives the boot"),
    ("api_socket", "the API's socket, when systemd passes none"),
    (
        "api_listen",
        "comma list of addresses to serve the API on (127.0.0.1:49153)",
    ),
    ("api_insecure", "serve plaintext off loopback, too"),
    ("systemd_user", "drive the user's own systemd"),
    ("token_limit", "page size of v1 listings"),
    ("disable_engine", "never become leader"),
    (
        "disable_watches",
        "accepted for the original's sake; watches are always on",
    ),
    ("disable_safety_ticks", "no slow safety ticks (for tests)"),
    (
        "enable_grpc",
        "accepted for the original's sake; without effect",
    ),
    ("verify_units", "no longer supported"),
    ("authorized_keys_file", "no longer supported"),
];

fn apply_of(key: &str) -> Option<Apply> {
    const NUMBER: &str = "not a number; the default is used";
    const BOOL: &str = "neither true nor false; the default is used";
    const SECONDS: &str = "not a number of seconds; the default is used";
    const DURATION: &str = "not a duration: write 500ms, 30s or 1m30s";
    macro_rules! set {
        (|$config:ident, $value:ident| $set:expr) => {
            |$config: &mut Config, $value: &str| -> Result<(), Bad> {
                $set;
                Ok(())
            }
        };
    }
    fn path(value: &str) -> Option<PathBuf> {
        (!value.is_empty()).then(|| PathBuf::from(value))
    }
    fn boolean(value: &str) -> Result<bool, Bad> {
        values::go_bool(value).ok_or(Bad::Ignore(BOOL))
    }
    fn duration(value: &str) -> Result<Duration, Bad> {
        values::go_duration(value)
            .filter(|d| !d.is_zero())
            .ok_or(Bad::Fatal(DURATION))
    }
    fn seconds(value: &str) -> Result<Duration, Bad> {
        values::float_seconds(value)
            .filter(|d| !d.is_zero())
            .ok_or(Bad::Ignore(SECONDS))
    }
    fn directory(value: &str) -> Result<PathBuf, Bad> {
        path(value)
            .filter(|p| p.is_absolute())
            .ok_or(Bad::Fatal("not an absolute path"))
    }
    Some(match key {
        "verbosity" => {
            set!(|c, v| c.verbosity = v.parse().map_err(|_| Bad::Ignore(NUMBER))?)
        }
        "store" => set!(|c, v| c.store = match v {
            "auto" | "" => StoreKind::Auto,
            "etcd" => StoreKind::Etcd,
            "embedded" => StoreKind::Embedded,
            _ => return Err(Bad::Fatal("no such store: write auto, etcd or embedded")),
        }),
        "etcd_servers" => set!(|c, v| c.etcd_servers = values::list(v)),
        "etcd_username" => set!(|c, v| c.etcd_username = v.to_owned()),
        "etcd_password" => set!(|c, v| c.etcd_password = v.to_owned()),
        "etcd_keyfile" => set!(|c, v| c.etcd_keyfile = path(v)),
        "etcd_certfile" => set!(|c, v| c.etcd_certfile = path(v)),
        "etcd_cafile" => set!(|c, v| c.etcd_cafile = path(v)),
        "etcd_key_prefix" => set!(|c, v| c.etcd_key_prefix = format!("/{}/", v.trim_matches('/'))),
        "etcd_request_timeout" => set!(|c, v| c.etcd_request_timeout = seconds(v)?),
        "engine_reconcile_interval" => set!(|c, v| c.engine_reconcile_interval = seconds(v)?),
        "public_ip" => set!(|c, v| c.public_ip = (!v.is_empty()).then(|| v.to_owned())),
        "metadata" => set!(|c, v| c.metadata = values::metadata(v)),
        "agent_ttl" => set!(|c, v| c.agent_ttl = duration(v)?),
        "lost_after" => set!(|c, v| c.lost_after = duration(v)?),
        "units_directory" => set!(|c, v| c.units_directory = directory(v)?),
        "run_directory" => set!(|c, v| c.run_directory = directory(v)?),
        "state_directory" => set!(|c, v| c.state_directory = directory(v)?),
        "api_socket" => set!(|c, v| c.api_socket = directory(v)?),
        "api_listen" => set!(|c, v| c.api_listen = values::list(v)),
        "api_insecure" => set!(|c, v| c.api_insecure = boolean(v)?),
        "systemd_user" => set!(|c, v| c.systemd_user = boolean(v)?),
        "token_limit" => set!(|c, v| c.token_limit = match v.parse::<u16>() {
            Ok(0) =>
                return Err(Bad::Ignore(
                    "a page of none never ends; the default is used"
                )),
            Ok(limit) => limit,
            Err(_) =>
                return Err(Bad::Ignore(
                    "not a number from 1 to 65535; the default is used"
                )),
        }),
        "disable_engine" => set!(|c, v| c.disable_engine = boolean(v)?),
        "disable_safety_ticks" => set!(|c, v| c.disable_safety_ticks = boolean(v)?),
        "disable_watches" | "enable_grpc" => |_, value| boolean(value).map(|_| ()),
        "verify_units" | "authorized_keys_file" => |_, _| Ok(()),
        _ => return None,
    })
}

/// Reads the command line, the file and the environment.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Error> {
    let environment: BTreeMap<String, String> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let line = command_line(args)?;
    let file = match &line.file {
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
    };
    let mut settings = Vec::new();
    let mut warnings = Vec::new();
    if let (Some(path), Action::Run | Action::CheckConfig) = (&file, &line.action) {
        for (key, value) in read_file(path)? {
            settings.push((key, value, Origin::File(path.clone())));
        }
    }
    for (name, value) in &environment {
        if let Some(key) = name.strip_prefix("FLEET_") {
            settings.push((
                key.to_lowercase(),
                value.clone(),
                Origin::Environment(name.clone()),
            ));
        }
    }
    for (key, value) in line.settings {
        settings.push((key, value, Origin::Flag));
    }

    let user = settings
        .iter()
        .rev()
        .find(|(key, ..)| key == "systemd_user");
    let mut config = match user.and_then(|(_, value, _)| values::go_bool(value)) {
        Some(true) => user_defaults(&environment)?,
        _ => Config::for_system(),
    };
    let mut origins = BTreeMap::new();
    for (key, value, origin) in settings {
        let known = KEYS.iter().find(|(known, _)| *known == key);
        let (Some((name, _)), Some(apply)) = (known, apply_of(&key)) else {
            warnings.push(unknown_key(&key, &origin));
            continue;
        };
        match apply(&mut config, &value) {
            Ok(()) => {
                if matches!(*name, "verify_units" | "authorized_keys_file")
                    && !matches!(value.as_str(), "" | "false")
                {
                    warnings.push(format!(
                        "Config option {name} is no longer supported - ignoring"
                    ));
                }
                origins.insert(*name, (value, origin));
            }
            Err(Bad::Ignore(why)) => {
                warnings.push(format!("{origin}: {key}={value:?}: {why}"));
            }
            Err(Bad::Fatal(why)) => {
                return Err(Error::Value {
                    origin,
                    key,
                    value,
                    why: why.to_owned(),
                });
            }
        }
    }
    Ok(Loaded {
        config,
        action: line.action,
        file,
        warnings,
        origins,
    })
}

impl Loaded {
    /// The configuration as `--check-config` prints it: a line a key that was set, with its
    /// origin. Secrets are not shown.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, help) in KEYS {
            let (value, origin) = match self.origins.get(key) {
                Some((value, origin)) => (value.as_str(), origin.to_string()),
                None => ("", "default".to_owned()),
            };
            let value = if *key == "etcd_password" && !value.is_empty() {
                "***"
            } else {
                value
            };
            let _ = writeln!(text, "{key}={value}\t# {origin}; {help}");
        }
        text
    }
}

struct CommandLine {
    action: Action,
    file: Option<PathBuf>,
    settings: Vec<(String, String)>,
}

/// Flags as Go's `flag` reads them: one or two dashes, `=` or the next argument.
fn command_line(args: impl IntoIterator<Item = OsString>) -> Result<CommandLine, Error> {
    let mut line = CommandLine {
        action: Action::Run,
        file: None,
        settings: Vec::new(),
    };
    let mut args = args
        .into_iter()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            if arg == "version" {
                line.action = Action::Version;
                continue;
            }
            return Err(Error::Argument);
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let key = name.replace('-', "_");
        match key.as_str() {
            "version" => line.action = Action::Version,
            "h" | "help" => line.action = Action::Help,
            "check_config" => line.action = Action::CheckConfig,
            "config" => {
                line.file = Some(PathBuf::from(
                    value.or_else(|| args.next()).unwrap_or_default(),
                ));
            }
            _ if apply_of(&key).is_some() => {
                let value = value.or_else(|| args.next()).unwrap_or_default();
                line.settings.push((key, value));
            }
            _ => return Err(Error::UnknownFlag(name.to_owned())),
        }
    }
    Ok(line)
}

fn read_file(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let fail = |why: String| Error::File {
        path: path.to_owned(),
        why,
    };
    let about = std::fs::metadata(path).map_err(|err| fail(err.to_string()))?;
    if about.is_dir() {
        return Err(fail("it is a directory, not a file".to_owned()));
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(fail(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|err| fail(err.to_string()))?;
    ini::parse(&text).map_err(|source| Error::Syntax {
        path: path.to_owned(),
        source,
    })
}

fn user_defaults(environment: &BTreeMap<String, String>) -> Result<Config, Error> {
    let runtime = environment
        .get("XDG_RUNTIME_DIR")
        .ok_or(Error::NoRuntimeDirectory)?;
    let state = match (environment.get("XDG_STATE_HOME"), environment.get("HOME")) {
        (Some(state), _) => PathBuf::from(state),
        (None, Some(home)) => Path::new(home).join(".local/state"),
        (None, None) => Path::new(runtime).join("state"),
    };
    Ok(Config::for_user(Path::new(runtime), &state))
}

/// Names the key that was probably meant.
fn unknown_key(key: &str, origin: &Origin) -> String {
    let near = KEYS
        .iter()
        .map(|(known, _)| (distance(key, known), *known))
        .min()
        .filter(|(distance, known)| *distance * 3 <= known.len());
    match near {
        Some((_, near)) => format!("{origin}: unknown key {key:?}: did you mean {near:?}?"),
        None => format!("{origin}: unknown key {key:?} is ignored"),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
