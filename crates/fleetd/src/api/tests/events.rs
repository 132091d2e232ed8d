//! `/fleet/v2/events`: what users do is told, all rings are read as one, and followed.

use std::time::Duration;

use axum::body::BodyDataStream;
use fleet_api::v2::{EventLine, EventListing, EventView};
use fleet_core::events::Event;
use fleet_core::name::UnitName;
use futures_util::StreamExt;

use super::*;
use crate::events::{Owner, Ring};
use crate::store::memory::MemoryStore;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The API of machine `m1`.
fn cluster() -> Cluster {
    let store: Arc<dyn Store> = MemoryStore::new();
    Cluster {
        state: ApiState::new(Arc::clone(&store), 100, "1.2.3").on(MachineId::new("m1")),
        store,
    }
}

async fn listing(cluster: &Cluster, query: &str) -> EventListing {
    let got = cluster.get(&format!("/fleet/v2/events?{query}")).await;
    assert_eq!(got.status, 200, "{query}: {}", got.body);
    serde_json::from_str(&got.body).unwrap()
}

fn shown(event: &EventView) -> String {
    let about = [&event.unit, &event.from_id, &event.machine_id];
    let about: Vec<&str> = about.into_iter().flatten().map(String::as_str).collect();
    format!("{} {}: {}", event.kind, about.join(" "), event.reason)
}

async fn told(cluster: &Cluster, query: &str) -> Vec<String> {
    let listing = listing(cluster, query).await;
    listing.events.iter().map(shown).collect()
}

/// Writes down that these units have started on a machine.
async fn start(cluster: &Cluster, ring: &mut Ring, units: &[&str]) -> Revision {
    let events = units.iter().map(|unit| Event {
        kind: fleet_core::events::EventKind::Started,
        unit: Some(UnitName::parse(unit).unwrap()),
        machine: None,
        from: None,
        why: "m2 is lost".to_owned(),
    });
    let txn = Txn {
        ops: ring.puts("", events.collect()),
        ..Txn::default()
    };
    cluster.store.commit(txn).await.unwrap()
}

async fn ring(cluster: &Cluster, machine: &str) -> Ring {
    let owner = Owner::Agent(MachineId::new(machine));
    Ring::read(&*cluster.store, owner).await.unwrap()
}

