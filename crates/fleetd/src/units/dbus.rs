//! The few methods of systemd that are used, and its errors by what is done about them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use zbus::DBusError as _;
use zbus::message::{Message, Sequence};
use zbus::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

use super::properties;
use crate::failpoint::{self, Failed};

pub(crate) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT_PREFIX: &str = "/org/freedesktop/systemd1/unit/";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The interface that all types of units have.
pub(crate) const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// That of services.
pub(crate) const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// systemd answers within milliseconds unless it reloads; a reload of 5,000 units took 4 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Generators may be slow; systemd itself gives them 90 s. While it reloads it answers nobody, so that
/// this is also how long a call waits during which somebody has it reload.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// systemd's manager object.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    connection: zbus::Connection,
    /// Its name on a bus; nobody needs to be named on the private socket.
    destination: Option<&'static str>,
    /// Told when a call was not answered: whatever comes over this connection, it is not trusted.
    silent: Arc<Notify>,
    reloads: Arc<Reloads>,
}

/// Whether systemd reloads, for us or for somebody else.
#[derive(Debug, Default)]
struct Reloads {
    /// Calls of ours in flight.
    asked: AtomicU64,
    /// systemd's signals have told of one that has not ended.
    told: AtomicBool,
    /// How many have begun.
    n_begun: AtomicU64,
}

impl Reloads {
    /// Changes when a reload begins; None while there is one.
    fn calm(&self) -> Option<u64> {
        let is_calm = self.asked.load(Ordering::Relaxed) == 0 && !self.told.load(Ordering::Relaxed);
        is_calm.then(|| self.n_begun.load(Ordering::Relaxed))
    }

    fn begin(&self) -> Asked<'_> {
        self.n_begun.fetch_add(1, Ordering::Relaxed);
        self.asked.fetch_add(1, Ordering::Relaxed);
        Asked(self)
    }
}

/// A reload of ours, until its call has ended, however it ends.
struct Asked<'a>(&'a Reloads);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Failures of a call, by what is done about them.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// systemd knows no unit of this name, or of one that it needs.
    #[error("{0}")]
    NoSuchUnit(String),
    /// It knows the unit, and its file makes no sense.
    #[error("{0}")]
    BadUnit(String),
    /// It will fail again however often it is asked.
    #[error("{0}")]
    Permanent(String),
    /// It may pass.
    #[error("{0}")]
    Transient(String),
    /// The connection is gone; everything is looked at anew once there is another.
    #[error("the connection to systemd is lost: {0}")]
    Lost(String),
    /// It was not asked for: something else is wanted of the unit by now.
    #[error("something else is wanted by now")]
    Overtaken,
}

/// A row of `ListUnitsByNames`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) sub: String,
    /// `start`, `stop`, … and the job's path.
    pub(crate) job: Option<(String, OwnedObjectPath)>,
}

/// A link that was made by enabling a unit, or removed by disabling it: its path.
pub(crate) type LinkPath = String;

/// What was done, the link, and what it leads to.
pub(crate) type LinkChange = (String, String, String);

/// A row of `ListUnitsByNames` as it comes.
pub(crate) type Raw = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

fn paths_of(changes: Vec<LinkChange>, what: &str) -> Vec<LinkPath> {
    let changes = changes.into_iter().filter(|(kind, _, _)| kind == what);
    changes.map(|(_, link, _)| link).collect()
}

impl Manager {
    /// Over the private socket.
    pub(crate) fn private(connection: zbus::Connection) -> Self {
        Manager {
            connection,
            destination: None,
            silent: Arc::default(),
            reloads: Arc::default(),
        }
    }

    /// Over a bus.
    pub(crate) fn on_bus(connection: zbus::Connection) -> Self {
        Manager {
            connection,
            destination: Some("org.freedesktop.systemd1"),
            silent: Arc::default(),
            reloads: Arc::default(),
        }
    }

    /// Waits until systemd has left a call without an answer.
    pub(crate) async fn fell_silent(&self) {
        self.silent.notified().await;
    }

    /// systemd has told that a reload begins or ends.
    pub(crate) fn reloading(&self, begins: bool) {
        if begins {
            self.reloads.n_begun.fetch_add(1, Ordering::Relaxed);
        }
        self.reloads.told.store(begins, Ordering::Relaxed);
    }

    pub(crate) async fn start_unit(&self, unit: &str) -> Result<OwnedObjectPath, CallError> {
        self.job("StartUnit", unit).await
    }

