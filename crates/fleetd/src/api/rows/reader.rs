//! Units read from the store, some in a row at a time, all at one revision.
//!
//! What belongs to some units (placements, states) is read by the ranges of their keys, while the next
//! units are read already. The ranges of all of them cover the whole prefixes: also what belongs to
//! nobody is in the table, so that it may be kept true by a watch.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::Api;
use super::super::failure::Failure;
use super::super::v2::compacted;
use super::kept::Permit;
use super::table::{Presence, Row, Table};
use crate::store::keys::{self, Key};
use crate::store::{Range, Revision, Snapshot};

/// The first units: as many as etcd gives in one page, and what most clusters have at most.
const FIRST_UNITS: usize = 1_000;

/// Units read at once after that: each page has etcd count all keys that follow.
const UNITS: usize = 5_000;

/// Documents decoded without a pause: a millisecond, for which everything else on this thread waits.
const AT_ONCE: usize = 1_000;

/// Sorts before everything else that sorts after a text.
const JUST_AFTER: char = '\0';

/// A listing under way.
pub(super) struct Reader {
    state: Api,
    limit: usize,
    revision: Option<Revision>,
    /// The last unit that was read.
    after: Option<String>,
    /// States up to this key have been read.
    states_until: String,
    /// The next units, read already.
    ahead: Option<Snapshot>,
    table: Table,
    is_first: bool,
    /// The damaged records that were told.
    told: BTreeSet<String>,
    /// All that is read may be kept.
    permit: Option<Permit>,
}

/// Units that follow one another.
pub(super) struct Read {
    pub(super) revision: Revision,
    pub(super) rows: Vec<Arc<Row>>,
    pub(super) presence: Arc<Presence>,
    pub(super) more: bool,
    pub(super) warnings: Vec<String>,
}

/// Units that were read in one go.
struct Step {
    revision: Revision,
    /// The last unit before them.
    before: Option<String>,
    /// The last of them.
    last: Option<String>,
    more: bool,
}

impl Reader {
    /// `limit`: at most so many units at once.
    pub(super) fn new(
        state: &Api,
        after: Option<&str>,
        revision: Option<Revision>,
        limit: usize,
    ) -> Reader {
        let is_whole = after.is_none() && revision.is_none();
        Reader {
            permit: is_whole.then(|| state.kept.permit()).flatten(),
            ..Reader::begin(state, after, revision, limit)
        }
    }

    fn begin(state: &Api, after: Option<&str>, revision: Option<Revision>, limit: usize) -> Reader {
        Reader {
            permit: None,
            state: Arc::clone(state),
            limit,
            revision,
            states_until: after.map_or(keys::STATES.to_owned(), keys::states_of),
            after: after.map(str::to_owned),
            ahead: None,
            table: Table::default(),
            is_first: true,
            told: BTreeSet::new(),
        }
    }

