//! A systemd that does at once what it is told, and a store that counts what passes through it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::agent::{Observed, Phase, Task, TaskKind};
use fleet_core::name::UnitName;
use fleet_core::records::{Reached, StateRecord};
use fleetd::store::keys::{self, Key};
use fleetd::store::{Document, Error, LeaseId, Op, Range, Revision, Snapshot, Store, Txn, Watch};
use fleetd::units::{Changes, UnitManager};
use tokio::sync::Notify;

/// systemd by script: each task is done when it is given.
#[derive(Default)]
pub(crate) struct AtOnce {
    units: Mutex<BTreeMap<UnitName, Observed>>,
    changes: Mutex<Changes>,
    changed: Notify,
}

impl AtOnce {
    /// How many units run.
    pub(crate) fn n_running(&self) -> usize {
        let units = self.units.lock().expect("nobody panics");
        units
            .values()
            .filter(|unit| unit.active == "active")
            .count()
    }
}

fn carry_out(units: &mut BTreeMap<UnitName, Observed>, task: Task) {
    let unit = units.entry(task.unit.clone()).or_default();
    let (load, active, sub) = match task.kind {
        TaskKind::Stop(_) => ("loaded", "inactive", "dead"),
        TaskKind::Load(record, _) => {
            unit.file = Some(record.hash);
            unit.record = Some(record);
            ("loaded", "inactive", "dead")
        }
        TaskKind::Unload(record) => {
            unit.file = None;
            unit.record = Some(record);
            ("not-found", "inactive", "dead")
        }
        TaskKind::Remember(record) => {
            unit.record = Some(record);
            return;
        }
        TaskKind::Forget => {
            units.remove(&task.unit);
            return;
        }
        TaskKind::Start(mut record) | TaskKind::Restart(mut record) => {
            record.phase = Phase::Launched;
            record.invocation_id = "5bc0fd9ec2f94a2f9d1a1b1f1c2d3e4f".to_owned();
            unit.invocation_id.clone_from(&record.invocation_id);
            unit.record = Some(record);
            ("loaded", "active", "running")
        }
    };
    [unit.load, unit.active, unit.sub] = [load, active, sub].map(str::to_owned);
}

#[async_trait]
impl UnitManager for AtOnce {
    fn observe(&self, unit: &UnitName) -> Observed {
        let units = self.units.lock().expect("nobody panics");
        units.get(unit).cloned().unwrap_or_default()
    }

    fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
        self.units.lock().expect("nobody panics").clone()
    }

    fn holds_nothing(&self) -> bool {
        self.units.lock().expect("nobody panics").is_empty()
    }

    fn apply(&self, tasks: Vec<Task>) {
        let mut units = self.units.lock().expect("nobody panics");
        let mut changes = self.changes.lock().expect("nobody panics");
        for task in tasks {
            changes.units.insert(task.unit.clone());
            carry_out(&mut units, task);
        }
        self.changed.notify_one();
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    async fn is_shutting_down(&self) -> bool {
        false
    }

    async fn changed(&self) -> Changes {
        loop {
            let changes = std::mem::take(&mut *self.changes.lock().expect("nobody panics"));
            if changes != Changes::default() {
                return changes;
            }
            self.changed.notified().await;
        }
    }
}

/// What all agents of this process have said.
#[derive(Default)]
pub(crate) struct Said {
    /// Machines that are registered.
    pub(crate) present: AtomicUsize,
    /// Units that were told to run, each once for each machine on which it was.
    pub(crate) launched: AtomicUsize,
    /// One of them has changed.
    pub(crate) changed: Notify,
}

/// An agent's view of the store: what it has said is counted when the store has it.
pub(crate) struct Counting {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) said: Arc<Said>,
    /// The machine's presence.
    pub(crate) lease: Mutex<Option<LeaseId>>,
    /// The machine has no power any more.
    pub(crate) is_lost: AtomicBool,
}

impl Counting {
    /// The store, for whoever can still reach it.
    async fn reach(&self) -> &dyn Store {
        if self.is_lost.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        &*self.store
    }

    fn count(&self, ops: &[Op]) {
        for op in ops {
            let Op::Put { key, value, .. } = op else {
                continue;
            };
            match keys::parse(key) {
                Key::Machine(_) => {
                    self.said.present.fetch_add(1, Ordering::Relaxed);
                }
                Key::State(..)
                    if StateRecord::decode(key, value)
                        .is_ok_and(|state| state.reached == Reached::Launched) =>
                {
                    self.said.launched.fetch_add(1, Ordering::Relaxed);
                }
                _ => continue,
            }
            self.said.changed.notify_one();
        }
    }
}

#[async_trait]
impl Store for Counting {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        self.reach().await.read(range).await
    }

    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        self.reach().await.read_keys(keys).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.reach().await.watch(prefix, after).await
    }

    async fn watch_from_now(&self, prefix: &str) -> Result<(Revision, Watch), Error> {
        self.reach().await.watch_from_now(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let ops = txn.ops.clone();
        let revision = self.reach().await.commit(txn).await?;
        self.count(&ops);
        Ok(revision)
    }

    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        let granted = self.reach().await.grant(ttl).await?;
        *self.lease.lock().expect("nobody panics") = Some(granted.0);
        Ok(granted)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.reach().await.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.reach().await.revoke(lease).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.reach().await.compact(revision).await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}
