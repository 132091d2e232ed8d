//! What is worth telling of what was decided and what happened: the words of `fleetctl events`.
//!
//! An event is made where its cause is: a change of a plan carries its own ([`of_unit`],
//! [`of_member`]), a machine's report that of what happened to a unit ([`of_state`]), a wish that of
//! who wished it ([`of_wish`]). It is written in the transaction of its cause, so that there is none
//! of what never came to be.

use crate::name::UnitName;
use crate::plan::Write;
use crate::records::{
    DesiredState, MachineId, MachineWish, MemberRecord, MemberStatus, Order, PlacementRecord,
    Reached, StateRecord, UnitRecord,
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)*) => {
        /// What kind of thing was decided or happened.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
            /// A kind that a newer fleetd knows.
            Other(Box<str>),
        }

        impl EventKind {
            /// All kinds that this version knows, in the order of a unit's life.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word in lower case.
            pub fn as_str(&self) -> &str {
                match self {
                    $(EventKind::$kind => $word,)*
                    EventKind::Other(word) => word,
                }
            }

            /// The reverse of [`EventKind::as_str`].
            pub fn parse(word: &str) -> EventKind {
                match word {
                    $($word => EventKind::$kind,)*
                    other => EventKind::Other(other.into()),
                }
            }
        }
    };
}

kinds! {
    /// Somebody has handed in a unit, or changed what is wished of it.
    Submitted = "submitted",
    /// Somebody has destroyed a unit.
    Destroyed = "destroyed",
    /// Somebody has asked something of a machine or of the cluster.
    Asked = "asked",
    /// Somebody was not allowed to do something.
    Denied = "denied",
    /// A unit goes to a machine.
    Placed = "placed",
    /// A unit goes to another machine than before.
    Moved = "moved",
    /// A unit stays where it is, though there was a reason to move it.
    Kept = "kept",
    /// A unit is wanted, and no machine may run it.
    Pending = "pending",
    /// A unit leaves its machine and goes to none.
    Unplaced = "unplaced",
    /// A machine will not have a unit.
    Refused = "refused",
    /// A unit runs.
    Started = "started",
    /// A unit has done what it was to do.
    Finished = "finished",
    /// A unit runs no more.
    Stopped = "stopped",
    /// A unit has failed.
    Failed = "failed",
    /// A machine is there.
    Present = "present",
    /// A machine is away for the moment.
    Suspect = "suspect",
    /// A machine is given up.
    Lost = "lost",
    /// fleetd was stopped in order on a machine.
    Unsupervised = "unsupervised",
    /// A machine is not expected back.
    Retired = "retired",
    /// New units come to a machine last.
    Avoided = "avoided",
    /// New units come to it again.
    Trusted = "trusted",
    /// A machine leads the cluster.
    Leader = "leader",
}

/// One thing that was decided or happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The unit that it is about.
    pub unit: Option<UnitName>,
    /// The machine that it is about, or that the unit is on.
    pub machine: Option<MachineId>,
    /// The machine that the unit was on.
    pub from: Option<MachineId>,
    /// Why, in words.
    pub why: String,
}

impl Event {
    /// About a machine.
    pub fn of_machine(kind: EventKind, machine: MachineId, why: impl Into<String>) -> Event {
        Event {
            kind,
            unit: None,
            machine: Some(machine),
            from: None,
            why: why.into(),
        }
    }

    fn of_unit(
        kind: EventKind,
        unit: &UnitName,
        machine: Option<&MachineId>,
        why: impl Into<String>,
    ) -> Event {
        Event {
            kind,
            unit: Some(unit.clone()),
            machine: machine.cloned(),
            from: None,
            why: why.into(),
        }
    }
}

/// `events/<writer>/<slot>`: what one transaction of a writer was about, or a part of that.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EventsRecord {
    /// How many documents its writer had written before. What is left of the division by the size of
    /// the ring is the slot.
    pub number: u64,
    /// When, by the clock of its writer.
    pub at_ms: u64,
    /// Who: a machine's id, `uid 0`, an address.
    pub by: String,
    /// The place of the first event among those of its transaction: with the revision it names them.
    pub first: u32,
    /// The events.
    pub events: Vec<Event>,
    /// So many more of the same transaction had no room.
    pub left_out: u32,
}

