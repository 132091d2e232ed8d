//! Requirements: the parsed `[X-Fleet]` section of a unit file.
//!
//! Reading never fails: what makes no sense is left out and returned as a [`Warning`].
//! [`crate::validate`] decides which of it is an error, before a unit is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::exclusive::{self, Unbounded};
use crate::glob::Glob;
use crate::name::{NameError, UnitName, UnitType};
use crate::text::Quoted;
use crate::unit_file::UnitFile;

mod keys;
mod values;

pub use values::{DEFAULT_MOVES, MAX_MOVES};

#[cfg(test)]
pub(crate) use keys::known;
pub(crate) use keys::{EXCLUSIVE, UnknownKey};

/// The section that requirements stand in. Case counts.
pub const SECTION: &str = "X-Fleet";

/// A time span as systemd (`1min 30s`, `90`) or Go (`1m30s`, `1.5h`) write it; None if it is none.
pub fn time_span(text: &str) -> Option<Duration> {
    values::time_span(text)
}

/// Where and how a unit wants to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Requirements {
    /// The machine's full id or exactly its first 8 characters. Other text, the empty one
    /// included, matches no machine.
    pub machine_id: Option<String>,
    /// Units that must be placed on the same machine.
    pub machine_of: Vec<String>,
    /// For each key the values of which the machine must have one.
    pub metadata: BTreeMap<String, BTreeSet<String>>,
    /// Units that must not be on the same machine, in whichever direction.
    pub conflicts: Vec<Glob>,
    /// Units that go elsewhere when this one comes.
    pub replaces: Vec<Glob>,
    /// Runs on every machine that qualifies.
    pub global: bool,
    /// At most one copy runs, also across a partition.
    pub exclusive: bool,
    /// Of an exclusive unit: how long after the end of its lease it may still run. None: nobody
    /// can tell.
    pub stops_within: Option<Duration>,
    /// How long a machine may be away before this unit is placed elsewhere.
    pub lost_after: Option<Duration>,
    /// When systemd has given it up, it is moved to another machine, so often at most.
    pub reschedule_on_failure: u32,
}

