//! `GET /fleet/v2/units`, `/units/{name}`, `/machines`.

use fleet_api::v2::{MachineListing, RefusalView, UnitListing, UnitView};
use fleet_core::records::{MachineId, Refusal};

use super::*;
use crate::store::codec::LeaderRecord;

async fn page(cluster: &Cluster, query: &str) -> UnitListing {
    let got = cluster.get(&format!("/fleet/v2/units{query}")).await;
    assert_eq!(got.status, 200, "{got:?}");
    serde_json::from_str(&got.body).unwrap()
}

fn names(page: &UnitListing) -> Vec<&str> {
    page.units.iter().map(|unit| unit.name.as_str()).collect()
}

#[tokio::test]
async fn pages_hold_at_one_revision() {
    let cluster = Cluster::new();
    for name in ["a", "b", "c", "d"] {
        cluster.put(&format!("{name}.service"), SLEEP).await;
    }
    cluster
        .call("DELETE", "/fleet/v1/units/b.service", &[], "")
        .await;
    let first = page(&cluster, "?limit=2").await;
    assert_eq!(names(&first), ["a.service", "c.service"]);
    assert!(first.more);
    cluster.put("bb.service", SLEEP).await;
    cluster
        .call("DELETE", "/fleet/v1/units/d.service", &[], "")
        .await;
    let query = format!("?limit=2&after=c.service&revision={}", first.revision);
    let second = page(&cluster, &query).await;
    assert_eq!(names(&second), ["d.service"]);
    assert_eq!((second.revision, second.more), (first.revision, false));
    assert_eq!(
        names(&page(&cluster, "").await),
        ["a.service", "bb.service", "c.service"]
    );
    assert_eq!(names(&page(&cluster, "?after=x").await), [""; 0]);

    cluster
        .store
        .compact(cluster.revision().await)
        .await
        .unwrap();
    let got = cluster.get(&format!("/fleet/v2/units{query}")).await;
    assert_eq!(got.status, 410);
    assert!(got.body.contains("begin the listing anew"), "{}", got.body);
    // Of another store, or made up.
    let got = cluster.get("/fleet/v2/units?revision=1000000").await;
    assert_eq!(got.status, 410);
    assert!(got.body.contains("begin the listing anew"), "{}", got.body);
    for query in ["?limit=x", "?revision=-1"] {
        assert_eq!(
            cluster.get(&format!("/fleet/v2/units{query}")).await.status,
            400
        );
    }
}

#[tokio::test]
async fn the_machines_are_read_once_for_a_listing_however_many_pages_it_has() {
    let (cluster, store) = super::batch::faulty(0, crate::store::Error::Conflict, false);
    for name in ["a", "b", "c", "d", "e"] {
        cluster.put(&format!("{name}.service"), SLEEP).await;
    }
    let n_read = || {
        let ranges = std::mem::take(&mut *store.ranges.lock().unwrap());
        ranges
            .iter()
            .filter(|prefix| *prefix == keys::MEMBERS)
            .count()
    };
    n_read();
    for _ in 0..2 {
        let mut listed = page(&cluster, "?limit=2").await;
        while listed.more {
            let (after, revision) = (names(&listed)[1].to_owned(), listed.revision);
            let query = format!("?limit=2&after={after}&revision={revision}");
            listed = page(&cluster, &query).await;
        }
        assert_eq!(names(&listed), ["e.service"]);
        // The next listing reads them anew, also at the same revision.
        assert_eq!(n_read(), 1);
    }
}

#[tokio::test]
async fn a_page_has_the_placements_and_states_of_its_units_whatever_their_names() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    // In the order of the keys of their states, the longer names come first.
    let units = [
        "a.service",
        "a.service-b.service",
        "a.service.service",
        "ab.service",
        "b.service",
    ];
    for unit in units {
        cluster
            .put(unit, &body(&[("Service", "ExecStart", "/a")], "launched"))
            .await;
        let decision = cluster.place(unit, Some("m1")).await;
        let running = state(decision, Reached::Launched, "loaded/active/running");
        cluster.report(unit, "m1", running.clone()).await;
        cluster.report(unit, "m2", running).await;
    }
    for limit in 1..=5 {
        let mut seen = Vec::new();
        let mut query = format!("?limit={limit}");
        loop {
            let page = page(&cluster, &query).await;
            for unit in &page.units {
                assert_eq!(
                    unit.current_state.as_deref(),
                    Some("launched"),
                    "{}",
                    unit.name
                );
                assert_eq!(unit.machine_id.as_deref(), Some("m1"));
                let stale: Vec<_> = unit.states.iter().map(|s| s.stale).collect();
                assert_eq!(stale, [false, true], "{}", unit.name);
                seen.push(unit.name.clone());
            }
            if !page.more {
                break;
            }
            let last = page.units.last().unwrap();
            query = format!(
                "?limit={limit}&after={}&revision={}",
                last.name, page.revision
            );
        }
        assert_eq!(seen, units, "limit {limit}");
    }
}

