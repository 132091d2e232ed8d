//! Who leads: the key `leader` under a lease. Its create-revision is the fence of all that the
//! leader writes.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::MachineId;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::clock;
use crate::store::codec::{Document, LeaderRecord};
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
}

impl Leadership {
    /// Waits until nobody leads, and leads.
    pub(crate) async fn campaign(
        store: &Arc<dyn Store>,
        machine: &MachineId,
        ttl: Duration,
    ) -> Result<Leadership, Error> {
        let mut known: Option<MachineId> = None;
        loop {
            let read = store.read_keys(&[keys::LEADER.to_owned()]).await?;
            match read.entries.first() {
                None => match Leadership::take(store, machine, ttl).await {
                    Err(Error::Conflict) => continue,
                    outcome => return outcome,
                },
                Some(entry) => {
                    let leader = LeaderRecord::decode(&entry.key, &entry.value).ok();
                    let leader = leader.map(|record| record.machine);
                    if leader.as_ref() == Some(machine) {
                        // The fleetd before on this machine led. It is no more: nobody else
                        // runs under this machine's id.
                        info!("taking over from the fleetd before");
                        remove(store, entry).await?;
                        continue;
                    }
                    if leader != known {
                        if let Some(leader) = &leader {
                            info!(%leader, "Engine leader is another machine");
                        }
                        known = leader;
                    }
                    until_gone(store, read.revision).await?;
                }
            }
        }
    }

    async fn take(
        store: &Arc<dyn Store>,
        machine: &MachineId,
        ttl: Duration,
    ) -> Result<Leadership, Error> {
        let sent = Instant::now();
        let (lease, granted) = store.grant(ttl).await?;
        let record = LeaderRecord {
            machine: machine.clone(),
            version: crate::VERSION.to_owned(),
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
        };
        let keeper = tokio::spawn(async move {
            keeper.keep().await;
            lost_tx.send_replace(true);
        });
        Ok(Leadership {
            store: Arc::clone(store),
            lease,
            fence,
            lost,
            keeper,
        })
    }

    /// The create-revision of the leader key.
    pub(crate) fn fence(&self) -> Revision {
        self.fence
    }

    /// The guard that every transaction of the leader carries.
    pub(crate) fn compare(&self) -> Compare {
        Compare::CreateRevision(keys::LEADER.to_owned(), self.fence)
    }

    /// Returns when leadership is lost or no longer certain.
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.clone();
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Whether the leader key is still ours. An unreachable store does not say no.
    pub(crate) async fn still_holds(&self) -> bool {
        match self.store.read_keys(&[keys::LEADER.to_owned()]).await {
            Ok(read) => read
                .entries
                .first()
                .is_some_and(|e| e.create_revision == self.fence),
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
}

impl Keeper {
    /// Renews the lease until it is gone, or may be gone.
    async fn keep(mut self) {
        let mut pause = self.ttl / KEEPALIVES_PER_TTL;
        loop {
            tokio::time::sleep(pause).await;
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

/// Waits for the leader key to go. Errors that a new look may mend are no errors here.
async fn until_gone(store: &Arc<dyn Store>, after: Revision) -> Result<(), Error> {
    let mut revision = after;
    let mut backoff = Backoff::new();
    loop {
        let mut watch = match store.watch(keys::LEADER, revision).await {
            Ok(watch) => watch,
            Err(Error::Compacted(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        loop {
            match watch.next().await {
                Some(Ok(batch)) => {
                    revision = batch.revision;
                    let gone = batch.events.iter().any(
                        |event| matches!(event, Event::Delete { key, .. } if key == keys::LEADER),
                    );
                    if gone {
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
