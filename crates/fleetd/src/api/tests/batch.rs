//! `POST /fleet/v2/units`.

use std::sync::Mutex;

use async_trait::async_trait;
use fleet_api::v2::{BatchAnswer, BatchRequest, UnitWish, WishAnswer};

use super::*;
use crate::store::{self, LeaseId, Snapshot, Watch};

const SLEEP_FILE: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

fn text(command: &str) -> String {
    format!("[Service]\nExecStart={command}\n")
}

fn submit(name: &str, text: &str, desired: &str) -> UnitWish {
    UnitWish {
        name: name.into(),
        text: (!text.is_empty()).then(|| text.to_owned()),
        desired_state: (!desired.is_empty()).then(|| desired.to_owned()),
        ..UnitWish::default()
    }
}

fn batch(id: &str, units: Vec<UnitWish>) -> BatchRequest {
    BatchRequest {
        request_id: id.into(),
        units,
        ..BatchRequest::default()
    }
}

async fn send(cluster: &Cluster, request: &BatchRequest) -> Vec<WishAnswer> {
    let body = serde_json::to_string(request).unwrap();
    let got = cluster.post("/fleet/v2/units", &body).await;
    assert_eq!(got.status, 200, "{got:?}");
    let answer: BatchAnswer = serde_json::from_str(&got.body).unwrap();
    assert_eq!(answer.units.len(), request.units.len());
    answer.units
}

async fn one(cluster: &Cluster, wish: UnitWish) -> WishAnswer {
    send(cluster, &batch("", vec![wish])).await.remove(0)
}

fn outcome(answer: &WishAnswer) -> (&str, Option<u16>, &str) {
    let error = answer.error.as_deref().unwrap_or_default();
    (&answer.outcome, answer.code, error)
}

#[tokio::test]
async fn each_wish_has_its_answer() {
    let cluster = Cluster::new();
    cluster.put("old.service", SLEEP).await;
    let answers = send(
        &cluster,
        &batch(
            "r1",
            vec![
                submit("a.service", &text("/a"), "launched"),
                submit("b.service", "", "launched"),
                submit("old.service", &text("/new"), ""),
                submit("bad name.service", &text("/a"), ""),
                submit("t@.service", &text("/a"), "launched"),
                submit("c.service", "[Service]\nExecStart", ""),
                submit("d.service", &text("/a"), "flying"),
                submit("e.service", "[X-Fleet]\nMachineID=a\nGlobal=true\n", ""),
            ],
        ),
    )
    .await;
    let seen: Vec<_> = answers.iter().map(outcome).collect();
    assert_eq!(
        seen,
        [
            ("created", None, ""),
            ("error", Some(404), "unit does not exist"),
            ("unchanged", None, ""),
            ("error", Some(400), "invalid character ' ' in unit name"),
            (
                "error",
                Some(400),
                "cannot activate template \"t@.service\""
            ),
            ("error", Some(400), "EOF (line 2)"),
            (
                "error",
                Some(400),
                "invalid desiredState \"flying\": use \"inactive\", \"loaded\", \"launched\" or \"destroyed\""
            ),
            ("error", Some(400), "MachineID cannot be used with Global"),
        ]
    );
    assert!(answers[2].differs);
    assert_eq!(answers[0].generation, cluster.generation("a.service").await);
    assert_eq!(
        answers[2].generation,
        cluster.generation("old.service").await
    );
    assert_eq!(&*cluster.wish("a.service").await.text, text("/a"));
    assert_eq!(&*cluster.wish("old.service").await.text, SLEEP_TEXT);
}

