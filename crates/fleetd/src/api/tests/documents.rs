//! COMPATIBILITY.md says of every request, status and message what it is.

use super::*;
use crate::api::path::{Route, V1, route};

const COMPATIBILITY: &str = include_str!("../../../../../COMPATIBILITY.md");

/// The rows of a table below "HTTP API", as cells; none of them is blank.
fn rows(title: &str) -> Vec<Vec<String>> {
    let api = COMPATIBILITY.split("\n## HTTP API\n").nth(1).unwrap();
    let api = api.split("\n## ").next().unwrap();
    let table = api.split(&format!("\n### {title}\n")).nth(1).unwrap();
    let table = table.split("\n### ").next().unwrap();
    let lines = table.lines().filter(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = lines
        .skip(2)
        .map(|line| {
            let row = line.strip_prefix("| ").and_then(|l| l.strip_suffix(" |"));
            let row = row.unwrap_or_else(|| panic!("a row: {line}"));
            row.split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "{title}");
    for row in &rows {
        assert_eq!(row.len(), rows[0].len(), "{title}: {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{title}: {row:?}");
    }
    rows
}

/// How a resource stands in the table. A new one does not compile without its name.
fn shown(resource: &V1) -> &'static str {
    match resource {
        V1::Machines => "/machines",
        V1::Units => "/units",
        V1::Unit(_) => "/units/{name}",
        V1::States => "/state",
        V1::State(_) => "/state/{name}",
        V1::Discovery => "/discovery",
    }
}

#[tokio::test]
async fn every_request_that_is_served_has_its_row() {
    let cluster = Cluster::new();
    let paths = [
        "/fleet/v1/machines",
        "/fleet/v1/units",
        "/fleet/v1/units/a.service",
        "/fleet/v1/state",
        "/fleet/v1/state/a.service",
        "/fleet/v1/discovery",
    ];
    let mut served = Vec::new();
    for path in paths {
        let Route::V1(resource) = route(path) else {
            panic!("{path} is one of v1");
        };
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
            let got = cluster.call(method, path, &[], "").await;
            if got.status != 405 && !got.body.contains("only HTTP GET supported") {
                served.push(format!("`{method} {}`", shown(&resource)));
            }
        }
    }
    // HEAD has no body to be told by.
    served.retain(|request| request != "`HEAD /discovery`");
    let in_table: Vec<String> = rows("Endpoints")
        .into_iter()
        .map(|mut row| row.remove(0))
        .filter(|request| {
            ["GET", "PUT", "PATCH", "DELETE"]
                .iter()
                .any(|method| request.starts_with(&format!("`{method} /")))
        })
        .collect();
    let sorted = |mut requests: Vec<String>| {
        requests.sort();
        requests
    };
    assert_eq!(sorted(in_table), sorted(served));
}

#[tokio::test]
async fn every_message_has_its_row_and_every_row_is_a_message() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    cluster.put("t@.service", SLEEP).await;
    let get = |path: &str| ("GET", path.to_owned(), String::new());
    let put = |name: &str, body: &str| ("PUT", format!("/fleet/v1/units/{name}"), body.to_owned());
    let patch = |body: &str| ("PATCH", "/fleet/v1/machines".to_owned(), body.to_owned());
    let page = |token: &str| get(&format!("/fleet/v1/units?nextPageToken={token}"));
    let both = body(
        &[("X-Fleet", "MachineID", "a"), ("X-Fleet", "Global", "true")],
        "",
    );
    let requests = [
        page("!"),
        page(""),
        page("ZAAC"),
        page("ZQACAA=="),
        page("ZAAAAA=="),
        page("ZAACAA==&nextPageToken=x"),
        ("POST", "/fleet/v1/discovery".into(), String::new()),
        put("a.service", ""),
        put("a.service", r#"{"name":"b.service"}"#),
        put("a.bogus", "{}"),
        put("a.service", &both),
        put("t@.service", r#"{"desiredState":"launched"}"#),
        put("a.service", r#"{"desiredState":"x"}"#),
        put("b.service", "{}"),
        put("a.service", "{}"),
        put("a.service", &" ".repeat(3 << 20)),
        patch("garbage"),
        patch("{}"),
        patch(r#"[{"op":"move"}]"#),
        patch(r#"[{"op":"remove","path":"/x"}]"#),
        patch(r#"[{"op":"add","path":"/m/metadata/a"}]"#),
        patch(&format!(
            r#"[{{"op":"add","path":"/m/metadata/a","value":"{}"}}]"#,
            "x".repeat(65_536)
        )),
        get("/fleet/v1/units/%zz"),
        get("/nowhere"),
        get("/fleet/v1/units/nope.service"),
        get("/fleet/v1/state/nope.service"),
        get("/"),
        ("POST", "/fleet/v1/machines".into(), String::new()),
        ("POST", "/fleet/v1/units".into(), String::new()),
        ("POST", "/fleet/v1/units/a.service".into(), String::new()),
    ];
    let mut answers = Vec::new();
    let json = [("Content-Type", "application/json")];
    for (method, path, body) in &requests {
        answers.push(cluster.call(method, path, &json, body).await);
    }
    let text = [("Content-Type", "text/plain")];
    for headers in [&[][..], &text] {
        let path = "/fleet/v1/units/a.service";
        answers.push(cluster.call("PUT", path, headers, "{}").await);
    }
    let large = "x".repeat(65_536);
    let large = [("X-Large", large.as_str())];
    answers.push(cluster.call("GET", "/", &large, "").await);
    let away = Cluster::over(Arc::new(super::paths::Away), 100);
    answers.push(away.get("/fleet/v1/units").await);

    let mut sent: Vec<String> = answers
        .iter()
        .map(|got| {
            let body: fleet_api::error::ErrorBody = serde_json::from_str(&got.body).unwrap();
            let message = match body.error.message.as_str() {
                "" => "*(empty)*".to_owned(),
                message => format!("`{message}`"),
            };
            format!("{} {message}", got.status)
        })
        .collect();
    sent.sort();
    sent.dedup();
    let mut told: Vec<String> = rows("Errors")
        .into_iter()
        .map(|row| format!("{} {}", row[0], row[1]))
        // Not to be had from a store that works and from a request alone.
        .filter(|row| {
            !["403 ", "500 ", "507 ", "409 `others "]
                .iter()
                .any(|p| row.starts_with(p))
        })
        .collect();
    told.sort();
    assert_eq!(told, sent);
}

#[test]
fn no_row_of_the_other_tables_is_blank() {
    for title in [
        "Headers and connections",
        "Entities",
        "PUT",
        "PATCH",
        "Paging",
        "When etcd is away",
        "Sockets",
    ] {
        let rows = rows(title);
        assert!(rows.iter().all(|row| row.len() >= 3), "{title}");
    }
}
