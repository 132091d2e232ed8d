//! The store as pure memory: entries, leases, and a bounded history for watches.
//!
//! No I/O, no locks, no clock: `now` is an argument. A change is made in two steps, so that it
//! can be made durable in between: [`Model::stage`] decides what it does, [`Model::apply`] does
//! it. Several transactions can be staged on top of each other and applied together.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    Compare, Entry, Error, Event, LeaseId, MAX_NEWEST, Op, Range, Revision, Snapshot, Txn,
};

/// How many changes are kept for watches that have fallen behind and for reads of the past.
/// One machine makes this many in hours; who is further behind reads anew.
pub(crate) const HISTORY_EVENTS: usize = 100_000;

/// How many bytes of documents the history may hold, as large units would fill the memory first.
pub(crate) const HISTORY_BYTES: usize = 32 << 20;

/// The store's state.
#[derive(Debug)]
pub(crate) struct Model {
    revision: Revision,
    /// Nothing is known of how it was before this revision.
    compacted: Revision,
    entries: BTreeMap<String, Stored>,
    /// What each revision changed; the last is that of `revision`.
    history: VecDeque<Vec<Change>>,
    history_events: usize,
    history_bytes: usize,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: i64,
}

/// The value of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) value: Arc<[u8]>,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) lease: Option<LeaseId>,
}

/// One key's change at one revision.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: String,
    before: Option<Stored>,
    /// None: deleted.
    pub(crate) after: Option<Stored>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

/// What a lease's record becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeaseChange {
    Grant(LeaseId, Duration),
    End(LeaseId),
}

/// Decided and not yet applied changes, in the order of their revisions.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) revision: Revision,
    pub(crate) next_lease: i64,
    pub(crate) steps: Vec<Vec<Change>>,
    pub(crate) leases: Vec<LeaseChange>,
    /// The keys that `steps` change, as they are after the last of them.
    overlay: HashMap<String, Option<Stored>>,
}

impl Staged {
    /// Nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.leases.is_empty()
    }
}

impl Model {
    /// An empty store. As in etcd the first revision is 1, so that 0 is never a key's revision.
    /// `first_lease` begins the ids of its leases: two stores shall not have the same ones.
    pub(crate) fn new(first_lease: LeaseId) -> Model {
        Model::restore(1, BTreeMap::new(), [], first_lease.0, None)
    }

    /// A store as it was saved; `now` starts the leases anew with their full time.
    pub(crate) fn restore(
        revision: Revision,
        entries: BTreeMap<String, Stored>,
        leases: impl IntoIterator<Item = (LeaseId, Duration)>,
        next_lease: i64,
        now: Option<Instant>,
    ) -> Model {
        let now = now.unwrap_or_else(Instant::now);
        let mut leases: BTreeMap<_, _> = leases
            .into_iter()
            .map(|(id, ttl)| (id, Lease::new(ttl, now)))
            .collect();
        for (key, stored) in &entries {
            if let Some(lease) = stored.lease.and_then(|id| leases.get_mut(&id)) {
                lease.keys.insert(key.clone());
            }
        }
        Model {
            revision,
            compacted: if entries.is_empty() && revision == 1 {
                0
            } else {
                revision
            },
            entries,
            history: VecDeque::new(),
            history_events: 0,
            history_bytes: 0,
            leases,
            next_lease,
        }
    }

