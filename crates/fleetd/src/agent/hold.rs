//! Whether the store is the one that this machine's units came from.
//!
//! The id of the cluster and the highest revision that was acted on are kept below the run
//! directory. Another id, or a revision that went backwards, means that the store was wiped,
//! restored from an old backup, or is another one: then nothing is stopped on its word.

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
    /// It is another cluster's; otherwise an older copy of the right one.
    foreign: bool,
    /// The units that were here then.
    units: BTreeSet<UnitName>,
}

/// What the cluster is told of a machine that does not believe its store.
pub(crate) const REMARK: &str = "it does not believe this store, which is not the one that its \
     units came from, or an older copy of it: no unit is stopped on its word. Bring the right \
     store back, or say that this one is right: fleetctl accept-store";

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
            revision: runfile::value(&lines, "revision")
                .and_then(|r| r.parse().ok())
                .unwrap_or(0),
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
    }

    /// Whether it is the cluster that was seen last.
    pub(crate) fn is_known(&self, cluster: Option<&str>) -> bool {
        self.cluster.as_deref() == cluster
    }

    /// Judges a snapshot of the store: its cluster's id, if it has one yet, and its revision.
    /// `here`: the units of fleet's on this machine.
    pub(crate) fn judge(
        &mut self,
        cluster: Option<&str>,
        revision: Revision,
        here: impl Iterator<Item = UnitName>,
    ) {
        let foreign = self.cluster.is_some() && self.cluster.as_deref() != cluster;
        let backwards = self.cluster.is_some() && revision < self.revision;
        let holding = (foreign || backwards) && !fleet_core::planted!("any store is believed");
        if holding && !self.holding {
            error!(
                known = self.cluster.as_deref().unwrap_or(""),
                found = cluster.unwrap_or("none"),
                acted_on = self.revision,
                revision,
                "the store is not the one that this machine's units came from, or an older copy \
                 of it: no unit is stopped on its word. Bring the right store back; or, if this \
                 one is to be believed, say so: fleetctl accept-store"
            );
            error!(file = %self.file.display(), "the file that remembers the store");
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
                foreign,
                units: here.collect(),
            };
        }
        self.holding = holding;
        if !holding
            && let Some(cluster) = cluster
            && self.cluster.as_deref() != Some(cluster)
        {
            self.cluster = Some(cluster.to_owned());
            self.revision = revision;
            self.write();
        }
    }

    /// Whether it is about this store when somebody has said, at a revision of it, that it is to be
    /// believed. What was said before this store came into view was about another one, or is part
    /// of an old copy.
    pub(crate) fn is_meant(&self, said_at: Revision) -> bool {
        self.holding && said_at > self.held.at
    }

    /// Believes this store from now on, if it is meant. One that has no name yet cannot be known
    /// again: whoever leads it gives it one.
    pub(crate) fn accept(&mut self, said_at: Revision, cluster: Option<&str>) -> bool {
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
        self.write();
        true
    }

    /// Remembers that everything up to a revision was acted on.
    pub(crate) fn acted_on(&mut self, revision: Revision) {
        if !self.holding && self.cluster.is_some() && revision > self.revision {
            self.revision = revision;
            self.write();
        }
    }

    fn write(&self) {
        let revision = self.revision.to_string();
        let cluster = self.cluster.as_deref().unwrap_or("");
        let lines = [("cluster", cluster), ("revision", revision.as_str())];
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
        hold.judge(None, 3, nothing());
        assert!(
            !hold.is_holding(),
            "a machine that has seen no cluster has nothing to lose"
        );
        hold.judge(Some("a"), 10, nothing());
        hold.acted_on(20);

        let mut hold = Hold::open(file);
        for (cluster, revision, holding) in [
            (Some("a"), 20, false),
            (Some("b"), 30, true),
            (Some("a"), 19, true),
            (None, 1, true),
            (Some("a"), 21, false),
        ] {
            hold.judge(cluster, revision, nothing());
            assert_eq!(hold.is_holding(), holding, "{cluster:?} at {revision}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_a_machine_that_has_seen_no_store() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        std::fs::write(&file, "half a li").unwrap();
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 10, nothing());
        assert!(hold.is_holding());
        assert!(hold.accept(11, Some("a")));
        let mut hold = Hold::open(file);
        hold.judge(Some("a"), 12, nothing());
        assert!(!hold.is_holding());
    }

    #[test]
    fn another_store_is_believed_when_somebody_says_so_after_it_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        let mut hold = Hold::open(file.clone());
        hold.judge(Some("a"), 10, nothing());
        assert!(!hold.accept(11, Some("a")), "there is nothing to accept");
        hold.judge(Some("b"), 30, nothing());
        assert!(!hold.accept(31, None), "it could not be known again");
        assert!(
            !hold.accept(30, Some("b")),
            "that was said of an older copy"
        );
        assert!(hold.is_holding());
        assert!(hold.accept(31, Some("b")));
        assert!(!hold.is_holding());
        // It lasts, and the one before is a foreign one now.
        let mut hold = Hold::open(file);
        hold.judge(Some("b"), 32, nothing());
        assert!(!hold.is_holding());
        hold.judge(Some("a"), 40, nothing());
        assert!(hold.is_holding());
    }

    #[test]
    fn what_a_store_that_is_not_believed_may_still_stop() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster");
        let unit = |name: &str| UnitName::parse(name).unwrap();
        let (ours, theirs) = (unit("ours.service"), unit("theirs.service"));
        let mut hold = Hold::open(file);
        hold.judge(Some("a"), 50, nothing());
        hold.acted_on(60);
        assert!(!hold.protects(&ours, 1, 50));
        // An older copy: what was asked for since it is in view counts.
        hold.judge(Some("a"), 20, [ours.clone()].into_iter());
        assert!(hold.protects(&ours, 20, 22) && !hold.protects(&ours, 21, 22));
        // No user has asked for what is numbered above the copy itself.
        assert!(hold.protects(&ours, 60, 22));
        assert!(!hold.protects(&theirs, 10, 22) && !hold.is_foreign());
        // It is read again, with a unit that was started on its word.
        hold.judge(Some("a"), 25, [ours.clone(), theirs.clone()].into_iter());
        assert!(!hold.protects(&ours, 21, 22) && !hold.protects(&theirs, 10, 22));
        // Somebody else's: they may ask for whatever they like.
        hold.judge(Some("b"), 500, [ours.clone()].into_iter());
        assert!(hold.is_foreign() && hold.protects(&ours, 501, 502));
        assert!(!hold.protects(&theirs, 501, 502));
        hold.judge(Some("a"), 60, nothing());
        assert!(!hold.protects(&ours, 1, 61));
    }
}
