//! What the store knows, as the API shows it.
//!
//! A damaged document never hides the others: it is left out and named in a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_core::name::UnitName;
use fleet_core::records::{
    DesiredState, MachineId, MemberRecord, MemberStatus, PlacementRecord, Reached, StateRecord,
    UnitRecord,
};
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::UnitFile;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::failure::Failure;
use crate::store::codec::Document;
use crate::store::keys::{self, Key};
use crate::store::{self, Entry, MAX_TXN_OPS, Range, Revision, Snapshot, Store};

/// Entries read at a time where more may follow: a few hundred kilobytes.
const CHUNK: usize = 1_000;

/// Reads of single keys that are under way at once.
const READS_AT_ONCE: usize = 4;

/// The reads of one request, and what is wrong with what they found.
pub(crate) struct Reading<'a> {
    store: &'a dyn Store,
    warnings: Vec<String>,
}

/// A unit that is not destroyed.
pub(crate) struct LiveUnit {
    pub(crate) name: String,
    pub(crate) generation: Revision,
    pub(crate) record: UnitRecord,
    pub(crate) file: UnitFile,
    pub(crate) global: bool,
}

/// A unit's state on a machine.
pub(crate) struct StateOf {
    pub(crate) unit: String,
    pub(crate) machine: String,
    pub(crate) record: StateRecord,
}