#[tokio::test]
async fn one_unit_with_all_that_is_known() {
    let cluster = Cluster::new();
    let unit = body(
        &[
            ("Unit", "Description", "Hello"),
            ("Service", "ExecStart", "/a"),
        ],
        "launched",
    );
    cluster.put("a.service", &unit).await;
    let pending = PlacementRecord {
        reason: "no machine may run it".into(),
        refusals: vec![Refusal {
            requirement: "MachineMetadata region=eu".into(),
            machines: 3,
        }],
        passed_over: vec![Refusal {
            requirement: "Conflicts with b.service".into(),
            machines: 1,
        }],
        considered: 3,
        leaving: Some(MachineId::new("m0")),
        since_ms: 7,
        ..placement(None)
    };
    cluster
        .write(keys::placement("a.service"), pending.encode())
        .await;
    let gone = state(
        Decision::default(),
        Reached::Gone,
        "not-found/inactive/dead",
    );
    cluster.report("a.service", "m0", gone).await;
    let (status, body) = cluster.shown("/fleet/v2/units/a.service").await;
    assert_eq!(status, 200);
    let view: UnitView = serde_json::from_str(&body).unwrap();
    let wish = cluster.wish("a.service").await;
    assert!(wish.changed_ms > 0);
    assert_eq!(
        view,
        UnitView {
            name: "a.service".into(),
            generation: cluster.generation("a.service").await,
            hash: wish.hash.to_string(),
            desired_state: "launched".into(),
            current_state: Some("inactive".into()),
            description: Some("Hello".into()),
            leaving_id: Some("m0".into()),
            since_ms: 7,
            passed_over: vec![RefusalView {
                requirement: "Conflicts with b.service".into(),
                machines: 1,
            }],
            changed_by: wish.changed_by,
            changed_ms: wish.changed_ms,
            reason: "no machine may run it".into(),
            refusals: vec![RefusalView {
                requirement: "MachineMetadata region=eu".into(),
                machines: 3
            }],
            considered: 3,
            text: Some("[Unit]\nDescription=Hello\n\n[Service]\nExecStart=/a\n".into()),
            ..UnitView::default()
        }
    );
    cluster
        .call("DELETE", "/fleet/v1/units/a.service", &[], "")
        .await;
    let got = cluster.get("/fleet/v2/units/a.service").await;
    assert_eq!(got.status, 404);
    assert!(got.body.contains("unit does not exist"));
}

