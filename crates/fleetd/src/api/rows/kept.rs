//! A listing that is kept for a while, and kept true by a watch, for whoever asks again.
//!
//! It is a short cut and never authority: before it answers, the store is asked for its revision, and an
//! answer is given only when all changes up to there have come. Whatever is odd about it (the watch
//! breaks, it falls behind, the store is another one, it grows too large), it is dropped, and the store
//! is read. Nobody asks for [`KEEP_FOR`], and it is dropped as well: an idle fleetd holds nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::table::{Presence, Row, Table};
use crate::store::{Error, Event, Range, Revision, Store, Watch, WatchBatch, keys};

/// Whoever looks again and again does so within seconds.
const KEEP_FOR: Duration = Duration::from_secs(10);

/// About what a kept listing may take: 150,000 units. In larger clusters the store is read each time.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// How long an answer waits for changes that the store has and the watch has not brought yet: no longer
/// than reading takes, which is about this and so much for each unit. They come within a millisecond; when
/// others write to the same etcd, they never come.
const BEHIND: Duration = Duration::from_millis(20);
const BEHIND_A_UNIT: Duration = Duration::from_micros(20);

/// The kept listing of a process.
#[derive(Clone)]
pub(crate) struct Kept {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listing: Option<Listing>,
    /// Somebody reads one to be kept.
    is_reading: bool,
    next_id: u64,
}

struct Listing {
    id: u64,
    table: Table,
    /// Everything up to here is in the table.
    revision: watch::Sender<Revision>,
    /// What told that it is this store when the listing was first asked.
    cluster: Option<Vec<u8>>,
    asked: Instant,
    watch: AbortHandle,
}

/// The right to read a listing that is kept: one at a time.
pub(super) struct Permit(Arc<Shared>);

/// A listing as it was at a revision.
pub(super) struct Whole {
    pub(super) revision: Revision,
    pub(super) rows: Vec<Arc<Row>>,
    pub(super) presence: Arc<Presence>,
    pub(super) warnings: Vec<String>,
}

impl Kept {
    pub(crate) fn new(store: Arc<dyn Store>) -> Kept {
        Kept {
            shared: Arc::new(Shared {
                store,
                state: Mutex::default(),
            }),
        }
    }

    /// None: somebody else reads one already.
    pub(super) fn permit(&self) -> Option<Permit> {
        let mut state = self.shared.lock();
        if std::mem::replace(&mut state.is_reading, true) {
            return None;
        }
        Some(Permit(Arc::clone(&self.shared)))
    }

    /// Keeps what was read at a revision.
    pub(super) fn keep(&self, permit: Permit, table: Table, revision: Revision) {
        let shared = &self.shared;
        let mut state = shared.lock();
        let id = state.next_id;
        state.next_id += 1;
        let watch = tokio::spawn(follow(Arc::clone(shared), id, revision)).abort_handle();
        state.drop_listing();
        state.listing = Some(Listing {
            id,
            table,
            revision: watch::Sender::new(revision),
            cluster: None,
            asked: Instant::now(),
            watch,
        });
        // It locks, too.
        drop(state);
        drop(permit);
    }

    /// The units behind `after` as they are now; None: the store is to be read.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn whole(&self, after: Option<&str>) -> Result<Option<Whole>, Error> {
        let Some((id, mut revision, bound)) = self.shared.asked() else {
            return Ok(None);
        };
        let before = *revision.borrow();
        let who = Range {
            prefix: keys::CLUSTER.to_owned(),
            limit: Some(1),
            ..Range::default()
        };
        let now = self.shared.store.read(who).await?;
        let cluster = now.entries.into_iter().next().map(|entry| entry.value);
        let has_come = revision.wait_for(|seen| *seen >= now.revision);
        let is_behind = !matches!(timeout(bound, has_come).await, Ok(Ok(_)));
        let mut state = self.shared.lock();
        let Some(listing) = state.listing.as_mut().filter(|listing| listing.id == id) else {
            return Ok(None);
        };
        let known = listing
            .cluster
            .get_or_insert_with(|| cluster.clone().unwrap_or_default());
        let is_other = *known != cluster.unwrap_or_default() || now.revision < before;
        if is_behind || is_other || listing.table.is_too_much(MAX_BYTES) {
            state.drop_listing();
            return Ok(None);
        }
        let (rows, _) = listing.table.live(after, usize::MAX);
        Ok(Some(Whole {
            revision: *listing.revision.borrow(),
            rows,
            presence: listing.table.presence(),
            warnings: listing
                .table
                .damaged()
                .map(|(_, why)| why.to_owned())
                .collect(),
        }))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().is_reading = false;
    }
}

impl Shared {
    /// A panic elsewhere leaves a table that is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody asks. Says which listing there is, how far it has come, and how long it may
    /// be waited for.
    fn asked(&self) -> Option<(u64, watch::Receiver<Revision>, Duration)> {
        let mut state = self.lock();
        let listing = state.listing.as_mut()?;
        listing.asked = Instant::now();
        let n_units = u32::try_from(listing.table.len()).unwrap_or(u32::MAX);
        let bound = BEHIND + BEHIND_A_UNIT.saturating_mul(n_units);
        Some((listing.id, listing.revision.subscribe(), bound))
    }

    /// None: it is not kept any more.
    fn kept_until(&self, id: u64) -> Option<Instant> {
        let state = self.lock();
        let listing = state.listing.as_ref().filter(|listing| listing.id == id)?;
        Some(listing.asked + KEEP_FOR)
    }

    /// False: the listing is not kept any more.
    fn apply(&self, id: u64, batch: &WatchBatch) -> bool {
        let mut state = self.lock();
        let Some(listing) = state.listing.as_mut().filter(|listing| listing.id == id) else {
            return false;
        };
        for event in &batch.events {
            match event {
                Event::Put(entry) => listing.table.put(entry),
                Event::Delete { key, .. } => listing.table.apply(key, None),
            }
        }
        listing.revision.send_replace(batch.revision);
        if listing.table.is_too_much(MAX_BYTES) {
            state.listing = None;
            return false;
        }
        true
    }

    fn forget(&self, id: u64) {
        let mut state = self.lock();
        let is_it = state
            .listing
            .as_ref()
            .is_some_and(|listing| listing.id == id);
        if is_it {
            state.listing = None;
        }
    }
}

impl State {
    fn drop_listing(&mut self) {
        if let Some(listing) = self.listing.take() {
            listing.watch.abort();
        }
    }
}

/// Keeps a listing true until nobody asks for it any more, or something is odd.
async fn follow(shared: Arc<Shared>, id: u64, revision: Revision) {
    // From the listing's own revision, so that nothing is missed.
    match shared.store.watch("", revision).await {
        Ok(mut watch) => take_in(&shared, id, &mut watch).await,
        Err(error) => tracing::debug!(%error, "a listing is not kept"),
    }
    shared.forget(id);
}

async fn take_in(shared: &Shared, id: u64, watch: &mut Watch) {
    while let Some(until) = shared.kept_until(id) {
        let batch = tokio::select! {
            batch = watch.next() => batch,
            () = sleep_until(until) => {
                // Somebody may have asked meanwhile.
                match shared.kept_until(id) {
                    Some(later) if later > until => continue,
                    _ => return,
                }
            }
        };
        match batch {
            Some(Ok(batch)) if shared.apply(id, &batch) => {}
            Some(Ok(_)) | None => return,
            Some(Err(error)) => {
                tracing::debug!(%error, "the watch of a kept listing broke");
                return;
            }
        }
    }
}
