//! Whether a unit may be stored: the checks of every create and every replace, in the API and
//! in fleetctl.
//!
//! First come the original's checks in its order and with its messages, then ours for what the
//! original ignored so that the unit ran where it must not.

use crate::glob::Glob;
use crate::name::UnitName;
use crate::requirements::{self, Reading, RequirementError, Requirements, UnknownKey, Warning};
use crate::text::Quoted;
use crate::unit_file::{ParseError, UnitFile, UnitOption};

/// The most text in `[X-Fleet]`, specifiers replaced. It bounds what comparing each `MachineOf`
/// with each pattern costs; 16 KiB are some hundred unit names.
pub const MAX_REQUIREMENTS_BYTES: usize = 16 * 1024;

/// What becomes of keys in `[X-Fleet]` that mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnknownKeys {
    /// Near misses of a known key are refused, since the unit would run without what its author
    /// asked for; other unknown keys are warnings.
    #[default]
    Default,
    /// All are refused.
    Strict,
    /// None is refused, all are warnings.
    Allow,
}

/// Why a unit must not be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidateError {
    /// The serial form is not a unit file.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The serial form would be read as other options than the ones given.
    #[error(
        "option {} in section {} cannot be written to a unit file: {cure}",
        Quoted(.name), Quoted(.section)
    )]
    Unwritable {
        /// The first such option's section.
        section: String,
        /// Its name.
        name: String,
        /// How to mend it.
        cure: &'static str,
    },
    /// More than [`MAX_REQUIREMENTS_BYTES`].
    #[error("[X-Fleet] section too large (max {MAX_REQUIREMENTS_BYTES} bytes)")]
    RequirementsTooLarge,
    /// A unit must be beside one that it must not be beside.
    #[error(
        "unresolvable requirements: peer {} matches {kind} {}",
        Quoted(.peer), Quoted(.pattern)
    )]
    Unresolvable {
        /// A unit of `MachineOf`.
        peer: String,
        /// `conflict` or `replace`.
        kind: &'static str,
        /// The pattern that matches it.
        pattern: String,
    },
    /// Two options that exclude each other, in the original's words (`Peers` is `MachineOf`).
    #[error("{0} cannot be used with {1}")]
    Contradiction(&'static str, &'static str),
    /// A value that cannot be meant.
    #[error("invalid [X-Fleet] section: {0}")]
    Requirement(#[from] RequirementError),
    /// A key that means nothing.
    #[error(
        "{}; the unit would run without it",
        UnknownKey::message(.key, .suggestion.as_deref())
    )]
    UnknownKey {
        /// The key as written.
        key: String,
        /// A known key that looks like it.
        suggestion: Option<String>,
    },
    /// A section that must be meant as `[X-Fleet]`.
    #[error(
        "section [{0}] means nothing: did you mean [X-Fleet]?; \
         the unit would run without what it says"
    )]
    UnknownSection(String),
}

impl ValidateError {
    /// The message as the original words it where it has one: without line numbers.
    pub fn message(&self) -> String {
        match self {
            ValidateError::Parse(e) => e.message(),
            e => e.to_string(),
        }
    }
}

/// Checks a unit before it is stored; the first fault is the error. What is stored afterwards
/// should be [`UnitFile::normalized`].
///
/// Specifiers are replaced when `name` is known and no template; a template's mean nothing yet.
pub fn validate_unit(
    name: Option<&UnitName>,
    file: &UnitFile,
    unknown: UnknownKeys,
) -> Result<Vec<Warning>, ValidateError> {
    let normal = file.normalized()?;
    check_writable(file, &normal)?;
    let reading = requirements::read(&normal, name.filter(|name| !name.is_template()));
    if reading.n_bytes > MAX_REQUIREMENTS_BYTES {
        return Err(ValidateError::RequirementsTooLarge);
    }
    check_contradictions(&reading.requirements)?;
    let mut warnings = into_warnings(reading, unknown)?;
    let unit_type = name.map(UnitName::unit_type);
    warnings.extend(
        unit_type
            .filter(|unit_type| unit_type.cure_if_not_loadable().is_some())
            .map(Warning::NotLoadable),
    );
    Ok(warnings)
}

