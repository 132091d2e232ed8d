//! A listing that is kept for a while, and kept true by a watch, for whoever asks again.
//!
//! It is a short cut and never authority: before it answers, the store is asked for its revision, and an
//! answer is given only when all changes up to there have come. Whatever is odd about it (the watch
//! breaks, it falls behind, the store is another one, it grows too large), it is dropped, and the store
//! is read. Nobody asks for [`KEEP_FOR`], and it is dropped as well: an idle fleetd holds nothing.
//!
//! Whoever watches units ([`super::watched`]) shares it: as long as somebody does it is kept, and
//! remembers what changed lately ([`Log`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::log::Log;
use super::table::{Presence, Row, Table};
use crate::store::{Error, Event, Range, Revision, Store, Watch, WatchBatch, keys};

/// Whoever looks again and again does so within seconds.
const KEEP_FOR: Duration = Duration::from_secs(10);

/// About what a kept listing may take: 150,000 units. In larger clusters the store is read each time.
const MAX_BYTES: usize = 64 << 20;

/// About what it may take while somebody watches: a million units. Without it each change would be read
/// from the store, once for each that watches.
const MAX_WATCHED_BYTES: usize = 512 << 20;

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
    /// The right to read one to be kept.
    reading: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    listing: Option<Listing>,
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
    log: Log,
    /// Each that watches has one, too.
    watchers: Arc<()>,
}

/// The right to read a listing that is kept: one at a time.
pub(super) struct Permit {
    _reading: OwnedSemaphorePermit,
    /// About what may be kept.
    pub(super) max_bytes: usize,
}

/// One that watches. The listing is kept as long as it lives, unless that cannot be.
pub(super) struct Watching {
    shared: Arc<Shared>,
    id: u64,
    revision: watch::Receiver<Revision>,
    _watcher: Arc<()>,
}

