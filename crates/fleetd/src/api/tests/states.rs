//! `/state` and `/state/{name}`.

use super::*;

fn shown(unit: &str, machine: &str) -> String {
    let hash = UnitHash::of(b"x");
    format!(
        r#"{{"hash":"{hash}","machineID":"{machine}","name":"{unit}","systemdActiveState":"active","systemdLoadState":"loaded","systemdSubState":"running"}}"#
    )
}

fn running() -> StateRecord {
    state(
        Decision::default(),
        Reached::Launched,
        "loaded/active/running",
    )
}

#[tokio::test]
async fn states_are_sorted_by_unit_then_machine_and_filtered() {
    let cluster = Cluster::new();
    // By its bytes, the key of the longer name comes first.
    for (unit, machine) in [
        ("a.service-b.service", "m1"),
        ("a.service", "m2"),
        ("a.service", "m1"),
    ] {
        cluster.report(unit, machine, running()).await;
    }
    let page = |states: &[(&str, &str)]| {
        let states: Vec<_> = states.iter().map(|(u, m)| shown(u, m)).collect();
        match states.is_empty() {
            true => (200, "{}".to_owned()),
            false => (200, format!(r#"{{"states":[{}]}}"#, states.join(","))),
        }
    };
    let (a1, a2) = (("a.service", "m1"), ("a.service", "m2"));
    let b1 = ("a.service-b.service", "m1");
    for (query, states) in [
        ("", &[a1, a2, b1][..]),
        ("?unitName=a.service", &[a1, a2][..]),
        ("?machineID=m1", &[a1, b1][..]),
        ("?unitName=a.service&machineID=m2", &[a2][..]),
        ("?unitName=a.service&unitName=x", &[a1, a2][..]),
        ("?unitName=&machineID=", &[a1, a2, b1][..]),
        ("?unitName=a", &[][..]),
        ("?machineID=m", &[][..]),
    ] {
        let path = format!("/fleet/v1/state{query}");
        assert_eq!(cluster.shown(&path).await, page(states), "{path}");
    }
}

#[tokio::test]
async fn what_is_gone_refused_or_not_loaded_yet_has_no_state() {
    let cluster = Cluster::new();
    let none = Decision::default();
    for (machine, record) in [
        ("m1", state(none, Reached::Gone, "not-found/inactive/dead")),
        ("m2", state(none, Reached::Refused, "loaded/active/running")),
        ("m3", state(none, Reached::Working, "")),
    ] {
        cluster.report("a.service", machine, record).await;
    }
    assert_eq!(cluster.shown("/fleet/v1/state").await, (200, "{}".into()));
    let missing = error(404, "unit state does not exist");
    assert_eq!(cluster.shown("/fleet/v1/state/a.service").await, missing);
}

#[tokio::test]
async fn states_of_lost_machines_are_hidden() {
    let cluster = Cluster::new();
    cluster.report("a.service", "m1", running()).await;
    for (status, n_shown) in [
        (MemberStatus::Present, 1),
        (MemberStatus::Suspect, 1),
        (MemberStatus::Unsupervised, 1),
        (MemberStatus::Lost, 0),
        (MemberStatus::Retired, 0),
    ] {
        cluster.member("m1", status).await;
        let (_, body) = cluster.shown("/fleet/v1/state").await;
        let page: fleet_api::v1::UnitStatePage = serde_json::from_str(&body).unwrap();
        assert_eq!(page.states.len(), n_shown, "{status:?}");
        let got = cluster.get("/fleet/v1/state/a.service").await;
        assert_eq!(got.status == 200, n_shown == 1, "{status:?}");
    }
}

#[tokio::test]
async fn the_state_of_a_unit_is_that_of_its_machine() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    cluster.report("a.service", "m1", running()).await;
    cluster.report("a.service", "m2", running()).await;
    let path = "/fleet/v1/state/a.service";
    assert_eq!(cluster.shown(path).await, (200, shown("a.service", "m1")));
    cluster.place("a.service", Some("m2")).await;
    assert_eq!(cluster.shown(path).await, (200, shown("a.service", "m2")));
}
