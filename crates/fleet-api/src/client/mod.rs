//! An HTTP client of fleetd over any byte stream.
//!
//! Nothing is done before the first request: a client costs nothing to make. One connection is
//! kept and used again; requests made at the same time have one each.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::REQUEST_ID_HEADER;
use crate::error::ErrorBody;

mod dial;
mod endpoint;
mod error;
mod journal;
mod registry;
mod rows;
mod tls;
mod v1;
mod v2;

pub use dial::{ByteStream, Dial, Dialing, NoWay};
pub use endpoint::{Endpoint, EndpointError, TcpEndpoint, first_of_list};
pub use error::Error;
pub use journal::{JournalStream, JournalWanted};
pub use registry::RegistryError;
pub use tls::{IsCa, TlsDial, TlsError, TlsFiles};
pub use v1::PutAnswer;
pub use v2::{EventStream, EventsWanted, UnitStream, WaitStream};

/// Bound of an answer's head and of each part of its body, unless the caller says otherwise.
/// fleetd itself gives up on its store after a few seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A kept connection whose last answer has been read is ready as soon as its task has run.
const KEPT_TIMEOUT: Duration = Duration::from_secs(1);

/// A page of 100 units of the greatest size, escaped, is less.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Items of a whole listing: twice what the largest cluster has. It ends a server that never stops.
const MAX_ITEMS: usize = 2_000_000;

/// Warnings kept for the caller; more are dropped.
const MAX_WARNINGS: usize = 100;

/// Hears a line for each request.
type Trace = Box<dyn Fn(&str) + Send + Sync>;

/// A client of one fleetd. Cheap to make; it connects with the first request.
pub struct Client {
    endpoint: Endpoint,
    dial: Arc<dyn Dial>,
    answer_timeout: Duration,
    /// `Authorization` of each request.
    authorization: Option<String>,
    /// Of each request, too.
    headers: Vec<(&'static str, String)>,
    /// A connection that waits for its next request.
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
    warnings: Mutex<Vec<String>>,
    /// Told of each request and what came of it.
    trace: Option<Trace>,
}

impl Client {
    /// A client of the endpoint, without TLS.
    pub fn new(endpoint: Endpoint) -> Client {
        let dial = Arc::from(dial::plain(&endpoint));
        Client::with_dial(endpoint, dial)
    }

    /// A client that reaches the endpoint by other means: through a tunnel, over TLS.
    pub fn with_dial(endpoint: Endpoint, dial: Arc<dyn Dial>) -> Client {
        Client {
            endpoint,
            dial,
            answer_timeout: ANSWER_TIMEOUT,
            authorization: None,
            headers: Vec::new(),
            idle: Mutex::new(None),
            warnings: Mutex::new(Vec::new()),
            trace: None,
        }
    }

    /// Tells `trace` of each request and what came of it, for people who look for a fault.
    pub fn traced(self, trace: impl Fn(&str) + Send + Sync + 'static) -> Client {
        Client {
            trace: Some(Box::new(trace)),
            ..self
        }
    }

    /// Another bound of an answer.
    pub fn answer_timeout(self, answer_timeout: Duration) -> Client {
        Client {
            answer_timeout,
            ..self
        }
    }

    /// With a header in each request. What no header can hold is left out of it.
    pub fn with_header(mut self, name: &'static str, value: &str) -> Client {
        let value = value.chars().filter(|c| matches!(c, ' '..='~'));
        self.headers.push((name, value.collect()));
        self
    }

    /// Where fleetd is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What fleetd warned of since the last call (`Warning` headers): unknown `[X-Fleet]` keys,
    /// damaged documents.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.warnings))
    }

    /// A listing whose pages lead nowhere.
    fn endless(&self, resource: &str) -> Error {
        Error::Protocol {
            endpoint: self.endpoint.to_string(),
            reason: format!("the listing of {resource} does not end"),
        }
    }

