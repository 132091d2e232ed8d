//! Units as far as rows need them, compact, kept true by what is put and deleted below the keys.
//!
//! It is filled by reading and kept by watching, through the same [`Table::apply`]: so a table that was
//! followed says what one says that is read now.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use fleet_core::hash::UnitHash;
use fleet_core::records::{DesiredState, MachineRecord, MemberRecord, MemberStatus, Reached};
use fleet_core::unit_file::UnitFile;

use super::super::read::{is_global, machine_status};
use crate::store::codec::{Document, PlacementBrief, StateBrief, UnitBrief};
use crate::store::keys::{self, Key};
use crate::store::{Entry, Error};

/// What a row takes besides its texts: itself, its place in the tree, what the allocator adds.
const ROW_BYTES: usize = 240;
/// What a state takes besides its texts.
const STATE_BYTES: usize = 120;

/// Machines and systemd's words are few, and stand once. A word that comes when there are so many
/// already stands where it is used.
const MAX_WORDS: usize = 16_384;

/// More damaged records than this are not remembered: then the table is [`Table::is_too_much`].
const MAX_DAMAGED: usize = 1_000;

/// All units that are known of, destroyed ones too, in byte order of their names.
#[derive(Default)]
pub(super) struct Table {
    rows: BTreeMap<Arc<str>, Arc<Row>>,
    presence: Arc<Presence>,
    /// Records that cannot be read, and why.
    damaged: BTreeMap<String, String>,
    words: HashSet<Arc<str>>,
    bytes: usize,
    /// The units whose rows have changed since this was last asked; None: nobody wants to know.
    changed: Option<Vec<Arc<str>>>,
}

/// What is known of a unit.
#[derive(Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: Arc<str>,
    /// None: it is destroyed, or not known.
    pub(super) wish: Option<Wish>,
    pub(super) placement: Option<Placement>,
    /// A machine each, in the order of their ids; those that are gone are left out.
    pub(super) states: Vec<State>,
}

#[derive(Clone, PartialEq)]
pub(super) struct Wish {
    pub(super) desired: DesiredState,
    pub(super) hash: UnitHash,
    pub(super) global: bool,
    pub(super) description: Option<Box<str>>,
}

#[derive(Clone, PartialEq)]
pub(super) struct Placement {
    pub(super) machine: Option<Arc<str>>,
    pub(super) leaving: Option<Arc<str>>,
}

#[derive(Clone, PartialEq)]
pub(super) struct State {
    pub(super) machine: Arc<str>,
    pub(super) load: Arc<str>,
    pub(super) active: Arc<str>,
    pub(super) sub: Arc<str>,
    pub(super) hash: UnitHash,
    pub(super) reached: Reached,
    pub(super) description: Box<str>,
}

/// Who is there.
#[derive(Clone, Default)]
pub(super) struct Presence {
    present: BTreeSet<Arc<str>>,
    known: BTreeMap<Arc<str>, MemberStatus>,
}

impl Table {
    /// Takes in what was read, or put.
    pub(super) fn put(&mut self, entry: &Entry) {
        self.apply(&entry.key, Some(&entry.value));
    }

    /// Takes in what a key holds; None: it was deleted.
    pub(super) fn apply(&mut self, key: &str, value: Option<&[u8]>) {
        let applied = match keys::parse(key) {
            Key::Unit(unit) => {
                let wish = value.map(|value| self.wish(unit, key, value)).transpose();
                let wish = wish.map(Option::flatten);
                self.change(unit, wish, |row, wish| row.wish = wish)
            }
            Key::Placement(unit) => {
                let placement = value.map(|value| self.placement(key, value)).transpose();
                self.change(unit, placement, |row, found| row.placement = found)
            }
            Key::State(unit, machine) => {
                let state = value.map(|value| self.state(machine, key, value));
                let state = state.transpose().map(Option::flatten);
                self.change(unit, state, |row, state| row.set_state(machine, state))
            }
            Key::Machine(id) => {
                let found = value.map(|value| MachineRecord::decode(key, value));
                let (found, result) = found_or_damaged(found.transpose());
                let id = self.word(id);
                let before = self.presence.status(&id);
                let present = &mut Arc::make_mut(&mut self.presence).present;
                match found {
                    Some(_) => present.insert(Arc::clone(&id)),
                    None => present.remove(&id),
                };
                self.mark_units_of(&id, before);
                result
            }
            Key::Member(id) => {
                let found = value.map(|value| MemberRecord::decode(key, value));
                let (found, result) = found_or_damaged(found.transpose());
                let id = self.word(id);
                let before = self.presence.status(&id);
                let known = &mut Arc::make_mut(&mut self.presence).known;
                match found {
                    Some(member) => known.insert(Arc::clone(&id), member.status),
                    None => known.remove(&id),
                };
                self.mark_units_of(&id, before);
                result
            }
            _ => return,
        };
        match applied {
            Ok(()) => drop(self.damaged.remove(key)),
            Err(error) => {
                tracing::warn!(key, %error, "a damaged document was left out");
                self.damaged.insert(key.to_owned(), error.to_string());
            }
        }
    }