    /// All units at a revision, or now; with the permit to keep them, if they are not too many.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub(super) async fn whole(
        state: &Api,
        permit: Permit,
        revision: Option<Revision>,
    ) -> Result<Option<(Table, Revision, Permit)>, Failure> {
        let mut reader = Reader::begin(state, None, revision, usize::MAX);
        loop {
            let step = reader.step().await?;
            if reader.table.is_too_much(permit.max_bytes) {
                return Ok(None);
            }
            if !step.more {
                return Ok(Some((reader.table, step.revision, permit)));
            }
        }
    }

    /// The next units; the last ones are without `more`.
    ///
    /// # Errors
    /// The store's; 410 when it has forgotten the revision.
    pub(super) async fn next(&mut self) -> Result<Read, Failure> {
        let Step {
            revision,
            before,
            last,
            more,
        } = self.step().await?;
        let rows = match (&last, more) {
            (Some(last), true) => self.table.live_between(before.as_deref(), last),
            _ => self.table.live(before.as_deref(), usize::MAX).0,
        };
        let read = Read {
            revision,
            rows,
            presence: self.table.presence(),
            more,
            warnings: self.news(),
        };
        self.put_aside(more, revision);
        Ok(read)
    }

    /// Reads the next units into the table.
    async fn step(&mut self) -> Result<Step, Failure> {
        let units = match self.ahead.take() {
            Some(units) => units,
            None => self.read_units(FIRST_UNITS).await?,
        };
        let revision = units.revision;
        self.revision = Some(revision);
        let last = units.entries.last();
        let last = last.and_then(|entry| entry.key.strip_prefix(keys::UNITS).map(str::to_owned));
        self.take_in(&units).await;
        let before = self.after.take();
        let more = units.more;
        self.after = last.clone();
        let until = more.then_some(last.as_deref()).flatten();
        let states = self.range_of_states(&units, until);
        let states_until = states.until.clone();
        let placements = Range {
            after: before.as_deref().map(keys::placement),
            until: until.map(|last| just_after(keys::placement(last))),
            ..self.range(keys::PLACEMENTS)
        };
        let store = &self.state.store;
        let ahead = async {
            match more {
                true => self.read_units(UNITS).await.map(Some),
                false => Ok(None),
            }
        };
        let read = async |range| store.read(range).await.map_err(compacted);
        // Once for the whole listing.
        let who = async |prefix| match self.is_first {
            true => read(self.range(prefix)).await,
            false => Ok(Snapshot::default()),
        };
        let (machines, members, placements, states, ahead) = tokio::try_join!(
            who(keys::MACHINES),
            who(keys::MEMBERS),
            read(placements),
            read(states),
            ahead,
        )?;
        for found in [machines, members, placements, states] {
            self.take_in(&found).await;
        }
        self.is_first = false;
        if let Some(until) = states_until {
            self.states_until = until.max(std::mem::take(&mut self.states_until));
        }
        self.ahead = ahead;
        Ok(Step {
            revision,
            before,
            last,
            more,
        })
    }

    /// What was read is kept as far as that is allowed, and forgotten otherwise.
    fn put_aside(&mut self, more: bool, revision: Revision) {
        let is_too_much = |permit: &Permit| self.table.is_too_much(permit.max_bytes);
        if self.permit.as_ref().is_some_and(is_too_much) {
            self.permit = None;
        }
        match &self.permit {
            None => self.table.forget_units(),
            Some(_) if more => {}
            Some(_) => {
                let table = std::mem::take(&mut self.table);
                if let Some(permit) = self.permit.take() {
                    self.state.kept.keep(permit, table, revision);
                }
            }
        }
    }

    /// Decodes what was read, and lets others have their turn meanwhile.
    async fn take_in(&mut self, found: &Snapshot) {
        for entries in found.entries.chunks(AT_ONCE) {
            entries.iter().for_each(|entry| self.table.put(entry));
            tokio::task::yield_now().await;
        }
    }

    /// What has been found to be damaged and was not told yet.
    fn news(&mut self) -> Vec<String> {
        let damaged = self.table.damaged();
        let news = damaged.filter(|(key, _)| self.told.insert((*key).to_owned()));
        news.map(|(_, why)| why.to_owned()).collect()
    }

    async fn read_units(&self, at_once: usize) -> Result<Snapshot, Failure> {
        let range = Range {
            after: self.after.as_deref().map(keys::unit),
            limit: Some(at_once.min(self.limit)),
            ..self.range(keys::UNITS)
        };
        self.state.store.read(range).await.map_err(compacted)
    }

    fn range(&self, prefix: &str) -> Range {
        Range {
            prefix: prefix.to_owned(),
            revision: self.revision,
            ..Range::default()
        }
    }

    /// From the first *key* of these units' states, or from where the ones before have ended, to the
    /// last one: the `/` behind a unit's name sorts after `-` and `.`, so that keys are not in the
    /// order of the names.
    fn range_of_states(&self, units: &Snapshot, until: Option<&str>) -> Range {
        let names = || {
            let keys = units.entries.iter().map(|entry| keys::parse(&entry.key));
            keys.filter_map(|key| match key {
                Key::Unit(name) => Some(keys::states_of(name)),
                _ => None,
            })
        };
        let first = names().min();
        let from = match first {
            Some(first) if first < self.states_until => first,
            _ => self.states_until.clone(),
        };
        Range {
            // Before its first key.
            after: Some(from),
            until: until.and_then(|_| names().max()).map(just_behind),
            ..self.range(keys::STATES)
        }
    }
}

fn just_after(mut key: String) -> String {
    key.push(JUST_AFTER);
    key
}

/// What follows all keys below a prefix that ends with `/`.
fn just_behind(mut prefix: String) -> String {
    prefix.pop();
    // The character after `/`.
    prefix.push('0');
    prefix
}
