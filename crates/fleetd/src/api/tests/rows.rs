//! `GET /fleet/v2/units?fields=…`

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fleet_api::v2::{ROW_FIELDS, RowPage, UnitListing, UnitRow};
use futures_util::{StreamExt, stream};

use super::chance::Chance;
use super::*;
use crate::store::{self, LeaseId, Snapshot, Watch};

/// A store whose reads are counted, whose watches may be deaf, and which may be exchanged.
pub(super) struct Glass {
    store: Mutex<Arc<MemoryStore>>,
    is_deaf: AtomicBool,
    n_reads: AtomicUsize,
}

impl Glass {
    pub(super) fn cluster() -> (Cluster, Arc<Glass>) {
        let glass = Arc::new(Glass {
            store: Mutex::new(MemoryStore::new()),
            is_deaf: AtomicBool::new(false),
            n_reads: AtomicUsize::new(0),
        });
        (Cluster::over(Arc::clone(&glass) as _, 100), glass)
    }

    fn inner(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.lock().unwrap())
    }

    pub(super) fn reads(&self) -> usize {
        self.n_reads.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for Glass {
    async fn read(&self, range: Range) -> Result<Snapshot, store::Error> {
        self.n_reads.fetch_add(1, Ordering::SeqCst);
        self.inner().read(range).await
    }
    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, store::Error> {
        self.inner().read_keys(keys).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, store::Error> {
        match self.is_deaf.load(Ordering::SeqCst) {
            true => Ok(stream::pending().boxed()),
            false => self.inner().watch(prefix, after).await,
        }
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, store::Error> {
        self.inner().commit(txn).await
    }
    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), store::Error> {
        self.inner().grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, store::Error> {
        self.inner().keep_alive(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), store::Error> {
        self.inner().revoke(lease).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), store::Error> {
        self.inner().compact(revision).await
    }
    fn describe(&self) -> String {
        self.inner().describe()
    }
}

/// What a table shows of a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    pub(super) unit: (String, String, String, Option<String>, Option<String>),
    global: bool,
    pub(super) machine: Option<String>,
    pub(super) states: Vec<([String; 6], bool)>,
}

pub(super) fn shown(row: &UnitRow<'_>) -> Shown {
    let text = |word: &Option<fleet_api::v2::Word<'_>>| word.as_deref().map(str::to_owned);
    let states = row.states.iter().map(|state| {
        let texts = [
            &*state.machine_id,
            &*state.load,
            &*state.active,
            &*state.sub,
            row.hash_of(state),
            row.description_of(state),
        ];
        (texts.map(str::to_owned), state.stale)
    });
    Shown {
        unit: (
            row.name.to_string(),
            row.hash.to_string(),
            row.desired_state.to_string(),
            text(&row.current_state),
            text(&row.description),
        ),
        global: row.global,
        machine: text(&row.machine_id),
        states: states.collect(),
    }
}

fn all_fields() -> String {
    format!("?fields={}", ROW_FIELDS.join(","))
}

/// The lines of an answer.
async fn lines(cluster: &Cluster, query: &str) -> Vec<String> {
    let got = cluster.get(&format!("/fleet/v2/units{query}")).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.headers["content-type"], "application/x-ndjson");
    assert!(got.body.ends_with('\n'));
    got.body.lines().map(str::to_owned).collect()
}

fn page(line: &str) -> RowPage<'_> {
    serde_json::from_str(line).unwrap()
}

async fn rows(cluster: &Cluster, query: &str) -> Vec<Shown> {
    let lines = lines(cluster, query).await;
    let pages: Vec<RowPage<'_>> = lines.iter().map(|line| page(line)).collect();
    let (last, before) = pages.split_last().unwrap();
    assert!(
        before
            .iter()
            .all(|page| page.more && !page.units.is_empty())
    );
    assert!(!last.more);
    assert!(pages.iter().all(|page| page.revision == last.revision));
    let units = pages.iter().flat_map(|page| &page.units);
    units.map(shown).collect()
}

/// What the listing of whole views says.
pub(super) async fn views(cluster: &Cluster) -> Vec<Shown> {
    let got = cluster.get("/fleet/v2/units").await;
    let listing: UnitListing = serde_json::from_str(&got.body).unwrap();
    let rows = listing.units.iter().map(UnitRow::from);
    rows.map(|row| shown(&row)).collect()
}

async fn names(cluster: &Cluster, query: &str) -> Vec<String> {
    let rows = rows(cluster, query).await;
    rows.into_iter().map(|row| row.unit.0).collect()
}

#[tokio::test]
async fn a_row_has_what_was_asked_for() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    let text = [
        ("Unit", "Description", "<A>"),
        ("Service", "ExecStart", "/a"),
    ];
    cluster.put("a.service", &body(&text, "launched")).await;
    cluster.put("b.service", SLEEP).await;
    let decision = cluster.place("a.service", Some("m1")).await;
    let hash = cluster.wish("a.service").await.hash;
    let running = StateRecord {
        hash,
        description: "<A>".into(),
        ..state(decision, Reached::Launched, "loaded/active/running")
    };
    cluster.report("a.service", "m1", running.clone()).await;
    let other = StateRecord {
        hash: UnitHash::of(b""),
        description: "Before".into(),
        ..running
    };
    cluster.report("a.service", "m2", other).await;
    let other_hash = cluster.wish("b.service").await.hash;
    let revision = cluster.revision().await;
    for (fields, a, b) in [
        ("", "", ""),
        ("name", "", ""),
        (
            "global,machineID,states,description",
            r#","description":"\u003cA\u003e","machineID":"m1","states":[{"machineID":"m1","load":"loaded","active":"active","sub":"running"},{"machineID":"m2","load":"loaded","active":"active","sub":"running","description":"Before","stale":true}]"#,
            "",
        ),
        (
            "hash,states",
            &format!(
                r#","hash":"{hash}","states":[{{"machineID":"m1","load":"loaded","active":"active","sub":"running"}},{{"machineID":"m2","load":"loaded","active":"active","sub":"running","hash":"da39a3ee5e6b4b0d3255bfef95601890afd80709","stale":true}}]"#
            ),
            &format!(r#","hash":"{other_hash}""#),
        ),
        (
            "desiredState,currentState",
            r#","desiredState":"launched","currentState":"launched""#,
            r#","desiredState":"inactive","currentState":"inactive""#,
        ),
    ] {
        // Also by what is kept.
        for _ in 0..2 {
            let line = lines(&cluster, &format!("?fields={fields}"))
                .await
                .remove(0);
            let expected = format!(
                r#"{{"revision":{revision},"units":[{{"name":"a.service"{a}}},{{"name":"b.service"{b}}}]}}"#
            );
            assert_eq!(line, expected);
        }
    }
    let (status, text) = cluster.shown("/fleet/v2/units?fields=load").await;
    assert_eq!(status, 400);
    assert!(
        text.contains("no such field \\\"load\\\": use some of hash, desiredState"),
        "{text}"
    );
}

/// Whatever is put, deleted and damaged: what is read now, what was kept and followed, and the listing of
/// whole views are one.
#[tokio::test]
async fn rows_say_what_views_say() {
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let (cluster, _) = Glass::cluster();
        for _ in 0..12 {
            for _ in 0..chance.below(25) {
                change(&cluster, &mut chance).await;
            }
            let expected = views(&cluster).await;
            let kept = rows(&cluster, &all_fields()).await;
            assert_eq!(kept, expected, "kept, seed {seed}");
            let fresh = Cluster::over(Arc::clone(&cluster.store), 100);
            let limit = 1 + chance.below(6);
            let query = format!("{}&limit={limit}", all_fields());
            assert_eq!(rows(&fresh, &query).await, expected, "read, seed {seed}");
            // What was read in parts is kept as well.
            assert_eq!(rows(&fresh, &query).await, expected, "kept, seed {seed}");
        }
    }
}