#[tokio::test]
async fn what_users_do_is_told_with_the_change_and_by_whom() {
    let cluster = cluster();
    cluster.machine("m2", &[]).await;
    assert_eq!(cluster.put("a.service", SLEEP).await.status, 201);
    let generation = cluster.generation("a.service").await;
    let first = listing(&cluster, "").await;
    assert_eq!(first.events[0].revision, generation, "one transaction");
    let launched = r#"{"desiredState":"launched"}"#;
    assert_eq!(cluster.put("a.service", launched).await.status, 204);
    cluster
        .post("/fleet/v2/machines/m2", r#"{"draining":true}"#)
        .await;
    let metadata = r#"[{"op":"add","path":"/m2/metadata/region","value":"eu"}]"#;
    let patched = cluster
        .call("PATCH", "/fleet/v1/machines", &[], metadata)
        .await;
    assert_eq!(patched.status, 204, "{}", patched.body);
    cluster.post("/fleet/v2/accept-store", "{}").await;
    let delete = cluster.call("DELETE", "/fleet/v1/units/a.service", &[], "");
    assert_eq!(delete.await.status, 204);
    // What is refused is told to who asked, and to nobody else.
    let delete = cluster.call("DELETE", "/fleet/v1/units/a.service", &[], "");
    assert_eq!(delete.await.status, 404);
    assert_eq!(
        told(&cluster, "").await,
        [
            "submitted a.service: a new unit, to be inactive",
            "submitted a.service: to be launched, was inactive",
            "asked m2: to be drained",
            "asked m2: metadata region=eu",
            "asked : machines are to believe this store",
            "destroyed a.service: ",
        ]
    );
    // Another fleetd on this machine goes on in the same ring.
    let again = Cluster {
        state: ApiState::new(Arc::clone(&cluster.store), 100, "1.2.3").on(MachineId::new("m1")),
        store: Arc::clone(&cluster.store),
    };
    assert_eq!(again.put("b.service", SLEEP).await.status, 201);
    assert_eq!(told(&cluster, "").await.len(), 7);
}

#[tokio::test]
async fn a_batch_is_told_with_its_transactions() {
    let cluster = cluster();
    let units: Vec<_> = (0..200)
        .map(|n| {
            serde_json::json!({"name": format!("u{n:03}.service"), "text": SLEEP_TEXT,
                               "desiredState": "launched"})
        })
        .collect();
    let body = serde_json::json!({"requestId": "r", "units": units}).to_string();
    for _ in 0..2 {
        // Sent again it changes nothing, and nothing is told.
        assert_eq!(cluster.post("/fleet/v2/units", &body).await.status, 200);
    }
    let listing = listing(&cluster, "limit=1000").await;
    assert_eq!(listing.events.len(), 200);
    assert!(!listing.more);
    for (n, event) in listing.events.iter().enumerate() {
        let unit = format!("u{n:03}.service");
        assert_eq!(event.unit.as_deref(), Some(unit.as_str()));
        assert_eq!(event.revision, cluster.generation(&unit).await);
        assert_eq!(event.index, (n % 125) as u32);
    }
}

#[tokio::test]
async fn all_rings_are_one_story_which_can_be_asked_for_in_parts() {
    let cluster = cluster();
    let (mut m1, mut m2) = (ring(&cluster, "m1").await, ring(&cluster, "m2").await);
    start(&cluster, &mut m1, &["a.service", "b.service"]).await;
    let middle = start(&cluster, &mut m2, &["web@1.service"]).await;
    cluster.put("c.service", SLEEP).await;
    start(&cluster, &mut m1, &["web@2.service"]).await;
    let all = [
        "started a.service m1: m2 is lost",
        "started b.service m1: m2 is lost",
        "started web@1.service m2: m2 is lost",
        "submitted c.service: a new unit, to be inactive",
        "started web@2.service m1: m2 is lost",
    ];
    assert_eq!(told(&cluster, "").await, all);
    for (query, expected) in [
        ("unit=a.service", &all[..1]),
        ("unit=web@*.service", &[all[2], all[4]]),
        ("machine=m2", &all[2..3]),
        ("machine=m1&unit=web*", &all[4..]),
        (&format!("after={middle}"), &all[3..]),
        (&format!("before={middle}"), &all[..2]),
        ("limit=1", &all[4..]),
        // What is of one transaction is not divided.
        (&format!("before={middle}&limit=1"), &all[..2]),
        ("unit=nothing", &[]),
        ("since=1", &all),
        (&format!("since={}", u64::MAX), &[]),
    ] {
        assert_eq!(told(&cluster, query).await, expected, "{query}");
    }
    // Page by page it is the same.
    let mut pages: Vec<String> = Vec::new();
    let mut query = "limit=1".to_owned();
    loop {
        let page = listing(&cluster, &query).await;
        let shown: Vec<String> = page.events.iter().map(shown).collect();
        pages.splice(0..0, shown);
        if !page.more {
            break;
        }
        query = format!("limit=1&before={}", page.before);
    }
    assert_eq!(pages, all);
}

#[tokio::test]
async fn long_stories_come_in_pages_and_damage_is_left_out() {
    let cluster = cluster();
    let mut rings = Vec::new();
    for n in 0..20 {
        rings.push(ring(&cluster, &format!("m{n}")).await);
    }
    for n in 0..1_200 {
        let unit = format!("u{n:04}.service");
        start(&cluster, &mut rings[n % 20], &[&unit]).await;
    }
    let page = listing(&cluster, "limit=5000").await;
    assert_eq!((page.events.len(), page.more), (1_000, true));
    let rest = listing(&cluster, &format!("limit=5000&before={}", page.before)).await;
    assert_eq!((rest.events.len(), rest.more), (200, false));
    // A needle is found behind all of them.
    assert_eq!(told(&cluster, "unit=u0000.service&limit=1").await.len(), 1);
    let key = keys::event(keys::EventWriter::Agent("m0"), 0);
    cluster.write(key, b"{damage".to_vec()).await;
    let got = cluster.get("/fleet/v2/events?limit=1").await;
    assert_eq!(got.status, 200);
    assert!(
        got.headers["warning"]
            .to_str()
            .unwrap()
            .contains("is damaged")
    );
    assert!(told(&cluster, "unit=u0000.service").await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused() {
    let cluster = cluster();
    for (query, message) in [
        ("limit=many", "invalid limit \"many\": use a number"),
        ("after=-1", "invalid after \"-1\": use a number"),
        (
            "follow=maybe",
            "invalid follow \"maybe\": use true or false",
        ),
        ("unit=[", "invalid unit \"[\": it is no pattern"),
    ] {
        let got = cluster.get(&format!("/fleet/v2/events?{query}")).await;
        assert_eq!(got.status, 400, "{query}");
        assert!(
            got.body.contains(&message.replace('"', "\\\"")),
            "{}",
            got.body
        );
    }
    let got = cluster.post("/fleet/v2/events", "{}").await;
    assert_eq!(got.status, 405);
}

/// Lines of following.
struct Lines {
    body: BodyDataStream,
    read: String,
}

impl Lines {
    async fn of(cluster: &Cluster, query: &str) -> Lines {
        let uri = format!("/fleet/v2/events?follow=true&{query}");
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        let answer = cluster.send(request).await;
        assert_eq!(answer.status(), 200);
        Lines {
            body: answer.into_body().into_data_stream(),
            read: String::new(),
        }
    }

    /// The next line; None at the end.
    async fn next(&mut self) -> Option<EventLine> {
        loop {
            if let Some((line, rest)) = self.read.split_once('\n') {
                let line = serde_json::from_str(line).unwrap();
                self.read = rest.to_owned();
                return Some(line);
            }
            let piece = tokio::time::timeout(PATIENCE, self.body.next());
            let piece = piece.await.expect("nothing has come")?.unwrap();
            self.read.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next line that says what happened.
    async fn event(&mut self) -> (Revision, String) {
        loop {
            let line = self.next().await.expect("it goes on");
            assert_eq!(line.end, "");
            if let Some(event) = &line.event {
                return (line.revision, shown(event));
            }
        }
    }
}

#[tokio::test]
async fn whoever_follows_hears_what_comes_and_goes_on_after_any_revision() {
    let cluster = cluster();
    let mut m1 = ring(&cluster, "m1").await;
    let first = start(&cluster, &mut m1, &["a.service"]).await;
    let mut all = Lines::of(&cluster, "").await;
    // Where it begins is said at once.
    let begin = all.next().await.unwrap();
    assert_eq!((begin.revision, begin.event), (first, None));
    let mut some = Lines::of(&cluster, "unit=c*").await;
    let second = start(&cluster, &mut m1, &["b.service", "c.service"]).await;
    let third = cluster.put("c.service", SLEEP).await;
    assert_eq!(third.status, 201);
    let third = cluster.generation("c.service").await;
    let lines = [
        // Whoever goes on from within a transaction must not miss the rest of it.
        (second - 1, "started b.service m1: m2 is lost".to_owned()),
        (second, "started c.service m1: m2 is lost".to_owned()),
        (
            third,
            "submitted c.service: a new unit, to be inactive".to_owned(),
        ),
    ];
    for line in &lines {
        assert_eq!(all.event().await, *line);
    }
    for line in &lines[1..] {
        assert_eq!(some.event().await, *line);
    }
    let mut again = Lines::of(&cluster, &format!("after={first}")).await;
    for line in &lines {
        assert_eq!(again.event().await, *line);
    }
}

#[tokio::test]
async fn what_the_store_has_forgotten_is_said_with_the_cure() {
    let cluster = cluster();
    let mut m1 = ring(&cluster, "m1").await;
    let first = start(&cluster, &mut m1, &["a.service"]).await;
    start(&cluster, &mut m1, &["b.service"]).await;
    let last = start(&cluster, &mut m1, &["c.service"]).await;
    cluster.store.compact(last).await.unwrap();
    for after in [first, last + 1_000] {
        let got = cluster
            .get(&format!("/fleet/v2/events?follow=true&after={after}"))
            .await;
        assert_eq!(got.status, 410, "{}", got.body);
        assert!(
            got.body
                .contains("list what is kept (GET /fleet/v2/events?after=R)"),
            "{}",
            got.body
        );
    }
    // The rings still have it.
    assert_eq!(told(&cluster, &format!("after={first}")).await.len(), 2);
}

#[tokio::test]
async fn following_is_bounded_and_ends_with_fleetd() {
    let (stop, shutdown) = tokio::sync::watch::channel(false);
    let cluster = cluster();
    let cluster = Cluster {
        state: cluster.state.with_shutdown(shutdown),
        store: cluster.store,
    };
    let mut followers = Vec::new();
    for _ in 0..64 {
        followers.push(Lines::of(&cluster, "").await);
    }
    let got = cluster.get("/fleet/v2/events?follow=true").await;
    assert_eq!(got.status, 503, "{}", got.body);
    // Who goes makes room for the next one.
    followers.truncate(63);
    let room = async {
        loop {
            let request = Request::builder().uri("/fleet/v2/events?follow=true");
            let answer = cluster.send(request.body(Body::empty()).unwrap()).await;
            if answer.status() == 200 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, room).await.unwrap();
    stop.send_replace(true);
    let mut last = followers.remove(0);
    let end = loop {
        let line = last.next().await.expect("a last line");
        if !line.end.is_empty() {
            break line.end;
        }
    };
    assert_eq!(end, "fleetd is being stopped: follow on at another");
    assert_eq!(last.next().await, None);
}

/// Nobody takes anything: what comes meanwhile is not kept for ever.
#[tokio::test(start_paused = true)]
async fn whoever_takes_nothing_is_cut_off_and_told_from_where_to_go_on() {
    let cluster = cluster();
    let mut slow = Lines::of(&cluster, "").await;
    let mut m1 = ring(&cluster, "m1").await;
    let name = format!("{}.service", "x".repeat(240));
    // Ten times of what waits for a follower.
    let n_told = 10 * 16;
    for _ in 0..n_told {
        start(&cluster, &mut m1, &[&name]).await;
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut last = None;
    let end = loop {
        let line = slow.next().await.expect("a last line");
        if !line.end.is_empty() {
            break line;
        }
        last = line.event.map(|event| event.revision).or(last);
    };
    assert!(
        end.end.contains("nothing was taken for 10 s"),
        "{}",
        end.end
    );
    assert_eq!(Some(end.revision), last, "nothing is missed");
    assert_eq!(slow.next().await, None);
    let mut on = Lines::of(&cluster, &format!("after={}", end.revision)).await;
    let (revision, _) = on.event().await;
    assert_eq!(revision, end.revision + 1);
}
