//! Doors for the fuzz targets in `fuzz/` to what reads the outside world and is nobody else's to
//! call. Nothing in fleetd uses them, so that no binary has them.

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::access::Caller;
use crate::listen;
use crate::units;

/// Serves one connection.
pub async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let (_stop, shutdown) = watch::channel(false);
    let caller = Caller::Unix {
        uid: 0,
        gid: 0,
        pid: None,
    };
    listen::http(stream, router, caller, shutdown).await;
}

/// Takes in what systemd says on its private socket, until it hangs up: each message is read as
/// the signals and as every answer that is ever asked for.
pub async fn systemd_says(bytes: &[u8]) {
    units::fuzz::systemd_says(bytes).await;
}

/// Reads a launch record; what would be written of it.
pub fn launch_record(text: &str) -> Option<String> {
    units::fuzz::launch_record(text)
}

/// The last lines of what journalctl exported.
pub fn journal(output: &[u8]) -> Vec<String> {
    units::fuzz::journal(output)
}
