//! Which store a machine uses. The choice is recorded beside the store and never changes by
//! itself: a line that went missing from a configuration file must not make a machine of a
//! cluster believe that it is alone, nor the other way round.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Config, StoreKind};
use crate::failpoint;

/// Where etcd listens by default, and where the original looked for it without configuration.
const ORIGINAL_ETCD: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 2379);

/// Loopback answers at once or not at all.
const PROBE_TIMEOUT: Duration = Duration::from_millis(100);

/// Why there is no store to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration and the record disagree.
    #[error(
        "this machine has used the {recorded} store until now ({path}), and its configuration \
         now means {configured}: if that is meant, write store={configured} in fleet.conf; \
         nothing is copied from one to the other"
    )]
    Switched {
        /// What was used.
        recorded: &'static str,
        /// What would be used.
        configured: &'static str,
        /// Where it is recorded.
        path: PathBuf,
    },
    /// etcd is asked for by name and no server is named.
    #[error("store=etcd needs etcd_servers: name etcd's URLs in fleet.conf")]
    NoServers,
    /// The record cannot be read or written.
    #[error("failed to keep the choice of the store in {path}: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The store to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// etcd.
    Etcd,
    /// One file.
    Embedded,
}

impl Choice {
    fn as_str(self) -> &'static str {
        match self {
            Choice::Etcd => "etcd",
            Choice::Embedded => "embedded",
        }
    }
}

/// Decides which store to use and records it in the state directory.
pub fn choose(config: &Config) -> Result<Choice, Error> {
    let configured = match config.store {
        StoreKind::Etcd => Choice::Etcd,
        StoreKind::Embedded => Choice::Embedded,
        StoreKind::Auto if config.etcd_servers.is_empty() => Choice::Embedded,
        StoreKind::Auto => Choice::Etcd,
    };
    if configured == Choice::Etcd && config.etcd_servers.is_empty() {
        return Err(Error::NoServers);
    }
    let path = config.state_directory.join("store-kind");
    let recorded = read(&path)?;
    match recorded {
        Some(recorded) if recorded == configured => Ok(configured),
        Some(recorded) if config.store == StoreKind::Auto => Err(Error::Switched {
            recorded: recorded.as_str(),
            configured: configured.as_str(),
            path,
        }),
        _ => {
            write(&path, configured)?;
            Ok(configured)
        }
    }
}

/// Whether an etcd listens where the original looked for one although none is configured here.
pub fn etcd_answers_unasked(choice: Choice) -> bool {
    let address = SocketAddr::from(ORIGINAL_ETCD);
    choice == Choice::Embedded && TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok()
}

fn read(path: &Path) -> Result<Option<Choice>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(match text.trim() {
            "etcd" => Some(Choice::Etcd),
            "embedded" => Some(Choice::Embedded),
            // A half-written word is no choice; it is written anew.
            _ => None,
        }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Record {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write(path: &Path, choice: Choice) -> Result<(), Error> {
    let record = |source| Error::Record {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(record)?;
    }
    let word = format!("{}\n", choice.as_str());
    failpoint::file("file.choice.write", || std::fs::write(path, word)).map_err(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, store: StoreKind, servers: &[&str]) -> Config {
        Config {
            store,
            state_directory: dir.join("fleet"),
            etcd_servers: servers.iter().map(|s| (*s).to_owned()).collect(),
            ..Config::for_system()
        }
    }

    #[test]
    fn auto_means_etcd_when_servers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let alone = config(dir.path(), StoreKind::Auto, &[]);
        assert_eq!(choose(&alone).unwrap(), Choice::Embedded);
        assert_eq!(choose(&alone).unwrap(), Choice::Embedded);
        let other = tempfile::tempdir().unwrap();
        let cluster = config(other.path(), StoreKind::Auto, &["http://a:2379"]);
        assert_eq!(choose(&cluster).unwrap(), Choice::Etcd);
    }

    #[test]
    fn the_choice_changes_only_when_the_store_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let servers = ["http://a:2379"];
        choose(&config(dir.path(), StoreKind::Auto, &servers)).unwrap();
        let error = choose(&config(dir.path(), StoreKind::Auto, &[]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("this machine has used the etcd store until now"),
            "{error}"
        );
        let named = config(dir.path(), StoreKind::Embedded, &[]);
        assert_eq!(choose(&named).unwrap(), Choice::Embedded);
        assert_eq!(
            choose(&config(dir.path(), StoreKind::Auto, &[])).unwrap(),
            Choice::Embedded
        );
    }

    #[test]
    fn etcd_by_name_needs_servers() {
        let dir = tempfile::tempdir().unwrap();
        let error = choose(&config(dir.path(), StoreKind::Etcd, &[])).unwrap_err();
        assert!(matches!(error, Error::NoServers));
    }
}
