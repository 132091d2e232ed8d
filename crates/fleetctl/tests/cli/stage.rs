//! fleetd's own API over a store in memory. Engine and agent are played: every unit goes to the
//! first machine at once and does what it is told, except that `bad` ones fail and `nowhere`
//! ones have no machine.

use std::sync::Arc;

use fleet_core::hash::UnitHash;
use fleet_core::records::{
    Decision, DesiredState, Failures, MachineId, MachineRecord, PlacementRecord, Reached, Refusal,
    StateRecord, UnitRecord,
};
use fleetd::api::{ApiState, router};
use fleetd::store::codec::Document;
use fleetd::store::keys::{self, Key};
use fleetd::store::memory::MemoryStore;
use fleetd::store::{Entry, Event, Op, Store, Txn};
use futures_util::StreamExt;
use tokio::net::UnixListener;

use crate::fake::H1;

pub(crate) async fn serve(listener: UnixListener) {
    let store = MemoryStore::new();
    let machine = MachineRecord {
        public_ip: "172.30.1.2".into(),
        version: "1.0.0".into(),
        ..MachineRecord::default()
    };
    put(&*store, vec![op(keys::machine(H1), machine.encode())]).await;
    let state = ApiState::new(store.clone(), 100, "1.0.0");
    let watch = store.watch(keys::UNITS, 0).await.unwrap();
    tokio::select! {
        served = axum::serve(listener, router(state)).into_future() => served.unwrap(),
        () = play(store, watch) => {}
    }
}

/// Answers each wish.
async fn play(store: Arc<MemoryStore>, mut watch: fleetd::store::Watch) {
    while let Some(batch) = watch.next().await {
        for event in batch.unwrap().events {
            if let Event::Put(entry) = event {
                answer(&*store, &entry).await;
            }
        }
    }
}

async fn answer(store: &dyn Store, entry: &Entry) {
    let Key::Unit(name) = keys::parse(&entry.key) else {
        return;
    };
    let wish = UnitRecord::decode(&entry.key, &entry.value).unwrap();
    let decision = Decision {
        generation: entry.mod_revision,
        seq: entry.mod_revision + 1,
    };
    let (placement, state) = (keys::placement(name), keys::state(name, H1));
    let gone = |key: &String| Op::Delete { key: key.clone() };
    let ops = match wish.desired {
        DesiredState::Destroyed => vec![gone(&placement), gone(&state), gone(&entry.key)],
        DesiredState::Inactive => vec![gone(&placement), gone(&state)],
        _ if name.starts_with("nowhere") => {
            vec![op(placement, nowhere(decision).encode()), gone(&state)]
        }
        desired => vec![
            op(placement, placed(decision).encode()),
            op(state, reached(name, &wish, decision, desired).encode()),
        ],
    };
    put(store, ops).await;
}

fn placed(decision: Decision) -> PlacementRecord {
    PlacementRecord {
        failures: Failures::default(),
        machine: Some(MachineId::new(H1)),
        leaving: None,
        decision,
        reason: "least loaded".into(),
        refusals: Vec::new(),
        passed_over: Vec::new(),
        considered: 1,
        assigned: 1,
        since_ms: 0,
    }
}

fn nowhere(decision: Decision) -> PlacementRecord {
    PlacementRecord {
        machine: None,
        refusals: vec![Refusal {
            requirement: "MachineMetadata region=mars".into(),
            machines: 1,
        }],
        assigned: 0,
        ..placed(decision)
    }
}

fn reached(
    name: &str,
    wish: &UnitRecord,
    decision: Decision,
    desired: DesiredState,
) -> StateRecord {
    let is_launched = desired == DesiredState::Launched;
    let is_bad = is_launched && name.starts_with("bad");
    let (active, sub) = match (is_launched, is_bad) {
        (_, true) => ("failed", "failed"),
        (true, _) => ("active", "running"),
        (false, _) => ("inactive", "dead"),
    };
    StateRecord {
        load: "loaded".into(),
        active: active.into(),
        sub: sub.into(),
        hash: UnitHash::of(wish.text.as_bytes()),
        decision,
        reached: if is_launched {
            Reached::Launched
        } else {
            Reached::Loaded
        },
        invocation_id: format!("{}-{}", wish.restarts, is_launched),
        description: "Hello World".into(),
        why: is_bad.then(|| "exit code 1".into()),
        leased_ms: None,
        log: if is_bad {
            vec!["/bin/false: no".into()]
        } else {
            Vec::new()
        },
    }
}

fn op(key: String, value: Vec<u8>) -> Op {
    let lease = None;
    Op::Put { key, value, lease }
}

async fn put(store: &dyn Store, ops: Vec<Op>) {
    let txn = Txn {
        ops,
        ..Txn::default()
    };
    store.commit(txn).await.unwrap();
}
