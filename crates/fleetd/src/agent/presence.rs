//! Presence: `machines/<id>` under a lease that is kept alive.
//!
//! It has a task of its own, so that nothing that the agent works on delays a keepalive. The
//! lease outlives fleetd: its id is kept below the run directory, and the next process of the
//! same boot renews it first thing, so that a restart is no absence. A new boot takes over its
//! own key. A key that somebody else keeps alive under this machine's id is a clone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::{MachineId, MachineRecord};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::runfile;
use crate::backoff::Backoff;
use crate::clock;
use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::Document;
use crate::store::{Compare, Entry, Error, LeaseId, Op, Revision, Store, Txn, keys};

/// Two keepalives may be lost before the lease is.
const KEEPALIVES_PER_TTL: u32 = 3;

/// A keepalive that failed is tried again after this part of the TTL.
const RETRIES_PER_TTL: u32 = 12;

/// Saying that fleetd stops is tried for this long; a store that is away is not waited for.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// What the agent knows of its own presence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Standing {
    /// Create-revision of the presence key: the fence of all writes. None while not registered.
    pub(crate) epoch: Option<Revision>,
    /// Until then (time since boot) the lease lives for certain.
    pub(crate) certain_until: Duration,
}

impl Standing {
    /// Whether nobody else can have been given this machine's units: it may start some.
    pub(crate) fn is_certain(&self) -> bool {
        self.epoch.is_some() && clock::boottime() < self.certain_until
    }
}

/// What presence needs.
pub(crate) struct Presence {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) machine: MachineId,
    pub(crate) ttl: Duration,
    /// Where lease and epoch are kept.
    pub(crate) file: PathBuf,
    /// What to publish; changes are published at once.
    pub(crate) record: watch::Receiver<MachineRecord>,
    /// What the agent is told.
    pub(crate) standing: watch::Sender<Standing>,
    /// What stands in the store, while registered.
    pub(crate) registered: Option<Registered>,
}

#[derive(Clone, Debug)]
pub(crate) struct Registered {
    lease: LeaseId,
    epoch: Revision,
    published: MachineRecord,
}

impl Presence {
    /// Registers, keeps alive, registers again when the lease was lost; until told to stop. The
    /// lease is left to end by itself: the next fleetd of this boot will want it.
    pub(crate) async fn run(mut self, mut shutdown: Shutdown) {
        tokio::select! {
            () = self.stay_registered() => {}
            () = stopped(&mut shutdown) => {}
        }
        self.say_that_it_stops().await;
    }

    /// Tells the cluster that this end is meant: the machine will be unsupervised, not lost, and
    /// its units stay placed here. The next fleetd takes it back.
    async fn say_that_it_stops(&mut self) {
        let Some(registered) = &self.registered else {
            return;
        };
        let mut record = registered.published.clone();
        record.trouble = Some(MachineRecord::STOPPED_IN_ORDER.to_owned());
        let key = keys::machine(self.machine.as_str());
        let txn = Txn {
            compares: vec![Compare::CreateRevision(key.clone(), registered.epoch)],
            ops: vec![Op::Put {
                key,
                value: record.encode(),
                lease: Some(registered.lease),
            }],
        };
        match tokio::time::timeout(STOP_TIMEOUT, self.store.commit(txn)).await {
            Ok(Ok(_)) => {}
            _ => warn!(
                "the cluster was not told that fleetd stops in order: it will find this machine lost"
            ),
        }
    }

    async fn stay_registered(&mut self) {
        let mut backoff = Backoff::new();
        let mut adopted = self.adopt().await;
        loop {
            let registered = match adopted.take() {
                Some(registered) => Ok(registered),
                None => self.register().await,
            };
            match registered {
                Ok(registered) => {
                    backoff = Backoff::new();
                    self.registered = Some(registered.clone());
                    self.keep(registered).await;
                    self.registered = None;
                    self.standing.send_replace(Standing::default());
                }
                Err(error) => {
                    warn!(%error, "this machine is not registered; trying again");
                    backoff.pause().await;
                }
            }
        }
    }

    /// Takes on the lease of the fleetd before, if it is of this boot and lives. An unreachable
    /// store is waited for: the lease may well be alive when it is back.
    async fn adopt(&mut self) -> Option<Registered> {
        let lines = runfile::read(&self.file);
        let lease = LeaseId(runfile::value(&lines, "lease")?.parse().ok()?);
        let epoch: Revision = runfile::value(&lines, "epoch")?.parse().ok()?;
        let boot = self.record.borrow().boot_id.clone();
        if runfile::value(&lines, "boot") != Some(boot.as_str()) {
            return None;
        }
        let mut backoff = Backoff::new();
        loop {
            let sent = clock::boottime();
            match self.store.keep_alive(lease).await {
                Ok(ttl) => {
                    let key = keys::machine(self.machine.as_str());
                    let entry = self.store.read_keys(std::slice::from_ref(&key)).await;
                    let entry = entry.ok()?.entries.into_iter().next()?;
                    if entry.lease != Some(lease) || entry.create_revision != epoch {
                        return None;
                    }
                    let published = MachineRecord::decode(&key, &entry.value).ok()?;
                    self.tell(epoch, sent, ttl);
                    info!("presence goes on from the fleetd before");
                    return Some(Registered {
                        lease,
                        epoch,
                        published,
                    });
                }
                Err(Error::Unavailable(why) | Error::OutcomeUnknown(why)) => {
                    warn!(why, "the store is awaited to renew this machine's lease");
                    backoff.pause().await;
                }
                Err(_) => return None,
            }
        }
    }

