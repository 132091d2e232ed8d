//! `POST /fleet/v2/wait`, with the test as engine and agents.

use std::time::Duration;

use axum::body::BodyDataStream;
use fleet_api::v2::{Progress, WaitFor, WaitRequest};
use fleet_core::records::Refusal;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::*;

/// Lines come at once; whoever waits so long waits for ever.
pub(super) const BOUND: Duration = Duration::from_secs(20);

/// The lines of a wait.
pub(super) struct Lines {
    pub(super) body: BodyDataStream,
    text: String,
}

impl Lines {
    pub(super) async fn of(cluster: &Cluster, units: &[&str]) -> Lines {
        let mut request = WaitRequest::default();
        for name in units {
            let snapshot = cluster.store.read_keys(&[keys::unit(name)]).await.unwrap();
            request.units.push(WaitFor {
                name: (*name).into(),
                generation: snapshot
                    .entries
                    .first()
                    .map_or(0, |entry| entry.mod_revision),
            });
        }
        Lines::start(cluster, &request).await
    }

    async fn start(cluster: &Cluster, request: &WaitRequest) -> Lines {
        let request = Request::post("/fleet/v2/wait")
            .body(Body::from(serde_json::to_vec(request).unwrap()))
            .unwrap();
        let response = cluster.send(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Lines {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next line; None at the end. Empty lines do not count as signs of progress.
    pub(super) async fn next(&mut self) -> Option<Progress> {
        timeout(BOUND, self.line())
            .await
            .expect("a line, or the end")
    }

    async fn line(&mut self) -> Option<Progress> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                if !line.is_empty() {
                    return Some(serde_json::from_str(&line).unwrap());
                }
                continue;
            }
            let chunk = self.body.next().await?;
            self.text
                .push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    /// The next line as `phase` or `phase machine`, with `!` if it is final.
    pub(super) async fn brief(&mut self) -> String {
        let Some(line) = self.next().await else {
            return "end".into();
        };
        brief(&line)
    }
}

pub(super) fn brief(line: &Progress) -> String {
    let machine = line
        .machine
        .as_ref()
        .map(|machine| format!(" {}", machine.id))
        .unwrap_or_default();
    let end = if line.is_final { "!" } else { "" };
    format!("{}{machine}{end}", line.phase)
}

pub(super) const LAUNCHED: &str = r#"{"options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 100"}],"desiredState":"launched"}"#;

#[tokio::test]
async fn a_start_from_the_wish_to_running() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    cluster.put("a.service", LAUNCHED).await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "submitted");
    let decision = cluster.place("a.service", Some("m1")).await;
    let placed = lines.next().await.unwrap();
    assert_eq!(brief(&placed), "placed m1");
    assert_eq!(placed.machine.unwrap().primary_ip, "10.0.0.2");
    let working = state(decision, Reached::Working, "loaded/activating/start");
    cluster.report("a.service", "m1", working).await;
    assert_eq!(lines.brief().await, "working m1");
    let running = state(decision, Reached::Launched, "loaded/active/running");
    cluster.report("a.service", "m1", running).await;
    let launched = lines.next().await.unwrap();
    assert_eq!(brief(&launched), "launched m1!");
    let state = launched.state.unwrap();
    assert_eq!(
        (state.active.as_str(), state.sub.as_str()),
        ("active", "running")
    );
    assert_eq!(lines.next().await, None);
    assert_eq!(cluster.state.n_waiting(), 0, "the wait is given back");
}

#[tokio::test]
async fn what_is_there_already_is_said_at_once() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    cluster.put("i.service", SLEEP).await;
    let decision = cluster.place("a.service", Some("m1")).await;
    let running = state(decision, Reached::Launched, "loaded/active/running");
    cluster.report("a.service", "m1", running).await;
    let units = ["a.service", "i.service", "nope.service"];
    let mut lines = Lines::of(&cluster, &units).await;
    let mut seen = Vec::new();
    while let Some(line) = lines.next().await {
        seen.push(format!("{} {}", line.name, brief(&line)));
    }
    assert_eq!(
        seen,
        [
            "a.service launched m1!",
            "i.service inactive!",
            "nope.service destroyed!"
        ]
    );
}