/// Options may come as JSON; each must be read back from the serial form as one option of the
/// same name. (Its value may be trimmed.) A file can break this too: a blank or a carriage return
/// behind a `\` ends the value when it is first read, but is trimmed, so that the `\` would continue
/// the value when it is read again. The original then loses the next option.
fn check_writable(file: &UnitFile, normal: &UnitFile) -> Result<(), ValidateError> {
    let given = file.grouped();
    let is_kept = |given: &UnitOption, read: &UnitOption| {
        given.section == read.section
            && given.name.trim() == read.name
            && given.value.trim() == read.value.trim()
    };
    let mut read = normal.options().iter();
    let lost = given
        .iter()
        .find(|given| !read.next().is_some_and(|read| is_kept(given, read)))
        .or(if read.next().is_some() {
            given.last()
        } else {
            None
        });
    match lost {
        None => Ok(()),
        Some(option) => Err(ValidateError::Unwritable {
            section: option.section.clone(),
            name: option.name.clone(),
            cure: cure(option),
        }),
    }
}

fn cure(option: &UnitOption) -> &'static str {
    if option.section.contains(']') {
        "the section must not contain \"]\""
    } else if option.name.contains(['=', '\n', '\r']) {
        "the name must not contain \"=\" or line breaks"
    } else if option.name.trim_start().starts_with(['#', ';', '[']) {
        "the name must not start in \"#\", \";\" or \"[\""
    } else if option.value.trim_end().ends_with('\\') {
        "the value must not end in \"\\\", or the next option becomes part of it \
         (to continue a line, its \"\\\" must be the last character; CRLF files have another one)"
    } else {
        "in the value, a line break must follow a \"\\\", and blank lines are not allowed"
    }
}

/// The original's checks, in its order.
fn check_contradictions(requirements: &Requirements) -> Result<(), ValidateError> {
    check_peers(requirements, "conflict", &requirements.conflicts)?;
    check_peers(requirements, "replace", &requirements.replaces)?;
    let machine_id = ("MachineID", requirements.machine_id.is_some());
    let peers = ("Peers", !requirements.machine_of.is_empty());
    let conflicts = ("Conflicts", !requirements.conflicts.is_empty());
    let replaces = ("Replaces", !requirements.replaces.is_empty());
    let global = ("Global", requirements.global);
    let exclusive = ("Exclusive", requirements.exclusive);
    for ((a, has_a), (b, has_b)) in [
        (machine_id, peers),
        (machine_id, conflicts),
        (machine_id, global),
        (machine_id, replaces),
        (global, peers),
        (global, replaces),
        (conflicts, replaces),
        // Not the original's: at most one copy, and one on every machine.
        (global, exclusive),
    ] {
        if has_a && has_b {
            return Err(ValidateError::Contradiction(a, b));
        }
    }
    Ok(())
}

fn check_peers(
    requirements: &Requirements,
    kind: &'static str,
    globs: &[Glob],
) -> Result<(), ValidateError> {
    for peer in &requirements.machine_of {
        if let Some(glob) = globs.iter().find(|glob| glob.matches(peer)) {
            return Err(ValidateError::Unresolvable {
                peer: peer.clone(),
                kind,
                pattern: glob.as_str().to_owned(),
            });
        }
    }
    Ok(())
}

fn into_warnings(reading: Reading, mode: UnknownKeys) -> Result<Vec<Warning>, ValidateError> {
    if let Some(error) = reading.errors.into_iter().next() {
        return Err(error.into());
    }
    let is_refused = |unknown: &UnknownKey| match mode {
        UnknownKeys::Default => unknown.is_near_miss(),
        UnknownKeys::Strict => true,
        UnknownKeys::Allow => false,
    };
    let mut warnings = Vec::with_capacity(reading.unknown.len() + reading.warnings.len());
    for unknown in reading.unknown {
        if is_refused(&unknown) {
            return Err(match unknown {
                UnknownKey::Key {
                    key, suggestion, ..
                } => ValidateError::UnknownKey {
                    key,
                    suggestion: suggestion.map(str::to_owned),
                },
                UnknownKey::Section(section) => ValidateError::UnknownSection(section),
            });
        }
        warnings.push(unknown.into());
    }
    warnings.extend(reading.warnings);
    Ok(warnings)
}

#[cfg(test)]
mod tests;
