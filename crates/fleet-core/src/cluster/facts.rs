//! What the store says, as the planner takes it in: one fact a key.

use std::sync::Arc;

use crate::body::BodyHash;
use crate::hash::UnitHash;
use crate::name::UnitName;
use crate::records::{
    AssignmentRecord, Decision, DesiredState, MachineId, MachineRecord, MachineWish, MemberRecord,
    Order, PlacementRecord, Reached, StateRecord, UnitRecord,
};
use crate::requirements::Requirements;
use crate::unit_file::{ParseError, UnitFile};

/// What one key holds now; `None` where the key does not exist (any more).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// `units/<name>`
    Unit(UnitName, Option<Wish>),
    /// `machines/<id>`
    Presence(MachineId, Option<MachineRecord>),
    /// `members/<id>`
    Member(MachineId, Option<MemberRecord>),
    /// `machine-wishes/<id>`
    MachineWish(MachineId, Option<MachineWish>),
    /// `placements/<unit>`
    Placement(UnitName, Option<PlacementRecord>),
    /// `assignments/<machine>/<unit>`
    Assignment(MachineId, UnitName, Option<Assigned>),
    /// `states/<unit>/<machine>`
    State(UnitName, MachineId, Option<Reported>),
    /// A key whose document cannot be read. What it is about is frozen until the key can be
    /// read again: a unit stays as it is, a machine takes no new units.
    Damaged(Place),
}

/// A key that concerns one unit or one machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// `units/<name>`
    Unit(UnitName),
    /// `machines/<id>`
    Presence(MachineId),
    /// `members/<id>`
    Member(MachineId),
    /// `machine-wishes/<id>`
    MachineWish(MachineId),
    /// `placements/<unit>`
    Placement(UnitName),
    /// `assignments/<machine>/<unit>`
    Assignment(MachineId, UnitName),
    /// `states/<unit>/<machine>`
    State(UnitName, MachineId),
}

impl Place {
    /// The unit that is frozen when this key is damaged; a machine is when it is none.
    pub(crate) fn unit(&self) -> Option<&UnitName> {
        match self {
            Place::Unit(unit)
            | Place::Placement(unit)
            | Place::Assignment(_, unit)
            | Place::State(unit, _) => Some(unit),
            Place::Presence(_) | Place::Member(_) | Place::MachineWish(_) => None,
        }
    }

    pub(crate) fn machine(&self) -> Option<&MachineId> {
        match self {
            Place::Presence(id) | Place::Member(id) | Place::MachineWish(id) => Some(id),
            _ => None,
        }
    }
}

impl Fact {
    /// The key that this fact is about.
    pub fn place(&self) -> Place {
        match self {
            Fact::Unit(unit, _) => Place::Unit(unit.clone()),
            Fact::Presence(id, _) => Place::Presence(id.clone()),
            Fact::Member(id, _) => Place::Member(id.clone()),
            Fact::MachineWish(id, _) => Place::MachineWish(id.clone()),
            Fact::Placement(unit, _) => Place::Placement(unit.clone()),
            Fact::Assignment(id, unit, _) => Place::Assignment(id.clone(), unit.clone()),
            Fact::State(unit, id, _) => Place::State(unit.clone(), id.clone()),
            Fact::Damaged(place) => place.clone(),
        }
    }
}

/// What a user wants of a unit, read for planning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Mod-revision of the wish.
    pub generation: u64,
    /// What is wanted.
    pub desired: DesiredState,
    /// The unit file in serial form, shared with all units of the same contents.
    pub text: Arc<str>,
    /// SHA-1 of the text.
    pub hash: UnitHash,
    /// What of it makes the process.
    pub body: BodyHash,
    /// How often a restart was asked for.
    pub restarts: u64,
    /// The machine that it goes to if it may run there.
    pub prefer: Option<MachineId>,
    /// The `[X-Fleet]` section.
    pub requirements: Arc<Requirements>,
}

impl Wish {
    /// Reads the requirements out of a stored wish.
    ///
    /// # Errors
    /// The stored text is no unit file; the unit is then damaged.
    pub fn read(name: &UnitName, record: &UnitRecord, generation: u64) -> Result<Wish, ParseError> {
        let file = UnitFile::parse(record.text.as_bytes())?;
        let (requirements, _) = Requirements::parse(&file, Some(name));
        Ok(Wish {
            generation,
            desired: record.desired,
            text: record.text.clone(),
            hash: record.hash,
            body: BodyHash::of(&file),
            restarts: record.restarts,
            prefer: record.prefer.clone(),
            requirements: Arc::new(requirements),
        })
    }

    /// What the unit's machine is to do; none while the unit is wanted on no machine.
    pub(crate) fn order(&self, name: &UnitName) -> Option<Order> {
        match self.desired {
            // A template is never wanted anywhere, whatever was stored for it.
            _ if name.is_template() => None,
            DesiredState::Launched => Some(Order::Launched),
            DesiredState::Loaded => Some(Order::Loaded),
            DesiredState::Inactive | DesiredState::Destroyed => None,
        }
    }
}

/// An assignment, without its text and reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// Which decision it carries out.
    pub decision: Decision,
    /// What the machine is to do.
    pub order: Order,
    /// Hash of the unit's text.
    pub hash: UnitHash,
    /// What of the text makes the process.
    pub body: BodyHash,
    /// Copied from the wish.
    pub restarts: u64,
}

impl From<&AssignmentRecord> for Assigned {
    fn from(record: &AssignmentRecord) -> Self {
        Assigned {
            decision: record.decision,
            order: record.order,
            hash: record.hash,
            body: BodyHash::of_text(&record.text),
            restarts: record.restarts,
        }
    }
}

/// A state, as far as planning needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    /// The newest decision that the agent has carried out or is working on.
    pub decision: Decision,
    /// How far it has come.
    pub reached: Reached,
    /// systemd says `failed`.
    pub failed: bool,
    /// systemd says `activating`: it starts, or starts again after a failure.
    pub starting: bool,
    /// Why it was refused or failed.
    pub why: Option<Arc<str>>,
    /// It is bound to the machine's lease, and may run for so long after that was last seen.
    pub leased_ms: Option<u64>,
}

impl From<&StateRecord> for Reported {
    fn from(record: &StateRecord) -> Self {
        Reported {
            decision: record.decision,
            reached: record.reached,
            failed: record.active == "failed",
            starting: record.active == "activating",
            why: match record.reached {
                Reached::Refused => record.why.as_deref().map(Arc::from),
                _ if record.active == "failed" => record.why.as_deref().map(Arc::from),
                _ => None,
            },
            leased_ms: record.leased_ms,
        }
    }
}
