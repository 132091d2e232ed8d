//! Presence: `machines/<id>` under a lease that is kept alive.
//!
//! It has a task of its own, so that nothing that the agent works on delays a keepalive. The
//! lease outlives fleetd: its id is kept below the run directory, and the next process of the
//! same boot renews it first thing, so that a restart is no absence. A new boot takes over its
//! own key. A key that somebody else keeps alive under this machine's id is a clone's, or this is
//! one: the one that was there is never disturbed, and this fleetd ends with an error that names
//! both. An address proves nothing: machines behind different routers share them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::{MachineId, MachineRecord};
use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{AgentConfig, runfile};
use crate::backoff::Backoff;
use crate::clock;
use crate::lease_thread::Beat;
use crate::reload;
use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::Document;
use crate::store::{Compare, Entry, Error, Event, LeaseId, Op, Revision, Store, Txn, keys};
use crate::units::UnitManager;

/// Five keepalives may be lost before the lease is. And what is cut off at the same time must be
/// seen to vanish at the same time, before the first of it is given up (`lost_after`): the leases
/// end as far apart as they were renewed.
pub(crate) const KEEPALIVES_PER_TTL: u32 = 6;

/// Where the lease is remembered, below the run directory.
pub(super) const FILE: &str = "lease";

/// A keepalive that failed is tried again after this part of the TTL.
const RETRIES_PER_TTL: u32 = 12;

/// Saying that fleetd stops is tried for this long; a store that is away is not waited for.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Somebody else's key is looked at this often until it goes.
const FOREIGN_EVERY: Duration = Duration::from_millis(100);

/// A lease that nobody renews ends within its time, and once more that time when etcd elects a
/// leader meanwhile. A key that outlives that is kept alive.
const FOREIGN_TTLS: u32 = 2;

/// etcd's own delay in ending leases, twice.
const FOREIGN_MARGIN: Duration = Duration::from_secs(2);

/// Two machines of one id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "another machine is registered with this machine's id {machine} and keeps its lease alive: it \
     is {there}, this one is {here}. One of them is a clone: give that one an id of its own \
     (rm /etc/machine-id; systemd-machine-id-setup; systemctl restart fleet)"
)]
pub struct Duplicate {
    machine: MachineId,
    here: String,
    there: String,
}

/// Somebody else's presence under this machine's id.
struct Foreign {
    epoch: Revision,
    since: Instant,
}

/// What keeps those out who are not present any more: what this machine's key must be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fence {
    /// The key's mod-revision. It is renewed when a write may still be on its way, so that
    /// nothing late puts an old state over a new one.
    pub(crate) revision: Revision,
    /// Its lease: in another store it may have the same revision by chance.
    pub(crate) lease: LeaseId,
}

impl Fence {
    /// The guards of what the machine writes.
    pub(crate) fn compares(self, machine: &MachineId) -> Vec<Compare> {
        let key = keys::machine(machine.as_str());
        vec![
            Compare::Lease(key.clone(), self.lease),
            Compare::ModRevision(key, self.revision),
        ]
    }
}

/// What the agent knows of its own presence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Standing {
    /// Create-revision of the presence key. None while not registered.
    pub(crate) epoch: Option<Revision>,
    /// The fence of all writes.
    pub(crate) fence: Fence,
    /// Until then (time since boot) the lease lives for certain.
    pub(crate) certain_until: Duration,
}

impl Standing {
    /// Whether nobody else can have been given this machine's units: it may start some.
    pub(crate) fn is_certain(&self) -> bool {
        fleet_core::planted!("starts without presence")
            || self.epoch.is_some() && clock::boottime() < self.certain_until
    }
}

