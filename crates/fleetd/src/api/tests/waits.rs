//! Many waits at once: one watch, what it survives, and how waits end.

use std::time::Duration;

use async_trait::async_trait;
use fleet_api::v2::{WaitFor, WaitRequest};
use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use super::wait::{BOUND, LAUNCHED, Lines};
use super::*;
use crate::store::{self, LeaseId, Snapshot, Watch};

#[tokio::test]
async fn a_thousand_units_wait_in_one_request_with_one_watch() {
    let cluster = Cluster::new();
    let names: Vec<String> = (0..1_000).map(|n| format!("u{n:04}.service")).collect();
    for name in &names {
        cluster
            .write(
                keys::unit(name),
                wish(SLEEP_TEXT, DesiredState::Launched).encode(),
            )
            .await;
    }
    let units: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut lines = Lines::of(&cluster, &units).await;
    for _ in 0..1_000 {
        assert_eq!(lines.brief().await, "submitted");
    }
    for name in &names {
        let decision = cluster.place(name, Some("m1")).await;
        let running = state(decision, Reached::Launched, "loaded/active/running");
        cluster.report(name, "m1", running).await;
    }
    let mut n_final = 0;
    while let Some(line) = lines.next().await {
        n_final += usize::from(line.is_final);
    }
    assert_eq!(n_final, 1_000);
}

#[tokio::test]
async fn many_waits_see_the_same() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let mut lines = Lines::of(&cluster, &["a.service"]).await;
        assert_eq!(lines.brief().await, "submitted");
        waits.push(lines);
    }
    assert_eq!(cluster.state.n_waiting(), 20);
    // One that goes away takes none of the others with it.
    waits.pop();
    assert_eq!(cluster.state.n_waiting(), 19);
    cluster.place("a.service", Some("m1")).await;
    for lines in &mut waits {
        assert_eq!(lines.brief().await, "placed m1");
    }
    drop(waits);
    assert_eq!(cluster.state.n_waiting(), 0);
    // The next one starts the watch again.
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "placed m1");
    cluster.place("a.service", Some("m2")).await;
    assert_eq!(lines.brief().await, "placed m2");
}

#[tokio::test(start_paused = true)]
async fn a_silent_wait_shows_that_it_is_there_and_stops_with_fleetd() {
    let mut cluster = Cluster::new();
    let (shutdown, stop) = watch::channel(false);
    cluster.state = cluster.state.with_shutdown(stop);
    cluster.put("a.service", LAUNCHED).await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "submitted");
    let chunk = lines.body.next().await.unwrap().unwrap();
    assert_eq!(&chunk[..], b"\n");
    shutdown.send_replace(true);
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_wait() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    let (_directory, path) = socket::serve(&cluster);
    let client = socket::client(&path);
    let request = WaitRequest {
        units: vec![WaitFor {
            name: "a.service".into(),
            generation: 1,
        }],
    };
    let mut wait = client.wait(&request).await.unwrap();
    assert_eq!(wait.next().await.unwrap().unwrap().phase, "submitted");
    assert_eq!(cluster.state.n_waiting(), 1);
    // A wait and other requests go side by side.
    assert_eq!(client.units().await.unwrap().len(), 1);
    drop(wait);
    drop(client);
    let ended = async {
        while cluster.state.n_waiting() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, ended).await.expect("the wait has ended");
}

#[tokio::test]
async fn requests_that_are_none() {
    let cluster = Cluster::new();
    let unit = WaitFor {
        name: "a.service".into(),
        generation: 1,
    };
    let too_many = WaitRequest {
        units: vec![unit; 10_001],
    };
    let too_many = serde_json::to_string(&too_many).unwrap();
    assert_eq!(cluster.post("/fleet/v2/wait", &too_many).await.status, 413);
    assert_eq!(cluster.post("/fleet/v2/wait", "[").await.status, 400);
    let got = cluster.post("/fleet/v2/wait", "{}").await;
    assert_eq!((got.status, got.body.as_str()), (200, ""));
}

