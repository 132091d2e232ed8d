//! What the API counts: requests, their time and sizes, under the names that the original had for
//! `/metrics` itself (`handler="prometheus"`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;

use super::path::{Route, V1, V2};
use crate::metrics::{Kind, Labels, Source, Text};

/// Counters of the API, from the start of the process. Bounded: handlers and methods are those
/// below, codes those that fleetd sends.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    handlers: Mutex<BTreeMap<&'static str, Handler>>,
}

#[derive(Debug, Default)]
struct Handler {
    /// By code and method.
    requests: BTreeMap<(u16, &'static str), u64>,
    count: u64,
    micros: u64,
    received: u64,
    sent: u64,
}

/// One request that is answered.
pub(crate) struct Answered {
    pub(crate) handler: &'static str,
    pub(crate) method: &'static str,
    pub(crate) code: u16,
    pub(crate) took: Duration,
    /// Head and body, as far as they are known beforehand.
    pub(crate) received: u64,
    /// The body, if its size is known beforehand.
    pub(crate) sent: u64,
}

impl ApiMetrics {
    pub(crate) fn note(&self, answered: &Answered) {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let handler = handlers.entry(answered.handler).or_default();
        let key = (answered.code, answered.method);
        *handler.requests.entry(key).or_default() += 1;
        handler.count += 1;
        handler.micros += u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX);
        handler.received += answered.received;
        handler.sent += answered.sent;
    }
}

/// The label of what a path names.
pub(crate) fn handler(route: &Route) -> &'static str {
    match route {
        Route::Metrics => "prometheus",
        Route::Page(_) => "ui",
        Route::V1(V1::Machines) => "machines",
        Route::V1(V1::Units | V1::Unit(_)) => "units",
        Route::V1(V1::States | V1::State(_)) => "state",
        Route::V1(V1::Discovery) => "discovery",
        Route::V2(
            V2::Machines | V2::Machine(_) | V2::UnitsOfMachine(_) | V2::UnitOnMachine(..),
        ) => "v2/machines",
        Route::V2(V2::Units | V2::Unit(_) | V2::UnitStatus(_)) => "v2/units",
        Route::V2(V2::Cluster) => "v2/cluster",
        Route::V2(V2::Events) => "v2/events",
        Route::V2(V2::Journal) => "v2/journal",
        Route::V2(V2::WatchUnits) => "v2/watch/units",
        Route::V2(V2::Thaw) => "v2/thaw",
        Route::V2(V2::AcceptStore) => "v2/accept-store",
        Route::V2(V2::Join) => "v2/join",
        Route::V2(V2::JoinTokens) => "v2/join-tokens",
        Route::V2(V2::Certificates) => "v2/certificates",
        Route::V2(V2::Revocations) => "v2/revocations",
        Route::V2(V2::Whoami) => "v2/whoami",
        Route::V2(V2::Wait) => "v2/wait",
        Route::V2(V2::OpenApi) => "v2/openapi.json",
        Route::Unclean(_) | Route::BadEscape(_) | Route::Base | Route::NoV2 | Route::Nothing => {
            "none"
        }
    }
}

/// The label of a method, in lower case as the original's.
pub(crate) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::PUT => "put",
        Method::POST => "post",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}

impl Source for ApiMetrics {
    #[expect(clippy::cast_precision_loss, reason = "counters are far below 2^52")]
    fn collect(&self, text: &mut Text) {
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut requests: Vec<([(&str, String); 3], f64)> = Vec::new();
        for (name, handler) in &*handlers {
            for ((code, method), n) in &handler.requests {
                let labels = [
                    ("code", code.to_string()),
                    ("handler", (*name).to_owned()),
                    ("method", (*method).to_owned()),
                ];
                requests.push((labels, *n as f64));
            }
        }
        let labels: Vec<[(&str, &str); 3]> = requests
            .iter()
            .map(|(labels, _)| labels.each_ref().map(|(key, value)| (*key, value.as_str())))
            .collect();
        let rows: Vec<(Labels<'_>, f64)> = labels
            .iter()
            .zip(&requests)
            .map(|(labels, (_, n))| (labels.as_slice(), *n))
            .collect();
        text.family(
            "http_requests_total",
            Kind::Counter,
            "Total number of HTTP requests made.",
            &rows,
        );
        let labels: Vec<[(&str, &str); 1]> =
            handlers.keys().map(|name| [("handler", *name)]).collect();
        let mut summary = |name, help, sum: fn(&Handler) -> u64| {
            let rows: Vec<(Labels<'_>, f64, f64)> = labels
                .iter()
                .zip(handlers.values())
                .map(|(labels, handler)| {
                    (labels.as_slice(), sum(handler) as f64, handler.count as f64)
                })
                .collect();
            text.summaries(name, help, &rows);
        };
        summary(
            "http_request_duration_microseconds",
            "The HTTP request latencies in microseconds.",
            |handler| handler.micros,
        );
        summary(
            "http_request_size_bytes",
            "The HTTP request sizes in bytes.",
            |handler| handler.received,
        );
        summary(
            "http_response_size_bytes",
            "The HTTP response sizes in bytes.",
            |handler| handler.sent,
        );
    }
}
