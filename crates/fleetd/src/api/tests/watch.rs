//! `GET /fleet/v2/watch/units`

use std::time::Duration;

use axum::body::BodyDataStream;
use fleet_api::v2::UnitChanges;
use futures_util::StreamExt;

use super::chance::Chance;
use super::rows::{Glass, Shown, change, shown, submit, views};
use super::*;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A line as it was sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Line {
    revision: Revision,
    units: Vec<Shown>,
    gone: Vec<String>,
    listing: bool,
    warnings: Vec<String>,
    end: String,
}

impl Line {
    fn names(&self) -> Vec<&str> {
        self.units.iter().map(|unit| &*unit.unit.0).collect()
    }
}

/// One that watches.
struct Watcher {
    body: BodyDataStream,
    read: String,
}

impl Watcher {
    async fn of(cluster: &Cluster, query: &str) -> Watcher {
        let uri = format!("/fleet/v2/watch/units?{query}");
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        let answer = cluster.send(request).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        Watcher {
            body: answer.into_body().into_data_stream(),
            read: String::new(),
        }
    }

    /// The next line; None at the end.
    async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some((line, rest)) = self.read.split_once('\n') {
                let line: UnitChanges<'_> = serde_json::from_str(line).unwrap();
                let line = Line {
                    revision: line.revision,
                    units: line.units.iter().map(shown).collect(),
                    gone: line.gone.iter().map(ToString::to_string).collect(),
                    listing: line.listing,
                    warnings: line.warnings,
                    end: line.end,
                };
                self.read = rest.to_owned();
                return Some(line);
            }
            let piece = tokio::time::timeout(PATIENCE, self.body.next());
            let piece = piece.await.expect("nothing has come")?.unwrap();
            self.read.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next line that tells of a unit.
    async fn told(&mut self) -> Line {
        let told = async {
            loop {
                let line = self.next().await.expect("it goes on");
                assert_eq!(line.end, "");
                if !line.units.is_empty() || !line.gone.is_empty() {
                    return line;
                }
            }
        };
        // Signs of life are not what is waited for.
        tokio::time::timeout(PATIENCE, told).await.expect("no unit")
    }
}

/// What one that watches knows.
#[derive(Default)]
struct Known {
    revision: Revision,
    units: BTreeMap<String, Shown>,
}

impl Known {
    fn take(&mut self, line: &Line) {
        for unit in &line.units {
            self.units.insert(unit.unit.0.clone(), unit.clone());
        }
        for gone in &line.gone {
            self.units.remove(gone);
        }
        self.revision = line.revision;
    }

    /// Takes what comes until all up to a revision has.
    async fn follow(&mut self, watcher: &mut Watcher, until: Revision) {
        while self.revision < until {
            let line = watcher.next().await.expect("it goes on");
            assert_eq!(line.end, "");
            self.take(&line);
        }
    }
}

#[tokio::test]
async fn all_units_come_first_and_then_each_that_changes() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    cluster.put("a.service", SLEEP).await;
    cluster.put("b.service", SLEEP).await;
    let mut watcher = Watcher::of(&cluster, "fields=machineID,states").await;
    let first = watcher.next().await.unwrap();
    assert_eq!(first.names(), ["a.service", "b.service"]);
    assert!(first.listing);
    assert_eq!(first.revision, cluster.revision().await);
    // A new one; where one is put; how it is there.
    cluster.put("c.service", SLEEP).await;
    let line = watcher.told().await;
    assert_eq!((line.names(), line.listing), (vec!["c.service"], false));
    let decision = cluster.place("b.service", Some("m1")).await;
    let line = watcher.told().await;
    assert_eq!(line.names(), ["b.service"]);
    assert_eq!(line.units[0].machine.as_deref(), Some("m1"));
    let running = state(decision, Reached::Launched, "loaded/active/running");
    cluster.report("b.service", "m1", running).await;
    let line = watcher.told().await;
    assert_eq!(line.units[0].states[0].0[3], "running");
    assert!(!line.units[0].states[0].1, "not stale");
    // The machine goes, and what it said is old.
    cluster.remove(keys::machine("m1")).await;
    let line = watcher.told().await;
    assert_eq!(line.names(), ["b.service"]);
    assert!(line.units[0].states[0].1, "stale");
    let delete = cluster.call("DELETE", "/fleet/v1/units/a.service", &[], "");
    assert_eq!(delete.await.status, 204);
    let line = watcher.told().await;
    assert_eq!(
        (line.names(), line.gone.clone()),
        (vec![], vec!["a.service".to_owned()])
    );
}

