//! What can go wrong, in words that name the thing and the cure.

use std::path::PathBuf;

/// Result of everything in this package.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the sandbox could not do what was asked. Each message fits "failed to …: {error}".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces, bridges and cgroups are root's.
    #[error("the sandbox makes network namespaces, cgroups and containers: run it as root (sudo)")]
    NotRoot,
    /// A program of the computer is not installed.
    #[error("the program {program} is missing: apt-get install {package}")]
    MissingProgram {
        /// The program that was looked for in PATH and the sbin directories.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A sandbox of this name exists.
    #[error(
        "a sandbox named {name} exists ({state}): take it down with `fleet-sandbox down --name {name}`, or choose another name"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// In words, what became of it.
        state: String,
    },
    /// No sandbox of this name exists.
    #[error("there is no sandbox named {name}: `fleet-sandbox list` shows those that exist")]
    NoSuchSandbox {
        /// The name.
        name: String,
    },
    /// No host of this name exists in any sandbox.
    #[error("there is no host named {host}: `fleet-sandbox list` shows those that exist")]
    NoSuchHost {
        /// The name as given.
        host: String,
    },
    /// All candidate subnets overlap a route or another sandbox.
    #[error(
        "no free subnet: all of {tried} overlap a route of this computer or another sandbox; take one down with `fleet-sandbox down`"
    )]
    NoFreeSubnet {
        /// The ranges that were tried.
        tried: String,
    },
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The host is switched off.
    #[error("host {host} is off: `fleet-sandbox boot {host}` boots it")]
    HostOff {
        /// The host.
        host: String,
    },
    /// A program of the computer ended with an error.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Exit code or signal.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A wait came to its bound.
    #[error("waited {seconds:.1} s for {what}; last seen: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: f64,
        /// The last thing seen instead.
        last: String,
    },
    /// A host did not come up.
    #[error("host {host} did not boot: {why}; end of its console ({}):\n{tail}", console.display())]
    Boot {
        /// The host.
        host: String,
        /// Why.
        why: String,
        /// The console's file.
        console: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// A file of the sandbox could not be read or written.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was done ("write", "make directory", …).
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A record is damaged.
    #[error("the record {} is damaged ({why}): remove it after `ip netns`, `ip link` and /sys/fs/cgroup/*/fleet-sandbox show nothing of that sandbox", path.display())]
    Record {
        /// The record's file.
        path: PathBuf,
        /// The parser's reason.
        why: String,
    },
    /// etcd answered something unexpected.
    #[error("etcd at {url}: {why}")]
    Etcd {
        /// The request.
        url: String,
        /// What was wrong.
        why: String,
    },
    /// Something could not be removed.
    #[error("not everything of sandbox {name} could be removed: {left}")]
    Left {
        /// The sandbox.
        name: String,
        /// What is left, with the reasons.
        left: String,
    },
}

/// Attaches what was done to which path.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|e| {
            let source: std::io::Error = e.into();
            let denied = source.kind() == std::io::ErrorKind::PermissionDenied;
            if denied && !rustix::process::geteuid().is_root() {
                return Error::NotRoot;
            }
            Error::File {
                what,
                path: path.into(),
                source,
            }
        })
    }
}
