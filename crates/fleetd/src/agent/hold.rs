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
//!
//! The answer to the last mark may have been lost, and nobody can say then whether it was ever left. But
//! a store gives no unit an order below one that was carried out: where one stands there, it is an older
//! copy, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fleet_core::name::UnitName;
use fleet_core::records::Decision;
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
    /// What was done here by orders above those that the store has which is not believed. It is
    /// no right one while it has one of them below that.
    outdone: BTreeMap<UnitName, Decision>,
    holding: bool,
    /// What is not believed.
    held: Held,
}

/// What a machine finds in a store, and has done by its orders.
pub(crate) struct Found<'a> {
    /// The id of its cluster, if it has one yet.
    pub(crate) cluster: Option<&'a str>,
    pub(crate) revision: Revision,
    /// Where this machine's mark stands, if there is one.
    pub(crate) mark: Option<Revision>,
    /// Its orders for this machine.
    pub(crate) orders: BTreeMap<UnitName, Decision>,
    /// The units of fleet's on this machine, with the decision that was carried out last; None: it is
    /// not known, or the unit is gone and about to be forgotten.
    pub(crate) here: BTreeMap<UnitName, Option<Decision>>,
}

impl Found<'_> {
    /// Whether its order for a unit is below what was done.
    fn is_below(&self, unit: &UnitName, done: Decision) -> bool {
        self.orders.get(unit).is_some_and(|order| *order < done)
    }

    fn outdone(&self) -> BTreeMap<UnitName, Decision> {
        let here = self.here.iter();
        let done = here.filter_map(|(unit, done)| Some((unit.clone(), (*done)?)));
        done.filter(|(unit, done)| self.is_below(unit, *done))
            .collect()
    }
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

/// A line for each of [`Hold::outdone`]: the decision and the unit.
const OUTDONE: &str = "outdone";

/// So many of them are remembered by the next fleetd, since the file is a small one. One would do, were it
/// not that its user may ask for the unit anew.
const MAX_OUTDONE: usize = 8;

fn number(lines: &[(String, String)], key: &str) -> Revision {
    let value = runfile::value(lines, key);
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn outdone(lines: &[(String, String)]) -> BTreeMap<UnitName, Decision> {
    let lines = lines.iter().filter(|(key, _)| key == OUTDONE);
    let read = lines.filter_map(|(_, value)| {
        let (decision, unit) = value.split_once(' ')?;
        let (generation, seq) = decision.split_once('.')?;
        let decision = Decision {
            generation: generation.parse().ok()?,
            seq: seq.parse().ok()?,
        };
        Some((UnitName::parse(unit).ok()?, decision))
    });
    read.collect()
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
            outdone: outdone(&lines),
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
        self.outdone.clear();
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

    /// Judges a snapshot of the store.
    pub(crate) fn judge(&mut self, found: Found<'_>) {
        let Found {
            cluster,
            revision,
            mark,
            ..
        } = found;
        let foreign = self.cluster.is_some() && self.cluster.as_deref() != cluster;
        let backwards = self.cluster.is_some() && revision < self.revision;
        let is_older_copy = self.cluster.is_some() && !self.is_marked(mark);
        // What another store has started here is above the right one's orders as well.
        if !self.leaves_above && self.cluster.is_some() {
            self.outdone = found.outdone();
        }
        let mut outdone = self.outdone.iter();
        let is_outdone = outdone.any(|(unit, done)| found.is_below(unit, *done))
            && !fleet_core::planted!("an older copy that was written on is believed");
        let holding = (foreign || backwards || is_older_copy || is_outdone)
            && !fleet_core::planted!("any store is believed");
        if holding && !self.holding {
            error!(
                known = self.cluster.as_deref().unwrap_or(""),
                found = cluster.unwrap_or("none"),
                acted_on = self.revision,
                revision,
                marked = self.mark,
                mark,
                outdone = self.outdone.len(),
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
                units: found.here.into_keys().collect(),
            };
        }
        self.holding = holding;
        if holding {
            return;
        }
        self.outdone.clear();
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
        self.outdone.clear();
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
        let outdone = self.outdone.iter().take(MAX_OUTDONE);
        let outdone: Vec<String> = outdone
            .map(|(unit, done)| format!("{done} {unit}"))
            .collect();
        lines.extend(outdone.iter().map(|line| (OUTDONE, line.as_str())));
        if let Err(error) = runfile::write(&self.file, &lines) {
            warn!(%error, file = %self.file.display(), "the store's identity is not remembered");
        }
    }
}

#[cfg(test)]
mod tests;
