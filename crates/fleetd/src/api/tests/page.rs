//! The page's files, and what a browser may ask for.

use super::*;

#[tokio::test]
async fn the_page_and_all_that_it_names_is_served_and_nothing_else_is_let_in() {
    let cluster = Cluster::new();
    let page = cluster.get("/ui/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");

    // Every file that it names, and that these name, is there; none is elsewhere.
    let mut wanted = vec!["".to_owned()];
    let mut n_seen = 0;
    while let Some(name) = wanted.get(n_seen).cloned() {
        let file = cluster.get(&format!("/ui/{name}")).await;
        assert_eq!(file.status, 200, "{name}");
        assert!(!file.body.contains("://") || name == "icon.svg", "{name}");
        for (start, end) in [
            ("src=\"", '"'),
            ("rel=\"icon\" href=\"", '"'),
            ("rel=\"stylesheet\" href=\"", '"'),
            ("from \"./", '"'),
        ] {
            for rest in file.body.split(start).skip(1) {
                let named = rest.split(end).next().unwrap().to_owned();
                if !wanted.contains(&named) {
                    wanted.push(named);
                }
            }
        }
        n_seen += 1;
    }
    assert_eq!(n_seen, crate::api::page::n_assets(), "{wanted:?}");
    assert_eq!(cluster.get("/ui/nothing.js").await.status, 404);
    assert_eq!(cluster.post("/ui/", "").await.status, 405);
    let moved = cluster.get("/ui").await;
    assert_eq!(
        (moved.status, &moved.headers["location"]),
        (301, &"/ui/".parse().unwrap())
    );
}

#[tokio::test]
async fn a_browser_is_led_from_the_root_to_the_page_and_others_are_refused_as_ever() {
    let cluster = Cluster::new();
    let html = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let got = cluster.call("GET", "/", &html, "").await;
    assert_eq!(
        (got.status, &got.headers["location"]),
        (302, &"/ui/".parse().unwrap())
    );
    for (method, headers) in [
        ("GET", &[][..]),
        ("GET", &[("Accept", "*/*")]),
        ("POST", &html),
    ] {
        let got = cluster.call(method, "/", headers, "").await;
        assert_eq!(got.status, 405, "{method} {headers:?}");
    }
}

#[tokio::test]
async fn what_another_sites_page_asks_for_is_refused_and_changes_nothing() {
    let cluster = Cluster::new();
    let batch = r#"{"requestId":"r","units":[{"name":"a.service","text":"[Service]\nExecStart=/bin/true\n"}]}"#;
    let host = ("Host", "localhost:8080");
    for headers in [
        [host, ("Origin", "https://evil.example")],
        [host, ("Sec-Fetch-Site", "cross-site")],
        [
            ("Host", "evil.example:8080"),
            ("Origin", "http://evil.example:8080"),
        ],
    ] {
        for (method, path) in [
            ("POST", "/fleet/v2/units"),
            ("GET", "/fleet/v1/units"),
            ("GET", "/ui/"),
        ] {
            let got = cluster.call(method, path, &headers, batch).await;
            assert_eq!(got.status, 403, "{method} {path} {headers:?}");
        }
    }
    assert_eq!(cluster.get("/fleet/v2/units/a.service").await.status, 404);
    let own = [host, ("Origin", "http://localhost:8080")];
    let got = cluster.call("POST", "/fleet/v2/units", &own, batch).await;
    assert_eq!(got.status, 200, "{}", got.body);
}