/// What has changed after a revision.
pub(super) struct Changes {
    /// Up to here.
    pub(super) revision: Revision,
    /// In byte order of the names; None: there is no such unit any more.
    pub(super) rows: Vec<(Arc<str>, Option<Arc<Row>>)>,
    pub(super) presence: Arc<Presence>,
    /// The keys of records that cannot be read, and what is wrong with them.
    pub(super) damaged: Vec<(String, String)>,
}

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
                reading: Arc::new(Semaphore::new(1)),
            }),
        }
    }

    /// None: somebody else reads one already.
    pub(super) fn permit(&self) -> Option<Permit> {
        let reading = Arc::clone(&self.shared.reading);
        Some(Permit {
            _reading: reading.try_acquire_owned().ok()?,
            max_bytes: MAX_BYTES,
        })
    }

    /// As above, for whoever watches: waits until nobody else reads one.
    pub(super) async fn permit_to_watch(&self) -> Option<Permit> {
        let reading = Arc::clone(&self.shared.reading);
        Some(Permit {
            _reading: reading.acquire_owned().await.ok()?,
            max_bytes: MAX_WATCHED_BYTES,
        })
    }

    /// Keeps what was read at a revision.
    pub(super) fn keep(&self, permit: Permit, table: Table, revision: Revision) {
        let shared = &self.shared;
        let mut state = shared.lock();
        // What others watch stays.
        if !state.listing.as_ref().is_some_and(Listing::is_watched) {
            shared.begin(&mut state, table, revision);
        }
        drop(state);
        drop(permit);
    }

    /// Watches what is kept; None: nothing is.
    pub(super) fn watch(&self) -> Option<Watching> {
        self.shared
            .lock()
            .listing
            .as_ref()
            .map(|l| l.watching(&self.shared))
    }

    /// Keeps what was read, and watches it.
    pub(super) fn keep_watching(
        &self,
        permit: Permit,
        table: Table,
        revision: Revision,
    ) -> Watching {
        let shared = &self.shared;
        let mut state = shared.lock();
        let listing = shared.begin(&mut state, table, revision);
        let watching = listing.watching(shared);
        drop(state);
        drop(permit);
        watching
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
        // Those who watch hear sooner or later what is missing.
        let is_useless = is_other || (is_behind && !listing.is_watched());
        if is_useless || listing.is_too_much() {
            state.drop_listing();
            return Ok(None);
        }
        if is_behind {
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

impl Listing {
    fn is_watched(&self) -> bool {
        Arc::strong_count(&self.watchers) > 1
    }

    fn is_too_much(&self) -> bool {
        self.table.is_too_much(match self.is_watched() {
            true => MAX_WATCHED_BYTES,
            false => MAX_BYTES,
        })
    }

    fn watching(&self, shared: &Arc<Shared>) -> Watching {
        Watching {
            shared: Arc::clone(shared),
            id: self.id,
            revision: self.revision.subscribe(),
            _watcher: Arc::clone(&self.watchers),
        }
    }

    fn changes(&self, mut names: Vec<Arc<str>>) -> Changes {
        names.sort_unstable();
        names.dedup();
        let rows = names.into_iter().map(|name| {
            let row = self.table.row(&name).map(Arc::clone);
            (name, row)
        });
        let damaged = self.table.damaged();
        Changes {
            revision: *self.revision.borrow(),
            rows: rows.collect(),
            presence: self.table.presence(),
            damaged: damaged
                .map(|(key, why)| (key.to_owned(), why.to_owned()))
                .collect(),
        }
    }
}

impl Watching {
    /// Returns when there may be something after a revision, or the listing is not kept any more.
    pub(super) async fn changed(&mut self, after: Revision) {
        let _ = self.revision.wait_for(|seen| *seen > after).await;
    }

    /// What has changed after a revision; None: that is not known any more.
    pub(super) fn changes(&self, after: Revision) -> Option<Changes> {
        self.of_listing(|listing| {
            let names = listing.log.after(after)?;
            Some(listing.changes(names))
        })
    }

    /// All units, as changes from nothing.
    pub(super) fn all(&self) -> Option<Changes> {
        self.of_listing(|listing| {
            let (rows, _) = listing.table.live(None, usize::MAX);
            Some(Changes {
                rows: rows
                    .into_iter()
                    .map(|row| (Arc::clone(&row.name), Some(row)))
                    .collect(),
                ..listing.changes(Vec::new())
            })
        })
    }

    /// What has changed since a table was read.
    pub(super) fn changes_since(&self, then: &Table) -> Option<Changes> {
        self.of_listing(|listing| Some(listing.changes(listing.table.differing(then))))
    }

    fn of_listing<T>(&self, tell: impl FnOnce(&Listing) -> Option<T>) -> Option<T> {
        let state = self.shared.lock();
        let listing = state.listing.as_ref();
        tell(listing.filter(|listing| listing.id == self.id)?)
    }
}

impl Shared {
    /// A panic elsewhere leaves a table that is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a table from now on.
    fn begin<'s>(
        self: &Arc<Shared>,
        state: &'s mut State,
        mut table: Table,
        revision: Revision,
    ) -> &'s Listing {
        let id = state.next_id;
        state.next_id += 1;
        let watch = tokio::spawn(follow(Arc::clone(self), id, revision)).abort_handle();
        table.mark_changes();
        state.drop_listing();
        state.listing.insert(Listing {
            id,
            table,
            revision: watch::Sender::new(revision),
            cluster: None,
            asked: Instant::now(),
            watch,
            log: Log::new(revision),
            watchers: Arc::default(),
        })
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
        let mut state = self.lock();
        let listing = state.listing.as_mut().filter(|listing| listing.id == id)?;
        if listing.is_watched() {
            listing.asked = Instant::now();
        }
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
        listing
            .log
            .add(batch.revision, listing.table.take_changed());
        listing.revision.send_replace(batch.revision);
        if listing.is_too_much() {
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