#[tokio::test]
async fn an_older_state_does_not_count() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    let first = cluster.place("a.service", Some("m1")).await;
    let running = |decision| state(decision, Reached::Launched, "loaded/active/running");
    cluster.report("a.service", "m1", running(first)).await;
    cluster.put("a.service", LAUNCHED).await;
    cluster
        .put("a.service", r#"{"desiredState":"launched"}"#)
        .await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "submitted");
    let second = cluster.place("a.service", Some("m1")).await;
    assert_eq!(lines.brief().await, "placed m1");
    cluster.report("a.service", "m1", running(second)).await;
    assert_eq!(lines.brief().await, "launched m1!");
}

#[tokio::test]
async fn a_unit_without_a_machine_is_pending_until_one_joins() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "submitted");
    let pending = PlacementRecord {
        decision: Decision {
            generation: cluster.generation("a.service").await,
            seq: 1,
        },
        reason: "no machine may run it".into(),
        refusals: vec![Refusal {
            requirement: "MachineMetadata region=eu".into(),
            machines: 3,
        }],
        passed_over: Vec::new(),
        considered: 3,
        ..placement(None)
    };
    cluster
        .write(keys::placement("a.service"), pending.encode())
        .await;
    let line = lines.next().await.unwrap();
    assert_eq!(brief(&line), "pending");
    assert_eq!(line.reason, "no machine may run it");
    assert_eq!((line.refusals[0].machines, line.considered), (3, 3));
    cluster.place("a.service", Some("m1")).await;
    assert_eq!(lines.brief().await, "placed m1");
}

#[tokio::test]
async fn a_failure_ends_the_wait_with_its_reason_and_log() {
    let cluster = Cluster::new();
    for (unit, systemd, why, expected) in [
        (
            "a.service",
            "loaded/failed/failed",
            Some("exit code 1"),
            "failed m1!",
        ),
        ("b.service", "bad-setting/inactive/dead", None, "failed m1!"),
        (
            "c.service",
            "loaded/inactive/dead",
            Some("dependency failed"),
            "failed m1!",
        ),
        ("d.service", "loaded/inactive/dead", None, "launched m1!"),
        ("e.service", "loaded/active/exited", None, "launched m1!"),
        (
            "f.service",
            "loaded/activating/auto-restart",
            None,
            "launched m1!",
        ),
    ] {
        cluster.put(unit, LAUNCHED).await;
        let decision = cluster.place(unit, Some("m1")).await;
        let record = StateRecord {
            why: why.map(str::to_owned),
            leased_ms: None,
            log: vec!["last words".into()],
            ..state(decision, Reached::Launched, systemd)
        };
        cluster.report(unit, "m1", record).await;
        let mut lines = Lines::of(&cluster, &[unit]).await;
        let line = lines.next().await.unwrap();
        assert_eq!(brief(&line), expected, "{unit}");
        if let Some(why) = why {
            assert_eq!(line.reason, why);
        }
        assert_eq!(line.state.unwrap().log, ["last words"]);
    }
}

#[tokio::test]
async fn a_refusing_machine_is_named_and_the_wait_goes_on_elsewhere() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "submitted");
    let first = cluster.place("a.service", Some("m1")).await;
    assert_eq!(lines.brief().await, "placed m1");
    let refused = StateRecord {
        why: Some("the machine has a unit of that name".into()),
        ..state(first, Reached::Refused, "")
    };
    cluster.report("a.service", "m1", refused.clone()).await;
    let line = lines.next().await.unwrap();
    assert_eq!(brief(&line), "refused m1");
    assert_eq!(line.reason, "the machine has a unit of that name");
    cluster.place("a.service", Some("m2")).await;
    assert_eq!(lines.brief().await, "placed m2");
    // Also for whoever comes later, while its state still says so.
    cluster.place("a.service", None).await;
    assert_eq!(lines.brief().await, "refused m1!");
    assert_eq!(lines.brief().await, "end");
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "refused m1!");
}