    pub(crate) async fn restart_unit(&self, unit: &str) -> Result<OwnedObjectPath, CallError> {
        self.job("RestartUnit", unit).await
    }

    pub(crate) async fn stop_unit(&self, unit: &str) -> Result<OwnedObjectPath, CallError> {
        self.job("StopUnit", unit).await
    }

    pub(crate) async fn reset_failed_unit(&self, unit: &str) -> Result<(), CallError> {
        self.manager("ResetFailedUnit", &(unit,)).await.map(drop)
    }

    /// The unit's object if systemd has it in memory. Loads nothing.
    pub(crate) async fn get_unit(&self, unit: &str) -> Result<OwnedObjectPath, CallError> {
        self.manager_for("GetUnit", &(unit,)).await
    }

    /// Reads all unit files of the machine anew. Expensive: see limits of systemd.
    pub(crate) async fn reload(&self) -> Result<(), CallError> {
        let _asked = self.reloads.begin();
        let call = self.call(MANAGER_PATH, MANAGER, "Reload", &(), RELOAD_TIMEOUT);
        call.await.map(drop)
    }

    /// Enables for this boot; the links that were made. None: the unit file has nothing that
    /// could be enabled.
    pub(crate) async fn enable(&self, path: &str) -> Result<Option<Vec<LinkPath>>, CallError> {
        // Not by force: a name or alias of the machine's own is never taken over.
        let body = (vec![path], true, false);
        let (can_be_enabled, changes): (bool, Vec<LinkChange>) =
            self.manager_for("EnableUnitFiles", &body).await?;
        Ok(can_be_enabled.then(|| paths_of(changes, "symlink")))
    }

    /// Removes all links of this boot to these units; the links that were removed.
    pub(crate) async fn disable(&self, units: &[String]) -> Result<Vec<LinkPath>, CallError> {
        let changes: Vec<LinkChange> = self.manager_for("DisableUnitFiles", &(units, true)).await?;
        Ok(paths_of(changes, "unlink"))
    }

    /// The states of units, and the position of the answer among the signals.
    pub(crate) async fn list_by_names(
        &self,
        units: &[String],
    ) -> Result<(Vec<Row>, Sequence), CallError> {
        let reply = self.manager("ListUnitsByNames", &(units,)).await?;
        Ok((decode_rows(&reply)?, reply.recv_position()))
    }

