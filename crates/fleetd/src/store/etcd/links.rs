//! Connections to etcd, and which endpoint they go to.
//!
//! There are two connections, each to one endpoint at a time: `main` for reads, writes and
//! watches, `lease` for keepalives, so that presence does not wait behind bulk traffic. Whatever
//! fails or takes too long moves both on to the next endpoint, and cuts the watches that hang on the
//! old one: a dead endpoint is left by the first request to it, at the latest by the next keepalive
//! of a lease. With one endpoint they move on to another connection to the same: one that was cut
//! half-open with data in flight comes back only when TCP tries again, after up to as long again as
//! the cut has lasted, and an idle watch on it would wait for the pings.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, KvClient, WatchClient};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Endpoint;

use super::EtcdConfig;
use super::errors::{self, Fault, TIMEOUT, classify};
use super::tls;
use crate::store::Error;

/// While one endpoint does not answer, the next is tried this much later beside it.
const CONNECT_STAGGER: Duration = Duration::from_millis(200);

/// With several endpoints one request waits only this share of its time for the first of them,
/// and the rest for the next.
const SHARE_OF_ONE: u32 = 2;

/// etcd sends up to 1000 revisions of 1.5 MB in one message of a watch that is behind; more than
/// this is refused before it is read.
const MAX_MESSAGE: usize = 1 << 30;

/// The connections.
pub(super) struct Links {
    endpoints: Vec<(String, Endpoint)>,
    user: Option<(String, String)>,
    has_certificate: bool,
    timeout: Duration,
    /// The endpoint to try first.
    preferred: AtomicUsize,
    /// Others have taken their place: whatever hangs on these is cut.
    abandoned: AtomicBool,
    slots: [Slot; 2],
}

/// Where the connections' own tasks run; None: where the request is made that needs one first.
#[derive(Clone, Debug, Default)]
pub(super) struct Runtimes {
    pub(super) main: Option<Handle>,
    pub(super) lease: Option<Handle>,
}

/// One of the two connections.
struct Slot {
    runtime: Option<Handle>,
    /// On the other one a lease is renewed all the time: each renewal is such a question.
    pings: bool,
    current: Mutex<Option<Arc<Link>>>,
    /// Held while connecting, so that many callers make one connection.
    connecting: tokio::sync::Mutex<()>,
}

/// A connection to one endpoint.
pub(super) struct Link {
    endpoint: usize,
    client: Client,
    cut: watch::Sender<bool>,
}

/// What a request does, and so what may be done when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing: it is tried again elsewhere.
    Read,
    /// Nothing, but its answer is so large that being late says nothing about the endpoint.
    BulkRead,
    /// It does not matter if it is done twice: it is tried again elsewhere.
    Repeatable,
    /// It is done at most once.
    Write,
}

/// Access to one of the two connections.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    links: &'a Links,
    slot: &'a Slot,
}

impl Links {
    pub(super) fn new(config: EtcdConfig, runtimes: Runtimes) -> Result<Arc<Links>, Error> {
        Ok(Arc::new(Links {
            endpoints: tls::endpoints(&config)?,
            has_certificate: config.tls.certificate.is_some(),
            user: (!config.username.is_empty()).then_some((config.username, config.password)),
            timeout: config.request_timeout,
            preferred: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
            slots: [
                Slot::new(runtimes.main, true),
                Slot::new(runtimes.lease, false),
            ],
        }))
    }

