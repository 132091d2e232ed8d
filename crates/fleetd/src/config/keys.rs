//! Every key of the configuration: its type, its default, how it is read and shown, and whether a
//! running fleetd takes a new value. `--check-config`, the usage, the sample file and the check of
//! the compatibility page all walk this table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, StoreKind, values};

/// How the value of a key is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true`, `false` and Go's other spellings.
    Bool,
    /// A whole number.
    Number,
    /// Seconds, as a decimal number.
    Seconds,
    /// Go's durations: `500ms`, `1m30s`.
    Duration,
    /// An absolute path.
    Path,
    /// Separated by commas.
    List,
    /// Any text.
    Text,
}

/// What a running fleetd does with a new value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reload {
    /// Takes it.
    Live,
    /// Goes on with the old one, and says that a restart is needed.
    Restart,
}

/// A value that does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Bad {
    /// Passed over with a warning, as the original passed over numbers and bools in silence.
    Ignore(String),
    /// Not to be guessed.
    Fatal(String),
}

/// A key of `fleet.conf`.
#[derive(Debug)]
pub struct Key {
    /// As in the file; in capitals behind `FLEET_` in the environment, behind `--` as a flag.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// What a running fleetd does with a new value.
    pub reload: Reload,
    /// One line of help.
    pub help: &'static str,
    pub(crate) apply: fn(&mut Config, &str) -> Result<(), Bad>,
    pub(crate) show: fn(&Config) -> String,
}

/// The key of a name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Key {
    /// The value as it may be shown to anybody who reads logs.
    pub fn shown(&self, config: &Config) -> String {
        let value = (self.show)(config);
        match self.name {
            "etcd_password" if !value.is_empty() => "***".to_owned(),
            _ => value,
        }
    }
}

macro_rules! key {
    ($name:ident, $kind:ident, $reload:ident, $help:literal, |$c:ident, $v:ident| $apply:expr, $show:expr) => {
        Key {
            name: stringify!($name),
            kind: Kind::$kind,
            reload: Reload::$reload,
            help: $help,
            apply: |$c: &mut Config, $v: &str| {
                $c.$name = $apply;
                Ok(())
            },
            show: |$c: &Config| $show(&$c.$name),
        }
    };
}

/// A key of the original that changes nothing here, and is checked all the same.
macro_rules! without_effect {
    ($name:ident, $kind:ident, $help:literal, $check:expr) => {
        Key {
            name: stringify!($name),
            kind: Kind::$kind,
            reload: Reload::Live,
            help: $help,
            apply: |_, value| $check(value).map(|_| ()),
            show: |_| String::new(),
        }
    };
}