/// Some units in a row.
pub(crate) struct UnitRange {
    pub(crate) revision: Revision,
    pub(crate) units: Vec<LiveUnit>,
    /// More live units follow.
    pub(crate) more: bool,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(store: &'a dyn Store) -> Reading<'a> {
        Reading {
            store,
            warnings: Vec::new(),
        }
    }

    /// What was left out, and why.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// A document; None (and a warning) if it is damaged.
    pub(crate) fn decode<T: Document>(&mut self, entry: &Entry) -> Option<T> {
        match T::decode(&entry.key, &entry.value) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(key = entry.key, %error, "a damaged document was left out");
                self.warnings.push(error.to_string());
                None
            }
        }
    }

    /// All entries below a prefix.
    pub(crate) async fn range(
        &self,
        prefix: &str,
        revision: Option<Revision>,
    ) -> Result<Snapshot, store::Error> {
        self.store
            .read(Range {
                prefix: prefix.to_owned(),
                revision,
                ..Range::default()
            })
            .await
    }

    /// Single keys, as many as wanted.
    pub(crate) async fn keys(&self, keys: Vec<String>) -> Result<Vec<Entry>, store::Error> {
        let store = self.store;
        let chunks: Vec<Vec<String>> = keys.chunks(MAX_TXN_OPS).map(<[String]>::to_vec).collect();
        let snapshots: Vec<Snapshot> = stream::iter(chunks)
            .map(|chunk| async move { store.read_keys(&chunk).await })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(snapshots.into_iter().flat_map(|s| s.entries).collect())
    }

    /// One key.
    pub(crate) async fn key(&self, key: String) -> Result<Option<Entry>, store::Error> {
        let snapshot = self.store.read_keys(&[key]).await?;
        Ok(snapshot.entries.into_iter().next())
    }

    /// One unit; None if it does not exist or is destroyed.
    pub(crate) async fn unit(&mut self, name: &str) -> Result<Option<LiveUnit>, Failure> {
        let Some(entry) = self.key(keys::unit(name)).await? else {
            return Ok(None);
        };
        let record = UnitRecord::decode(&entry.key, &entry.value)?;
        if record.desired == DesiredState::Destroyed {
            return Ok(None);
        }
        Ok(Some(live_unit(name, &entry, record)?))
    }

    /// Live units after a name that are wanted: the first `skip` are passed over, then at most `limit`.
    pub(crate) async fn units(
        &mut self,
        after: Option<&str>,
        mut skip: usize,
        limit: usize,
        mut revision: Option<Revision>,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<UnitRange, store::Error> {
        let mut after = after.map(keys::unit);
        let mut units = Vec::new();
        loop {
            let wanted = skip.saturating_add(limit - units.len()).saturating_add(1);
            let range = Range {
                prefix: keys::UNITS.to_owned(),
                after: after.take(),
                limit: Some(wanted.min(CHUNK)),
                revision,
                ..Range::default()
            };
            let snapshot = self.store.read(range).await?;
            revision = Some(snapshot.revision);
            for entry in &snapshot.entries {
                let Key::Unit(name) = keys::parse(&entry.key) else {
                    continue;
                };
                if !is_wanted(name) {
                    continue;
                }
                let Some(record) = self.decode::<UnitRecord>(entry) else {
                    continue;
                };
                if record.desired == DesiredState::Destroyed {
                    continue;
                }
                // One whose file cannot be read is on no page, so none is passed over for it.
                let unit = match live_unit(name, entry, record) {
                    Ok(unit) => unit,
                    Err(error) => {
                        self.warnings.push(error.to_string());
                        continue;
                    }
                };
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                if units.len() == limit {
                    return Ok(UnitRange {
                        revision: snapshot.revision,
                        units,
                        more: true,
                    });
                }
                units.push(unit);
            }
            if !snapshot.more {
                return Ok(UnitRange {
                    revision: snapshot.revision,
                    units,
                    more: false,
                });
            }
            after = snapshot.entries.last().map(|entry| entry.key.clone());
        }
    }

    /// Where a unit is.
    pub(crate) async fn placement(
        &mut self,
        unit: &str,
    ) -> Result<Option<PlacementRecord>, store::Error> {
        let entry = self.key(keys::placement(unit)).await?;
        Ok(entry.and_then(|entry| self.decode(&entry)))
    }

    /// Where units are.
    pub(crate) async fn placements(
        &mut self,
        units: impl Iterator<Item = &str>,
    ) -> Result<BTreeMap<String, PlacementRecord>, store::Error> {
        let entries = self.keys(units.map(keys::placement).collect()).await?;
        let mut placements = BTreeMap::new();
        for entry in &entries {
            if let Key::Placement(unit) = keys::parse(&entry.key)
                && let Some(record) = self.decode(entry)
            {
                placements.insert(unit.to_owned(), record);
            }
        }
        Ok(placements)
    }

    /// The states of placed units on their machines; those of machines given up are left out.
    pub(crate) async fn states_where_placed(
        &mut self,
        placements: &BTreeMap<String, PlacementRecord>,
    ) -> Result<BTreeMap<String, StateRecord>, store::Error> {
        let placed = || {
            placements
                .iter()
                .filter_map(|(unit, placement)| Some((unit, home(placement)?)))
        };
        let machines: BTreeSet<&MachineId> = placed().map(|(_, machine)| machine).collect();
        let wanted = placed()
            .map(|(unit, machine)| keys::state(unit, machine.as_str()))
            .chain(
                machines
                    .iter()
                    .map(|machine| keys::member(machine.as_str())),
            )
            .collect();
        let entries = self.keys(wanted).await?;
        let mut states = Vec::new();
        let mut given_up = BTreeSet::new();
        for entry in &entries {
            match keys::parse(&entry.key) {
                Key::State(unit, machine) => {
                    if let Some(record) = self.decode::<StateRecord>(entry) {
                        states.push((unit, machine, record));
                    }
                }
                Key::Member(machine) => {
                    let member = self.decode(entry);
                    given_up.extend(member.filter(is_given_up).map(|_| machine));
                }
                _ => {}
            }
        }
        Ok(states
            .into_iter()
            .filter(|(_, machine, _)| !given_up.contains(machine))
            .map(|(unit, _, record)| (unit.to_owned(), record))
            .collect())
    }

    /// All states, or those of one unit.
    pub(crate) async fn states(
        &mut self,
        unit: Option<&str>,
    ) -> Result<Vec<StateOf>, store::Error> {
        let prefix = unit.map_or(keys::STATES.to_owned(), keys::states_of);
        let snapshot = self.range(&prefix, None).await?;
        Ok(self.states_in(&snapshot.entries))
    }

    /// At most `limit` states, in the order of unit and machine, of those that are wanted, behind
    /// `after` (a unit and a machine), and the revision at which they were read.
    ///
    /// Keys are in another order: the `/` behind a unit's name sorts after `-` and `.`. So a state
    /// may still come that belongs before those that were read, but only one of a unit whose name
    /// is the beginning of the last one's.
    pub(crate) async fn sorted_states(
        &mut self,
        unit: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
        mut revision: Option<Revision>,
        is_wanted: impl Fn(&StateOf) -> bool,
    ) -> Result<(Revision, Vec<StateOf>), store::Error> {
        // Whatever comes after a name in the order of names has its keys after `states/<name>`.
        let mut from = after.map(|(unit, _)| {
            let mut key = keys::states_of(unit);
            key.pop();
            key
        });
        let mut states: Vec<StateOf> = Vec::new();
        loop {
            let range = Range {
                prefix: unit.map_or(keys::STATES.to_owned(), keys::states_of),
                after: from.take(),
                limit: Some(limit.min(CHUNK)),
                revision,
                ..Range::default()
            };
            let snapshot = self.store.read(range).await?;
            revision = Some(snapshot.revision);
            let found = self.states_in(&snapshot.entries).into_iter();
            states.extend(found.filter(|state| {
                after.is_none_or(|after| (state.unit.as_str(), state.machine.as_str()) > after)
                    && is_wanted(state)
            }));
            states.sort_by(|a, b| (&a.unit, &a.machine).cmp(&(&b.unit, &b.machine)));
            let last = snapshot.entries.last().filter(|_| snapshot.more);
            let is_settled = match last.map(|entry| keys::parse(&entry.key)) {
                None => true,
                Some(Key::State(last, _)) => {
                    let settled = match prefix_that_is_a_unit(last) {
                        Some(prefix) => states.partition_point(|s| s.unit.as_str() < prefix),
                        None => states.partition_point(|s| s.unit.as_str() <= last),
                    };
                    settled >= limit
                }
                Some(_) => false,
            };
            if is_settled {
                states.truncate(limit);
                return Ok((snapshot.revision, states));
            }
            from = last.map(|entry| entry.key.clone());
        }
    }

    /// The states among entries.
    pub(crate) fn states_in(&mut self, entries: &[Entry]) -> Vec<StateOf> {
        let mut states = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Key::State(unit, machine) = keys::parse(&entry.key)
                && let Some(record) = self.decode(entry)
            {
                states.push(StateOf {
                    unit: unit.to_owned(),
                    machine: machine.to_owned(),
                    record,
                });
            }
        }
        states
    }

    /// The machines whose states v1 hides: lost and retired ones.
    pub(crate) async fn given_up(&mut self) -> Result<BTreeSet<String>, store::Error> {
        let snapshot = self.range(keys::MEMBERS, None).await?;
        let mut given_up = BTreeSet::new();
        for entry in &snapshot.entries {
            if let Key::Member(machine) = keys::parse(&entry.key)
                && self
                    .decode(entry)
                    .is_some_and(|member| is_given_up(&member))
            {
                given_up.insert(machine.to_owned());
            }
        }
        Ok(given_up)
    }
}

