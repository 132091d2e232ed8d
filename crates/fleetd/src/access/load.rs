//! The files of the policy: `*.conf` below a directory, in the dialect of unit files.
//!
//! ```text
//! [Role web]
//! Allow=*:read unit:start unit:stop
//! Units=web-*
//! Machines=region=eu
//!
//! [Grant web]
//! To=user:alice group:web cert:ci
//! ```
//!
//! Users and groups are looked up here, so that no request has to. A file that cannot be used is an
//! error: a policy of which a part is left out is another policy.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fleet_core::glob::Glob;
use fleet_core::unit_file::{ParseError, UnitFile};

use super::policy::{Pins, Policy, Role, Subject};
use super::verb::Verbs;

/// Larger files are none: a thousand roles are less.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// More files than this are a mistake.
const MAX_FILES: usize = 256;

/// What keeps a policy from being used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or a file that cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than [`MAX_FILES`].
    #[error("{0} has more than {MAX_FILES} files: put roles and grants together")]
    TooMany(PathBuf),
    /// Somebody else than root could write it.
    #[error(
        "{path} {why}: whoever can write it can give himself any role (chown root, chmod go-w)"
    )]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A text that is no such file.
    #[error("{path}: {source}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ParseError,
    },
    /// Something that means nothing.
    #[error("{path}: {why}")]
    Meaning {
        /// Where.
        path: PathBuf,
        /// What, and the cure.
        why: String,
    },
}

/// Who fleetd runs as.
pub fn myself() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A policy as it was read.
#[derive(Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// What is odd.
    pub warnings: Vec<String>,
}

/// Where users and groups are looked up.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub users: String,
    /// `/etc/group`.
    pub groups: String,
}

impl Accounts {
    /// Those of this machine. What is not in the files (LDAP) is granted by number.
    pub fn of_this_machine() -> Accounts {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Accounts {
            users: read("/etc/passwd"),
            groups: read("/etc/group"),
        }
    }

    fn user(&self, name: &str) -> Option<u32> {
        number_of(&self.users, name)
    }

    /// The group, and the users that are its members beside those whose first group it is.
    fn group(&self, name: &str) -> Option<(u32, Vec<u32>)> {
        let line = line_of(&self.groups, name)?;
        let id = line.split(':').nth(2)?.parse().ok()?;
        let members = line.split(':').nth(3).unwrap_or_default().split(',');
        Some((id, members.filter_map(|name| self.user(name)).collect()))
    }
}

fn line_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find(|line| line.split(':').next() == Some(name))
}

fn number_of(text: &str, name: &str) -> Option<u32> {
    line_of(text, name)?.split(':').nth(2)?.parse().ok()
}

/// Reads the policy. No directory, or one without files, is none: [`Policy::is_open`]. `owner`: who
/// fleetd runs as.
///
/// # Errors
/// What keeps it from being used.
pub fn load(directory: &Path, owner: u32, accounts: &Accounts) -> Result<Loaded, Error> {
    let texts = texts(directory, "conf", owner)?;
    let mut loaded = Loaded {
        policy: Policy::closed(owner),
        warnings: Vec::new(),
    };
    if texts.is_empty() {
        loaded.policy = Policy::open(owner);
        return Ok(loaded);
    }
    read(&texts, accounts, &mut loaded)?;
    Ok(loaded)
}

/// The files below a directory whose names have this ending, in order; none if it is not there.
/// `owner`: who beside root may have written them.
pub(super) fn texts(
    directory: &Path,
    ending: &str,
    owner: u32,
) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
    let files = files(directory, ending)?;
    let mut texts = Vec::with_capacity(files.len());
    if !files.is_empty() {
        check_safe(directory, owner)?;
    }
    for path in files {
        check_safe(&path, owner)?;
        let text = std::fs::read(&path);
        let text = text.map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        texts.push((path, text));
    }
    Ok(texts)
}

fn files(directory: &Path, ending: &str) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // Editors and package managers leave others beside them.
        if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(Error::TooMany(directory.to_owned()));
        }
    }
    files.sort();
    Ok(files)
}

