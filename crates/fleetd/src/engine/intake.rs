//! From the store's entries to the facts that fleet-core plans with.

use fleet_core::cluster::{Assigned, Fact, Place, Reported, Wish};
use fleet_core::name::UnitName;
use fleet_core::records::{
    AssignmentRecord, MachineId, MachineRecord, MachineWish, MemberRecord, PlacementRecord,
    StateRecord, UnitRecord,
};
use tracing::error;

use super::intern::Interner;
use crate::store::codec::Document;
use crate::store::keys::{self, Key};
use crate::store::{Entry, Error, Event};

/// Reads entries into facts.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    interner: Interner,
}

impl Intake {
    /// The fact that an entry states; None for keys that planning does not look at.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Option<Fact> {
        let place = place(&entry.key)?;
        let fact = self.decode(place.clone(), entry);
        Some(fact.unwrap_or_else(|problem| {
            error!(key = entry.key, %problem, "a damaged document: what it is about stays as it is");
            Fact::Damaged(place)
        }))
    }

    /// The fact that an event states. What only the leader writes is not taken from its watch:
    /// it is in the model since it was planned.
    pub(crate) fn event(&mut self, event: &Event) -> Option<Fact> {
        let (Event::Put(Entry { key, .. }) | Event::Delete { key, .. }) = event;
        match place(key)? {
            Place::Placement(_) | Place::Assignment(..) | Place::Member(_) => None,
            place => match event {
                Event::Put(entry) => self.entry(entry),
                Event::Delete { .. } => Some(gone(place)),
            },
        }
    }

    fn decode(&mut self, place: Place, entry: &Entry) -> Result<Fact, Error> {
        let (key, value) = (&entry.key, &entry.value);
        Ok(match place {
            Place::Unit(unit) => {
                let record = UnitRecord::decode(key, value)?;
                let mut wish = Wish::read(&unit, &record, entry.mod_revision).map_err(|why| {
                    Error::Damaged {
                        key: key.clone(),
                        why: why.to_string(),
                    }
                })?;
                self.interner.share(&mut wish);
                Fact::Unit(unit, Some(wish))
            }
            Place::Presence(id) => Fact::Presence(id, Some(MachineRecord::decode(key, value)?)),
            Place::Member(id) => Fact::Member(id, Some(MemberRecord::decode(key, value)?)),
            Place::MachineWish(id) => Fact::MachineWish(id, Some(MachineWish::decode(key, value)?)),
            Place::Placement(unit) => {
                Fact::Placement(unit, Some(PlacementRecord::decode(key, value)?))
            }
            Place::Assignment(id, unit) => {
                let record = AssignmentRecord::decode(key, value)?;
                Fact::Assignment(id, unit, Some(Assigned::from(&record)))
            }
            Place::State(unit, id) => {
                let record = StateRecord::decode(key, value)?;
                Fact::State(unit, id, Some(Reported::from(&record)))
            }
        })
    }
}

fn gone(place: Place) -> Fact {
    match place {
        Place::Unit(unit) => Fact::Unit(unit, None),
        Place::Presence(id) => Fact::Presence(id, None),
        Place::Member(id) => Fact::Member(id, None),
        Place::MachineWish(id) => Fact::MachineWish(id, None),
        Place::Placement(unit) => Fact::Placement(unit, None),
        Place::Assignment(id, unit) => Fact::Assignment(id, unit, None),
        Place::State(unit, id) => Fact::State(unit, id, None),
    }
}

/// What a key is about; None for keys that planning does not look at.
fn place(key: &str) -> Option<Place> {
    let unit = |name: &str| match UnitName::parse(name) {
        Ok(unit) => Some(unit),
        Err(problem) => {
            error!(key, %problem, "a key with no unit's name is passed over");
            None
        }
    };
    let machine = MachineId::new;
    Some(match keys::parse(key) {
        Key::Unit(name) => Place::Unit(unit(name)?),
        Key::Placement(name) => Place::Placement(unit(name)?),
        Key::Assignment(id, name) => Place::Assignment(machine(id), unit(name)?),
        Key::State(name, id) => Place::State(unit(name)?, machine(id)),
        Key::Machine(id) => Place::Presence(machine(id)),
        Key::Member(id) => Place::Member(machine(id)),
        Key::MachineWish(id) => Place::MachineWish(machine(id)),
        Key::Cluster | Key::Leader | Key::Thaw | Key::AcceptStore | Key::Unknown(_) => return None,
    })
}
