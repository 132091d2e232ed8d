//! The fields of each document. Their names are a format: they are never given a new meaning.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use fleet_core::hash::UnitHash;
use fleet_core::records::{
    AssignmentRecord, Avoided, Decision, DesiredState, Failures, MachineId, MachineRecord,
    MachineWish, MemberRecord, MemberStatus, Order, PlacementRecord, Reached, Refusal, StateRecord,
    UnitRecord,
};
use serde::{Deserialize, Serialize};

use super::{
    AskedRecord, CertifiedRecord, ClusterRecord, FORMAT, IssuerRecord, LeaderRecord, RevokedRecord,
    Shape, UsedTokenRecord, base64, document, read, write, write_over,
};

/// What a document without its texts takes at most.
pub(super) const FRAME_BYTES: usize = 192;

/// Defines the serde struct of a record: `v`, then the fields under their own names.
macro_rules! shape {
    (
        $shape:ident<$a:lifetime> for $record:ty {
            $($(#[$meta:meta])* $field:ident: $type:ty,)*
        }
        of($from:ident) { $($init:tt)* }
        text { $hint:expr }
        record($doc:ident) { $($back:tt)* }
    ) => {
        #[derive(Serialize, Deserialize)]
        pub(super) struct $shape<$a> {
            v: u32,
            $($(#[$meta])* pub(super) $field: $type,)*
            #[serde(skip)]
            lifetime: std::marker::PhantomData<&$a ()>,
        }

        impl<$a> Shape<$a> for $shape<$a> {
            type Record = $record;
            const FIELDS: &'static [&'static str] = &["v", $(stringify!($field)),*];

            fn size_hint($from: &$record) -> usize {
                FRAME_BYTES + $hint
            }

            fn of($from: &$a $record) -> Self {
                $shape { v: FORMAT, $($init)*, lifetime: std::marker::PhantomData }
            }

            fn record(self) -> Result<$record, String> {
                let $doc = self;
                $($back)*
            }

            fn version(&mut self) -> &mut u32 {
                &mut self.v
            }
        }

        document!($record, $shape);
    };
}
pub(super) use shape;

shape! {
    UnitDoc<'a> for UnitRecord {
        desired: Word<'a>,
        hash: Word<'a>,
        #[serde(default, skip_serializing_if = "is_zero")]
        restarts: u64,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        prefer: Option<Word<'a>>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        request: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<Word<'a>>,
        #[serde(default, skip_serializing_if = "is_false")]
        buried: bool,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        by: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "is_zero")]
        changed: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        text: Cow<'a, str>,
    }
    of(record) {
        desired: Word(record.desired.as_str().into()),
        hash: hash_word(&record.hash),
        restarts: record.restarts,
        prefer: record.prefer.as_ref().map(|id| Word(id.as_str().into())),
        request: (&*record.request_id).into(),
        earlier: record.earlier_requests.iter().map(|id| Word(id.as_str().into())).collect(),
        buried: record.buried,
        by: (&*record.changed_by).into(),
        changed: record.changed_ms,
        text: (&*record.text).into()
    }
    text { record.text.len() + record.text.len() / 8 }
    record(doc) {
        Ok(UnitRecord {
            text: Arc::from(doc.text),
            hash: hash_of(&doc.hash)?,
            desired: known("desired", &doc.desired.0, DesiredState::parse)?,
            restarts: doc.restarts,
            prefer: doc.prefer.map(|id| MachineId::new(&id.0)),
            request_id: doc.request.into_owned(),
            earlier_requests: doc.earlier.into_iter().map(|id| id.0.into_owned()).collect(),
            buried: doc.buried,
            changed_by: doc.by.into_owned(),
            changed_ms: doc.changed,
        })
    }
}

