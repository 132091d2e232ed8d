//! Who leads: the key `leader` under a lease. Its create-revision is the fence of all that the
//! leader writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_core::records::MachineId;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{EngineStatus, Role};
use crate::backoff::Backoff;
use crate::clock;
use crate::lease_thread::{Beat, LeaseThread};
use crate::store::codec::{ClusterRecord, Document, LeaderRecord};
use crate::store::{Compare, Entry, Error, Event, LeaseId, Op, Revision, Store, Txn, keys};

/// Two keepalives may be lost before the lease is.
const KEEPALIVES_PER_TTL: u32 = 3;

/// A keepalive that failed is tried again after this part of the TTL.
const RETRIES_PER_TTL: u32 = 12;

/// Giving leadership back is tried for this long; otherwise the lease ends by itself.
const RESIGN_TIMEOUT: Duration = Duration::from_millis(500);

/// Leadership, kept alive by a task of its own until it is lost, resigned or dropped.
pub(crate) struct Leadership {
    store: Arc<dyn Store>,
    lease: LeaseId,
    fence: Revision,
    lost: watch::Receiver<bool>,
    keeper: tokio::task::JoinHandle<()>,
    is_announced: AtomicBool,
}

/// What a candidate for leadership works with.
pub(crate) struct Campaign<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) machine: &'a MachineId,
    /// The version of its engine.
    pub(crate) version: u32,
    pub(crate) ttl: Duration,
    /// Told what it finds.
    pub(crate) status: &'a watch::Sender<EngineStatus>,
    /// Where leadership is kept.
    pub(crate) leases: &'a LeaseThread,
}