    /// From now on it is known which rows change.
    pub(super) fn mark_changes(&mut self) {
        self.changed = Some(Vec::new());
    }

    /// The units whose rows have changed since this was last asked, some of them more than once.
    pub(super) fn take_changed(&mut self) -> Vec<Arc<str>> {
        self.changed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// A unit's row, unless it is destroyed, or not known.
    pub(super) fn row(&self, unit: &str) -> Option<&Arc<Row>> {
        self.rows.get(unit).filter(|row| row.wish.is_some())
    }

    /// The units that show something else than in another table.
    pub(super) fn differing(&self, other: &Table) -> Vec<Arc<str>> {
        let is_other_machine = |id: &str| self.presence.status(id) != other.presence.status(id);
        let is_same = |name: &str, row: &Arc<Row>| {
            let theirs = other.row(name);
            theirs.is_some_and(|theirs| theirs == row) && !row.machines().any(is_other_machine)
        };
        let ours = self.rows.iter().filter(|(_, row)| row.wish.is_some());
        let ours = ours.filter(|(name, row)| !is_same(name, row));
        let gone = other
            .rows
            .iter()
            .filter(|(name, row)| row.wish.is_some() && self.row(name).is_none());
        ours.chain(gone).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// At most `limit` units that are not destroyed, behind `after`, and whether more follow.
    pub(super) fn live(&self, after: Option<&str>, limit: usize) -> (Vec<Arc<Row>>, bool) {
        let mut live = self
            .from(after)
            .filter(|row| row.wish.is_some())
            .map(Arc::clone);
        let rows = live.by_ref().take(limit).collect();
        (rows, live.next().is_some())
    }

    /// Those of the units from one to another one that are not destroyed.
    pub(super) fn live_between(&self, after: Option<&str>, last: &str) -> Vec<Arc<Row>> {
        self.from(after)
            .take_while(|row| *row.name <= *last)
            .filter(|row| row.wish.is_some())
            .map(Arc::clone)
            .collect()
    }

    pub(super) fn presence(&self) -> Arc<Presence> {
        Arc::clone(&self.presence)
    }

    /// The keys of records that cannot be read, and what is wrong with them.
    pub(super) fn damaged(&self) -> impl Iterator<Item = (&str, &str)> {
        self.damaged.iter().map(|(key, why)| (&**key, &**why))
    }

    /// How many units it knows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it is not to be kept: damage is told with each listing, and has no bound.
    pub(super) fn is_too_much(&self, bytes: usize) -> bool {
        self.bytes > bytes || self.damaged.len() > MAX_DAMAGED
    }

    /// Forgets the units, and keeps who is there.
    pub(super) fn forget_units(&mut self) {
        self.rows.clear();
        self.damaged.clear();
        self.bytes = 0;
    }

    fn from(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Row>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(_, row)| row)
    }

    /// Sets a part of a row to what was found; to nothing where it is damaged.
    fn change<T>(
        &mut self,
        unit: &str,
        found: Result<Option<T>, Error>,
        set: impl FnOnce(&mut Row, Option<T>),
    ) -> Result<(), Error> {
        let (found, result) = found_or_damaged(found);
        if !self.rows.contains_key(unit) {
            if found.is_none() {
                return result;
            }
            let name: Arc<str> = unit.into();
            self.bytes += ROW_BYTES + name.len();
            self.rows
                .insert(Arc::clone(&name), Arc::new(Row::new(name)));
        }
        if let Some(row) = self.rows.get_mut(unit) {
            // The row as it was is kept by this, and written anew.
            let was = self.changed.is_some().then(|| Arc::clone(row));
            let row = Arc::make_mut(row);
            let before = row.text_bytes();
            set(row, found);
            self.bytes = self.bytes + row.text_bytes() - before;
            if let Some(changed) = &mut self.changed
                && was.is_some_and(|was| *was != *row)
            {
                changed.push(Arc::clone(&row.name));
            }
            if row.is_empty() {
                self.bytes -= ROW_BYTES + row.name.len() + row.text_bytes();
                self.rows.remove(unit);
            }
        }
        result
    }

    /// A machine came or went: what units that have to do with it show may be another thing now.
    fn mark_units_of(&mut self, machine: &str, before: MemberStatus) {
        let Some(changed) = &mut self.changed else {
            return;
        };
        if self.presence.status(machine) != before {
            let rows = self
                .rows
                .values()
                .filter(|row| row.machines().any(|id| id == machine));
            changed.extend(rows.map(|row| Arc::clone(&row.name)));
        }
    }

    fn wish(&mut self, unit: &str, key: &str, value: &[u8]) -> Result<Option<Wish>, Error> {
        let wish = UnitBrief::decode(key, value)?;
        if wish.desired == DesiredState::Destroyed {
            return Ok(None);
        }
        let file = UnitFile::parse(wish.text.as_bytes()).map_err(|error| Error::Damaged {
            key: key.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Some(Wish {
            desired: wish.desired,
            hash: wish.hash,
            global: is_global(unit, &file),
            description: file.description().map(Into::into),
        }))
    }

    fn placement(&mut self, key: &str, value: &[u8]) -> Result<Placement, Error> {
        let placement = PlacementBrief::decode(key, value)?;
        Ok(Placement {
            machine: placement.machine.map(|id| self.word(&id)),
            leaving: placement.leaving.map(|id| self.word(&id)),
        })
    }

    fn state(&mut self, machine: &str, key: &str, value: &[u8]) -> Result<Option<State>, Error> {
        let state = StateBrief::decode(key, value)?;
        if state.reached == Reached::Gone {
            return Ok(None);
        }
        Ok(Some(State {
            machine: self.word(machine),
            load: self.word(&state.load),
            active: self.word(&state.active),
            sub: self.word(&state.sub),
            hash: state.hash,
            reached: state.reached,
            description: state.description.into(),
        }))
    }

    fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.words.get(word) {
            return Arc::clone(known);
        }
        let word: Arc<str> = word.into();
        if self.words.len() < MAX_WORDS {
            self.words.insert(Arc::clone(&word));
        }
        word
    }
}

impl Row {
    fn new(name: Arc<str>) -> Row {
        Row {
            name,
            wish: None,
            placement: None,
            states: Vec::new(),
        }
    }