    async fn register(&mut self) -> Result<Registered, Error> {
        let key = keys::machine(self.machine.as_str());
        let entry = self
            .store
            .read_keys(std::slice::from_ref(&key))
            .await?
            .entries
            .into_iter()
            .next();
        if let Some(entry) = entry {
            self.take_over(&key, &entry).await?;
        }
        let sent = clock::boottime();
        let (lease, ttl) = self.store.grant(self.ttl).await?;
        let record = self.record.borrow_and_update().clone();
        let txn = Txn {
            compares: vec![Compare::Absent(key.clone())],
            ops: vec![Op::Put {
                key,
                value: record.encode(),
                lease: Some(lease),
            }],
        };
        let epoch = self.store.commit(txn).await?;
        self.remember(lease, epoch, &record.boot_id);
        self.tell(epoch, sent, ttl);
        info!(epoch, "this machine is registered");
        Ok(Registered {
            lease,
            epoch,
            published: record,
        })
    }

    /// Removes a presence key that is left from before: this machine's own, by its boot or its
    /// address. Somebody else's ends by itself when they are dead; while it lives they are a
    /// clone, and two machines of one id would undo each other's work.
    async fn take_over(&self, key: &str, entry: &Entry) -> Result<(), Error> {
        let own = self.record.borrow().clone();
        let Ok(other) = MachineRecord::decode(key, &entry.value) else {
            return self.end(entry).await;
        };
        if other.boot_id == own.boot_id || other.public_ip == own.public_ip {
            return self.end(entry).await;
        }
        error!(
            machine = %self.machine, here = own.public_ip, there = other.public_ip,
            "another machine is registered with this machine's id: if this goes on, one of them \
             is a clone; give it an id of its own (rm /etc/machine-id; systemd-machine-id-setup)"
        );
        Err(Error::Conflict)
    }

    async fn end(&self, entry: &Entry) -> Result<(), Error> {
        match entry.lease {
            Some(lease) => self.store.revoke(lease).await,
            None => {
                let compare = Compare::ModRevision(entry.key.clone(), entry.mod_revision);
                let ops = vec![Op::Delete {
                    key: entry.key.clone(),
                }];
                self.store
                    .commit(Txn {
                        compares: vec![compare],
                        ops,
                    })
                    .await
                    .map(|_| ())
            }
        }
    }

    /// Keeps the lease alive and the record current; returns when the lease is lost.
    async fn keep(&mut self, mut registered: Registered) {
        let mut next = self.ttl / KEEPALIVES_PER_TTL;
        loop {
            let changed = tokio::select! {
                () = tokio::time::sleep(next) => false,
                changed = self.record.changed() => changed.is_ok(),
            };
            if changed || *self.record.borrow() != registered.published {
                match self.publish(&mut registered).await {
                    Ok(()) => {}
                    Err(Error::Conflict | Error::LeaseGone) => return,
                    Err(error) => warn!(%error, "this machine's record was not updated"),
                }
            }
            let sent = clock::boottime();
            match self.store.keep_alive(registered.lease).await {
                Ok(ttl) => {
                    self.tell(registered.epoch, sent, ttl);
                    next = self.ttl / KEEPALIVES_PER_TTL;
                }
                Err(Error::LeaseGone) => {
                    warn!("this machine's lease has ended; registering anew");
                    return;
                }
                Err(error) => {
                    warn!(%error, "the lease was not renewed; trying again");
                    next = self.ttl / RETRIES_PER_TTL;
                }
            }
        }
    }

    async fn publish(&mut self, registered: &mut Registered) -> Result<(), Error> {
        let record = self.record.borrow_and_update().clone();
        if record == registered.published {
            return Ok(());
        }
        let key = keys::machine(self.machine.as_str());
        let txn = Txn {
            compares: vec![Compare::CreateRevision(key.clone(), registered.epoch)],
            ops: vec![Op::Put {
                key,
                value: record.encode(),
                lease: Some(registered.lease),
            }],
        };
        self.store.commit(txn).await?;
        registered.published = record;
        self.registered = Some(registered.clone());
        Ok(())
    }

    /// The time counts from sending: the store may have renewed the lease as early as that.
    fn tell(&self, epoch: Revision, sent: Duration, ttl: Duration) {
        let certain_until = sent + ttl.min(self.ttl);
        self.standing.send_replace(Standing {
            epoch: Some(epoch),
            certain_until,
        });
    }

    fn remember(&self, lease: LeaseId, epoch: Revision, boot: &str) {
        let (lease, epoch) = (lease.0.to_string(), epoch.to_string());
        let lines = [
            ("boot", boot),
            ("lease", lease.as_str()),
            ("epoch", epoch.as_str()),
        ];
        if let Err(error) = runfile::write(&self.file, &lines) {
            warn!(%error, file = %self.file.display(), "the lease is not remembered: after a restart this machine will be absent for a moment");
        }
    }
}
