//! The cluster as a whole: who leads, and which of its records cannot be read.

use fleet_api::v2::{ClusterView, DamageView, LeaderView};
use fleet_core::events::EventsRecord;
use fleet_core::records::{
    AssignmentRecord, MachineRecord, MachineWish, MemberRecord, PlacementRecord, StateRecord,
    UnitRecord,
};
use fleet_core::unit_file::UnitFile;

use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::read::Reading;
use crate::api::request::{Answer, Call, Reply};
use crate::store::codec::{
    CertifiedRecord, ClusterRecord, Document, IssuerRecord, LeaderRecord, RevokedRecord,
    UsedTokenRecord,
};
use crate::store::keys::{self, Key};
use crate::store::{self, Entry, Range, Store};

/// So many damaged records are named; whoever has more has one cause.
const MAX_DAMAGED: usize = 100;

/// Records that are read at a time.
const CHUNK: usize = 5_000;

pub(super) async fn get(state: &Api, call: &Call) -> Answer {
    let checks = match call.parameter("check") {
        None | Some("false") => false,
        Some("" | "true") => true,
        Some(other) => {
            return Err(Failure::bad_request(format!(
                "invalid check {other:?}: use true or false"
            )));
        }
    };
    let mut reading = Reading::new(&*state.store);
    let keys = [keys::CLUSTER, keys::LEADER].map(str::to_owned);
    let snapshot = state.store.read_keys(&keys).await?;
    let mut view = ClusterView {
        revision: snapshot.revision,
        ..ClusterView::default()
    };
    for entry in &snapshot.entries {
        match keys::parse(&entry.key) {
            Key::Cluster => {
                let record: Option<ClusterRecord> = reading.decode(entry);
                view.id = record.map(|record| record.id).unwrap_or_default();
            }
            Key::Leader => {
                let record: Option<LeaderRecord> = reading.decode(entry);
                view.leader = record.map(|record| LeaderView {
                    machine_id: record.machine.to_string(),
                    version: record.version,
                    since_ms: record.since_ms,
                });
            }
            _ => {}
        }
    }
    if checks {
        view.damaged = damaged(&*state.store, snapshot.revision).await?;
    }
    Ok(Reply::json(&view).with_warnings(reading.into_warnings()))
}

/// Reads the whole cluster, page by page.
async fn damaged(store: &dyn Store, revision: u64) -> Result<Vec<DamageView>, store::Error> {
    let mut damaged = Vec::new();
    let mut after = None;
    loop {
        let range = Range {
            after: after.take(),
            limit: Some(CHUNK),
            revision: Some(revision),
            ..Range::default()
        };
        let snapshot = store.read(range).await?;
        let found = snapshot.entries.iter().filter_map(|entry| {
            let why = wrong_with(entry)?;
            Some(DamageView {
                key: entry.key.clone(),
                why,
            })
        });
        damaged.extend(found.take(MAX_DAMAGED - damaged.len()));
        match snapshot.entries.last() {
            Some(entry) if snapshot.more && damaged.len() < MAX_DAMAGED => {
                after = Some(entry.key.clone());
            }
            _ => return Ok(damaged),
        }
    }
}

/// What is wrong with a record; None: nothing, or it is of a kind that this fleetd does not know.
fn wrong_with(entry: &Entry) -> Option<String> {
    let key = entry.key.as_str();
    let error = match keys::parse(key) {
        Key::Unit(_) => match UnitRecord::decode(key, &entry.value) {
            Ok(record) => {
                return UnitFile::parse(record.text.as_bytes())
                    .err()
                    .map(|error| error.to_string());
            }
            Err(error) => error,
        },
        Key::Cluster => error_of::<ClusterRecord>(entry)?,
        Key::Leader => error_of::<LeaderRecord>(entry)?,
        Key::Placement(_) => error_of::<PlacementRecord>(entry)?,
        Key::Assignment(..) => error_of::<AssignmentRecord>(entry)?,
        Key::Machine(_) => error_of::<MachineRecord>(entry)?,
        Key::Member(_) => error_of::<MemberRecord>(entry)?,
        Key::MachineWish(_) => error_of::<MachineWish>(entry)?,
        Key::State(..) => error_of::<StateRecord>(entry)?,
        Key::Event(..) => error_of::<EventsRecord>(entry)?,
        Key::Revoked(_) => error_of::<RevokedRecord>(entry)?,
        Key::UsedToken(_) => error_of::<UsedTokenRecord>(entry)?,
        Key::Certified(_) => error_of::<CertifiedRecord>(entry)?,
        Key::Issuer(_) => error_of::<IssuerRecord>(entry)?,
        Key::Thaw | Key::AcceptStore | Key::Mark(_) | Key::Unknown(_) => return None,
    };
    Some(error.to_string())
}

fn error_of<T: Document>(entry: &Entry) -> Option<store::Error> {
    T::decode(&entry.key, &entry.value).err()
}
