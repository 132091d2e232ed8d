//! Over a real unix socket: what hyper makes of our answers.

use fleet_api::client::{Client, Endpoint, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::*;
use crate::listen::{self, Door, Listener};

/// Serves a cluster as fleetd does, on a socket in a directory of its own.
pub(super) fn serve(cluster: &Cluster) -> (tempfile::TempDir, std::path::PathBuf) {
    serve_router(router(cluster.state.clone()))
}

fn serve_router(router: axum::Router) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleet.sock");
    let listener = Listener::Unix(UnixListener::bind(&path).unwrap());
    let (stop, shutdown) = watch::channel(false);
    tokio::spawn(async move {
        listen::serve(vec![listener], router, Door::default(), shutdown).await;
        drop(stop);
    });
    (directory, path)
}

pub(super) fn client(path: &std::path::Path) -> Client {
    Client::new(Endpoint::Unix(path.to_owned()))
}

/// Sends bytes and reads the head and body of one answer.
async fn exchange(stream: &mut UnixStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n") {
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| Some(line.strip_prefix("content-length: ")?.parse().unwrap()))
                .unwrap_or(0);
            if body.len() >= length {
                return whole;
            }
        }
        let n = stream.read(&mut chunk).await.unwrap();
        assert_ne!(n, 0, "the connection ended after {whole:?}");
        text.extend_from_slice(&chunk[..n]);
    }
}

#[tokio::test]
async fn the_clients_methods_work_end_to_end() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[("a", "b")]).await;
    let (_directory, path) = serve(&cluster);
    let client = client(&path);
    assert_eq!(client.machines().await.unwrap()[0].id, "m1");
    let unit = fleet_api::v1::Unit {
        options: vec![fleet_api::v1::UnitOption {
            section: "Service".into(),
            name: "ExecStart".into(),
            value: "/bin/true".into(),
        }],
        ..Default::default()
    };
    assert!(client.put_unit("a@1.service", &unit).await.unwrap().created);
    client
        .set_desired_state("a@1.service", "launched")
        .await
        .unwrap();
    let shown = client.unit("a@1.service").await.unwrap().unwrap();
    assert_eq!(
        (shown.desired_state.as_str(), shown.options),
        ("launched", unit.options)
    );
    assert_eq!(client.units().await.unwrap().len(), 1);
    assert_eq!(client.states().await.unwrap(), []);
    assert_eq!(client.state("a@1.service").await.unwrap(), None);
    client.delete_unit("a@1.service").await.unwrap();
    assert_eq!(client.unit("a@1.service").await.unwrap(), None);
    let again = client.delete_unit("a@1.service").await.unwrap_err();
    assert_eq!(
        again.original_form(),
        "googleapi: Error 404: unit does not exist"
    );
    let Error::Answer { request_id, .. } = again else {
        panic!("an answer");
    };
    assert!(!request_id.is_empty());
}

#[tokio::test]
async fn a_created_unit_answers_as_the_originals_sample() {
    let cluster = Cluster::new();
    let (_directory, path) = serve(&cluster);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request = format!(
        "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{SLEEP}",
        SLEEP.len()
    );
    let answer = exchange(&mut stream, request.as_bytes()).await;
    let mut lines: Vec<_> = answer
        .lines()
        .filter(|l| !l.starts_with("Date: "))
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "",
            "Content-Length: 0",
            "HTTP/1.1 201 Created",
            "Server: fleetd/v1.2.3"
        ]
    );
    assert!(answer.contains("\r\nDate: "));
}

