//! fleetd's API, over a store in memory.

use std::fmt::Debug;
use std::time::Duration;

use axum::body::Body;
use fleet_api::error::ErrorBody;
use fleet_api::{body, v1, v2};
use fleet_core::records::{MachineRecord, UnitRecord};
use fleetd::api::{ApiState, router};
use fleetd::store::memory::MemoryStore;
use fleetd::store::{Document, Op, Range, Store, Txn, keys};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client listens for so long; waits go on for ever while somebody does.
const PATIENCE: Duration = Duration::from_secs(100);
/// fleetd lets go of who is gone, who stalls, who never says what he wants, within this.
const LETS_GO_WITHIN: Duration = Duration::from_secs(300);
/// Requests of one input: more show nothing new and take long.
const MAX_REQUESTS: usize = 16;

/// Bytes on a connection. Each answer is one, no failure is fleetd's own, and the connection ends.
pub(crate) fn http(data: &[u8]) {
    super::run_paused(async {
        let store = MemoryStore::new();
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let state = ApiState::new(store.clone(), 100, "1.2.3");
        let serving = tokio::spawn(fleetd::fuzz::http(server, router(state)));
        // Half in one piece, half byte by byte would be slow: in two pieces.
        let (first, second) = data.split_at(data.len() / 2);
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, async {
            let (mut read, mut write) = tokio::io::split(&mut client);
            let send = async {
                for piece in [first, second] {
                    // It may have hung up already.
                    let _ = write.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
                let _ = write.shutdown().await;
            };
            let _ = tokio::join!(send, read.read_to_end(&mut answer));
        })
        .await;
        drop(client);
        let ended = tokio::time::timeout(LETS_GO_WITHIN, serving).await;
        ended.expect("the connection ends").expect("nothing panics");
        let shown = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || shown.starts_with("HTTP/1."), "{shown}");
        assert!(!shown.starts_with("HTTP/1.1 500"), "{shown}");
        is_sound(&*store).await;
    });
}

/// Requests: `METHOD /path`, a line break, the body; a line of `~` ends it. Whatever is asked,
/// there is an answer that says why, and the store keeps only what can be read.
pub(crate) fn api(data: &[u8]) {
    super::run_paused(async {
        let store = MemoryStore::new();
        let machine = MachineRecord {
            public_ip: "10.0.0.1".into(),
            ..MachineRecord::default()
        };
        let txn = Txn {
            ops: vec![Op::Put {
                key: keys::machine("m1"),
                value: machine.encode(),
                lease: None,
            }],
            ..Txn::default()
        };
        store.commit(txn).await.expect("the store is empty");
        let service = TowerToHyperService::new(router(ApiState::new(store.clone(), 2, "1.2.3")));
        let text = String::from_utf8_lossy(data);
        for request in text.split("\n~\n").take(MAX_REQUESTS) {
            let (line, body) = request.split_once('\n').unwrap_or((request, ""));
            let (method, path) = line.split_once(' ').unwrap_or(("GET", line));
            let request = hyper::Request::builder()
                .method(method)
                .uri(path)
                .header("Content-Type", "application/json")
                .body(Body::from(body.to_owned()));
            // Not everything is a request.
            let Ok(request) = request else { continue };
            let answer = tokio::time::timeout(PATIENCE, service.call(request)).await;
            let answer = answer.expect("there is an answer").expect("it cannot fail");
            is_answer(line, answer).await;
        }
        is_sound(&*store).await;
    });
}

async fn is_answer(request: &str, answer: hyper::Response<Body>) {
    let (parts, body) = answer.into_parts();
    assert_ne!(parts.status, 500, "{request}");
    // A wait goes on for as long as somebody listens.
    let body = tokio::time::timeout(PATIENCE, body.collect()).await;
    let is_json = |value: &hyper::header::HeaderValue| value.as_bytes() == b"application/json";
    if parts.status.as_u16() >= 400
        && parts.headers.get("content-type").is_some_and(is_json)
        && let Ok(Ok(body)) = body
    {
        let body = body.to_bytes();
        let error: ErrorBody = serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("{request}: {error}: {body:?}"));
        // The original has no words for paths that are none of its own.
        let is_nowhere = matches!(parts.status.as_u16(), 404 | 405);
        assert!(is_nowhere || !error.error.message.is_empty(), "{request}");
    }
}

/// Whatever is kept can be read back.
async fn is_sound(store: &dyn Store) {
    let units = Range {
        prefix: "units/".to_owned(),
        ..Range::default()
    };
    let kept = store.read(units).await.expect("a store in memory answers");
    for entry in kept.entries {
        UnitRecord::decode(&entry.key, &entry.value).expect("what was accepted can be read");
    }
}

/// Bodies of both versions. What is read is written and read as the same.
pub(crate) fn bodies(data: &[u8]) {
    for read in [
        body::unit(data).map(|_| ()),
        body::metadata_ops(data).map(|_| ()),
    ] {
        if let Err(error) = read {
            assert!(!error.to_string().is_empty());
        }
    }
    if let Ok(unit) = body::unit(data) {
        let written = v1::to_json(&unit);
        assert_eq!(body::unit(&written), Ok(unit));
    }
    same::<v1::Unit>(data);
    same::<v1::UnitPage>(data);
    same::<v1::MachinePage>(data);
    same::<v1::UnitStatePage>(data);
    same::<v2::BatchRequest>(data);
    same::<v2::BatchAnswer>(data);
    same::<v2::WaitRequest>(data);
    same::<v2::Progress>(data);
    same::<v2::UnitListing>(data);
    same::<v2::MachineListing>(data);
    same::<v2::MachineChange>(data);
    same::<v2::MachineUnitListing>(data);
}

fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let written = serde_json::to_vec(&value).expect("it is plain data");
        let again = serde_json::from_slice::<T>(&written);
        assert_eq!(again.ok().as_ref(), Some(&value));
    }
}
