//! Presence over a store in memory, with the clock paused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use fleet_core::agent::{Observed, Task};
use fleet_core::name::UnitName;
use futures_util::{FutureExt, StreamExt};
use tokio::task::JoinHandle;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Event, Range, Snapshot, Watch};
use crate::units::Changes;

const MACHINE: &str = "148a18ff6e954cd892dac9de9bb90d5a";
const TTL: Duration = Duration::from_secs(3);

/// Simulated time that a test may take; the clock is paused, so it passes at once.
const BOUND: Duration = Duration::from_secs(300);

struct Running {
    config: watch::Sender<AgentConfig>,
    record: watch::Sender<MachineRecord>,
    standing: watch::Receiver<Standing>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), Duplicate>>,
}

fn record(boot: &str, ip: &str) -> MachineRecord {
    MachineRecord {
        boot_id: boot.to_owned(),
        public_ip: ip.to_owned(),
        ..MachineRecord::default()
    }
}

/// A systemd that runs nothing.
struct Idle {
    goes_down: bool,
}

#[async_trait]
impl UnitManager for Idle {
    fn observe(&self, _: &UnitName) -> Observed {
        Observed::default()
    }

    fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
        BTreeMap::new()
    }

    fn apply(&self, _: Vec<Task>) {}

    fn trouble(&self) -> Option<String> {
        None
    }

    async fn is_shutting_down(&self) -> bool {
        self.goes_down
    }

    async fn changed(&self) -> Changes {
        std::future::pending().await
    }
}

/// A fleetd whose lease is remembered in a directory.
fn start(
    store: &Arc<impl Store + 'static>,
    dir: &std::path::Path,
    ttl: Duration,
    record: MachineRecord,
) -> Running {
    start_over(store, dir, ttl, record, Idle { goes_down: false })
}

fn start_over(
    store: &Arc<impl Store + 'static>,
    dir: &std::path::Path,
    ttl: Duration,
    record: MachineRecord,
    manager: Idle,
) -> Running {
    let config = watch::Sender::new(AgentConfig {
        machine: MachineId::new(MACHINE),
        machine_id_file: dir.join("machine-id"),
        ttl,
        unsupervised_grace: Duration::from_secs(600),
        run_directory: dir.to_owned(),
        record: record.clone(),
    });
    let record = watch::Sender::new(record);
    let (standing_tx, standing) = watch::channel(Standing::default());
    let (stop, shutdown) = watch::channel(false);
    let presence = Presence {
        store: Arc::clone(store) as _,
        machine: MachineId::new(MACHINE),
        config: config.subscribe(),
        file: dir.join("lease"),
        record: record.subscribe(),
        standing: standing_tx,
        renew: Arc::default(),
        registered: None,
        manager: Arc::new(manager),
        beat: Default::default(),
    };
    let task = tokio::spawn(presence.run(shutdown));
    Running {
        config,
        record,
        standing,
        stop,
        task,
    }
}

impl Running {
    async fn registered(&mut self) -> Revision {
        let standing = self.standing.wait_for(|standing| standing.epoch.is_some());
        let standing = tokio::time::timeout(BOUND, standing).await;
        standing.expect("it registers").unwrap().epoch.unwrap()
    }