/// Each key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key!(
        verbosity,
        Number,
        Live,
        "more than 0: debug logs",
        |c, v| values::go_int(v).ok_or_else(|| ignore("not a number"))?,
        ToString::to_string
    ),
    key!(
        store,
        Text,
        Restart,
        "auto, etcd or embedded; auto: etcd when etcd_servers is set, else embedded",
        |c, v| match v {
            "auto" | "" => StoreKind::Auto,
            "etcd" => StoreKind::Etcd,
            "embedded" => StoreKind::Embedded,
            _ => return Err(fatal("no such store: write auto, etcd or embedded")),
        },
        |store: &StoreKind| store.as_str().to_owned()
    ),
    key!(
        etcd_servers,
        List,
        Live,
        "comma list of etcd URLs; empty: none",
        |c, v| values::list(v),
        |list: &Vec<String>| list.join(",")
    ),
    key!(
        etcd_username,
        Text,
        Live,
        "user of etcd; empty: none",
        |c, v| v.to_owned(),
        String::clone
    ),
    key!(
        etcd_password,
        Text,
        Live,
        "its password",
        |c, v| v.to_owned(),
        String::clone
    ),
    key!(
        etcd_keyfile,
        Path,
        Live,
        "client key for etcd (PEM)",
        |c, v| optional(v),
        show_optional
    ),
    key!(
        etcd_certfile,
        Path,
        Live,
        "client certificate for etcd (PEM)",
        |c, v| optional(v),
        show_optional
    ),
    key!(
        etcd_cafile,
        Path,
        Live,
        "CA of etcd's certificate (PEM); empty: those that this computer trusts",
        |c, v| optional(v),
        show_optional
    ),
    key!(
        etcd_key_prefix,
        Text,
        Restart,
        "prefix of all keys in etcd",
        |c, v| match v.trim_matches('/') {
            "" => "/".to_owned(),
            prefix => format!("/{prefix}/"),
        },
        String::clone
    ),
    key!(
        etcd_request_timeout,
        Seconds,
        Live,
        "bound of one request to etcd, in seconds",
        |c, v| seconds(v)?,
        show_seconds
    ),
    key!(
        engine_reconcile_interval,
        Seconds,
        Live,
        "slow safety tick of the engine, in seconds; events do the work",
        |c, v| seconds(v)?,
        show_seconds
    ),
    key!(
        public_ip,
        Text,
        Live,
        "address to publish; empty: that of the default route, IPv4 before IPv6",
        |c, v| (!v.is_empty()).then(|| v.to_owned()),
        |ip: &Option<String>| ip.clone().unwrap_or_default()
    ),
    key!(
        metadata,
        List,
        Live,
        "k=v,k=v of this machine, for MachineMetadata",
        |c, v| values::metadata(v),
        |map: &std::collections::BTreeMap<String, String>| {
            let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
            pairs.join(",")
        }
    ),
    key!(
        agent_ttl,
        Duration,
        Live,
        "how long presence outlives the last sign of life",
        |c, v| duration(v)?,
        show_duration
    ),
    key!(
        lost_after,
        Duration,
        Live,
        "time from suspect to lost",
        |c, v| duration(v)?,
        show_duration
    ),
    key!(
        unsupervised_grace,
        Duration,
        Live,
        "how long units stay placed on a machine whose fleetd was stopped in order",
        |c, v| duration(v)?,
        show_duration
    ),
    key!(
        freeze_share,
        Number,
        Live,
        "when more than this percentage of the machines vanish at once, nothing is moved",
        |c, v| match v.strip_suffix('%').unwrap_or(v).parse() {
            Ok(share @ 1..=100) => share,
            _ => return Err(ignore("not a percentage from 1 to 100")),
        },
        ToString::to_string
    ),
    key!(
        freeze_for,
        Duration,
        Live,
        "how long nothing is moved then, at most",
        |c, v| duration(v)?,
        show_duration
    ),
    key!(
        units_directory,
        Path,
        Restart,
        "where unit files are written",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        run_directory,
        Path,
        Restart,
        "what ends with the boot",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        state_directory,
        Path,
        Restart,
        "what outlives the boot",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        api_socket,
        Path,
        Restart,
        "the API's socket, when systemd passes none",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        api_listen,
        List,
        Restart,
        "comma list of further addresses to serve the API on (127.0.0.1:49153); other machines ask by the first that is not loopback",
        |c, v| values::list(v),
        |list: &Vec<String>| list.join(",")
    ),
    key!(
        api_insecure,
        Bool,
        Live,
        "serve plaintext off loopback, too",
        |c, v| boolean(v)?,
        ToString::to_string
    ),
    key!(
        access_directory,
        Path,
        Live,
        "where roles and who has them are written (*.conf); without any, the socket's mode decides",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        require_signed_units,
        Bool,
        Live,
        "write and start only units that are signed by a trusted key (fleetctl sign)",
        |c, v| match values::go_bool(v) {
            Some(required) => required,
            None => return Err(fatal("neither true nor false")),
        },
        ToString::to_string
    ),
    key!(
        trusted_keys,
        Path,
        Live,
        "where these keys are (*.pub)",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        api_certfile,
        Path,
        Live,
        "this machine's certificate: with it the API is served over TLS, to whoever has one, too",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        api_keyfile,
        Path,
        Live,
        "its key (PEM)",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        api_cafile,
        Path,
        Live,
        "CAs whose certificates are believed over TLS (PEM)",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        api_cakeyfile,
        Path,
        Live,
        "key of the cluster's CA, on machines that issue certificates",
        |c, v| directory(v)?,
        show_path
    ),
    key!(
        systemd_user,
        Bool,
        Restart,
        "drive the user's own systemd",
        |c, v| boolean(v)?,
        ToString::to_string
    ),
    key!(
        token_limit,
        Number,
        Live,
        "page size of v1 listings",
        |c, v| match values::go_int(v).map(u16::try_from) {
            Some(Ok(0)) => return Err(ignore("a page of none never ends")),
            Some(Ok(limit)) => limit,
            _ => return Err(ignore("not a number from 1 to 65535")),
        },
        ToString::to_string
    ),
    key!(
        disable_engine,
        Bool,
        Live,
        "never become leader",
        |c, v| boolean(v)?,
        ToString::to_string
    ),
    key!(
        disable_safety_ticks,
        Bool,
        Live,
        "no slow safety ticks at all (for tests)",
        |c, v| boolean(v)?,
        ToString::to_string
    ),
    without_effect!(
        disable_watches,
        Bool,
        "accepted for the original's sake: watches stay on, and cost an idle cluster nothing",
        boolean
    ),
    without_effect!(
        enable_grpc,
        Bool,
        "accepted for the original's sake: all talk goes through the store",
        boolean
    ),
    without_effect!(
        verify_units,
        Bool,
        "no longer supported, as in the original",
        boolean
    ),
    without_effect!(
        authorized_keys_file,
        Text,
        "no longer supported, as in the original",
        |_: &str| Ok::<_, Bad>(())
    ),
];

