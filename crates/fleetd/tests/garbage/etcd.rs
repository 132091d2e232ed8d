//! The store's client, and at etcd's address something that speaks random HTTP/2 frames, gRPC of any
//! bytes, etcd's own messages with impossible contents, or trickles, floods and silence.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use fleetd::store::etcd::{EtcdConfig, EtcdStore, TlsFiles};
use fleetd::store::{Compare, Error, LeaseId, Op, Range, Store, Txn};
use futures_util::StreamExt;
use h2::server::SendResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::chance::Chance;
use crate::run;

/// Clients that each ask everything once.
const ROUNDS: u64 = 30;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Nothing takes longer, by the paused clock: a read of several pages waits for each of them, and
/// begins anew a few times.
const BOUND: Duration = Duration::from_secs(60);
/// How often a watch is asked for its next batch.
const MAX_BATCHES: usize = 50;
const PREFIX: &str = "/p/";

/// What all connections of a test share.
struct Peer {
    chance: RefCell<Chance>,
    manner: RefCell<Manner>,
    n_requests: RefCell<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Honest,
    /// Anything, chosen anew for each connection and request.
    Any,
    /// This answer to each request of this kind, and the truth to all others.
    Lie(&'static str, Lie),
}

/// Etcd's own messages, with impossible contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    NoHeader,
    MoreAndNothing,
    TheSamePageAgain,
    OtherKeys,
    ResponseWithoutResponse,
    TooFewResponses,
    LongestLease,
    LeaseZero,
    OtherLease,
    UnknownEvent,
    EventWithoutKey,
}

#[test]
fn an_etcd_that_talks_nonsense_is_survived_and_believed_again_when_it_is_itself() {
    run(|alive| async move {
        let local = tokio::task::LocalSet::new();
        let (peer, url) = local.run_until(Peer::listen()).await;
        let mut n_answers = 0;
        local
            .run_until(async {
                for round in 0..ROUNDS {
                    alive.send(format!("round {round}")).unwrap();
                    *peer.chance.borrow_mut() = Chance::new(0xe7cd_0000 + round);
                    *peer.manner.borrow_mut() = Manner::Any;
                    let store = client(&url);
                    n_answers += ask_everything(&store, &alive).await;
                    *peer.manner.borrow_mut() = Manner::Honest;
                    until_it_works(&store).await;
                }
            })
            .await;
        // Among all that nonsense are answers that can be right.
        assert!(n_answers > 10, "{n_answers}");
        assert!(*peer.n_requests.borrow() > 100);
    });
}

/// Every lie is an error that names etcd; none is believed: what was left out of an answer would
/// be taken for absent.
#[test]
fn an_answer_that_cannot_be_is_an_error_of_the_endpoint() {
    run(|alive| async move {
        let local = tokio::task::LocalSet::new();
        let (peer, url) = local.run_until(Peer::listen()).await;
        let lies = [
            ("Range", Lie::NoHeader),
            ("Range", Lie::MoreAndNothing),
            ("Range", Lie::TheSamePageAgain),
            ("Range", Lie::OtherKeys),
            ("Txn", Lie::NoHeader),
            ("Txn", Lie::ResponseWithoutResponse),
            ("Txn", Lie::TooFewResponses),
            ("LeaseGrant", Lie::LeaseZero),
            ("LeaseKeepAlive", Lie::OtherLease),
            ("Watch", Lie::UnknownEvent),
            ("Watch", Lie::EventWithoutKey),
        ];
        local
            .run_until(async {
                for (kind, lie) in lies {
                    alive.send(format!("{kind} {lie:?}")).unwrap();
                    *peer.manner.borrow_mut() = Manner::Lie(kind, lie);
                    let store = client(&url);
                    let error = match kind {
                        "Range" => store.read(Range::default()).await.err(),
                        "Txn" => store.read_keys(&two_keys()).await.err(),
                        "LeaseGrant" => store.grant(REQUEST_TIMEOUT).await.err(),
                        "LeaseKeepAlive" => store.keep_alive(LeaseId(7)).await.err(),
                        _ => watch_a_while(&store).await.err(),
                    };
                    let Some(Error::Unavailable(why)) = error else {
                        panic!("{kind} {lie:?}: {error:?}");
                    };
                    assert!(why.contains("makes no sense"), "{kind} {lie:?}: {why}");
                    assert!(why.contains(&url), "{kind} {lie:?}: {why}");
                    *peer.manner.borrow_mut() = Manner::Honest;
                    until_it_works(&store).await;
                }
                // Nobody knows whether a transaction was done whose answer cannot be.
                *peer.manner.borrow_mut() = Manner::Lie("Txn", Lie::NoHeader);
                let error = client(&url).commit(a_write()).await.unwrap_err();
                assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
                // A time that no clock can hold is cut to one that it can.
                *peer.manner.borrow_mut() = Manner::Lie("LeaseGrant", Lie::LongestLease);
                let (_, ttl) = client(&url).grant(REQUEST_TIMEOUT).await.unwrap();
                assert!(Instant::now().checked_add(ttl).is_some(), "{ttl:?}");
            })
            .await;
    });
}