/// What the writes of a plan for one unit tell. `before`: its placement before the plan.
pub fn of_unit(unit: &UnitName, before: Option<&PlacementRecord>, writes: &[Write]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut placement = None;
    let mut is_removed = false;
    for write in writes {
        if let Write::Placement(_, record) = write {
            placement = record.as_ref();
            is_removed = record.is_none();
        }
    }
    let was_on = before.and_then(|before| before.machine.as_ref().or(before.leaving.as_ref()));
    let is_on = placement.or(before).and_then(|now| now.machine.as_ref());
    let mut is_told = is_removed;
    for write in writes {
        let Write::Assignment(machine, _, Some(assignment)) = write else {
            continue;
        };
        let is_wanted = assignment.order != Order::Gone;
        match (is_on, was_on) {
            // A global unit: each of its machines for itself.
            (None, None) => {
                let kind = match is_wanted {
                    true => EventKind::Placed,
                    false => EventKind::Unplaced,
                };
                events.push(Event::of_unit(
                    kind,
                    unit,
                    Some(machine),
                    &*assignment.reason,
                ));
                is_told = true;
            }
            // A new order for where it is: its machine will tell what became of it.
            (Some(on), Some(from)) if is_wanted && machine == on && on == from => {
                is_told = before.is_some_and(|before| before.machine.is_some());
            }
            _ => {}
        }
    }
    let (Some(now), false) = (placement, is_told) else {
        return events;
    };
    let changed = before.is_none_or(|before| before.reason != now.reason);
    let was_placed = before.is_some_and(|before| before.machine.is_some());
    let is_global = now.machine.is_none() && now.leaving.is_none() && now.assigned > 0;
    let kind = match (&now.machine, was_on) {
        (Some(on), Some(from)) if on == from && was_placed => changed.then_some(EventKind::Kept),
        (Some(on), Some(from)) if on != from => Some(EventKind::Moved),
        (Some(_), _) => Some(EventKind::Placed),
        (None, _) if is_global => None,
        (None, _) if !now.refusals.is_empty() => {
            // Only that it has begun to wait: the numbers change with each machine.
            let waited = before.is_some_and(|b| b.machine.is_none() && !b.refusals.is_empty());
            (!waited).then_some(EventKind::Pending)
        }
        (None, _) if was_placed => Some(EventKind::Unplaced),
        (None, _) => (before.is_none()).then_some(EventKind::Pending),
    };
    let from = was_on.filter(|from| Some(*from) != now.machine.as_ref());
    events.extend(kind.map(|kind| Event {
        from: from.cloned(),
        ..Event::of_unit(kind, unit, now.machine.as_ref(), &*now.reason)
    }));
    events
}

/// What a machine's new membership record tells. `words`: why a machine is avoided or trusted again.
pub fn of_member(
    machine: &MachineId,
    before: Option<&MemberRecord>,
    now: &MemberRecord,
    words: &str,
) -> Option<Event> {
    let was_avoided = before.is_some_and(|before| before.avoided.is_some());
    let of = |kind, why: &str| Some(Event::of_machine(kind, machine.clone(), why));
    match (was_avoided, &now.avoided) {
        (false, Some(avoided)) => return of(EventKind::Avoided, &avoided.why),
        (true, None) => return of(EventKind::Trusted, words),
        _ => {}
    }
    // Also: that a machine that is suspect is not given up.
    let is_new = before.is_none_or(|before| {
        before.status != now.status
            || before.reason != now.reason && now.status != MemberStatus::Present
    });
    let kind = match now.status {
        MemberStatus::Present => EventKind::Present,
        MemberStatus::Suspect => EventKind::Suspect,
        MemberStatus::Lost => EventKind::Lost,
        MemberStatus::Unsupervised => EventKind::Unsupervised,
        MemberStatus::Retired => EventKind::Retired,
    };
    is_new.then(|| of(kind, &now.reason)).flatten()
}

