//! The engine's loop over a store in memory, with the clock paused: what stands in the store.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::events::EventsRecord;
use fleet_core::records::{
    DesiredState, MachineId, MachineRecord, MemberRecord, MemberStatus, Order, PlacementRecord,
    UnitRecord,
};
use fleet_core::unit_file::UnitFile;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{ENGINE_VERSION, Engine, EngineConfig, EngineMetrics, EngineStatus, Role};
use crate::agent::{Fence, Standing};
use crate::config::Config;
use crate::store::codec::{ClusterRecord, Document, FORMAT, LeaderRecord};
use crate::store::memory::MemoryStore;
use crate::store::{LeaseId, Op, Range, Store, Txn, keys};

/// Simulated time that a test may take; the clock is paused, so it passes at once.
const BOUND: Duration = Duration::from_secs(60);

struct Running {
    config: watch::Sender<EngineConfig>,
    status: watch::Receiver<EngineStatus>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    async fn becomes(&mut self, role: Role) {
        let is_so = self.status.wait_for(|status| status.role == role);
        let found = tokio::time::timeout(BOUND, is_so).await;
        found
            .unwrap_or_else(|_| panic!("{role:?} did not happen"))
            .unwrap();
    }
}

fn start(store: &Arc<MemoryStore>, machine: &str) -> Running {
    start_version(store, machine, ENGINE_VERSION)
}

fn config(machine: &str, version: u32) -> EngineConfig {
    EngineConfig {
        version,
        safety_tick: None,
        ..EngineConfig::from_config(&Config::for_system(), MachineId::new(machine))
    }
}

fn start_version(store: &Arc<MemoryStore>, machine: &str, version: u32) -> Running {
    let (stop, shutdown) = watch::channel(false);
    let config = watch::Sender::new(config(machine, version));
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    let engine = Engine::new(
        store,
        config.subscribe(),
        Arc::new(EngineMetrics::default()),
    );
    Running {
        config,
        status: engine.status(),
        stop,
        task: tokio::spawn(engine.run(shutdown)),
    }
}

async fn put(store: &MemoryStore, key: String, value: Vec<u8>, lease: Option<LeaseId>) -> u64 {
    let ops = vec![Op::Put { key, value, lease }];
    store
        .commit(Txn {
            compares: Vec::new(),
            ops,
        })
        .await
        .unwrap()
}

/// A machine that is there until its lease is revoked.
async fn present(store: &MemoryStore, id: &str) -> LeaseId {
    let (lease, _) = store.grant(Duration::from_secs(3_600)).await.unwrap();
    let record = MachineRecord::default();
    put(store, keys::machine(id), record.encode(), Some(lease)).await;
    lease
}

async fn wish(store: &MemoryStore, unit: &str) -> u64 {
    let file = UnitFile::parse("[Service]\nExecStart=/bin/true\n").unwrap();
    let record = UnitRecord {
        text: file.to_text().into(),
        hash: file.hash(),
        desired: DesiredState::Launched,
        restarts: 0,
        prefer: None,
        request_id: String::new(),
        earlier_requests: Vec::new(),
        buried: false,
        changed_by: String::new(),
        changed_ms: 0,
    };
    put(store, keys::unit(unit), record.encode(), None).await
}

fn tombstone() -> UnitRecord {
    UnitRecord {
        text: "".into(),
        hash: UnitFile::parse("").unwrap().hash(),
        desired: DesiredState::Destroyed,
        restarts: 0,
        prefer: None,
        request_id: "r2".to_owned(),
        earlier_requests: vec!["r1".to_owned()],
        buried: false,
        changed_by: String::new(),
        changed_ms: 0,
    }
}

async fn get(store: &MemoryStore, key: &str) -> Option<crate::store::Entry> {
    store
        .read_keys(&[key.to_owned()])
        .await
        .unwrap()
        .entries
        .into_iter()
        .next()
}

/// Waits, in simulated time, until a look at the store finds something.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(BOUND, found).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not happen"),
    }
}

async fn placed(store: &MemoryStore, unit: &str) -> (String, u64) {
    until(&format!("{unit} is placed"), || async {
        let entry = get(store, &keys::placement(unit)).await?;
        let record = PlacementRecord::decode(&entry.key, &entry.value).unwrap();
        Some((record.machine?.as_str().to_owned(), entry.mod_revision))
    })
    .await
}