fn client(url: &str) -> Arc<EtcdStore> {
    EtcdStore::new(EtcdConfig {
        endpoints: vec![url.to_owned()],
        username: String::new(),
        password: String::new(),
        tls: TlsFiles::default(),
        prefix: PREFIX.to_owned(),
        request_timeout: REQUEST_TIMEOUT,
    })
    .unwrap()
}

fn two_keys() -> [String; 2] {
    ["a".to_owned(), "b".to_owned()]
}

fn a_write() -> Txn {
    Txn {
        compares: vec![Compare::Absent("a".to_owned())],
        ops: vec![Op::Put {
            key: "a".to_owned(),
            value: b"1".to_vec(),
            lease: None,
        }],
    }
}

/// Each request once; how many were answered.
async fn ask_everything(store: &EtcdStore, alive: &Sender<String>) -> usize {
    let mut n_answers = 0;
    let mut note = |what: &str, answer: Result<Result<(), Error>, tokio::time::error::Elapsed>| {
        alive.send(what.to_owned()).unwrap();
        match answer {
            Ok(Ok(())) => n_answers += 1,
            Ok(Err(error)) => assert!(may_answer(what, &error), "{what}: {error:?}"),
            Err(_) => panic!("{what} waits without a bound"),
        }
    };
    let read = store.read(Range::default());
    note("read", timeout(BOUND, read).await.map(|a| a.map(drop)));
    let keys = two_keys();
    let read = store.read_keys(&keys);
    note("read_keys", timeout(BOUND, read).await.map(|a| a.map(drop)));
    note("watch", timeout(BOUND, watch_a_while(store)).await);
    let commit = timeout(BOUND, store.commit(a_write())).await;
    note("commit", commit.map(|a| a.map(drop)));
    let grant = timeout(BOUND, store.grant(REQUEST_TIMEOUT)).await;
    note("grant", grant.map(|a| a.map(drop)));
    let renewed = timeout(BOUND, store.keep_alive(LeaseId(7))).await;
    note("keep_alive", renewed.map(|a| a.map(drop)));
    note("revoke", timeout(BOUND, store.revoke(LeaseId(7))).await);
    note("compact", timeout(BOUND, store.compact(3)).await);
    n_answers
}

/// Whether whoever asked that can make sense of the error: what is made of it depends on its kind.
fn may_answer(what: &str, error: &Error) -> bool {
    let is_read = matches!(what, "read" | "read_keys" | "watch");
    match error {
        Error::Unavailable(why) | Error::NoSpace(why) | Error::Refused(why) => !why.is_empty(),
        Error::OutcomeUnknown(why) => !is_read && !why.is_empty(),
        Error::Compacted(_) => matches!(what, "read" | "watch" | "compact"),
        Error::Conflict => what == "commit",
        Error::LeaseGone => matches!(what, "commit" | "keep_alive" | "revoke"),
        // What an entry means is not for the store to say.
        _ => false,
    }
}

