//! Puts the lines of several journals into the order of time. Pure: `now` is an argument.
//!
//! A line is let go when no other journal can have an earlier one any more: each of them has a later
//! line, has fallen quiet, or has ended. A machine that neither speaks nor falls quiet holds the others
//! up for [`MERGE_WAIT`] and no longer; its lines come late then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fleet_api::v2::JournalEntry;

/// So long lines wait for a machine that says nothing at all: a little longer than it takes to find out
/// that there is no connection to it.
pub(super) const MERGE_WAIT: Duration = Duration::from_millis(2_500);

/// So long a new line waits for earlier ones that are still on their way from other machines.
const LIVE_WAIT: Duration = Duration::from_millis(100);

/// So much is held at most; then lines are let go, be they in order or not.
const MAX_HELD_BYTES: usize = 8 << 20;

/// So much a line takes beside its text.
const LINE_BYTES: usize = 512;

/// The journal of a machine. Its own lines stay in its own order.
#[derive(Debug, Default)]
struct Journal {
    lines: VecDeque<Held>,
    stage: Stage,
}

/// How far a journal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// It may have something to say that is old.
    #[default]
    Speaking,
    /// It has said all that there was.
    Quiet,
    /// Nothing comes from it.
    Ended,
}

#[derive(Debug)]
struct Held {
    entry: JournalEntry,
    since: Duration,
    bytes: usize,
    /// It has waited already.
    is_due: bool,
}

/// Lines on their way.
#[derive(Debug, Default)]
pub(super) struct Merge {
    journals: BTreeMap<String, Journal>,
    bytes: usize,
    n_held: usize,
    newest: Option<Newest>,
}

/// Only so many of the newest are wanted of what there is; no line goes before it is known which.
#[derive(Debug)]
struct Newest {
    n: usize,
    until: Duration,
}

impl Merge {
    /// Only `n` of the newest are wanted of what there is; None: all.
    pub(super) fn new(newest: Option<usize>, now: Duration) -> Merge {
        Merge {
            newest: newest.map(|n| Newest {
                n,
                until: now + MERGE_WAIT,
            }),
            ..Merge::default()
        }
    }

    /// A machine's journal will be read.
    pub(super) fn begin(&mut self, machine: &str) {
        self.journals.entry(machine.to_owned()).or_default();
    }

    /// A line has come. Those that are too many are returned: they are not wanted.
    pub(super) fn push(&mut self, entry: JournalEntry, now: Duration) -> Vec<JournalEntry> {
        let fields = entry.fields.as_ref();
        let fields = fields.map_or(0, |fields| {
            let texts = fields
                .iter()
                .map(|(name, value)| name.len() + value.as_str().map_or(64, str::len));
            texts.sum::<usize>()
        });
        let bytes = LINE_BYTES + entry.message.len() + fields;
        self.bytes += bytes;
        self.n_held += 1;
        let journal = self.journals.entry(entry.machine_id.clone()).or_default();
        journal.lines.push_back(Held {
            entry,
            since: now,
            bytes,
            is_due: false,
        });
        if journal.stage == Stage::Ended {
            journal.stage = Stage::Quiet;
        }
        let mut too_many = Vec::new();
        while let Some(newest) = &self.newest
            && (self.n_held > newest.n || self.bytes > MAX_HELD_BYTES)
            && let Some(oldest) = self.take_earliest()
        {
            too_many.push(oldest);
        }
        too_many
    }

    /// The machine has said all that there was.
    pub(super) fn quiet(&mut self, machine: &str) {
        self.set(machine, Stage::Quiet);
    }

    /// Nothing comes from the machine any more, or for the time being.
    pub(super) fn end(&mut self, machine: &str) {
        self.set(machine, Stage::Ended);
    }

    fn set(&mut self, machine: &str, stage: Stage) {
        if let Some(journal) = self.journals.get_mut(machine) {
            journal.stage = stage;
        }
    }

    /// Whether nothing comes from anybody.
    pub(super) fn is_over(&self) -> bool {
        let mut stages = self.journals.values().map(|journal| journal.stage);
        self.is_empty() && stages.all(|stage| stage == Stage::Ended)
    }

    /// Whether nothing more can come but what is new.
    fn is_quiet(&self) -> bool {
        let mut stages = self.journals.values().map(|journal| journal.stage);
        stages.all(|stage| stage != Stage::Speaking)
    }

    /// Whether nothing is held.
    fn is_empty(&self) -> bool {
        self.n_held == 0
    }

    /// The next line, if it may go.
    pub(super) fn pop(&mut self, now: Duration) -> Option<JournalEntry> {
        if self.goes_at()? > now {
            return None;
        }
        if self.newest.take().is_some() {
            let held = self
                .journals
                .values_mut()
                .flat_map(|journal| &mut journal.lines);
            held.for_each(|held| held.is_due = true);
        }
        self.take_earliest()
    }

