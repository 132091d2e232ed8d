//! The client against a scripted server.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

mod rows;

use super::*;
use crate::v1::MetadataOp;
use crate::v2::{BatchRequest, UnitWish, WaitFor, WaitRequest};

/// Answers the n-th request with the n-th text; the connection is closed after `close`.
struct Script {
    answers: Arc<Mutex<Vec<&'static str>>>,
    requests: mpsc::UnboundedSender<String>,
}

const CLOSE: &str = "";

/// At the end of an answer: there the connection is closed.
const CUT: &str = "<cut>";

impl Dial for Script {
    fn dial(&self) -> Dialing<'_> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let _ = self.requests.send("dial".to_owned());
        tokio::spawn(serve(
            theirs,
            Arc::clone(&self.answers),
            self.requests.clone(),
        ));
        Box::pin(async { Ok(Box::new(ours) as Box<dyn ByteStream>) })
    }

    fn describe(&self) -> String {
        "dial script".to_owned()
    }
}

async fn serve(
    mut stream: DuplexStream,
    answers: Arc<Mutex<Vec<&'static str>>>,
    requests: mpsc::UnboundedSender<String>,
) {
    let mut text = String::new();
    let mut chunk = [0; 4096];
    loop {
        let n = stream.read(&mut chunk).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        text.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if body.len() < length {
            continue;
        }
        let first = head.lines().next().unwrap_or_default().to_owned();
        let _ = requests.send(format!("{first} {body}").trim_end().to_owned());
        text.clear();
        let answer = {
            let mut answers = lock(&answers);
            if answers.is_empty() {
                CLOSE
            } else {
                answers.remove(0)
            }
        };
        if answer == CLOSE {
            return;
        }
        let is_cut = answer.ends_with(CUT);
        let answer = answer.trim_end_matches(CUT);
        if stream.write_all(answer.as_bytes()).await.is_err() || is_cut {
            return;
        }
    }
}

fn client(answers: &[&'static str]) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (requests, seen) = mpsc::unbounded_channel();
    let script = Script {
        answers: Arc::new(Mutex::new(answers.to_vec())),
        requests,
    };
    let endpoint = Endpoint::parse("unix:///run/fleet.sock").unwrap();
    (Client::with_dial(endpoint, Arc::new(script)), seen)
}

fn seen(requests: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| requests.try_recv().ok()).collect()
}

/// An answer whose body comes in these chunks.
fn http(status: &str, chunks: &[&str]) -> &'static str {
    let mut text =
        format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nX-Request-Id: r-7\r\n\r\n");
    for chunk in chunks.iter().chain([&""]) {
        text.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    text.leak()
}

#[tokio::test]
async fn pages_are_followed_on_one_connection() {
    let (client, mut requests) = client(&[
        http(
            "200 OK",
            &["{\"machines\":[{\"id\":\"a\"}],\"nextPageToken\":\"ZAACAA==\"}"],
        ),
        http("200 OK", &["{\"machines\":[{\"id\":\"b\"}]}  "]),
        http("200 OK", &["{}"]),
    ]);
    let machines = client.machines().await.unwrap();
    assert_eq!(machines.len(), 2);
    assert!(
        client
            .states_where(Some("a b.service"), Some("m"))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        seen(&mut requests),
        [
            "dial",
            "GET /fleet/v1/machines HTTP/1.1",
            "GET /fleet/v1/machines?nextPageToken=ZAACAA%3D%3D HTTP/1.1",
            "GET /fleet/v1/state?unitName=a%20b.service&machineID=m HTTP/1.1",
        ]
    );
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let (client, mut requests) = client(&[http("200 OK", &["{}"]), CLOSE, http("200 OK", &["{}"])]);
    client.units().await.unwrap();
    client.units().await.unwrap();
    let dials = seen(&mut requests).iter().filter(|r| *r == "dial").count();
    assert_eq!(dials, 2);
}

#[tokio::test]
async fn a_fresh_connection_that_is_closed_is_an_error() {
    let (client, _requests) = client(&[CLOSE]);
    let error = client.units().await.unwrap_err();
    assert_eq!(
        error.original_form(),
        "Get \"http://domain-sock/fleet/v1/units?alt=json\": EOF"
    );
}

#[tokio::test]
async fn refusals_carry_code_message_and_request() {
    let (client, _requests) = client(&[
        http(
            "409 Conflict",
            &["{\"error\":{\"code\":409,\"message\":\"unit does not exist and\"}} "],
        ),
        http(
            "404 Not Found",
            &["{\"error\":{\"code\":404,\"message\":\"unit does not exist\"}}"],
        ),
        http(
            "404 Not Found",
            &["{\"error\":{\"code\":404,\"message\":\"\"}}"],
        ),
        http(
            "404 Not Found",
            &["{\"error\":{\"code\":404,\"message\":\"\"}}"],
        ),
    ]);
    let Err(Error::Answer {
        code,
        message,
        request_id,
        ..
    }) = client.set_desired_state("a.service", "launched").await
    else {
        panic!("an answer");
    };
    assert_eq!(
        (code, message.as_str(), request_id.as_str()),
        (409, "unit does not exist and", "r-7")
    );
    assert_eq!(client.unit("a.service").await.unwrap(), None);
    assert!(matches!(client.machine_views().await, Err(Error::NoV2)));
    let error = client.delete_unit("a.service").await.unwrap_err();
    assert_eq!(
        error.original_form(),
        r#"googleapi: got HTTP response code 404 with body: {"error":{"code":404,"message":""}}"#
    );
}

