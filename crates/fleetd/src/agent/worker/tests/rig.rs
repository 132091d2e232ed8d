//! The worker over a store that can be away and a systemd that only takes notes, with the clock
//! paused. What presence says is up to the test.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use fleet_core::agent::LaunchRecord;
use fleet_core::hash::UnitHash;
use fleet_core::records::{Decision, StateRecord};
use futures_util::stream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::*;
use crate::store::codec::{AskedRecord, ClusterRecord};
use crate::store::memory::MemoryStore;
use crate::store::{Entry, LeaseId, Op, Range, Snapshot, Txn};

pub(super) const MACHINE: &str = "148a18ff6e954cd892dac9de9bb90d5a";

/// Simulated time that a test may take; the clock is paused, so it passes at once.
const BOUND: Duration = Duration::from_secs(300);

/// How often a test looks; simulated time.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A store whose reads, writes and watches end while it is away.
pub(super) struct Shaky {
    inner: Mutex<Arc<MemoryStore>>,
    away: watch::Sender<bool>,
    refused: AtomicUsize,
    /// After which revision it was watched last.
    watched_after: AtomicU64,
}

impl Shaky {
    fn inner(&self) -> Result<Arc<MemoryStore>, Error> {
        if *self.away.borrow() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Error::Unavailable("away".to_owned()));
        }
        Ok(Arc::clone(&lock(&self.inner)))
    }
}

#[async_trait]
impl Store for Shaky {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        self.inner()?.read(range).await
    }
    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        self.inner()?.read_keys(keys).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let watch = self.inner()?.watch(prefix, after).await?;
        self.watched_after.store(after, Ordering::Relaxed);
        let mut away = self.away.subscribe();
        let ends = async move {
            let _ = away.wait_for(|away| *away).await;
        };
        let error = Error::Unavailable("away".to_owned());
        let end = stream::once(std::future::ready(Err(error)));
        Ok(watch.take_until(Box::pin(ends)).chain(end).boxed())
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        self.inner()?.commit(txn).await
    }
    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        self.inner()?.grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.inner()?.keep_alive(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.inner()?.revoke(lease).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner()?.compact(revision).await
    }
    fn describe(&self) -> String {
        "shaky".to_owned()
    }
}

/// A systemd that takes notes of what it is asked for, and does what a test says.
#[derive(Default)]
pub(super) struct Notes {
    units: Mutex<BTreeMap<UnitName, Observed>>,
    tasks: Mutex<Vec<Task>>,
    changes: Mutex<Changes>,
    changed: Notify,
}

#[async_trait]
impl UnitManager for Notes {
    fn observe(&self, unit: &UnitName) -> Observed {
        lock(&self.units).get(unit).cloned().unwrap_or_default()
    }
    fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
        lock(&self.units).clone()
    }
    /// What is to be remembered is, at once; all else is left to the test.
    fn apply(&self, tasks: Vec<Task>) {
        for task in &tasks {
            if let TaskKind::Remember(record) = &task.kind {
                let mut units = lock(&self.units);
                units.entry(task.unit.clone()).or_default().record = Some(record.clone());
                lock(&self.changes).units.insert(task.unit.clone());
                self.changed.notify_one();
            }
        }
        lock(&self.tasks).extend(tasks);
    }
    fn trouble(&self) -> Option<String> {
        None
    }
    async fn is_shutting_down(&self) -> bool {
        false
    }
    async fn changed(&self) -> Changes {
        self.changed.notified().await;
        std::mem::take(&mut *lock(&self.changes))
    }
}