/// What presence needs.
pub(crate) struct Presence {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) machine: MachineId,
    /// Its time to live may change.
    pub(crate) config: watch::Receiver<AgentConfig>,
    /// Where lease and epoch are kept.
    pub(crate) file: PathBuf,
    /// What to publish; changes are published at once.
    pub(crate) record: watch::Receiver<MachineRecord>,
    /// What the agent is told.
    pub(crate) standing: watch::Sender<Standing>,
    /// The agent wants another fence.
    pub(crate) renew: Arc<Notify>,
    /// What stands in the store, while registered.
    pub(crate) registered: Option<Registered>,
    /// Who knows whether the machine itself goes down.
    pub(crate) manager: Arc<dyn UnitManager>,
    /// On whose beat the lease is renewed.
    pub(crate) beat: Beat,
}

#[derive(Clone, Debug)]
pub(crate) struct Registered {
    lease: LeaseId,
    epoch: Revision,
    fence: Revision,
    published: MachineRecord,
    /// What was asked for; the store may have granted more.
    ttl: Duration,
}

impl Registered {
    fn fence(&self) -> Fence {
        Fence {
            revision: self.fence,
            lease: self.lease,
        }
    }
}

/// How long the lease is that a fleetd of this boot has had, before this one asks for its own.
pub(super) fn remembered_ttl(run_directory: &Path) -> Option<Duration> {
    ttl_of(&runfile::read(&run_directory.join(FILE)))
}

fn ttl_of(lines: &[(String, String)]) -> Option<Duration> {
    let milliseconds = runfile::value(lines, "ttl_ms")?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}

/// What became of an attempt to register.
enum Attempt {
    Registered(Registered),
    /// Somebody else's key is in the way, and may go by itself.
    Wait,
    Duplicate(Duplicate),
}

impl Presence {
    /// Registers, keeps alive, registers again when the lease was lost; until told to stop. The
    /// lease is left to end by itself: the next fleetd of this boot will want it.
    pub(crate) async fn run(mut self, mut shutdown: Shutdown) -> Result<(), Duplicate> {
        tokio::select! {
            duplicate = self.stay_registered() => return Err(duplicate),
            () = stopped(&mut shutdown) => {}
        }
        self.say_that_it_stops().await;
        Ok(())
    }

    /// Tells the cluster that this end is meant. If only fleetd stops, the machine will be
    /// unsupervised, not lost, and its units stay placed here; the next fleetd takes it back. If
    /// the machine itself goes down, its units are stopping already, and start elsewhere at once.
    async fn say_that_it_stops(&mut self) {
        let Some(registered) = &self.registered else {
            return;
        };
        let mut record = registered.published.clone();
        let asked = self.manager.is_shutting_down();
        let shuts_down = tokio::time::timeout(STOP_TIMEOUT, asked).await;
        // Who does not get to say it any more has announced it.
        let announced = self.manager.shutdown().borrow().is_some();
        let farewell = match shuts_down {
            Ok(true) => MachineRecord::SHUTTING_DOWN,
            Err(_) if announced => MachineRecord::SHUTTING_DOWN,
            _ => MachineRecord::STOPPED_IN_ORDER,
        };
        info!(reason = farewell, "the cluster is told");
        record.trouble = Some(farewell.to_owned());
        let txn = self.put(&record, registered, registered.lease);
        match tokio::time::timeout(STOP_TIMEOUT, self.store.commit(txn)).await {
            Ok(Ok(_)) => {}
            _ => warn!(
                "the cluster was not told that fleetd stops in order: it will find this machine lost"
            ),
        }
    }