/// What is worth saying of a value that was taken.
pub(crate) fn remark(key: &Key, value: &str) -> Option<String> {
    let on = values::go_bool(value) == Some(true);
    match key.name {
        "disable_watches" if on => Some(
            "disable_watches has no effect: watches stay on, they cost an idle cluster nothing"
                .to_owned(),
        ),
        "enable_grpc" if on => {
            Some("enable_grpc has no effect: machines talk through the store alone".to_owned())
        }
        "metadata" => {
            let odd = values::metadata_oddities(value);
            (!odd.is_empty()).then(|| {
                format!(
                    "metadata: {} is no key=value and is passed over",
                    odd.join(", ")
                )
            })
        }
        _ => None,
    }
}

fn ignore(why: &str) -> Bad {
    Bad::Ignore(format!("{why}; the default is used"))
}

fn fatal(why: &str) -> Bad {
    Bad::Fatal(why.to_owned())
}

fn boolean(value: &str) -> Result<bool, Bad> {
    values::go_bool(value).ok_or_else(|| ignore("neither true nor false"))
}

fn seconds(value: &str) -> Result<Duration, Bad> {
    values::float_seconds(value)
        .filter(|d| !d.is_zero())
        .ok_or_else(|| ignore("not a number of seconds above 0"))
}

fn duration(value: &str) -> Result<Duration, Bad> {
    match values::go_duration(value) {
        Ok(time) if time.is_zero() => Err(fatal("must be more than 0")),
        Ok(time) => Ok(time),
        Err(why) => Err(fatal(&why)),
    }
}

fn directory(value: &str) -> Result<PathBuf, Bad> {
    let path = PathBuf::from(value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(fatal("not an absolute path")),
    }
}

fn optional(value: &str) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

fn show_optional(path: &Option<PathBuf>) -> String {
    path.as_deref().map(show_path).unwrap_or_default()
}

fn show_path(path: &Path) -> String {
    path.display().to_string()
}

fn show_seconds(time: &Duration) -> String {
    time.as_secs_f64().to_string()
}

/// As [`values::go_duration`] reads it.
fn show_duration(time: &Duration) -> String {
    match (time.as_secs(), time.subsec_nanos()) {
        (_, 0) => format!("{}s", time.as_secs()),
        (_, nanos) if nanos.is_multiple_of(1_000_000) => format!("{}ms", time.as_millis()),
        _ => format!("{}ns", time.as_nanos()),
    }
}

/// The sample of `fleet.conf`: every key with its default, commented out.
pub fn sample() -> String {
    let mut text = String::from(
        "# fleet.conf: every key with its default. The environment (FLEET_<KEY>) wins over this\n\
         # file, and the command line (--<key>=<value>) over both. `fleetd --check-config` prints\n\
         # what holds, and `systemctl reload fleet` takes changes over without touching a unit;\n\
         # keys marked (restart) need `systemctl restart fleet`, which touches none either.\n",
    );
    let defaults = Config::for_system();
    for key in KEYS {
        let mark = match key.reload {
            Reload::Live => "",
            Reload::Restart => " (restart)",
        };
        let value = (key.show)(&defaults);
        text.push_str(&format!("\n# {}{mark}\n# {}={value}\n", key.help, key.name));
    }
    text
}