    /// The machines that what it shows has to do with.
    pub(super) fn machines(&self) -> impl Iterator<Item = &str> {
        let placement = self.placement.as_ref();
        let places = placement.map(|at| [&at.machine, &at.leaving]);
        let places = places.into_iter().flatten().flatten();
        let states = self.states.iter().map(|state| &state.machine);
        places.chain(states).map(|id| &**id)
    }

    fn is_empty(&self) -> bool {
        self.wish.is_none() && self.placement.is_none() && self.states.is_empty()
    }

    fn text_bytes(&self) -> usize {
        let wish = self.wish.as_ref();
        let description = wish.and_then(|wish| wish.description.as_deref());
        let states = self.states.iter();
        let states = states.map(|state| STATE_BYTES + state.description.len());
        description.map_or(0, str::len) + states.sum::<usize>()
    }

    fn set_state(&mut self, machine: &str, state: Option<State>) {
        let found = self
            .states
            .binary_search_by(|known| (*known.machine).cmp(machine));
        match (found, state) {
            (Ok(at), Some(state)) => self.states[at] = state,
            (Ok(at), None) => drop(self.states.remove(at)),
            (Err(at), Some(state)) => {
                // Most units have one.
                self.states.reserve_exact(1);
                self.states.insert(at, state);
            }
            (Err(_), None) => {}
        }
    }
}

impl Presence {
    pub(super) fn status(&self, id: &str) -> MemberStatus {
        machine_status(self.present.contains(id), self.known.get(id).copied())
    }
}

/// What is damaged is not there, and is told.
fn found_or_damaged<T>(found: Result<Option<T>, Error>) -> (Option<T>, Result<(), Error>) {
    match found {
        Ok(found) => (found, Ok(())),
        Err(error) => (None, Err(error)),
    }
}
