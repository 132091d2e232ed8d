//! Whatever is sent, there is an answer, and the store holds only what it should.

use proptest::prelude::*;

use super::*;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

fn methods() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "X"])
}

fn paths() -> impl Strategy<Value = String> {
    let bases = vec![
        "/fleet/v1/units/",
        "/fleet/v1/units",
        "/fleet/v1/machines",
        "/fleet/v1/state",
        "/v1-alpha/state/",
        "/fleet/v2/units",
        "/fleet/v2/units/",
        "/fleet/v2/machines",
        "/fleet/v2/machines/m1",
        "/fleet/v2/machines/m1/units",
        "/fleet/v2/nothing",
        "/",
    ];
    (prop::sample::select(bases), "[!$-;=@-_a-~?%/.]{0,20}")
        .prop_map(|(b, rest)| b.to_owned() + &rest)
}

/// JSON-like text, so that the bytes get past the first check.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        r#"[\[\]{}":,a-zA-Z0-9\\ ]{0,64}"#.prop_map(String::into_bytes),
        (
            "[ -~\n]{0,12}",
            "[ -~\n]{0,12}",
            "[ -~\n\\\\]{0,24}",
            "(inactive|loaded|launched|x|)"
        )
            .prop_map(|(section, name, value, desired)| serde_json::to_vec(
                &serde_json::json!({
                    "options": [{"section": section, "name": name, "value": value}],
                    "desiredState": desired,
                })
            )
            .unwrap()),
    ]
}

/// Operations of PATCH, most of them nearly right.
fn patches() -> impl Strategy<Value = Vec<u8>> {
    let op = prop::sample::select(vec!["add", "replace", "remove", "move", ""]);
    let path = prop_oneof!["/m[12]/(metadata|overrides)/[a-z._-]{0,3}", "[ -~é]{0,24}"];
    let value = prop_oneof![
        "[ -~é]{0,8}".prop_map(serde_json::Value::from),
        "[ -~é]{0,8}".prop_map(|value| serde_json::json!({"value": value})),
        Just(serde_json::Value::Null),
        Just(serde_json::json!([1])),
        Just(serde_json::json!({"value": {}})),
    ];
    let one = (op, path, value)
        .prop_map(|(op, path, value)| serde_json::json!({"op": op, "path": path, "value": value}));
    prop_oneof![
        prop::collection::vec(one, 0..4).prop_map(|ops| serde_json::to_vec(&ops).unwrap()),
        bodies(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_is_always_an_answer(method in methods(), path in paths(), body in bodies()) {
        run(async {
            let cluster = Cluster::new();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("Content-Type", "application/json")
                .body(Body::from(body));
            // Not everything is a URI.
            if let Ok(request) = request {
                let response = cluster.send(request).await;
                assert_ne!(response.status(), 500);
            }
        });
    }

    #[test]
    fn what_is_stored_can_be_read_back(body in bodies()) {
        run(async {
            let cluster = Cluster::new();
            let body = String::from_utf8_lossy(&body).into_owned();
            let created = cluster.put("a.service", &body).await.status == 201;
            let got = cluster.get("/fleet/v1/units/a.service").await;
            assert_eq!(got.status, if created { 200 } else { 404 });
            if created {
                // The same once more is no change of contents.
                let again = cluster.put("a.service", &got.body).await;
                assert_eq!(again.status, 204, "{}", got.body);
            }
        });
    }

    /// A patch is done as a whole or not at all, and what it did can be read back.
    #[test]
    fn a_patch_is_refused_without_a_trace_or_done(body in patches()) {
        run(async {
            let cluster = Cluster::new();
            cluster.machine("m1", &[("a", "own")]).await;
            let before = cluster.revision().await;
            let body = String::from_utf8_lossy(&body).into_owned();
            let got = cluster.call("PATCH", "/fleet/v1/machines", &[], &body).await;
            assert!(matches!(got.status, 204 | 400), "{got:?}");
            if got.status == 400 {
                assert_eq!(cluster.revision().await, before, "{body}");
            }
            let page: fleet_api::v1::MachinePage =
                serde_json::from_str(&cluster.get("/fleet/v1/machines").await.body).unwrap();
            let values = page.machines[0].metadata.values();
            assert!(values.into_iter().all(|value| !value.is_empty()));
        });
    }

    #[test]
    fn a_token_gives_a_page_or_a_refusal(
        token in prop_oneof!["[A-Za-z0-9_=-]{0,12}", "[ -~]{0,12}"],
        resource in prop::sample::select(vec!["machines", "units", "state"]),
    ) {
        run(async {
            let cluster = Cluster::over(MemoryStore::new(), 2);
            let encoded: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let path = format!("/fleet/v1/{resource}?nextPageToken={encoded}");
            let got = cluster.get(&path).await;
            assert!(matches!(got.status, 200 | 400), "{token}: {got:?}");
            // Written and read again it is the same page.
            if let Ok(read) = fleet_api::paging::PageToken::parse(&token, 2) {
                assert_eq!((got.status, got.body.as_str()), (200, "{}"), "{token}");
                assert_eq!(fleet_api::paging::PageToken::parse(&read.encode(), 2), Ok(read));
            } else {
                assert_eq!(got.status, 400, "{token}");
            }
        });
    }

    #[test]
    fn headers_of_any_kind_get_an_answer(
        name in prop::sample::select(vec![
            "Content-Type", "Content-Length", "Expect", "X-Request-Id", "User-Agent", "Host", "Accept",
        ]),
        values in prop::collection::vec(prop::collection::vec(0x20_u8..=0xff, 0..40), 0..3),
    ) {
        run(async {
            let cluster = Cluster::new();
            let mut request = Request::put("/fleet/v1/units/a.service");
            for value in &values {
                request = request.header(name, value.as_slice());
            }
            if let Ok(request) = request.body(Body::from(SLEEP)) {
                let status = cluster.send(request).await.status().as_u16();
                assert!(matches!(status, 201 | 413 | 415), "{name} {values:?}: {status}");
            }
        });
    }

    /// Whatever comes over the wire, the next client is served.
    #[test]
    fn bytes_that_are_no_request_disturb_nobody(
        cut in 0_usize..200,
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..6),
    ) {
        run(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let cluster = Cluster::new();
            let (_directory, path) = socket::serve(&cluster);
            let mut bytes = format!(
                "PUT /fleet/v1/units/a.service?alt=json HTTP/1.1\r\nHost: x\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{SLEEP}",
                SLEEP.len()
            )
            .into_bytes();
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            // fleetd may have hung up on it already.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
            read.expect("it ends, one way or another").ok();
            let client = socket::client(&path);
            client.units().await.unwrap();
        });
    }
}
