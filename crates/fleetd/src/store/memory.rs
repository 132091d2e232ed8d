//! A store in memory alone, and the watches that it shares with the embedded store.
//!
//! For tests and the simulator: it has no task and no thread of its own. Leases end by tokio's
//! clock, when somebody calls or watches.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::model::{Model, Staged};
use super::{Error, LeaseId, Range, Revision, Snapshot, Store, Txn, Watch, WatchBatch};

/// A watch that is behind gets about this many events at once; a revision is never split.
const BATCH_EVENTS: usize = 1000;

/// A store that lasts as long as its process.
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Arc<MemoryStore> {
        MemoryStore::with_leases_from(LeaseId(1))
    }

    /// An empty store whose leases have other ids than those of another one.
    pub fn with_leases_from(first: LeaseId) -> Arc<MemoryStore> {
        Arc::new(MemoryStore {
            shared: Shared::new(Model::new(first)),
        })
    }

    /// A copy as a backup has it: without its history, with leases that begin anew, and with other
    /// ids for those that come.
    #[cfg(any(test, fleet_sim))]
    pub fn copy(&self, next: LeaseId) -> Arc<MemoryStore> {
        Arc::new(MemoryStore {
            shared: Shared::new(self.shared.read().copy(next)),
        })
    }

    /// Decides by `stage` and makes it true at once.
    fn change<T>(
        &self,
        stage: impl FnOnce(&Model, Instant) -> Result<(T, Staged), Error>,
    ) -> Result<T, Error> {
        let now = Instant::now();
        self.shared.expire(now);
        let mut model = self.shared.write();
        let (answer, staged) = stage(&model, now)?;
        self.shared.apply(&mut model, staged, now);
        Ok(answer)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        self.shared.expire(Instant::now());
        self.shared.read().read(&range)
    }

    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        self.shared.expire(Instant::now());
        super::check_keys(keys)?;
        Ok(self.shared.read().read_keys(keys))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.shared
            .watch(prefix, after, Some(Arc::clone(&self.shared)))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        self.change(|model, now| {
            let mut staged = model.begin();
            let revision = model.stage(&mut staged, txn, now)?;
            Ok((revision, staged))
        })
    }

    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        self.change(|model, _| {
            let (id, staged) = model.stage_grant(ttl);
            Ok(((id, ttl), staged))
        })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        let now = Instant::now();
        self.shared.expire(now);
        self.shared.write().renew(lease, now)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.change(|model, _| Ok(((), model.stage_revoke(lease))))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.write().compact(revision)
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

/// A model that watches wait on.
pub(super) struct Shared {
    model: RwLock<Model>,
    /// Told of each change: the newest revision.
    changed: watch::Sender<Revision>,
}

impl Shared {
    pub(super) fn new(model: Model) -> Arc<Shared> {
        let (changed, _) = watch::channel(model.revision());
        Arc::new(Shared {
            model: RwLock::new(model),
            changed,
        })
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Model> {
        // A panic while the lock is held leaves the model as it was: all its changes are decided
        // before the first is made.
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Model> {
        self.model.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes staged changes true and wakes the watches.
    pub(super) fn apply(&self, model: &mut Model, staged: Staged, now: Instant) {
        if staged.is_empty() {
            return;
        }
        model.apply(staged, now);
        self.changed.send_replace(model.revision());
    }

    /// See [`Store::watch`]. `expires`: whose leases the watch has to end because nobody else does.
    pub(super) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        after: Revision,
        expires: Option<Arc<Shared>>,
    ) -> Result<Watch, Error> {
        self.read().events(prefix, after, 0)?;
        let running = Running {
            shared: Arc::downgrade(self),
            changed: self.changed.subscribe(),
            expires,
            prefix: prefix.to_owned(),
            after,
        };
        let batches = stream::unfold(Some(running), |running| async {
            let mut running = running?;
            let batch = running.next().await;
            let rest = batch.is_ok().then_some(running);
            Some((batch, rest))
        });
        Ok(batches.boxed())
    }

    fn expire(&self, now: Instant) {
        if self
            .read()
            .next_deadline()
            .is_none_or(|deadline| deadline > now)
        {
            return;
        }
        let mut model = self.write();
        let staged = model.stage_expired(now);
        self.apply(&mut model, staged, now);
    }
}

/// A running watch.
struct Running {
    shared: std::sync::Weak<Shared>,
    changed: watch::Receiver<Revision>,
    expires: Option<Arc<Shared>>,
    prefix: String,
    after: Revision,
}

impl Running {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        let closed = || Error::Unavailable("the store was closed".to_owned());
        loop {
            self.changed.borrow_and_update();
            let (revision, events) = self.shared.upgrade().ok_or_else(closed)?.read().events(
                &self.prefix,
                self.after,
                BATCH_EVENTS,
            )?;
            self.after = revision;
            if !events.is_empty() {
                return Ok(WatchBatch { revision, events });
            }
            let deadline = self
                .expires
                .as_ref()
                .and_then(|shared| shared.read().next_deadline());
            match deadline {
                None => self.changed.changed().await.map_err(|_| closed())?,
                Some(deadline) => {
                    tokio::select! {
                        changed = self.changed.changed() => changed.map_err(|_| closed())?,
                        () = tokio::time::sleep_until(deadline) => {
                            if let Some(shared) = &self.expires {
                                shared.expire(Instant::now());
                            }
                        }
                    }
                }
            }
        }
    }
}