/// A watch, and what it says until it is silent, ends, or has said enough.
async fn watch_a_while(store: &EtcdStore) -> Result<(), Error> {
    let mut watch = store.watch("", 1).await?;
    for _ in 0..MAX_BATCHES {
        match timeout(Duration::from_secs(1), watch.next()).await {
            Ok(Some(batch)) => drop(batch?),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(())
}

/// Once etcd is itself again, its client has no memory of what was.
async fn until_it_works(store: &EtcdStore) {
    let works = async {
        loop {
            let answer = async {
                let found = store.read(Range::default()).await?;
                assert_eq!(found.entries.len(), 2);
                assert_eq!(store.read_keys(&two_keys()).await?.entries.len(), 2);
                store.commit(a_write()).await?;
                store.keep_alive(LeaseId(7)).await
            };
            match answer.await {
                Ok(_) => return,
                Err(Error::Unavailable(_) | Error::OutcomeUnknown(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, works).await.expect("it does not recover");
}

impl Peer {
    async fn listen() -> (Rc<Peer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let peer = Rc::new(Peer {
            chance: RefCell::new(Chance::new(0)),
            manner: RefCell::new(Manner::Honest),
            n_requests: RefCell::default(),
        });
        let listening = Rc::clone(&peer);
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let peer = Rc::clone(&listening);
                tokio::task::spawn_local(async move { peer.connection(stream).await });
            }
        });
        (peer, url)
    }

    fn below(&self, bound: usize) -> usize {
        self.chance.borrow_mut().below(bound)
    }

    fn bytes(&self, at_most: usize) -> Vec<u8> {
        self.chance.borrow_mut().bytes(at_most)
    }

    fn manner(&self) -> Manner {
        *self.manner.borrow()
    }

    async fn connection(self: Rc<Self>, mut stream: TcpStream) {
        if self.manner() == Manner::Any {
            // What cannot be written is not wanted any more.
            let _ = match self.below(10) {
                0 => stream.write_all(&self.bytes(5000)).await,
                1 => stream.write_all(&self.frames()).await,
                2 => self.silence(&mut stream).await,
                3 => Ok(()),
                _ => return self.serve(stream).await,
            };
            return;
        }
        self.serve(stream).await;
    }

    /// A server's first frame, and frames of any type, length, flags and stream behind it.
    fn frames(&self) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
        for _ in 0..self.below(200) {
            let body = self.bytes(60);
            let length = if self.below(10) == 0 {
                0xff_ffff
            } else {
                body.len()
            };
            out.extend(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
            out.push(u8::try_from(self.below(12)).unwrap());
            out.push(self.bytes(1).first().copied().unwrap_or(0));
            out.extend(u32::try_from(self.below(5)).unwrap().to_be_bytes());
            out.extend(body);
        }
        out
    }

    async fn silence(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut heard = [0; 4096];
        while stream.read(&mut heard).await? > 0 {}
        Ok(())
    }

    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, respond))) = connection.accept().await {
            *self.n_requests.borrow_mut() += 1;
            let path = request.uri().path();
            let kind = path.rsplit('/').next().unwrap_or_default().to_owned();
            let peer = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                // The request stays open: a stream of requests is answered while it goes on.
                let _request = request;
                // A client that has enough resets the stream.
                let _ = peer.respond(&kind, respond).await;
            });
        }
    }

    async fn respond(&self, kind: &str, mut to: SendResponse<Bytes>) -> Result<(), h2::Error> {
        let honest = honest(kind);
        match self.manner() {
            Manner::Lie(of, lie) if of == kind => {
                return answer(to, &lies(kind, lie), is_stream(kind)).await;
            }
            // Without this no client gets beyond its greeting.
            Manner::Any if kind != "Status" || self.below(4) == 0 => {}
            _ => return answer(to, &honest, is_stream(kind)).await,
        }
        let ok = || Response::builder().header("content-type", "application/grpc");
        match self.below(16) {
            // Framed as it should be: any bytes, or the truth with bits turned over.
            0 => answer(to, &[self.bytes(300)], is_stream(kind)).await,
            1..=4 => {
                let mut messages = honest;
                for message in &mut messages {
                    for _ in 0..=self.below(4) {
                        if !message.is_empty() {
                            let at = self.below(message.len());
                            message[at] ^= 1 << self.below(8);
                        }
                    }
                }
                answer(to, &messages, is_stream(kind)).await
            }
            // Another message than the one that was asked for.
            5 => {
                let other = self.chance.borrow_mut().pick(&KINDS);
                answer(to, &self::honest(other), is_stream(kind)).await
            }
            // Lengths without the bytes, compressed bytes, no frame at all.
            6 => {
                let length = self
                    .chance
                    .borrow_mut()
                    .pick(&[u32::MAX, 1 << 30, 1 << 20, 9]);
                let mut body = to.send_response(ok().body(()).unwrap(), false)?;
                let head = [&[0][..], &length.to_be_bytes()].concat();
                body.send_data(head.into(), false)?;
                body.send_data(self.bytes(5000).into(), self.below(2) == 0)?;
                std::future::pending().await
            }
            7 => {
                let mut body = to.send_response(ok().body(()).unwrap(), false)?;
                body.send_data([&[1, 0, 0, 0, 4][..], b"gzip"].concat().into(), false)?;
                body.send_trailers(status("0"))
            }
            8 => {
                let mut body = to.send_response(ok().body(()).unwrap(), false)?;
                body.send_data(self.bytes(100).into(), true)
            }
            // Codes and states that are none.
            9 => {
                let code = self
                    .chance
                    .borrow_mut()
                    .pick(&["banana", "", "99999", "-1", "15", "11"]);
                let mut body = to.send_response(ok().body(()).unwrap(), false)?;
                body.send_trailers(status(code))
            }
            10 => {
                let code = self
                    .chance
                    .borrow_mut()
                    .pick(&[200_u16, 204, 404, 503, 999]);
                let answer = Response::builder().status(code).body(()).unwrap();
                to.send_response(answer, self.below(2) == 0).map(drop)
            }
            // Byte by byte, and never done.
            11 => {
                let mut body = to.send_response(ok().body(()).unwrap(), false)?;
                let framed = framed(honest.first().map_or(&[], Vec::as_slice));
                for byte in &framed[..framed.len() - 1] {
                    body.send_data(Bytes::copy_from_slice(&[*byte]), false)?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                std::future::pending().await
            }
            // Messages without end, many thousand a second by the paused clock.
            12 => {
                let mut body = to.send_response(ok().body(()).unwrap(), false)?;
                let message = framed(honest.last().map_or(&[], Vec::as_slice));
                for n in 1.. {
                    if n % 100 == 0 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    body.reserve_capacity(message.len());
                    match std::future::poll_fn(|context| body.poll_capacity(context)).await {
                        Some(Ok(_)) => body.send_data(message.clone().into(), false)?,
                        _ => break,
                    }
                }
                Ok(())
            }
            13 => std::future::pending().await,
            14 => {
                to.send_reset(h2::Reason::INTERNAL_ERROR);
                Ok(())
            }
            _ => answer(to, &honest, is_stream(kind)).await,
        }
    }
}