    /// As it would be after it was saved and restored.
    #[cfg(any(test, fleet_sim))]
    pub(crate) fn copy(&self, next: LeaseId) -> Model {
        let leases = self.leases.iter().map(|(id, lease)| (*id, lease.ttl));
        let entries = self.entries.clone();
        Model::restore(self.revision, entries, leases, next.0, None)
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// See [`super::Store::read`].
    pub(crate) fn read(&self, range: &Range) -> Result<Snapshot, Error> {
        let revision = self.readable(range.revision)?;
        let past = self.undone(revision);
        let start = match &range.after {
            Some(after) if *after >= range.prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(range.prefix.as_str()),
        };
        let bounds = (start, Bound::Unbounded);
        let below = |key: &&str| {
            let until = range.until.as_deref();
            key.starts_with(&range.prefix) && until.is_none_or(|until| *key < until)
        };
        let mut now = self
            .entries
            .range::<str, _>(bounds)
            .map(|(key, stored)| (key.as_str(), stored))
            .take_while(|(key, _)| below(key))
            .filter(|(key, _)| !past.contains_key(key))
            .peekable();
        let mut then = past
            .range::<str, _>(bounds)
            .map(|(key, stored)| (*key, *stored))
            .take_while(|(key, _)| below(key))
            .filter_map(|(key, stored)| Some((key, stored?)))
            .peekable();
        let mut merged = std::iter::from_fn(|| match (now.peek(), then.peek()) {
            (Some((a, _)), Some((b, _))) if b < a => then.next(),
            (Some(_), _) => now.next(),
            (None, _) => then.next(),
        });
        let limit = range.limit.unwrap_or(usize::MAX);
        if let Some(before) = range.changed_before {
            let mut newest: Vec<Entry> = merged
                .filter(|(_, stored)| stored.mod_revision < before)
                .map(|(key, stored)| stored.entry(key))
                .collect();
            newest.sort_by_key(|entry| std::cmp::Reverse(entry.mod_revision));
            let limit = limit.min(MAX_NEWEST);
            let more = newest.len() > limit;
            newest.truncate(limit);
            return Ok(Snapshot {
                revision,
                entries: newest,
                more,
            });
        }
        let entries = merged
            .by_ref()
            .take(limit)
            .map(|(key, stored)| stored.entry(key))
            .collect();
        Ok(Snapshot {
            revision,
            entries,
            more: merged.next().is_some(),
        })
    }

    /// See [`super::Store::read_keys`].
    pub(crate) fn read_keys(&self, keys: &[String]) -> Snapshot {
        let keys: BTreeSet<&String> = keys.iter().collect();
        Snapshot {
            revision: self.revision,
            entries: keys
                .into_iter()
                .filter_map(|key| Some(self.entries.get(key)?.entry(key)))
                .collect(),
            more: false,
        }
    }

    /// The changes below a prefix after a revision, at least `limit` if there are so many, and the
    /// revision up to which they are complete.
    pub(crate) fn events(
        &self,
        prefix: &str,
        after: Revision,
        limit: usize,
    ) -> Result<(Revision, Vec<Event>), Error> {
        self.readable(Some(after))
            .map_err(|_| Error::Compacted(self.compacted))?;
        let first = self.revision + 1 - self.history.len() as Revision;
        let next = first.max(after + 1);
        let seen = usize::try_from(next - first).unwrap_or(usize::MAX);
        let unseen = self.history.range(seen.min(self.history.len())..);
        let mut events = Vec::new();
        for (revision, step) in (next..).zip(unseen) {
            if events.len() >= limit {
                return Ok((revision - 1, events));
            }
            events.extend(
                step.iter()
                    .filter(|change| change.key.starts_with(prefix))
                    .map(|change| change.event(revision)),
            );
        }
        Ok((self.revision, events))
    }

    /// Begins to stage changes.
    pub(crate) fn begin(&self) -> Staged {
        Staged {
            revision: self.revision,
            next_lease: self.next_lease,
            steps: Vec::new(),
            leases: Vec::new(),
            overlay: HashMap::new(),
        }
    }

    /// Decides a transaction on top of what is staged. Returns its revision; on an error nothing
    /// is added.
    pub(crate) fn stage(
        &self,
        staged: &mut Staged,
        txn: Txn,
        now: Instant,
    ) -> Result<Revision, Error> {
        txn.check()?;
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => self.staged_value(staged, key).is_none(),
            Compare::ModRevision(key, is) => self
                .staged_value(staged, key)
                .is_some_and(|stored| stored.mod_revision == *is),
            Compare::CreateRevision(key, is) => self
                .staged_value(staged, key)
                .is_some_and(|stored| stored.create_revision == *is),
            Compare::Lease(key, is) => self
                .staged_value(staged, key)
                .is_some_and(|stored| stored.lease == Some(*is)),
        };
        if !txn.compares.iter().all(holds) {
            return Err(Error::Conflict);
        }
        let alive = |id: &LeaseId| {
            self.leases
                .get(id)
                .is_some_and(|lease| lease.deadline > now)
        };
        let mut leases = txn.ops.iter().filter_map(|op| match op {
            Op::Put { lease, .. } => lease.as_ref(),
            Op::Delete { .. } => None,
        });
        if !leases.all(alive) {
            return Err(Error::LeaseGone);
        }
        let revision = staged.revision + 1;
        let changes = txn
            .ops
            .into_iter()
            .filter_map(|op| {
                let (key, put) = match op {
                    Op::Put { key, value, lease } => (key, Some((value, lease))),
                    Op::Delete { key } => (key, None),
                };
                let before = self.staged_value(staged, &key).cloned();
                let after = put.map(|(value, lease)| Stored {
                    value: value.into(),
                    create_revision: before.as_ref().map_or(revision, |old| old.create_revision),
                    mod_revision: revision,
                    lease,
                });
                (before.is_some() || after.is_some()).then_some(Change { key, before, after })
            })
            .collect();
        staged.push(changes);
        Ok(staged.revision)
    }

    /// Decides a new lease. Nothing else may be staged.
    pub(crate) fn stage_grant(&self, ttl: Duration) -> (LeaseId, Staged) {
        let mut staged = self.begin();
        let id = LeaseId(staged.next_lease);
        staged.next_lease += 1;
        staged.leases.push(LeaseChange::Grant(id, ttl));
        (id, staged)
    }

    /// Decides the end of a lease. Nothing else may be staged.
    pub(crate) fn stage_revoke(&self, id: LeaseId) -> Staged {
        let mut staged = self.begin();
        self.stage_end(&mut staged, id);
        staged
    }

    /// Decides the end of all leases whose time is over, each at a revision of its own. Nothing
    /// else may be staged.
    pub(crate) fn stage_expired(&self, now: Instant) -> Staged {
        let mut staged = self.begin();
        for (id, lease) in &self.leases {
            if lease.deadline <= now {
                self.stage_end(&mut staged, *id);
            }
        }
        staged
    }

