//! Paging: tokens, ends, and what changes between pages.

use super::*;

async fn names(cluster: &Cluster, path: &str) -> (Vec<String>, String) {
    let got = cluster.get(path).await;
    assert_eq!(got.status, 200, "{got:?}");
    let page: fleet_api::v1::UnitPage = serde_json::from_str(&got.body).unwrap();
    let names = page.units.into_iter().map(|unit| unit.name).collect();
    (names, page.next_page_token)
}

#[tokio::test]
async fn bad_tokens_are_refused_on_every_listing() {
    let cluster = Cluster::new();
    for (query, message) in [
        ("nextPageToken=!", "illegal base64 data at input byte 0"),
        ("nextPageToken=", "EOF"),
        ("nextPageToken=ZAAC", "unexpected EOF"),
        ("nextPageToken=ZQACAA%3D%3D", "token limit must be 100"),
        (
            "nextPageToken=ZAAAAA==",
            "token page must be greater than zero",
        ),
        (
            "nextPageToken=ZAACAA==&nextPageToken=ZAACAA==",
            "too many values for page token",
        ),
    ] {
        for resource in ["machines", "units", "state"] {
            let path = format!("/fleet/v1/{resource}?alt=json&{query}");
            assert_eq!(cluster.shown(&path).await, error(400, message), "{path}");
        }
    }
}

#[tokio::test]
async fn pages_end_where_the_units_end() {
    let cluster = Cluster::over(MemoryStore::new(), 2);
    for name in ["a", "b", "c", "d", "e"] {
        cluster.put(&format!("{name}.service"), SLEEP).await;
    }
    let first = names(&cluster, "/fleet/v1/units").await;
    assert_eq!(
        first,
        (
            vec!["a.service".into(), "b.service".into()],
            "AgACAA==".into()
        )
    );
    let second = names(&cluster, "/fleet/v1/units?nextPageToken=AgACAA==").await;
    assert_eq!(
        second,
        (
            vec!["c.service".into(), "d.service".into()],
            "AgADAA==".into()
        )
    );
    let third = names(&cluster, "/fleet/v1/units?nextPageToken=AgADAA==").await;
    assert_eq!(third, (vec!["e.service".into()], String::new()));
    let past = cluster
        .shown("/fleet/v1/units?nextPageToken=AgAJAA==")
        .await;
    assert_eq!(past, (200, "{}".into()));
    // A full last page is the last one.
    cluster
        .call("DELETE", "/fleet/v1/units/e.service", &[], "")
        .await;
    let second = names(&cluster, "/fleet/v1/units?nextPageToken=AgACAA==").await;
    assert_eq!(second.1, "");
}

#[tokio::test]
async fn a_page_is_found_by_its_number_alone() {
    let cluster = Cluster::over(MemoryStore::new(), 2);
    for n in 0..9 {
        cluster.put(&format!("u{n}.service"), SLEEP).await;
    }
    cluster
        .call("DELETE", "/fleet/v1/units/u0.service", &[], "")
        .await;
    cluster
        .write(keys::unit("u2.service"), b"damaged".to_vec())
        .await;
    let third = names(&cluster, "/fleet/v1/units?nextPageToken=AgADAA==").await;
    assert_eq!(third.0, ["u6.service", "u7.service"]);
}

#[tokio::test]
async fn nothing_is_missed_or_doubled_when_units_come_and_go_between_pages() {
    let cluster = Cluster::over(MemoryStore::new(), 2);
    for name in ["b", "c", "d", "e"] {
        cluster.put(&format!("{name}.service"), SLEEP).await;
    }
    let (first, token) = names(&cluster, "/fleet/v1/units").await;
    assert_eq!(first, ["b.service", "c.service"]);
    cluster.put("a.service", SLEEP).await;
    let (second, _) = names(&cluster, &format!("/fleet/v1/units?nextPageToken={token}")).await;
    assert_eq!(second, ["d.service", "e.service"]);
    cluster
        .call("DELETE", "/fleet/v1/units/b.service", &[], "")
        .await;
    let (second, _) = names(&cluster, &format!("/fleet/v1/units?nextPageToken={token}")).await;
    assert_eq!(second, ["d.service", "e.service"]);
}

#[tokio::test]
async fn machines_and_states_are_paged() {
    let cluster = Cluster::over(MemoryStore::new(), 2);
    for machine in ["m1", "m2", "m3"] {
        cluster.machine(machine, &[]).await;
        let running = state(
            Decision::default(),
            Reached::Launched,
            "loaded/active/running",
        );
        cluster.report("g.service", machine, running).await;
    }
    let (_, first) = cluster.shown("/fleet/v1/machines").await;
    assert_eq!(
        first,
        r#"{"machines":[{"id":"m1","primaryIP":"10.0.0.2"},{"id":"m2","primaryIP":"10.0.0.2"}],"nextPageToken":"AgACAA=="}"#
    );
    let (_, second) = cluster
        .shown("/fleet/v1/machines?nextPageToken=AgACAA==")
        .await;
    assert_eq!(
        second,
        r#"{"machines":[{"id":"m3","primaryIP":"10.0.0.2"}]}"#
    );
    let (_, first) = cluster.shown("/fleet/v1/state").await;
    let first: fleet_api::v1::UnitStatePage = serde_json::from_str(&first).unwrap();
    assert_eq!(
        (first.states.len(), first.next_page_token.as_str()),
        (2, "AgACAA==")
    );
    let (_, second) = cluster
        .shown("/fleet/v1/state?nextPageToken=AgACAA==")
        .await;
    let second: fleet_api::v1::UnitStatePage = serde_json::from_str(&second).unwrap();
    assert_eq!(second.states.len(), 1);
    // Filtered before it is paged.
    let (_, third) = cluster.shown("/fleet/v1/state?machineID=m3").await;
    let third: fleet_api::v1::UnitStatePage = serde_json::from_str(&third).unwrap();
    assert_eq!(
        (third.states.len(), third.next_page_token.as_str()),
        (1, "")
    );
}
