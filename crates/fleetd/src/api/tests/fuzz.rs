//! Whatever is sent, there is an answer, and the store holds only what it should.

use proptest::prelude::*;

use super::*;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

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
}