/// What a machine's new word on a unit tells, if that is more than a step on the way. `before`: its
/// word before. `reason`: why the unit is there. The machine is not named: it is who tells it.
pub fn of_state(
    unit: &UnitName,
    before: Option<&StateRecord>,
    now: &StateRecord,
    reason: &str,
) -> Option<Event> {
    let ran = before.is_some_and(is_up);
    let is_new_run = !now.invocation_id.is_empty()
        && before.is_none_or(|before| before.invocation_id != now.invocation_id);
    let why = now.why.as_deref().unwrap_or_default();
    let (kind, why) = match now.active.as_str() {
        _ if now.reached == Reached::Refused => {
            let is_new = before.is_none_or(|b| b.reached != now.reached || b.why != now.why);
            is_new.then_some((EventKind::Refused, why))?
        }
        "failed" => {
            let is_new = before.is_none_or(|before| before.active != "failed") || is_new_run;
            is_new.then_some((EventKind::Failed, why))?
        }
        // It is being stopped; that it ran is told when it has ended.
        "deactivating" => return None,
        _ if is_up(now) => {
            // systemd, or somebody there, has started it: no order has.
            let again = before.is_some_and(|before| {
                before.reached == Reached::Launched && before.decision == now.decision
            });
            let why = if again {
                "it was started there again"
            } else {
                reason
            };
            (is_new_run || !ran).then_some((EventKind::Started, why))?
        }
        "inactive" if ran => (EventKind::Stopped, stopped_by(now, reason)),
        "inactive" if now.reached == Reached::Launched => {
            let began = before.is_some_and(|before| before.active == "activating");
            (began || is_new_run).then_some((EventKind::Finished, why))?
        }
        _ => return None,
    };
    Some(Event::of_unit(kind, unit, None, why))
}

/// Whether its process runs. One that is being stopped has not stopped yet.
fn is_up(state: &StateRecord) -> bool {
    let active = state.active.as_str();
    matches!(active, "active" | "reloading" | "deactivating")
}

fn stopped_by<'a>(now: &StateRecord, reason: &'a str) -> &'a str {
    match now.reached {
        Reached::Launched => "it ended by itself",
        Reached::Gone => reason,
        _ => "by order",
    }
}

/// What a new version of a wish tells. `before`: the version that it replaces, unless that was
/// destroyed.
pub fn of_wish(unit: &UnitName, before: Option<&UnitRecord>, now: &UnitRecord) -> Event {
    let wish = now.desired.as_str();
    let why = match before {
        _ if now.desired == DesiredState::Destroyed => String::new(),
        None => format!("a new unit, to be {wish}"),
        Some(before) if before.hash != now.hash => format!("new contents, to be {wish}"),
        Some(before) if before.restarts != now.restarts => "to be restarted".to_owned(),
        Some(before) if before.desired != now.desired => {
            format!("to be {wish}, was {}", before.desired.as_str())
        }
        Some(_) => format!("to be {wish}, once more"),
    };
    let kind = match now.desired {
        DesiredState::Destroyed => EventKind::Destroyed,
        _ => EventKind::Submitted,
    };
    Event::of_unit(kind, unit, None, why)
}

/// What somebody asks of the cluster as a whole.
pub fn of_cluster_wish(why: &str) -> Event {
    Event {
        kind: EventKind::Asked,
        unit: None,
        machine: None,
        from: None,
        why: why.to_owned(),
    }
}

/// What somebody asks of a machine.
pub fn of_machine_wish(machine: &MachineId, before: &MachineWish, now: &MachineWish) -> Event {
    let mut words: Vec<String> = Vec::new();
    let mut say = |is_new: bool, word: &str| {
        if is_new {
            words.push(word.to_owned());
        }
    };
    say(now.drain && !before.drain, "to be drained");
    say(!now.drain && before.drain, "to be drained no more");
    say(now.cordon && !before.cordon, "to take no new units");
    say(!now.cordon && before.cordon, "to take new units");
    say(now.opened != before.opened, "to be trusted again");
    let is_other_pace = now.max_parallel != before.max_parallel && now.drain && before.drain;
    say(is_other_pace, "to be drained at another pace");
    for (key, value) in &now.metadata {
        if before.metadata.get(key) != Some(value) {
            words.push(format!("metadata {key}={value}"));
        }
    }
    for key in before.metadata.keys() {
        if !now.metadata.contains_key(key) {
            words.push(format!("metadata {key} as configured"));
        }
    }
    Event::of_machine(EventKind::Asked, machine.clone(), words.join(", "))
}

#[cfg(test)]
mod tests;