#[tokio::test]
async fn a_refusal_is_remembered_when_the_unit_is_taken_from_there() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    let first = cluster.place("a.service", Some("m1")).await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "placed m1");
    let refused = StateRecord {
        why: Some("no".into()),
        ..state(first, Reached::Refused, "")
    };
    cluster.report("a.service", "m1", refused).await;
    assert_eq!(lines.brief().await, "refused m1");
    let gone = state(first, Reached::Gone, "not-found/inactive/dead");
    cluster.report("a.service", "m1", gone).await;
    cluster.place("a.service", None).await;
    let mut line = lines.next().await.unwrap();
    while !line.is_final {
        line = lines.next().await.unwrap();
    }
    assert_eq!(
        (brief(&line).as_str(), line.reason.as_str()),
        ("refused m1!", "no")
    );
}

#[tokio::test]
async fn a_stop_an_unload_and_a_destroy() {
    let cluster = Cluster::new();
    let unit = "a.service";
    cluster.put(unit, LAUNCHED).await;
    let decision = cluster.place(unit, Some("m1")).await;
    cluster
        .report(
            unit,
            "m1",
            state(decision, Reached::Launched, "loaded/active/running"),
        )
        .await;

    cluster.put(unit, r#"{"desiredState":"loaded"}"#).await;
    let mut lines = Lines::of(&cluster, &[unit]).await;
    assert_eq!(lines.brief().await, "submitted");
    let decision = cluster.place(unit, Some("m1")).await;
    assert_eq!(lines.brief().await, "placed m1");
    // Killed by the stop: that is what was asked for.
    cluster
        .report(
            unit,
            "m1",
            state(decision, Reached::Loaded, "loaded/failed/failed"),
        )
        .await;
    assert_eq!(lines.brief().await, "loaded m1!");

    cluster.put(unit, r#"{"desiredState":"inactive"}"#).await;
    let mut lines = Lines::of(&cluster, &[unit]).await;
    assert_eq!(lines.brief().await, "submitted");
    let decision = Decision {
        generation: cluster.generation(unit).await,
        seq: decision.seq + 100,
    };
    let leaving = PlacementRecord {
        decision,
        leaving: Some(MachineId::new("m1")),
        ..placement(None)
    };
    cluster.write(keys::placement(unit), leaving.encode()).await;
    assert_eq!(lines.brief().await, "working m1");
    let gone = state(decision, Reached::Gone, "not-found/inactive/dead");
    cluster.report(unit, "m1", gone).await;
    assert_eq!(lines.brief().await, "working");
    cluster.remove(keys::placement(unit)).await;
    assert_eq!(lines.brief().await, "inactive!");

    cluster
        .call("DELETE", "/fleet/v1/units/a.service", &[], "")
        .await;
    let mut lines = Lines::of(&cluster, &[unit]).await;
    assert_eq!(lines.brief().await, "working");
    cluster.remove(keys::unit(unit)).await;
    assert_eq!(lines.brief().await, "destroyed!");
}

#[tokio::test]
async fn a_machine_that_is_lost_keeps_nobody_waiting_for_its_confirmation() {
    let cluster = Cluster::new();
    for (unit, desired, end) in [
        ("a.service", None, "destroyed m1!"),
        (
            "b.service",
            Some(r#"{"desiredState":"inactive"}"#),
            "inactive m1!",
        ),
    ] {
        cluster.member("m1", MemberStatus::Suspect).await;
        cluster.put(unit, LAUNCHED).await;
        let decision = cluster.place(unit, Some("m1")).await;
        let running = state(decision, Reached::Launched, "loaded/active/running");
        cluster.report(unit, "m1", running).await;
        match desired {
            Some(wish) => cluster.put(unit, wish).await,
            None => {
                cluster
                    .call("DELETE", &format!("/fleet/v1/units/{unit}"), &[], "")
                    .await
            }
        };
        let leaving = PlacementRecord {
            decision: Decision {
                generation: cluster.generation(unit).await,
                seq: decision.seq + 100,
            },
            leaving: Some(MachineId::new("m1")),
            ..placement(None)
        };
        cluster.write(keys::placement(unit), leaving.encode()).await;
        let mut lines = Lines::of(&cluster, &[unit]).await;
        assert_eq!(lines.brief().await, "working m1");
        cluster.member("m1", MemberStatus::Lost).await;
        let line = lines.next().await.unwrap();
        assert_eq!(brief(&line), end);
        assert_eq!(
            line.reason,
            "machine m1 is lost: what still runs of it there is stopped at the return"
        );
        // Whoever asks later is told the same at once.
        let mut lines = Lines::of(&cluster, &[unit]).await;
        assert_eq!(lines.brief().await, "working m1");
        assert_eq!(lines.brief().await, end);
    }
}

#[tokio::test]
async fn an_unloaded_unit_is_inactive_when_its_placement_is_removed() {
    let cluster = Cluster::new();
    cluster.put("a.service", LAUNCHED).await;
    cluster.place("a.service", Some("m1")).await;
    cluster
        .put("a.service", r#"{"desiredState":"inactive"}"#)
        .await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "submitted");
    cluster.remove(keys::placement("a.service")).await;
    assert_eq!(lines.brief().await, "inactive!");
}

#[tokio::test]
async fn a_global_unit_has_a_line_for_each_machine_and_one_at_the_end() {
    let cluster = Cluster::new();
    let unit = "g.service";
    let text = body(&[("X-Fleet", "Global", "true")], "launched");
    cluster.put(unit, &text).await;
    let mut lines = Lines::of(&cluster, &[unit]).await;
    assert_eq!(lines.brief().await, "submitted");
    let decision = Decision {
        generation: cluster.generation(unit).await,
        seq: 50,
    };
    let assigned = |assigned| PlacementRecord {
        decision,
        assigned,
        ..placement(None)
    };
    cluster
        .write(keys::placement(unit), assigned(0).encode())
        .await;
    assert_eq!(lines.brief().await, "pending");
    cluster
        .write(keys::placement(unit), assigned(2).encode())
        .await;
    assert_eq!(lines.brief().await, "placed");
    let running = state(decision, Reached::Launched, "loaded/active/running");
    cluster.report(unit, "m1", running).await;
    assert_eq!(lines.brief().await, "launched m1");
    let failed = state(decision, Reached::Launched, "loaded/failed/failed");
    cluster.report(unit, "m2", failed).await;
    assert_eq!(lines.brief().await, "failed m2");
    assert_eq!(lines.brief().await, "failed!");
    assert_eq!(lines.brief().await, "end");
}

#[tokio::test]
async fn a_global_unit_refused_by_one_machine_waits_for_the_others() {
    let cluster = Cluster::new();
    let unit = "g.service";
    let text = body(&[("X-Fleet", "Global", "true")], "launched");
    cluster.put(unit, &text).await;
    let decision = Decision {
        generation: cluster.generation(unit).await,
        seq: 50,
    };
    let assigned = |assigned| PlacementRecord {
        decision,
        assigned,
        ..placement(None)
    };
    cluster
        .write(keys::placement(unit), assigned(3).encode())
        .await;
    let mut lines = Lines::of(&cluster, &[unit]).await;
    assert_eq!(lines.brief().await, "placed");
    cluster
        .report(unit, "m1", state(decision, Reached::Refused, ""))
        .await;
    assert_eq!(lines.brief().await, "refused m1");
    let running = state(decision, Reached::Launched, "loaded/active/running");
    cluster.report(unit, "m2", running.clone()).await;
    assert_eq!(lines.brief().await, "launched m2");
    cluster
        .write(keys::placement(unit), assigned(2).encode())
        .await;
    cluster.report(unit, "m3", running).await;
    assert_eq!(lines.brief().await, "launched m3");
    assert_eq!(lines.brief().await, "launched!");
}

#[tokio::test]
async fn a_damaged_unit_is_a_failure_and_no_destruction() {
    let cluster = Cluster::new();
    cluster
        .write(keys::unit("a.service"), b"damaged".to_vec())
        .await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    let line = lines.next().await.unwrap();
    assert_eq!(brief(&line), "failed!");
    assert!(line.reason.contains("damaged"), "{}", line.reason);
}
