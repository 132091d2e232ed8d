//! From an HTTP request to an answer: ids, bodies, errors, headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION, SERVER, WARNING};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use fleet_api::error::ErrorBody;
use fleet_api::v2::BASE;
use fleet_api::{MAX_REQUEST_ID_BYTES, REQUEST_ID_HEADER};
use fleet_pki::Identity;

use super::failure::Failure;
use super::metrics::{self, Answered};
use super::path::{Route, V1, query, route};
use super::permit::Permit;
use super::{Api, browser, page, v1, v2};
use crate::access::{BEHALF_HEADER, Caller};
use crate::failpoint::{self, Failed};

/// Largest body of v1: a unit file of the greatest size, every character of it escaped, and
/// the names of its options.
pub(crate) const MAX_V1_BODY: usize = 2 << 20;

/// Largest body of v2: a batch of 1,000 ordinary units; clients with larger ones split them.
pub(crate) const MAX_V2_BODY: usize = 16 << 20;

/// So much of a body that nobody wants is read all the same, so that the client gets to read the
/// answer: closing a connection with unread data resets it.
const MAX_DISCARDED: usize = 64 << 20;

/// Largest head that is looked at; fleet's own are a few hundred bytes. A head that is larger
/// than a connection's buffer is refused there already, without a message.
const MAX_HEAD: usize = 64 << 10;

/// A body must arrive by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// More warnings in one answer help nobody, and clients bound the size of a head.
const MAX_WARNINGS: usize = 20;

/// A request whose path and query are understood.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Vec<(String, String)>,
    /// Who asks, and what that one may do.
    pub(crate) permit: Arc<Permit>,
    /// The certificate that was shown, if one was.
    pub(crate) identity: Option<Arc<Identity>>,
    /// Unique; begins with the client's own id if it gave one.
    pub(crate) request_id: String,
}

/// A success, or a failure as an answer.
pub(crate) type Answer = Result<Reply, Failure>;

/// A success.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) location: Option<HeaderValue>,
    /// Further headers.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) warnings: Vec<String>,
}

impl Reply {
    /// 200 with JSON in the original's form.
    pub(crate) fn json<T: serde::Serialize>(value: &T) -> Reply {
        Reply::text("application/json", fleet_api::v1::to_json(value))
    }

    /// 200 with a body.
    pub(crate) fn text(content_type: &'static str, body: impl Into<Body>) -> Reply {
        Reply {
            status: StatusCode::OK,
            content_type: Some(content_type),
            location: None,
            headers: HeaderMap::new(),
            body: body.into(),
            warnings: Vec::new(),
        }
    }