/// Whatever happens, and wherever it goes on: who watches knows what a listing says.
#[tokio::test]
async fn whoever_watches_knows_what_a_listing_says() {
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let (mut cluster, _) = Glass::cluster();
        let mut known = Known::default();
        let mut watcher = Watcher::of(&cluster, "").await;
        for round in 0..12 {
            for _ in 0..chance.below(12) {
                change(&cluster, &mut chance).await;
            }
            let other = Cluster::over(Arc::clone(&cluster.store), 100);
            match chance.below(4) {
                // Goes on at the same fleetd, which remembers.
                0 if known.revision > 0 => {
                    watcher = Watcher::of(&cluster, &format!("revision={}", known.revision)).await;
                }
                // At another one, which keeps nothing.
                1 if known.revision > 0 => {
                    watcher = Watcher::of(&other, &format!("revision={}", known.revision)).await;
                    cluster = other;
                }
                // At another one, where somebody began to watch later.
                2 if known.revision > 0 => {
                    let mut later = Watcher::of(&other, "").await;
                    let first = later.next().await.unwrap();
                    assert!(first.listing);
                    watcher = Watcher::of(&other, &format!("revision={}", known.revision)).await;
                    cluster = other;
                }
                _ => {}
            }
            // What is not of units does not wake anybody: this does.
            cluster.put("last.service", &body(&[], "")).await;
            let text = [("Unit", "Description", &*round.to_string())];
            cluster.put("last.service", &body(&text, "")).await;
            let key = keys::unit("last.service");
            let now = cluster.write(
                key,
                wish(
                    &format!("[Unit]\nDescription={round}\n"),
                    DesiredState::Inactive,
                )
                .encode(),
            );
            let now = now.await;
            known.follow(&mut watcher, now).await;
            let knows: Vec<Shown> = known.units.values().cloned().collect();
            assert_eq!(knows, views(&cluster).await, "seed {seed}, round {round}");
        }
    }
}

#[tokio::test]
async fn many_who_watch_read_the_store_once_and_changes_not_at_all() {
    let (cluster, glass) = Glass::cluster();
    submit(&cluster, 100).await;
    let mut watchers = Vec::new();
    for _ in 0..20 {
        let mut watcher = Watcher::of(&cluster, "fields=desiredState").await;
        assert_eq!(watcher.next().await.unwrap().units.len(), 100);
        watchers.push(watcher);
    }
    // Units, placements, states, two of machines; and the revision before each that comes later.
    assert_eq!(glass.reads(), 5 + 19);
    for n in 0..10 {
        let key = keys::unit(&format!("u{n:05}.service"));
        let value = wish("", DesiredState::Launched).encode();
        let revision = cluster.write(key, value).await;
        for watcher in &mut watchers {
            let line = watcher.told().await;
            assert_eq!((line.revision, line.units.len()), (revision, 1));
        }
    }
    assert_eq!(glass.reads(), 0);
}

/// Somebody lists while others write to the same store, and what is watched stays.
#[tokio::test]
async fn a_listing_does_not_end_what_others_watch() {
    let (cluster, _) = Glass::cluster();
    submit(&cluster, 3).await;
    let mut watcher = Watcher::of(&cluster, "fields=").await;
    assert_eq!(watcher.next().await.unwrap().units.len(), 3);
    for n in 0..5 {
        let list = cluster.get("/fleet/v2/units?fields=").await;
        assert_eq!(list.status, 200);
        let unit = format!("v{n}.service");
        cluster.put(&unit, SLEEP).await;
        assert_eq!(watcher.told().await.names(), [&*unit]);
    }
}