    async fn stay_registered(&mut self) -> Duplicate {
        let mut backoff = Backoff::new();
        let mut adopted = self.adopt().await;
        let mut foreign = None;
        loop {
            let attempt = match adopted.take() {
                Some(registered) => Ok(Attempt::Registered(registered)),
                None => self.register(&mut foreign).await,
            };
            match attempt {
                Ok(Attempt::Registered(registered)) => {
                    (backoff, foreign) = (Backoff::new(), None);
                    self.registered = Some(registered.clone());
                    self.keep(registered).await;
                    self.registered = None;
                    self.standing.send_replace(Standing::default());
                }
                Ok(Attempt::Wait) => tokio::time::sleep(FOREIGN_EVERY).await,
                Ok(Attempt::Duplicate(duplicate)) => return duplicate,
                Err(error) => {
                    warn!(%error, "this machine is not registered; trying again");
                    // A store that was away gives each lease its whole time anew.
                    foreign = None;
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
                    let asked = ttl_of(&lines).unwrap_or(ttl);
                    match self.take_on(lease, epoch, asked).await {
                        Ok(registered) => {
                            self.tell(&registered, sent, ttl);
                            info!("presence goes on from the fleetd before");
                            return Some(registered);
                        }
                        Err(Error::Unavailable(_) | Error::OutcomeUnknown(_)) => {
                            backoff.pause().await;
                        }
                        Err(_) => return None,
                    }
                }
                Err(Error::Unavailable(why) | Error::OutcomeUnknown(why)) => {
                    warn!(why, "the store is awaited to renew this machine's lease");
                    backoff.pause().await;
                }
                Err(_) => return None,
            }
        }
    }

    /// Makes the presence of the fleetd before this one's: what that one sent and what has not
    /// arrived yet is fenced off.
    async fn take_on(
        &self,
        lease: LeaseId,
        epoch: Revision,
        ttl: Duration,
    ) -> Result<Registered, Error> {
        let key = keys::machine(self.machine.as_str());
        let read = self.store.read_keys(std::slice::from_ref(&key)).await?;
        let entry = read.entries.into_iter().next().ok_or(Error::LeaseGone)?;
        if entry.lease != Some(lease) || entry.create_revision != epoch {
            return Err(Error::Conflict);
        }
        MachineRecord::decode(&key, &entry.value)?;
        let mut registered = Registered {
            lease,
            epoch,
            fence: entry.mod_revision,
            published: self.record.borrow().clone(),
            ttl,
        };
        let mut txn = self.put(&registered.published, &registered, lease);
        txn.compares
            .push(Compare::ModRevision(key, registered.fence));
        registered.fence = self.store.commit(txn).await?;
        Ok(registered)
    }

    async fn register(&mut self, foreign: &mut Option<Foreign>) -> Result<Attempt, Error> {
        let key = keys::machine(self.machine.as_str());
        let entry = self
            .store
            .read_keys(std::slice::from_ref(&key))
            .await?
            .entries
            .into_iter()
            .next();
        if let Some(entry) = entry {
            let other = MachineRecord::decode(&key, &entry.value).ok();
            match &other {
                Some(other) if self.is_own_past(other) => self.end(&entry).await?,
                // Presence lives under a lease: nobody keeps this alive, and it would never go.
                _ if entry.lease.is_none() => {
                    error!(
                        key,
                        "a damaged document is in the place of this machine's record: it lives \
                         under no lease. It is replaced"
                    );
                    self.end(&entry).await?;
                }
                other => return Ok(self.wait_or_give_up(foreign, &entry, other.as_ref())),
            }
        }
        let asked = self.config.borrow_and_update().ttl;
        let sent = clock::boottime();
        let (lease, ttl) = self.store.grant(asked).await?;
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
        let registered = Registered {
            lease,
            epoch,
            fence: epoch,
            published: record,
            ttl: asked,
        };
        self.remember(&registered);
        self.tell(&registered, sent, ttl);
        info!(epoch, "this machine is registered");
        Ok(Attempt::Registered(registered))
    }

    /// Whether a presence key is left from a process that is no more: of this boot, or one that
    /// said itself that it stops.
    fn is_own_past(&self, other: &MachineRecord) -> bool {
        other.says_farewell() || other.boot_id == self.record.borrow().boot_id
    }