shape! {
    PlacementDoc<'a> for PlacementRecord {
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        on: Option<Word<'a>>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        leaving: Option<Word<'a>>,
        at: (u64, u64),
        #[serde(default, skip_serializing_if = "is_zero")]
        since: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        reason: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        refused: Vec<(Word<'a>, u32)>,
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        passed_over: Vec<(Word<'a>, u32)>,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        considered: u32,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        assigned: u32,
        // Of a unit that is moved when it fails.
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        moves: u32,
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        failed_on: Vec<Word<'a>>,
        #[serde(default, skip_serializing_if = "is_zero")]
        next: u64,
        #[serde(default, skip_serializing_if = "is_false")]
        stays: bool,
    }
    of(record) {
        on: record.machine.as_ref().map(machine_word),
        leaving: record.leaving.as_ref().map(machine_word),
        at: pair(record.decision),
        since: record.since_ms,
        reason: (&*record.reason).into(),
        refused: refusal_words(&record.refusals),
        passed_over: refusal_words(&record.passed_over),
        considered: record.considered,
        assigned: record.assigned,
        moves: record.failures.moves,
        failed_on: record.failures.failed_on.iter().map(machine_word).collect(),
        next: record.failures.next_ms,
        stays: record.failures.stays
    }
    text { record.reason.len() }
    record(doc) {
        Ok(PlacementRecord {
            machine: machine_of("on", doc.on)?,
            leaving: machine_of("leaving", doc.leaving)?,
            decision: decision(doc.at),
            reason: doc.reason.into_owned(),
            refusals: refusals_of(doc.refused),
            passed_over: refusals_of(doc.passed_over),
            considered: doc.considered,
            assigned: doc.assigned,
            failures: Failures {
                moves: doc.moves,
                failed_on: doc.failed_on.iter().map(|id| MachineId::new(&id.0)).collect(),
                next_ms: doc.next,
                stays: doc.stays,
            },
            since_ms: doc.since,
        })
    }
}

shape! {
    AssignmentDoc<'a> for AssignmentRecord {
        order: Word<'a>,
        at: (u64, u64),
        hash: Word<'a>,
        #[serde(default, skip_serializing_if = "is_zero")]
        restarts: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        reason: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        text: Cow<'a, str>,
    }
    of(record) {
        order: Word(record.order.as_str().into()),
        at: pair(record.decision),
        hash: hash_word(&record.hash),
        restarts: record.restarts,
        reason: (&*record.reason).into(),
        text: (&*record.text).into()
    }
    text { record.reason.len() + record.text.len() + record.text.len() / 8 }
    record(doc) {
        Ok(AssignmentRecord {
            text: Arc::from(doc.text),
            hash: hash_of(&doc.hash)?,
            decision: decision(doc.at),
            order: known("order", &doc.order.0, Order::parse)?,
            restarts: doc.restarts,
            reason: doc.reason.into_owned(),
        })
    }
}

shape! {
    MachineDoc<'a> for MachineRecord {
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        boot: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        ip: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        api: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metadata: Cow<'a, BTreeMap<String, String>>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        version: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        format: u32,
        #[serde(default, skip_serializing_if = "is_false")]
        no_engine: bool,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        trouble: Option<Word<'a>>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        remark: Option<Word<'a>>,
    }
    of(record) {
        boot: (&*record.boot_id).into(),
        ip: (&*record.public_ip).into(),
        api: (&*record.api).into(),
        metadata: Cow::Borrowed(&record.metadata),
        version: (&*record.version).into(),
        format: record.format,
        no_engine: record.disable_engine,
        trouble: record.trouble.as_deref().map(|why| Word(why.into())),
        remark: record.remark.as_deref().map(|why| Word(why.into()))
    }
    text { metadata_bytes(&record.metadata) }
    record(doc) {
        Ok(MachineRecord {
            boot_id: doc.boot.into_owned(),
            public_ip: doc.ip.into_owned(),
            api: doc.api.into_owned(),
            metadata: doc.metadata.into_owned(),
            version: doc.version.into_owned(),
            format: doc.format,
            disable_engine: doc.no_engine,
            trouble: doc.trouble.map(|why| why.0.into_owned()),
            remark: doc.remark.map(|why| why.0.into_owned()),
        })
    }
}

