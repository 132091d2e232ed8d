//! Writing `units/<name>`: guarded transactions with a bounded number of retries.

use fleet_core::events::{self, Event};
use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::{DesiredState, UnitRecord};
use fleet_core::unit_file::UnitFile;
use fleet_core::validate::{UnknownKeys, validate_unit};

use super::Api;
use super::failure::Failure;
use super::permit::Permit;
use super::read::Text;
use super::request::Call;
use crate::store::codec::Document;
use crate::store::{self, Compare, Entry, Op, Revision, Txn, keys};

/// Others may change the same unit at the same time so often; then the client is told.
const MAX_ATTEMPTS: usize = 8;

/// So many requests before the last one are remembered with a unit. Whoever repeats a request does
/// so within seconds; meanwhile others change the same unit a few times at most.
const EARLIER_REQUESTS: usize = 8;

/// Who writes, and in which request.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    /// Unique, unless the client of v2 repeats a request.
    pub(crate) request_id: String,
    pub(crate) changed_by: String,
}

impl Author {
    pub(crate) fn of(call: &Call) -> Author {
        Author {
            request_id: call.request_id.clone(),
            changed_by: call.permit.who(),
        }
    }
}

/// A unit file that was sent, and what is to be said of it if it is to be stored.
pub(crate) struct Candidate {
    /// None if it is no unit file.
    pub(crate) text: Option<Text>,
    pub(crate) warnings: Result<Vec<String>, Failure>,
}

impl Candidate {
    pub(crate) fn of(name: &UnitName, file: &UnitFile, unknown: UnknownKeys) -> Candidate {
        let warnings = validate_unit(Some(name), file, unknown)
            .map(|warnings| warnings.iter().map(ToString::to_string).collect())
            .map_err(|error| Failure::bad_request(error.message()));
        Candidate {
            text: file.normalized().ok().map(|file| Text::of(&file)),
            warnings,
        }
    }

    /// Whether it is the unit file of this hash.
    pub(crate) fn is(&self, hash: UnitHash) -> bool {
        self.text.as_ref().is_some_and(|text| text.hash == hash)
    }
}

/// What is stored of a unit.
pub(crate) struct Stored {
    key: String,
    entry: Option<Entry>,
    record: Record,
}

enum Record {
    Absent,
    /// Destroyed, or not destroyed.
    Read(Box<UnitRecord>),
    Damaged(store::Error),
}

impl Stored {
    pub(crate) fn new(key: String, entry: Option<Entry>) -> Stored {
        let record = match &entry {
            None => Record::Absent,
            Some(entry) => match UnitRecord::decode(&entry.key, &entry.value) {
                Ok(record) => Record::Read(Box::new(record)),
                Err(error) => Record::Damaged(error),
            },
        };
        Stored { key, entry, record }
    }

    /// The unit, if it exists and is not destroyed.
    pub(crate) fn live(&self) -> Option<&UnitRecord> {
        self.record()
            .filter(|record| record.desired != DesiredState::Destroyed)
    }

    /// What is wrong with it, if it cannot be read.
    pub(crate) fn damage(&self) -> Option<&store::Error> {
        match &self.record {
            Record::Damaged(error) => Some(error),
            _ => None,
        }
    }

    /// Nothing is stored, or nothing is left but the memory of requests.
    pub(crate) fn is_absent(&self) -> bool {
        self.entry.is_none() || self.record().is_some_and(|record| record.buried)
    }

    /// Its generation; 0 if nothing is stored.
    pub(crate) fn generation(&self) -> Revision {
        self.entry.as_ref().map_or(0, |entry| entry.mod_revision)
    }

    /// The request has been carried out before (a repeated one, or one of which the outcome
    /// was not known), though others may have changed the unit since.
    pub(crate) fn is_by(&self, author: &Author) -> bool {
        !fleet_core::planted!("a repeated request counts twice")
            && self.record().is_some_and(|record| {
                let earlier = record.earlier_requests.iter();
                earlier
                    .chain([&record.request_id])
                    .any(|id| *id == author.request_id)
            })
    }

    /// Nothing but the newest write has ever been here.
    pub(crate) fn is_first_version(&self) -> bool {
        self.entry
            .as_ref()
            .is_some_and(|entry| entry.create_revision == entry.mod_revision)
    }