    /// Starts a timer that systemd makes up: it elapses so many microseconds after systemd itself
    /// began to start units, at once if that has passed, and starts the service of its name.
    pub(crate) async fn start_timer(
        &self,
        timer: &str,
        elapses_us: u64,
        description: &str,
    ) -> Result<OwnedObjectPath, CallError> {
        let properties = vec![
            ("Description", Variant::from(description)),
            (
                "TimersMonotonic",
                Variant::from(vec![("OnStartupSec", elapses_us)]),
            ),
            // systemd's own minute would make a lease of seconds one of minutes.
            ("AccuracyUSec", Variant::from(1_000_u64)),
            ("RemainAfterElapse", Variant::from(false)),
        ];
        type Auxiliary<'a> = Vec<(&'a str, Vec<(&'a str, Variant<'a>)>)>;
        let body = (timer, "fail", properties, Auxiliary::new());
        self.manager_for("StartTransientUnit", &body).await
    }

    /// When systemd began to start units: microseconds of the monotonic clock.
    pub(crate) async fn began_at(&self) -> Result<u64, CallError> {
        let name = "UserspaceTimestampMonotonic";
        self.property(MANAGER_PATH, MANAGER, name).await
    }

    /// The names of the units in memory that match a pattern.
    pub(crate) async fn names_like(&self, pattern: &str) -> Result<Vec<String>, CallError> {
        let states: Vec<&str> = Vec::new();
        let body = (states, vec![pattern]);
        let reply = self.manager("ListUnitsByPatterns", &body).await?;
        Ok(decode_rows(&reply)?
            .into_iter()
            .map(|row| row.name)
            .collect())
    }

    /// The directories where systemd looks for unit files, the strongest first.
    pub(crate) async fn unit_path(&self) -> Result<Vec<String>, CallError> {
        self.property(MANAGER_PATH, MANAGER, "UnitPath").await
    }

    /// On a bus, signals come to those only who ask for them.
    pub(crate) async fn subscribe(&self) -> Result<(), CallError> {
        self.manager("Subscribe", &()).await.map(drop)
    }

    /// One property of an object.
    pub(crate) async fn property<T>(
        &self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<T, CallError>
    where
        T: TryFrom<OwnedVariant>,
    {
        let body = (interface, name);
        let reply = self
            .call(path, PROPERTIES, "Get", &body, CALL_TIMEOUT)
            .await?;
        property_of(&reply, name)
    }

    /// `running`, `degraded`, `stopping`, …
    pub(crate) async fn system_state(&self) -> Result<String, CallError> {
        self.property(MANAGER_PATH, MANAGER, "SystemState").await
    }

    /// All properties of an object's interface.
    pub(crate) async fn properties(
        &self,
        path: &str,
        interface: &str,
    ) -> Result<HashMap<String, OwnedVariant>, CallError> {
        let reply = self
            .call(path, PROPERTIES, "GetAll", &(interface,), CALL_TIMEOUT)
            .await?;
        decode(&reply)
    }

    async fn job(&self, method: &str, unit: &str) -> Result<OwnedObjectPath, CallError> {
        self.manager_for(method, &(unit, "replace")).await
    }

    async fn manager_for<B, T>(&self, method: &str, body: &B) -> Result<T, CallError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        T: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
    {
        decode(&self.manager(method, body).await?)
    }

    async fn manager<B>(&self, method: &str, body: &B) -> Result<Message, CallError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        self.call(MANAGER_PATH, MANAGER, method, body, CALL_TIMEOUT)
            .await
    }

    async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
        timeout: Duration,
    ) -> Result<Message, CallError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let calm = self.reloads.calm();
        let call =
            self.connection
                .call_method(self.destination, path, Some(interface), method, body);
        let bounded = async {
            tokio::pin!(call);
            if let Ok(reply) = tokio::time::timeout(timeout, &mut call).await {
                return Ok(reply?);
            }
            // It is silent to everybody while it reloads.
            if calm.is_none() || calm != self.reloads.calm() {
                let longer = RELOAD_TIMEOUT.saturating_sub(timeout);
                if let Ok(reply) = tokio::time::timeout(longer, &mut call).await {
                    return Ok(reply?);
                }
            }
            self.silent.notify_one();
            Err(CallError::Lost(format!(
                "systemd did not answer {method} in time"
            )))
        };
        let failed = |failed: Failed| CallError::Transient(failed.to_string());
        failpoint::call("systemd", method, bounded, failed).await
    }
}

impl From<zbus::Error> for CallError {
    fn from(error: zbus::Error) -> Self {
        let (name, text) = match &error {
            zbus::Error::MethodError(name, text, _) => (name.to_string(), text.clone()),
            // zbus has an error of its own for each of D-Bus's names.
            zbus::Error::FDO(fdo) => (fdo.name().to_string(), fdo.description().map(Into::into)),
            _ => return CallError::Lost(error.to_string()),
        };
        let text = text.unwrap_or_else(|| name.clone());
        match name.as_str() {
            "org.freedesktop.systemd1.NoSuchUnit" => CallError::NoSuchUnit(text),
            // It passes when what is under way is done.
            "org.freedesktop.systemd1.ShuttingDown"
            | "org.freedesktop.systemd1.TransactionIsDestructive"
            | "org.freedesktop.systemd1.NoIsolation" => CallError::Transient(text),
            "org.freedesktop.DBus.Error.Disconnected"
            | "org.freedesktop.DBus.Error.NameHasNoOwner"
            | "org.freedesktop.DBus.Error.ServiceUnknown" => CallError::Lost(text),
            // polkit would let somebody who can type a password.
            "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
            | "org.freedesktop.DBus.Error.AccessDenied" => {
                CallError::Permanent(format!("{text}: {MAY_NOT}"))
            }
            "org.freedesktop.DBus.Error.InvalidArgs"
            | "org.freedesktop.DBus.Error.NotSupported"
            | "org.freedesktop.DBus.Error.FileExists" => CallError::Permanent(text),
            "org.freedesktop.systemd1.BadUnitSetting" => CallError::BadUnit(text),
            name if name.starts_with("org.freedesktop.systemd1.") => CallError::Permanent(text),
            _ => CallError::Transient(text),
        }
    }
}

/// What to do when systemd refuses who asks.
const MAY_NOT: &str = "fleetd may not manage units as the user that it runs as: let it run as root, \
    or let polkitd run with the rule 50-fleet.rules, which is for the user fleet";