    /// Somebody else's key ends by itself when they are dead: this machine before it lost its
    /// power, most likely. While it lives they are a clone, and two machines of one id would undo
    /// each other's work.
    fn wait_or_give_up(
        &self,
        foreign: &mut Option<Foreign>,
        entry: &Entry,
        other: Option<&MachineRecord>,
    ) -> Attempt {
        let describe = |record: &MachineRecord| {
            let address = match record.public_ip.as_str() {
                "" => "of no known address",
                address => address,
            };
            format!("{address} (boot {})", record.boot_id)
        };
        let here = describe(&self.record.borrow());
        let there = other.map_or_else(|| "unreadable".to_owned(), describe);
        let now = Instant::now();
        match foreign {
            Some(known) if known.epoch == entry.create_revision => {
                let patience = self.config.borrow().ttl * FOREIGN_TTLS + FOREIGN_MARGIN;
                if now < known.since + patience {
                    return Attempt::Wait;
                }
                Attempt::Duplicate(Duplicate {
                    machine: self.machine.clone(),
                    here,
                    there,
                })
            }
            _ => {
                info!(
                    here,
                    there,
                    "this machine's id is registered from another boot: waiting for that lease \
                     to end"
                );
                *foreign = Some(Foreign {
                    epoch: entry.create_revision,
                    since: now,
                });
                Attempt::Wait
            }
        }
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
        let mut next = registered.ttl / KEEPALIVES_PER_TTL;
        let mut renew = false;
        let key = keys::machine(self.machine.as_str());
        let gone = until_gone(Arc::clone(&self.store), key, registered.epoch);
        tokio::pin!(gone);
        loop {
            tokio::select! {
                // While its lease lives, that is damage: the machine would be taken for lost.
                () = &mut gone => {
                    warn!(
                        "this machine's record is gone from the store: its lease has ended, or \
                         somebody else has removed or overwritten it. Registering anew"
                    );
                    return;
                }
                () = self.renew.notified() => renew = true,
                () = self.beat.pause(next) => {}
                () = reload::changed(&mut self.record) => {}
                () = reload::changed(&mut self.config) => {}
            }
            let wanted = self.config.borrow_and_update().ttl;
            if wanted != registered.ttl {
                match self.change_ttl(&mut registered, wanted).await {
                    Ok(()) => info!(ttl = ?wanted, "presence lives under a new lease"),
                    Err(Error::Conflict | Error::LeaseGone) => return,
                    Err(error) => warn!(%error, "agent_ttl was not changed yet; trying again"),
                }
            }
            match self.publish(&mut registered, renew).await {
                Ok(()) => renew = false,
                Err(Error::Conflict | Error::LeaseGone) => return,
                Err(error) => {
                    warn!(%error, "this machine's record was not updated");
                    // It may have been all the same: what is wanted then is written in any case.
                    renew = true;
                }
            }
            let sent = clock::boottime();
            if fleet_core::planted!("the lease is prolonged without an answer") {
                self.manager.lease_until(sent + registered.ttl);
            }
            match self.store.keep_alive(registered.lease).await {
                Ok(ttl) => {
                    self.tell(&registered, sent, ttl);
                    next = registered.ttl / KEEPALIVES_PER_TTL;
                }
                Err(Error::LeaseGone) => {
                    warn!("this machine's lease has ended; registering anew");
                    return;
                }
                Err(error) => {
                    warn!(%error, "the lease was not renewed; trying again");
                    if fleet_core::planted!("a cut is not noticed") {
                        self.tell(&registered, sent, registered.ttl);
                    }
                    next = registered.ttl / RETRIES_PER_TTL;
                }
            }
        }
    }

    /// Writes what has changed, or, to `renew` the fence, what is there already.
    async fn publish(&mut self, registered: &mut Registered, renew: bool) -> Result<(), Error> {
        let record = self.record.borrow_and_update().clone();
        if record == registered.published && !renew {
            return Ok(());
        }
        let txn = self.put(&record, registered, registered.lease);
        registered.fence = self.store.commit(txn).await?;
        registered.published = record;
        self.registered = Some(registered.clone());
        let fence = registered.fence();
        self.standing.send_modify(|standing| standing.fence = fence);
        Ok(())
    }