    /// Dies without a word.
    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn entry(store: &dyn Store) -> Option<Entry> {
    let key = keys::machine(MACHINE);
    store.read_keys(&[key]).await.unwrap().entries.pop()
}

/// Waits, in simulated time, until the presence key is as it should be.
async fn until(store: &dyn Store, what: &str, is_so: impl Fn(&Entry) -> bool) -> Entry {
    let look = async {
        loop {
            match entry(store).await {
                Some(entry) if is_so(&entry) => return entry,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let found = tokio::time::timeout(BOUND, look).await;
    found.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// An idle agent is not woken by each keepalive.
#[tokio::test(start_paused = true)]
async fn that_a_lease_was_renewed_is_no_news() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let mut fleetd = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    fleetd.registered().await;
    let before = fleetd.standing.borrow_and_update().certain_until;
    let renewed = async {
        while fleetd.standing.borrow().certain_until == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let renewed = tokio::time::timeout(BOUND, renewed).await;
    renewed.expect("the lease is renewed, and whoever looks sees it");
    assert!(!fleetd.standing.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn another_agent_ttl_takes_another_lease_without_a_blink() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let mut fleetd = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    let epoch = fleetd.registered().await;
    let before = entry(&*store).await.unwrap();
    let mut watch = store
        .watch(&keys::machine(MACHINE), before.mod_revision)
        .await
        .unwrap();

    fleetd
        .config
        .send_modify(|config| config.ttl = Duration::from_secs(30));
    let after = until(&*store, "a new lease", |entry| entry.lease != before.lease).await;
    assert_eq!(
        (after.create_revision, &after.value),
        (epoch, &before.value)
    );
    // The old lease is given back, and the new one is renewed for longer than both times.
    let is_gone = async {
        while store.keep_alive(before.lease.unwrap()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, is_gone)
        .await
        .expect("the old lease ends");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(entry(&*store).await.unwrap(), after);
    assert_eq!(fleetd.standing.borrow().epoch, Some(epoch));

    // Nobody ever saw it go.
    while let Some(Some(batch)) = watch.next().now_or_never() {
        let events = batch.unwrap().events;
        assert!(
            events.iter().all(|event| matches!(event, Event::Put(_))),
            "{events:?}"
        );
    }

    // The next fleetd of this boot goes on with it, and with its own time.
    fleetd.die().await;
    let mut next = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    assert_eq!(next.registered().await, epoch);
    let shorter = until(&*store, "the old time", |entry| entry.lease != after.lease).await;
    assert_eq!(shorter.create_revision, epoch);
    next.die().await;
    // It is as short as it says.
    tokio::time::sleep(TTL + Duration::from_millis(100)).await;
    assert_eq!(entry(&*store).await, None);
}

/// Exclusive units are bound to the lease of the fleetd before for as long as that was.
#[tokio::test(start_paused = true)]
async fn how_long_the_lease_of_the_fleetd_before_was_is_remembered() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    assert_eq!(remembered_ttl(dir.path()), None, "there was none");
    let long = Duration::from_secs(30);
    let mut before = start(&store, dir.path(), long, record("b1", "10.0.0.1"));
    before.registered().await;
    before.die().await;
    assert_eq!(remembered_ttl(dir.path()), Some(long));
    // Until the one after has a lease of its own.
    let mut after = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    after.registered().await;
    let is_shorter = async {
        while remembered_ttl(dir.path()) != Some(TTL) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let shorter = tokio::time::timeout(BOUND, is_shorter).await;
    shorter.expect("its own time is remembered");
    after.die().await;
    std::fs::write(dir.path().join("lease"), "ttl_ms=").unwrap();
    assert_eq!(remembered_ttl(dir.path()), None, "it cannot be read");
}

#[tokio::test(start_paused = true)]
async fn a_changed_record_is_published_at_once_under_the_same_epoch() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let mut fleetd = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    let epoch = fleetd.registered().await;
    let metadata = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    fleetd
        .record
        .send_modify(|record| record.metadata = metadata.clone());
    let published = |entry: &Entry| MachineRecord::decode(&entry.key, &entry.value).unwrap();
    let entry = until(&*store, "the metadata", |entry| {
        published(entry).metadata == metadata
    })
    .await;
    assert_eq!(entry.create_revision, epoch);
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_living_machine_ends_and_disturbs_it_not() {
    let store = MemoryStore::new();
    let (first_dir, second_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = start(&store, first_dir.path(), TTL, record("b1", "10.0.2.15"));
    let epoch = first.registered().await;
    let before = entry(&*store).await.unwrap();
    // The same address proves nothing: behind two routers both may be right.
    let second = start(&store, second_dir.path(), TTL, record("b2", "10.0.2.15"));
    let outcome = tokio::time::timeout(BOUND, second.task)
        .await
        .expect("it ends");
    let message = outcome.unwrap().unwrap_err().to_string();
    for part in [
        &format!("registered with this machine's id {MACHINE}"),
        "it is 10.0.2.15 (boot b1), this one is 10.0.2.15 (boot b2)",
        "systemd-machine-id-setup",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(
        entry(&*store).await.unwrap(),
        before,
        "the first was not touched"
    );
    assert_eq!(first.standing.borrow().epoch, Some(epoch));
    let all = store.read(Range::default()).await.unwrap();
    assert_eq!(all.entries.len(), 1, "the second wrote nothing");
}

#[tokio::test(start_paused = true)]
async fn a_new_boot_takes_over_when_the_lease_of_the_old_one_has_ended() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let mut before = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    let epoch = before.registered().await;
    before.die().await;
    let started = Instant::now();
    // What ended with the boot is gone.
    let run = tempfile::tempdir().unwrap();
    let mut after = start(&store, run.path(), TTL, record("b2", "10.0.0.1"));
    assert!(after.registered().await > epoch);
    let took = started.elapsed();
    assert!(took <= TTL + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_boot_does_not_wait_for_one_that_was_stopped_in_order() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let long = Duration::from_secs(3_600);
    let mut before = start(&store, dir.path(), long, record("b1", "10.0.0.1"));
    before.registered().await;
    before.stop.send_replace(true);
    assert_eq!(before.task.await.unwrap(), Ok(()));
    let started = Instant::now();
    let run = tempfile::tempdir().unwrap();
    let mut after = start(&store, run.path(), long, record("b2", "10.0.0.1"));
    after.registered().await;
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_process_of_the_same_boot_registers_at_once_though_its_lease_was_forgotten() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let long = Duration::from_secs(3_600);
    let mut before = start(&store, dir.path(), long, record("b1", "10.0.0.1"));
    before.registered().await;
    before.die().await;
    std::fs::remove_file(dir.path().join("lease")).unwrap();
    let started = Instant::now();
    let mut after = start(&store, dir.path(), long, record("b1", "10.0.0.1"));
    after.registered().await;
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_goes_down_is_told_apart_from_a_fleetd_that_stops() {
    for (goes_down, said) in [
        (false, MachineRecord::STOPPED_IN_ORDER),
        (true, MachineRecord::SHUTTING_DOWN),
    ] {
        let store = MemoryStore::new();
        let dir = tempfile::tempdir().unwrap();
        let own = record("boot", "10.0.0.1");
        let mut running = start_over(&store, dir.path(), TTL, own, Idle { goes_down });
        running.registered().await;
        running.stop.send_replace(true);
        running.task.await.unwrap().unwrap();
        let entry = store.read_keys(&[keys::machine(MACHINE)]).await.unwrap();
        let entry = &entry.entries[0];
        let record = MachineRecord::decode(&entry.key, &entry.value).unwrap();
        assert_eq!(record.trouble.as_deref(), Some(said));
        // The next one of this machine takes it over, also in a new boot, at once.
        let mut next = start(&store, dir.path(), TTL, record_of_next_boot());
        tokio::time::timeout(TTL, next.registered()).await.unwrap();
    }
}

fn record_of_next_boot() -> MachineRecord {
    record("another boot", "10.0.0.1")
}

#[tokio::test(start_paused = true)]
async fn a_start_after_an_orderly_stop_is_told_at_once() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let long = Duration::from_secs(3_600);
    let mut before = start(&store, dir.path(), long, record("b1", "10.0.0.1"));
    let epoch = before.registered().await;
    before.stop.send_replace(true);
    assert_eq!(before.task.await.unwrap(), Ok(()));
    let started = Instant::now();
    let mut after = start(&store, dir.path(), long, record("b1", "10.0.0.1"));
    assert_eq!(after.registered().await, epoch);
    let entry = until(&*store, "the word that it is back", |entry| {
        let record = MachineRecord::decode(&entry.key, &entry.value).unwrap();
        record.trouble.is_none()
    })
    .await;
    assert_eq!(entry.create_revision, epoch);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_makes_no_clone_of_a_machine_that_lost_its_power() {
    let (store, dir) = (Flaky::new(), tempfile::tempdir().unwrap());
    let mut before = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    let epoch = before.registered().await;
    // The lease lives while its store is away, as etcd's do over a restart.
    let run = tempfile::tempdir().unwrap();
    let mut after = start(&store, run.path(), TTL, record("b2", "10.0.0.1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    store.away.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    store.away.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!after.task.is_finished(), "it has not waited anew");
    before.die().await;
    assert!(after.registered().await > epoch);
}

#[tokio::test(start_paused = true)]
async fn presence_goes_on_though_the_store_answers_only_half() {
    let (store, dir) = (Flaky::new(), tempfile::tempdir().unwrap());
    let mut before = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    let epoch = before.registered().await;
    before.die().await;
    store.away.store(true, Ordering::Relaxed);
    let mut after = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(after.standing.borrow().epoch, None);
    store.away.store(false, Ordering::Relaxed);
    assert_eq!(after.registered().await, epoch);
}

#[tokio::test(start_paused = true)]
async fn a_trouble_that_ends_while_nobody_knows_whether_it_was_told_is_taken_back() {
    let (store, dir) = (Flaky::new(), tempfile::tempdir().unwrap());
    let mut fleetd = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    fleetd.registered().await;
    let trouble = |entry: &Entry| {
        MachineRecord::decode(&entry.key, &entry.value)
            .unwrap()
            .trouble
    };
    store.loses_answers.store(true, Ordering::Relaxed);
    fleetd
        .record
        .send_modify(|record| record.trouble = Some("no systemd".to_owned()));
    until(&*store, "the trouble", |entry| trouble(entry).is_some()).await;
    store.loses_answers.store(false, Ordering::Relaxed);
    fleetd.record.send_modify(|record| record.trouble = None);
    until(&*store, "its end", |entry| trouble(entry).is_none()).await;
}

/// A fleetd that dies at once each time must not keep its machine busy, and one that crashes once
/// is back while its lease lives.
#[test]
fn systemd_restarts_fleetd_before_its_lease_ends_and_without_haste() {
    const SERVICE: &str = include_str!("../../../../../contrib/systemd/fleet.service");
    let pause = SERVICE
        .lines()
        .find_map(|line| line.strip_prefix("RestartSec="))
        .and_then(fleet_core::requirements::time_span)
        .expect("a pause");
    let ttl = crate::config::Config::for_system().agent_ttl;
    let left = ttl - ttl / KEEPALIVES_PER_TTL;
    // systemd's work and ours, on a slow computer.
    let start = Duration::from_secs(1);
    assert!(pause + start < left, "{pause:?} of {left:?}");
    // A start of fleetd that fails costs some 10 ms of processor time.
    assert!(pause >= Duration::from_millis(100), "{pause:?}");
}

/// Keeps leases alive, and reads no keys while it is away.
struct Flaky {
    store: Arc<MemoryStore>,
    away: AtomicBool,
    /// What is committed is never answered.
    loses_answers: AtomicBool,
}

impl Flaky {
    fn new() -> Arc<Flaky> {
        Arc::new(Flaky {
            store: MemoryStore::new(),
            away: AtomicBool::new(false),
            loses_answers: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl Store for Flaky {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        self.store.read(range).await
    }
    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(Error::Unavailable("away".to_owned())),
            false => self.store.read_keys(keys).await,
        }
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.store.watch(prefix, after).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let revision = self.store.commit(txn).await?;
        match self.loses_answers.load(Ordering::Relaxed) {
            true => Err(Error::OutcomeUnknown("the answer was lost".to_owned())),
            false => Ok(revision),
        }
    }
    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        self.store.grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.store.keep_alive(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.store.revoke(lease).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.store.compact(revision).await
    }
    fn describe(&self) -> String {
        self.store.describe()
    }
}

/// Whoever removes a machine's record, or writes nonsense over it, does not make it lost.
#[tokio::test(start_paused = true)]
async fn a_record_that_vanishes_or_is_overwritten_is_written_anew_at_once() {
    let store = MemoryStore::new();
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(&store, dir.path(), TTL, record("b1", "10.0.0.1"));
    let mut epoch = running.registered().await;
    let key = keys::machine(MACHINE);
    let value = b"{nonsense".to_vec();
    let lease = None;
    for op in [
        Op::Delete { key: key.clone() },
        Op::Put { key, value, lease },
    ] {
        let began = Instant::now();
        let ops = vec![op.clone()];
        store
            .commit(Txn {
                ops,
                ..Txn::default()
            })
            .await
            .unwrap();
        let anew = until(&*store, "it is registered anew", |entry| {
            entry.create_revision > epoch && entry.lease.is_some()
        })
        .await;
        assert!(began.elapsed() < Duration::from_millis(500), "{op:?}");
        assert!(MachineRecord::decode(&anew.key, &anew.value).is_ok());
        epoch = anew.create_revision;
    }
    running.die().await;
}
