//! From the store's entries to the facts that fleet-core plans with.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::cluster::{Assigned, Fact, Place, Reported, Wish};
use fleet_core::name::UnitName;
use fleet_core::records::{
    AssignmentRecord, DesiredState, MachineId, MachineRecord, MachineWish, MemberRecord,
    PlacementRecord, StateRecord, UnitRecord,
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
    tombstones: Tombstones,
    /// Units whose tombstone goes by itself.
    buried: BTreeSet<UnitName>,
    /// Keys whose documents cannot be read.
    damaged: BTreeSet<String>,
    /// Keys of the leader's own that somebody has written over since it knows them by heart.
    overwritten: BTreeSet<String>,
}

/// Units that are destroyed and not buried yet, as their users have left them.
pub(crate) type Tombstones = BTreeMap<UnitName, UnitRecord>;

impl Intake {
    /// Units that are destroyed and not buried yet.
    pub(crate) fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// How many documents cannot be read.
    pub(crate) fn n_damaged(&self) -> usize {
        self.damaged.len() + self.overwritten.len()
    }

    /// The fact that an entry states; None for keys that planning does not look at.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Option<Fact> {
        let place = place(&entry.key)?;
        match self.decode(place.clone(), entry) {
            Ok(fact) => {
                self.damaged.remove(&entry.key);
                Some(fact)
            }
            Err(problem) => {
                let ends = fleet_core::planted!("garbage ends fleetd");
                assert!(!ends, "{problem}");
                name_damage(&place, entry, &problem);
                self.damaged.insert(entry.key.clone());
                Some(Fact::Damaged(place))
            }
        }
    }

    /// The fact that an event states. What only the leader writes is not taken from its watch:
    /// it is in the model since it was planned.
    pub(crate) fn event(&mut self, event: &Event) -> Option<Fact> {
        let (Event::Put(Entry { key, .. }) | Event::Delete { key, .. }) = event;
        match place(key)? {
            place @ (Place::Placement(_) | Place::Assignment(..) | Place::Member(_))
                if !self.damaged.contains(key) =>
            {
                // What somebody else has written over it is named; the next decision puts it right.
                match event {
                    Event::Put(entry) => match self.decode(place.clone(), entry) {
                        Ok(_) => {
                            self.overwritten.remove(key);
                        }
                        Err(problem) => {
                            name_damage(&place, entry, &problem);
                            self.overwritten.insert(key.clone());
                        }
                    },
                    Event::Delete { .. } => {
                        self.overwritten.remove(key);
                    }
                }
                None
            }
            place => match event {
                Event::Put(entry) => self.entry(entry),
                Event::Delete { .. } => {
                    self.damaged.remove(key);
                    if let Place::Unit(unit) = &place {
                        let was_destroyed = self.tombstones.remove(unit).is_some();
                        if !was_destroyed && !self.buried.remove(unit) {
                            error!(
                                key,
                                cure = cure(&place),
                                "a wish vanished that nobody has destroyed: what runs of it is left alone"
                            );
                        }
                    }
                    Some(gone(place))
                }
            },
        }
    }

    fn decode(&mut self, place: Place, entry: &Entry) -> Result<Fact, Error> {
        let (key, value) = (&entry.key, &entry.value);
        Ok(match place {
            Place::Unit(unit) => {
                let record = UnitRecord::decode(key, value)?;
                self.buried.remove(&unit);
                if record.buried || record.desired != DesiredState::Destroyed {
                    self.tombstones.remove(&unit);
                }
                if record.buried {
                    self.buried.insert(unit.clone());
                    return Ok(Fact::Unit(unit, None));
                }
                let mut wish = Wish::read(&unit, &record, entry.mod_revision).map_err(|why| {
                    Error::Damaged {
                        key: key.clone(),
                        why: why.to_string(),
                    }
                })?;
                self.interner.share(&mut wish);
                if record.desired == DesiredState::Destroyed {
                    self.tombstones.insert(unit.clone(), record);
                }
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

fn name_damage(place: &Place, entry: &Entry, problem: &Error) {
    error!(
        key = entry.key,
        %problem,
        cure = cure(place),
        "a damaged document: what it is about stays as it is"
    );
}

/// What can be done about a document that cannot be read, or vanished.
fn cure(place: &Place) -> &'static str {
    match place {
        Place::Unit(_) => {
            "hand the unit in again (fleetctl start --replace FILE), or fleetctl destroy it; what \
             runs is taken over as it is"
        }
        Place::Placement(_) | Place::Assignment(..) => {
            "put an older version of the key back, or remove the key (etcdctl del): the leader \
             writes it anew"
        }
        Place::State(..) => "remove the key (etcdctl del): its machine reports anew",
        Place::Presence(_) => "its machine replaces it by itself",
        Place::Member(_) => "remove the key (etcdctl del): it is written anew",
        Place::MachineWish(_) => {
            "remove the key (etcdctl del), then say anew what was asked of the machine \
             (fleetctl cordon, drain; its metadata)"
        }
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
        Key::Cluster
        | Key::Leader
        | Key::Thaw
        | Key::AcceptStore
        | Key::Mark(_)
        | Key::Revoked(_)
        | Key::UsedToken(_)
        | Key::Certified(_)
        | Key::Issuer(_)
        | Key::Event(..)
        | Key::Unknown(_) => return None,
    })
}