/// The value in the answer to a question for one property.
pub(crate) fn property_of<T>(reply: &Message, name: &str) -> Result<T, CallError>
where
    T: TryFrom<OwnedVariant>,
{
    let value: OwnedVariant = decode(reply)?;
    T::try_from(value)
        .map_err(|_| CallError::Transient(format!("systemd's {name} is of an unknown type")))
}

/// The object path of a unit.
pub(crate) fn unit_object(unit: &str) -> String {
    let mut path = String::with_capacity(UNIT_PREFIX.len() + unit.len() + 16);
    path.push_str(UNIT_PREFIX);
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && index > 0) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// A signal of systemd, as far as it is of use.
#[derive(Debug)]
pub(crate) enum Signal {
    /// A unit's state has changed.
    State {
        path: String,
        active: Option<String>,
        sub: Option<String>,
        invocation_id: Option<String>,
    },
    /// A job is done: path, unit, result.
    JobRemoved(String, String, String),
    /// systemd has dropped a unit from its memory.
    UnitRemoved(String),
    /// A reload begins or ends.
    Reloading(bool),
}

/// Reads a signal. `is_own` tells whether an object path is of interest, before anything is decoded.
pub(crate) fn signal(message: &Message, is_own: impl Fn(&str) -> bool) -> Option<Signal> {
    let header = message.header();
    let (path, member) = (header.path()?.as_str(), header.member()?.as_str());
    let body = message.body();
    if path == MANAGER_PATH {
        return match member {
            "JobRemoved" => {
                let (_, job, unit, result): (u32, ObjectPath<'_>, &str, &str) =
                    body.deserialize().ok()?;
                Some(Signal::JobRemoved(
                    job.as_str().to_owned(),
                    unit.to_owned(),
                    result.to_owned(),
                ))
            }
            "UnitRemoved" => {
                let (unit, _): (&str, ObjectPath<'_>) = body.deserialize().ok()?;
                Some(Signal::UnitRemoved(unit.to_owned()))
            }
            "Reloading" => Some(Signal::Reloading(body.deserialize().ok()?)),
            _ => None,
        };
    }
    if member != "PropertiesChanged" || !is_own(path) {
        return None;
    }
    let changed = properties::changed(message.data(), UNIT)?;
    Some(Signal::State {
        path: path.to_owned(),
        active: changed.active,
        sub: changed.sub,
        invocation_id: changed.invocation_id.map(hex),
    })
}

/// Bytes in hex, as systemd shows ids.
pub(crate) fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes
        .into_iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What the listings of units answer.
fn decode_rows(reply: &Message) -> Result<Vec<Row>, CallError> {
    let rows: Vec<Raw> = decode(reply)?;
    let rows = rows.into_iter().map(|raw| Row {
        name: raw.0,
        description: raw.1,
        load: raw.2,
        active: raw.3,
        sub: raw.4,
        job: (raw.7 != 0).then_some((raw.8, raw.9)),
    });
    Ok(rows.collect())
}

pub(crate) fn decode<T>(reply: &Message) -> Result<T, CallError>
where
    T: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
{
    reply
        .body()
        .deserialize()
        .map_err(|error| CallError::Transient(format!("systemd's answer cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_no_lost_connections() {
        use zbus::fdo::Error as Fdo;
        let of = |error: Fdo| CallError::from(zbus::Error::from(error));
        for error in [
            Fdo::InteractiveAuthorizationRequired("no".into()),
            Fdo::AccessDenied("no".into()),
        ] {
            let refused = of(error);
            assert!(matches!(refused, CallError::Permanent(_)), "{refused:?}");
            assert!(refused.to_string().contains("50-fleet.rules"), "{refused}");
        }
        for error in [Fdo::InvalidArgs("no".into()), Fdo::FileExists("no".into())] {
            let refused = of(error);
            assert!(matches!(refused, CallError::Permanent(_)), "{refused:?}");
        }
        for error in [
            Fdo::ServiceUnknown("no".into()),
            Fdo::Disconnected("no".into()),
        ] {
            let lost = of(error);
            assert!(matches!(lost, CallError::Lost(_)), "{lost:?}");
        }
    }

    #[test]
    fn object_paths_are_escaped_as_systemd_does() {
        for (unit, path) in [
            ("hello.service", "hello_2eservice"),
            ("1a@b-c.socket", "_31a_40b_2dc_2esocket"),
            ("a\\x2db.mount", "a_5cx2db_2emount"),
        ] {
            assert_eq!(unit_object(unit), format!("{UNIT_PREFIX}{path}"));
        }
    }
}