/// Refuses what others than root and `owner` can write.
fn check_safe(path: &Path, owner: u32) -> Result<(), Error> {
    let about = std::fs::metadata(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let bad = |why: String| Error::Unsafe {
        path: path.to_owned(),
        why,
    };
    if about.uid() != 0 && about.uid() != owner {
        return Err(bad(format!("belongs to uid {}", about.uid())));
    }
    if about.mode() & 0o022 != 0 {
        return Err(bad(format!("has mode {:04o}", about.mode() & 0o7777)));
    }
    if about.is_file() && about.len() > MAX_FILE_BYTES {
        return Err(bad(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(())
}

/// Takes in the texts of all files: a role may stand in another file than its grants.
fn read(
    texts: &[(PathBuf, Vec<u8>)],
    accounts: &Accounts,
    loaded: &mut Loaded,
) -> Result<(), Error> {
    let mut grants: Vec<(&Path, String, String)> = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (path, text) in texts {
        let file = UnitFile::parse(text).map_err(|source| Error::Syntax {
            path: path.clone(),
            source,
        })?;
        let fail = |why: String| Error::Meaning {
            path: path.clone(),
            why,
        };
        let mut roles: Vec<(String, Role)> = Vec::new();
        for option in file.options() {
            let (kind, name) = option
                .section
                .split_once(' ')
                .unwrap_or((&option.section, ""));
            let name = name.trim();
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !is_name {
                return Err(fail(format!(
                    "[{}] means nothing: write [Role NAME] or [Grant ROLE]",
                    option.section
                )));
            }
            match (kind, option.name.as_str()) {
                ("Role", key @ ("Allow" | "Units" | "Machines")) => {
                    if roles.last().is_none_or(|(last, _)| last != name) {
                        if !seen.insert(name.to_owned()) {
                            return Err(fail(format!("[Role {name}] stands twice: write it once")));
                        }
                        roles.push((name.to_owned(), Role::default()));
                    }
                    if let Some((_, role)) = roles.last_mut() {
                        add(role, key, &option.value).map_err(|why| {
                            fail(format!("[Role {name}] {key}={}: {why}", option.value))
                        })?;
                    }
                }
                ("Grant", "To") => {
                    grants.push((path.as_path(), name.to_owned(), option.value.clone()));
                }
                ("Role", key) => {
                    return Err(fail(format!(
                        "[Role {name}] {key}= means nothing: write Allow=, Units= or Machines="
                    )));
                }
                ("Grant", key) => {
                    return Err(fail(format!(
                        "[Grant {name}] {key}= means nothing: write To="
                    )));
                }
                _ => {
                    return Err(fail(format!(
                        "[{}] means nothing: write [Role NAME] or [Grant ROLE]",
                        option.section
                    )));
                }
            }
        }
        for (name, role) in roles {
            if !loaded.policy.add_role(&name, role) {
                return Err(fail(format!(
                    "[Role {name}]: {name} is built in and stays as it is: give yours another name"
                )));
            }
        }
    }
    for (path, role, to) in grants {
        let fail = |why: String| Error::Meaning {
            path: path.to_owned(),
            why: format!("[Grant {role}] {why}"),
        };
        if !loaded.policy.knows(&role) {
            return Err(fail(
                "names no role: write [Role] for it, or use viewer, operator or admin".to_owned(),
            ));
        }
        for word in to.split_whitespace() {
            let subjects =
                subjects(word, accounts).ok_or_else(|| fail(format!("To={word}: {SUBJECTS}")))?;
            if subjects.is_empty() {
                loaded.warnings.push(format!(
                    "{}: [Grant {role}] To={word}: this machine knows no such account, so that \
                     nobody has the role by it",
                    path.display()
                ));
            }
            for subject in subjects {
                loaded.policy.grant(subject, &role);
            }
        }
    }
    Ok(())
}

const SUBJECTS: &str = "write user:NAME, group:NAME, uid:N, gid:N, cert:NAME, local or anonymous";

/// Whom a word of `To=` means; None: nothing that is understood. Empty: an account that there is not.
fn subjects(word: &str, accounts: &Accounts) -> Option<Vec<Subject>> {
    match word.split_once(':') {
        None if word == "local" => Some(vec![Subject::Local]),
        None if word == "anonymous" => Some(vec![Subject::Anonymous]),
        Some(("user", name)) => Some(accounts.user(name).map(Subject::Uid).into_iter().collect()),
        Some(("group", name)) => {
            let Some((id, members)) = accounts.group(name) else {
                return Some(Vec::new());
            };
            let members = members.into_iter().map(Subject::Uid);
            Some(members.chain([Subject::Gid(id)]).collect())
        }
        Some(("uid", number)) => Some(vec![Subject::Uid(number.parse().ok()?)]),
        Some(("gid", number)) => Some(vec![Subject::Gid(number.parse().ok()?)]),
        Some(("cert", name)) if !name.is_empty() => {
            Some(vec![Subject::Certificate(name.to_owned())])
        }
        _ => None,
    }
}

/// Takes a line of a role. Lines of the same key add up.
fn add(role: &mut Role, key: &str, value: &str) -> Result<(), String> {
    for word in value.split_whitespace() {
        match key {
            "Allow" => {
                let verbs = Verbs::parse(word).ok_or_else(|| {
                    format!("{word} is no verb (`man fleet.access` lists them, * stands for all)")
                })?;
                role.verbs = role.verbs.with(verbs);
            }
            "Units" => {
                let glob = Glob::new(word);
                if glob.is_malformed() {
                    return Err(format!("the pattern {word} is malformed"));
                }
                role.units.push(glob);
            }
            _ => {
                let pair = word.split_once('=');
                let (key, value) = pair
                    .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                    .ok_or_else(|| format!("{word} is not key=value"))?;
                pin(&mut role.machines, key, value);
            }
        }
    }
    Ok(())
}

fn pin(pins: &mut Pins, key: &str, value: &str) {
    let values = pins.entry(key.to_owned()).or_default();
    values.insert(value.to_owned());
}
