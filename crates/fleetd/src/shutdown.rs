//! How the parts of the daemon are told to stop.

use tokio::sync::watch;

/// True means stop. A dropped sender means the same.
pub type Shutdown = watch::Receiver<bool>;

/// Returns when it is time to stop.
pub async fn stopped(shutdown: &mut Shutdown) {
    // An error says that the sender is gone: nobody could tell us any more.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
