//! What etcd's answers and the transport's faults mean.
//!
//! gRPC's codes say little (`Unavailable` is said before and after a write was proposed), so that
//! etcd's messages are matched. They have been the same since 3.0; the list is in its
//! `rpctypes/error.go`.

use std::error::Error as _;

use etcd_client::Error as EtcdError;

use crate::store::{Error, Revision};

/// What became of a request that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// etcd answered, and this is its answer: no other endpoint has another one.
    Answer,
    /// This endpoint cannot serve it; nothing was written.
    NotDone,
    /// The connection broke or etcd gave up: nobody knows.
    Unknown,
}

/// What failed and how; `endpoint` is named.
pub(super) fn classify(endpoint: &str, error: &EtcdError) -> (Fault, Error) {
    let at = |why: &str| format!("etcd {endpoint}: {why}");
    let status = match error {
        EtcdError::GRpcStatus(status) => status,
        EtcdError::LeaseKeepAliveError(why) if why == "lease not found" => {
            return (Fault::Answer, Error::LeaseGone);
        }
        other => return (Fault::Unknown, Error::Unavailable(at(&chain(other)))),
    };
    let said = status.message();
    let word = said.strip_prefix("etcdserver: ").unwrap_or(said);
    let answer = |error| (Fault::Answer, error);
    match word {
        "requested lease not found" => answer(Error::LeaseGone),
        "mvcc: required revision has been compacted" => answer(Error::Compacted(0)),
        "mvcc: required revision is a future revision" => answer(Error::Refused(at(
            "the revision is not yet reached; was the store replaced?",
        ))),
        "mvcc: database space exceeded" => answer(Error::NoSpace(at(
            "its database has reached its quota: compact and defragment it (`etcdctl compact`, \
             `etcdctl defrag`), raise --quota-backend-bytes, then `etcdctl alarm disarm`",
        ))),
        "too many operations in txn request"
        | "request is too large"
        | "duplicate key given in txn request" => answer(Error::Refused(at(word))),
        "authentication failed, invalid user ID or password" => answer(Error::Unavailable(at(
            "it does not know this user or password: check etcd_username and etcd_password",
        ))),
        "permission denied" => answer(Error::Unavailable(at(
            "its user may not touch fleet's keys: grant a role with readwrite on etcd_key_prefix",
        ))),
        "user name is empty" => answer(Error::Unavailable(at(
            "it wants a user: set etcd_username and etcd_password",
        ))),
        "no leader" | "too many requests" | "server stopped" | "not capable" => {
            (Fault::NotDone, Error::Unavailable(at(word)))
        }
        _ if was_refused(status) => (Fault::NotDone, Error::Unavailable(at(&reason(status)))),
        _ => match status.code() {
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
                answer(Error::Refused(at(&format!("{SIZE}: {word}"))))
            }
            tonic::Code::DataLoss => (Fault::Unknown, Error::Unavailable(at(word))),
            tonic::Code::InvalidArgument
            | tonic::Code::FailedPrecondition
            | tonic::Code::Unimplemented => answer(Error::Refused(at(word))),
            _ => (Fault::Unknown, Error::Unavailable(at(&reason(status)))),
        },
    }
}

/// etcd runs without authentication although a user is configured.
pub(super) fn is_auth_off(error: &EtcdError) -> bool {
    matches!(error, EtcdError::GRpcStatus(status) if status.message().ends_with("authentication is not enabled"))
}

/// A token that etcd no longer takes, in the words of a cancelled watch.
pub(super) fn is_stale_token(why: &str) -> bool {
    [
        "permission denied",
        "invalid auth token",
        "revision of auth store is old",
    ]
    .iter()
    .any(|said| why.contains(said))
}

/// Whether a smaller page may succeed.
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Refused(why) if why.contains(SIZE))
}

/// Whether the answer did not come in time.
pub(super) fn is_late(error: &Error) -> bool {
    matches!(error, Error::Unavailable(why) if why.contains(TIMEOUT))
}

/// Names the revision that was asked for: etcd does not say what it still has.
pub(super) fn with_revision(error: Error, asked: Option<Revision>) -> Error {
    match error {
        Error::Compacted(0) => Error::Compacted(asked.map_or(0, |asked| asked + 1)),
        other => other,
    }
}

/// What a request that took too long is told.
pub(super) const TIMEOUT: &str = "no answer within";

const SIZE: &str = "too large for one message";

/// Whether no connection was made: then nothing was sent.
fn was_refused(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A status in words: its message, or its innermost cause when it broke on the way.
fn reason(status: &tonic::Status) -> String {
    let mut innermost = None;
    let mut source = status.source();
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    innermost.unwrap_or_else(|| format!("{:?}: {}", status.code(), status.message()))
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let why = error.to_string();
        if !said.ends_with(&why) {
            said = format!("{said}: {why}");
        }
        source = error.source();
    }
    said
}
