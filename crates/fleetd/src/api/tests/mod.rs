//! The API over a store in memory: what goes in and out, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use fleet_core::hash::UnitHash;
use fleet_core::records::{
    Decision, DesiredState, Failures, MachineId, MachineRecord, MachineWish, MemberRecord,
    MemberStatus, PlacementRecord, Reached, StateRecord, UnitRecord,
};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper::{HeaderMap, Request, Response};
use hyper_util::service::TowerToHyperService;

use super::{ApiState, router};
use crate::store::codec::Document;
use crate::store::memory::MemoryStore;
use crate::store::{Op, Range, Revision, Store, Txn, keys};

mod access;
mod batch;
#[path = "../../../tests/common/chance.rs"]
mod chance;
mod documents;
mod events;
mod failures;
mod fuzz;
mod journal;
mod listing;
mod machine;
mod machine_wishes;
mod machines;
mod original;
#[path = "../../../tests/common/original.rs"]
mod original_client;
mod page;
mod pages;
mod paths;
mod rows;
mod socket;
mod states;
mod status;
mod units;
mod wait;
mod waits;
mod watch;

/// An API and the store behind it, in which the tests play engine and agents.
struct Cluster {
    store: Arc<dyn Store>,
    state: ApiState,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster::over(MemoryStore::new(), 100)
    }

    fn over(store: Arc<dyn Store>, token_limit: u16) -> Cluster {
        Cluster {
            state: ApiState::new(Arc::clone(&store), token_limit, "1.2.3"),
            store,
        }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        let router = TowerToHyperService::new(router(self.state.clone()));
        router.call(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.send(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Got {
        self.call("GET", path, &[], "").await
    }

    async fn put(&self, unit: &str, body: &str) -> Got {
        let json = [("Content-Type", "application/json")];
        let path = format!("/fleet/v1/units/{unit}");
        self.call("PUT", &path, &json, body).await
    }

    async fn post(&self, path: &str, body: &str) -> Got {
        self.call("POST", path, &[], body).await
    }

    /// Status and body of a GET.
    async fn shown(&self, path: &str) -> (u16, String) {
        let got = self.get(path).await;
        (got.status, got.body)
    }

    async fn write(&self, key: String, value: Vec<u8>) -> Revision {
        let lease = None;
        let txn = Txn {
            ops: vec![Op::Put { key, value, lease }],
            ..Txn::default()
        };
        self.store.commit(txn).await.unwrap()
    }

    async fn remove(&self, key: String) -> Revision {
        let txn = Txn {
            ops: vec![Op::Delete { key }],
            ..Txn::default()
        };
        self.store.commit(txn).await.unwrap()
    }

    async fn read<T: Document>(&self, key: String) -> Option<T> {
        let snapshot = self.store.read_keys(&[key]).await.unwrap();
        let entry = snapshot.entries.first()?;
        Some(T::decode(&entry.key, &entry.value).unwrap())
    }

    /// The wish of a unit that must be there.
    async fn wish(&self, unit: &str) -> UnitRecord {
        self.read(keys::unit(unit)).await.unwrap()
    }

    async fn generation(&self, unit: &str) -> Revision {
        let snapshot = self.store.read_keys(&[keys::unit(unit)]).await.unwrap();
        snapshot.entries[0].mod_revision
    }

    async fn revision(&self) -> Revision {
        let nothing = Range {
            limit: Some(1),
            ..Range::default()
        };
        self.store.read(nothing).await.unwrap().revision
    }

    /// A machine that is present.
    async fn machine(&self, id: &str, metadata: &[(&str, &str)]) {
        let record = MachineRecord {
            public_ip: format!("10.0.0.{}", id.len()),
            metadata: map(metadata),
            version: "1.2.3".into(),
            ..MachineRecord::default()
        };
        self.write(keys::machine(id), record.encode()).await;
    }

    async fn member(&self, id: &str, status: MemberStatus) {
        let record = MemberRecord {
            avoided: None,
            status,
            since_ms: 0,
            first_seen_ms: 0,
            public_ip: "10.9.9.9".into(),
            metadata: map(&[("last", "known")]),
            reason: String::new(),
        };
        self.write(keys::member(id), record.encode()).await;
    }

    /// A unit that the engine has placed, at the wish's generation.
    async fn place(&self, unit: &str, machine: Option<&str>) -> Decision {
        let decision = Decision {
            generation: self.generation(unit).await,
            seq: self.revision().await + 1,
        };
        let record = PlacementRecord {
            decision,
            ..placement(machine)
        };
        self.write(keys::placement(unit), record.encode()).await;
        decision
    }

    async fn report(&self, unit: &str, machine: &str, record: StateRecord) {
        self.write(keys::state(unit, machine), record.encode())
            .await;
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn placement(machine: Option<&str>) -> PlacementRecord {
    PlacementRecord {
        failures: Failures::default(),
        machine: machine.map(MachineId::new),
        leaving: None,
        decision: Decision::default(),
        reason: String::new(),
        refusals: Vec::new(),
        passed_over: Vec::new(),
        considered: 0,
        assigned: 0,
        since_ms: 0,
    }
}

fn wish(text: &str, desired: DesiredState) -> UnitRecord {
    UnitRecord {
        text: text.into(),
        hash: UnitHash::of(text.as_bytes()),
        desired,
        restarts: 0,
        prefer: None,
        request_id: "before".into(),
        earlier_requests: Vec::new(),
        buried: false,
        changed_by: String::new(),
        changed_ms: 0,
    }
}

/// A state as `load/active/sub`.
fn state(decision: Decision, reached: Reached, systemd: &str) -> StateRecord {
    let mut parts = systemd.split('/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    StateRecord {
        load: next(),
        active: next(),
        sub: next(),
        hash: UnitHash::of(b"x"),
        decision,
        reached,
        invocation_id: String::new(),
        description: String::new(),
        why: None,
        leased_ms: None,
        log: Vec::new(),
    }
}

fn error(code: u16, message: &str) -> (u16, String) {
    let body = fleet_api::error::ErrorBody::new(code, message);
    let body = String::from_utf8(fleet_api::v1::to_json(&body)).unwrap();
    (code, body)
}

/// The body of a unit that sleeps.
const SLEEP: &str =
    r#"{"options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 100"}]}"#;

/// What [`SLEEP`] is stored as.
const SLEEP_TEXT: &str = "[Service]\nExecStart=/bin/sleep 100\n";

/// What [`SLEEP`] is shown as.
const SLEEP_OPTIONS: &str =
    r#""options":[{"name":"ExecStart","section":"Service","value":"/bin/sleep 100"}]"#;

/// A body with other options and a desired state.
fn body(options: &[(&str, &str, &str)], desired: &str) -> String {
    let options: Vec<_> = options
        .iter()
        .map(|(section, name, value)| {
            serde_json::json!({"section": section, "name": name, "value": value})
        })
        .collect();
    let mut body = serde_json::json!({"options": options});
    if !desired.is_empty() {
        body["desiredState"] = desired.into();
    }
    body.to_string()
}
