//! Indices that make a decision cost what it touches: open machines in the order in which they
//! are tried, patterns with their owners, and waiting units by what could end their wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::glob::Glob;
use crate::name::UnitName;
use crate::records::MachineId;

/// The policy of placement: the order of the fields is the order of what counts, the smallest
/// is taken. The last field makes it deterministic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Score {
    /// Too many units have failed there of late: it comes last, and is still there for a unit
    /// that may run nowhere else.
    pub avoided: bool,
    /// How many units are wanted loaded or launched there.
    pub units: usize,
    /// The machine.
    pub machine: MachineId,
}

/// The machines that take new units, best first.
#[derive(Clone, Default, Debug)]
pub(crate) struct OpenMachines {
    pub(crate) all: BTreeSet<Score>,
    by_metadata: BTreeMap<String, BTreeMap<String, BTreeSet<Score>>>,
}

impl OpenMachines {
    pub(crate) fn insert(&mut self, score: &Score, metadata: &BTreeMap<String, String>) {
        self.all.insert(score.clone());
        for (key, value) in metadata {
            let values = match self.by_metadata.get_mut(key) {
                Some(values) => values,
                None => self.by_metadata.entry(key.clone()).or_default(),
            };
            match values.get_mut(value) {
                Some(machines) => machines,
                None => values.entry(value.clone()).or_default(),
            }
            .insert(score.clone());
        }
    }

    pub(crate) fn remove(&mut self, score: &Score, metadata: &BTreeMap<String, String>) {
        self.all.remove(score);
        for (key, value) in metadata {
            let Some(values) = self.by_metadata.get_mut(key) else {
                continue;
            };
            if let Some(machines) = values.get_mut(value) {
                machines.remove(score);
                if machines.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.by_metadata.remove(key);
            }
        }
    }

    /// How many machines have none of these values for a key.
    pub(crate) fn without(&self, key: &str, wanted: &BTreeSet<String>) -> usize {
        let values = self.by_metadata.get(key);
        let sets = wanted.iter().filter_map(|value| values?.get(value));
        let with: usize = sets.map(BTreeSet::len).sum();
        self.all.len().saturating_sub(with)
    }

    /// Those that are avoided.
    pub(crate) fn avoided(&self) -> impl Iterator<Item = &Score> {
        self.all.iter().rev().take_while(|score| score.avoided)
    }

    /// Open machines that may meet the metadata asked for, best first: those that meet the key
    /// with the fewest machines. The other keys are for the caller to check.
    pub(crate) fn candidates(
        &self,
        metadata: &BTreeMap<String, BTreeSet<String>>,
    ) -> Box<dyn Iterator<Item = &Score> + '_> {
        let sets = metadata
            .iter()
            .map(|(key, wanted)| {
                let values = self.by_metadata.get(key);
                wanted
                    .iter()
                    .filter_map(|value| values.and_then(|values| values.get(value)))
                    .collect::<Vec<_>>()
            })
            .min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>());
        match sets {
            None => Box::new(self.all.iter()),
            Some(sets) => {
                let mut sets: Vec<_> = sets.into_iter().map(|set| set.iter().peekable()).collect();
                // A machine has one value for a key, so it stands in one of the sets only.
                Box::new(std::iter::from_fn(move || {
                    let best = (0..sets.len())
                        .filter_map(|at| sets[at].peek().copied().map(|score| (score, at)))
                        .min()?;
                    sets[best.1].next()
                }))
            }
        }
    }
}

/// Patterns of unit names, with the units that they belong to.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct PatternSet {
    literal: BTreeMap<Arc<str>, BTreeSet<UnitName>>,
    /// By literal beginning, so that a name meets only the patterns that begin as it does.
    wild: BTreeMap<Arc<str>, BTreeMap<Glob, BTreeSet<UnitName>>>,
}

impl PatternSet {
    pub(crate) fn insert(&mut self, pattern: &Glob, owner: &UnitName) {
        if pattern.is_malformed() {
            return;
        }
        match pattern.is_literal() {
            Some(name) => self.literal.entry(Arc::from(name)).or_default(),
            None => {
                let beginning = Arc::from(pattern.literal_prefix());
                let patterns = self.wild.entry(beginning).or_default();
                patterns.entry(pattern.clone()).or_default()
            }
        }
        .insert(owner.clone());
    }

    pub(crate) fn remove(&mut self, pattern: &Glob, owner: &UnitName) {
        if let Some(name) = pattern.is_literal() {
            if let Some(owners) = self.literal.get_mut(name) {
                owners.remove(owner);
                if owners.is_empty() {
                    self.literal.remove(name);
                }
            }
            return;
        }
        let beginning = pattern.literal_prefix();
        let Some(patterns) = self.wild.get_mut(beginning) else {
            return;
        };
        if let Some(owners) = patterns.get_mut(pattern) {
            owners.remove(owner);
            if owners.is_empty() {
                patterns.remove(pattern);
            }
        }
        if patterns.is_empty() {
            self.wild.remove(beginning);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.wild.is_empty()
    }

    /// The owners of patterns that match a name; an owner may come more than once.
    pub(crate) fn owners<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a UnitName> {
        let beginnings: Box<dyn Iterator<Item = _>> = if self.wild.len() <= name.len() {
            Box::new(self.wild.values())
        } else {
            let ends = name.char_indices().map(|(at, _)| at);
            Box::new(
                ends.chain([name.len()])
                    .filter_map(|end| self.wild.get(&name[..end])),
            )
        };
        let wild = beginnings
            .flatten()
            .filter(move |(pattern, _)| pattern.matches(name))
            .flat_map(|(_, owners)| owners);
        self.literal.get(name).into_iter().flatten().chain(wild)
    }
}

/// The names among the keys of a map that a pattern matches, at the cost of those that share
/// its literal beginning.
pub(crate) fn matching<'a, V>(
    names: &'a BTreeMap<UnitName, V>,
    pattern: &'a Glob,
) -> Box<dyn Iterator<Item = (&'a UnitName, &'a V)> + 'a> {
    if pattern.is_malformed() {
        return Box::new(std::iter::empty());
    }
    match pattern.is_literal() {
        Some(name) => Box::new(names.get_key_value(name).into_iter()),
        None => {
            let prefix = pattern.literal_prefix();
            Box::new(
                names
                    .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                    .take_while(move |(name, _)| name.as_str().starts_with(prefix))
                    .filter(|(name, _)| pattern.matches(name.as_str())),
            )
        }
    }
}