/// Something a person should know about a unit file that is accepted all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A key that means nothing here.
    #[error("{}", UnknownKey::message(.key, .suggestion.as_deref()))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// A known key that looks like it.
        suggestion: Option<String>,
    },
    /// A section whose name is almost [`SECTION`].
    #[error("section [{0}] means nothing: did you mean [X-Fleet]?")]
    UnknownSection(String),
    /// A value that cannot be used.
    #[error("ignored: {0}")]
    Ignored(RequirementError),
    /// A pattern that can match no name.
    #[error("{key}={} matches nothing: the pattern is malformed", Quoted(.pattern))]
    MalformedGlob {
        /// `Conflicts` or `Replaces`.
        key: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// A truth value that the original reads as false.
    #[error("Global={} is read as false (true is one of true, yes, 1, on, t)", Quoted(.0))]
    UnclearGlobal(String),
    /// `MachineOf` names what can never be a unit.
    #[error(
        "MachineOf={} is not a unit name, so this unit will never be placed: {error} \
         (write one unit name per line)",
        Quoted(.value)
    )]
    NotAUnitName {
        /// What stands there.
        value: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// A key that does nothing for a unit that is on every machine anyway.
    #[error("{0} has no effect on a global unit: it runs on every machine that qualifies")]
    NoEffectOnGlobal(&'static str),
    /// The name is taken as the original takes it, but no machine can run the unit.
    #[error("{}", not_loadable(*.0).unwrap_or_default())]
    NotLoadable(UnitType),
}

/// Why no machine can run a unit of this type, for those of which that is so.
pub fn not_loadable(unit_type: UnitType) -> Option<String> {
    let cure = unit_type.cure_if_not_loadable()?;
    Some(format!(
        "systemd loads no {unit_type} units from files ({cure})"
    ))
}

/// A value that a requirement cannot have. Left out, the unit would run where it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// Not `key=value`.
    #[error(
        "MachineMetadata={} is not key=value with one \"=\" and text on both sides \
         (write one pair per line, or quote each: MachineMetadata=\"a=b\" \"c=d\")",
        Quoted(.0)
    )]
    Metadata(String),
    /// A key that needs a value has none.
    #[error("{0} is empty: give it a value or remove the line")]
    Empty(&'static str),
    /// Neither true nor false.
    #[error("{key}={} is neither yes nor no", Quoted(.value))]
    Boolean {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// Neither true, nor false, nor a number of moves.
    #[error(
        "{key}={} is neither yes, nor no, nor a number of moves from 0 to {MAX_MOVES}",
        Quoted(.value)
    )]
    Moves {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// Not a span of time.
    #[error("{key}={} is not a time span of at most 365 days, such as 30s or 1min 30s", Quoted(.value))]
    TimeSpan {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// An exclusive unit whose stop has no end.
    #[error(transparent)]
    Unbounded(#[from] Unbounded),
}

impl Requirements {
    /// Reads the `[X-Fleet]` section. With `name`, the specifiers `%n`, `%N`, `%p` and `%i` are
    /// replaced by its parts.
    pub fn parse(file: &UnitFile, name: Option<&UnitName>) -> (Requirements, Vec<Warning>) {
        let reading = read(file, name);
        let warnings = reading
            .unknown
            .into_iter()
            .map(Warning::from)
            .chain(reading.errors.into_iter().map(Warning::Ignored))
            .chain(reading.warnings)
            .collect();
        (reading.requirements, warnings)
    }

    /// All patterns of other units' names: those of `Conflicts`, then those of `Replaces`.
    pub fn patterns(&self) -> Vec<&Glob> {
        self.conflicts.iter().chain(&self.replaces).collect()
    }
}

/// What the section says, with all that is wrong in it, worst first.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) requirements: Requirements,
    /// Keys (and sections) that mean nothing.
    pub(crate) unknown: Vec<UnknownKey>,
    /// Values left out.
    pub(crate) errors: Vec<RequirementError>,
    /// The rest.
    pub(crate) warnings: Vec<Warning>,
    /// How much text there was, specifiers replaced.
    pub(crate) n_bytes: usize,
}

pub(crate) fn read(file: &UnitFile, name: Option<&UnitName>) -> Reading {
    let lines = values::Lines::read(file, name);
    let mut reading = Reading {
        requirements: Requirements::default(),
        unknown: keys::unknown(file),
        errors: Vec::new(),
        warnings: Vec::new(),
        n_bytes: lines.n_bytes,
    };
    reading.read_machine_id(&lines);
    reading.read_machine_of(&lines);
    reading.read_metadata(&lines);
    reading.read_globs(&lines);
    reading.read_switches(&lines);
    if reading.requirements.exclusive {
        match exclusive::stops_within(file) {
            Ok(time) => reading.requirements.stops_within = Some(time),
            Err(error) => reading.errors.push(error.into()),
        }
    }
    reading
}

impl Reading {
    /// The first value of the first spelling that is there.
    fn read_machine_id(&mut self, lines: &values::Lines) {
        let id = keys::MACHINE_ID.iter().find_map(|key| lines.of(key).next());
        if let Some(id) = id.and_then(|line| line.values.first()) {
            if id.is_empty() {
                self.errors.push(RequirementError::Empty("MachineID"));
            }
            self.requirements.machine_id = Some(id.clone());
        }
    }

    /// One name per value. An empty one stays unless it is a gap between quoted ones: no unit
    /// has that name, so the unit waits instead of running anywhere.
    fn read_machine_of(&mut self, lines: &values::Lines) {
        for value in lines
            .of_all(&keys::MACHINE_OF)
            .flat_map(|line| line.without_gaps())
        {
            if value.is_empty() {
                self.errors.push(RequirementError::Empty("MachineOf"));
            } else if !value.contains('%')
                && let Err(error) = UnitName::parse(value)
            {
                self.warnings.push(Warning::NotAUnitName {
                    value: value.to_owned(),
                    error,
                });
            }
            self.requirements.machine_of.push(value.to_owned());
        }
    }

    /// Pairs; the original ignores several of them on an unquoted line, which we read as meant.
    fn read_metadata(&mut self, lines: &values::Lines) {
        for line in lines.of_all(&keys::METADATA) {
            for value in line.without_gaps() {
                let pairs = match values::pair(value) {
                    Some(pair) => vec![pair],
                    None if line.is_quoted => vec![],
                    None => value
                        .split_whitespace()
                        .map(values::pair)
                        .collect::<Option<_>>()
                        .unwrap_or_default(),
                };
                if pairs.is_empty() {
                    self.errors.push(match value.is_empty() {
                        true => RequirementError::Empty("MachineMetadata"),
                        false => RequirementError::Metadata(value.to_owned()),
                    });
                }
                for (key, value) in pairs {
                    let values = self.requirements.metadata.entry(key.to_owned());
                    values.or_default().insert(value.to_owned());
                }
            }
        }
    }

    fn read_globs(&mut self, lines: &values::Lines) {
        self.requirements.conflicts = lines
            .of_all(&keys::CONFLICTS)
            .flat_map(|line| &line.values)
            .flat_map(|value| value.split_whitespace())
            .map(Glob::new)
            .collect();
        self.requirements.replaces = lines
            .of_all(&keys::REPLACES)
            .flat_map(|line| line.without_gaps())
            .map(Glob::new)
            .collect();
        let requirements = &self.requirements;
        for (key, globs) in [
            ("Conflicts", &requirements.conflicts),
            ("Replaces", &requirements.replaces),
        ] {
            let malformed = globs.iter().filter(|glob| glob.is_malformed());
            self.warnings
                .extend(malformed.map(|glob| Warning::MalformedGlob {
                    key,
                    pattern: glob.as_str().to_owned(),
                }));
        }
    }

    /// Keys of which the last value counts.
    fn read_switches(&mut self, lines: &values::Lines) {
        if let Some(value) = lines.last(keys::GLOBAL) {
            self.requirements.global = values::is_true_to_the_original(value);
            let is_clear = self.requirements.global || value.is_empty();
            if !is_clear && values::boolean(value) != Some(false) {
                self.warnings.push(Warning::UnclearGlobal(value.to_owned()));
            }
        }
        self.requirements.exclusive = self.boolean(lines, keys::EXCLUSIVE);
        self.read_moves(lines);
        if let Some(value) = lines.last(keys::LOST_AFTER) {
            self.requirements.lost_after = values::time_span(value);
            if self.requirements.lost_after.is_none() {
                self.errors.push(RequirementError::TimeSpan {
                    key: keys::LOST_AFTER,
                    value: value.to_owned(),
                });
            }
        }
    }

    fn read_moves(&mut self, lines: &values::Lines) {
        let key = keys::RESCHEDULE_ON_FAILURE;
        let Some(value) = lines.last(key) else {
            return;
        };
        match values::moves(value) {
            Some(moves) => self.requirements.reschedule_on_failure = moves,
            None => self.errors.push(RequirementError::Moves {
                key,
                value: value.to_owned(),
            }),
        }
        if self.requirements.global && self.requirements.reschedule_on_failure > 0 {
            self.warnings.push(Warning::NoEffectOnGlobal(key));
        }
    }

    fn boolean(&mut self, lines: &values::Lines, key: &'static str) -> bool {
        let Some(value) = lines.last(key) else {
            return false;
        };
        values::boolean(value).unwrap_or_else(|| {
            self.errors.push(RequirementError::Boolean {
                key,
                value: value.to_owned(),
            });
            false
        })
    }
}

#[cfg(test)]
mod tests;
