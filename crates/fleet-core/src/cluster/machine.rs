//! A machine as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Place;
use super::index::{PatternSet, Score};
use crate::name::UnitName;
use crate::records::{
    Avoided, MachineId, MachineRecord, MachineWish, MemberRecord, MemberStatus, Order,
};

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) presence: Option<MachineRecord>,
    /// The last presence before it went said that fleetd was being stopped in order.
    pub(crate) left_in_order: bool,
    /// It said that the machine itself was going down.
    pub(crate) shut_down: bool,
    pub(crate) member: Option<MemberRecord>,
    /// Too many units have failed here; as its membership record has it, or is to have it.
    pub(crate) avoided: Option<Avoided>,
    pub(crate) wish: MachineWish,
    /// Its keys that cannot be read: meanwhile it takes no new units, and none is moved off it
    /// because of its metadata.
    pub(crate) damaged: BTreeSet<Place>,

    // Derived by the planner when it reviews the machine.
    pub(crate) status: MemberStatus,
    /// Its own metadata, overlaid by the wish.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Why its units were to leave it when they were last looked at.
    pub(crate) left_for: LeftFor,
    /// Takes new units.
    pub(crate) open: bool,
    /// When this planner first saw it absent, in its monotonic milliseconds.
    pub(crate) vanished_at: Option<u64>,
    /// This planner has given it up since then, for want of a sign of life.
    pub(crate) given_up: bool,
    /// Somebody has said that it is really gone, though too many others had vanished with it.
    pub(crate) thawed: bool,
    /// When it vanished, for people, in milliseconds since the Unix epoch.
    pub(crate) vanished_unix_ms: u64,

    /// Its rank in the index of open machines: whether it was avoided when it was last reviewed.
    pub(crate) comes_last: bool,
    /// What became of the units that came to an outcome here last, the newest last.
    pub(crate) outcomes: Vec<Outcome>,
    /// While it is avoided: units that have come since and are well, and since when they were
    /// seen to be, in monotonic milliseconds.
    pub(crate) on_trial: BTreeMap<UnitName, u64>,

    // Derived from the assignments.
    /// Every unit with an assignment here, `Gone` included: until that is confirmed the unit
    /// may still run here.
    pub(crate) units: BTreeMap<UnitName, Order>,
    /// How many of `units` are wanted here.
    pub(crate) load: usize,
    pub(crate) conflicts: PatternSet,
    pub(crate) replaces: PatternSet,
}

/// A unit has started well on a machine, or has failed there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    /// The unit, or the template of which it is an instance: what is wrong with one instance is
    /// wrong with all.
    pub(crate) of: UnitName,
    pub(crate) failed: bool,
    /// In monotonic milliseconds.
    pub(crate) at: u64,
}

/// Why the units of a machine are to leave it. A drain takes turns, a shutdown does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LeftFor {
    drain: bool,
    shutdown: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            presence: None,
            left_in_order: false,
            shut_down: false,
            member: None,
            avoided: None,
            wish: MachineWish::default(),
            damaged: BTreeSet::new(),
            // Until it is reviewed nothing is decided about it.
            status: MemberStatus::Suspect,
            metadata: BTreeMap::new(),
            left_for: LeftFor::default(),
            open: false,
            vanished_at: None,
            given_up: false,
            thawed: false,
            comes_last: false,
            outcomes: Vec::new(),
            on_trial: BTreeMap::new(),
            vanished_unix_ms: 0,
            units: BTreeMap::new(),
            load: 0,
            conflicts: PatternSet::default(),
            replaces: PatternSet::default(),
        }
    }
}

impl Machine {
    /// It is there, and has not got hold of its systemd, or is going.
    pub(crate) fn is_in_trouble(&self) -> bool {
        let presence = self.presence.as_ref();
        presence.is_some_and(|presence| presence.trouble.is_some())
    }

    pub(crate) fn score(&self, id: &MachineId) -> Score {
        Score {
            avoided: self.comes_last && !planted!("a machine that breaks units is not avoided"),
            units: self.load,
            machine: id.clone(),
        }
    }

    /// It says that the store is not the one that its units came from.
    pub(crate) fn doubts_store(&self) -> bool {
        let presence = self.presence.as_ref();
        presence.is_some_and(|record| record.remark.is_some())
    }

    /// Its lease has ended. A presence that cannot be read is a presence.
    pub(crate) fn is_absent(&self) -> bool {
        let unreadable = |place: &Place| matches!(place, Place::Presence(_));
        self.presence.is_none() && !self.damaged.iter().any(unreadable)
    }

    /// Its absence is meant: fleetd was stopped there in order. It said so to this leader, or to
    /// one before, which wrote it down.
    pub(crate) fn left_in_order(&self) -> bool {
        let noted = self.member.as_ref().is_some_and(|member| {
            member.status == MemberStatus::Present && member.reason == MemberRecord::LEAVES
        });
        self.is_absent() && !self.shut_down && (self.left_in_order || noted)
    }

    /// Only a wish speaks of it; it has never been a machine of this cluster.
    pub(crate) fn was_never_seen(&self) -> bool {
        self.is_absent()
            && self.member.is_none()
            && self.units.is_empty()
            && !self.has_damaged_member()
    }

    /// Its membership record cannot be read.
    pub(crate) fn has_damaged_member(&self) -> bool {
        self.damaged
            .iter()
            .any(|place| matches!(place, Place::Member(_)))
    }

    /// Its units are to leave it. They leave a machine only while it is there to be seen: one
    /// that is away is a matter of loss.
    pub(crate) fn is_drained(&self) -> bool {
        self.wish.drain && self.status == MemberStatus::Present
    }

    /// It is there, and goes down in a moment.
    pub(crate) fn is_shutting_down(&self) -> bool {
        let presence = self.presence.as_ref();
        self.status == MemberStatus::Present
            && presence.is_some_and(MachineRecord::is_shutting_down)
    }

    /// Units do not come to it, or back to it.
    pub(crate) fn is_being_left(&self) -> bool {
        self.left_for_now() != LeftFor::default()
    }

    /// Why its units are to leave it.
    pub(crate) fn left_for_now(&self) -> LeftFor {
        LeftFor {
            drain: self.wish.drain,
            shutdown: self.is_shutting_down(),
        }
    }

    /// Whether the unit is wanted here.
    pub(crate) fn runs(&self, unit: &str) -> bool {
        self.units
            .get(unit)
            .is_some_and(|order| *order != Order::Gone)
    }

    /// Nothing is known of it any more.
    pub(crate) fn is_void(&self) -> bool {
        self.presence.is_none()
            && self.member.is_none()
            && self.units.is_empty()
            && self.damaged.is_empty()
            && self.wish == MachineWish::default()
    }
}
