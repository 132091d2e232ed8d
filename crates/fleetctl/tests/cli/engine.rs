//! fleetd's own API and engine over a store in memory; only the agents of two machines are
//! played: each does at once what it is assigned, except that `bad` units fail on the second one
//! and `slow` ones never start there, and `worst` units fail on both.

use std::sync::Arc;

use fleet_core::records::{
    AssignmentRecord, MachineId, MachineRecord, Order, Reached, StateRecord,
};
use fleetd::api::{ApiState, router};
use fleetd::config::Config;
use fleetd::engine::{Engine, EngineConfig, EngineMetrics};
use fleetd::store::codec::Document;
use fleetd::store::keys::{self, Key};
use fleetd::store::memory::MemoryStore;
use fleetd::store::{Event, Op, Store, Txn, Watch};
use futures_util::StreamExt;
use tokio::net::UnixListener;

use crate::fake::{H1, H2, Shared};

pub(crate) async fn serve(cluster: Shared, listener: UnixListener) {
    let store = MemoryStore::new();
    for (id, ip) in [(H1, "172.30.1.2"), (H2, "172.30.1.3")] {
        let machine = MachineRecord {
            public_ip: ip.into(),
            version: "1.0.0".into(),
            ..MachineRecord::default()
        };
        commit(&*store, put(keys::machine(id), machine.encode())).await;
    }
    let state = ApiState::new(store.clone(), 100, "1.0.0").on(MachineId::new(H1));
    let mut config = EngineConfig::from_config(&Config::for_system(), MachineId::new(H1));
    config.safety_tick = None;
    let (_keep, config) = tokio::sync::watch::channel(config);
    let engine = Engine::new(store.clone(), config, Arc::new(EngineMetrics::default()));
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let watch = store.watch(keys::ASSIGNMENTS, 0).await.unwrap();
    let router = router(state).layer(axum::middleware::from_fn_with_state(cluster, note));
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served.unwrap(),
        () = engine.run(shutdown) => {}
        () = play(store, watch) => {}
    }
}

/// Remembers what was asked.
async fn note(
    axum::extract::State(cluster): axum::extract::State<Shared>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let answer = next.run(request).await;
    let requests = &mut cluster.lock().unwrap().requests;
    let is_again = requests.contains(&asked);
    requests.push(if is_again {
        format!("{asked} again")
    } else {
        asked
    });
    answer
}

/// Answers each assignment.
async fn play(store: Arc<MemoryStore>, mut watch: Watch) {
    while let Some(batch) = watch.next().await {
        for event in batch.unwrap().events {
            let (Event::Put(fleetd::store::Entry { key, .. }) | Event::Delete { key, .. }) = &event;
            let Key::Assignment(machine, unit) = keys::parse(key) else {
                continue;
            };
            let state = keys::state(unit, machine);
            match &event {
                Event::Put(entry) => {
                    let record = AssignmentRecord::decode(&entry.key, &entry.value).unwrap();
                    let said = answer(unit, machine, &record);
                    commit(&*store, put(state, said.encode())).await;
                }
                Event::Delete { .. } => commit(&*store, Op::Delete { key: state }).await,
            }
        }
    }
}

fn answer(unit: &str, machine: &str, assigned: &AssignmentRecord) -> StateRecord {
    let is_second = machine == H2;
    let (reached, active, sub) = match assigned.order {
        Order::Gone => (Reached::Gone, "inactive", "dead"),
        Order::Loaded => (Reached::Loaded, "inactive", "dead"),
        Order::Launched if is_second && unit.starts_with("bad") => {
            (Reached::Launched, "failed", "failed")
        }
        Order::Launched if unit.starts_with("worst") => (Reached::Launched, "failed", "failed"),
        Order::Launched if is_second && unit.starts_with("slow") => {
            (Reached::Working, "activating", "start")
        }
        Order::Launched => (Reached::Launched, "active", "running"),
    };
    StateRecord {
        load: "loaded".into(),
        active: active.into(),
        sub: sub.into(),
        hash: assigned.hash,
        decision: assigned.decision,
        reached,
        invocation_id: String::new(),
        description: String::new(),
        why: (active == "failed").then(|| "exit-code: status 1/FAILURE".to_owned()),
        leased_ms: None,
        log: Vec::new(),
    }
}

fn put(key: String, value: Vec<u8>) -> Op {
    Op::Put {
        key,
        value,
        lease: None,
    }
}

async fn commit(store: &dyn Store, op: Op) {
    let txn = Txn {
        ops: vec![op],
        ..Txn::default()
    };
    store.commit(txn).await.unwrap();
}