#[tokio::test]
async fn writes_send_json() {
    let (client, mut requests) = client(&[
        "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nWarning: 199 fleet \"Unit a.service: unrecognized \\\"Bogus\\\"\"\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        http(
            "200 OK",
            &["{\"units\":[{\"name\":\"a.service\",\"outcome\":\"created\",\"generation\":7}]}  "],
        ),
    ]);
    let unit = crate::v1::Unit {
        desired_state: "launched".into(),
        ..Default::default()
    };
    assert!(client.put_unit("a@1.service", &unit).await.unwrap().created);
    assert_eq!(
        client.take_warnings(),
        ["Unit a.service: unrecognized \"Bogus\""]
    );
    client.delete_unit("a b").await.unwrap();
    let op = MetadataOp {
        op: "remove".into(),
        path: "/m/metadata/zone".into(),
        value: String::new(),
    };
    client.patch_machines(&[op]).await.unwrap();
    let request = BatchRequest {
        request_id: "r".into(),
        units: vec![UnitWish {
            name: "a.service".into(),
            ..UnitWish::default()
        }],
        ..BatchRequest::default()
    };
    assert_eq!(client.batch(&request).await.unwrap().units[0].generation, 7);
    assert_eq!(
        seen(&mut requests),
        [
            "dial",
            r#"PUT /fleet/v1/units/a@1.service HTTP/1.1 {"desiredState":"launched"}"#,
            "DELETE /fleet/v1/units/a%20b HTTP/1.1",
            r#"PATCH /fleet/v1/machines HTTP/1.1 [{"op":"remove","path":"/m/metadata/zone"}]"#,
            r#"POST /fleet/v2/units HTTP/1.1 {"requestId":"r","unknownKeys":"","units":[{"name":"a.service"}]}"#,
        ]
    );
}

#[tokio::test]
async fn lines_of_a_wait_come_as_they_are_sent_however_cut() {
    let (client, mut requests) = client(&[
        http(
            "200 OK",
            &[
                "\n",
                "{\"name\":\"a\",\"pha",
                "se\":\"placed\"}\n{\"name\":\"a\",",
                "\"phase\":\"launched\",\"final\":true}\n\n",
            ],
        ),
        http("200 OK", &["{}"]),
    ]);
    let request = WaitRequest {
        units: vec![WaitFor {
            name: "a".into(),
            generation: 1,
        }],
    };
    let mut wait = client.wait(&request).await.unwrap();
    let mut phases = Vec::new();
    while let Some(progress) = wait.next().await.unwrap() {
        phases.push((progress.phase, progress.is_final));
    }
    assert_eq!(
        phases,
        [("placed".to_owned(), false), ("launched".to_owned(), true)]
    );
    client.units().await.unwrap();
    let dials = seen(&mut requests).iter().filter(|r| *r == "dial").count();
    assert_eq!(dials, 1, "the connection is used again after a wait");
}

#[tokio::test(start_paused = true)]
async fn silence_is_bounded() {
    let (client, _requests) = client(&[
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n",
        "HTTP/1.1 200 OK\r\n",
    ]);
    let mut wait = client.wait(&WaitRequest::default()).await.unwrap();
    assert!(matches!(wait.next().await, Err(Error::Timeout { .. })));
    drop(wait);
    assert!(matches!(client.units().await, Err(Error::Timeout { .. })));
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let client = Client::new(Endpoint::parse("unix:///nonexistent/fleet.sock").unwrap());
    let error = client.states().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to reach fleetd at unix:///nonexistent/fleet.sock: no such file or directory"
    );
    assert_eq!(
        error.original_form(),
        "Get \"http://domain-sock/fleet/v1/state?alt=json\": \
         dial unix /nonexistent/fleet.sock: connect: no such file or directory"
    );
    assert!(
        matches!(error, Error::Connect { source, .. } if source.kind() == io::ErrorKind::NotFound)
    );
}

#[tokio::test]
async fn a_wait_that_ends_early_says_so() {
    let (client, _requests) =
        client(&[http("200 OK", &["{\"name\":\"a\",\"phase\":\"placed\"}\n"])]);
    let request = WaitRequest {
        units: vec![WaitFor {
            name: "a".into(),
            generation: 1,
        }],
    };
    let mut wait = client.wait(&request).await.unwrap();
    assert_eq!(wait.next().await.unwrap().unwrap().phase, "placed");
    assert!(matches!(wait.next().await, Err(Error::Broken { .. })));
}

/// A way that fails: in the dial, or with the first read after a request.
struct Dead {
    in_dial: bool,
}

struct DeadStream {
    has_asked: bool,
}

fn dead() -> io::Error {
    NoWay {
        message: "the tunnel is blocked".into(),
        cures: vec!["dig".into()],
    }
    .into()
}

impl Dial for Dead {
    fn dial(&self) -> Dialing<'_> {
        let in_dial = self.in_dial;
        Box::pin(async move {
            match in_dial {
                true => Err(dead()),
                false => Ok(Box::new(DeadStream { has_asked: false }) as Box<dyn ByteStream>),
            }
        })
    }

    fn describe(&self) -> String {
        "dig".to_owned()
    }
}

impl tokio::io::AsyncRead for DeadStream {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if self.has_asked {
            return std::task::Poll::Ready(Err(dead()));
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    }
}

impl tokio::io::AsyncWrite for DeadStream {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        self.has_asked = true;
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_way_that_fails_says_why_in_its_own_words() {
    for in_dial in [true, false] {
        let endpoint = Endpoint::parse("unix:///run/fleet.sock").unwrap();
        let client = Client::with_dial(endpoint, Arc::new(Dead { in_dial }));
        let error = client.states().await.unwrap_err();
        assert_eq!(error.original_form(), "the tunnel is blocked");
        assert!(
            matches!(&error, Error::NoWay(no_way) if no_way.cures == ["dig"]),
            "{error:?}"
        );
    }
}