    /// Sends a request and reads a JSON answer.
    async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let answer = self.send(&call).await?;
        let body = self.body(&call, answer).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Protocol {
            endpoint: self.endpoint.to_string(),
            reason: format!("{} {}: {error}", call.method, call.path),
        })
    }

    /// Sends a request of which only the status counts.
    async fn status(&self, call: Call) -> Result<u16, Error> {
        let answer = self.send(&call).await?;
        let status = answer.response.status().as_u16();
        self.body(&call, answer).await?;
        Ok(status)
    }

    /// Sends a request, and again on a new connection if a kept one turns out to be closed.
    /// The answer is a success; everything else is an error.
    async fn send(&self, call: &Call) -> Result<Answer, Error> {
        let answer = self.send_untold(call).await;
        if let Some(trace) = &self.trace {
            let outcome = match &answer {
                Ok(answer) => answer.response.status().as_u16().to_string(),
                Err(error) => error.to_string(),
            };
            trace(&format!("{} {}: {outcome}", call.method, call.path));
        }
        answer
    }

    async fn send_untold(&self, call: &Call) -> Result<Answer, Error> {
        let kept = lock(&self.idle).take();
        if let Some(mut kept) = kept
            && let Ok(Ok(())) = timeout(KEPT_TIMEOUT, kept.ready()).await
            && let Some(answer) = self.try_on(kept, call, true).await
        {
            return answer;
        }
        let fresh = self.connect(call).await?;
        self.try_on(fresh, call, false)
            .await
            .unwrap_or_else(|| Err(self.broken(call, "EOF")))
    }

    /// None: a kept connection was closed under us.
    async fn try_on(
        &self,
        mut connection: SendRequest<Full<Bytes>>,
        call: &Call,
        is_kept: bool,
    ) -> Option<Result<Answer, Error>> {
        let request = match call.request(self) {
            Ok(request) => request,
            Err(reason) => return Some(Err(self.broken(call, &reason))),
        };
        let response = match timeout(self.answer_timeout, connection.send_request(request)).await {
            Err(_) => return Some(Err(self.timed_out(call, self.answer_timeout))),
            Ok(Ok(response)) => response,
            // All our requests may be repeated (batches carry an id), so a kept connection
            // that broke is no reason to give up.
            Ok(Err(_)) if is_kept => return None,
            Ok(Err(error)) => return Some(Err(self.broken_by(call, &error))),
        };
        self.note_warnings(&response);
        let answer = Answer {
            response,
            connection,
        };
        Some(match answer.response.status().is_success() {
            true => Ok(answer),
            false => Err(self.refusal(call, answer).await),
        })
    }

    async fn connect(&self, call: &Call) -> Result<SendRequest<Full<Bytes>>, Error> {
        let bound = self.dial.bound();
        let stream = match timeout(bound, self.dial.dial()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => {
                if let Some(no_way) = self.dial.explain(&source) {
                    return Err(Error::NoWay(no_way));
                }
                let what = format!(
                    "{}: connect: {}",
                    self.dial.describe(),
                    error::plain(&source)
                );
                return Err(Error::Connect {
                    endpoint: self.endpoint.to_string(),
                    original: self.original(call, &what),
                    source,
                });
            }
            Err(_) => {
                let what = format!("{}: i/o timeout", self.dial.describe());
                return Err(Error::Timeout {
                    endpoint: self.endpoint.to_string(),
                    original: self.original(call, &what),
                    after: bound,
                });
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken_by(call, &error))?;
        // The task ends with the sender and the last body.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Reads the body, and keeps the connection for the next request.
    async fn body(&self, call: &Call, answer: Answer) -> Result<Bytes, Error> {
        let bytes = self.read(call, answer.response.into_body()).await?;
        self.keep(answer.connection);
        Ok(bytes)
    }

    async fn read(&self, call: &Call, body: Incoming) -> Result<Bytes, Error> {
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect();
        match timeout(self.answer_timeout, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(match error.downcast_ref::<hyper::Error>() {
                Some(error) => self.broken_by(call, error),
                None => self.broken(call, &error.to_string()),
            }),
            Err(_) => Err(self.timed_out(call, self.answer_timeout)),
        }
    }

    /// The error in an answer that is no success.
    async fn refusal(&self, call: &Call, answer: Answer) -> Error {
        let code = answer.response.status().as_u16();
        let request_id = answer
            .response
            .headers()
            .get(REQUEST_ID_HEADER)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = match self.body(call, answer).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        let detail = serde_json::from_slice::<ErrorBody>(&body)
            .unwrap_or_default()
            .error;
        // An original fleetd knows no such path and says so without a word; ours names what is missing.
        if code == 404 && detail.message.is_empty() && call.path.starts_with(crate::v2::BASE) {
            return Error::NoV2;
        }
        Error::Answer {
            code,
            message: detail.message,
            request_id,
            body: String::from_utf8_lossy(&body).trim_end().to_owned(),
        }
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        if !connection.is_closed() {
            *lock(&self.idle) = Some(connection);
        }
    }

    fn note_warnings(&self, response: &Response<Incoming>) {
        let mut warnings = lock(&self.warnings);
        for value in response.headers().get_all("Warning") {
            if warnings.len() < MAX_WARNINGS
                && let Ok(value) = value.to_str()
            {
                warnings.push(warning_text(value));
            }
        }
    }

    fn timed_out(&self, call: &Call, after: Duration) -> Error {
        Error::Timeout {
            endpoint: self.endpoint.to_string(),
            original: self.original(call, "context deadline exceeded"),
            after,
        }
    }

    fn broken(&self, call: &Call, reason: &str) -> Error {
        Error::Broken {
            endpoint: self.endpoint.to_string(),
            original: self.original(call, reason),
            reason: reason.to_owned(),
        }
    }

    fn broken_by(&self, call: &Call, error: &hyper::Error) -> Error {
        let source = std::error::Error::source(error);
        let source = source.and_then(|source| source.downcast_ref::<io::Error>());
        match source.and_then(|source| self.dial.explain(source)) {
            Some(no_way) => Error::NoWay(no_way),
            None => self.broken(call, &reason(error)),
        }
    }

    /// `Get "http://127.0.0.1:1/fleet/v1/state?alt=json": what`
    fn original(&self, call: &Call, what: &str) -> String {
        let method = match call.method {
            Method::GET => "Get",
            Method::PUT => "Put",
            Method::DELETE => "Delete",
            Method::PATCH => "Patch",
            _ => "Post",
        };
        let separator = if call.path.contains('?') { '&' } else { '?' };
        let base = self.endpoint.url_base();
        format!(
            "{method} \"{base}{}{separator}alt=json\": {what}",
            call.path
        )
    }
}

/// An answer's head, and the connection that it came on.
struct Answer {
    response: Response<Incoming>,
    connection: SendRequest<Full<Bytes>>,
}

/// A request.
struct Call {
    method: Method,
    /// With the API's base path and the query.
    path: String,
    body: Option<Bytes>,
}

impl Call {
    fn get(path: String) -> Call {
        Call {
            method: Method::GET,
            path,
            body: None,
        }
    }

    fn with_json(method: Method, path: String, body: &impl Serialize) -> Call {
        Call {
            method,
            path,
            body: Some(Bytes::from(crate::v1::to_json(body))),
        }
    }

    fn request(&self, client: &Client) -> Result<Request<Full<Bytes>>, String> {
        let (host, base) = match &client.endpoint {
            Endpoint::Unix(_) => ("domain-sock".to_owned(), ""),
            Endpoint::Tcp(tcp) => (tcp.authority(), tcp.base.as_str()),
        };
        let mut request = Request::builder()
            .method(&self.method)
            .uri(format!("{base}{}", self.path))
            .header("Host", host)
            .header("User-Agent", concat!("fleet/", env!("CARGO_PKG_VERSION")));
        if self.body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        if let Some(authorization) = &client.authorization {
            request = request.header("Authorization", authorization);
        }
        for (name, value) in &client.headers {
            request = request.header(*name, value);
        }
        request
            .body(Full::new(self.body.clone().unwrap_or_default()))
            .map_err(|error| error.to_string())
    }
}

/// The text of a `Warning` header: `199 fleet "text"`.
fn warning_text(header: &str) -> String {
    let quoted = header
        .split_once('"')
        .and_then(|(_, rest)| rest.strip_suffix('"'));
    let Some(quoted) = quoted else {
        return header.to_owned();
    };
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

/// hyper's errors say the reason in their source.
fn reason(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() {
        return "EOF".to_owned();
    }
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// A panic elsewhere does not make our lists wrong.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A unit's name as a part of a path.
fn escape(name: &str) -> impl std::fmt::Display + '_ {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const SET: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'@')
        .remove(b':');
    utf8_percent_encode(name, SET)
}

#[cfg(test)]
mod tests;