#[tokio::test]
async fn machines_with_their_status() {
    let cluster = Cluster::new();
    cluster.machine("present", &[("a", "b")]).await;
    cluster.machine("back", &[]).await;
    cluster.member("back", MemberStatus::Lost).await;
    cluster.member("gone", MemberStatus::Present).await;
    cluster.member("lost", MemberStatus::Lost).await;
    cluster.member("resting", MemberStatus::Unsupervised).await;
    let trouble = MachineRecord {
        trouble: Some("systemd cannot be reached: no".into()),
        ..MachineRecord::default()
    };
    cluster.write(keys::machine("sick"), trouble.encode()).await;
    let wish = MachineWish {
        metadata: map(&[("last", "")]),
        cordon: true,
        ..MachineWish::default()
    };
    cluster
        .write(keys::machine_wish("lost"), wish.encode())
        .await;
    let (_, body) = cluster.shown("/fleet/v2/machines").await;
    let listing: MachineListing = serde_json::from_str(&body).unwrap();
    let seen: Vec<_> = listing
        .machines
        .iter()
        .map(|m| {
            (
                m.id.as_str(),
                m.status.as_str(),
                m.trouble.as_deref(),
                m.metadata.len(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("back", "present", None, 0),
            ("gone", "suspect", None, 1),
            ("lost", "lost", None, 0),
            ("present", "present", None, 1),
            ("resting", "unsupervised", None, 1),
            ("sick", "present", Some("systemd cannot be reached: no"), 0),
        ]
    );
}

#[tokio::test]
async fn methods_and_paths_of_v2() {
    let cluster = Cluster::new();
    for (method, path, status, message) in [
        (
            "PUT",
            "/fleet/v2/units",
            405,
            "only GET and POST supported against this resource",
        ),
        (
            "PUT",
            "/fleet/v2/units/a",
            405,
            "only GET supported against this resource",
        ),
        (
            "POST",
            "/fleet/v2/machines",
            405,
            "only GET supported against this resource",
        ),
        (
            "GET",
            "/fleet/v2/wait",
            405,
            "only POST supported against this resource",
        ),
        ("GET", "/fleet/v2/x", 404, "no such resource in API v2"),
        ("GET", "/fleet/v2", 404, "no such resource in API v2"),
    ] {
        let got = cluster
            .call(method, path, &[("X-Request-Id", "r")], "")
            .await;
        let body =
            format!(r#"{{"error":{{"code":{status},"message":"{message}","requestID":"r"}}}}"#);
        assert_eq!((got.status, got.body), (status, body), "{method} {path}");
    }
}

#[tokio::test]
async fn the_document_of_v2_names_every_path() {
    let cluster = Cluster::new();
    let (status, document) = cluster.shown("/fleet/v2/openapi.json").await;
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let mut path = format!("/fleet/v2{}", path.replace("{name}", "a.service"));
        if path.contains("/watch/") {
            // It would go on for ever.
            path.push_str("?revision=99999999");
        }
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let is_known = methods.get(method.to_lowercase()).is_some();
            let got = cluster.call(method, &path, &[], "{}").await;
            assert_eq!(got.status != 405, is_known, "{method} {path}");
        }
    }
    let n_paths = document["paths"].as_object().unwrap().len();
    assert_eq!(n_paths, 20);
}

#[tokio::test]
async fn the_client_lists_everything() {
    let cluster = Cluster::new();
    for n in 0..30 {
        cluster.put(&format!("u{n:02}.service"), SLEEP).await;
    }
    cluster.machine("m1", &[]).await;
    let (_directory, path) = socket::serve(&cluster);
    let client = socket::client(&path);
    assert_eq!(client.unit_views().await.unwrap().len(), 30);
    let page = client
        .unit_page(Some("u27.service"), None, 10)
        .await
        .unwrap();
    assert_eq!(names(&page), ["u28.service", "u29.service"]);
    assert_eq!(client.machine_views().await.unwrap().machines.len(), 1);
    assert_eq!(client.unit_view("nope.service").await.unwrap(), None);
    assert!(client.unit_view("u00.service").await.unwrap().is_some());
}

#[tokio::test]
async fn the_cluster_says_who_leads_and_what_is_damaged() {
    use fleet_api::v2::{ClusterView, DamageView, LeaderView};

    let cluster = Cluster::new();
    let of = |text: &str| -> ClusterView { serde_json::from_str(text).unwrap() };
    let (status, text) = cluster.shown("/fleet/v2/cluster").await;
    assert_eq!((status, of(&text).leader), (200, None));

    let leader = LeaderRecord {
        machine: MachineId::new("m1"),
        version: "1.2.3".into(),
        engine: 1,
        since_ms: 7,
    };
    cluster.write(keys::LEADER.into(), leader.encode()).await;
    cluster.put("good.service", SLEEP).await;
    cluster
        .write(keys::unit("bad.service"), b"{\"v\":1".to_vec())
        .await;
    cluster
        .write(keys::state("good.service", "m1"), b"nonsense".to_vec())
        .await;
    let (_, text) = cluster.shown("/fleet/v2/cluster").await;
    let view = of(&text);
    let expected = LeaderView {
        machine_id: "m1".into(),
        version: "1.2.3".into(),
        since_ms: 7,
    };
    assert_eq!((view.leader, view.damaged), (Some(expected), vec![]));
    let (_, text) = cluster.shown("/fleet/v2/cluster?check=true").await;
    let damaged = of(&text).damaged;
    let keys: Vec<&str> = damaged.iter().map(|damage| damage.key.as_str()).collect();
    assert_eq!(keys, ["states/good.service/m1", "units/bad.service"]);
    assert!(damaged.iter().all(|DamageView { why, .. }| !why.is_empty()));
    let (status, text) = cluster.shown("/fleet/v2/cluster?check=perhaps").await;
    assert_eq!(status, 400);
    assert!(text.contains("use true or false"), "{text}");
}