/// One machine's worker, and what it works with.
pub(super) struct Rig {
    pub(super) store: Arc<Shaky>,
    systemd: Arc<Notes>,
    standing: watch::Sender<Standing>,
    record: Arc<watch::Sender<MachineRecord>>,
    renew: Arc<Notify>,
    ask: mpsc::Sender<Question>,
    config: watch::Sender<AgentConfig>,
    trust: watch::Sender<Arc<Trust>>,
    worker: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// A machine that is registered, in a cluster that has a name, and has not begun to work.
    pub(super) async fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Shaky {
            inner: Mutex::new(MemoryStore::new()),
            away: watch::Sender::new(false),
            refused: AtomicUsize::new(0),
            watched_after: AtomicU64::new(0),
        });
        let config = AgentConfig {
            machine: MachineId::new(MACHINE),
            machine_id_file: dir.path().join("machine-id"),
            ttl: Duration::from_secs(3),
            unsupervised_grace: Duration::from_secs(600),
            run_directory: dir.path().to_owned(),
            record: MachineRecord::default(),
        };
        let (ask, _) = mpsc::channel(1);
        let mut rig = Rig {
            store,
            systemd: Arc::default(),
            standing: watch::Sender::default(),
            record: Arc::new(watch::Sender::new(MachineRecord::default())),
            renew: Arc::default(),
            ask,
            config: watch::Sender::new(config),
            trust: watch::Sender::default(),
            worker: None,
            dir,
        };
        rig.name_cluster("a").await;
        rig.register().await;
        rig.begin();
        rig
    }

    /// The worker of another fleetd, which finds the small files of the one before.
    pub(super) fn begin(&mut self) {
        let asked;
        (self.ask, asked) = mpsc::channel(1);
        self.record = Arc::default();
        let parts = Parts {
            store: Arc::clone(&self.store) as _,
            manager: Arc::clone(&self.systemd) as _,
            config: self.config.subscribe(),
            metrics: Arc::default(),
            record: Arc::clone(&self.record),
            standing: self.standing.subscribe(),
            renew: Arc::clone(&self.renew),
            asked,
            trust: self.trust.subscribe(),
        };
        let (stop, shutdown) = watch::channel(false);
        let worker = Worker::new(parts).run(shutdown);
        self.worker = Some(tokio::spawn(async move {
            worker.await;
            drop(stop);
        }));
    }

    /// From now on the machine takes only these unit files.
    pub(super) fn trust_only(&self, trust: Trust) {
        self.trust.send_replace(Arc::new(trust));
    }

    /// It dies at once.
    pub(super) async fn kill(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.abort();
            let _ = worker.await;
        }
    }

    /// What is remembered of the store.
    pub(super) fn remembered(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("cluster")).unwrap()
    }

    pub(super) async fn name_cluster(&self, id: &str) {
        let record = ClusterRecord {
            id: id.to_owned(),
            format: 1,
            engine: 0,
        };
        self.put(keys::CLUSTER.to_owned(), record.encode()).await;
    }

    /// Puts a document there, also while the store is away for the machine.
    pub(super) async fn put(&self, key: String, value: Vec<u8>) -> Revision {
        self.put_under(key, value, None).await
    }

    async fn put_under(&self, key: String, value: Vec<u8>, lease: Option<LeaseId>) -> Revision {
        let ops = vec![Op::Put { key, value, lease }];
        let txn = Txn {
            ops,
            ..Txn::default()
        };
        self.inner().commit(txn).await.unwrap()
    }

    /// Somebody says that the store is to be believed.
    pub(super) async fn accept_store(&self) {
        let asked = AskedRecord {
            by: "uid 0".to_owned(),
            at_ms: 1,
            machines: Vec::new(),
        };
        self.put(keys::ACCEPT_STORE.to_owned(), asked.encode())
            .await;
    }

    /// Another store takes the place of the one that there is.
    pub(super) fn exchange(&self, other: Arc<MemoryStore>) {
        *lock(&self.store.inner) = other;
    }

    pub(super) fn inner(&self) -> Arc<MemoryStore> {
        Arc::clone(&lock(&self.store.inner))
    }

    /// The machine is there anew, under a new lease; it knows so for certain.
    pub(super) async fn register(&self) {
        let hour = Duration::from_secs(3_600);
        let (lease, _) = self.inner().grant(hour).await.unwrap();
        let key = keys::machine(MACHINE);
        let revision = self.put_under(key, Vec::new(), Some(lease)).await;
        self.standing.send_replace(Standing {
            epoch: Some(revision),
            fence: Fence { revision, lease },
            certain_until: Duration::MAX,
        });
    }

    /// The machine does not know for certain any more that it is there.
    pub(super) fn doubt_presence(&self) {
        self.standing
            .send_modify(|standing| standing.certain_until = Duration::ZERO);
    }

    pub(super) async fn assign(&self, unit: &str, order: Order, generation: Revision, text: &str) {
        let record = AssignmentRecord {
            text: text.into(),
            hash: UnitHash::of(text.as_bytes()),
            decision: decision(generation),
            order,
            restarts: 0,
            reason: "it was asked for".to_owned(),
        };
        let key = keys::assignment(MACHINE, unit);
        self.put(key, record.encode()).await;
    }

    /// The store goes away, and the worker has noticed.
    pub(super) async fn lose_store(&self) {
        let before = self.store.refused.load(Ordering::Relaxed);
        self.store.away.send_replace(true);
        let refused = || self.store.refused.load(Ordering::Relaxed);
        self.until("the worker asks in vain", || refused() > before)
            .await;
    }

    /// After which revision the worker has watched its assignments last.
    pub(super) fn watched_after(&self) -> Revision {
        self.store.watched_after.load(Ordering::Relaxed)
    }

    /// Removes a key, also while the store is away for the machine.
    pub(super) async fn remove(&self, key: String) {
        let ops = vec![Op::Delete { key }];
        let txn = Txn {
            ops,
            ..Txn::default()
        };
        self.inner().commit(txn).await.unwrap();
    }

    pub(super) fn bring_store_back(&self) {
        self.store.away.send_replace(false);
    }

    /// What systemd says of a unit from now on.
    pub(super) fn is_here(&self, unit: &str, observed: Observed) {
        let unit = UnitName::parse(unit).unwrap();
        lock(&self.systemd.units).insert(unit.clone(), observed);
        lock(&self.systemd.changes).units.insert(unit);
        self.systemd.changed.notify_one();
    }

    /// It is ordered here, and runs.
    pub(super) async fn run(&self, unit: &str, generation: Revision, text: &str) {
        self.is_here(unit, running(generation, text));
        self.assign(unit, Order::Launched, generation, text).await;
    }

    /// The kinds of the tasks that systemd was given for a unit.
    pub(super) fn tasks(&self, unit: &str) -> Vec<&'static str> {
        let tasks = lock(&self.systemd.tasks);
        let tasks = tasks.iter().filter(|task| task.unit.to_string() == unit);
        tasks.map(|task| task.kind.as_str()).collect()
    }

    /// What this machine says of itself besides.
    pub(super) fn remark(&self) -> Option<String> {
        self.record.borrow().remark.clone()
    }

    /// What is remembered of a unit here.
    pub(super) fn done(&self, unit: &str) -> Option<Decision> {
        let unit = UnitName::parse(unit).unwrap();
        let record = self.systemd.observe(&unit).record;
        record.map(|record| record.decision)
    }

    /// What stands in the store of a unit on this machine.
    pub(super) async fn state(&self, unit: &str) -> Option<StateRecord> {
        let entry = self.entry(keys::state(unit, MACHINE)).await?;
        StateRecord::decode(&entry.key, &entry.value).ok()
    }

    pub(super) async fn entry(&self, key: String) -> Option<Entry> {
        let read = self.inner().read_keys(&[key]).await.unwrap();
        read.entries.into_iter().next()
    }

    /// Waits until the worker wants a unit so.
    pub(super) async fn until_wanted(&self, unit: &str, order: &'static str) {
        let look = async {
            loop {
                let (question, answer) = oneshot::channel();
                self.ask.send(question).await.unwrap();
                let memory: Memory = answer.await.unwrap();
                if memory.target_states.get(unit) == Some(&order) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let wanted = tokio::time::timeout(BOUND, look).await;
        wanted.unwrap_or_else(|_| panic!("{unit} is not to be {order}"));
    }

    /// Waits until the worker wants another fence.
    pub(super) async fn until_renewed(&self) {
        let renewed = tokio::time::timeout(BOUND, self.renew.notified()).await;
        renewed.expect("another fence is wanted");
    }

    /// Waits until it is so.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let look = async {
            while !is_so() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let found = tokio::time::timeout(BOUND, look).await;
        found.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    /// Waits until a unit is said to be so.
    pub(super) async fn until_said(&self, unit: &str, reached: Reached) {
        let look = async {
            while self.state(unit).await.map(|state| state.reached) != Some(reached) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let said = tokio::time::timeout(BOUND, look).await;
        said.unwrap_or_else(|_| panic!("{unit} was not said to be {reached:?}"));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.abort();
        }
    }
}

/// A unit that was started for a wish of this generation.
pub(super) fn running(generation: Revision, text: &str) -> Observed {
    Observed {
        file: Some(UnitHash::of(text.as_bytes())),
        record: Some(LaunchRecord {
            decision: decision(generation),
            phase: Phase::Launched,
            hash: UnitHash::of(text.as_bytes()),
            restarts: 0,
            invocation_id: "i1".to_owned(),
        }),
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        sub: "running".to_owned(),
        invocation_id: "i1".to_owned(),
        ..Observed::default()
    }
}

pub(super) fn decision(generation: Revision) -> Decision {
    Decision { generation, seq: 1 }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