const KINDS: [&str; 7] = [
    "Status",
    "Range",
    "Txn",
    "Watch",
    "LeaseGrant",
    "LeaseKeepAlive",
    "Compact",
];

fn is_stream(kind: &str) -> bool {
    matches!(kind, "Watch" | "LeaseKeepAlive")
}

/// Messages, and the end, which a stream has not.
async fn answer(
    mut to: SendResponse<Bytes>,
    messages: &[Vec<u8>],
    is_stream: bool,
) -> Result<(), h2::Error> {
    let head = Response::builder().header("content-type", "application/grpc");
    let mut body = to.send_response(head.body(()).unwrap(), false)?;
    for message in messages {
        body.send_data(framed(message).into(), false)?;
    }
    if is_stream {
        std::future::pending::<()>().await;
    }
    body.send_trailers(status("0"))
}

fn status(code: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// Protobuf, as far as it is needed: numbers and what has a length.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn number(mut self, field: u64, number: u64) -> Message {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(u64::try_from(bytes.len()).unwrap());
        self.0.extend(bytes);
        self
    }
}

fn new() -> Message {
    Message::default()
}

/// `ResponseHeader`: at revision 9.
fn header() -> Vec<u8> {
    new().number(1, 1).number(2, 1).number(3, 9).number(4, 1).0
}