    /// When the next line may go; None: there is none, or only news lets it.
    pub(super) fn goes_at(&self) -> Option<Duration> {
        let first = self.journals.get(self.earliest()?)?.lines.front()?;
        if self.bytes > MAX_HELD_BYTES {
            return Some(first.since);
        }
        if let Some(newest) = &self.newest
            && !self.is_quiet()
        {
            return Some(newest.until);
        }
        // Who has lines has said all that is earlier.
        let silent = self
            .journals
            .values()
            .filter(|journal| journal.lines.is_empty());
        let wait = silent.map(|journal| match journal.stage {
            Stage::Speaking => MERGE_WAIT,
            Stage::Quiet => LIVE_WAIT,
            Stage::Ended => Duration::ZERO,
        });
        let wait = wait.max().filter(|_| !first.is_due).unwrap_or_default();
        Some(first.since + wait)
    }

    fn earliest(&self) -> Option<&String> {
        let firsts = self.journals.iter();
        let firsts =
            firsts.filter_map(|(id, journal)| Some((journal.lines.front()?.entry.at_us, id)));
        firsts.min().map(|(_, id)| id)
    }

    fn take_earliest(&mut self) -> Option<JournalEntry> {
        let id = self.earliest()?.clone();
        let held = self.journals.get_mut(&id)?.lines.pop_front()?;
        self.bytes -= held.bytes;
        self.n_held -= 1;
        Some(held.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(machine: &str, at_us: u64) -> JournalEntry {
        JournalEntry {
            machine_id: machine.into(),
            at_us,
            ..JournalEntry::default()
        }
    }

    fn merge(newest: Option<usize>, machines: &[&str]) -> Merge {
        let mut merge = Merge::new(newest, Duration::ZERO);
        machines.iter().for_each(|machine| merge.begin(machine));
        merge
    }

    fn all(merge: &mut Merge, now: Duration) -> Vec<u64> {
        std::iter::from_fn(|| merge.pop(now))
            .map(|entry| entry.at_us)
            .collect()
    }

    #[test]
    fn lines_of_several_machines_come_in_the_order_of_time() {
        let mut merge = merge(None, &["a", "b"]);
        for (machine, at) in [("a", 1), ("a", 4), ("b", 2), ("b", 3), ("b", 6)] {
            merge.push(line(machine, at), MS);
        }
        // What comes after 4 may be 5, from either.
        assert_eq!(all(&mut merge, MS), [1, 2, 3, 4]);
        merge.push(line("a", 5), MS);
        assert_eq!(all(&mut merge, MS), [5]);
        merge.quiet("a");
        assert_eq!(all(&mut merge, MS * 102), [6]);
        assert!(!merge.is_over());
        merge.end("a");
        merge.end("b");
        assert!(merge.is_over());
    }

    #[test]
    fn a_silent_machine_holds_the_others_up_for_a_while_only() {
        let mut merge = merge(None, &["a", "b"]);
        merge.push(line("a", 1), MS);
        assert_eq!(merge.goes_at(), Some(MS + MERGE_WAIT));
        assert!(all(&mut merge, MERGE_WAIT).is_empty());
        assert_eq!(all(&mut merge, MERGE_WAIT + MS), [1]);
        // One that has fallen quiet does not.
        merge.quiet("b");
        merge.push(line("a", 2), MS);
        assert_eq!(merge.goes_at(), Some(MS + LIVE_WAIT));
        // Nobody waits for himself.
        let mut alone = self::merge(None, &["a"]);
        alone.push(line("a", 1), MS);
        assert_eq!(all(&mut alone, MS), [1]);
    }

    #[test]
    fn only_the_newest_of_what_there_is() {
        let mut merge = merge(Some(2), &["a", "b"]);
        let mut too_many = Vec::new();
        for (machine, at) in [("a", 1), ("a", 4), ("b", 2), ("b", 3)] {
            too_many.extend(merge.push(line(machine, at), MS));
        }
        assert_eq!(
            too_many.iter().map(|line| line.at_us).collect::<Vec<_>>(),
            [1, 2]
        );
        merge.quiet("a");
        assert!(all(&mut merge, MS).is_empty());
        merge.quiet("b");
        assert_eq!(all(&mut merge, MS), [3, 4]);
        // From then on all that comes.
        for at in 5..9 {
            assert!(merge.push(line("a", at), MS).is_empty());
        }
        // A machine that does not answer is not waited for without an end.
        let mut merge = self::merge(Some(2), &["a", "b"]);
        merge.push(line("a", 1), MS);
        assert_eq!(all(&mut merge, MERGE_WAIT), [1]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut merge = merge(None, &["a", "b"]);
        let large = |at_us| JournalEntry {
            message: "x".repeat(MAX_HELD_BYTES / 4),
            ..line("a", at_us)
        };
        for at in 0..4 {
            merge.push(large(at), MS);
        }
        // Though nothing is known of b.
        assert_eq!(all(&mut merge, MS), [0]);
    }
}