    /// The next version of the unit.
    pub(crate) fn next(
        &self,
        text: Option<&Text>,
        desired: DesiredState,
        author: &Author,
    ) -> UnitRecord {
        let text = match (text, self.record()) {
            (Some(text), _) => text.clone(),
            (None, Some(record)) => Text {
                text: record.text.clone(),
                hash: record.hash,
            },
            (None, None) => Text::none(),
        };
        UnitRecord {
            text: text.text,
            hash: text.hash,
            desired,
            restarts: self.record().map_or(0, |record| record.restarts),
            prefer: None,
            request_id: author.request_id.clone(),
            earlier_requests: self.record().map_or_else(Vec::new, requests_before),
            buried: false,
            changed_by: author.changed_by.clone(),
            changed_ms: crate::clock::unix_ms(),
        }
    }

    /// The tombstone.
    pub(crate) fn tombstone(&self, author: &Author) -> UnitRecord {
        self.next(Some(&Text::none()), DesiredState::Destroyed, author)
    }

    /// The guard and the write that make `record` the next version.
    pub(crate) fn write(&self, record: &UnitRecord) -> (Compare, Op) {
        let key = self.key.clone();
        let compare = match &self.entry {
            None => Compare::Absent(key.clone()),
            Some(entry) => Compare::ModRevision(key.clone(), entry.mod_revision),
        };
        let value = match (&self.entry, self.live()) {
            (Some(entry), Some(_)) => record.encode_over(&entry.value),
            _ => record.encode(),
        };
        let lease = None;
        (compare, Op::Put { key, value, lease })
    }

    fn record(&self) -> Option<&UnitRecord> {
        match &self.record {
            Record::Read(record) => Some(record),
            _ => None,
        }
    }
}

/// What the next version remembers of those before it.
fn requests_before(record: &UnitRecord) -> Vec<String> {
    std::iter::once(&record.request_id)
        .chain(&record.earlier_requests)
        .filter(|id| !id.is_empty())
        .take(EARLIER_REQUESTS)
        .cloned()
        .collect()
}

/// What the next version of a unit is about.
pub(crate) fn told(name: &str, stored: &Stored, record: &UnitRecord) -> Vec<Event> {
    let name = UnitName::parse(name).ok();
    let told = name.map(|name| events::of_wish(&name, stored.live(), record));
    told.into_iter().collect()
}

/// Refuses to activate a template: on no path may it be anything but inactive.
pub(crate) fn check_template(name: &UnitName, desired: DesiredState) -> Result<(), Failure> {
    let is_active = matches!(desired, DesiredState::Loaded | DesiredState::Launched);
    if name.is_template() && is_active {
        return Err(Failure::bad_request(format!(
            "cannot activate template \"{name}\""
        )));
    }
    Ok(())
}

/// Reads a unit, decides, and writes the next version if there is to be one; again when another
/// was faster. Returns the generation that the unit has then.
///
/// `decide` must look at [`Stored::is_by`]: it is called again when the outcome of a write was
/// unknown.
pub(crate) async fn update<T>(
    state: &Api,
    permit: &Permit,
    name: &str,
    mut decide: impl FnMut(&Stored) -> Result<(Option<UnitRecord>, T), Failure>,
) -> Result<(Revision, T), Failure> {
    let key = keys::unit(name);
    let mut last = store::Error::Conflict;
    for _ in 0..MAX_ATTEMPTS {
        let snapshot = state.store.read_keys(std::slice::from_ref(&key)).await?;
        let stored = Stored::new(key.clone(), snapshot.entries.into_iter().next());
        let (record, result) = decide(&stored)?;
        let Some(record) = record else {
            return Ok((stored.generation(), result));
        };
        permit.check_wish(name, stored.live(), &record)?;
        let (compare, op) = stored.write(&record);
        let txn = Txn {
            compares: vec![compare],
            ops: vec![op],
        };
        let told = told(name, &stored, &record);
        match state.commit(txn, &record.changed_by, told).await {
            Ok(revision) => return Ok((revision, result)),
            Err(error @ (store::Error::Conflict | store::Error::OutcomeUnknown(_))) => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.into())
}
