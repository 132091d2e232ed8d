//! One watch of the store for all waits.
//!
//! It begins with the first wait and ends with the last. Each wait has an inbox that holds the
//! newest change of each key of its units, so that a slow reader costs memory for its keys and
//! no more; what comes in between is passed over, since a wait looks at states and not at
//! events. When the watch begins, or has lost its place, the waits read everything anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::store::keys::{self, Key};
use crate::store::{Entry, Error, Event, Revision, Store, WatchBatch};

/// A global unit has a state on each machine; beyond so many changes that nobody has fetched
/// it is cheaper to read everything anew.
const MAX_INBOX: usize = 20_000;

/// Pause before the watch is tried again, doubled each time up to the second one.
const RETRY_FROM: Duration = Duration::from_millis(50);
const RETRY_TO: Duration = Duration::from_secs(2);

/// The waits of a process.
pub(crate) struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    by_unit: HashMap<Arc<str>, Vec<Arc<Inbox>>>,
    /// Each wait's inbox, by its id.
    all: HashMap<u64, Arc<Inbox>>,
    next_id: u64,
    watch: Option<AbortHandle>,
    /// The watch runs and misses nothing.
    is_watching: bool,
}

struct Inbox {
    id: u64,
    changes: Mutex<Changes>,
    changed: Notify,
}

/// What has changed since it was last asked.
#[derive(Default)]
pub(crate) struct Changes {
    /// Everything must be read; what is in `by_key` may be a part of it only.
    pub(crate) read_anew: bool,
    /// The newest change of each key.
    pub(crate) by_key: BTreeMap<String, Change>,
}

/// A key that was put or (None) removed.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) value: Option<Arc<Entry>>,
}

/// A wait's place in the hub; dropping it gives it back.
pub(crate) struct Registration {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    units: Vec<Arc<str>>,
}

impl Hub {
    pub(crate) fn new(store: Arc<dyn Store>) -> Hub {
        Hub {
            shared: Arc::new(Shared {
                store,
                waits: Mutex::default(),
            }),
        }
    }

    /// How many waits there are.
    pub(crate) fn n_waiters(&self) -> usize {
        self.shared.lock().all.len()
    }

    /// A new wait for these units. It is told to read as soon as the watch runs.
    pub(crate) fn register(&self, units: impl Iterator<Item = Arc<str>>) -> Registration {
        let units: Vec<Arc<str>> = units.collect();
        let mut waits = self.shared.lock();
        let inbox = Arc::new(Inbox {
            id: waits.next_id,
            changes: Mutex::new(Changes {
                read_anew: waits.is_watching,
                ..Changes::default()
            }),
            changed: Notify::new(),
        });
        waits.next_id += 1;
        waits.all.insert(inbox.id, Arc::clone(&inbox));
        for unit in &units {
            let inboxes = waits.by_unit.entry(Arc::clone(unit)).or_default();
            inboxes.push(Arc::clone(&inbox));
        }
        if waits.watch.is_none() {
            let watch = tokio::spawn(watch(Arc::clone(&self.shared)));
            waits.watch = Some(watch.abort_handle());
        }
        drop(waits);
        Registration {
            shared: Arc::clone(&self.shared),
            inbox,
            units,
        }
    }
}

impl Registration {
    /// Waits for changes and takes them. Nothing is lost when it is dropped while it waits.
    pub(crate) async fn changes(&self) -> Changes {
        loop {
            {
                let mut changes = lock(&self.inbox.changes);
                if changes.read_anew || !changes.by_key.is_empty() {
                    return std::mem::take(&mut *changes);
                }
            }
            self.inbox.changed.notified().await;
        }
    }

    /// The next changes will ask for a reading.
    pub(crate) fn read_anew(&self) {
        lock(&self.inbox.changes).read_anew = true;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut waits = self.shared.lock();
        for unit in &self.units {
            if let Some(inboxes) = waits.by_unit.get_mut(unit) {
                inboxes.retain(|inbox| inbox.id != self.inbox.id);
                if inboxes.is_empty() {
                    waits.by_unit.remove(unit);
                }
            }
        }
        waits.all.remove(&self.inbox.id);
        if waits.all.is_empty() {
            waits.is_watching = false;
            if let Some(watch) = waits.watch.take() {
                watch.abort();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        lock(&self.waits)
    }

    /// All waits read anew.
    fn read_anew(&self) {
        let mut waits = self.lock();
        waits.is_watching = true;
        for inbox in waits.all.values() {
            lock(&inbox.changes).read_anew = true;
            inbox.changed.notify_one();
        }
    }

    /// Tells the waits what has changed.
    fn deliver(&self, batch: WatchBatch) {
        let waits = self.lock();
        for event in batch.events {
            let (key, change) = match event {
                Event::Put(entry) => {
                    let key = entry.key.clone();
                    let revision = entry.mod_revision;
                    let value = Some(Arc::new(entry));
                    (key, Change { revision, value })
                }
                Event::Delete { key, revision } => {
                    let value = None;
                    (key, Change { revision, value })
                }
            };
            let unit = match keys::parse(&key) {
                Key::Unit(unit) | Key::Placement(unit) | Key::State(unit, _) => Some(unit),
                // Rare, and whoever waits for that machine must know.
                Key::Member(_) => None,
                _ => continue,
            };
            let inboxes: Vec<&Arc<Inbox>> = match unit {
                Some(unit) => waits.by_unit.get(unit).into_iter().flatten().collect(),
                None => waits.all.values().collect(),
            };
            for inbox in inboxes {
                let mut changes = lock(&inbox.changes);
                changes.by_key.insert(key.clone(), change.clone());
                if changes.by_key.len() > MAX_INBOX {
                    changes.by_key.clear();
                    changes.read_anew = true;
                }
                inbox.changed.notify_one();
            }
        }
    }
}

/// Watches for as long as it is not aborted.
async fn watch(shared: Arc<Shared>) {
    let mut pause = RETRY_FROM;
    // The revision up to which everything has been delivered.
    let mut seen = None;
    loop {
        let error = match follow(&shared, &mut seen, &mut pause).await {
            Ok(()) => Error::Unavailable("the watch has ended".to_owned()),
            Err(error) => error,
        };
        tracing::debug!(%error, "the watch for waiting requests broke");
        if matches!(error, Error::Compacted(_)) {
            seen = None;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_TO);
    }
}

async fn follow(
    shared: &Shared,
    seen: &mut Option<Revision>,
    pause: &mut Duration,
) -> Result<(), Error> {
    let (after, mut watch) = match *seen {
        Some(revision) => (revision, shared.store.watch("", revision).await?),
        None => shared.store.watch_from_now("").await?,
    };
    if seen.is_none() {
        *seen = Some(after);
        // Whoever reads from now on reads nothing older than where the watch began.
        shared.read_anew();
    }
    while let Some(batch) = watch.next().await {
        let batch = batch?;
        *seen = Some(batch.revision);
        *pause = RETRY_FROM;
        shared.deliver(batch);
    }
    Ok(())
}

/// A panic elsewhere leaves lists that are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
