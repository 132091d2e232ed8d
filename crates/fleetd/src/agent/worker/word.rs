//! A store that is not believed, and the word of somebody that it is to be.

use std::time::Duration;

use fleet_core::agent::{self, Task};

use super::super::hold::REMARK;
use super::{Worker, say};
use crate::store::codec::{ClusterRecord, Document};
use crate::store::keys;

/// A machine that does not believe its store looks this often whether it shall.
pub(super) const WORD_EVERY: Duration = Duration::from_secs(2);

/// When it shall, what it remembers of its units is written first. It looks again after so long.
pub(super) const PREPARED: Duration = Duration::from_millis(100);

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
        let wanted = [keys::ACCEPT_STORE.to_owned(), keys::CLUSTER.to_owned()];
        let Ok(read) = self.store.read_keys(&wanted).await else {
            return Word::None;
        };
        let found = |key: &str| read.entries.iter().find(|entry| entry.key == key);
        let cluster = found(keys::CLUSTER)
            .and_then(|entry| ClusterRecord::decode(&entry.key, &entry.value).ok());
        let id = cluster.as_ref().map(|cluster| cluster.id.as_str());
        let said = found(keys::ACCEPT_STORE).map(|said| said.mod_revision);
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
                let is_still_writing = here.iter().any(|(unit, observed)| {
                    !self.damaged.contains(unit)
                        && agent::is_still_writing(self.desired.get(unit), observed)
                });
                if is_still_writing {
                    return Word::Heard;
                }
                self.hold.accept(said_at, id);
            }
            // Its name was missing for a moment and is put back, or it is there again instead of
            // another one, of which all is that was read.
            None if self.hold.is_foreign() && id.is_some() && self.hold.is_known(id) => {
                return Word::Named;
            }
            None => return Word::None,
        }
        if !self.hold.is_holding() {
            self.tell_hold();
            self.dirty.extend(self.desired.keys().cloned());
            self.dirty.extend(here.into_keys());
        }
        Word::None
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
