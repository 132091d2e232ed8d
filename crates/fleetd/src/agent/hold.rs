//! Whether the store is the one that this machine's units came from.
//!
//! The id of the cluster and the highest revision that was acted on are kept below the run
//! directory. Another id, or a revision that went backwards, means that the store was wiped,
//! restored from an old backup, or is another one: then nothing is stopped on its word.
//!
//! An old copy that is written on passes that revision one day. So the machine leaves a mark in each
//! transaction of its own (`marks/<machine>`), and remembers its revision, too: in an older copy the mark
//! stands at a lower one, whatever the copy's own. Marks are never removed: a store that has
//! none is a copy of before the first one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use fleet_core::name::UnitName;
use tracing::{error, info, warn};

use super::runfile;
use crate::store::Revision;

pub(crate) struct Hold {
    file: PathBuf,
    cluster: Option<String>,
    revision: Revision,
    /// The revision of the last mark that was left for certain; 0: there is none.
    mark: Revision,
    /// Units may be here that were started or stopped by orders above those of the store that is
    /// believed: another one's, or its own when it was newer.
    leaves_above: bool,
    holding: bool,
    /// What is not believed.
    held: Held,
}

/// A store that is not believed.
#[derive(Default)]
struct Held {
    cluster: Option<String>,
    /// Its revision when it was first seen.
    at: Revision,
    /// What is said of it above this revision is said of this very store.
    said_after: Revision,
    /// It is another cluster's; otherwise an older copy of the right one.
    foreign: bool,
    /// The units that were here then.
    units: BTreeSet<UnitName>,
}

/// What the cluster is told of a machine that does not believe its store.
pub(crate) const REMARK: &str = "it does not believe this store, which is not the one that its \
     units came from, or an older copy of it: no unit is stopped on its word. Bring the right \
     store back, or say that this one is right: fleetctl accept-store";

/// The line that says [`Hold::leaves_above`].
const ABOVE: &str = "above";

