//! Where the configuration comes from: file < environment < command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::keys::{self, Bad, KEYS, Kind};
use super::{Config, ini, values};

/// Read when no file is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/fleet/fleet.conf";

/// A configuration file is a page of text; more is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What stops fleetd from starting. What the original said too begins in its words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("Unable to use config file {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The file is none.
    #[error("Provided config {0} is a directory, not a file")]
    Directory(PathBuf),
    /// A line of the file is no setting.
    #[error("Unable to use config file {path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Which line.
        source: ini::SyntaxError,
    },
    /// A value without which fleetd would do something else than was meant.
    #[error("Failed creating Server: {why} ({key}={value:?}, {origin}){cure}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What to write instead.
        cure: &'static str,
    },
    /// The command line.
    #[error("flag provided but not defined: -{0}")]
    UnknownFlag(String),
    /// The command line.
    #[error("flag needs an argument: -{0}")]
    NeedsArgument(String),
    /// The command line.
    #[error("bad flag syntax: {0}")]
    FlagSyntax(String),
    /// The command line.
    #[error("invalid boolean value {value:?} for -{flag}: parse error")]
    NoBool {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// The command line.
    #[error("fleetd takes no arguments. Did you mean to invoke fleetctl instead?")]
    Argument,
    /// `systemd_user` without the variable that says where the user's systemd is.
    #[error(
        "Failed creating Server: systemd_user needs XDG_RUNTIME_DIR in the environment: it names the directory of the user's systemd"
    )]
    NoRuntimeDirectory,
}

impl Error {
    /// Whether the command line itself is at fault: then its usage is of help.
    pub fn is_usage(&self) -> bool {
        use Error::{Argument, FlagSyntax, NeedsArgument, NoBool, UnknownFlag};
        matches!(
            self,
            Argument | FlagSyntax(_) | NeedsArgument(_) | NoBool { .. } | UnknownFlag(_)
        )
    }
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
    /// Whether it is the one that was named, and not the default one.
    pub file_named: bool,
    /// What is odd: unknown keys, values that were passed over.
    pub warnings: Vec<String>,
    /// What is set and was given up by the original already, in its words.
    pub unsupported: Vec<String>,
    /// The value and origin of each key that was set.
    pub origins: BTreeMap<&'static str, (String, Origin)>,
}

/// Reads the command line, the file and the environment. Asked again with the same command line
/// and environment, it sees what has changed in the file.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Error> {
    let environment: BTreeMap<String, String> = environment
        .into_iter()
        .filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        })
        .collect();
    let line = command_line(args)?;
    let file_named = line.file.is_some();
    let file = line.file.or_else(|| {
        // A file that cannot be looked at is there: reading it says why.
        let default = PathBuf::from(DEFAULT_FILE);
        default.try_exists().unwrap_or(true).then_some(default)
    });
    let mut loaded = Loaded {
        config: Config::for_system(),
        action: line.action,
        file: file.clone(),
        file_named,
        warnings: Vec::new(),
        unsupported: Vec::new(),
        origins: BTreeMap::new(),
    };
    let mut settings = Vec::new();
    if let (Some(path), Action::Run | Action::CheckConfig) = (&file, &loaded.action) {
        let read = read_file(path)?;
        for warning in read.warnings {
            loaded
                .warnings
                .push(format!("{}: {warning}", path.display()));
        }
        for (key, value) in read.settings {
            settings.push((key, value, Origin::File(path.clone())));
        }
    }
    for (name, value) in &environment {
        if let Some(key) = name.strip_prefix("FLEET_")
            && key == key.to_uppercase()
        {
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
    // The last source of a key counts as a whole: a value that is no good there does not bring
    // back the one before it.
    let mut winning = BTreeMap::new();
    for (name, value, origin) in settings {
        match keys::find(&name) {
            Some(key) => {
                winning.insert(key.name, (value, origin));
            }
            None => loaded.warnings.push(unknown_key(&name, &origin)),
        }
    }
    let user = winning.get("systemd_user");
    if user.and_then(|(value, _)| values::go_bool(value)) == Some(true) {
        loaded.config = user_defaults(&environment)?;
    }
    for key in KEYS {
        if let Some((value, origin)) = winning.remove(key.name) {
            loaded.set(key, value, origin)?;
        }
    }
    Ok(loaded)
}

impl Loaded {
    fn set(&mut self, key: &'static keys::Key, value: String, origin: Origin) -> Result<(), Error> {
        match (key.apply)(&mut self.config, &value) {
            Ok(()) => {}
            Err(Bad::Ignore(why)) => {
                self.warnings
                    .push(format!("{origin}: {}={value:?}: {why}", key.name));
                return Ok(());
            }
            Err(Bad::Fatal(why)) => {
                let cure = match key.kind {
                    Kind::Duration => ": write 500ms, 30s or 1m30s",
                    _ => "",
                };
                let key = key.name;
                return Err(Error::Value {
                    origin,
                    key,
                    value,
                    why,
                    cure,
                });
            }
        }
        let given_up = match key.name {
            "verify_units" => values::go_bool(&value) == Some(true),
            "authorized_keys_file" => !value.is_empty(),
            _ => false,
        };
        if given_up {
            let name = key.name;
            self.unsupported.push(format!(
                "Config option {name} is no longer supported - ignoring"
            ));
        }
        if let Some(remark) = keys::remark(key, &value) {
            self.warnings.push(format!("{origin}: {remark}"));
        }
        self.origins.insert(key.name, (value, origin));
        Ok(())
    }

    /// The configuration as `--check-config` prints it: a line a key with its value and where
    /// that comes from. Secrets are not shown.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for key in KEYS {
            let value = key.shown(&self.config);
            let origin = match self.origins.get(key.name) {
                Some((_, origin)) => origin.to_string(),
                None => "default".to_owned(),
            };
            let _ = writeln!(text, "{}={value}\t# {origin}; {}", key.name, key.help);
        }
        text
    }

    /// The line of the start log that names the file, as the original's.
    pub fn about_file(&self) -> String {
        match &self.file {
            Some(file) if self.file_named => {
                format!("Using provided config file {}", file.display())
            }
            Some(file) => format!("Using default config file {}", file.display()),
            None => "No provided or default config file found - proceeding without".to_owned(),
        }
    }
}