impl Campaign<'_> {
    /// Waits until nobody of this version or a higher one leads, and leads. A cluster that a
    /// higher version has led is left to it.
    pub(crate) async fn win(&self) -> Result<Leadership, Error> {
        loop {
            let keys = [keys::LEADER.to_owned(), keys::CLUSTER.to_owned()];
            let read = self.store.read_keys(&keys).await?;
            let find = |key: &str| read.entries.iter().find(|entry| entry.key == key);
            let cluster = find(keys::CLUSTER);
            let raised_to = cluster
                .and_then(|entry| ClusterRecord::decode(&entry.key, &entry.value).ok())
                .map_or(0, |cluster| cluster.engine);
            if raised_to > self.version {
                self.too_old(raised_to);
                until(self.store, keys::CLUSTER, read.revision, |_| true).await?;
                continue;
            }
            let Some(entry) = find(keys::LEADER) else {
                match self.take().await {
                    Err(Error::Conflict) => continue,
                    outcome => return outcome,
                }
            };
            if entry.lease.is_none() {
                // Nobody leads by it, and it would never go.
                error!(
                    key = entry.key,
                    "a damaged document is in the place of the leader's: it lives under no lease. \
                     It is removed"
                );
                match remove(self.store, entry).await {
                    Ok(()) | Err(Error::Conflict) => continue,
                    Err(error) => return Err(error),
                }
            }
            let leader = LeaderRecord::decode(&entry.key, &entry.value).ok();
            match &leader {
                Some(leader) if leader.machine == *self.machine => {
                    // The fleetd before on this machine led. It is no more: nobody else is
                    // registered under this machine's id.
                    info!("taking over from the fleetd before");
                    remove(self.store, entry).await?;
                    continue;
                }
                Some(leader) if leader.engine < self.version => {
                    match self.depose(entry, leader, cluster).await {
                        Ok(()) | Err(Error::Conflict) => continue,
                        Err(error) => return Err(error),
                    }
                }
                _ => {}
            }
            self.follow(leader.map(|leader| leader.machine));
            let is_gone = |event: &Event| matches!(event, Event::Delete { .. });
            until(self.store, keys::LEADER, read.revision, is_gone).await?;
        }
    }

    fn too_old(&self, cluster: u32) {
        self.status.send_if_modified(|status| {
            let role = Role::TooOld { cluster };
            if status.role == role {
                return false;
            }
            warn!(
                cluster,
                local = self.version,
                "Cluster engine version higher than local engine version ({cluster} > {}), unable \
                 to participate: where no machine runs a newer fleetd nothing is placed any more; \
                 upgrade this one",
                self.version
            );
            *status = EngineStatus { role, leader: None };
            true
        });
    }

    fn follow(&self, leader: Option<MachineId>) {
        self.status.send_if_modified(|status| {
            let now = EngineStatus {
                role: Role::Following,
                leader,
            };
            if *status == now {
                return false;
            }
            match (&status.leader, &now.leader) {
                (Some(before), Some(leader)) if before != leader => {
                    info!(%leader, %before, "Engine leadership changed from {before} to {leader}");
                }
                (None, Some(leader)) => info!(%leader, "Engine leader is {leader}"),
                _ => {}
            }
            *status = now;
            true
        });
    }

    /// Ends the leadership of a lower version, and in the same transaction keeps all lower
    /// versions from it. What the deposed leader still writes is refused by its fence, so there
    /// is nothing to wait for.
    async fn depose(
        &self,
        entry: &Entry,
        leader: &LeaderRecord,
        cluster: Option<&Entry>,
    ) -> Result<(), Error> {
        let mut txn = Txn {
            compares: vec![Compare::ModRevision(entry.key.clone(), entry.mod_revision)],
            ops: vec![Op::Delete {
                key: entry.key.clone(),
            }],
        };
        // A damaged one freezes itself alone; lower versions see who leads.
        if let Some(Ok((compare, op))) = cluster.map(|entry| raise(entry, self.version)) {
            txn.compares.push(compare);
            txn.ops.push(op);
        }
        self.store.commit(txn).await?;
        let machine = &leader.machine;
        info!(
            %machine, theirs = leader.engine, ours = self.version,
            "Stole engine leadership from Machine({machine}): its engine is of an older version"
        );
        if let Some(lease) = entry.lease {
            // So it learns that it is deposed, though it has nothing to write.
            let _ = self.store.revoke(lease).await;
        }
        Ok(())
    }

    async fn take(&self) -> Result<Leadership, Error> {
        let store = self.store;
        let sent = Instant::now();
        let (lease, granted) = store.grant(self.ttl).await?;
        let record = LeaderRecord {
            machine: self.machine.clone(),
            version: crate::VERSION.to_owned(),
            engine: self.version,
            since_ms: clock::unix_ms(),
        };
        let txn = Txn {
            compares: vec![Compare::Absent(keys::LEADER.to_owned())],
            ops: vec![Op::Put {
                key: keys::LEADER.to_owned(),
                value: record.encode(),
                lease: Some(lease),
            }],
        };
        let fence = match store.commit(txn).await {
            Ok(fence) => fence,
            Err(error) => {
                // Whatever became of the write, it is undone with its lease.
                let _ = store.revoke(lease).await;
                return Err(error);
            }
        };
        let (lost_tx, lost) = watch::channel(false);
        let keeper = Keeper {
            store: Arc::clone(store),
            lease,
            ttl: granted,
            certain_until: sent + granted,
            beat: self.leases.beat(),
        };
        let keeper = self.leases.spawn(async move {
            keeper.keep().await;
            lost_tx.send_replace(true);
        });
        Ok(Leadership {
            store: Arc::clone(store),
            lease,
            fence,
            lost,
            keeper,
            is_announced: AtomicBool::new(false),
        })
    }
}

impl Leadership {
    /// The create-revision of the leader key.
    pub(crate) fn fence(&self) -> Revision {
        self.fence
    }

    /// Whether it is to be told that this machine leads: the first one who asks does it.
    pub(crate) fn announces(&self) -> bool {
        !self.is_announced.swap(true, Ordering::Relaxed)
    }

    /// The guards that every transaction of the leader carries. In another store the key may
    /// have come to be at the same revision, but not under the same lease.
    pub(crate) fn compares(&self) -> Vec<Compare> {
        vec![
            Compare::CreateRevision(keys::LEADER.to_owned(), self.fence),
            Compare::Lease(keys::LEADER.to_owned(), self.lease),
        ]
    }

    /// Returns when leadership is lost or no longer certain.
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.clone();
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Whether an event says that the leader key is not ours any more.
    pub(crate) fn is_ended_by(&self, event: &Event) -> bool {
        match event {
            Event::Put(entry) => entry.key == keys::LEADER && !self.is_ours(entry),
            Event::Delete { key, revision } => key == keys::LEADER && *revision > self.fence,
        }
    }

