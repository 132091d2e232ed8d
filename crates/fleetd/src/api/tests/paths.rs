//! Paths, methods, headers and what is served whatever happens.

use async_trait::async_trait;

use super::*;
use crate::store::{self, LeaseId, Snapshot, Watch};

#[tokio::test]
async fn every_path_and_method_answers_as_the_original() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    let machines = "only GET and PATCH supported against this resource";
    let get_only = "only GET supported against this resource";
    let unit = "only GET, PUT and DELETE supported against this resource";
    for base in ["/fleet/v1", "/v1-alpha"] {
        for (method, path, expected) in [
            ("GET", "/machines", (200, "{}".to_owned())),
            ("POST", "/machines", error(405, machines)),
            ("PUT", "/machines", error(405, machines)),
            ("HEAD", "/machines", error(405, machines)),
            ("OPTIONS", "/machines", error(405, machines)),
            ("DELETE", "/units", error(405, get_only)),
            ("POST", "/units", error(405, get_only)),
            ("POST", "/state", error(405, get_only)),
            ("PUT", "/state/a.service", error(405, get_only)),
            ("POST", "/units/a.service", error(405, unit)),
            ("PATCH", "/units/a.service", error(405, unit)),
            ("HEAD", "/units/a.service", error(405, unit)),
            (
                "POST",
                "/discovery",
                error(400, "only HTTP GET supported against this resource"),
            ),
            ("GET", "", error(405, "")),
            ("DELETE", "", error(405, "")),
            ("GET", "/", error(404, "")),
            ("GET", "/x", error(404, "")),
            ("GET", "/machines/x", error(404, "")),
            ("GET", "/machines/", error(404, "")),
            ("GET", "/units/", error(404, "")),
            ("GET", "/units/a/b", error(404, "")),
            ("GET", "/units/a%2Fb", error(404, "")),
            ("GET", "/state/", error(404, "")),
            ("GET", "/state/a/b", error(404, "")),
            ("GET", "/discovery/x", error(404, "")),
            (
                "GET",
                "/units/%zz",
                error(400, r#"invalid URL escape "%zz""#),
            ),
            (
                "GET",
                "/units/nope.service",
                error(404, "unit does not exist"),
            ),
            ("DELETE", "/units/nope", error(404, "unit does not exist")),
            (
                "GET",
                "/state/a.service",
                error(404, "unit state does not exist"),
            ),
        ] {
            let path = format!("{base}{path}");
            let got = cluster.call(method, &path, &[], "").await;
            let expected = match method {
                "HEAD" => (expected.0, String::new()),
                _ => expected,
            };
            assert_eq!((got.status, got.body), expected, "{method} {path}");
            assert_eq!(got.headers["content-type"], "application/json", "{path}");
            assert_eq!(got.headers["server"], "fleetd/v1.2.3", "{path}");
            let has_id = got.headers.contains_key("x-request-id");
            assert_eq!(has_id, got.status >= 400, "{path}");
        }
    }
    for (method, path, expected) in [
        ("GET", "/", error(405, "")),
        ("POST", "/", error(405, "")),
        ("GET", "/fleet", error(404, "")),
        ("GET", "/fleet/v3/units", error(404, "")),
        ("GET", "/metrics/", error(404, "")),
    ] {
        let got = cluster.call(method, path, &[], "").await;
        assert_eq!((got.status, got.body), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn unclean_paths_are_moved() {
    let cluster = Cluster::new();
    let got = cluster.get("//fleet/v1/units/../machines?a=1&b=2").await;
    assert_eq!(got.status, 301);
    assert_eq!(got.headers["location"], "/fleet/v1/machines?a=1&b=2");
    assert_eq!(got.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(
        got.body,
        "<a href=\"/fleet/v1/machines?a=1&amp;b=2\">Moved Permanently</a>.\n\n"
    );
    let got = cluster.call("PUT", "/fleet/v1//units/a", &[], "{}").await;
    assert_eq!((got.status, got.body.as_str()), (301, ""));
    assert_eq!(got.headers["location"], "/fleet/v1/units/a");
}

#[tokio::test]
async fn a_client_may_name_its_request() {
    let cluster = Cluster::new();
    let id = [("X-Request-Id", "mine-1")];
    let got = cluster.call("GET", "/fleet/v1/units/x", &id, "").await;
    assert_eq!(got.headers["x-request-id"], "mine-1");
    let bad = [("X-Request-Id", "with blanks")];
    let got = cluster.call("GET", "/fleet/v1/units/x", &bad, "").await;
    assert_ne!(got.headers["x-request-id"], "with blanks");
    let json = [("Content-Type", "application/json"), id[0]];
    for n in 0..2 {
        let body = format!(
            r#"{{"desiredState":"loaded",{}}}"#,
            &SLEEP[1..SLEEP.len() - 1]
        );
        let path = format!("/fleet/v1/units/a{n}.service");
        let got = cluster.call("PUT", &path, &json, &body).await;
        assert_eq!(got.status, 201);
    }
    // A client that uses one id for many requests is not taken for one that repeats itself.
    let ids = [
        cluster.wish("a0.service").await.request_id,
        cluster.wish("a1.service").await.request_id,
    ];
    assert!(ids.iter().all(|id| id.starts_with("mine-1.")), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn who_changed_a_unit_is_kept() {
    let cluster = Cluster::new();
    let mut request = Request::put("/fleet/v1/units/a.service")
        .header("Content-Type", "application/json")
        .body(Body::from(SLEEP))
        .unwrap();
    let uid = 1000;
    request
        .extensions_mut()
        .insert(crate::access::Caller::Unix {
            uid,
            gid: 0,
            pid: None,
        });
    assert_eq!(cluster.send(request).await.status(), 201);
    assert_eq!(cluster.wish("a.service").await.changed_by, "uid 1000");
}

/// A store that cannot be reached.
pub(super) struct Away;

#[async_trait]
impl Store for Away {
    async fn read(&self, _: Range) -> Result<Snapshot, store::Error> {
        Err(away())
    }
    async fn read_keys(&self, _: &[String]) -> Result<Snapshot, store::Error> {
        Err(away())
    }
    async fn watch(&self, _: &str, _: Revision) -> Result<Watch, store::Error> {
        Err(away())
    }
    async fn commit(&self, _: Txn) -> Result<Revision, store::Error> {
        Err(away())
    }
    async fn grant(
        &self,
        _: std::time::Duration,
    ) -> Result<(LeaseId, std::time::Duration), store::Error> {
        Err(away())
    }
    async fn keep_alive(&self, _: LeaseId) -> Result<std::time::Duration, store::Error> {
        Err(away())
    }
    async fn revoke(&self, _: LeaseId) -> Result<(), store::Error> {
        Err(away())
    }
    async fn compact(&self, _: Revision) -> Result<(), store::Error> {
        Err(away())
    }
    fn describe(&self) -> String {
        "nowhere".into()
    }
}

fn away() -> store::Error {
    store::Error::Unavailable("no etcd at http://10.0.0.1:2379".into())
}

#[tokio::test]
async fn without_a_store_requests_answer_503_and_metrics_and_discovery_go_on() {
    let mut cluster = Cluster::over(Arc::new(Away), 100);
    cluster.state = cluster
        .state
        .with_metrics(Arc::new(|| "fleet_engine_reconcile_count_total 1\n".into()));
    let json = [("Content-Type", "application/json")];
    for (method, path, body) in [
        ("GET", "/fleet/v1/machines", ""),
        (
            "PATCH",
            "/fleet/v1/machines",
            r#"[{"op":"remove","path":"/m/metadata/a"}]"#,
        ),
        ("GET", "/fleet/v1/units", ""),
        ("GET", "/fleet/v1/units/a.service", ""),
        ("PUT", "/fleet/v1/units/a.service", SLEEP),
        ("DELETE", "/fleet/v1/units/a.service", ""),
        ("GET", "/fleet/v1/state", ""),
        ("GET", "/v1-alpha/state/a.service", ""),
    ] {
        let got = cluster.call(method, path, &json, body).await;
        let expected = error(503, "fleet server unable to communicate with etcd");
        assert_eq!((got.status, got.body), expected, "{method} {path}");
        let reason = "199 fleet \"no etcd at http://10.0.0.1:2379\"";
        assert_eq!(got.headers["warning"], reason, "{method} {path}");
        assert!(!got.headers.contains_key("server"), "{path}");
        assert!(got.headers.contains_key("x-request-id"), "{path}");
    }
    // v2 has room for the reason.
    let (status, body) = cluster.shown("/fleet/v2/units").await;
    let message = "fleet server unable to communicate with etcd: no etcd at http://10.0.0.1:2379";
    assert_eq!(status, 503);
    assert!(body.contains(message), "{body}");
    check_always_served(&cluster).await;
}

async fn check_always_served(cluster: &Cluster) {
    for method in ["GET", "POST"] {
        let got = cluster.call(method, "/metrics", &[], "").await;
        assert_eq!(got.status, 200);
        assert_eq!(got.headers["content-type"], "text/plain; version=0.0.4");
        assert_eq!(got.body, "fleet_engine_reconcile_count_total 1\n");
    }
    for path in ["/fleet/v1/discovery", "/v1-alpha/discovery?alt=json"] {
        let got = cluster.get(path).await;
        assert_eq!(
            (got.status, got.body.as_str()),
            (200, fleet_api::discovery::DOCUMENT)
        );
        assert_eq!(got.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn requests_are_counted_by_what_they_ask_for() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    cluster.get("/fleet/v1/units/a.service").await;
    cluster.get("/v1-alpha/units/b.service").await;
    cluster.call("BREW", "/coffee", &[], "").await;
    cluster.get("/metrics").await;
    cluster.get("//metrics").await;
    let mut metrics = crate::metrics::Metrics::default();
    metrics.add(cluster.state.counters());
    let text = metrics.render();
    let requests: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("http_requests_total"))
        .collect();
    assert_eq!(
        requests,
        [
            r#"http_requests_total{code="301",handler="none",method="get"} 1"#,
            r#"http_requests_total{code="404",handler="none",method="unknown"} 1"#,
            r#"http_requests_total{code="200",handler="prometheus",method="get"} 1"#,
            r#"http_requests_total{code="200",handler="units",method="get"} 1"#,
            r#"http_requests_total{code="201",handler="units",method="put"} 1"#,
            r#"http_requests_total{code="404",handler="units",method="get"} 1"#,
        ]
    );
    let shown = cluster.get("/fleet/v1/units/a.service").await.body.len();
    let refused = error(404, "unit does not exist").1.len();
    let sizes = format!(
        "http_response_size_bytes_sum{{handler=\"units\"}} {}\n\
         http_response_size_bytes_count{{handler=\"units\"}} 3\n",
        shown + refused
    );
    assert!(text.contains(&sizes), "{sizes} in\n{text}");
}

#[tokio::test]
async fn a_length_that_is_only_claimed_spoils_no_counter() {
    let cluster = Cluster::new();
    let most = u64::MAX.to_string();
    for _ in 0..2 {
        let length = [("Content-Length", most.as_str())];
        let got = cluster
            .call("PUT", "/fleet/v1/units/a.service", &length, "")
            .await;
        assert_eq!(got.status, 415);
    }
    let mut metrics = crate::metrics::Metrics::default();
    metrics.add(cluster.state.counters());
    let text = metrics.render();
    let sum = text
        .lines()
        .find_map(|line| line.strip_prefix("http_request_size_bytes_sum{handler=\"units\"} "));
    let sum: f64 = sum.expect(&text).parse().unwrap();
    assert!(sum < 1e9, "{sum}");
}
