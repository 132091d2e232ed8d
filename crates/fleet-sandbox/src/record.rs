//! What a sandbox is made of, written down before any of it is made.
//!
//! All names follow from the sandbox's name and its subnet, so that the first thing `up`
//! writes is the complete list of what it will make: bridge, addresses, namespaces, cables,
//! cgroups or units, directories. Whoever finds the record can remove all of it, whatever
//! moment the maker died at. Only process numbers are added later, and processes are found
//! by their cgroup even without them.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::At;
use crate::process::Process;
use crate::scope::Scope;
use crate::subnet::Subnet;
use crate::{Error, Result};

/// Where records, locks and sockets are; ends with the computer's boot, as what they describe.
pub const RUN_DIRECTORY: &str = "/run/fleet-sandbox";
/// Version of the record's format.
const VERSION: u32 = 1;

/// A sandbox: everything that was or will be made for it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Set as soon as everything is up.
    pub up: bool,
    /// Who takes it down when it ends: a test that holds a `Sandbox`, or `up` on its way.
    /// None: it stays until `down`.
    pub owner: Option<Process>,
    /// Directory of the hosts' trees and etcd's data.
    pub directory: PathBuf,
    /// Its addresses.
    pub subnet: Subnet,
    /// Name of the bridge.
    pub bridge: String,
    /// The hosts, in order.
    pub hosts: Vec<HostRecord>,
    /// The members of etcd, in order.
    pub etcd: Vec<MemberRecord>,
}

/// One host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its name, also its hostname.
    pub name: String,
    /// Its machine id: 32 hexadecimal digits.
    pub machine_id: String,
    /// Its address on the bridge.
    pub address: Ipv4Addr,
    /// The MAC address of its end of the cable.
    pub mac: String,
    /// The computer's end of its cable, a port of the bridge.
    pub cable: String,
    /// Its network namespace in /run/netns.
    pub netns: String,
    /// Its root tree.
    pub root: PathBuf,
    /// What its console said, all boots.
    pub console: PathBuf,
    /// Metadata for fleetd, `key=value`.
    pub metadata: Vec<String>,
    /// Directories of the computer that the host changes in its own way; what it changes is in
    /// `changes`.
    #[serde(default)]
    pub overlays: Vec<PathBuf>,
    /// What it has changed in them.
    #[serde(default)]
    pub changes: PathBuf,
    /// Where its processes are.
    pub scope: Scope,
    /// Its cable is out.
    pub cut: bool,
    /// Its cable is in, and frames are lost in it without a word.
    #[serde(default)]
    pub loss: Option<Loss>,
    /// Its systemd, as the computer numbers it; None: not booted, or switched off.
    pub leader: Option<Process>,
}

/// Which frames are lost in a cable that is in: its link stays up at both ends, and nobody is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Those to who is behind it: deaf, and heard by all.
    To,
    /// Those from who is behind it: mute, and hearing all.
    From,
    /// All: connections are half-open, and only silence tells.
    Both,
}

/// One member of etcd.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its name.
    pub name: String,
    /// Its address on the bridge.
    pub address: Ipv4Addr,
    /// The MAC address of its end of the cable.
    #[serde(default)]
    pub mac: String,
    /// The computer's end of its cable, a port of the bridge.
    #[serde(default)]
    pub cable: String,
    /// Its network namespace in /run/netns.
    #[serde(default)]
    pub netns: String,
    /// Its cable was cut.
    #[serde(default)]
    pub cut: bool,
    /// Its cable is in, and frames are lost in it without a word.
    #[serde(default)]
    pub loss: Option<Loss>,
    /// Its data; kept over stop and start.
    pub data: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Where its process is.
    pub scope: Scope,
}

impl Record {
    /// A record with nothing in it yet.
    pub(crate) fn new(name: &str, directory: PathBuf, subnet: Subnet) -> Record {
        Record {
            version: VERSION,
            name: name.to_owned(),
            up: false,
            owner: Process::own(),
            directory,
            bridge: subnet.bridge(),
            subnet,
            hosts: Vec::new(),
            etcd: Vec::new(),
        }
    }

    /// True when the process that must take it down is dead: it cannot any more.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.is_alive())
    }

    /// In words, for people.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.up, self.is_orphan()) {
            (true, false) => "up",
            (true, true) => "up, but its owner is dead",
            (false, false) => "coming up",
            (false, true) => "half made: its `up` was killed",
        }
    }

    /// etcd's client URLs.
    #[must_use]
    pub fn etcd_servers(&self) -> Vec<String> {
        self.etcd.iter().map(MemberRecord::client_url).collect()
    }
}

impl MemberRecord {
    /// `http://ADDRESS:2379`
    #[must_use]
    pub fn client_url(&self) -> String {
        format!("http://{}:2379", self.address)
    }

