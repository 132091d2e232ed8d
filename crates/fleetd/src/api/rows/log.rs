//! Which units changed lately, so that those who watch need no watch of the store each.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::Revision;

/// So many changes are remembered: a start of tens of thousands of units. Whoever is further behind goes
/// on by reading.
pub(super) const MAX_CHANGES: usize = 1 << 17;

/// Units, by when they changed.
pub(super) struct Log {
    /// What changed at or before it is forgotten.
    floor: Revision,
    changes: VecDeque<(Revision, Arc<str>)>,
}

impl Log {
    /// Of what changes after a revision.
    pub(super) fn new(revision: Revision) -> Log {
        Log {
            floor: revision,
            changes: VecDeque::new(),
        }
    }

    /// These changed up to a revision, and after the one before.
    pub(super) fn add(&mut self, revision: Revision, units: Vec<Arc<str>>) {
        self.changes
            .extend(units.into_iter().map(|unit| (revision, unit)));
        let n_too_many = self.changes.len().saturating_sub(MAX_CHANGES);
        let Some(&(last, _)) = n_too_many
            .checked_sub(1)
            .and_then(|idx| self.changes.get(idx))
        else {
            return;
        };
        self.floor = last;
        // Of one revision all are known, or none.
        let n = self.changes.partition_point(|(at, _)| *at <= last);
        self.changes.drain(..n);
    }

    /// The units that changed after a revision, some of them more than once; None: they are forgotten.
    pub(super) fn after(&self, revision: Revision) -> Option<Vec<Arc<str>>> {
        if revision < self.floor {
            return None;
        }
        let from = self.changes.partition_point(|(at, _)| *at <= revision);
        let units = self.changes.range(from..);
        Some(units.map(|(_, unit)| Arc::clone(unit)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(log: &Log, after: Revision) -> Option<Vec<String>> {
        let units = log.after(after)?;
        Some(units.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn it_knows_what_came_after_any_revision_that_it_has_not_forgotten() {
        let mut log = Log::new(7);
        log.add(8, vec!["a".into(), "b".into()]);
        log.add(9, Vec::new());
        log.add(12, vec!["a".into()]);
        assert_eq!(names(&log, 6), None);
        assert_eq!(names(&log, 7).unwrap(), ["a", "b", "a"]);
        assert_eq!(names(&log, 8).unwrap(), ["a"]);
        assert_eq!(names(&log, 11).unwrap(), ["a"]);
        assert!(names(&log, 12).unwrap().is_empty());
        // A revision is forgotten as a whole.
        log.add(13, vec!["c".into(); MAX_CHANGES - 2]);
        assert_eq!(names(&log, 7), None);
        assert_eq!(names(&log, 8).unwrap().len(), MAX_CHANGES - 1);
        log.add(14, vec!["d".into(); MAX_CHANGES + 1]);
        assert_eq!(names(&log, 13), None);
        assert!(names(&log, 14).unwrap().is_empty());
    }
}