    /// A status without a body.
    pub(crate) fn empty(status: StatusCode) -> Reply {
        Reply {
            status,
            content_type: None,
            location: None,
            headers: HeaderMap::new(),
            body: Body::empty(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn with_warnings(self, warnings: Vec<String>) -> Reply {
        Reply { warnings, ..self }
    }
}

impl Call {
    /// The first value of a parameter.
    pub(crate) fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters(key).next()
    }

    /// All values of a parameter.
    pub(crate) fn parameters(&self, key: &str) -> impl Iterator<Item = &str> {
        self.query
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Answers a request.
pub(crate) async fn serve(state: &Api, request: Request) -> Response<Body> {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let head_size = head_size(&parts);
    let client_id = client_id(&parts.headers);
    let unique = state.ids.next();
    let expects = parts.headers.contains_key(hyper::header::EXPECT);
    let mut body = RequestBody::new(body, &parts.headers);
    let caller = parts.extensions.get::<Caller>().cloned();
    let behalf = parts.headers.get(BEHALF_HEADER);
    let asked_by_us = browser::check(&parts.headers, caller.as_ref());
    let (policy, trust) = (state.access.policy(), Arc::clone(&state.trust.borrow()));
    let (permit, permitted) = Permit::new(caller, behalf, policy, trust);
    let call = Call {
        method: parts.method,
        query: query(parts.uri.query()),
        permit: Arc::new(permit),
        identity: parts.extensions.get::<Arc<Identity>>().cloned(),
        request_id: match &client_id {
            Some(id) => format!("{id}.{unique}"),
            None => unique.clone(),
        },
        headers: parts.headers,
    };
    let shown_id = client_id.unwrap_or(unique);
    let path = parts.uri.path();
    let found = route(path);
    let is_v2 = matches!(found, Route::V2(_) | Route::NoV2);
    let handler = metrics::handler(&found);
    // What a client says that it will send is not yet sent: no more counts than is ever read.
    let claimed = body.length.unwrap_or(0).min(MAX_DISCARDED as u64);
    let received = head_size as u64 + claimed;
    let permitted = permitted.and(asked_by_us);
    let permitted = permitted.and_then(|()| call.permit.check_request(&found, &call.method));
    let answer = match found {
        _ if head_size > MAX_HEAD => Err(Failure::new(
            431,
            format!("request head too large (max {MAX_HEAD} bytes)"),
        )),
        _ if permitted.is_err() => permitted.map(|()| Reply::empty(StatusCode::FORBIDDEN)),
        Route::Unclean(clean) => Ok(moved(&call, &clean, parts.uri.query())),
        Route::Metrics => Ok(Reply::text("text/plain; version=0.0.4", (state.metrics)())),
        Route::V1(V1::Discovery) => discovery(&call),
        Route::BadEscape(escape) => Err(Failure::bad_request(format!(
            "invalid URL escape {escape:?}"
        ))),
        Route::Base => page::base(&call),
        Route::Page(asset) => page::serve(&call, asset),
        Route::Nothing => Err(Failure::new(404, "")),
        Route::NoV2 => Err(Failure::new(404, "no such resource in API v2")),
        Route::V1(resource) => v1::serve(state, &call, &mut body, resource).await,
        Route::V2(resource) => v2::serve(state, &call, &mut body, resource).await,
    };
    // Whoever waits for "100 Continue" has not sent its body.
    if !(expects && body.is_untouched) {
        body.discard().await;
    }
    if let Some(denials) = &state.denials {
        let denied = call.permit.take_denied();
        denied.into_iter().for_each(|denial| denials.note(denial));
    }
    let failed = |failed: Failed| Failure::new(503, failed.to_string());
    let answer = failpoint::call("api", "reply", async { answer }, failed).await;
    let response = match answer {
        Ok(reply) => success(state, reply),
        Err(failure) => error(state, &call, path, &failure, &shown_id, is_v2),
    };
    state.counters.note(&Answered {
        handler,
        method: metrics::method(&call.method),
        code: response.status().as_u16(),
        took: began.elapsed(),
        received,
        sent: response.body().size_hint().exact().unwrap_or(0),
    });
    response
}

/// Answers somebody who has no certificate: only what gets one is there.
pub(crate) async fn serve_newcomer(state: &Api, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut body = RequestBody::new(body, &parts.headers);
    let from = match parts.extensions.get::<Caller>() {
        Some(Caller::Anonymous(address)) => Some(address.ip()),
        _ => None,
    };
    let is_join = parts.uri.path() == format!("{BASE}/join") && parts.method == Method::POST;
    let answer = match is_join {
        true => v2::certificates::join(state, from, &mut body).await,
        false => Err(Failure::new(
            403,
            "without a certificate of the cluster there is nothing but POST /fleet/v2/join",
        )),
    };
    match answer {
        Ok(reply) => success(state, reply),
        Err(failure) => {
            info!(
                from = from.map(|from| from.to_string()),
                reason = failure.message,
                "a newcomer was refused: {}",
                failure.message
            );
            let body = ErrorBody::new(failure.status, failure.full_message());
            let mut response = Response::new(Body::from(fleet_api::v1::to_json(&body)));
            *response.status_mut() =
                StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
    }
}

/// About what the head has taken on the wire.
fn head_size(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(1, |p| p.as_str().len());
    let headers = parts.headers.iter();
    target
        + headers
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum::<usize>()
}

fn discovery(call: &Call) -> Answer {
    if call.method != Method::GET {
        return Err(Failure::bad_request(
            "only HTTP GET supported against this resource",
        ));
    }
    Ok(Reply::text(
        "application/json",
        fleet_api::discovery::DOCUMENT,
    ))
}

fn success(state: &Api, reply: Reply) -> Response<Body> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if let Some(content_type) = reply.content_type {
        let value = HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    if let Some(location) = reply.location {
        response.headers_mut().insert(LOCATION, location);
    }
    set_server(state, &mut response);
    let n_left = reply.warnings.len().saturating_sub(MAX_WARNINGS);
    for warning in reply.warnings.iter().take(MAX_WARNINGS) {
        add_warning(&mut response, warning);
    }
    if n_left > 0 {
        add_warning(&mut response, &format!("and {n_left} more"));
    }
    response
}

fn error(
    state: &Api,
    call: &Call,
    path: &str,
    failure: &Failure,
    id: &str,
    is_v2: bool,
) -> Response<Body> {
    if failure.status >= 500 {
        warn!(request = id, method = %call.method, path, status = failure.status,
              reason = failure.full_message(), "a request failed");
    } else {
        debug!(request = id, method = %call.method, path, status = failure.status,
               reason = failure.full_message(), "a request was refused");
    }
    let body = match is_v2 {
        true => ErrorBody::new(failure.status, failure.full_message()).with_request_id(id),
        false => ErrorBody::new(failure.status, failure.message.as_str()),
    };
    let mut response = Response::new(Body::from(fleet_api::v1::to_json(&body)));
    if let (false, Some(detail)) = (is_v2, &failure.detail) {
        add_warning(&mut response, detail);
    }
    *response.status_mut() =
        StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID_HEADER, id);
    }
    // The original's 503 comes from before the layer that names the server.
    if failure.status != 503 {
        set_server(state, &mut response);
    }
    response
}

/// 301 with the HTML that Go's router sends.
fn moved(call: &Call, clean: &str, query: Option<&str>) -> Reply {
    let to = match query.filter(|query| !query.is_empty()) {
        Some(query) => format!("{clean}?{query}"),
        None => clean.to_owned(),
    };
    let escaped = to
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;");
    let is_read = matches!(call.method, Method::GET | Method::HEAD);
    let body = match call.method {
        Method::GET => format!("<a href=\"{escaped}\">Moved Permanently</a>.\n\n"),
        _ => String::new(),
    };
    Reply {
        status: StatusCode::MOVED_PERMANENTLY,
        content_type: is_read.then_some("text/html; charset=utf-8"),
        location: HeaderValue::from_str(&to).ok(),
        ..Reply::text("", body)
    }
}

fn set_server(state: &Api, response: &mut Response<Body>) {
    if let Ok(server) = HeaderValue::from_str(&state.server) {
        response.headers_mut().insert(SERVER, server);
    }
}

/// `199 fleet "text"`, in ASCII.
fn add_warning(response: &mut Response<Body>, text: &str) {
    let mut value = String::from("199 fleet \"");
    for c in text.chars() {
        match c {
            '"' | '\\' => value.extend(['\\', c]),
            ' '..='~' => value.push(c),
            c => value.extend(c.escape_unicode().flat_map(|c| match c {
                '\\' => vec!['\\', '\\'],
                c => vec![c],
            })),
        }
    }
    value.push('"');
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().append(WARNING, value);
    }
}

/// The id that the client chose, if it is one.
fn client_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID_HEADER)?.to_str().ok()?;
    let is_id = (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_id.then(|| id.to_owned())
}

/// Ids of requests: unique in this process, and by chance anywhere. A unit remembers those that
/// were carried out, so that two of the same name would be one.
pub(crate) struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> RequestIds {
        let random = crate::clock::uuid().unwrap_or_else(|_| {
            let start = crate::clock::boottime().as_nanos() as u64 ^ crate::clock::unix_ms() << 20;
            format!("{start:016x}")
        });
        let digits: Vec<char> = random.chars().filter(char::is_ascii_hexdigit).collect();
        // 16 digits are 62 random bits.
        let prefix = digits[digits.len().saturating_sub(16)..].iter().collect();
        RequestIds {
            prefix,
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.prefix)
    }
}