struct CommandLine {
    action: Action,
    file: Option<PathBuf>,
    settings: Vec<(String, String)>,
}

/// Flags as Go's `flag` reads them: one or two dashes, `=` or the next argument; switches take
/// none but `=`; the first word that is no flag ends them.
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
        if arg == "version" {
            line.action = Action::Version;
            continue;
        }
        let flag = match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
            None => return Err(Error::Argument),
            // `--`: what follows are arguments. `-` is one.
            Some("") if arg == "--" && args.next().is_none() => break,
            Some("") => return Err(Error::Argument),
            Some(flag) if flag.starts_with(['-', '=']) => return Err(Error::FlagSyntax(arg)),
            Some(flag) => flag,
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let key = name.replace('-', "_");
        let action = match key.as_str() {
            "version" => Some(Action::Version),
            "h" | "help" => Some(Action::Help),
            "check_config" => Some(Action::CheckConfig),
            _ => None,
        };
        if let Some(action) = action {
            let value = value.unwrap_or_else(|| "true".to_owned());
            match values::go_bool(&value) {
                // Who asks for help gets it, whatever else is there.
                Some(true) if line.action != Action::Help => line.action = action,
                Some(_) => {}
                None => {
                    return Err(Error::NoBool {
                        flag: name.to_owned(),
                        value,
                    });
                }
            }
            continue;
        }
        let known = keys::find(&key);
        let mut argument = |value: Option<String>| {
            value
                .or_else(|| args.next())
                .ok_or_else(|| Error::NeedsArgument(name.to_owned()))
        };
        match known {
            None if key == "config" => {
                // Empty is as good as not given.
                let path = argument(value)?;
                line.file = (!path.is_empty()).then(|| PathBuf::from(path));
            }
            None => return Err(Error::UnknownFlag(name.to_owned())),
            Some(known) if known.kind == Kind::Bool => {
                let value = value.unwrap_or_else(|| "true".to_owned());
                if values::go_bool(&value).is_none() {
                    return Err(Error::NoBool {
                        flag: name.to_owned(),
                        value,
                    });
                }
                line.settings.push((key, value));
            }
            Some(_) => line.settings.push((key, argument(value)?)),
        }
    }
    Ok(line)
}

fn read_file(path: &Path) -> Result<ini::File, Error> {
    let fail = |why: String| Error::File {
        path: path.to_owned(),
        why,
    };
    // In Go's words, which the original's users know.
    let failed = |call: &str, error: &std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        fail(format!("{call} {}: {why}", path.display()))
    };
    let about = std::fs::metadata(path).map_err(|error| failed("stat", &error))?;
    if about.is_dir() {
        return Err(Error::Directory(path.to_owned()));
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(fail(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    let bytes = std::fs::read(path).map_err(|error| failed("open", &error))?;
    let text = String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8 text".to_owned()))?;
    ini::parse(&text).map_err(|source| Error::Syntax {
        path: path.to_owned(),
        source,
    })
}

fn user_defaults(environment: &BTreeMap<String, String>) -> Result<Config, Error> {
    // By the XDG Base Directory Specification, empty is unset and relative paths are none.
    let directory = |name: &str| {
        let path = environment.get(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let runtime = directory("XDG_RUNTIME_DIR").ok_or(Error::NoRuntimeDirectory)?;
    let state = directory("XDG_STATE_HOME")
        .or_else(|| Some(directory("HOME")?.join(".local/state")))
        .unwrap_or_else(|| runtime.join("state"));
    Ok(Config::for_user(&runtime, &state))
}

/// Names the key that was probably meant.
fn unknown_key(key: &str, origin: &Origin) -> String {
    let near = KEYS
        .iter()
        .map(|known| (distance(key, known.name), known.name))
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
