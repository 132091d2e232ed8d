//! What can go wrong between a client and fleetd.

use std::io;
use std::time::Duration;

use super::dial::NoWay;

/// Failures of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("unable to reach fleetd at {endpoint}: {}", plain(.source))]
    Connect {
        /// Where.
        endpoint: String,
        /// As the original shows it.
        original: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to fleetd at {endpoint} broke: {reason}")]
    Broken {
        /// Where.
        endpoint: String,
        /// As the original shows it.
        original: String,
        /// Why.
        reason: String,
    },
    /// The way itself failed: a tunnel that did not come up or broke.
    #[error(transparent)]
    NoWay(NoWay),
    /// No answer in time.
    #[error("fleetd at {endpoint} has not answered for {} s", .after.as_secs_f32())]
    Timeout {
        /// Where.
        endpoint: String,
        /// As the original shows it.
        original: String,
        /// How long.
        after: Duration,
    },
    /// fleetd says no.
    #[error("{}", answer(*.code, .message, .request_id))]
    Answer {
        /// HTTP status.
        code: u16,
        /// Its message; may be empty from an original fleetd.
        message: String,
        /// Names the request in fleetd's log; empty from an original fleetd.
        request_id: String,
        /// The whole body.
        body: String,
    },
    /// This fleetd has no API v2: fall back to v1.
    #[error("this fleetd has no API v2")]
    NoV2,
    /// The answer is not what the API promises.
    #[error("fleetd at {endpoint} answered what is not fleet's API: {reason}")]
    Protocol {
        /// Where.
        endpoint: String,
        /// Why.
        reason: String,
    },
}

/// What every fleetd says while its store is away.
const STORE_AWAY: &str = "fleet server unable to communicate with etcd";

impl Error {
    /// The HTTP status, if fleetd answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Answer { code, .. } => Some(*code),
            Error::NoV2 => Some(404),
            _ => None,
        }
    }

    /// fleetd says that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Answer { code: 404, .. })
    }

    /// Why fleetd cannot use its store, if it says so. The original had one sentence for it, which
    /// people's scripts know; API v2 has the reason behind it.
    pub fn store_trouble(&self) -> Option<&str> {
        match self {
            Error::Answer {
                code: 503, message, ..
            } => message.strip_prefix(STORE_AWAY)?.strip_prefix(": "),
            _ => None,
        }
    }

    /// As the original's client shows it, for messages that must read the same:
    /// `googleapi: Error 404: unit does not exist`, `Get "http://…": dial tcp …`.
    pub fn original_form(&self) -> String {
        match self {
            Error::Connect { original, .. }
            | Error::Broken { original, .. }
            | Error::Timeout { original, .. } => original.clone(),
            Error::Answer {
                code,
                message,
                body,
                ..
            } if message.is_empty() => {
                format!("googleapi: got HTTP response code {code} with body: {body}")
            }
            Error::Answer { .. } if self.store_trouble().is_some() => {
                format!("googleapi: Error 503: {STORE_AWAY}")
            }
            Error::Answer { code, message, .. } => format!("googleapi: Error {code}: {message}"),
            Error::NoWay(_) | Error::NoV2 | Error::Protocol { .. } => self.to_string(),
        }
    }
}

fn answer(code: u16, message: &str, request_id: &str) -> String {
    let mut text = match message {
        "" => format!("fleetd answered {code} without a reason"),
        message => message.to_owned(),
    };
    if !request_id.is_empty() && code >= 500 {
        text.push_str(&format!(" (request {request_id})"));
    }
    text
}

/// The reason of an I/O error without `(os error 2)`, in lower case as Go writes it.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_as_the_originals() {
        let error = |message: &str| Error::Answer {
            code: 500,
            message: message.into(),
            request_id: "r1".into(),
            body: format!(r#"{{"error":{{"code":500,"message":"{message}"}}}}"#),
        };
        assert_eq!(
            error("").original_form(),
            r#"googleapi: got HTTP response code 500 with body: {"error":{"code":500,"message":""}}"#
        );
        assert_eq!(error("no").original_form(), "googleapi: Error 500: no");
        assert_eq!(error("no").to_string(), "no (request r1)");
        assert_eq!(
            error("").to_string(),
            "fleetd answered 500 without a reason (request r1)"
        );
    }

    #[test]
    fn why_the_store_is_away_stands_apart_from_the_originals_sentence() {
        let error = |code, message: &str| Error::Answer {
            code,
            message: message.into(),
            request_id: String::new(),
            body: String::new(),
        };
        let away = error(503, &format!("{STORE_AWAY}: etcd http://a: no connection"));
        assert_eq!(
            away.original_form(),
            format!("googleapi: Error 503: {STORE_AWAY}")
        );
        assert_eq!(away.store_trouble(), Some("etcd http://a: no connection"));
        for (code, message) in [(503, STORE_AWAY), (503, "a: b"), (500, "a: b")] {
            let other = error(code, message);
            assert_eq!(
                other.original_form(),
                format!("googleapi: Error {code}: {message}")
            );
            assert_eq!(other.store_trouble(), None);
        }
    }

    #[test]
    fn reasons_of_the_kernel_read_as_gos() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(plain(&error), "no such file or directory");
    }
}