/// In the order of the keys of their states the longer names come first.
const UNITS: [&str; 7] = [
    "a.service",
    "a.service-b.service",
    "a.service.service",
    "ab.service",
    "b@.service",
    "b@1.service",
    "c.socket",
];

pub(super) async fn change(cluster: &Cluster, chance: &mut Chance) {
    let unit = chance.pick(&UNITS);
    let machine = chance.pick(&["m1", "m2", "m3"]);
    let key = match chance.below(8) {
        0..3 => keys::state(unit, machine),
        3..5 => keys::placement(unit),
        5 => keys::machine(machine),
        6 => keys::member(machine),
        _ => keys::unit(unit),
    };
    let value = match (chance.below(10), keys::parse(&key)) {
        (0, _) => {
            cluster.remove(key).await;
            return;
        }
        (1, _) => b"{\"v\":1".to_vec(),
        (_, keys::Key::Unit(_)) => {
            let text = chance.pick(&[
                "[Service]\nExecStart=/a\n",
                "[Unit]\nDescription=A\n\n[X-Fleet]\nGlobal=true\n",
                "[Unit]\nDescription=B\n",
                "[Unit\n",
            ]);
            let desired = chance.pick(&[
                DesiredState::Inactive,
                DesiredState::Launched,
                DesiredState::Launched,
                DesiredState::Destroyed,
            ]);
            wish(text, desired).encode()
        }
        (_, keys::Key::Placement(_)) => {
            let leaving = chance.pick(&[None, Some("m1"), Some("m3")]);
            PlacementRecord {
                leaving: leaving.map(MachineId::new),
                ..placement(chance.pick(&[None, Some("m1"), Some("m2")]))
            }
            .encode()
        }
        (_, keys::Key::State(..)) => {
            let reached = chance.pick(&[
                Reached::Gone,
                Reached::Refused,
                Reached::Working,
                Reached::Loaded,
                Reached::Launched,
            ]);
            let systemd = chance.pick(&["loaded/active/running", "loaded/failed/failed", "//"]);
            StateRecord {
                description: chance.pick(&["", "A", "C"]).into(),
                hash: UnitHash::of(chance.pick(&["[Unit]\nDescription=B\n", "x"]).as_bytes()),
                ..state(Decision::default(), reached, systemd)
            }
            .encode()
        }
        (_, keys::Key::Member(_)) => {
            let status = chance.pick(&[
                MemberStatus::Present,
                MemberStatus::Lost,
                MemberStatus::Retired,
                MemberStatus::Unsupervised,
            ]);
            MemberRecord {
                avoided: None,
                status,
                since_ms: 0,
                first_seen_ms: 0,
                public_ip: String::new(),
                metadata: BTreeMap::new(),
                reason: String::new(),
            }
            .encode()
        }
        _ => MachineRecord::default().encode(),
    };
    cluster.write(key, value).await;
}