    pub(super) fn main(&self) -> Line<'_> {
        let [slot, _] = &self.slots;
        Line { links: self, slot }
    }

    pub(super) fn lease(&self) -> Line<'_> {
        let [_, slot] = &self.slots;
        Line { links: self, slot }
    }

    /// All URLs, for messages.
    pub(super) fn endpoints(&self) -> String {
        let urls: Vec<_> = self.endpoints.iter().map(|(url, _)| url.as_str()).collect();
        urls.join(", ")
    }

    fn url(&self, endpoint: usize) -> &str {
        self.endpoints.get(endpoint).map_or("", |(url, _)| url)
    }

    /// Leaves the endpoint of a link that failed, with all that uses it: for another endpoint, or for
    /// another connection where there is but one.
    fn leave(&self, failed: &Link) {
        if failed.cut.send_replace(true) {
            // What was sent over it before fails one after the other, and says nothing against
            // the connection that has taken its place.
            return;
        }
        let count = self.endpoints.len();
        let next = (failed.endpoint + 1) % count;
        let moved = self.preferred.compare_exchange(
            failed.endpoint,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if moved.is_ok() && count > 1 {
            tracing::warn!(
                endpoint = self.url(failed.endpoint),
                next = self.url(next),
                "an etcd endpoint does not answer"
            );
        }
        for slot in &self.slots {
            let mut current = slot.lock();
            if current
                .as_ref()
                .is_some_and(|link| link.endpoint == failed.endpoint)
                && let Some(link) = current.take()
            {
                link.cut.send_replace(true);
            }
        }
    }

    /// Others take over: watches that hang on these end, and so do those that are being opened.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        for slot in &self.slots {
            if let Some(link) = slot.lock().take() {
                link.cut.send_replace(true);
            }
        }
    }

    /// Connects to the first endpoint that answers, the preferred one first.
    async fn connect(&self, pings: bool) -> Result<Arc<Link>, Error> {
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut order = (0..count).map(|n| (first + n) % count);
        let mut running = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            if let Some(endpoint) = order.next() {
                running.push(self.connect_to(endpoint, pings));
            }
            let untried = failures.len() + running.len() < count;
            let stagger = async move {
                match untried {
                    true => tokio::time::sleep(CONNECT_STAGGER).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(result) = running.next() => match result {
                    Ok(link) => {
                        self.preferred.store(link.endpoint, Ordering::Relaxed);
                        return Ok(Arc::new(link));
                    }
                    Err(why) => failures.push(why),
                },
                () = stagger => {}
            }
            if failures.len() == count {
                return Err(Error::Unavailable(failures.join("; ")));
            }
        }
    }

    async fn connect_to(&self, endpoint: usize, pings: bool) -> Result<Link, String> {
        let Some((url, target)) = self.endpoints.get(endpoint) else {
            return Err(String::new());
        };
        let failed = |why: String| format!("etcd {url}: {why}{}", self.certificate_hint(url));
        let connected = match pings {
            true => tls::with_pings(target).connect().await,
            false => target.connect().await,
        };
        let channel = connected.map_err(|error| failed(errors::chain(&error)))?;
        let options = |user: &Option<(String, String)>| {
            let options = ConnectOptions::new()
                .with_require_leader(true)
                .with_auto_token_refresh(true);
            match user.clone() {
                Some((name, password)) => options.with_user(name, password),
                None => options,
            }
        };
        let open =
            |user| Client::from_channel(Channel::Tonic(channel.clone()), Some(options(user)));
        let client = match open(&self.user).await {
            // As etcd's own clients do: a user is of no use, and no harm.
            Err(error) if errors::is_auth_off(&error) => open(&None).await,
            client => client,
        };
        let client = client.map_err(|error| match classify(url, &error).1 {
            Error::Unavailable(why) => why,
            other => other.to_string(),
        })?;
        // A connection alone says little: what listens there may hang, or have lost the others.
        match client.maintenance_client().status().await {
            Ok(status) if status.leader() == 0 => {
                return Err(failed("it has no leader".to_owned()));
            }
            Ok(_) => {}
            Err(error) => match classify(url, &error) {
                // It lives, and does not tell everybody how it is.
                (Fault::Answer, _) => {}
                (_, Error::Unavailable(why)) => {
                    return Err(format!("{why}{}", self.certificate_hint(url)));
                }
                (_, error) => return Err(error.to_string()),
            },
        }
        Ok(Link {
            endpoint,
            client,
            cut: watch::Sender::new(false),
        })
    }
}

impl Links {
    /// A server that wants a certificate does not always come to say so before it hangs up.
    fn certificate_hint(&self, url: &str) -> &'static str {
        match url.starts_with("https://") && !self.has_certificate {
            true => " (if it wants a client certificate, set etcd_certfile and etcd_keyfile)",
            false => "",
        }
    }
}