async fn led_by(store: &MemoryStore, machine: &str) -> u64 {
    until(&format!("{machine} leads"), || async {
        let entry = get(store, keys::LEADER).await?;
        let record = LeaderRecord::decode(&entry.key, &entry.value).unwrap();
        (record.machine.as_str() == machine).then_some(entry.create_revision)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_wish_is_placed_and_assigned_in_one_revision() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    present(&store, "m2").await;
    let _engine = start(&store, "m1");
    let generation = wish(&store, "a.service").await;
    let (machine, revision) = placed(&store, "a.service").await;
    let assignment = get(&store, &keys::assignment(&machine, "a.service"))
        .await
        .unwrap();
    assert_eq!(assignment.mod_revision, revision);
    let record =
        fleet_core::records::AssignmentRecord::decode(&assignment.key, &assignment.value).unwrap();
    assert_eq!(record.order, Order::Launched);
    assert_eq!(record.decision.generation, generation);
    assert!(record.decision.seq > 0 && !record.reason.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_wishes_is_spread_evenly() {
    let store = MemoryStore::new();
    for machine in ["m1", "m2", "m3", "m4", "m5"] {
        present(&store, machine).await;
    }
    let _engine = start(&store, "m1");
    for n in 0..500 {
        wish(&store, &format!("u@{n}.service")).await;
    }
    for n in 0..500 {
        placed(&store, &format!("u@{n}.service")).await;
    }
    for machine in ["m1", "m2", "m3", "m4", "m5"] {
        let prefix = keys::assignments_of(machine);
        let assigned = store
            .read(Range {
                prefix,
                ..Range::default()
            })
            .await
            .unwrap();
        assert_eq!(assigned.entries.len(), 100, "{machine}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_engine_leads_when_the_leader_stops_or_dies() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let first = start(&store, "m1");
    led_by(&store, "m1").await;
    let second = start(&store, "m2");

    // Dies without a word: its lease has to end.
    first.task.abort();
    let fence = led_by(&store, "m2").await;
    wish(&store, "a.service").await;
    placed(&store, "a.service").await;

    // Stops in order: gives leadership back at once.
    let third = start(&store, "m3");
    second.stop.send_replace(true);
    second.task.await.unwrap();
    assert!(led_by(&store, "m3").await > fence);
    wish(&store, "b.service").await;
    placed(&store, "b.service").await;
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_is_gone_decides_nothing_any_more() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let _first = start(&store, "m1");
    led_by(&store, "m1").await;
    let lease = get(&store, keys::LEADER).await.unwrap().lease.unwrap();
    let _second = start(&store, "m2");
    // Behind its back; at the same moment there is something to decide.
    store.revoke(lease).await.unwrap();
    wish(&store, "a.service").await;
    let (_, revision) = placed(&store, "a.service").await;
    // Whoever wrote it led at that revision, and it is written once.
    let leader = get(&store, keys::LEADER).await.unwrap();
    assert!(
        leader.create_revision < revision,
        "decided before anybody led anew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_wish_freezes_itself_alone() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    put(
        &store,
        keys::unit("bad.service"),
        b"{nonsense".to_vec(),
        None,
    )
    .await;
    let _engine = start(&store, "m1");
    wish(&store, "good.service").await;
    placed(&store, "good.service").await;
    assert_eq!(get(&store, &keys::placement("bad.service")).await, None);
    assert!(get(&store, &keys::unit("bad.service")).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_unit_is_buried_with_its_requests_and_its_tombstone_goes_by_itself() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let _engine = start(&store, "m1");
    led_by(&store, "m1").await;
    let key = keys::unit("a.service");
    put(&store, key.clone(), tombstone().encode(), None).await;
    let entry = until("it is buried", || async {
        let entry = get(&store, &key).await?;
        entry.lease.is_some().then_some(entry)
    })
    .await;
    let buried = UnitRecord::decode(&entry.key, &entry.value).unwrap();
    assert_eq!(
        buried,
        UnitRecord {
            buried: true,
            ..tombstone()
        }
    );
    // Another leader leaves it in peace.
    let lease = get(&store, keys::LEADER).await.unwrap().lease.unwrap();
    store.revoke(lease).await.unwrap();
    led_by(&store, "m1").await;
    tokio::time::sleep(Duration::from_secs(119)).await;
    assert_eq!(get(&store, &key).await.as_ref(), Some(&entry));
    // A unit of the same name lasts.
    let key_of_other = keys::unit("b.service");
    put(&store, key_of_other.clone(), tombstone().encode(), None).await;
    until("it is buried", || async {
        get(&store, &key_of_other).await?.lease
    })
    .await;
    wish(&store, "b.service").await;
    placed(&store, "b.service").await;
    tokio::time::sleep(Duration::from_secs(131)).await;
    assert_eq!(get(&store, &key).await, None);
    assert!(get(&store, &key_of_other).await.is_some());
    assert!(get(&store, &keys::placement("b.service")).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn units_of_a_lost_machine_move_and_no_others() {
    let store = MemoryStore::new();
    let mut leases = std::collections::BTreeMap::new();
    for machine in ["m1", "m2", "m3"] {
        leases.insert(machine.to_owned(), present(&store, machine).await);
    }
    let _engine = start(&store, "m1");
    let mut homes = std::collections::BTreeMap::new();
    for n in 0..6 {
        let unit = format!("u@{n}.service");
        wish(&store, &unit).await;
        homes.insert(unit.clone(), placed(&store, &unit).await);
    }
    let lost = homes["u@0.service"].0.clone();
    store.revoke(leases[&lost]).await.unwrap();
    until("the lost machine's units have moved", || async {
        for unit in homes.keys() {
            if placed(&store, unit).await.0 == lost {
                return None;
            }
        }
        Some(())
    })
    .await;
    for (unit, home) in &homes {
        if home.0 != lost {
            assert_eq!(&placed(&store, unit).await, home, "{unit} is not touched");
        }
    }
}

async fn cluster_engine(store: &MemoryStore, version: u32) {
    until(&format!("the cluster's engine is {version}"), || async {
        let entry = get(store, keys::CLUSTER).await?;
        let record = ClusterRecord::decode(&entry.key, &entry.value).unwrap();
        (record.engine == version).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_engine_takes_over_and_an_older_one_leads_no_more() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let mut old = start_version(&store, "m1", 1);
    let fence = led_by(&store, "m1").await;
    old.becomes(Role::Leading { fence }).await;
    cluster_engine(&store, 1).await;
    wish(&store, "a.service").await;
    let home = placed(&store, "a.service").await;

    let new = start_version(&store, "m2", 2);
    let fence = led_by(&store, "m2").await;
    cluster_engine(&store, 2).await;
    // The old one knows it although it had nothing to write, and what it decided stays.
    old.becomes(Role::TooOld { cluster: 2 }).await;
    assert_eq!(placed(&store, "a.service").await, home);
    wish(&store, "b.service").await;
    let (_, revision) = placed(&store, "b.service").await;
    assert!(revision > fence);

    // Nobody is left who may lead: that is said, and nothing is placed.
    new.task.abort();
    let mut another = start_version(&store, "m3", 1);
    another.becomes(Role::TooOld { cluster: 2 }).await;
    until("the leader's lease ends", || async {
        get(&store, keys::LEADER).await.is_none().then_some(())
    })
    .await;
    wish(&store, "c.service").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(get(&store, &keys::placement("c.service")).await, None);
    assert_eq!(get(&store, keys::LEADER).await, None);

    // A newer one comes back and finds everything.
    let _back = start_version(&store, "m2", 3);
    placed(&store, "c.service").await;
    cluster_engine(&store, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_engine_takes_over_though_the_clusters_record_is_damaged() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    // As an engine comes upon it: one that leads already puts it right.
    put(&store, keys::CLUSTER.to_owned(), b"damage".to_vec(), None).await;
    let mut old = start_version(&store, "m1", 1);
    led_by(&store, "m1").await;
    let _new = start_version(&store, "m2", 2);
    led_by(&store, "m2").await;
    old.becomes(Role::Following).await;
    wish(&store, "a.service").await;
    placed(&store, "a.service").await;
    let cluster = get(&store, keys::CLUSTER).await.unwrap();
    assert_eq!(cluster.value, b"damage");
}

#[tokio::test(start_paused = true)]
async fn leadership_is_given_back_when_it_is_forbidden_and_taken_again() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let mut only = start(&store, "m1");
    led_by(&store, "m1").await;
    only.config.send_modify(|config| config.enabled = false);
    only.becomes(Role::Disabled).await;
    // At once, not with its lease.
    assert_eq!(get(&store, keys::LEADER).await, None);
    wish(&store, "a.service").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(get(&store, &keys::placement("a.service")).await, None);
    only.config.send_modify(|config| config.enabled = true);
    placed(&store, "a.service").await;
    // A follower stops following.
    let mut second = start(&store, "m2");
    second.becomes(Role::Following).await;
    assert_eq!(second.status.borrow().leader, Some(MachineId::new("m1")));
    second.config.send_modify(|config| config.enabled = false);
    second.becomes(Role::Disabled).await;
}

#[tokio::test(start_paused = true)]
async fn another_lost_after_counts_at_once_and_leadership_stays() {
    let store = MemoryStore::new();
    let lease = present(&store, "m1").await;
    present(&store, "m2").await;
    present(&store, "m3").await;
    let engine = start(&store, "m3");
    engine
        .config
        .send_modify(|config| config.lost_after = Duration::from_secs(3_600));
    let fence = led_by(&store, "m3").await;
    wish(&store, "a.service").await;
    let (home, _) = placed(&store, "a.service").await;
    assert_eq!(home, "m1");
    store.revoke(lease).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(placed(&store, "a.service").await.0, "m1", "it has an hour");
    engine
        .config
        .send_modify(|config| config.lost_after = Duration::from_secs(1));
    until("the unit moves", || async {
        (placed(&store, "a.service").await.0 != "m1").then_some(())
    })
    .await;
    assert_eq!(led_by(&store, "m3").await, fence);
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_machine_is_not_registered_leaves_leadership_alone() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let _first = start(&store, "m1");
    let fence = led_by(&store, "m1").await;

    // A clone of m1: to it, m1's leadership looks like its own of before.
    let standing = watch::Sender::new(Standing::default());
    let (_stop, shutdown) = watch::channel(false);
    let config = watch::Sender::new(config("m1", ENGINE_VERSION));
    let clone = Engine::new(
        Arc::clone(&store) as _,
        config.subscribe(),
        Arc::new(EngineMetrics::default()),
    )
    .while_registered(standing.subscribe());
    tokio::spawn(clone.run(shutdown));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let leader = get(&store, keys::LEADER).await.unwrap();
    assert_eq!(leader.create_revision, fence);

    // Registered it is m1, and what led before is no more.
    standing.send_replace(Standing {
        epoch: Some(1),
        fence: Fence::default(),
        certain_until: Duration::ZERO,
    });
    until("it takes over", || async {
        let leader = get(&store, keys::LEADER).await?;
        (leader.create_revision > fence).then_some(())
    })
    .await;
}

async fn remove(store: &MemoryStore, key: &str) {
    let ops = vec![Op::Delete {
        key: key.to_owned(),
    }];
    store
        .commit(Txn {
            ops,
            ..Txn::default()
        })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_key_that_vanishes_or_is_overwritten_ends_one_leader_and_makes_another() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let mut engine = start(&store, "m1");
    let fence = led_by(&store, "m1").await;
    engine.becomes(Role::Leading { fence }).await;
    remove(&store, keys::LEADER).await;
    let fence = led_by(&store, "m1").await;
    engine.becomes(Role::Leading { fence }).await;
    // Without a lease it would stand there for ever.
    put(&store, keys::LEADER.to_owned(), b"nonsense".to_vec(), None).await;
    let leads_anew = until("there is a leader again", || async {
        let entry = get(&store, keys::LEADER).await?;
        entry.lease.map(|_| entry.create_revision)
    })
    .await;
    assert!(leads_anew > fence);
    wish(&store, "a.service").await;
    placed(&store, "a.service").await;
}

#[tokio::test(start_paused = true)]
async fn the_clusters_name_is_put_back_when_it_vanishes_or_cannot_be_read() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let _engine = start(&store, "m1");
    led_by(&store, "m1").await;
    wish(&store, "a.service").await;
    placed(&store, "a.service").await;
    let name = get(&store, keys::CLUSTER).await.unwrap().value;
    let is_back = async || {
        until("the name is back", || async {
            let entry = get(&store, keys::CLUSTER).await?;
            (entry.value == name).then_some(())
        })
        .await;
    };
    remove(&store, keys::CLUSTER).await;
    is_back().await;
    put(
        &store,
        keys::CLUSTER.to_owned(),
        b"{nonsense".to_vec(),
        None,
    )
    .await;
    is_back().await;
    let other = ClusterRecord {
        id: "another".to_owned(),
        format: FORMAT,
        engine: 1,
    };
    put(&store, keys::CLUSTER.to_owned(), other.encode(), None).await;
    is_back().await;
}

/// What only the leader writes it knows by heart; what others have written over it is named and
/// does no harm, and what it came upon is looked at again when it can be read.
#[tokio::test(start_paused = true)]
async fn a_placement_that_somebody_has_overwritten_is_written_anew() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let engine = start(&store, "m1");
    wish(&store, "a.service").await;
    placed(&store, "a.service").await;
    let key = keys::placement("a.service");
    let right = get(&store, &key).await.unwrap().value;
    put(&store, key.clone(), b"{nonsense".to_vec(), None).await;
    let generation = wish(&store, "a.service").await;
    let is_placed = async |generation: u64| {
        until("it is placed anew", || async {
            let entry = get(&store, &keys::placement("a.service")).await?;
            let record = PlacementRecord::decode(&entry.key, &entry.value).ok()?;
            (record.decision.generation == generation).then_some(())
        })
        .await;
    };
    is_placed(generation).await;
    // A leader that comes upon it keeps its hands off, until it is put right.
    put(&store, key.clone(), b"{nonsense".to_vec(), None).await;
    let fence = led_by(&store, "m1").await;
    let lease = get(&store, keys::LEADER).await.unwrap().lease.unwrap();
    store.revoke(lease).await.unwrap();
    until("it leads anew", || async {
        (led_by(&store, "m1").await > fence).then_some(())
    })
    .await;
    let generation = wish(&store, "a.service").await;
    wish(&store, "b.service").await;
    placed(&store, "b.service").await;
    assert_eq!(get(&store, &key).await.unwrap().value, b"{nonsense");
    put(&store, key, right, None).await;
    is_placed(generation).await;
    drop(engine);
}

/// Of fleetds that are stopped everywhere nobody sees the last one leave, whether it leads or whoever led
/// has gone just before.
#[tokio::test(start_paused = true)]
async fn the_last_fleetd_that_is_stopped_sees_its_own_machine_off() {
    for leads in [true, false] {
        let store = MemoryStore::new();
        let lease = present(&store, "m1").await;
        let leader = if leads { "m1" } else { "m2" };
        let other = (!leads).then(|| start(&store, leader));
        if other.is_some() {
            led_by(&store, leader).await;
        }
        let (stop, shutdown) = watch::channel(false);
        let config = watch::Sender::new(config("m1", ENGINE_VERSION));
        let (standing, registered) = watch::channel(Standing {
            epoch: Some(1),
            ..Standing::default()
        });
        let engine = Engine::new(
            Arc::clone(&store) as _,
            config.subscribe(),
            Arc::new(EngineMetrics::default()),
        )
        .while_registered(registered);
        let task = tokio::spawn(engine.run(shutdown));
        led_by(&store, leader).await;
        let member = || async {
            let entry = get(&store, &keys::member("m1")).await?;
            Some(MemberRecord::decode(&entry.key, &entry.value).unwrap())
        };
        until("m1 is a member", member).await;
        stop.send(true).unwrap();
        tokio::task::yield_now().await;
        if let Some(other) = other {
            other.stop.send(true).unwrap();
            other.task.await.unwrap();
        }
        let leaves = MachineRecord {
            trouble: Some(MachineRecord::STOPPED_IN_ORDER.to_owned()),
            ..MachineRecord::default()
        };
        put(&store, keys::machine("m1"), leaves.encode(), Some(lease)).await;
        drop(standing);
        task.await.unwrap();
        let left = member().await.unwrap();
        assert_eq!(left.reason, MemberRecord::LEAVES, "leads: {leads}");
        let leader = get(&store, keys::LEADER).await;
        assert!(leader.is_none(), "it has resigned");
    }
}

/// What the engine has told, the oldest first: the revision, the kind, the unit, the machine.
async fn told(store: &MemoryStore) -> Vec<(u64, String)> {
    let range = Range {
        prefix: keys::events_of(keys::EventWriter::Engine),
        ..Range::default()
    };
    let mut entries = store.read(range).await.unwrap().entries;
    entries.sort_by_key(|entry| entry.mod_revision);
    let mut told = Vec::new();
    for entry in entries {
        let record = EventsRecord::decode(&entry.key, &entry.value).unwrap();
        assert_eq!(record.by, "m1");
        told.extend(record.events.into_iter().map(|event| {
            let unit = event.unit.map_or("-".to_owned(), |unit| unit.to_string());
            let machine = event.machine.map_or("-".to_owned(), |id| id.to_string());
            (
                entry.mod_revision,
                format!("{} {unit} {machine}", event.kind.as_str()),
            )
        }));
    }
    told
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_is_told_in_its_transaction_and_who_leads_once() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let engine = start(&store, "m1");
    wish(&store, "a.service").await;
    let (_, revision) = placed(&store, "a.service").await;
    until("it is told who leads", || async {
        let told = told(&store).await;
        told.iter()
            .any(|(_, what)| what == "leader - m1")
            .then_some(())
    })
    .await;
    let first = told(&store).await;
    let words: Vec<&str> = first.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(
        words
            .iter()
            .filter(|what| what.starts_with("leader"))
            .count(),
        1
    );
    assert!(words.contains(&"present - m1"), "{words:?}");
    assert!(
        first.contains(&(revision, "placed a.service m1".to_owned())),
        "{first:?}"
    );
    // The next leader goes on where this one has ended, and nothing is told twice.
    engine.stop.send_replace(true);
    engine.task.await.unwrap();
    let _again = start(&store, "m1");
    wish(&store, "b.service").await;
    let (_, revision) = placed(&store, "b.service").await;
    until("it is told who leads again", || async {
        let told = told(&store).await;
        let leaders = told.iter().filter(|(_, what)| what == "leader - m1");
        (leaders.count() == 2).then_some(())
    })
    .await;
    let both = told(&store).await;
    assert_eq!(both[..first.len()], first);
    assert!(
        both.contains(&(revision, "placed b.service m1".to_owned())),
        "{both:?}"
    );
    assert_eq!(both.len(), first.len() + 2, "{both:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_machine_has_told_that_is_gone_for_long_is_removed() {
    let store = MemoryStore::new();
    present(&store, "m1").await;
    let month_ms = 30 * 24 * 60 * 60 * 1000;
    let now_ms = crate::clock::unix_ms();
    for (id, since_ms) in [
        ("old", now_ms - month_ms - 1),
        ("new", now_ms - month_ms / 2),
    ] {
        let record = MemberRecord {
            status: MemberStatus::Lost,
            since_ms,
            first_seen_ms: 1,
            public_ip: String::new(),
            metadata: Default::default(),
            reason: "no sign of life for 5 s".to_owned(),
            avoided: None,
        };
        put(&store, keys::member(id), record.encode(), None).await;
    }
    let slots = |id: &'static str| {
        let writers = [keys::EventWriter::Agent(id), keys::EventWriter::Api(id)];
        writers
            .into_iter()
            .flat_map(|of| [0, 63].map(|slot| keys::event(of, slot)))
    };
    let record = EventsRecord::default();
    for key in slots("old").chain(slots("new")).chain(slots("m1")) {
        put(&store, key, record.encode(), None).await;
    }
    let _engine = start(&store, "m1");
    until("the old ones are gone", || async {
        for key in slots("old") {
            if get(&store, &key).await.is_some() {
                return None;
            }
        }
        Some(())
    })
    .await;
    for key in slots("new").chain(slots("m1")) {
        assert!(get(&store, &key).await.is_some(), "{key}");
    }
}