#[tokio::test]
async fn an_existing_unit_is_kept_replaced_started_and_restarted() {
    let cluster = Cluster::new();
    let unit = "a.service";
    one(&cluster, submit(unit, &text("/a"), "")).await;
    // The same again changes nothing.
    let answer = one(&cluster, submit(unit, &text("/a"), "inactive")).await;
    assert_eq!(
        (answer.outcome.as_str(), answer.differs),
        ("unchanged", false)
    );
    let answer = one(&cluster, submit(unit, "", "loaded")).await;
    assert_eq!(answer.outcome, "changed");
    let answer = one(&cluster, submit(unit, "", "loaded")).await;
    assert_eq!(answer.outcome, "unchanged");
    // A start is one each time it is asked for.
    let first = one(&cluster, submit(unit, "", "launched")).await;
    let second = one(&cluster, submit(unit, "", "launched")).await;
    assert_eq!(
        (first.outcome.as_str(), second.outcome.as_str()),
        ("changed", "changed")
    );
    assert!(second.generation > first.generation);
    // Other contents: only on request, and the desired state stays.
    let answer = one(&cluster, submit(unit, &text("/b"), "")).await;
    assert_eq!(
        (answer.outcome.as_str(), answer.differs),
        ("unchanged", true)
    );
    let replace = UnitWish {
        replace: true,
        ..submit(unit, &text("/b"), "")
    };
    let answer = one(&cluster, replace).await;
    assert_eq!(
        (answer.outcome.as_str(), answer.differs),
        ("replaced", false)
    );
    let wish = cluster.wish(unit).await;
    assert_eq!(
        (wish.desired, &*wish.text),
        (DesiredState::Launched, text("/b").as_str())
    );
    // A restart is counted.
    let restart = UnitWish {
        restart: true,
        ..submit(unit, "", "")
    };
    assert_eq!(one(&cluster, restart).await.outcome, "changed");
    assert_eq!(cluster.wish(unit).await.restarts, wish.restarts + 1);
}

#[tokio::test]
async fn destroying() {
    let cluster = Cluster::new();
    let unit = "a.service";
    let missing = one(&cluster, submit(unit, "", "destroyed")).await;
    assert_eq!(
        outcome(&missing),
        ("error", Some(404), "unit does not exist")
    );
    one(&cluster, submit(unit, &text("/a"), "launched")).await;
    let destroyed = one(&cluster, submit(unit, "", "destroyed")).await;
    assert_eq!(destroyed.outcome, "changed");
    assert_eq!(cluster.wish(unit).await.desired, DesiredState::Destroyed);
    let again = one(&cluster, submit(unit, "", "destroyed")).await;
    assert_eq!(
        (again.outcome.as_str(), again.generation),
        ("unchanged", destroyed.generation)
    );
    let anew = one(&cluster, submit(unit, &text("/b"), "")).await;
    assert_eq!(anew.outcome, "created");
    assert!(anew.generation > destroyed.generation);
}

#[tokio::test]
async fn a_repeated_batch_changes_nothing_twice() {
    let cluster = Cluster::new();
    let restart = UnitWish {
        restart: true,
        ..submit("a.service", "", "launched")
    };
    cluster.put("a.service", SLEEP).await;
    let request = batch(
        "r1",
        vec![
            restart.clone(),
            submit("b.service", &text("/b"), "launched"),
        ],
    );
    let first = send(&cluster, &request).await;
    let before = cluster.revision().await;
    let second = send(&cluster, &request).await;
    assert_eq!(first, second);
    assert_eq!(cluster.revision().await, before);
    // Another request is another one, and so is a second wish in the same request.
    let twice = batch("r2", vec![restart.clone(), restart]);
    let answers = send(&cluster, &twice).await;
    assert!(answers[1].generation > answers[0].generation);
    assert_eq!(cluster.wish("a.service").await.restarts, 3);
}

/// Others have changed the unit meanwhile, or destroyed it, or even made another one of its name.
#[tokio::test]
async fn a_request_that_comes_again_late_changes_nothing() {
    let cluster = Cluster::new();
    let unit = "a.service";
    let first = batch("r1", vec![submit(unit, &text("/a"), "launched")]);
    let is_passed_over = async |cluster: &Cluster| {
        let before = cluster.revision().await;
        let answer = send(cluster, &first).await.remove(0);
        assert_eq!((answer.error, answer.code), (None, None));
        assert_eq!(cluster.revision().await, before);
    };
    send(&cluster, &first).await;
    one(&cluster, submit(unit, "", "inactive")).await;
    is_passed_over(&cluster).await;
    one(&cluster, submit(unit, "", "destroyed")).await;
    is_passed_over(&cluster).await;
    // The engine buries it.
    let buried = UnitRecord {
        buried: true,
        ..cluster.wish(unit).await
    };
    cluster.write(keys::unit(unit), buried.encode()).await;
    is_passed_over(&cluster).await;
    let again = one(&cluster, submit(unit, "", "destroyed")).await;
    assert_eq!(outcome(&again), ("error", Some(404), "unit does not exist"));
    let anew = one(&cluster, submit(unit, &text("/b"), "launched")).await;
    assert_eq!(anew.outcome, "created");
    assert!(!cluster.wish(unit).await.buried);
    is_passed_over(&cluster).await;
    // The memory is bounded.
    for _ in 0..20 {
        one(&cluster, submit(unit, "", "launched")).await;
    }
    assert_eq!(cluster.wish(unit).await.earlier_requests.len(), 8);
}

