//! fleetd's configuration, as the parts of the daemon see it.
//!
//! Sources, each winning over the one before: defaults, the file (`fleet.conf`), the environment
//! (`FLEET_<KEY>`), the command line (`--<key>=<value>`). [`load`] reads them and remembers the
//! origin of each value.

pub mod ini;
pub mod keys;
pub mod load;
pub mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_pki::files;

/// Which store is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// etcd when `etcd_servers` is set, else embedded.
    Auto,
    /// etcd, for clusters.
    Etcd,
    /// One file, for one machine.
    Embedded,
}

impl StoreKind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            StoreKind::Auto => "auto",
            StoreKind::Etcd => "etcd",
            StoreKind::Embedded => "embedded",
        }
    }
}

/// Everything that can be configured. Field names are the keys of `fleet.conf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// More than 0: debug logs.
    pub verbosity: i64,
    /// Which store.
    pub store: StoreKind,
    /// URLs of etcd; empty when not configured.
    pub etcd_servers: Vec<String>,
    /// User of etcd; empty: none.
    pub etcd_username: String,
    /// Its password.
    pub etcd_password: String,
    /// Client key for etcd's TLS (PEM).
    pub etcd_keyfile: Option<PathBuf>,
    /// Client certificate for etcd's TLS (PEM).
    pub etcd_certfile: Option<PathBuf>,
    /// CA that etcd's certificate must come from (PEM).
    pub etcd_cafile: Option<PathBuf>,
    /// Prefix of all keys.
    pub etcd_key_prefix: String,
    /// Bound of one request to etcd.
    pub etcd_request_timeout: Duration,
    /// Bound between two looks of the engine when nothing happens (a slow safety tick).
    pub engine_reconcile_interval: Duration,
    /// Address to publish; None: found out.
    pub public_ip: Option<String>,
    /// Metadata of this machine.
    pub metadata: BTreeMap<String, String>,
    /// Time that presence outlives the last sign of life.
    pub agent_ttl: Duration,
    /// Time from suspect to lost.
    pub lost_after: Duration,
    /// Time from an orderly stop of fleetd until its machine is given up.
    pub unsupervised_grace: Duration,
    /// When more than this share of the machines (in percent), and more than one, vanish at once,
    /// nothing is moved.
    pub freeze_share: u32,
    /// How long nothing is moved then, at most.
    pub freeze_for: Duration,
    /// Where unit files are written.
    pub units_directory: PathBuf,
    /// What must outlive fleetd and end with the boot (`/run/fleet`).
    pub run_directory: PathBuf,
    /// What must outlive the boot (`/var/lib/fleet`).
    pub state_directory: PathBuf,
    /// The API's socket, when systemd passes none (`/run/fleet.sock`).
    pub api_socket: PathBuf,
    /// Further addresses to serve the API on (`127.0.0.1:49153`).
    pub api_listen: Vec<String>,
    /// Plaintext TCP off loopback is served, too.
    pub api_insecure: bool,
    /// Where roles and grants are written (`/etc/fleet/access.d`).
    pub access_directory: PathBuf,
    /// Only units that are signed by a trusted key are written and started.
    pub require_signed_units: bool,
    /// Where these keys are (`/etc/fleet/trusted-keys`).
    pub trusted_keys: PathBuf,
    /// This machine's certificate for the API over TLS (PEM).
    pub api_certfile: PathBuf,
    /// Its key.
    pub api_keyfile: PathBuf,
    /// CAs whose certificates are believed over TLS.
    pub api_cafile: PathBuf,
    /// The key of the cluster's CA, on machines that issue certificates.
    pub api_cakeyfile: PathBuf,
    /// Drive the user's own systemd.
    pub systemd_user: bool,
    /// Page size of v1 listings.
    pub token_limit: u16,
    /// Never become leader.
    pub disable_engine: bool,
    /// Test switch: no slow safety ticks at all, so that a lost event shows.
    pub disable_safety_ticks: bool,
}