#[tokio::test]
async fn what_is_forgotten_or_of_another_store_is_said_with_the_cure() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    let first = cluster.revision().await;
    cluster.put("b.service", SLEEP).await;
    cluster.put("c.service", SLEEP).await;
    let last = cluster.revision().await;
    cluster.store.compact(last).await.unwrap();
    for (revision, why) in [(first, "is forgotten"), (last + 1_000, "is of another one")] {
        let got = cluster
            .get(&format!("/fleet/v2/watch/units?revision={revision}"))
            .await;
        assert_eq!(got.status, 410, "{}", got.body);
        let cure = "begin anew (GET /fleet/v2/watch/units without revision)";
        assert!(
            got.body.contains(why) && got.body.contains(cure),
            "{}",
            got.body
        );
    }
    for (query, status, why) in [
        ("revision=x", 400, "use a number"),
        ("fields=x", 400, "no such field"),
    ] {
        let got = cluster.get(&format!("/fleet/v2/watch/units?{query}")).await;
        assert_eq!(got.status, status);
        assert!(got.body.contains(why), "{}", got.body);
    }
    assert_eq!(
        cluster.post("/fleet/v2/watch/units", "{}").await.status,
        405
    );
}

#[tokio::test]
async fn damage_is_told_once_to_each() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    cluster
        .write(keys::placement("a.service"), b"{".to_vec())
        .await;
    let mut watcher = Watcher::of(&cluster, "fields=").await;
    let first = watcher.next().await.unwrap();
    assert_eq!(first.warnings.len(), 1);
    assert!(
        first.warnings[0].contains("is damaged"),
        "{:?}",
        first.warnings
    );
    cluster.put("b.service", SLEEP).await;
    assert!(watcher.told().await.warnings.is_empty());
    cluster.write(keys::unit("b.service"), b"{".to_vec()).await;
    let line = watcher.told().await;
    assert_eq!(line.gone, ["b.service"]);
    assert_eq!(line.warnings.len(), 1, "why it is gone");
}

#[tokio::test(start_paused = true)]
async fn watching_is_bounded_and_whoever_takes_nothing_is_cut_off() {
    let (stop, shutdown) = tokio::sync::watch::channel(false);
    let cluster = Cluster::new();
    let cluster = Cluster {
        state: cluster.state.with_shutdown(shutdown),
        store: cluster.store,
    };
    submit(&cluster, 2).await;
    let mut watchers = Vec::new();
    for _ in 0..64 {
        watchers.push(Watcher::of(&cluster, "fields=").await);
    }
    let got = cluster.get("/fleet/v2/watch/units").await;
    assert_eq!(got.status, 503, "{}", got.body);
    let mut slow = watchers.pop().unwrap();
    // Far more lines than wait for anybody.
    for n in 0..200 {
        let text = format!("[Unit]\nDescription={n}\n");
        let value = wish(&text, DesiredState::Inactive).encode();
        cluster.write(keys::unit("u00000.service"), value).await;
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut last = 0;
    let end = loop {
        let line = slow.next().await.expect("a last line");
        if !line.end.is_empty() {
            break line;
        }
        last = line.revision;
    };
    assert!(
        end.end.contains("nothing was taken for 10 s"),
        "{}",
        end.end
    );
    assert_eq!(end.revision, last, "nothing is missed");
    assert_eq!(slow.next().await, None);
    let mut on = Watcher::of(&cluster, &format!("fields=description&revision={last}")).await;
    let line = on.told().await;
    assert_eq!(line.units[0].unit.4.as_deref(), Some("199"));
    stop.send_replace(true);
    let end = loop {
        let line = on.next().await.expect("a last line");
        if !line.end.is_empty() {
            break line.end;
        }
    };
    assert_eq!(end, "fleetd is being stopped: follow on at another");
}
