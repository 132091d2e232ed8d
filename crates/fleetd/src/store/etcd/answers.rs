//! Whether an answer can be one. What listens at etcd's address may be broken, or something else:
//! whatever was left out of an answer would be taken for absent, a page that leads nowhere would be
//! asked for again for ever. Such an answer is an error of the endpoint, which is left.

use std::time::Duration;

use etcd_client::proto::{PbKeyValue, PbTxnOpResponse};
use etcd_client::{
    Error as EtcdError, Event, EventType, GetResponse, KeyValue, LeaseGrantResponse,
    LeaseKeepAliveResponse, ResponseHeader, TxnResponse,
};

use super::leases::seconds;
use super::revision;
use crate::store::{LeaseId, Revision};

/// etcd's word for "to the last key".
const LAST_KEY: &[u8] = b"\0";

/// An answer that makes no sense.
fn nonsense<T>(why: &str) -> Result<T, EtcdError> {
    let why = format!("its answer makes no sense: {why}; is it an etcd?");
    Err(EtcdError::GRpcStatus(tonic::Status::data_loss(why)))
}

/// The revision that an answer is of.
fn revision_of(header: Option<&ResponseHeader>) -> Result<Revision, EtcdError> {
    match header.map(ResponseHeader::revision) {
        Some(at) if at > 0 => Ok(revision(at)),
        _ => nonsense("it does not say of which revision it is"),
    }
}

/// A page of at most `limit` keys in `[start, end)`.
pub(super) fn page(
    answer: GetResponse,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<GetResponse, EtcdError> {
    revision_of(answer.header())?;
    let kvs = answer.kvs();
    if kvs.len() > limit {
        return nonsense("it has more keys than were asked for");
    }
    if answer.more() && kvs.is_empty() {
        return nonsense("more keys follow, and it has none");
    }
    let is_inside = |kv: &KeyValue| kv.key() >= start && (end == LAST_KEY || kv.key() < end);
    if !kvs.iter().all(is_inside) || !kvs.is_sorted_by(|a, b| a.key() < b.key()) {
        return nonsense("its keys are not those that were asked for, in their order");
    }
    match kvs.iter().all(is_written) {
        true => Ok(answer),
        false => nonsense("a key was never written"),
    }
}

/// What was read of so many single keys, and the revision.
pub(super) fn keys(
    answer: TxnResponse,
    n_keys: usize,
) -> Result<(Revision, Vec<KeyValue>), EtcdError> {
    let at = revision_of(answer.header())?;
    if answer.0.responses.len() != n_keys {
        return nonsense("it answers other questions than were asked");
    }
    let mut found = Vec::with_capacity(n_keys);
    for response in answer.0.responses {
        let Some(PbTxnOpResponse::ResponseRange(range)) = response.response else {
            return nonsense("it answers another question than was asked");
        };
        let range: Vec<PbKeyValue> = range.kvs;
        found.extend(range.into_iter().map(KeyValue));
    }
    match found.len() <= n_keys && found.iter().all(is_written) {
        true => Ok((at, found)),
        false => nonsense("its keys are not those that were asked for"),
    }
}

/// The revision of a transaction; None when a compare did not hold.
pub(super) fn commit(answer: &TxnResponse) -> Result<Option<Revision>, EtcdError> {
    let at = revision_of(answer.header())?;
    Ok(answer.succeeded().then_some(at))
}

/// A lease and its time. Keys under lease 0 would be under none.
pub(super) fn grant(answer: &LeaseGrantResponse) -> Result<(LeaseId, Duration), EtcdError> {
    match (answer.id(), answer.ttl()) {
        (0, _) | (_, ..=0) => nonsense("a lease without an id or a time"),
        (id, ttl) => Ok((LeaseId(id), seconds(ttl))),
    }
}

/// The time that a lease now has.
pub(super) fn renewal(
    answer: &LeaseKeepAliveResponse,
    lease: LeaseId,
) -> Result<Duration, EtcdError> {
    match answer.id() == lease.0 {
        true => Ok(seconds(answer.ttl())),
        false => nonsense("it renews another lease"),
    }
}

/// What happened to which key, and when.
pub(super) fn event(event: &Event) -> Result<(EventType, &KeyValue, Revision), EtcdError> {
    // Its own function for that panics at any other number.
    let kind = match event.0.r#type {
        0 => EventType::Put,
        1 => EventType::Delete,
        _ => return nonsense("an event of an unknown kind"),
    };
    match event.kv() {
        Some(kv) if kind == EventType::Delete && kv.mod_revision() > 0 || is_written(kv) => {
            Ok((kind, kv, revision(kv.mod_revision())))
        }
        _ => nonsense("an event without a key or a revision"),
    }
}

fn is_written(kv: &KeyValue) -> bool {
    kv.create_revision() > 0 && kv.mod_revision() >= kv.create_revision()
}