/// A body that has not been read yet, or no more than in part.
pub(crate) struct RequestBody {
    body: Option<Body>,
    /// What the client says.
    length: Option<u64>,
    is_untouched: bool,
}

impl RequestBody {
    fn new(body: Body, headers: &HeaderMap) -> RequestBody {
        let length = headers
            .get(hyper::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        RequestBody {
            body: Some(body),
            length,
            is_untouched: true,
        }
    }

    /// The whole body.
    pub(crate) async fn read(&mut self, limit: usize) -> Result<Bytes, Failure> {
        let too_large = || {
            let message = format!("request body too large (max {limit} bytes)");
            Failure::new(413, message)
        };
        if self.length.is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        self.is_untouched = false;
        let Some(body) = &mut self.body else {
            return Ok(Bytes::new());
        };
        let read = async {
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| {
                    Failure::bad_request(format!("unable to read the request body: {error}"))
                })?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() + data.len() > limit {
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(Bytes::from(bytes))
        };
        let bytes = tokio::time::timeout(BODY_TIMEOUT, read)
            .await
            .map_err(|_| late())??;
        self.body = None;
        Ok(bytes)
    }

    /// Reads what nobody wanted, within bounds.
    async fn discard(&mut self) {
        let Some(mut body) = self.body.take() else {
            return;
        };
        let discard = async {
            let mut n_bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                n_bytes += frame.data_ref().map_or(0, Bytes::len);
                if n_bytes > MAX_DISCARDED {
                    return;
                }
            }
        };
        // After the time is up hyper closes the connection, which is all that is left to do.
        let _ = tokio::time::timeout(BODY_TIMEOUT, discard).await;
    }
}

fn late() -> Failure {
    let seconds = BODY_TIMEOUT.as_secs();
    Failure::new(
        408,
        format!("the request body did not arrive within {seconds} s"),
    )
}
