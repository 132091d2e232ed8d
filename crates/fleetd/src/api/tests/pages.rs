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

#[tokio::test(start_paused = true)]
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
    // A document that can be read, with a unit file that cannot.
    let no_file = wish("[Service", DesiredState::Inactive);
    cluster
        .write(keys::unit("u3.service"), no_file.encode())
        .await;
    let (first, _) = names(&cluster, "/fleet/v1/units").await;
    assert_eq!(first, ["u1.service", "u4.service"]);
    // Boundaries that were remembered are forgotten by then.
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    let third = names(&cluster, "/fleet/v1/units?nextPageToken=AgADAA==").await;
    assert_eq!(
        third,
        (
            vec!["u7.service".into(), "u8.service".into()],
            String::new()
        )
    );
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

/// A page as a client that is known by its process gets it: what it lists, and the next token.
async fn page_of(
    cluster: &Cluster,
    pid: i32,
    resource: &str,
    token: &str,
) -> (Vec<String>, String) {
    let query = match token {
        "" => String::new(),
        token => format!("?nextPageToken={token}"),
    };
    let mut request = Request::get(format!("/fleet/v1/{resource}{query}"))
        .body(Body::empty())
        .unwrap();
    let (uid, pid) = (0, Some(pid));
    request
        .extensions_mut()
        .insert(crate::access::Caller::Unix { uid, gid: 0, pid });
    let body = cluster.send(request).await.into_body();
    let body = body.collect().await.unwrap().to_bytes();
    let page: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let items = page.get(resource).or(page.get("states"));
    let items = items.and_then(serde_json::Value::as_array);
    let text = |item: &serde_json::Value, key: &str| {
        item.get(key)
            .and_then(|v| v.as_str())
            .unwrap_or("")
            .to_owned()
    };
    let ids = items.into_iter().flatten().map(|item| match resource {
        "machines" => text(item, "id"),
        "units" => text(item, "name"),
        _ => format!("{} {}", text(item, "name"), text(item, "machineID")),
    });
    (ids.collect(), text(&page, "nextPageToken"))
}

async fn all_pages(cluster: &Cluster, pid: i32, resource: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let (page, next) = page_of(cluster, pid, resource, &token).await;
        assert!(page.len() <= 2);
        all.extend(page);
        if next.is_empty() {
            return all;
        }
        token = next;
    }
}

#[tokio::test]
async fn a_clients_listing_is_one_snapshot_whatever_happens_meanwhile() {
    let running = || {
        let none = Decision::default();
        state(none, Reached::Launched, "loaded/active/running")
    };
    for (resource, suffix) in [("machines", ""), ("units", ""), ("state", " m1")] {
        for is_compacted in [false, true] {
            let cluster = Cluster::over(MemoryStore::new(), 2);
            let name = |n: &str| match resource {
                "machines" => n.to_owned(),
                _ => format!("{n}.service"),
            };
            let add = async |n: &str| match resource {
                "machines" => cluster.machine(n, &[]).await,
                "units" => assert_eq!(cluster.put(&name(n), SLEEP).await.status, 201),
                _ => cluster.report(&name(n), "m1", running()).await,
            };
            let key = |n: &str| match resource {
                "machines" => keys::machine(n),
                "units" => keys::unit(&name(n)),
                _ => keys::state(&name(n), "m1"),
            };
            let shown = |names: &[&str]| -> Vec<String> {
                names.iter().map(|n| name(n) + suffix).collect()
            };
            for n in ["b", "c", "d", "e", "f"] {
                add(n).await;
            }
            let (first, token) = page_of(&cluster, 1, resource, "").await;
            assert_eq!(first, shown(&["b", "c"]), "{resource}");
            add("a").await;
            cluster.remove(key("d")).await;
            if is_compacted {
                let newest = cluster.revision().await;
                cluster.store.compact(newest).await.unwrap();
            }
            // Another client sees what there is now, and does not disturb the first one.
            let now = shown(&["a", "b", "c", "e", "f"]);
            assert_eq!(all_pages(&cluster, 2, resource).await, now, "{resource}");
            let (second, token) = page_of(&cluster, 1, resource, &token).await;
            let expected = match is_compacted {
                false => shown(&["d", "e"]),
                // Without its history the listing goes on from where it was.
                true => shown(&["e", "f"]),
            };
            assert_eq!(second, expected, "{resource}");
            assert_eq!(token.is_empty(), is_compacted, "{resource}");
            if !token.is_empty() {
                let (third, token) = page_of(&cluster, 1, resource, &token).await;
                assert_eq!((third, token.as_str()), (shown(&["f"]), ""), "{resource}");
            }
            assert_eq!(all_pages(&cluster, 1, resource).await, now, "{resource}");
        }
    }
}

#[tokio::test]
async fn states_are_in_order_over_pages_whatever_the_names() {
    // The keys of those that begin with another one's name come before that one's.
    let units = [
        "a.service",
        "a.service-b.service",
        "a.service-b.service-c.service",
        "a.service.service",
        "ab.service",
        "b.service",
        "b.service-1.service",
    ];
    for token_limit in 1..=5 {
        let cluster = Cluster::over(MemoryStore::new(), token_limit);
        let mut expected = Vec::new();
        for unit in units {
            for machine in ["m1", "m2", "m3"] {
                let none = Decision::default();
                let running = state(none, Reached::Launched, "loaded/active/running");
                cluster.report(unit, machine, running).await;
                expected.push(format!("{unit} {machine}"));
            }
        }
        for client in [1, 2] {
            let mut all = Vec::new();
            let mut token = String::new();
            loop {
                let (page, next) = page_of(&cluster, client, "state", &token).await;
                all.extend(page);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            assert_eq!(all, expected, "{token_limit} in a page");
        }
        // By number alone.
        let got = cluster
            .get(&format!("/fleet/v1/state?machineID=m2&nextPageToken={}", {
                let page = 2;
                let limit = token_limit;
                fleet_api::paging::PageToken { limit, page }.encode()
            }))
            .await;
        let page: fleet_api::v1::UnitStatePage = serde_json::from_str(&got.body).unwrap();
        let names: Vec<_> = page.states.iter().map(|s| s.name.as_str()).collect();
        let limit = usize::from(token_limit);
        let expected: Vec<_> = units.into_iter().skip(limit).take(limit).collect();
        assert_eq!(names, expected);
    }
}