#[tokio::test]
async fn unknown_keys() {
    let cluster = Cluster::new();
    let odd = |key: &str| format!("[Service]\nExecStart=/a\n\n[X-Fleet]\n{key}=a=b\n");
    for (mode, key, accepted) in [
        ("", "Bogus", true),
        ("", "MachineMetaData", false),
        ("strict", "Bogus", false),
        ("allow", "MachineMetaData", true),
    ] {
        let request = BatchRequest {
            unknown_keys: mode.into(),
            ..batch("", vec![submit("a.service", &odd(key), "")])
        };
        let answer = send(&cluster, &request).await.remove(0);
        assert_eq!(answer.code.is_none(), accepted, "{mode} {key}: {answer:?}");
        assert_eq!(
            !answer.warnings.is_empty(),
            accepted,
            "{mode} {key}: {answer:?}"
        );
        one(&cluster, submit("a.service", "", "destroyed")).await;
    }
}

#[tokio::test]
async fn requests_that_are_none() {
    let cluster = Cluster::new();
    let too_many = batch("", vec![submit("a.service", "", ""); 1_001]);
    for (body, status, message) in [
        ("{".to_owned(), 400, "unable to decode body: "),
        (
            r#"{"unknownKeys":"maybe"}"#.to_owned(),
            400,
            "invalid unknownKeys",
        ),
        (
            r#"{"requestId":"a#b"}"#.to_owned(),
            400,
            "invalid requestId",
        ),
        (
            serde_json::to_string(&too_many).unwrap(),
            413,
            "a batch of 1001 units",
        ),
    ] {
        let got = cluster.post("/fleet/v2/units", &body).await;
        assert_eq!(got.status, status);
        let body: fleet_api::error::ErrorBody = serde_json::from_str(&got.body).unwrap();
        assert!(body.error.message.starts_with(message), "{body:?}");
        assert_eq!(got.headers["x-request-id"], body.error.request_id.as_str());
    }
    assert_eq!(send(&cluster, &batch("", vec![])).await, []);
}

/// Passes everything on, and fails the commits that it was told to fail.
pub(super) struct Faulty {
    store: Arc<MemoryStore>,
    n_commits: Mutex<usize>,
    n_reads: Mutex<usize>,
    /// The prefixes that were read.
    pub(super) ranges: Mutex<Vec<String>>,
    /// Which commit fails, how, and whether it is done nevertheless.
    fault: (usize, store::Error, bool),
}

