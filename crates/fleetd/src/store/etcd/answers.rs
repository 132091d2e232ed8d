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
pub(super) fn revision_of(header: Option<&ResponseHeader>) -> Result<Revision, EtcdError> {
    match header.map(ResponseHeader::revision) {
        Some(at) if at > 0 => Ok(revision(at)),
        _ => nonsense("it does not say of which revision it is"),
    }
}

/// A page of at most `limit` keys in `[start, end)`, in their order.
pub(super) fn page(
    answer: GetResponse,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<GetResponse, EtcdError> {
    let answer = inside(answer, start, end, limit)?;
    match answer.kvs().is_sorted_by(|a, b| a.key() < b.key()) {
        true => Ok(answer),
        false => nonsense("its keys are not in their order"),
    }
}

/// At most `limit` keys in `[start, end)`, the newest first.
pub(super) fn newest(
    answer: GetResponse,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<GetResponse, EtcdError> {
    let answer = inside(answer, start, end, limit)?;
    match answer.kvs().is_sorted_by_key(|kv| -kv.mod_revision()) {
        true => Ok(answer),
        false => nonsense("the newest key is not its first"),
    }
}

fn inside(
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
    if !kvs.iter().all(is_inside) {
        return nonsense("its keys are not those that were asked for");
    }
    match kvs.iter().all(is_written) {
        true => Ok(answer),
        false => nonsense("a key was never written"),
    }
}

/// What was read of these single keys, each in its place, and the revision.
pub(super) fn keys(
    answer: TxnResponse,
    asked: &[Vec<u8>],
) -> Result<(Revision, Vec<KeyValue>), EtcdError> {
    let at = revision_of(answer.header())?;
    if answer.0.responses.len() != asked.len() {
        return nonsense("it answers other questions than were asked");
    }
    let mut found = Vec::with_capacity(asked.len());
    for (response, key) in answer.0.responses.into_iter().zip(asked) {
        let Some(PbTxnOpResponse::ResponseRange(range)) = response.response else {
            return nonsense("it answers another question than was asked");
        };
        let range: Vec<PbKeyValue> = range.kvs;
        if range.len() > 1 || range.iter().any(|kv| kv.key != *key) {
            return nonsense("its keys are not those that were asked for");
        }
        found.extend(range.into_iter().map(KeyValue));
    }
    match found.iter().all(is_written) {
        true => Ok((at, found)),
        false => nonsense("a key was never written"),
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

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbRangeResponse, PbResponseHeader, PbResponseOp, PbTxnResponse};

    use super::*;

    fn header(revision: i64) -> PbResponseHeader {
        PbResponseHeader {
            revision,
            ..PbResponseHeader::default()
        }
    }

    /// What each question was answered with.
    fn answer(answers: &[&[&str]]) -> TxnResponse {
        let kv = |key: &&str| PbKeyValue {
            key: key.as_bytes().to_vec(),
            create_revision: 1,
            mod_revision: 1,
            ..PbKeyValue::default()
        };
        let responses = answers.iter().map(|keys| PbResponseOp {
            response: Some(PbTxnOpResponse::ResponseRange(PbRangeResponse {
                kvs: keys.iter().map(kv).collect(),
                ..PbRangeResponse::default()
            })),
        });
        TxnResponse(PbTxnResponse {
            header: Some(header(7)),
            succeeded: true,
            responses: responses.collect(),
        })
    }

    /// One key in the place of another would be taken for a damaged record, or for none.
    #[test]
    fn each_key_is_answered_in_its_place() {
        let asked = [b"a".to_vec(), b"b".to_vec()];
        let n_found = |answers: &[&[&str]]| keys(answer(answers), &asked).map(|it| it.1.len());
        assert_eq!(n_found(&[&["a"], &["b"]]).unwrap(), 2);
        assert_eq!(n_found(&[&[], &["b"]]).unwrap(), 1);
        assert_eq!(n_found(&[&[], &[]]).unwrap(), 0);
        for nonsense in [
            &[&["b"][..], &["a"]][..],
            &[&["b"], &[]],
            &[&["a", "b"], &[]],
            &[&["a"]],
            &[&["a"], &["c"]],
        ] {
            assert!(n_found(nonsense).is_err(), "{nonsense:?}");
        }
    }

    /// A watch that begins nowhere would have seen everything, or nothing.
    #[test]
    fn an_answer_says_of_which_revision_it_is() {
        assert!(revision_of(None).is_err());
        let of = |at| revision_of(Some(&ResponseHeader(header(at))));
        assert!(of(0).is_err());
        assert_eq!(of(7).unwrap(), 7);
    }
}