    /// `http://ADDRESS:2380`, for the other members.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://{}:2380", self.address)
    }
}

/// Directory of one sandbox's record and sockets.
pub(crate) fn run_directory(name: &str) -> PathBuf {
    Path::new(RUN_DIRECTORY).join(name)
}

fn record_file(name: &str) -> PathBuf {
    run_directory(name).join("sandbox.json")
}

/// The computer's one lock for records, subnets and /run/netns. Freed when dropped, and when
/// its holder dies.
pub(crate) struct Lock(fs::File);

impl Lock {
    /// The lock for a program that uses it for its holder: it is held until both are through, also
    /// when the holder is killed before.
    pub(crate) fn share(&self) -> Result<fs::File> {
        self.0.try_clone().at("share the lock of", RUN_DIRECTORY)
    }
}

/// Takes the lock; waits while another process has it, which is short: it is never held
/// while something boots.
pub(crate) fn lock() -> Result<Lock> {
    fs::create_dir_all(RUN_DIRECTORY).at("make directory", RUN_DIRECTORY)?;
    let path = Path::new(RUN_DIRECTORY).join("lock");
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .at("open", &path)?;
    flock(&file, FlockOperation::LockExclusive).at("lock", &path)?;
    Ok(Lock(file))
}

/// The right to change a sandbox, held while it is used; freed when dropped, and when its
/// holder dies. Many may boot and kill hosts at a time; only one may take it down, and only
/// when nobody does anything else with it.
pub(crate) struct Claim {
    #[expect(dead_code, reason = "held, not read")]
    directory: fs::File,
    pub(crate) record: Record,
}

/// Claims a sandbox; waits for those who have it. None: it does not exist, or not any more.
pub(crate) fn claim(name: &str, operation: FlockOperation) -> Result<Option<Claim>> {
    let path = run_directory(name);
    let directory = match fs::File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.at("open", &path)?,
    };
    flock(&directory, operation).at("lock", &path)?;
    // While we waited it may have been taken down, and another of its name been made.
    let own = directory.metadata().at("read", &path)?;
    if !fs::metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (own.dev(), own.ino())) {
        return Ok(None);
    }
    match load(name) {
        Ok(record) => Ok(Some(Claim { directory, record })),
        Err(Error::NoSuchSandbox { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Claims a sandbox to do something with it.
pub(crate) fn claim_for_use(name: &str) -> Result<Claim> {
    let claim = claim(name, FlockOperation::LockShared)?;
    claim.ok_or_else(|| Error::NoSuchSandbox {
        name: name.to_owned(),
    })
}

/// Reads one record.
///
/// # Errors
/// [`Error::NoSuchSandbox`]; [`Error::Record`] when it is damaged.
pub fn load(name: &str) -> Result<Record> {
    let path = record_file(name);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::Record {
            path,
            why: e.to_string(),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::NoSuchSandbox {
            name: name.to_owned(),
        }),
        Err(e) => Err(Error::File {
            what: "read",
            path,
            source: e,
        }),
    }
}

/// Reads all records, by name.
///
/// # Errors
/// [`Error::Record`] when one is damaged.
pub fn list() -> Result<Vec<Record>> {
    let entries = match fs::read_dir(RUN_DIRECTORY) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(Error::File {
                what: "read directory",
                path: RUN_DIRECTORY.into(),
                source: e,
            });
        }
    };
    let mut records = Vec::new();
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        match load(&entry.file_name().to_string_lossy()) {
            Ok(record) => records.push(record),
            // Taken down between the two reads.
            Err(Error::NoSuchSandbox { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

/// Writes a record so that it is there whole, or as before.
pub(crate) fn save(record: &Record, _: &Lock) -> Result<()> {
    let directory = run_directory(&record.name);
    fs::create_dir_all(&directory).at("make directory", &directory)?;
    let text = serde_json::to_vec_pretty(record).map_err(|e| Error::Record {
        path: record_file(&record.name),
        why: e.to_string(),
    })?;
    let new = directory.join("sandbox.json.new");
    fs::write(&new, text).at("write", &new)?;
    fs::rename(&new, record_file(&record.name)).at("rename", new)
}

/// Reads, changes and writes a record under the lock. A record that is gone stays gone.
pub(crate) fn update(name: &str, change: impl FnOnce(&mut Record)) -> Result<Record> {
    let lock = lock()?;
    let mut record = load(name)?;
    change(&mut record);
    save(&record, &lock)?;
    Ok(record)
}

/// The same for one host of it.
pub(crate) fn update_host(
    name: &str,
    host: &str,
    change: impl FnOnce(&mut HostRecord),
) -> Result<()> {
    update(name, |record| {
        if let Some(host) = record.hosts.iter_mut().find(|h| h.name == host) {
            change(host);
        }
    })
    .map(|_| ())
}