#[async_trait]
impl Store for Faulty {
    async fn read(&self, range: Range) -> Result<Snapshot, store::Error> {
        self.ranges.lock().unwrap().push(range.prefix.clone());
        self.store.read(range).await
    }
    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, store::Error> {
        *self.n_reads.lock().unwrap() += 1;
        self.store.read_keys(keys).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, store::Error> {
        self.store.watch(prefix, after).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, store::Error> {
        let number = {
            let mut n_commits = self.n_commits.lock().unwrap();
            *n_commits += 1;
            *n_commits
        };
        let (failing, error, is_done) = &self.fault;
        if number != *failing {
            return self.store.commit(txn).await;
        }
        if *is_done {
            self.store.commit(txn).await?;
        }
        Err(error.clone())
    }
    async fn grant(
        &self,
        ttl: std::time::Duration,
    ) -> Result<(LeaseId, std::time::Duration), store::Error> {
        self.store.grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<std::time::Duration, store::Error> {
        self.store.keep_alive(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), store::Error> {
        self.store.revoke(lease).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), store::Error> {
        self.store.compact(revision).await
    }
    fn describe(&self) -> String {
        self.store.describe()
    }
}

pub(super) fn faulty(failing: usize, error: store::Error, is_done: bool) -> (Cluster, Arc<Faulty>) {
    let faulty = Arc::new(Faulty {
        store: MemoryStore::new(),
        n_commits: Mutex::new(0),
        n_reads: Mutex::new(0),
        ranges: Mutex::default(),
        fault: (failing, error, is_done),
    });
    let store: Arc<dyn Store> = Arc::clone(&faulty) as _;
    (Cluster::over(store, 100), faulty)
}

fn many(n: usize) -> BatchRequest {
    let wish = |n| submit(&format!("u{n:04}.service"), &text("/a"), "launched");
    batch("many", (0..n).map(wish).collect())
}

#[tokio::test]
async fn a_thousand_units_are_eight_transactions() {
    let (cluster, store) = faulty(0, store::Error::Conflict, false);
    let answers = send(&cluster, &many(1_000)).await;
    assert!(answers.iter().all(|answer| answer.outcome == "created"));
    assert_eq!(*store.n_commits.lock().unwrap(), 8);
    assert!(answers.is_sorted_by_key(|answer| answer.generation));
}

#[tokio::test]
async fn new_units_are_not_read_and_those_that_are_there_are_kept() {
    let (cluster, store) = faulty(0, store::Error::Conflict, false);
    let answers = send(&cluster, &many(2)).await;
    assert!(answers.iter().all(|answer| answer.outcome == "created"));
    assert_eq!(*store.n_reads.lock().unwrap(), 0);
    let again = |text: &str| submit("u0001.service", text, "launched");
    let new = submit("new.service", &text("/a"), "launched");
    let answers = send(&cluster, &batch("r2", vec![new, again(&text("/b"))])).await;
    let seen: Vec<_> = answers.iter().map(|a| (&*a.outcome, a.differs)).collect();
    assert_eq!(seen, [("created", false), ("changed", true)]);
    // One refused try, and one transaction.
    assert_eq!(*store.n_commits.lock().unwrap(), 3);
    assert_eq!(*store.n_reads.lock().unwrap(), 1);
    assert_eq!(&*cluster.wish("u0001.service").await.text, text("/a"));
}

#[tokio::test]
async fn a_new_unit_is_written_once_whatever_becomes_of_the_answer() {
    let lost = || store::Error::OutcomeUnknown("lost".into());
    for (error, is_done, status) in [
        (lost(), true, 200),
        (lost(), false, 200),
        (store::Error::NoSpace("quota".into()), false, 200),
        (store::Error::Unavailable("away".into()), false, 503),
    ] {
        let (cluster, store) = faulty(1, error.clone(), is_done);
        let body = serde_json::to_string(&many(1)).unwrap();
        let got = cluster.post("/fleet/v2/units", &body).await;
        assert_eq!(got.status, status, "{error} {is_done}: {got:?}");
        if status == 200 {
            let answer: BatchAnswer = serde_json::from_str(&got.body).unwrap();
            assert_eq!(outcome(&answer.units[0]), ("created", None, ""), "{error}");
            let generation = cluster.generation("u0000.service").await;
            assert_eq!(answer.units[0].generation, generation);
        }
        let n_commits = *store.n_commits.lock().unwrap();
        assert_eq!(n_commits, if status == 200 && !is_done { 2 } else { 1 });
    }
}

#[tokio::test]
async fn large_units_are_spread_over_transactions() {
    let (cluster, store) = faulty(0, store::Error::Conflict, false);
    let line = format!("Environment=A={}\n", "x".repeat(2_000));
    let large = format!("[Service]\n{}", line.repeat(100));
    let wishes = (0..10).map(|n| submit(&format!("u{n}.service"), &large, ""));
    let answers = send(&cluster, &batch("", wishes.collect())).await;
    assert!(answers.iter().all(|answer| answer.outcome == "created"));
    assert_eq!(*store.n_commits.lock().unwrap(), 2);
}

#[tokio::test]
async fn after_a_conflict_or_a_lost_reply_each_unit_is_written_once() {
    for (error, is_done) in [
        (store::Error::Conflict, false),
        (store::Error::OutcomeUnknown("lost".into()), false),
        (store::Error::OutcomeUnknown("lost".into()), true),
    ] {
        let (cluster, _store) = faulty(2, error.clone(), is_done);
        let answers = send(&cluster, &many(200)).await;
        assert!(
            answers.iter().all(|answer| answer.outcome == "created"),
            "{error} {is_done}"
        );
        for answer in answers {
            let generation = cluster.generation(&answer.name).await;
            assert_eq!(answer.generation, generation);
        }
        let restarts: u64 = cluster.wish("u0199.service").await.restarts;
        assert_eq!(restarts, 0);
    }
}

#[tokio::test]
async fn units_that_a_store_refused_say_so() {
    let (cluster, _store) = faulty(2, store::Error::NoSpace("quota".into()), false);
    let answers = send(&cluster, &many(300)).await;
    let n_failed = answers.iter().filter(|a| a.code == Some(507)).count();
    assert_eq!(n_failed, 125);
    assert_eq!(
        answers[128].error.as_deref(),
        Some("the store is out of space: quota")
    );
}

#[tokio::test]
async fn a_lost_reply_of_v1_is_found_out() {
    for is_done in [false, true] {
        let lost = store::Error::OutcomeUnknown("lost".into());
        let (cluster, store) = faulty(1, lost, is_done);
        assert_eq!(cluster.put("a.service", SLEEP).await.status, 201);
        let n_commits = *store.n_commits.lock().unwrap();
        assert_eq!(n_commits, if is_done { 1 } else { 2 });
        let lost = store::Error::OutcomeUnknown("lost".into());
        let (cluster, _store) = faulty(2, lost, is_done);
        cluster.put("a.service", SLEEP).await;
        let got = cluster
            .call("DELETE", "/fleet/v1/units/a.service", &[], "")
            .await;
        assert_eq!(got.status, 204);
    }
}

#[tokio::test]
async fn where_a_unit_ran_is_kept_until_its_wish_changes() {
    let cluster = Cluster::new();
    let prefer = |name: &str, id: &str| UnitWish {
        prefer: Some(id.into()),
        ..submit(name, &text("/bin/a"), "launched")
    };
    let long = "f".repeat(65);
    let units = vec![
        prefer("a.service", "m1"),
        prefer("b.service", ""),
        prefer("c.service", &long),
    ];
    let answers = send(&cluster, &batch("r1", units)).await;
    assert_eq!(answers[0].outcome, "created");
    assert_eq!(
        answers[1].error.as_deref(),
        Some("invalid prefer \"\": use a machine's whole id")
    );
    assert_eq!(answers[2].code, Some(400));
    let wish = cluster.wish("a.service").await;
    assert_eq!(wish.prefer, Some(MachineId::new("m1")));
    // A unit that exists does not go elsewhere for this.
    let answers = send(&cluster, &batch("r2", vec![prefer("a.service", "m1")])).await;
    assert_eq!(answers[0].outcome, "changed");
    assert_eq!(cluster.wish("a.service").await.prefer, None);
}

#[tokio::test]
async fn who_does_not_say_what_is_wanted_of_a_unit_that_cannot_be_read_stops_nothing() {
    let cluster = Cluster::new();
    let key = keys::unit("a.service");
    cluster.write(key, b"{damaged".to_vec()).await;
    let restart = UnitWish {
        restart: true,
        ..submit("a.service", SLEEP_FILE, "")
    };
    for wish in [restart, submit("a.service", SLEEP_FILE, "")] {
        let answer = one(&cluster, wish).await;
        let error = answer.error.unwrap_or_default();
        assert!(error.contains("units/a.service is damaged"), "{error}");
    }
    let answer = one(&cluster, submit("a.service", SLEEP_FILE, "launched")).await;
    assert_eq!(outcome(&answer), ("created", None, ""));
    let record = cluster.wish("a.service").await;
    assert_eq!(record.desired, DesiredState::Launched);
}