    /// When the next lease ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.deadline).min()
    }

    /// Makes staged changes true. They must have been staged on this model as it is.
    pub(crate) fn apply(&mut self, staged: Staged, now: Instant) {
        for change in staged.leases {
            match change {
                LeaseChange::Grant(id, ttl) => {
                    self.leases.insert(id, Lease::new(ttl, now));
                }
                LeaseChange::End(id) => {
                    self.leases.remove(&id);
                }
            }
        }
        for step in staged.steps {
            for change in &step {
                self.apply_change(change);
            }
            self.history_events += step.len();
            self.history_bytes += step.iter().map(Change::bytes).sum::<usize>();
            self.history.push_back(step);
        }
        self.revision = staged.revision;
        self.next_lease = staged.next_lease;
        while self.history_events > HISTORY_EVENTS || self.history_bytes > HISTORY_BYTES {
            self.forget_oldest();
        }
    }

    /// See [`super::Store::keep_alive`].
    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Result<Duration, Error> {
        match self.leases.get_mut(&id) {
            Some(lease) if lease.deadline > now => {
                lease.deadline = now + lease.ttl;
                Ok(lease.ttl)
            }
            _ => Err(Error::LeaseGone),
        }
    }

    /// See [`super::Store::compact`].
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision > self.revision {
            return Err(future(revision, self.revision));
        }
        while self.compacted < revision && !self.history.is_empty() {
            self.forget_oldest();
        }
        self.compacted = self.compacted.max(revision);
        Ok(())
    }

    fn readable(&self, revision: Option<Revision>) -> Result<Revision, Error> {
        match revision {
            None => Ok(self.revision),
            Some(past) if past < self.compacted => Err(Error::Compacted(self.compacted)),
            Some(later) if later > self.revision => Err(future(later, self.revision)),
            Some(kept) => Ok(kept),
        }
    }

    /// The keys that changed after a revision, as they were at it.
    fn undone(&self, revision: Revision) -> BTreeMap<&str, Option<&Stored>> {
        let newer = usize::try_from(self.revision - revision).unwrap_or(usize::MAX);
        let mut past = BTreeMap::new();
        for change in self.history.iter().rev().take(newer).flatten() {
            past.insert(change.key.as_str(), change.before.as_ref());
        }
        past
    }

    fn staged_value<'a>(&'a self, staged: &'a Staged, key: &str) -> Option<&'a Stored> {
        match staged.overlay.get(key) {
            Some(staged) => staged.as_ref(),
            None => self.entries.get(key),
        }
    }

    fn stage_end(&self, staged: &mut Staged, id: LeaseId) {
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let changes = lease
            .keys
            .iter()
            .map(|key| Change {
                key: key.clone(),
                before: self.entries.get(key).cloned(),
                after: None,
            })
            .collect();
        staged.push(changes);
        staged.leases.push(LeaseChange::End(id));
    }

    fn apply_change(&mut self, change: &Change) {
        let lease_of = |stored: &Option<Stored>| stored.as_ref().and_then(|stored| stored.lease);
        let (old, new) = (lease_of(&change.before), lease_of(&change.after));
        if old != new {
            if let Some(lease) = old.and_then(|id| self.leases.get_mut(&id)) {
                lease.keys.remove(&change.key);
            }
            if let Some(lease) = new.and_then(|id| self.leases.get_mut(&id)) {
                lease.keys.insert(change.key.clone());
            }
        }
        match &change.after {
            Some(stored) => {
                self.entries.insert(change.key.clone(), stored.clone());
            }
            None => {
                self.entries.remove(&change.key);
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(step) = self.history.pop_front() {
            self.history_events -= step.len();
            self.history_bytes -= step.iter().map(Change::bytes).sum::<usize>();
            self.compacted = self.revision - self.history.len() as Revision;
        }
    }
}

impl Staged {
    fn push(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            self.overlay
                .insert(change.key.clone(), change.after.clone());
        }
        self.revision += 1;
        self.steps.push(changes);
    }
}

impl Stored {
    fn entry(&self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: self.value.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            lease: self.lease,
        }
    }
}

impl Change {
    fn event(&self, revision: Revision) -> Event {
        match &self.after {
            Some(stored) => Event::Put(stored.entry(&self.key)),
            None => Event::Delete {
                key: self.key.clone(),
                revision,
            },
        }
    }

    /// What it keeps in memory that nothing else needs: about the old value.
    fn bytes(&self) -> usize {
        self.key.len() + self.before.as_ref().map_or(0, |old| old.value.len())
    }
}

impl Lease {
    fn new(ttl: Duration, now: Instant) -> Lease {
        Lease {
            ttl,
            deadline: now + ttl,
            keys: BTreeSet::new(),
        }
    }
}

fn future(asked: Revision, newest: Revision) -> Error {
    Error::Refused(format!(
        "revision {asked} is not yet reached, the newest is {newest}; was the store replaced?"
    ))
}
