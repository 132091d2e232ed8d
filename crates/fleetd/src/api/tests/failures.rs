//! Units that are moved when they fail, and machines that are avoided because many did.

use fleet_api::v2::MachineView;
use fleet_core::records::Avoided;

use super::wait::{Lines, brief};
use super::*;

/// A body of a unit that is moved when it fails.
fn moved(desired: &str) -> String {
    body(
        &[
            ("Service", "ExecStart", "/bin/false"),
            ("X-Fleet", "RescheduleOnFailure", "1"),
        ],
        desired,
    )
}

async fn decide(
    cluster: &Cluster,
    machine: &str,
    decision: Decision,
    reason: &str,
    failures: Failures,
) {
    let record = PlacementRecord {
        decision,
        reason: reason.to_owned(),
        failures,
        ..placement(Some(machine))
    };
    let key = keys::placement("a.service");
    cluster.write(key, record.encode()).await;
}

async fn fail(cluster: &Cluster, machine: &str, decision: Decision) {
    let record = StateRecord {
        why: Some("exit code 1".to_owned()),
        ..state(decision, Reached::Launched, "loaded/failed/failed")
    };
    cluster.report("a.service", machine, record).await;
}

#[tokio::test]
async fn a_wait_goes_on_while_a_unit_that_failed_is_to_be_moved_and_ends_when_it_stays() {
    let cluster = Cluster::new();
    cluster.put("a.service", &moved("launched")).await;
    let mut lines = Lines::of(&cluster, &["a.service"]).await;
    assert_eq!(lines.brief().await, "submitted");
    let first = cluster.place("a.service", Some("m1")).await;
    assert_eq!(lines.brief().await, "placed m1");

    // The leader has not decided yet.
    fail(&cluster, "m1", first).await;
    assert_eq!(lines.brief().await, "working m1");
    let due = Failures {
        next_ms: 7,
        ..Failures::default()
    };
    let reason = "it failed on m1: exit code 1; it is moved at 10:00:00 UTC";
    decide(&cluster, "m1", first, reason, due).await;
    let line = lines.next().await.unwrap();
    assert_eq!(brief(&line), "failed m1");
    assert_eq!(line.reason, "exit code 1; it is moved at 10:00:00 UTC");

    let second = Decision {
        seq: first.seq + 10,
        ..first
    };
    let once = Failures {
        moves: 1,
        failed_on: vec![MachineId::new("m1")],
        ..Failures::default()
    };
    decide(&cluster, "m2", second, "it failed on m1", once.clone()).await;
    assert_eq!(lines.brief().await, "placed m2");
    fail(&cluster, "m2", second).await;
    assert_eq!(lines.brief().await, "working m2");
    let stays = Failures {
        stays: true,
        ..once
    };
    let reason = "it failed on m2: exit code 1; it stays failed there";
    decide(&cluster, "m2", second, reason, stays).await;
    let line = lines.next().await.unwrap();
    assert_eq!(brief(&line), "failed m2!");
    assert_eq!(line.reason, "exit code 1; it stays failed there");
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_machine_that_is_avoided_says_why_and_is_opened_once() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    let avoided = async |opened: u64| {
        let record = MemberRecord {
            status: MemberStatus::Present,
            since_ms: 0,
            first_seen_ms: 0,
            public_ip: String::new(),
            metadata: BTreeMap::new(),
            reason: String::new(),
            avoided: Some(Avoided {
                why: "3 of the last 5 units failed there".to_owned(),
                revision: 1,
                opened,
            }),
        };
        cluster.write(keys::member("m1"), record.encode()).await;
    };
    let change = async |body: &str| -> Option<String> {
        let got = cluster.post("/fleet/v2/machines/m1", body).await;
        assert_eq!(got.status, 200, "{}", got.body);
        let view: MachineView = serde_json::from_str(&got.body).unwrap();
        view.avoided
    };
    let opened = async || -> u64 {
        let wish: Option<MachineWish> = cluster.read(keys::machine_wish("m1")).await;
        wish.unwrap_or_default().opened
    };
    avoided(0).await;
    let why = Some("3 of the last 5 units failed there".to_owned());
    assert_eq!(change("{}").await, why);
    assert_eq!(change(r#"{"cordoned":true}"#).await, why);
    assert_eq!(opened().await, 0);
    assert_eq!(change(r#"{"cordoned":false}"#).await, None);
    assert_eq!(opened().await, 1);
    // Asked again before the leader has seen it.
    assert_eq!(change(r#"{"cordoned":false}"#).await, None);
    assert_eq!(opened().await, 1);
    // It is avoided again, later.
    avoided(1).await;
    assert_eq!(change(r#"{"cordoned":false}"#).await, None);
    assert_eq!(opened().await, 2);
}
