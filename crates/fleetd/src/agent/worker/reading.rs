//! Reading assignments: all of them, or on from where a watch broke. Whose store it is is asked before
//! and after, since another one may take its place in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use tracing::info;

use super::super::hold::Found;
use super::{Fence, Worker};
use crate::store::codec::{ClusterRecord, Document};
use crate::store::{Error, Event, RESUME_WITHIN, Range, Revision, Store, Watch, keys};

impl Worker {
    /// Watches on from a revision, if it is one of the store that was read, as another one may have
    /// taken its place meanwhile, and if that is not long ago.
    pub(super) async fn resume(&mut self, revision: Revision) -> Result<Option<Watch>, Error> {
        let before = identity(&self.store, &self.machine).await?;
        if before.revision.saturating_sub(revision) > RESUME_WITHIN {
            return Ok(None);
        }
        let revision = match fleet_core::planted!("a broken watch goes on from now") {
            true => before.revision,
            false => revision,
        };
        let watch = watch_own(&self.store, &self.machine, revision).await?;
        let after = identity(&self.store, &self.machine).await?;
        let is_same = |store: &StoreIdentity| {
            self.hold.is_known(store.cluster.as_deref())
                && self.hold.is_marked(store.mark)
                && store.revision >= revision
        };
        let same = !self.hold.is_holding() && is_same(&before) && is_same(&after);
        Ok(same.then_some(watch))
    }

    /// Reads all assignments and what was said of their units, and watches from there.
    pub(super) async fn read_all(&mut self, fence: Fence) -> Result<(Revision, Watch), Error> {
        // A watch that goes on from before would put old orders over what is read here.
        self.read_behind = None;
        // Asked before and after: another store may take its place in between; when it does so
        // later, the watch breaks.
        let before = identity(&self.store, &self.machine).await?;
        let prefix = keys::assignments_of(self.machine.as_str());
        let snapshot = self
            .store
            .read(Range {
                prefix,
                ..Range::default()
            })
            .await?;
        let watch = watch_own(&self.store, &self.machine, snapshot.revision).await?;
        let after = identity(&self.store, &self.machine).await?;
        // Also when the right one is back already: another one has another revision.
        let is_one = (before.revision..=after.revision).contains(&snapshot.revision);
        if after.cluster != before.cluster || after.mark < before.mark || !is_one {
            let why = "another store took its place while it was read";
            return Err(Error::Unavailable(why.to_owned()));
        }
        if !self.manager.knows_what_is_here() {
            let why = "which units are here is not known yet";
            return Err(Error::Unavailable(why.to_owned()));
        }
        let here = self.manager.observe_all();
        if self.manager.holds_nothing() {
            self.hold.nothing_to_lose();
        }
        // A unit that is here but not in the snapshot keeps running: absence is no order.
        self.desired.clear();
        self.orders.clear();
        self.damaged.clear();
        let revision = snapshot.revision;
        for entry in snapshot.entries {
            self.learn(&Event::Put(entry));
        }
        let orders = self.desired.iter();
        let done_here = here.iter();
        self.hold.judge(Found {
            cluster: after.cluster.as_deref(),
            revision,
            mark: after.mark,
            orders: orders
                .map(|(unit, order)| (unit.clone(), order.decision))
                .collect(),
            here: done_here
                .map(|(unit, observed)| (unit.clone(), observed.done()))
                .collect(),
        });
        let is_believed = !self.hold.is_holding();
        self.publisher.mark_from(is_believed.then_some(after.mark));
        self.tell_hold();

        let mut units: BTreeSet<UnitName> = here.into_keys().collect();
        self.look_for_late(&units);
        units.extend(self.desired.keys().cloned());
        self.publisher
            .learn(units.iter().cloned().collect())
            .await?;
        self.dirty = units;
        self.read_behind = Some(fence);
        info!(revision, units = self.desired.len(), "assignments read");
        Ok((revision, watch))
    }
}

/// By what a machine knows its store again.
struct StoreIdentity {
    /// The id of the cluster that it holds, if it has one yet.
    cluster: Option<String>,
    /// Where this machine's mark stands, if there is one.
    mark: Option<Revision>,
    revision: Revision,
}

async fn identity(store: &Arc<dyn Store>, machine: &MachineId) -> Result<StoreIdentity, Error> {
    let mark = keys::mark(machine.as_str());
    let read = store
        .read_keys(&[keys::CLUSTER.to_owned(), mark.clone()])
        .await?;
    let found = |key: &str| read.entries.iter().find(|entry| entry.key == key);
    let cluster =
        found(keys::CLUSTER).and_then(|entry| ClusterRecord::decode(&entry.key, &entry.value).ok());
    Ok(StoreIdentity {
        cluster: cluster.map(|cluster| cluster.id),
        mark: found(&mark).map(|entry| entry.mod_revision),
        revision: read.revision,
    })
}

/// Follows the assignments of one machine and nothing else.
async fn watch_own(
    store: &Arc<dyn Store>,
    machine: &MachineId,
    after: Revision,
) -> Result<Watch, Error> {
    store
        .watch(&keys::assignments_of(machine.as_str()), after)
        .await
}