/// `KeyValue`: created at 3, changed at 5.
fn key_value(key: &str) -> Vec<u8> {
    let key = [PREFIX, key].concat();
    let kv = new().bytes(1, key.as_bytes()).number(2, 3).number(3, 5);
    kv.number(4, 1).bytes(5, b"value").0
}

/// `RangeResponse` with these keys.
fn range(keys: &[&str], more: u64) -> Message {
    let mut range = new().bytes(1, &header());
    for key in keys {
        range = range.bytes(2, &key_value(key));
    }
    range.number(3, more).number(4, 2)
}

/// `ResponseOp` with a range of one key.
fn response_op(key: &str) -> Vec<u8> {
    new().bytes(1, &range(&[key], 0).0).0
}

/// `WatchResponse` that tells that the watch has begun, and one with an event of a kind.
fn created() -> Vec<u8> {
    new().bytes(1, &header()).number(3, 1).0
}

fn event(event: &Message) -> Vec<u8> {
    new().bytes(1, &header()).bytes(11, &event.0).0
}

fn honest(kind: &str) -> Vec<Vec<u8>> {
    let only_header = new().bytes(1, &header());
    let renewed = only_header_and_lease(7, 30);
    match kind {
        "Status" => vec![new().bytes(1, &header()).number(4, 1).number(5, 9).0],
        "Range" => vec![range(&["a", "b"], 0).0],
        "Txn" => {
            let txn = new().bytes(1, &header()).number(2, 1);
            let txn = txn.bytes(3, &response_op("a"));
            vec![txn.bytes(3, &response_op("b")).0]
        }
        "Watch" => {
            let put = new().number(1, 0).bytes(2, &key_value("a"));
            vec![created(), event(&put)]
        }
        "LeaseGrant" => vec![only_header_and_lease(7, 30)],
        "LeaseKeepAlive" => vec![renewed.clone(), renewed],
        _ => vec![only_header.0],
    }
}

fn only_header_and_lease(lease: u64, ttl: u64) -> Vec<u8> {
    new().bytes(1, &header()).number(2, lease).number(3, ttl).0
}

fn lies(kind: &str, lie: Lie) -> Vec<Vec<u8>> {
    let txn = || new().bytes(1, &header()).number(2, 1);
    let event_of = |kind: u64| event(&new().number(1, kind).bytes(2, &key_value("a")));
    vec![match lie {
        Lie::NoHeader if kind == "Range" => new().bytes(2, &key_value("a")).0,
        Lie::NoHeader => {
            let txn = new().number(2, 1).bytes(3, &response_op("a"));
            txn.bytes(3, &response_op("b")).0
        }
        Lie::MoreAndNothing => range(&[], 1).0,
        Lie::TheSamePageAgain => range(&["a", "b"], 1).0,
        Lie::OtherKeys => range(&["b", "a"], 0).0,
        Lie::ResponseWithoutResponse => txn().bytes(3, &response_op("a")).bytes(3, &[]).0,
        Lie::TooFewResponses => txn().bytes(3, &response_op("a")).0,
        Lie::LongestLease => only_header_and_lease(7, u64::MAX >> 1),
        Lie::LeaseZero => only_header_and_lease(0, 30),
        Lie::OtherLease => {
            return vec![only_header_and_lease(8, 30), only_header_and_lease(8, 30)];
        }
        Lie::UnknownEvent => return vec![created(), event_of(2)],
        Lie::EventWithoutKey => return vec![created(), event(&new().number(1, 1))],
    }]
}