impl Line<'_> {
    /// Runs a request within the request timeout, where that is allowed on several endpoints.
    pub(super) async fn call<T, F>(
        self,
        effect: Effect,
        mut request: impl FnMut(Arc<Link>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + self.links.timeout;
        loop {
            let link = self.link(deadline).await?;
            let until = self.until(effect, deadline);
            let (fault, error) = match timeout_at(until, request(Arc::clone(&link))).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => classify(self.links.url(link.endpoint), &error),
                Err(_) if effect == Effect::BulkRead => return Err(self.too_late(&link)),
                Err(_) => (Fault::Unknown, self.too_late(&link)),
            };
            if fault == Fault::Answer {
                return Err(error);
            }
            self.links.leave(&link);
            let last = Instant::now() >= deadline || self.links.endpoints.len() < 2;
            match (fault, effect, error) {
                (Fault::Unknown, Effect::Write, Error::Unavailable(why)) => {
                    return Err(Error::OutcomeUnknown(why));
                }
                // The values of a write were given away.
                (_, Effect::Write, error) => return Err(error),
                (_, _, error) if last => return Err(error),
                _ => {}
            }
        }
    }

    /// The connection, made when there is none.
    pub(super) async fn link(self, deadline: Instant) -> Result<Arc<Link>, Error> {
        let connect = async {
            if let Some(link) = self.slot.lock().clone() {
                return Ok(link);
            }
            let _connecting = self.slot.connecting.lock().await;
            if let Some(link) = self.slot.lock().clone() {
                return Ok(link);
            }
            let connect = self.links.connect(self.slot.pings);
            let link = match &self.slot.runtime {
                Some(runtime) => inside(runtime, connect).await?,
                None => connect.await?,
            };
            *self.slot.lock() = Some(Arc::clone(&link));
            if self.links.abandoned.load(Ordering::SeqCst) {
                link.cut.send_replace(true);
            }
            Ok(link)
        };
        timeout_at(deadline, connect).await.unwrap_or_else(|_| {
            Err(Error::Unavailable(format!(
                "etcd {}: no connection within {:?}",
                self.links.endpoints(),
                self.links.timeout
            )))
        })
    }

    /// How long one endpoint is waited for.
    pub(super) fn until(self, effect: Effect, deadline: Instant) -> Instant {
        let whole = matches!(effect, Effect::Write | Effect::BulkRead);
        if whole || self.links.endpoints.len() < 2 {
            return deadline;
        }
        deadline.min(Instant::now() + self.links.timeout / SHARE_OF_ONE)
    }

    pub(super) fn too_late(self, link: &Link) -> Error {
        let url = self.links.url(link.endpoint);
        Error::Unavailable(format!("etcd {url}: {TIMEOUT} {:?}", self.links.timeout))
    }

    pub(super) fn timeout(self) -> Duration {
        self.links.timeout
    }

    /// All URLs, for messages.
    pub(super) fn endpoints(self) -> String {
        self.links.endpoints()
    }

    /// What an error of this link means; the endpoint is left unless it was an answer.
    pub(super) fn judge(self, link: &Link, error: &etcd_client::Error) -> (Fault, Error) {
        let (fault, error) = classify(self.links.url(link.endpoint), error);
        if fault != Fault::Answer {
            self.links.leave(link);
        }
        (fault, error)
    }

    /// The endpoint of this link did not answer in time.
    pub(super) fn give_up(self, link: &Link) -> Error {
        self.links.leave(link);
        self.too_late(link)
    }
}

impl Slot {
    fn new(runtime: Option<Handle>, pings: bool) -> Slot {
        Slot {
            runtime,
            pings,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Link>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls a future here, and has it find that runtime as its own: what it spawns runs there.
async fn inside<F: Future>(runtime: &Handle, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _entered = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}

impl Link {
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn kv(&self) -> KvClient {
        self.client
            .kv_client()
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn watches(&self) -> WatchClient {
        self.client
            .watch_client()
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// Ends when the endpoint is left.
    pub(super) async fn was_cut(&self) {
        // The sender lives as long as `self`.
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
    }
}