pub(super) async fn submit(cluster: &Cluster, n_units: usize) {
    for n in 0..n_units {
        let key = keys::unit(&format!("u{n:05}.service"));
        cluster
            .write(key, wish("", DesiredState::Inactive).encode())
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_read_once_and_then_only_its_revision_until_nobody_asks_any_more() {
    let (cluster, glass) = Glass::cluster();
    submit(&cluster, 1_000).await;
    let query = "?fields=states";
    assert_eq!(names(&cluster, query).await.len(), 1_000);
    assert_eq!(
        glass.reads(),
        5,
        "units, placements, states, and the machines"
    );
    for _ in 0..3 {
        // Each of them is asked for soon enough.
        tokio::time::advance(Duration::from_secs(9)).await;
        cluster
            .write(
                keys::unit("x.service"),
                wish("", DesiredState::Inactive).encode(),
            )
            .await;
        assert_eq!(names(&cluster, query).await.len(), 1_001);
        assert_eq!(glass.reads(), 1, "is anything newer?");
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(glass.reads(), 0, "nobody asks");
    assert_eq!(names(&cluster, query).await.len(), 1_001);
    assert_eq!(glass.reads(), 3 + 3 + 2, "it was forgotten");
}

#[tokio::test]
async fn what_is_kept_is_never_authority() {
    // The watch says nothing.
    let (cluster, glass) = Glass::cluster();
    glass.is_deaf.store(true, Ordering::SeqCst);
    cluster.put("a.service", SLEEP).await;
    for unit in ["b.service", "c.service"] {
        names(&cluster, "?fields=").await;
        cluster.put(unit, SLEEP).await;
        assert_eq!(names(&cluster, "?fields=").await.last().unwrap(), unit);
    }
    // Another store took its place: an empty one, and one that has come further.
    for n_units in [0, 100] {
        let (cluster, glass) = Glass::cluster();
        cluster.write(keys::CLUSTER.into(), b"one".to_vec()).await;
        cluster.put("a.service", SLEEP).await;
        for _ in 0..2 {
            assert_eq!(names(&cluster, "?fields=").await, ["a.service"]);
        }
        glass.is_deaf.store(true, Ordering::SeqCst);
        *glass.store.lock().unwrap() = MemoryStore::new();
        cluster.write(keys::CLUSTER.into(), b"other".to_vec()).await;
        submit(&cluster, n_units).await;
        assert_eq!(names(&cluster, "?fields=").await.len(), n_units);
    }
}

/// The lines of an answer, one by one; the last is what cuts it off.
async fn begin(
    cluster: &Cluster,
    query: &str,
) -> impl futures_util::Stream<Item = Result<String, String>> {
    let request = Request::get(format!("/fleet/v2/units{query}"));
    let answer = cluster.send(request.body(Body::empty()).unwrap()).await;
    answer.into_body().into_data_stream().map(|data| {
        let data = data.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(data.to_vec()).unwrap())
    })
}

#[tokio::test]
async fn all_pages_hold_at_one_revision_and_what_was_cut_off_goes_on_there() {
    let (cluster, _) = Glass::cluster();
    submit(&cluster, 12).await;
    let query = "?fields=&limit=5";
    // Read from the store; and from what is kept.
    for _ in 0..2 {
        let mut answer = Box::pin(begin(&cluster, query).await);
        let first = answer.next().await.unwrap().unwrap();
        let revision = page(&first).revision;
        cluster.put("u00007x.service", SLEEP).await;
        cluster.remove(keys::unit("u00011.service")).await;
        let mut seen = page(&first).units.len();
        while let Some(line) = answer.next().await {
            let line = line.unwrap();
            assert_eq!(page(&line).revision, revision);
            seen += page(&line).units.len();
        }
        assert_eq!(seen, 12, "neither of the changes");
        let rest = format!("{query}&after=u00004.service&revision={revision}");
        assert_eq!(names(&cluster, &rest).await.len(), 7);
        cluster.remove(keys::unit("u00007x.service")).await;
        cluster
            .write(
                keys::unit("u00011.service"),
                wish("", DesiredState::Inactive).encode(),
            )
            .await;
        names(&cluster, query).await;
    }
}

#[tokio::test]
async fn a_listing_whose_revision_is_forgotten_is_cut_off_and_says_so_when_it_goes_on() {
    let (cluster, _) = Glass::cluster();
    submit(&cluster, 20).await;
    let mut answer = Box::pin(begin(&cluster, "?fields=&limit=5").await);
    let first = answer.next().await.unwrap().unwrap();
    cluster.put("z.service", SLEEP).await;
    let now = cluster.revision().await;
    cluster.store.compact(now).await.unwrap();
    let mut n_whole = 1;
    let error = loop {
        match answer
            .next()
            .await
            .expect("it does not end as if it were whole")
        {
            Ok(line) => {
                assert!(page(&line).more);
                n_whole += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(
        error.contains("begin the listing anew") && n_whole < 4,
        "{error}"
    );
    let revision = page(&first).revision;
    let rest = format!("/fleet/v2/units?fields=&after=u00004.service&revision={revision}");
    let (status, text) = cluster.shown(&rest).await;
    assert_eq!(status, 410, "{text}");
}

#[tokio::test]
async fn damaged_records_are_told_once_with_each_listing() {
    let (cluster, _) = Glass::cluster();
    submit(&cluster, 6).await;
    cluster
        .write(keys::unit("u00002.service"), b"{}".to_vec())
        .await;
    cluster
        .write(keys::state("u00001.service", "m1"), b"{}".to_vec())
        .await;
    for limit in [2, 2, 100] {
        let lines = lines(&cluster, &format!("?fields=states&limit={limit}")).await;
        let pages = lines.iter().map(|line| page(line));
        let warnings: Vec<String> = pages.flat_map(|page| page.warnings).collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[1].contains("units/u00002.service")
                || warnings[0].contains("units/u00002.service")
        );
    }
}
