//! What all answers share that go on for as long as somebody listens: how many there may be, what waits
//! for whoever is slow, and how they end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Api;
use super::failure::Failure;
use super::request::Reply;
use crate::shutdown::{Shutdown, stopped};
use crate::task;

/// So many may follow at the same time: each has a task, and what waits for it.
const MAX_FOLLOWERS: usize = 64;

/// Pieces that a follower has not taken yet.
const MAX_WAITING: usize = 16;

/// A follower that takes nothing for so long is cut off: what comes must not wait for it.
const SLOW: Duration = Duration::from_secs(10);

/// The end of following at a fleetd that stops.
pub(super) const STOPPED: &str = "fleetd is being stopped: follow on at another";

/// The end of following for whoever is [`SLOW`].
pub(super) fn too_slow() -> String {
    let seconds = SLOW.as_secs();
    format!("nothing was taken for {seconds} s: follow on from here")
}

/// How many follow at present.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followers(Arc<AtomicUsize>);

impl Followers {
    pub(super) fn enter(&self) -> Result<Follower, Failure> {
        let follower = Follower(Arc::clone(&self.0));
        if self.0.fetch_add(1, Ordering::Relaxed) >= MAX_FOLLOWERS {
            return Err(Failure::new(
                503,
                format!("{MAX_FOLLOWERS} requests follow already: try again later, or elsewhere"),
            ));
        }
        Ok(follower)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of them.
pub(super) struct Follower(Arc<AtomicUsize>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Follower {
    /// An answer of lines that `run` sends; what it returns is the last one.
    pub(super) fn reply<F>(self, state: &Api, run: impl FnOnce(Lines, Stop) -> F) -> Reply
    where
        F: Future<Output = Bytes> + Send + 'static,
    {
        let (lines, taken) = mpsc::channel(MAX_WAITING);
        let (last, last_line) = oneshot::channel();
        let run = run(Lines(lines), Stop(state.shutdown.clone()));
        task::spawn(async move {
            let line = run.await;
            // Whoever has gone does not hear why.
            let _ = last.send(line);
            drop(self);
        });
        let body = stream::unfold((taken, Some(last_line)), |(mut taken, last_line)| async {
            let piece = match taken.recv().await {
                Some(piece) => Some((piece, last_line)),
                None => last_line?.await.ok().map(|line| (line, None)),
            };
            piece.map(|(piece, last_line)| (Ok::<_, Infallible>(piece), (taken, last_line)))
        });
        Reply::text("application/x-ndjson", Body::from_stream(body))
    }
}

/// Where lines are sent.
pub(super) struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    /// Whether it was taken.
    pub(super) async fn send(&self, piece: Bytes) -> bool {
        // One that has gone is noticed by whoever waits for that.
        timeout(SLOW, self.0.send(piece)).await.is_ok()
    }

    /// Returns when nobody listens any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// The sign that fleetd stops.
pub(super) struct Stop(Option<Shutdown>);

impl Stop {
    /// Returns when it does.
    pub(super) async fn stopped(&mut self) {
        match &mut self.0 {
            Some(shutdown) => stopped(shutdown).await,
            None => std::future::pending().await,
        }
    }
}