/// The shortest beginning of a unit's name that is the name of another unit, and whose keys come
/// later.
fn prefix_that_is_a_unit(name: &str) -> Option<&str> {
    (1..name.len())
        .filter(|end| name.as_bytes()[*end] < b'/')
        .filter_map(|end| name.get(..end))
        .find(|prefix| UnitName::parse(prefix).is_ok())
}

fn is_given_up(member: &MemberRecord) -> bool {
    matches!(member.status, MemberStatus::Lost | MemberStatus::Retired)
}

fn live_unit(name: &str, entry: &Entry, record: UnitRecord) -> Result<LiveUnit, store::Error> {
    let file = UnitFile::parse(record.text.as_bytes()).map_err(|error| store::Error::Damaged {
        key: entry.key.clone(),
        why: error.to_string(),
    })?;
    let global = is_global(name, &file);
    Ok(LiveUnit {
        name: name.to_owned(),
        generation: entry.mod_revision,
        record,
        file,
        global,
    })
}

/// Whether the unit runs on every machine that qualifies.
pub(crate) fn is_global(name: &str, file: &UnitFile) -> bool {
    let name = UnitName::parse(name).ok();
    Requirements::parse(file, name.as_ref()).0.global
}

/// How a machine is. Presence itself counts more than what the engine has made of it so far.
pub(crate) fn machine_status(is_present: bool, known: Option<MemberStatus>) -> MemberStatus {
    match (is_present, known) {
        (_, Some(MemberStatus::Retired)) => MemberStatus::Retired,
        (true, _) => MemberStatus::Present,
        (false, None | Some(MemberStatus::Present)) => MemberStatus::Suspect,
        (false, Some(status)) => status,
    }
}

/// Whether listings show a state: gone and refused units have none, and neither has one that its
/// machine has not loaded yet.
pub(crate) fn is_shown(state: &StateRecord) -> bool {
    !matches!(state.reached, Reached::Gone | Reached::Refused) && !state.load.is_empty()
}

/// The machine that a unit is on: where it is placed, else where it has not yet stopped.
pub(crate) fn home(placement: &PlacementRecord) -> Option<&MachineId> {
    placement.machine.as_ref().or(placement.leaving.as_ref())
}

/// v1's current state of a unit that is not global; `state` is that of its [`home`].
pub(crate) fn current_state(
    placement: Option<&PlacementRecord>,
    state: Option<&StateRecord>,
) -> DesiredState {
    match (placement.and_then(home), state) {
        (Some(_), Some(state)) => came_to(state.reached, &state.load, &state.active),
        _ => DesiredState::Inactive,
    }
}

/// v1's current state by what the unit's machine reports.
pub(crate) fn came_to(reached: Reached, load: &str, active: &str) -> DesiredState {
    match reached {
        Reached::Gone | Reached::Refused => DesiredState::Inactive,
        Reached::Loaded => DesiredState::Loaded,
        Reached::Launched => DesiredState::Launched,
        // On the way: what it has come from.
        Reached::Working => match (load, active) {
            ("" | "not-found", _) => DesiredState::Inactive,
            // A start that takes long has been asked for: that is what the word means.
            (_, "active" | "reloading" | "activating" | "deactivating") => DesiredState::Launched,
            _ => DesiredState::Loaded,
        },
    }
}

/// The text of a unit file, ready to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) text: Arc<str>,
    pub(crate) hash: fleet_core::hash::UnitHash,
}

impl Text {
    /// Of a normalized file.
    pub(crate) fn of(file: &UnitFile) -> Text {
        let text = file.to_text();
        Text {
            hash: fleet_core::hash::UnitHash::of(text.as_bytes()),
            text: text.into(),
        }
    }

    /// Of a tombstone.
    pub(crate) fn none() -> Text {
        Text {
            text: "".into(),
            hash: fleet_core::hash::UnitHash::of(b""),
        }
    }
}