shape! {
    MemberDoc<'a> for MemberRecord {
        status: Word<'a>,
        #[serde(default, skip_serializing_if = "is_zero")]
        since: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        first_seen: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        ip: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metadata: Cow<'a, BTreeMap<String, String>>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        reason: Cow<'a, str>,
        // Why, the revision, and how often it had been opened.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        avoided: Option<(Word<'a>, u64, u64)>,
    }
    of(record) {
        status: Word(record.status.as_str().into()),
        since: record.since_ms,
        first_seen: record.first_seen_ms,
        ip: (&*record.public_ip).into(),
        metadata: Cow::Borrowed(&record.metadata),
        reason: (&*record.reason).into(),
        avoided: record
            .avoided
            .as_ref()
            .map(|avoided| (Word((&*avoided.why).into()), avoided.revision, avoided.opened))
    }
    text { record.reason.len() + metadata_bytes(&record.metadata) }
    record(doc) {
        Ok(MemberRecord {
            status: known("status", &doc.status.0, MemberStatus::parse)?,
            since_ms: doc.since,
            first_seen_ms: doc.first_seen,
            public_ip: doc.ip.into_owned(),
            metadata: doc.metadata.into_owned(),
            reason: doc.reason.into_owned(),
            avoided: doc.avoided.map(|(why, revision, opened)| Avoided {
                why: why.0.into_owned(),
                revision,
                opened,
            }),
        })
    }
}

shape! {
    MachineWishDoc<'a> for MachineWish {
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metadata: Cow<'a, BTreeMap<String, String>>,
        #[serde(default, skip_serializing_if = "is_false")]
        cordon: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        drain: bool,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        parallel: u32,
        #[serde(default, skip_serializing_if = "is_zero")]
        opened: u64,
    }
    of(record) {
        metadata: Cow::Borrowed(&record.metadata),
        cordon: record.cordon,
        drain: record.drain,
        parallel: record.max_parallel,
        opened: record.opened
    }
    text { metadata_bytes(&record.metadata) }
    record(doc) {
        Ok(MachineWish {
            metadata: doc.metadata.into_owned(),
            cordon: doc.cordon,
            drain: doc.drain,
            max_parallel: doc.parallel,
            opened: doc.opened,
        })
    }
}

shape! {
    // Left out when usual: `load` is `loaded`, `did` is `launched`.
    StateDoc<'a> for StateRecord {
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        load: Option<Word<'a>>,
        // ActiveState and SubState: `active/running`.
        is: Word<'a>,
        hash: Word<'a>,
        at: (u64, u64),
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        did: Option<Word<'a>>,
        // The 16 bytes of the invocation id as base64.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        id: Option<Word<'a>>,
        // An invocation id of any other form, as it is.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        invocation: Option<Word<'a>>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        desc: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        why: Option<Word<'a>>,
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        log: Vec<Word<'a>>,
        // Milliseconds that it may outlive the last sign of its machine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leased: Option<u64>,
    }
    of(record) {
        load: (record.load != USUAL_LOAD).then(|| Word((&*record.load).into())),
        is: Word(format!("{}/{}", record.active, record.sub).into()),
        hash: hash_word(&record.hash),
        at: pair(record.decision),
        did: (record.reached != Reached::Launched)
            .then(|| Word(record.reached.as_str().into())),
        id: invocation_bytes(&record.invocation_id)
            .map(|bytes| Word(base64::encode(&bytes).into())),
        invocation: (!record.invocation_id.is_empty()
            && invocation_bytes(&record.invocation_id).is_none())
            .then(|| Word((&*record.invocation_id).into())),
        desc: (&*record.description).into(),
        why: record.why.as_deref().map(|why| Word(why.into())),
        log: record.log.iter().map(|line| Word((&**line).into())).collect(),
        leased: record.leased_ms
    }
    text { record.description.len() + record.log.iter().map(String::len).sum::<usize>() }
    record(doc) {
        let (active, sub) = active_and_sub(doc.is)?;
        let invocation_id = match (&doc.id, doc.invocation) {
            (Some(base64), _) => hex(&invocation_of(base64)?),
            (None, Some(other)) => other.0.into_owned(),
            (None, None) => String::new(),
        };
        Ok(StateRecord {
            load: doc.load.map_or_else(|| USUAL_LOAD.to_owned(), |load| load.0.into_owned()),
            active: active.into_owned(),
            sub: sub.into_owned(),
            hash: hash_of(&doc.hash)?,
            decision: decision(doc.at),
            reached: reached_of(doc.did.as_ref())?,
            invocation_id,
            description: doc.desc.into_owned(),
            why: doc.why.map(|why| why.0.into_owned()),
            log: doc.log.into_iter().map(|line| line.0.into_owned()).collect(),
            leased_ms: doc.leased,
        })
    }
}

