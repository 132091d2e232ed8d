//! What must hold when an old backup has taken the place of the store.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::records::{
    AssignmentRecord, Decision, MachineWish, MemberRecord, PlacementRecord, UnitRecord,
};
use fleetd::store::codec::Document;
use fleetd::store::keys::{self, Key};
use fleetd::store::{Entry, Revision};
use tokio::time::Instant;

use super::{Audit, Running, Seen, is_plain};
use crate::chance::lock;

/// An old backup took the place of the store.
pub(super) struct Restored {
    pub(super) at: Instant,
    pub(super) revision: Revision,
    /// Somebody has said that it is to be believed.
    pub(super) accepted: bool,
    /// Machines that know of nothing that they have said since it was made: nothing that they know
    /// is missing in it, and when it has been written on it is the right store to them, unless it has
    /// an order below what they have done.
    knows_all_of: BTreeSet<String>,
    /// Its orders, by machine and unit.
    orders: BTreeMap<(String, String), Decision>,
}

impl Restored {
    /// Whether a unit that runs is not to be stopped: what it says of it is older than the unit,
    /// and nobody has said that it is to be believed.
    pub(super) fn protects(
        &self,
        seen: &Seen,
        machine: &str,
        unit: &str,
        running: &Running,
    ) -> bool {
        let place = (machine.to_owned(), unit.to_owned());
        let order = self.orders.get(&place);
        let is_below = order.is_some_and(|order| *order < running.decision);
        if self.knows_all_of.contains(machine) && !is_below {
            return false;
        }
        let wishes = seen.wishes.get(unit).map(Vec::as_slice).unwrap_or_default();
        let is_new = wishes.iter().any(|(at, _)| *at > self.revision);
        is_plain(unit) && running.since < self.at && !self.accepted && !is_new
    }
}

impl Audit {
    /// A machine knows where its mark is: it has read that, or heard that it was left.
    pub fn knows_its_mark(&self, machine: &str, revision: Revision) {
        let mut seen = lock(&self.seen);
        if seen.marked.get(machine) == Some(&revision) {
            seen.known_marks.insert(machine.to_owned(), revision);
        }
    }

    /// An old backup has taken the place of the store.
    pub fn restored(&self, entries: &[Entry], revision: Revision) {
        let mut seen = lock(&self.seen);
        let now = Instant::now();
        for (key, versions) in std::mem::take(&mut seen.assigned) {
            seen.past.entry(key).or_default().extend(versions);
        }
        seen.standing.clear();
        seen.placements.clear();
        seen.wishes.clear();
        seen.drained.clear();
        for member in std::mem::take(&mut seen.members).into_keys() {
            seen.absent_since.insert(member, Some(now));
        }
        for entry in entries {
            let (key, value) = (&entry.key, &entry.value);
            match keys::parse(key) {
                Key::Assignment(machine, unit) => {
                    if let Ok(record) = AssignmentRecord::decode(key, value) {
                        let standing = seen.standing.entry(unit.to_owned()).or_default();
                        standing.insert(machine.to_owned(), record.clone());
                        let key = (machine.to_owned(), unit.to_owned());
                        seen.assigned.insert(key, vec![record]);
                    }
                }
                Key::Placement(unit) => {
                    if let Ok(record) = PlacementRecord::decode(key, value) {
                        seen.placements.insert(unit.to_owned(), record);
                    }
                }
                Key::Unit(unit) => {
                    if let Ok(record) = UnitRecord::decode(key, value) {
                        let wishes = vec![(entry.mod_revision, record)];
                        seen.wishes.insert(unit.to_owned(), wishes);
                    }
                }
                Key::Member(machine) => {
                    if let Ok(record) = MemberRecord::decode(key, value) {
                        seen.members.insert(machine.to_owned(), record);
                    }
                }
                Key::Machine(machine) => {
                    seen.absent_since.insert(machine.to_owned(), None);
                    seen.back_since.insert(machine.to_owned(), now);
                }
                Key::MachineWish(machine) => {
                    let wish = MachineWish::decode(key, value);
                    if wish.is_ok_and(|wish| wish.drain) {
                        seen.drained.insert(machine.to_owned(), None);
                    }
                }
                _ => {}
            }
        }
        let is_behind = |machine: &&String| {
            let mark = seen.known_marks.get(*machine);
            mark.is_none_or(|mark| *mark <= revision)
        };
        let knows_all_of = seen.absent_since.keys().filter(is_behind).cloned();
        let knows_all_of = knows_all_of.collect();
        let orders = seen.assigned.iter();
        let orders = orders.filter_map(|(place, orders)| Some((place.clone(), orders.last()?)));
        let orders = orders.map(|(place, order)| (place, order.decision));
        let orders = orders.collect();
        seen.restored = Some(Restored {
            knows_all_of,
            orders,
            at: now,
            revision,
            accepted: false,
        });
    }
}
