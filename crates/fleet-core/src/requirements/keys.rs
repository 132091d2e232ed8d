//! The keys of `[X-Fleet]`, their older spellings, and what unknown ones may have meant.

use super::{SECTION, Warning};
use crate::text::Quoted;
use crate::unit_file::UnitFile;

// Spellings in the order in which the original reads them.
pub(super) const MACHINE_ID: [&str; 3] = [
    "MachineID",
    "X-ConditionMachineID",
    "X-ConditionMachineBootID",
];
pub(super) const MACHINE_OF: [&str; 2] = ["X-ConditionMachineOf", "MachineOf"];
pub(super) const METADATA: [&str; 2] = ["X-ConditionMachineMetadata", "MachineMetadata"];
pub(super) const CONFLICTS: [&str; 2] = ["X-Conflicts", "Conflicts"];
pub(super) const REPLACES: [&str; 1] = ["Replaces"];
pub(super) const GLOBAL: &str = "Global";
pub(crate) const EXCLUSIVE: &str = "Exclusive";
pub(super) const LOST_AFTER: &str = "LostAfter";
pub(super) const RESCHEDULE_ON_FAILURE: &str = "RescheduleOnFailure";

pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    // Today's spellings first: a suggestion should be one of them.
    let today = [
        "MachineID",
        "MachineOf",
        "MachineMetadata",
        "Conflicts",
        "Replaces",
        GLOBAL,
        EXCLUSIVE,
        LOST_AFTER,
        RESCHEDULE_ON_FAILURE,
        crate::signed::SIGNATURE,
    ];
    today
        .into_iter()
        .chain(MACHINE_ID)
        .chain(MACHINE_OF)
        .chain(METADATA)
        .chain(CONFLICTS)
}

/// A key of `[X-Fleet]`, or a section, that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UnknownKey {
    /// Far from every known key, or near one.
    Key {
        key: String,
        suggestion: Option<&'static str>,
        /// So near that the suggestion must be meant.
        is_near_miss: bool,
    },
    /// A section that must be meant as `[X-Fleet]`.
    Section(String),
}

impl UnknownKey {
    /// Whether something known must be meant.
    pub(crate) fn is_near_miss(&self) -> bool {
        match self {
            UnknownKey::Key { is_near_miss, .. } => *is_near_miss,
            UnknownKey::Section(_) => true,
        }
    }

    /// The original's message, and what we add to it.
    pub(crate) fn message(key: &str, suggestion: Option<&str>) -> String {
        let message = format!(
            "unrecognized requirement in [X-Fleet] section: {}",
            Quoted(key)
        );
        match suggestion {
            Some(known) => format!("{message} (did you mean {}?)", Quoted(known)),
            None => message,
        }
    }
}

impl From<UnknownKey> for Warning {
    fn from(unknown: UnknownKey) -> Warning {
        match unknown {
            UnknownKey::Key {
                key, suggestion, ..
            } => Warning::UnknownKey {
                key,
                suggestion: suggestion.map(str::to_owned),
            },
            UnknownKey::Section(section) => Warning::UnknownSection(section),
        }
    }
}

/// What means nothing in `file`, each once, in order.
pub(super) fn unknown(file: &UnitFile) -> Vec<UnknownKey> {
    let mut seen = std::collections::BTreeSet::new();
    let mut unknown = Vec::new();
    for option in file.options() {
        if option.section == SECTION {
            if !known().any(|key| key == option.name) && seen.insert(option.name.as_str()) {
                unknown.push(classify(&option.name));
            }
        } else if bare(&option.section) == bare(SECTION) && seen.insert(option.section.as_str()) {
            unknown.push(UnknownKey::Section(option.section.clone()));
        }
    }
    unknown
}

/// A key longer than this resembles none of ours; it bounds the cost of comparing.
const MAX_COMPARED_BYTES: usize = 40;

fn classify(key: &str) -> UnknownKey {
    let nearest = (key.len() <= MAX_COMPARED_BYTES)
        .then(|| {
            known()
                .map(|known| (distance(&bare(key), &bare(known)), known))
                .min_by_key(|(distance, _)| *distance)
        })
        .flatten();
    let length = bare(key).len();
    let (suggestion, is_near_miss) = match nearest {
        // One wrong letter in a short word, two in a long one.
        Some((distance, known)) if distance <= if length > 6 { 2 } else { 1 } => {
            (Some(known), true)
        }
        // A third of the letters wrong is still worth a question.
        Some((distance, known)) if distance * 3 <= length => (Some(known), false),
        Some(_) => (known().find(|known| is_part(key, known)), false),
        None => (None, false),
    };
    UnknownKey::Key {
        key: key.to_owned(),
        suggestion,
        is_near_miss,
    }
}

/// Whether one of the words is a part of the other, and long enough to tell something.
fn is_part(key: &str, known: &str) -> bool {
    const MIN_BYTES: usize = 6;
    let (key, known) = (bare(key), bare(known));
    let (short, long) = if key.len() < known.len() {
        (key, known)
    } else {
        (known, key)
    };
    short.len() >= MIN_BYTES && long.windows(short.len()).any(|part| part == short)
}

/// The letters and digits in lower case: what a person remembers of a word.
fn bare(text: &str) -> Vec<u8> {
    text.bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|b| b.to_ascii_lowercase())
        .collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that make `a` to `b`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "axc", 1),
            ("abc", "abxc", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }

    #[test]
    fn near_misses_and_guesses() {
        let show = |key: &str| match classify(key) {
            UnknownKey::Key {
                suggestion,
                is_near_miss,
                ..
            } => (suggestion.unwrap_or("-"), is_near_miss),
            UnknownKey::Section(_) => panic!("{key} is a key"),
        };
        for (key, suggestion, is_near_miss) in [
            ("MachineMetaData", "MachineMetadata", true),
            ("machineid", "MachineID", true),
            ("Machine-ID", "MachineID", true),
            ("Conflict", "Conflicts", true),
            ("Conflcits", "Conflicts", true),
            ("Repalces", "Replaces", true),
            ("Globl", "Global", true),
            ("ConditionMachineOf", "X-ConditionMachineOf", true),
            ("X-Conflict", "X-Conflicts", true),
            ("MetaData", "MachineMetadata", false),
            ("ConflictsWithUnits", "Conflicts", false),
            ("Lost", "-", false),
            ("MachineBootID", "MachineID", false),
            ("Bogus", "-", false),
            ("Glad", "-", false),
            ("", "-", false),
            ("After", "-", false),
        ] {
            assert_eq!(show(key), (suggestion, is_near_miss), "{key}");
        }
        assert_eq!(show(&"Conflicts".repeat(200)), ("-", false));
    }
}