shape! {
    LeaderDoc<'a> for LeaderRecord {
        machine: Word<'a>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        version: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        engine: u32,
        #[serde(default, skip_serializing_if = "is_zero")]
        since: u64,
    }
    of(record) {
        machine: machine_word(&record.machine),
        version: (&*record.version).into(),
        engine: record.engine,
        since: record.since_ms
    }
    text { record.version.len() }
    record(doc) {
        Ok(LeaderRecord {
            machine: MachineId::new(&doc.machine.0),
            version: doc.version.into_owned(),
            engine: doc.engine,
            since_ms: doc.since,
        })
    }
}

shape! {
    AskedDoc<'a> for AskedRecord {
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        by: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "is_zero")]
        at: u64,
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        machines: Vec<Word<'a>>,
    }
    of(record) {
        by: (&*record.by).into(),
        at: record.at_ms,
        machines: record.machines.iter().map(machine_word).collect()
    }
    text { record.by.len() + record.machines.len() * 40 }
    record(doc) {
        Ok(AskedRecord {
            by: doc.by.into_owned(),
            at_ms: doc.at,
            machines: doc.machines.iter().map(|id| MachineId::new(&id.0)).collect(),
        })
    }
}

shape! {
    RevokedDoc<'a> for RevokedRecord {
        at: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        by: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        why: Cow<'a, str>,
    }
    of(record) {
        at: record.at_ms,
        by: (&*record.by).into(),
        why: (&*record.why).into()
    }
    text { record.by.len() + record.why.len() }
    record(doc) {
        Ok(RevokedRecord {
            at_ms: doc.at,
            by: doc.by.into_owned(),
            why: doc.why.into_owned(),
        })
    }
}

shape! {
    UsedTokenDoc<'a> for UsedTokenRecord {
        at: u64,
        #[serde(borrow)]
        subject: Word<'a>,
    }
    of(record) {
        at: record.at_ms,
        subject: Word((&*record.subject).into())
    }
    text { record.subject.len() }
    record(doc) {
        Ok(UsedTokenRecord {
            at_ms: doc.at,
            subject: doc.subject.0.into_owned(),
        })
    }
}

shape! {
    CertifiedDoc<'a> for CertifiedRecord {
        at: u64,
        until: u64,
    }
    of(record) {
        at: record.at_ms,
        until: record.until_ms
    }
    text { usize::from(record.until_ms > 0) * 24 }
    record(doc) {
        Ok(CertifiedRecord {
            at_ms: doc.at,
            until_ms: doc.until,
        })
    }
}

shape! {
    IssuerDoc<'a> for IssuerRecord {
        #[serde(default, skip_serializing_if = "is_zero")]
        since: u64,
    }
    of(record) { since: record.since_ms }
    text { usize::from(record.since_ms > 0) * 24 }
    record(doc) { Ok(IssuerRecord { since_ms: doc.since }) }
}

shape! {
    ClusterDoc<'a> for ClusterRecord {
        #[serde(borrow)]
        id: Word<'a>,
        format: u32,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        engine: u32,
    }
    of(record) {
        id: Word((&*record.id).into()),
        format: record.format,
        engine: record.engine
    }
    text { record.id.len() }
    record(doc) {
        Ok(ClusterRecord {
            id: doc.id.0.into_owned(),
            format: doc.format,
            engine: doc.engine,
        })
    }
}