/// What a waiting unit could profit from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WaitFor {
    /// Any machine that opens.
    Any,
    /// A machine of this id, or of these first eight characters.
    MachineId(String),
    /// A machine that has one of these values for this key.
    Metadata(String, BTreeSet<String>),
    /// This machine, where its peers are.
    Machine(MachineId),
    /// Only a peer that is placed; the peer's followers are looked at then.
    Peer,
}

/// One wait, kept to take it out of the index again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    pub(crate) wait_for: WaitFor,
    /// Units that must leave a machine before it can be used there.
    pub(crate) patterns: Vec<Glob>,
    /// Some machine is closed to it only because another unit (one that it replaces, or one that
    /// follows it) has nowhere to go: then whatever frees room anywhere matters.
    pub(crate) for_room: bool,
}

/// Units that are wanted on a machine, or on another machine, and cannot have it now.
#[derive(Clone, Default, Debug)]
pub(crate) struct Waiting {
    pub(crate) units: BTreeMap<UnitName, Wait>,
    any: BTreeSet<UnitName>,
    by_id: BTreeMap<String, BTreeSet<UnitName>>,
    by_metadata: BTreeMap<(String, String), BTreeSet<UnitName>>,
    by_machine: BTreeMap<MachineId, BTreeSet<UnitName>>,
    patterns: PatternSet,
    pub(crate) for_room: BTreeSet<UnitName>,
}

impl Waiting {
    pub(crate) fn insert(&mut self, unit: &UnitName, wait: Wait) {
        if self.units.get(unit) == Some(&wait) {
            return;
        }
        self.remove(unit);
        match &wait.wait_for {
            WaitFor::Any => {
                self.any.insert(unit.clone());
            }
            WaitFor::MachineId(id) => {
                let units = self.by_id.entry(id.clone()).or_default();
                units.insert(unit.clone());
            }
            WaitFor::Metadata(key, values) => {
                for value in values {
                    let entry = self.by_metadata.entry((key.clone(), value.clone()));
                    entry.or_default().insert(unit.clone());
                }
            }
            WaitFor::Machine(id) => {
                let units = self.by_machine.entry(id.clone()).or_default();
                units.insert(unit.clone());
            }
            WaitFor::Peer => {}
        }
        for pattern in &wait.patterns {
            self.patterns.insert(pattern, unit);
        }
        if wait.for_room {
            self.for_room.insert(unit.clone());
        }
        self.units.insert(unit.clone(), wait);
    }

    pub(crate) fn remove(&mut self, unit: &UnitName) {
        fn take<K: Ord>(index: &mut BTreeMap<K, BTreeSet<UnitName>>, key: &K, unit: &UnitName) {
            if let Some(units) = index.get_mut(key) {
                units.remove(unit);
                if units.is_empty() {
                    index.remove(key);
                }
            }
        }
        let Some(wait) = self.units.remove(unit) else {
            return;
        };
        match wait.wait_for {
            WaitFor::Any => {
                self.any.remove(unit);
            }
            WaitFor::MachineId(id) => take(&mut self.by_id, &id, unit),
            WaitFor::Metadata(key, values) => {
                for value in values {
                    take(&mut self.by_metadata, &(key.clone(), value), unit);
                }
            }
            WaitFor::Machine(id) => take(&mut self.by_machine, &id, unit),
            WaitFor::Peer => {}
        }
        for pattern in &wait.patterns {
            self.patterns.remove(pattern, unit);
        }
        self.for_room.remove(unit);
    }

    /// The units that a machine which has opened, or has changed its metadata, may help.
    pub(crate) fn for_machine<'a>(
        &'a self,
        id: &'a MachineId,
        metadata: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a UnitName> {
        let short = (id.short() != id.as_str()).then(|| self.by_id.get(id.short()));
        let by_metadata = metadata
            .iter()
            .filter_map(|(key, value)| self.by_metadata.get(&(key.clone(), value.clone())));
        self.any
            .iter()
            .chain(self.by_id.get(id.as_str()).into_iter().flatten())
            .chain(short.flatten().into_iter().flatten())
            .chain(self.by_machine.get(id).into_iter().flatten())
            .chain(by_metadata.flatten())
    }

    /// The units that may profit when a unit with these patterns leaves a machine.
    pub(crate) fn for_leaver(&self, name: &UnitName, patterns: &[&Glob]) -> BTreeSet<UnitName> {
        let by_theirs = self.patterns.owners(name.as_str());
        let by_its = patterns
            .iter()
            .flat_map(|pattern| matching(&self.units, pattern))
            .map(|(unit, _)| unit);
        by_theirs.chain(by_its).cloned().collect()
    }
}