impl Config {
    /// The defaults of a daemon that drives the computer's own systemd.
    pub fn for_system() -> Config {
        Config {
            verbosity: 0,
            store: StoreKind::Auto,
            etcd_servers: Vec::new(),
            etcd_username: String::new(),
            etcd_password: String::new(),
            etcd_keyfile: None,
            etcd_certfile: None,
            etcd_cafile: None,
            etcd_key_prefix: "/_coreos.com/fleet/".to_owned(),
            etcd_request_timeout: Duration::from_secs(1),
            engine_reconcile_interval: Duration::from_secs(30),
            public_ip: None,
            metadata: BTreeMap::new(),
            agent_ttl: DEFAULT_AGENT_TTL,
            lost_after: DEFAULT_LOST_AFTER,
            unsupervised_grace: DEFAULT_UNSUPERVISED_GRACE,
            freeze_share: DEFAULT_FREEZE_SHARE,
            freeze_for: DEFAULT_FREEZE_FOR,
            units_directory: PathBuf::from("/run/fleet/units"),
            run_directory: PathBuf::from("/run/fleet"),
            state_directory: PathBuf::from("/var/lib/fleet"),
            api_socket: PathBuf::from("/run/fleet.sock"),
            api_listen: Vec::new(),
            api_insecure: false,
            access_directory: PathBuf::from("/etc/fleet/access.d"),
            require_signed_units: false,
            trusted_keys: PathBuf::from("/etc/fleet/trusted-keys"),
            api_certfile: pki(files::MACHINE),
            api_keyfile: pki(files::MACHINE_KEY),
            api_cafile: pki(files::CA),
            api_cakeyfile: pki(files::CA_KEY),
            systemd_user: false,
            token_limit: 100,
            disable_engine: false,
            disable_safety_ticks: false,
        }
    }

    /// The defaults of a daemon that drives a user's systemd: `runtime` is `$XDG_RUNTIME_DIR`,
    /// `state` is `$XDG_STATE_HOME`.
    pub fn for_user(runtime: &std::path::Path, state: &std::path::Path) -> Config {
        Config {
            systemd_user: true,
            api_certfile: state.join("fleet/pki").join(files::MACHINE),
            api_keyfile: state.join("fleet/pki").join(files::MACHINE_KEY),
            api_cafile: state.join("fleet/pki").join(files::CA),
            api_cakeyfile: state.join("fleet/pki").join(files::CA_KEY),
            units_directory: runtime.join("fleet/units"),
            run_directory: runtime.join("fleet"),
            state_directory: state.join("fleet"),
            api_socket: runtime.join("fleet.sock"),
            access_directory: state.join("fleet/access.d"),
            trusted_keys: state.join("fleet/trusted-keys"),
            ..Config::for_system()
        }
    }
}

/// A file at its usual place.
fn pki(file: &str) -> PathBuf {
    Path::new(files::MACHINE_DIRECTORY).join(file)
}

/// A power cut is noticed when the lease ends: 3 s, and up to half a second until etcd says so.
/// With [`DEFAULT_LOST_AFTER`] units run elsewhere within five seconds. Renewals go out every
/// third of it, so that two may be lost.
pub const DEFAULT_AGENT_TTL: Duration = Duration::from_secs(3);

/// Time that a machine is suspect before it is given up.
pub const DEFAULT_LOST_AFTER: Duration = Duration::from_secs(1);

/// Long enough for an upgrade of fleetd on a slow machine, and for a person to look after one that
/// did not come back.
pub const DEFAULT_UNSUPERVISED_GRACE: Duration = Duration::from_secs(600);

/// A third of the machines does not fail in one moment: it is the network, or us.
pub const DEFAULT_FREEZE_SHARE: u32 = 34;

/// A switch or a rack is back by then, or somebody has looked.
pub const DEFAULT_FREEZE_FOR: Duration = Duration::from_secs(300);
