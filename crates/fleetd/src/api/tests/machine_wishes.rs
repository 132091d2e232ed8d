//! `/fleet/v2/machines/{id}`: cordon, drain, and what becomes of the units.

use fleet_api::v2::{MachineListing, MachineUnitListing, MachineView};
use fleet_core::records::{AssignmentRecord, MachineId, Order};

use super::*;
use crate::store::AskedRecord;

async fn change(cluster: &Cluster, body: &str) -> MachineView {
    let got = cluster.post("/fleet/v2/machines/m1", body).await;
    assert_eq!(got.status, 200, "{}", got.body);
    serde_json::from_str(&got.body).unwrap()
}

#[tokio::test]
async fn cordon_drain_and_open_again() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[("a", "b")]).await;
    let wished = async || -> MachineWish {
        let wish = cluster.read(keys::machine_wish("m1")).await;
        wish.unwrap_or_default()
    };
    let before = MachineWish {
        metadata: map(&[("zone", "z")]),
        ..MachineWish::default()
    };
    cluster
        .write(keys::machine_wish("m1"), before.encode())
        .await;

    let view = change(&cluster, r#"{"cordoned":true}"#).await;
    assert_eq!((view.cordoned, view.draining), (true, false));
    assert_eq!((wished().await.cordon, wished().await.drain), (true, false));

    let view = change(&cluster, r#"{"draining":true,"maxParallel":3}"#).await;
    assert_eq!(
        (view.cordoned, view.draining, view.max_parallel),
        (true, true, 3)
    );
    assert_eq!(wished().await.max_parallel, 3);
    // What is left out stays, and nothing to do writes nothing.
    let revision = cluster.revision().await;
    let again = change(&cluster, "{}").await;
    assert_eq!(again, view);
    assert_eq!(cluster.revision().await, revision);
    let (_, body) = cluster.shown("/fleet/v2/machines/m1").await;
    assert_eq!(serde_json::from_str::<MachineView>(&body).unwrap(), view);

    let view = change(&cluster, r#"{"cordoned":false,"draining":false}"#).await;
    assert_eq!(
        (view.cordoned, view.draining, view.max_parallel),
        (false, false, 0)
    );
    // Other wishes have been left alone.
    assert_eq!(wished().await, before);
}

#[tokio::test]
async fn a_drain_is_a_cordon_though_nobody_said_so() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    let view = change(&cluster, r#"{"draining":true}"#).await;
    assert!(view.cordoned);
    let view = change(&cluster, r#"{"draining":false}"#).await;
    assert!(!view.cordoned);
}

#[tokio::test]
async fn an_unknown_machine_is_named_with_the_cure() {
    let cluster = Cluster::new();
    cluster.member("lost", MemberStatus::Lost).await;
    let message = "machine m1 is not known: GET /fleet/v2/machines lists those that are";
    for (method, path) in [
        ("GET", "/fleet/v2/machines/m1"),
        ("POST", "/fleet/v2/machines/m1"),
        ("GET", "/fleet/v2/machines/m1/units"),
    ] {
        let got = cluster.call(method, path, &[], "{}").await;
        assert_eq!(got.status, 404, "{method} {path}");
        assert!(got.body.contains(message), "{}", got.body);
    }
    assert!(
        cluster
            .read::<MachineWish>(keys::machine_wish("m1"))
            .await
            .is_none()
    );
    // One that is away can be drained: it counts when it is back.
    let got = cluster
        .post("/fleet/v2/machines/lost", r#"{"draining":true}"#)
        .await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn what_is_no_change_is_refused() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    for body in ["", "[1", r#"{"cordoned":1}"#, r#"{"maxParallel":-1}"#] {
        let got = cluster.post("/fleet/v2/machines/m1", body).await;
        assert_eq!(got.status, 400, "{body}");
        assert!(got.body.contains("unable to decode body"), "{}", got.body);
    }
}

#[tokio::test]
async fn the_units_of_a_machine_and_where_they_go() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    let assign = async |machine: &str, unit: &str, order: Order| {
        let record = AssignmentRecord {
            text: "".into(),
            hash: UnitHash::of(b""),
            decision: Decision::default(),
            order,
            restarts: 0,
            reason: "why it is here".into(),
        };
        cluster
            .write(keys::assignment(machine, unit), record.encode())
            .await;
    };
    let place = async |unit: &str, record: PlacementRecord| {
        cluster.write(keys::placement(unit), record.encode()).await;
    };
    assign("m1", "gone.service", Order::Gone).await;
    assign("m1", "log.service", Order::Launched).await;
    assign("m1", "moves.service", Order::Launched).await;
    assign("m1", "stays.service", Order::Launched).await;
    assign("m2", "other.service", Order::Launched).await;
    let leaving = |machine: Option<&str>| PlacementRecord {
        leaving: Some(MachineId::new("m1")),
        reason: "m1 is being drained".into(),
        ..placement(machine)
    };
    place("gone.service", leaving(None)).await;
    place("moves.service", leaving(Some("m2"))).await;
    let stuck = PlacementRecord {
        reason: "m1 is being drained, and it stays there".into(),
        refusals: vec![fleet_core::records::Refusal {
            requirement: "MachineID m1".into(),
            machines: 1,
        }],
        ..placement(Some("m1"))
    };
    place("stays.service", stuck).await;
    let global = PlacementRecord {
        assigned: 2,
        ..placement(None)
    };
    place("log.service", global).await;

    let (_, body) = cluster.shown("/fleet/v2/machines/m1/units").await;
    let listing: MachineUnitListing = serde_json::from_str(&body).unwrap();
    let seen: Vec<_> = listing
        .units
        .iter()
        .map(|unit| {
            (
                unit.name.as_str(),
                unit.order.as_str(),
                unit.machine_id.as_deref(),
                unit.global,
                unit.reason.as_str(),
                unit.refusals.len(),
            )
        })
        .collect();
    let drained = "m1 is being drained";
    assert_eq!(
        seen,
        [
            ("gone.service", "gone", None, false, drained, 0),
            ("log.service", "launched", None, true, "why it is here", 0),
            ("moves.service", "launched", Some("m2"), false, drained, 0),
            (
                "stays.service",
                "launched",
                Some("m1"),
                false,
                "m1 is being drained, and it stays there",
                1
            ),
        ]
    );
}

#[tokio::test]
async fn a_thaw_is_asked_for_only_when_something_is_frozen() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    cluster.member("lost", MemberStatus::Lost).await;
    cluster.member("suspect", MemberStatus::Suspect).await;
    let thaw = async || -> Vec<String> {
        let got = cluster.post("/fleet/v2/thaw", "").await;
        assert_eq!(got.status, 200, "{}", got.body);
        let listing: MachineListing = serde_json::from_str(&got.body).unwrap();
        listing
            .machines
            .into_iter()
            .map(|machine| machine.id)
            .collect()
    };
    assert!(thaw().await.is_empty());
    assert!(
        cluster
            .read::<AskedRecord>(keys::THAW.to_owned())
            .await
            .is_none()
    );
    let frozen = MemberRecord {
        avoided: None,
        status: MemberStatus::Suspect,
        since_ms: 0,
        first_seen_ms: 0,
        public_ip: "10.9.9.9".into(),
        metadata: map(&[]),
        reason: format!("{}: nothing is moved", MemberRecord::FROZEN),
    };
    cluster.write(keys::member("frozen"), frozen.encode()).await;
    let (_, body) = cluster.shown("/fleet/v2/machines/frozen").await;
    let view: MachineView = serde_json::from_str(&body).unwrap();
    assert!(
        view.frozen && view.reason.starts_with(MemberRecord::FROZEN),
        "{body}"
    );
    assert_eq!(thaw().await, ["frozen"]);
    let asked = cluster.read::<AskedRecord>(keys::THAW.to_owned()).await;
    assert_eq!(asked.unwrap().machines, [MachineId::new("frozen")]);
}

#[tokio::test]
async fn who_has_a_store_believed_is_written_down() {
    let cluster = Cluster::new();
    let said =
        async || -> Option<AskedRecord> { cluster.read(keys::ACCEPT_STORE.to_owned()).await };
    assert!(said().await.is_none());
    let got = cluster.post("/fleet/v2/accept-store", "").await;
    assert_eq!((got.status, got.body.as_str()), (204, ""));
    assert!(said().await.is_some());
}