fn number(lines: &[(String, String)], key: &str) -> Revision {
    let value = runfile::value(lines, key);
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

impl Hold {
    /// What was remembered.
    pub(crate) fn open(file: PathBuf) -> Hold {
        let lines = runfile::read(&file);
        let known = runfile::value(&lines, "cluster").map(str::to_owned);
        if known.is_none() && !runfile::is_absent(&file) {
            error!(
                file = %file.display(),
                "which store this machine's units came from is written here and cannot be read: no \
                 unit is stopped on the word of any, until somebody says that the one that there \
                 is is to be believed: fleetctl accept-store"
            );
        }
        Hold {
            // No store has this id.
            cluster: known.or_else(|| (!runfile::is_absent(&file)).then(String::new)),
            revision: number(&lines, "revision"),
            mark: number(&lines, "mark"),
            leaves_above: runfile::value(&lines, ABOVE).is_some(),
            file,
            holding: false,
            held: Held::default(),
        }
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.holding
    }

    /// Whether a unit must not be stopped on the word of this store, by an assignment of this
    /// generation, written at this revision. What was started on its word it may stop; and of an
    /// older copy of the right store, whatever users have asked for since it is in view counts. A
    /// generation that the copy has not reached is none of theirs: it was numbered so that it is
    /// above what this machine has done.
    pub(crate) fn protects(
        &self,
        unit: &UnitName,
        generation: Revision,
        written_at: Revision,
    ) -> bool {
        let held = &self.held;
        let is_new = held.at < generation && generation <= written_at;
        self.holding && held.units.contains(unit) && (held.foreign || !is_new)
    }

    /// Whether the store that is not believed has another name, or none.
    pub(crate) fn is_foreign(&self) -> bool {
        self.holding && self.held.foreign
    }

    /// No unit of fleet's is here: any store will do.
    pub(crate) fn nothing_to_lose(&mut self) {
        self.cluster = None;
        self.revision = 0;
        self.mark = 0;
        self.leaves_above = false;
    }

    /// Whether it is the cluster that was seen last.
    pub(crate) fn is_known(&self, cluster: Option<&str>) -> bool {
        self.cluster.as_deref() == cluster
    }

    /// Whether this machine's mark can be where it is in the store that it was left in.
    pub(crate) fn is_marked(&self, mark: Option<Revision>) -> bool {
        fleet_core::planted!("an older copy that was written on is believed")
            || mark.unwrap_or(0) >= self.mark
    }

    /// Judges a snapshot of the store: its cluster's id, if it has one yet, its revision, and that of
    /// this machine's mark, if it has one. `here`: the units of fleet's on this machine.
    pub(crate) fn judge(
        &mut self,
        cluster: Option<&str>,
        revision: Revision,
        mark: Option<Revision>,
        here: impl Iterator<Item = UnitName>,
    ) {
        let foreign = self.cluster.is_some() && self.cluster.as_deref() != cluster;
        let backwards = self.cluster.is_some() && revision < self.revision;
        let is_older_copy = self.cluster.is_some() && !self.is_marked(mark);
        let holding = (foreign || backwards || is_older_copy)
            && !fleet_core::planted!("any store is believed");
        if holding && !self.holding {
            error!(
                known = self.cluster.as_deref().unwrap_or(""),
                found = cluster.unwrap_or("none"),
                acted_on = self.revision,
                revision,
                marked = self.mark,
                mark,
                "the store is not the one that this machine's units came from, or an older copy \
                 of it: no unit is stopped on its word. Bring the right store back; or, if this \
                 one is to be believed, say so: fleetctl accept-store"
            );
            error!(file = %self.file.display(), "the file that remembers the store");
            self.expect_leftovers();
        }
        if !holding && self.holding {
            info!("the store is again the one that this machine's units came from");
        }
        let held = &self.held;
        let is_new = !self.holding || revision < held.at || held.cluster.as_deref() != cluster;
        if holding && is_new {
            self.held = Held {
                cluster: cluster.map(str::to_owned),
                at: revision,
                // One that has been written on may have been accepted before this machine saw it:
                // after it was copied, which was after the mark that it has.
                said_after: match mark {
                    Some(mark) if !foreign && !backwards => mark,
                    _ => revision,
                },
                foreign,
                units: here.collect(),
            };
        }
        self.holding = holding;
        if holding {
            return;
        }
        // The answer to the last one may have been lost.
        self.mark = self.mark.max(mark.unwrap_or(0));
        if let Some(cluster) = cluster
            && self.cluster.as_deref() != Some(cluster)
        {
            self.cluster = Some(cluster.to_owned());
            self.revision = revision;
            self.write();
        }
    }

    /// What is started on the word of a store that is not believed is numbered by it, maybe above all that
    /// the right one will give: its orders would be passed over as old ones. So that is looked for when
    /// the right one is back, also by the fleetd after this one.
    fn expect_leftovers(&mut self) {
        self.leaves_above = true;
        // A file that cannot be read is somebody's to look at.
        if self.cluster.as_ref().is_some_and(|known| !known.is_empty()) {
            self.write();
        }
    }

    /// Whether it is about this store when somebody has said, at a revision of it, that it is to be
    /// believed. What was said before this store came into view was about another one, or is part
    /// of an old copy.
    pub(crate) fn is_meant(&self, said_at: Revision) -> bool {
        self.holding && said_at > self.held.said_after
    }

    /// Believes this store from now on, if it is meant. One that has no name yet cannot be known
    /// again: whoever leads it gives it one. `leaves_above`: some units are being started or stopped by
    /// orders that it does not have.
    pub(crate) fn accept(
        &mut self,
        said_at: Revision,
        cluster: Option<&str>,
        leaves_above: bool,
    ) -> bool {
        if !self.is_meant(said_at) || cluster.is_none() {
            return false;
        }
        warn!(
            cluster,
            "this store is believed from now on: somebody said so"
        );
        self.holding = false;
        self.cluster = cluster.map(str::to_owned);
        self.revision = said_at;
        self.mark = 0;
        self.leaves_above = leaves_above;
        self.write();
        true
    }

    /// Whether units may be left above what the store has that is believed, by this fleetd or one before.
    pub(crate) fn leaves_above(&self) -> bool {
        !self.holding && self.leaves_above
    }

    /// None is left any more.
    pub(crate) fn all_is_brought_down(&mut self) {
        if std::mem::take(&mut self.leaves_above) {
            self.write();
        }
    }

    /// Remembers that everything up to a revision was acted on.
    pub(crate) fn acted_on(&mut self, revision: Revision) {
        if !self.holding && self.cluster.is_some() && revision > self.revision {
            self.revision = revision;
            self.write();
        }
    }

    /// Remembers that this machine's mark was left at a revision. It is written down at once: a small
    /// file in memory, beside a transaction that costs some hundred times as much, and one that was
    /// gathered when there are many.
    pub(crate) fn marked(&mut self, revision: Revision) {
        if !self.holding && self.cluster.is_some() && revision > self.mark {
            self.mark = revision;
            self.revision = self.revision.max(revision);
            self.write();
        }
    }

    fn write(&self) {
        let revision = self.revision.to_string();
        let cluster = self.cluster.as_deref().unwrap_or("");
        let mark = self.mark.to_string();
        let mut lines = vec![("cluster", cluster), ("revision", revision.as_str())];
        if self.mark > 0 {
            lines.push(("mark", mark.as_str()));
        }
        if self.leaves_above {
            lines.push((ABOVE, "yes"));
        }
        if let Err(error) = runfile::write(&self.file, &lines) {
            warn!(%error, file = %self.file.display(), "the store's identity is not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> std::iter::Empty<UnitName> {
        std::iter::empty()
    }

    #[test]
    fn a_foreign_wiped_or_older_store_is_not_obeyed_and_the_right_one_is_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        let mut hold = Hold::open(file.clone());
        hold.judge(None, 3, None, nothing());
        assert!(
            !hold.is_holding(),
            "a machine that has seen no cluster has nothing to lose"
        );
        hold.judge(Some("a"), 10, None, nothing());
        hold.acted_on(20);

        let mut hold = Hold::open(file);
        for (cluster, revision, holding) in [
            (Some("a"), 20, false),
            (Some("b"), 30, true),
            (Some("a"), 19, true),
            (None, 1, true),
            (Some("a"), 21, false),
        ] {
            hold.judge(cluster, revision, None, nothing());
            assert_eq!(hold.is_holding(), holding, "{cluster:?} at {revision}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_a_machine_that_has_seen_no_store() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        std::fs::write(&file, "half a li").unwrap();
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 10, None, nothing());
        assert!(hold.is_holding());
        assert!(hold.accept(11, Some("a"), false));
        let mut hold = Hold::open(file);
        hold.judge(Some("a"), 12, None, nothing());
        assert!(!hold.is_holding());
    }

    #[test]
    fn another_store_is_believed_when_somebody_says_so_after_it_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 10, None, nothing());
        assert!(
            !hold.accept(11, Some("a"), false),
            "there is nothing to accept"
        );
        hold.judge(Some("b"), 30, None, nothing());
        assert!(!hold.accept(31, None, false), "it could not be known again");
        assert!(
            !hold.accept(30, Some("b"), false),
            "that was said of an older copy"
        );
        assert!(hold.is_holding());
        assert!(hold.accept(31, Some("b"), false));
        assert!(!hold.is_holding());
        // It lasts, and the one before is a foreign one now.
        let mut hold = Hold::open(file);
        hold.judge(Some("b"), 32, None, nothing());
        assert!(!hold.is_holding());
        hold.judge(Some("a"), 40, None, nothing());
        assert!(hold.is_holding());
    }

    #[test]
    fn what_a_store_that_is_not_believed_has_numbered_is_looked_for_when_the_right_one_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 10, None, nothing());
        assert!(!hold.leaves_above());
        hold.judge(Some("b"), 900, None, nothing());
        assert!(
            !hold.leaves_above(),
            "not as long as the other one is there"
        );
        hold.judge(Some("a"), 12, None, nothing());
        assert!(hold.leaves_above());
        // By the next fleetd, too, until it is done.
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 13, None, nothing());
        assert!(hold.leaves_above());
        hold.all_is_brought_down();
        let mut hold = Hold::open(file);
        hold.judge(Some("a"), 14, None, nothing());
        assert!(!hold.leaves_above());
    }

    #[test]
    fn what_a_store_that_is_not_believed_may_still_stop() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        let unit = |name: &str| UnitName::parse(name).unwrap();
        let (ours, theirs) = (unit("ours.service"), unit("theirs.service"));
        let mut hold = Hold::open(file);
        hold.judge(Some("a"), 50, None, nothing());
        hold.acted_on(60);
        assert!(!hold.protects(&ours, 1, 50));
        // An older copy: what was asked for since it is in view counts.
        hold.judge(Some("a"), 20, None, [ours.clone()].into_iter());
        assert!(hold.protects(&ours, 20, 22) && !hold.protects(&ours, 21, 22));
        // No user has asked for what is numbered above the copy itself.
        assert!(hold.protects(&ours, 60, 22));
        assert!(!hold.protects(&theirs, 10, 22) && !hold.is_foreign());
        // It is read again, with a unit that was started on its word.
        hold.judge(
            Some("a"),
            25,
            None,
            [ours.clone(), theirs.clone()].into_iter(),
        );
        assert!(!hold.protects(&ours, 21, 22) && !hold.protects(&theirs, 10, 22));
        // Somebody else's: they may ask for whatever they like.
        hold.judge(Some("b"), 500, None, [ours.clone()].into_iter());
        assert!(hold.is_foreign() && hold.protects(&ours, 501, 502));
        assert!(!hold.protects(&theirs, 501, 502));
        hold.judge(Some("a"), 60, None, nothing());
        assert!(!hold.protects(&ours, 1, 61));
    }

    #[test]
    fn an_older_copy_is_known_by_its_mark_whatever_its_revision() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        let unit = UnitName::parse("a.service").unwrap();
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 10, None, nothing());
        hold.marked(55);
        // It is remembered by the next fleetd, with the revision that it proves.
        for (revision, mark, holding) in [
            (100, Some(18), true),
            (100, Some(55), false),
            // The answer to the last write was lost.
            (100, Some(60), false),
            // It was copied before the first mark was left.
            (100, None, true),
            (54, Some(55), true),
            (54, None, true),
        ] {
            let mut hold = Hold::open(file.clone());
            hold.judge(Some("a"), revision, mark, nothing());
            assert_eq!(hold.is_holding(), holding, "{mark:?} at {revision}");
        }
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 100, Some(18), [unit.clone()].into_iter());
        // What users have asked for while it was out of sight is no word to this machine.
        assert!(hold.protects(&unit, 80, 90) && !hold.protects(&unit, 101, 102));
        // It is no right one when it is read again, further on.
        hold.judge(Some("a"), 120, Some(18), [unit.clone()].into_iter());
        assert!(hold.is_holding() && !hold.protects(&unit, 101, 102));
        hold.marked(121);
        hold.judge(Some("a"), 122, Some(18), nothing());
        assert!(hold.is_holding(), "no mark is left in it");
        // Whoever accepted it did so after it was copied, as far as its mark tells when that was.
        assert!(!hold.is_meant(18) && hold.is_meant(30));
        assert!(hold.accept(30, Some("a"), false));
        let mut hold = Hold::open(file);
        hold.judge(Some("a"), 130, Some(18), nothing());
        assert!(!hold.is_holding());
        hold.marked(131);
        hold.judge(Some("a"), 140, Some(18), nothing());
        assert!(hold.is_holding());
    }
}
