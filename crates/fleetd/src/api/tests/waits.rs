//! Many waits at once: one watch, what it survives, and how waits end.

use fleet_api::v2::{WaitFor, WaitRequest};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::wait::{BOUND, LAUNCHED, Lines};
use super::*;

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
