//! `/machines`: who is present, and metadata set at run time.

use std::collections::BTreeMap;

use fleet_api::v1::{Machine, MachinePage, MetadataOp};
use fleet_core::events::{Event, of_machine_wish};
use fleet_core::records::{MachineId, MachineRecord, MachineWish, MemberRecord};
use hyper::StatusCode;

use super::super::Api;
use super::super::failure::Failure;
use super::super::read::Reading;
use super::super::request::{Answer, Call, MAX_V1_BODY, Reply, RequestBody};
use super::Page;
use crate::access::{Object, Verb};
use crate::events::MAX_PUTS;
use crate::store::codec::Document;
use crate::store::keys::{self, Key};
use crate::store::{self, Compare, Entry, MAX_TXN_OPS, Op, Revision, Snapshot, Txn};

/// Others may change the same machines at the same time so often; then the client is told.
const MAX_ATTEMPTS: usize = 8;

/// Keys and values that are set at run time for one machine: hundreds of labels. All of them go
/// into one document, and each engine keeps them in memory.
const MAX_METADATA_BYTES: usize = 64 << 10;

pub(crate) async fn list(state: &Api, call: &Call) -> Answer {
    let mut page = Page::of(state, call, "machines".to_owned())?;
    let mut reading = Reading::new(&*state.store);
    let (machines, wishes) = loop {
        match read(&reading, page.revision()).await {
            Err(store::Error::Compacted(_)) if page.forget_history() => {}
            read => break read?,
        }
    };
    let mut overrides = BTreeMap::new();
    for entry in &wishes.entries {
        if let Key::MachineWish(id) = keys::parse(&entry.key)
            && let Some(wish) = reading.decode::<MachineWish>(entry)
        {
            overrides.insert(id, wish);
        }
    }
    let mut present = Vec::with_capacity(machines.entries.len());
    for entry in &machines.entries {
        if let Key::Machine(id) = keys::parse(&entry.key)
            && let Some(record) = reading.decode::<MachineRecord>(entry)
        {
            let metadata = match overrides.get(id) {
                Some(wish) => wish.merged(&record.metadata),
                None => record.metadata,
            };
            let machine = Object::Machine(id, &metadata);
            if !call.permit.shows(Verb::MachineRead, machine) {
                continue;
            }
            present.push(Machine {
                id: id.to_owned(),
                metadata,
                primary_ip: record.public_ip,
            });
        }
    }
    let mut rest = present
        .into_iter()
        .filter(|machine| page.after().is_none_or(|after| machine.id.as_str() > after))
        .skip(page.skip());
    let shown: Vec<Machine> = rest.by_ref().take(page.limit()).collect();
    let last = shown.last().map(|machine| machine.id.as_str());
    let page = MachinePage {
        next_page_token: page.next(state, last, rest.next().is_some(), machines.revision),
        machines: shown,
    };
    Ok(Reply::json(&page).with_warnings(reading.into_warnings()))
}

/// Presence and wishes of all machines.
async fn read(
    reading: &Reading<'_>,
    revision: Option<Revision>,
) -> Result<(Snapshot, Snapshot), store::Error> {
    let machines = reading.range(keys::MACHINES, revision).await?;
    let wishes = reading.range(keys::MACHINE_WISHES, revision).await?;
    Ok((machines, wishes))
}

pub(crate) async fn patch(state: &Api, call: &Call, body: &mut RequestBody) -> Answer {
    let body = body.read(MAX_V1_BODY).await?;
    let ops = fleet_api::body::metadata_ops(&body)
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    let mut by_machine: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for op in &ops {
        let (machine, change) = parse(op)?;
        by_machine
            .entry(machine.to_owned())
            .or_default()
            .push(change);
    }
    let machines: Vec<_> = by_machine.into_iter().collect();
    let mut unknown = Vec::new();
    for group in machines.chunks(MAX_TXN_OPS - MAX_PUTS) {
        unknown.extend(apply(state, call, group).await?);
    }
    let warnings = unknown.iter().map(|id| {
        format!(
            "no machine {id} has ever been here (metadata wants the whole id): what was set \
             waits for it"
        )
    });
    Ok(Reply {
        content_type: Some("application/json"),
        warnings: warnings.collect(),
        ..Reply::empty(StatusCode::NO_CONTENT)
    })
}

/// A change of one machine's metadata.
enum Change {
    Set {
        key: String,
        value: String,
    },
    /// The machine has the key no more, whatever its configuration says.
    Remove {
        key: String,
    },
    /// What its configuration says counts again.
    Restore {
        key: String,
    },
}

/// Checks an operation.
fn parse(op: &MetadataOp) -> Result<(&str, Change), Failure> {
    let is_remove = match op.op.as_str() {
        "add" | "replace" => false,
        "remove" => true,
        _ => {
            return Err(Failure::bad_request(
                "invalid op: expect add, remove, or replace",
            ));
        }
    };
    let invalid = || Failure::bad_request("machine metadata path invalid");
    let mut parts = op.path.strip_prefix('/').ok_or_else(invalid)?.split('/');
    let (Some(machine), Some(kind), Some(key), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(invalid());
    };
    let is_key = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if machine.is_empty() || !is_key {
        return Err(invalid());
    }
    let key = key.to_owned();
    let change = match (kind, is_remove) {
        ("metadata", false) if op.value.is_empty() => {
            return Err(Failure::bad_request(
                "invalid value: add and replace require a value",
            ));
        }
        ("metadata", false) => Change::Set {
            key,
            value: op.value.clone(),
        },
        ("metadata", true) => Change::Remove { key },
        ("overrides", true) => Change::Restore { key },
        _ => return Err(invalid()),
    };
    Ok((machine, change))
}

