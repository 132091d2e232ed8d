//! Forgetting the store's history, so that it does not grow for ever. The leader does it, only
//! after writes, and keeps the last five minutes for watches that fell behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::store::{Revision, Store};
use crate::task;

/// History that is kept: a watch that was away for less resumes without reading everything.
const KEEP: Duration = Duration::from_secs(300);

/// Revisions are noted this often at most, and forgotten as often.
const EVERY: Duration = Duration::from_secs(60);

/// Notes revisions and forgets old ones.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    noted: VecDeque<(Instant, Revision)>,
}

impl Compactor {
    /// Notes a revision that was just seen.
    pub(crate) fn note(&mut self, revision: Revision) {
        let now = Instant::now();
        match self.noted.back() {
            Some((at, last)) if now - *at < EVERY || *last >= revision => {}
            _ => self.noted.push_back((now, revision)),
        }
    }

    /// When the oldest noted revision may be forgotten.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.noted.front().map(|(at, _)| *at + KEEP)
    }

    /// Forgets what is due, in the background: it may take a large store seconds.
    pub(crate) fn run(&mut self, store: &Arc<dyn Store>) {
        let now = Instant::now();
        let mut forget = None;
        while let Some((at, revision)) = self.noted.front().copied()
            && at + KEEP <= now
        {
            forget = Some(revision);
            self.noted.pop_front();
        }
        if let Some(revision) = forget {
            let store = Arc::clone(store);
            task::spawn(async move {
                // Somebody else may have compacted further; the next one comes in a minute.
                let outcome = store.compact(revision).await;
                debug!(revision, ?outcome, "history forgotten");
            });
        }
    }
}