    fn is_ours(&self, entry: &Entry) -> bool {
        entry.create_revision == self.fence && entry.lease == Some(self.lease)
    }

    /// Whether the leader key is still ours. An unreachable store does not say no.
    pub(crate) async fn still_holds(&self) -> bool {
        match self.store.read_keys(&[keys::LEADER.to_owned()]).await {
            Ok(read) => read
                .entries
                .first()
                .is_some_and(|entry| self.is_ours(entry)),
            Err(_) => true,
        }
    }

    /// Gives leadership back, so that another machine leads at once.
    pub(crate) async fn resign(self) {
        self.keeper.abort();
        let resigned = tokio::time::timeout(RESIGN_TIMEOUT, self.store.revoke(self.lease)).await;
        if !matches!(resigned, Ok(Ok(()))) {
            warn!("leadership was not given back: it ends with its lease");
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Keeper {
    store: Arc<dyn Store>,
    lease: LeaseId,
    ttl: Duration,
    certain_until: Instant,
    beat: Beat,
}

impl Keeper {
    /// Renews the lease until it is gone, or may be gone.
    async fn keep(mut self) {
        let mut pause = self.ttl / KEEPALIVES_PER_TTL;
        loop {
            self.beat.pause(pause).await;
            let sent = Instant::now();
            let renewal = self.store.keep_alive(self.lease);
            match tokio::time::timeout_at(self.certain_until, renewal).await {
                Ok(Ok(ttl)) => {
                    self.certain_until = sent + ttl;
                    pause = self.ttl / KEEPALIVES_PER_TTL;
                }
                Ok(Err(Error::LeaseGone)) => return,
                Ok(Err(error)) => {
                    warn!(%error, "the leader's lease was not renewed; trying again");
                    pause = self.ttl / RETRIES_PER_TTL;
                }
                Err(_) => return,
            }
            if Instant::now() >= self.certain_until {
                return;
            }
        }
    }
}

async fn remove(store: &Arc<dyn Store>, entry: &Entry) -> Result<(), Error> {
    match entry.lease {
        Some(lease) => store.revoke(lease).await,
        None => {
            let txn = Txn {
                compares: vec![Compare::ModRevision(entry.key.clone(), entry.mod_revision)],
                ops: vec![Op::Delete {
                    key: entry.key.clone(),
                }],
            };
            store.commit(txn).await.map(|_| ())
        }
    }
}

/// The compare and the write that raise the version of the cluster's engine.
pub(super) fn raise(entry: &Entry, version: u32) -> Result<(Compare, Op), Error> {
    let mut cluster = ClusterRecord::decode(&entry.key, &entry.value)?;
    cluster.engine = version;
    let compare = Compare::ModRevision(entry.key.clone(), entry.mod_revision);
    let op = Op::Put {
        key: entry.key.clone(),
        value: cluster.encode_over(&entry.value),
        lease: None,
    };
    Ok((compare, op))
}

/// Waits until a key has changed.
pub(super) async fn changed(
    store: &Arc<dyn Store>,
    key: &str,
    after: Revision,
) -> Result<(), Error> {
    until(store, key, after, |_| true).await
}

/// Waits for such an event of a key. Errors that a new look may mend are no errors here.
async fn until(
    store: &Arc<dyn Store>,
    key: &str,
    after: Revision,
    happened: impl Fn(&Event) -> bool,
) -> Result<(), Error> {
    let mut revision = after;
    let mut backoff = Backoff::new();
    loop {
        let mut watch = match store.watch(key, revision).await {
            Ok(watch) => watch,
            Err(Error::Compacted(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        loop {
            match watch.next().await {
                Some(Ok(batch)) => {
                    revision = batch.revision;
                    let mut own = batch.events.iter().filter(|event| match event {
                        Event::Put(entry) => entry.key == key,
                        Event::Delete { key: gone, .. } => gone == key,
                    });
                    if own.any(&happened) {
                        return Ok(());
                    }
                }
                Some(Err(Error::Compacted(_))) => return Ok(()),
                Some(Err(_)) | None => break,
            }
        }
        backoff.pause().await;
    }
}
