//! The machine's own end, as logind announces it.
//!
//! fleetd holds a `delay` lock: logind tells of a shutdown before it begins, and waits for the lock
//! to be given back, but no longer than its `InhibitDelayMaxSec=`. Where there is no logind a
//! shutdown begins at once, and what has to be said is said when fleetd is stopped.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tracing::{debug, info, warn};
use zbus::connection::Builder;
use zbus::{MessageStream, OwnedVariant, Variant};

use super::dbus::CallError;

const LOGIND: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const ANNOUNCEMENT: &str = "PrepareForShutdown";

/// Shown by `systemd-inhibit --list`.
const WHY: &str = "its units start on other machines first";

/// A logind that is not there, or was lost, is looked for this often: it is asked for by name, which
/// starts it, so that an earlier look would find nothing new.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// logind answers at once, or something is wrong with it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of the machine's end.
#[derive(Debug)]
pub(crate) struct Goodbye {
    /// How long a shutdown that was announced waits; None: the machine stays.
    announced: watch::Sender<Option<Duration>>,
    /// While it is held a shutdown waits.
    lock: Mutex<Option<OwnedFd>>,
}

impl Goodbye {
    pub(crate) fn new() -> Arc<Goodbye> {
        Arc::new(Goodbye {
            announced: watch::Sender::new(None),
            lock: Mutex::default(),
        })
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Duration>> {
        self.announced.subscribe()
    }

    /// Lets the shutdown begin.
    pub(crate) fn let_go(&self) {
        self.hold(None);
    }

    fn hold(&self, lock: Option<OwnedFd>) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
    }

    /// Listens to logind for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut was_there = true;
        loop {
            match self.listen().await {
                // Said once: many machines have no logind, and need none.
                Err(error) if was_there => {
                    info!(%error, "no logind tells before this machine shuts down");
                }
                Err(error) => debug!(%error, "logind is still not there"),
                Ok(()) => debug!("the connection to logind has ended"),
            }
            was_there = false;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Until the connection ends.
    async fn listen(&self) -> Result<(), CallError> {
        let late = |_| CallError::Transient("the system bus does not answer".to_owned());
        let connected = tokio::time::timeout(CALL_TIMEOUT, Builder::system().build());
        let connection = connected.await.map_err(late)??;
        let mut messages = MessageStream::from(&connection);
        let bus = Some("org.freedesktop.DBus");
        let rule = format!("type='signal',sender='{LOGIND}',path='{PATH}',member='{ANNOUNCEMENT}'");
        let path = "/org/freedesktop/DBus";
        let matches = (rule,);
        let listens = connection.call_method(bus, path, bus, "AddMatch", &matches);
        tokio::time::timeout(CALL_TIMEOUT, listens)
            .await
            .map_err(late)??;
        let logind = Logind { connection };
        let limit = Duration::from_micros(logind.limit().await?);
        self.hold(Some(logind.inhibit().await?));
        debug!(?limit, "a shutdown of this machine waits for its units");
        loop {
            // Anybody may send a signal of that name: what counts is what logind answers.
            let announced = logind.is_preparing().await?.then_some(limit);
            let before = self.announced.send_replace(announced);
            if before.is_some() && announced.is_none() {
                info!("the shutdown of this machine was called off");
                self.hold(Some(logind.inhibit().await?));
            }
            loop {
                let Some(message) = messages.next().await else {
                    return Ok(());
                };
                let message = message?;
                let header = message.header();
                if header
                    .member()
                    .is_some_and(|member| member.as_str() == ANNOUNCEMENT)
                {
                    break;
                }
            }
        }
    }
}

struct Logind {
    connection: zbus::Connection,
}

impl Logind {
    async fn inhibit(&self) -> Result<OwnedFd, CallError> {
        let reply = self
            .call(MANAGER, "Inhibit", &("shutdown", "fleet", WHY, "delay"))
            .await?;
        let lock: zbus::OwnedFd = reply.body().deserialize()?;
        Ok(lock.into())
    }

    /// For how long a shutdown waits at most, in microseconds.
    async fn limit(&self) -> Result<u64, CallError> {
        match &*self.property("InhibitDelayMaxUSec").await? {
            Variant::U64(limit) => Ok(*limit),
            other => Err(unreadable(other)),
        }
    }

    async fn is_preparing(&self) -> Result<bool, CallError> {
        match &*self.property("PreparingForShutdown").await? {
            Variant::Bool(preparing) => Ok(*preparing),
            other => Err(unreadable(other)),
        }
    }

    async fn property(&self, name: &str) -> Result<OwnedVariant, CallError> {
        let reply = self.call(PROPERTIES, "Get", &(MANAGER, name)).await?;
        Ok(reply.body().deserialize()?)
    }

    async fn call<B>(
        &self,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<zbus::Message, CallError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let call = self
            .connection
            .call_method(Some(LOGIND), PATH, Some(interface), method, body);
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(reply) => Ok(reply?),
            Err(_) => Err(CallError::Transient(format!(
                "logind did not answer {method} within {} s",
                CALL_TIMEOUT.as_secs()
            ))),
        }
    }
}

fn unreadable(answer: &Variant<'_>) -> CallError {
    warn!(?answer, "logind's answer cannot be read");
    CallError::Transient("logind's answer cannot be read".to_owned())
}