    /// Moves the presence key under a new lease: it exists all the time, with the same epoch.
    async fn change_ttl(
        &mut self,
        registered: &mut Registered,
        wanted: Duration,
    ) -> Result<(), Error> {
        let sent = clock::boottime();
        let (lease, granted) = self.store.grant(wanted).await?;
        let txn = self.put(&registered.published, registered, lease);
        match self.store.commit(txn).await {
            Ok(fence) => registered.fence = fence,
            // Under which of the two leases the key lives is not known: it is made anew.
            Err(Error::OutcomeUnknown(_)) => return Err(Error::LeaseGone),
            Err(error) => {
                let _ = self.store.revoke(lease).await;
                return Err(error);
            }
        }
        let old = std::mem::replace(&mut registered.lease, lease);
        registered.ttl = wanted;
        self.registered = Some(registered.clone());
        self.remember(registered);
        self.tell(registered, sent, granted);
        // No key is under it any more, and it would end by itself.
        let _ = self.store.revoke(old).await;
        Ok(())
    }

    /// Writes the key of this registration, under a lease that may be another one than before.
    fn put(&self, record: &MachineRecord, registered: &Registered, lease: LeaseId) -> Txn {
        let key = keys::machine(self.machine.as_str());
        Txn {
            compares: vec![
                Compare::CreateRevision(key.clone(), registered.epoch),
                Compare::Lease(key.clone(), registered.lease),
            ],
            ops: vec![Op::Put {
                key,
                value: record.encode(),
                lease: Some(lease),
            }],
        }
    }

    /// The time counts from sending: the store may have renewed the lease as early as that.
    fn tell(&self, registered: &Registered, sent: Duration, granted: Duration) {
        let certain_until = sent + granted.min(registered.ttl);
        self.manager.lease_until(certain_until);
        let now = Standing {
            epoch: Some(registered.epoch),
            fence: registered.fence(),
            certain_until,
        };
        // That the lease lives longer is read by whoever wants to know. It is no reason to wake the
        // agent, twice a second, on a machine where nothing happens.
        self.standing.send_if_modified(|standing| {
            let is_news = (standing.epoch, standing.fence) != (now.epoch, now.fence);
            let was_certain = standing.is_certain();
            *standing = now;
            is_news || !was_certain
        });
    }

    fn remember(&self, registered: &Registered) {
        let lease = registered.lease.0.to_string();
        let epoch = registered.epoch.to_string();
        let ttl = registered.ttl.as_millis().to_string();
        let lines = [
            ("boot", registered.published.boot_id.as_str()),
            ("lease", lease.as_str()),
            ("epoch", epoch.as_str()),
            ("ttl_ms", ttl.as_str()),
        ];
        if let Err(error) = runfile::write(&self.file, &lines) {
            warn!(%error, file = %self.file.display(), "the lease is not remembered: after a restart this machine will be absent for a moment");
        }
    }
}

/// Returns when the presence key is no longer this registration's: it was removed, or somebody
/// else has written it. A store that is away says nothing about it.
async fn until_gone(store: Arc<dyn Store>, key: String, epoch: Revision) {
    let is_own = |entry: &Entry| entry.create_revision == epoch && entry.lease.is_some();
    let is_taken = |event: &Event| match event {
        Event::Put(entry) => entry.key == key && !is_own(entry),
        Event::Delete { key: gone, .. } => *gone == key,
    };
    let mut backoff = Backoff::new();
    loop {
        if let Ok(read) = store.read_keys(std::slice::from_ref(&key)).await {
            if !read.entries.first().is_some_and(is_own) {
                return;
            }
            if let Ok(mut watch) = store.watch(&key, read.revision).await {
                backoff = Backoff::new();
                while let Some(Ok(batch)) = watch.next().await {
                    if batch.events.iter().any(is_taken) {
                        return;
                    }
                }
            }
        }
        backoff.pause().await;
    }
}

#[cfg(test)]
mod tests;
