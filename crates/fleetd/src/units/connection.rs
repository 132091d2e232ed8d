//! Reaching systemd: its private socket where that can be had, else the system bus.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zbus::MessageStream;
use zbus::connection::Builder;

use super::dbus::{CallError, Manager};
use super::noise::Listener;
use super::private_socket;

/// How systemd is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// The private socket, or the system bus if the socket refuses us.
    System(PathBuf),
    /// The private socket only: a user's own systemd.
    Private(PathBuf),
    /// The system bus only.
    Bus,
}

/// Messages that may wait for our reader. A start makes about thirty; the reader is always
/// polled, so this only evens out bursts. What waits is a kilobyte each, and the queue itself is
/// never given back.
pub(crate) const MAX_QUEUED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// A connection to systemd and everything that it says.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) manager: Manager,
    pub(crate) messages: MessageStream,
    /// On a bus: the only peer whose signals count. Anybody may send signals there.
    pub(crate) sender: Option<String>,
}

/// Connects; the error says what was tried. Over the socket, what is said of units that are not our
/// own (by their object paths) is not heard.
pub(crate) async fn connect(
    transport: &Transport,
    listener: Arc<dyn Listener>,
) -> Result<Connected, CallError> {
    match transport {
        Transport::Private(path) => private(path, listener).await,
        Transport::Bus => bus().await,
        Transport::System(path) => match private(path, listener).await {
            Ok(connected) => Ok(connected),
            Err(private_error) => bus().await.map_err(|bus_error| {
                CallError::Lost(format!("{private_error}; the system bus: {bus_error}"))
            }),
        },
    }
}

async fn private(path: &Path, listener: Arc<dyn Listener>) -> Result<Connected, CallError> {
    let lost = |error: String| CallError::Lost(format!("{}: {error}", path.display()));
    let socket = private_socket::connect(path, listener)
        .await
        .map_err(|error| lost(error.to_string()))?;
    let guid = socket.guid.clone();
    let connection = Builder::authenticated_socket(socket, guid.as_str())
        .p2p()
        .max_queued(MAX_QUEUED)
        .build()
        .await
        .map_err(|error| lost(error.to_string()))?;
    Ok(Connected {
        messages: MessageStream::from(&connection),
        manager: Manager::private(connection),
        sender: None,
    })
}

async fn bus() -> Result<Connected, CallError> {
    let connection = Builder::system().max_queued(MAX_QUEUED).build().await?;
    let messages = MessageStream::from(&connection);
    // One rule for everything that systemd says; filtering by path is cheaper here than there.
    let rule = "type='signal',sender='org.freedesktop.systemd1',\
                path_namespace='/org/freedesktop/systemd1'";
    let bus = Some("org.freedesktop.DBus");
    let path = "/org/freedesktop/DBus";
    connection
        .call_method(bus, path, bus, "AddMatch", &(rule,))
        .await?;
    let owner = connection
        .call_method(
            bus,
            path,
            bus,
            "GetNameOwner",
            &("org.freedesktop.systemd1",),
        )
        .await?;
    let sender: String = owner.body().deserialize()?;
    let manager = Manager::on_bus(connection);
    manager.subscribe().await?;
    Ok(Connected {
        manager,
        messages,
        sender: Some(sender),
    })
}