/// Passes everything on; its watches break when told to.
struct Breaking {
    store: Arc<MemoryStore>,
    breaks: broadcast::Sender<store::Error>,
    /// How many watches have begun, and the last one's place.
    watches: watch::Sender<(usize, Revision)>,
    /// How many of them were begun from now on.
    from_now: watch::Sender<usize>,
}

#[async_trait]
impl Store for Breaking {
    async fn read(&self, range: Range) -> Result<Snapshot, store::Error> {
        self.store.read(range).await
    }
    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, store::Error> {
        self.store.read_keys(keys).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, store::Error> {
        let inner = self.store.watch(prefix, after).await?;
        let breaks = self.breaks.subscribe();
        self.watches.send_modify(|(n, place)| {
            *n += 1;
            *place = after;
        });
        let watch = futures_util::stream::unfold(
            (inner, breaks, false),
            |(mut inner, mut breaks, is_broken)| async move {
                if is_broken {
                    return None;
                }
                tokio::select! {
                    biased;
                    error = breaks.recv() => {
                        let error = error.ok()?;
                        Some((Err(error), (inner, breaks, true)))
                    }
                    batch = inner.next() => Some((batch?, (inner, breaks, false))),
                }
            },
        );
        Ok(watch.boxed())
    }
    async fn watch_from_now(&self, prefix: &str) -> Result<(Revision, Watch), store::Error> {
        self.from_now.send_modify(|n| *n += 1);
        let now = self.read_keys(&[]).await?.revision;
        Ok((now, self.watch(prefix, now).await?))
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, store::Error> {
        self.store.commit(txn).await
    }
    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), store::Error> {
        self.store.grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, store::Error> {
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

#[tokio::test]
async fn a_wait_goes_on_when_the_watch_breaks_or_history_is_compacted() {
    let store = Arc::new(Breaking {
        store: MemoryStore::new(),
        breaks: broadcast::channel(4).0,
        watches: watch::channel((0, 0)).0,
        from_now: watch::channel(0).0,
    });
    let cluster = Cluster::over(Arc::clone(&store) as _, 100);
    for unit in ["a.service", "b.service"] {
        cluster.put(unit, LAUNCHED).await;
    }
    let mut first = Lines::of(&cluster, &["a.service"]).await;
    let mut second = Lines::of(&cluster, &["b.service"]).await;
    assert_eq!(first.brief().await, "submitted");
    assert_eq!(second.brief().await, "submitted");
    assert_eq!(store.watches.borrow().0, 1, "two waits share one watch");
    // etcd looks after a watch that begins in the past only every 100 ms.
    assert_eq!(*store.from_now.borrow(), 1, "it begins from now on");

    // Broken: it goes on where it was, and what happened in between comes.
    let place = store.watches.borrow().1;
    let away = store::Error::Unavailable("gone".into());
    store.breaks.send(away).unwrap();
    cluster.place("a.service", Some("m1")).await;
    assert_eq!(first.brief().await, "placed m1");
    assert_eq!(store.watches.borrow().0, 2);
    assert!(store.watches.borrow().1 >= place);
    assert_eq!(*store.from_now.borrow(), 1, "nothing is passed over");

    // Compacted: everything is read anew, what was removed included.
    let gap = store::Error::Compacted(1);
    store.breaks.send(gap).unwrap();
    cluster.place("a.service", Some("m2")).await;
    cluster.remove(keys::unit("b.service")).await;
    let end = cluster.revision().await;
    cluster.store.compact(end).await.unwrap();
    assert_eq!(first.brief().await, "placed m2");
    assert_eq!(second.brief().await, "destroyed!");
    assert_eq!(second.brief().await, "end");
    assert_eq!(
        *store.from_now.borrow(),
        2,
        "there is no place to go on from"
    );
}
