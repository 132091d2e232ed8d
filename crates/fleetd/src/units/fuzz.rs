//! What `crate::fuzz` opens of this module.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use zbus::connection::Builder;
use zbus::{MessageStream, OwnedObjectPath, OwnedVariant};

use super::connection::MAX_QUEUED;
use super::dbus::{self, LinkChange, Raw};
use super::files::UnitFiles;
use super::noise::Listener;
use super::{failure, last_words, private_socket};

/// Half of all units are its own.
#[derive(Debug)]
struct Half;

impl Listener for Half {
    fn is_own(&self, path: &str) -> bool {
        path.len().is_multiple_of(2)
    }

    fn main_pid_is(&self, _: &str, _: u32) {}
}

pub(crate) async fn systemd_says(bytes: &[u8]) {
    let Ok((here, mut there)) = UnixStream::pair() else {
        return;
    };
    let guid = "0123456789abcdef0123456789abcdef".to_owned();
    let socket = private_socket::over(here, guid, Arc::new(Half));
    let guid = socket.guid.clone();
    let connection = Builder::authenticated_socket(socket, guid.as_str())
        .p2p()
        .max_queued(MAX_QUEUED);
    let Ok(connection) = connection.build().await else {
        return;
    };
    let mut messages = MessageStream::from(&connection);
    let say = async move {
        // The reader may have had enough.
        let _ = there.write_all(bytes).await;
    };
    let listen = async {
        while let Some(Ok(message)) = messages.next().await {
            let _ = dbus::signal(&message, |_| true);
            let _ = dbus::decode::<Vec<Raw>>(&message);
            let _ = dbus::decode::<OwnedObjectPath>(&message);
            let _ = dbus::decode::<(bool, Vec<LinkChange>)>(&message);
            let _ = dbus::decode::<Vec<LinkChange>>(&message);
            if let Ok(properties) = dbus::decode::<HashMap<String, OwnedVariant>>(&message) {
                let _ = failure::in_words(&properties);
            }
            let _ = dbus::property_of::<String>(&message, "SystemState");
            let _ = dbus::property_of::<Vec<u8>>(&message, "InvocationID");
            let _ = dbus::property_of::<Vec<String>>(&message, "UnitPath");
        }
    };
    tokio::join!(say, listen);
}

pub(crate) fn launch_record(text: &str) -> Option<String> {
    const BOOT_ID: &str = "b1";
    let record = UnitFiles::parse_record(text, BOOT_ID).ok()?;
    Some(UnitFiles::record_text(&record, BOOT_ID))
}

pub(crate) fn journal(output: &[u8]) -> Vec<String> {
    last_words::last_lines(output, "")
}