/// Changes some machines in one transaction. Returns those that nobody knows.
async fn apply(
    state: &Api,
    call: &Call,
    machines: &[(String, Vec<Change>)],
) -> Result<Vec<String>, Failure> {
    let mut last = store::Error::Conflict;
    for _ in 0..MAX_ATTEMPTS {
        let reading = Reading::new(&*state.store);
        let wanted = machines
            .iter()
            .flat_map(|(id, _)| [keys::machine_wish(id), keys::machine(id), keys::member(id)])
            .collect();
        let entries: BTreeMap<String, Entry> = reading
            .keys(wanted)
            .await?
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        let mut txn = Txn::default();
        let mut told = Vec::new();
        for (id, changes) in machines {
            may_change(call, id, &entries)?;
            told.extend(change(id, changes, &entries, &mut txn)?);
        }
        let is_known = |id: &str| {
            entries.contains_key(&keys::machine(id)) || entries.contains_key(&keys::member(id))
        };
        let ids = machines.iter().map(|(id, _)| id);
        let unknown = ids.filter(|id| !is_known(id)).cloned().collect();
        if txn.ops.is_empty() {
            return Ok(unknown);
        }
        match state.commit(txn, &call.permit.who(), told).await {
            Ok(_) => return Ok(unknown),
            // All changes may be made twice.
            Err(error @ (store::Error::Conflict | store::Error::OutcomeUnknown(_))) => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.into())
}

/// Refuses changes of a machine that the caller has no say in, as its metadata is now.
fn may_change(call: &Call, id: &str, entries: &BTreeMap<String, Entry>) -> Result<(), Failure> {
    if call.permit.allows_all(Verb::MachineMetadata) {
        return Ok(());
    }
    let own = configured(id, entries).unwrap_or_default();
    let wish = entries
        .get(&keys::machine_wish(id))
        .and_then(|entry| MachineWish::decode(&entry.key, &entry.value).ok());
    let metadata = wish.unwrap_or_default().merged(&own);
    let machine = Object::Machine(id, &metadata);
    call.permit.check(Verb::MachineMetadata, machine)
}

/// Returns what it is about, if it changes something.
fn change(
    id: &str,
    changes: &[Change],
    entries: &BTreeMap<String, Entry>,
    txn: &mut Txn,
) -> Result<Option<Event>, Failure> {
    let key = keys::machine_wish(id);
    let entry = entries.get(&key);
    let before = match entry {
        Some(entry) => MachineWish::decode(&entry.key, &entry.value)?,
        None => MachineWish::default(),
    };
    let mut wish = before.clone();
    for change in changes {
        match change {
            Change::Set { key, value } => {
                wish.metadata.insert(key.clone(), value.clone());
            }
            // An empty value hides the key of the configuration. It is kept for as long as there
            // may be one, and really removed when there is none.
            Change::Remove { key } if may_configure(id, key, entries) => {
                wish.metadata.insert(key.clone(), String::new());
            }
            Change::Remove { key } | Change::Restore { key } => {
                wish.metadata.remove(key);
            }
        }
    }
    if wish == before {
        return Ok(None);
    }
    let size: usize = wish.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_METADATA_BYTES {
        return Err(Failure::bad_request(format!(
            "metadata of machine {id} too large (max {MAX_METADATA_BYTES} bytes): remove some first"
        )));
    }
    let value = match entry {
        Some(entry) => wish.encode_over(&entry.value),
        None => wish.encode(),
    };
    txn.compares.push(match entry {
        Some(entry) => Compare::ModRevision(key.clone(), entry.mod_revision),
        None => Compare::Absent(key.clone()),
    });
    let lease = None;
    txn.ops.push(Op::Put { key, value, lease });
    let told = of_machine_wish(&MachineId::new(id), &before, &wish);
    Ok(Some(told))
}

/// Whether the machine's own configuration has the key, or might have: it is not known.
fn may_configure(id: &str, key: &str, entries: &BTreeMap<String, Entry>) -> bool {
    configured(id, entries).is_none_or(|metadata| metadata.contains_key(key))
}

/// The metadata of a machine's own configuration, as far as it is known.
fn configured(id: &str, entries: &BTreeMap<String, Entry>) -> Option<BTreeMap<String, String>> {
    let present = entries
        .get(&keys::machine(id))
        .and_then(|entry| MachineRecord::decode(&entry.key, &entry.value).ok())
        .map(|record| record.metadata);
    present.or_else(|| {
        let entry = entries.get(&keys::member(id))?;
        let member = MemberRecord::decode(&entry.key, &entry.value).ok()?;
        Some(member.metadata)
    })
}