#[tokio::test]
async fn a_body_that_is_too_large_gets_an_answer_and_the_connection_goes_on() {
    let cluster = Cluster::new();
    let (_directory, path) = serve(&cluster);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let size = 10 << 20;
    for head in [
        format!("Content-Length: {size}\r\n\r\n"),
        format!("Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"),
    ] {
        let is_chunked = head.contains("chunked");
        let mut request = format!(
            "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}"
        )
        .into_bytes();
        request.resize(request.len() + size, b' ');
        if is_chunked {
            request.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        let answer = exchange(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(
            answer.ends_with(
                r#"{"error":{"code":413,"message":"request body too large (max 2097152 bytes)"}}"#
            ),
            "{answer}"
        );
    }
    // Nor does a body that nobody wants disturb what follows.
    let mut request =
        format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    request.resize(request.len() + size, b' ');
    let answer = exchange(&mut stream, &request).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = exchange(
        &mut stream,
        b"GET /fleet/v1/units HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
}

#[tokio::test]
async fn a_head_request_has_no_body() {
    let cluster = Cluster::new();
    let (_directory, path) = serve(&cluster);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"HEAD /fleet/v1/units HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

/// Sends bytes that end with `Connection: close`; everything that comes back, without dates.
async fn conversation(path: &std::path::Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let lines: Vec<_> = answer
        .split("\r\n")
        .filter(|line| !line.starts_with("Date: "))
        .collect();
    lines.join("\n")
}

#[tokio::test]
async fn answers_have_the_originals_headers_in_its_spelling() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    let (_directory, path) = serve(&cluster);
    let request = "GET /fleet/v1/units?alt=json HTTP/1.1\r\nHost: x\r\n\r\n\
        PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Content-Length: 25\r\n\r\n{\"desiredState\":\"loaded\"}\
        PATCH /fleet/v1/machines HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        1\r\n[\r\n1\r\n]\r\n0\r\n\r\n\
        DELETE /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let unit = format!(
        r#"{{"units":[{{"currentState":"inactive","desiredState":"inactive","name":"a.service",{SLEEP_OPTIONS}}}]}}"#
    );
    // Four requests at once on one connection, answered in order.
    assert_eq!(
        conversation(&path, request.as_bytes()).await,
        format!(
            "HTTP/1.1 200 OK\nContent-Type: application/json\nServer: fleetd/v1.2.3\n\
             Content-Length: {}\n\n{unit}\
             HTTP/1.1 204 No Content\nServer: fleetd/v1.2.3\n\n\
             HTTP/1.1 204 No Content\nContent-Type: application/json\nServer: fleetd/v1.2.3\n\n\
             HTTP/1.1 204 No Content\nServer: fleetd/v1.2.3\nConnection: close\n\n",
            unit.len()
        )
    );
}

#[tokio::test]
async fn a_client_of_http_1_0_is_answered() {
    let cluster = Cluster::new();
    let (_directory, path) = serve(&cluster);
    assert_eq!(
        conversation(&path, b"GET /fleet/v1/units HTTP/1.0\r\n\r\n").await,
        "HTTP/1.0 200 OK\nContent-Type: application/json\nServer: fleetd/v1.2.3\nContent-Length: 2\n\n{}"
    );
}

#[tokio::test]
async fn who_has_nothing_more_to_say_is_answered() {
    // An answer that is not there at once, as when etcd is asked.
    let late = axum::routing::get(async || {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        "late"
    });
    let (_directory, path) = serve_router(axum::Router::new().route("/", late));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    // As `printf … | nc -N -U /run/fleet.sock` and fd-forward do at the end of their input.
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    assert!(answer.ends_with("late"), "{answer:?}");
}

#[tokio::test]
async fn who_asks_before_sending_a_body_is_told_to_go_on_or_gets_the_refusal_at_once() {
    let cluster = Cluster::new();
    let (_directory, path) = serve(&cluster);
    let head = |content_type: &str| {
        format!(
            "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            SLEEP.len()
        )
    };
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let refused = exchange(&mut stream, head("text/plain").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 415 "), "{refused}");
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let go_on = exchange(&mut stream, head("application/json").as_bytes()).await;
    assert_eq!(go_on, "HTTP/1.1 100 Continue\r\n\r\n");
    let created = exchange(&mut stream, SLEEP.as_bytes()).await;
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"), "{created}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let cluster = Cluster::new();
    let (_directory, path) = serve(&cluster);
    let head = |header_size: usize, n_headers: usize| {
        let headers: String = (0..n_headers)
            .map(|n| format!("X-{n}: {}\r\n", "x".repeat(header_size)))
            .collect();
        format!("GET /fleet/v1/units HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n")
    };
    let fine = conversation(&path, head(1000, 50).as_bytes()).await;
    assert!(fine.starts_with("HTTP/1.1 200 OK\n"), "{fine}");
    let large = conversation(&path, head(70_000, 1).as_bytes()).await;
    assert!(large.starts_with("HTTP/1.1 431 "), "{large}");
    let message = r#"{"error":{"code":431,"message":"request head too large (max 65536 bytes)"}}"#;
    assert!(large.ends_with(message), "{large}");
    let many = conversation(&path, head(1, 200).as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
    let target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(65_600));
    let long = conversation(&path, target.as_bytes()).await;
    assert!(long.starts_with("HTTP/1.1 414 "), "{long}");
    let garbage = conversation(&path, b"no http at all\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
}
