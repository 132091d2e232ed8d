//! What fleetd tells the systemd that started it: READY, STATUS, WATCHDOG, STOPPING. Without
//! NOTIFY_SOCKET in the environment nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use crate::shutdown::{Shutdown, stopped};

/// The API answers. It says so before the store is reached: a fleetd that waits for its store is
/// no failed service, and it tells clients what it waits for.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The configuration is read again. [`ready`] ends it.
pub fn reloading() {
    let mut state = vec![NotifyState::Reloading];
    // systemd 253 and newer (Type=notify-reload) want to know when.
    state.extend(NotifyState::monotonic_usec_now().ok());
    send(&state);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// An orderly end has begun.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Tells systemd twice per watchdog interval that this runtime still turns.
pub async fn watchdog(mut shutdown: Shutdown) {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
    else {
        return stopped(&mut shutdown).await;
    };
    // systemd's advice (sd_watchdog_enabled(3)): every half of the time.
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(2)) / 2);
    loop {
        tokio::select! {
            _ = ticks.tick() => send(&[NotifyState::Watchdog]),
            () = stopped(&mut shutdown) => return,
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "systemd was not told");
    }
}
