//! A store that is not believed, and the word of somebody that it is to be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::agent::{self, Observed, Task};
use fleet_core::name::UnitName;
use tokio::time::Instant;
use tracing::warn;

use super::super::hold::REMARK;
use super::{Worker, say};
use crate::store::codec::{AskedRecord, ClusterRecord, Document};
use crate::store::{Revision, keys};

/// A machine that does not believe its store looks this often whether it shall.
pub(super) const WORD_EVERY: Duration = Duration::from_secs(2);

/// When it shall, what it remembers of its units is written first. It looks again after so long.
pub(super) const PREPARED: Duration = Duration::from_millis(100);

/// Small files are written in a moment, and most units have started by then. What takes longer, a start
/// without an end for one, keeps nobody from believing the store: it is seen to when it is over.
const PREPARE_FOR: Duration = Duration::from_secs(1);

/// What somebody has said of a store that is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Nothing, or it is done.
    None,
    /// It shall be believed, which is being prepared.
    Heard,
    /// It has its name again: what was read of another one must be read anew before it counts.
    Named,
}

impl Worker {
    /// While this store is not believed: has somebody said that it is to be? Then what is
    /// remembered of units is brought down to what this store knows, and when that is written the
    /// store is believed: so a fleetd that dies in between begins again.
    pub(super) async fn look_for_a_word(&mut self) -> Word {
        let mark = keys::mark(self.machine.as_str());
        let wanted = [
            keys::ACCEPT_STORE.to_owned(),
            keys::CLUSTER.to_owned(),
            mark.clone(),
        ];
        let Ok(read) = self.store.read_keys(&wanted).await else {
            return Word::None;
        };
        let found = |key: &str| read.entries.iter().find(|entry| entry.key == key);
        let cluster = found(keys::CLUSTER)
            .and_then(|entry| ClusterRecord::decode(&entry.key, &entry.value).ok());
        let id = cluster.as_ref().map(|cluster| cluster.id.as_str());
        // Garbage in its place is nobody's word.
        let said = found(keys::ACCEPT_STORE)
            .filter(|said| AskedRecord::decode(&said.key, &said.value).is_ok())
            .map(|said| said.mod_revision);
        let mark = found(&mark).map(|mark| mark.mod_revision);
        let here = self.manager.observe_all();
        match said.filter(|said_at| self.hold.is_meant(*said_at)) {
            Some(said_at) => {
                let tasks = here.iter().filter_map(|(unit, observed)| {
                    let assignment = self.desired.get(unit);
                    let is_readable = !self.damaged.contains(unit);
                    is_readable.then(|| agent::believing(unit, assignment, observed))?
                });
                let tasks: Vec<Task> = tasks.collect();
                if !tasks.is_empty() {
                    tasks.iter().for_each(say);
                    self.manager.apply(tasks);
                    return Word::Heard;
                }
                let is_working = here.values().any(|observed| observed.working.is_some());
                let heard_at = *self.heard_at.get_or_insert_with(Instant::now);
                if is_working && heard_at.elapsed() < PREPARE_FOR {
                    return Word::Heard;
                }
                self.believe(said_at, id, mark, &here);
            }
            // Its name was missing for a moment and is put back, or it is there again instead of
            // another one, of which all is that was read.
            None if self.hold.is_foreign() && id.is_some() && self.hold.is_known(id) => {
                return Word::Named;
            }
            None => {
                self.heard_at = None;
                return Word::None;
            }
        }
        if !self.hold.is_holding() {
            self.tell_hold();
            self.dirty.extend(self.desired.keys().cloned());
            self.dirty.extend(here.into_keys());
        }
        Word::None
    }

    /// Believes the store, but for what is not over yet or cannot be read.
    fn believe(
        &mut self,
        said_at: Revision,
        id: Option<&str>,
        mark: Option<Revision>,
        here: &BTreeMap<UnitName, Observed>,
    ) {
        let late = here
            .iter()
            .filter(|(unit, observed)| observed.working.is_some() || self.damaged.contains(*unit));
        let late: BTreeSet<UnitName> = late.map(|(unit, _)| unit.clone()).collect();
        if !self.hold.accept(said_at, id, !late.is_empty()) {
            return;
        }
        for unit in &late {
            warn!(
                %unit,
                "it is still being started or stopped, or its assignment cannot be read: what this \
                 store says of it counts when that is over"
            );
        }
        self.heard_at = None;
        self.late = late;
        self.publisher.mark_from(Some(mark));
    }

    /// A unit that was being started or stopped, by an order of another store, when this one was
    /// believed: what is remembered of it is brought down when that is over. Until then there is
    /// nothing else to do about it; None: it is as any other.
    pub(super) fn bring_down(&mut self, unit: &UnitName, observed: &Observed) -> Option<Vec<Task>> {
        if self.hold.is_holding() || !self.late.contains(unit) {
            return None;
        }
        let assignment = self.desired.get(unit);
        if agent::is_still_writing(assignment, observed) {
            return Some(Vec::new());
        }
        if let Some(task) = agent::believing(unit, assignment, observed) {
            let is_due = observed.attempt.as_ref().is_none_or(|attempt| attempt.due);
            return Some(Vec::from_iter(is_due.then_some(task)));
        }
        if observed.working.is_some() {
            // Its record may yet come.
            return None;
        }
        self.late.remove(unit);
        if self.late.is_empty() {
            self.hold.all_is_brought_down();
        }
        None
    }

    /// A fleetd before has believed this store while units were being started or stopped, and did not
    /// see the end of it; or this store is back after another one, which numbers what it starts as it
    /// likes. An order of this one that is known is at least what was done by it.
    pub(super) fn look_for_late(&mut self, here: &BTreeSet<UnitName>) {
        if self.hold.leaves_above() {
            self.late.clone_from(here);
            if here.is_empty() {
                self.hold.all_is_brought_down();
            }
        }
    }

    /// Tells the cluster, and whoever looks at the metrics, whether the store is believed.
    pub(super) fn tell_hold(&self) {
        let holding = self.hold.is_holding();
        self.metrics.trusts(holding, self.damaged.len());
        self.record.send_if_modified(|record| {
            let remark = holding.then(|| REMARK.to_owned());
            let is_new = record.remark != remark;
            record.remark = remark;
            is_new
        });
    }
}