/// The LoadState of nearly every unit.
pub(super) const USUAL_LOAD: &str = "loaded";

/// Text that is borrowed where nothing in it is escaped, also inside of lists and options.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Word<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn pair(decision: Decision) -> (u64, u64) {
    (decision.generation, decision.seq)
}

fn decision((generation, seq): (u64, u64)) -> Decision {
    Decision { generation, seq }
}

fn refusal_words(refusals: &[Refusal]) -> Vec<(Word<'_>, u32)> {
    refusals
        .iter()
        .map(|refusal| (Word((&*refusal.requirement).into()), refusal.machines))
        .collect()
}

fn refusals_of(words: Vec<(Word<'_>, u32)>) -> Vec<Refusal> {
    words
        .into_iter()
        .map(|(requirement, machines)| Refusal {
            requirement: requirement.0.into_owned(),
            machines,
        })
        .collect()
}

pub(super) fn machine_word(machine: &MachineId) -> Word<'_> {
    Word(machine.as_str().into())
}

pub(super) fn machine_of(field: &str, word: Option<Word<'_>>) -> Result<Option<MachineId>, String> {
    let id = id_of(field, word)?;
    Ok(id.map(|id| MachineId::new(&id)))
}

pub(super) fn id_of<'a>(
    field: &str,
    word: Option<Word<'a>>,
) -> Result<Option<Cow<'a, str>>, String> {
    match word {
        Some(id) if id.0.is_empty() => Err(format!("`{field}` is empty")),
        id => Ok(id.map(|id| id.0)),
    }
}

/// `active/running`.
pub(super) fn active_and_sub(is: Word<'_>) -> Result<(Cow<'_, str>, Cow<'_, str>), String> {
    let parts = match is.0 {
        Cow::Borrowed(text) => text
            .split_once('/')
            .map(|(active, sub)| (active.into(), sub.into())),
        Cow::Owned(ref text) => text
            .split_once('/')
            .map(|(active, sub)| (active.to_owned().into(), sub.to_owned().into())),
    };
    parts.ok_or_else(|| format!("`is` has no `/`: {:?}", is.0))
}

pub(super) fn reached_of(did: Option<&Word<'_>>) -> Result<Reached, String> {
    match did {
        None => Ok(Reached::Launched),
        Some(word) => known("did", &word.0, Reached::parse),
    }
}

/// The 16 bytes of an invocation id.
pub(super) fn invocation_of(base64: &Word<'_>) -> Result<[u8; 16], String> {
    bytes_of("id", &base64.0)
}

fn hash_word(hash: &UnitHash) -> Word<'static> {
    Word(base64::encode(&hash.0).into())
}

pub(super) fn hash_of(word: &Word<'_>) -> Result<UnitHash, String> {
    bytes_of("hash", &word.0).map(UnitHash)
}

/// `N` bytes from their base64.
fn bytes_of<const N: usize>(field: &str, text: &str) -> Result<[u8; N], String> {
    base64::decode(text).ok_or_else(|| format!("`{field}` is not {N} bytes of base64: {text:?}"))
}

/// The 16 bytes of an invocation id in systemd's spelling: 32 lower-case hex digits.
fn invocation_bytes(id: &str) -> Option<[u8; 16]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 16];
    if id.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        *byte = pair
            .iter()
            .try_fold(0, |sum, &d| Some(sum << 4 | digit(d)?))?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One of the words of an enum.
pub(super) fn known<T>(
    field: &str,
    word: &(impl AsRef<str> + Display),
    parse: fn(&str) -> Option<T>,
) -> Result<T, String> {
    parse(word.as_ref()).ok_or_else(|| format!("`{field}` is an unknown word: {:?}", word.as_ref()))
}

fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(k, v)| k.len() + v.len() + 6).sum()
}
