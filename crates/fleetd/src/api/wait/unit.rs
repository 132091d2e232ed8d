//! The waiting rule: from what the store says of a unit to lines of progress. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet_api::v2::{MachineRef, Progress};
use fleet_core::name::UnitName;
use fleet_core::records::{
    DesiredState, MachineId, PlacementRecord, Reached, StateRecord, UnitRecord,
};
use fleet_core::requirements::Requirements;
use fleet_core::small_map::SmallMap;
use fleet_core::unit_file::UnitFile;

use super::super::v2::{refusals, state_view};
use crate::store::codec::Document;
use crate::store::keys::{self, Key};
use crate::store::{self, Entry};

/// A unit that is waited for.
pub(crate) struct Waited {
    name: Arc<str>,
    /// Its wish must be at least of this generation.
    generation: u64,
    wish: Option<Wish>,
    /// What is wrong with its document.
    damage: Option<String>,
    placement: Option<PlacementRecord>,
    states: SmallMap<String, StateRecord>,
    /// The last refusal of a machine: its state is soon replaced, since the engine takes the
    /// unit away from there.
    refusal: Option<(String, StateRecord)>,
    /// Everything has been read once.
    is_known: bool,
    is_dirty: bool,
    is_final: bool,
    /// The last line about each machine, and about the unit as such.
    said: SmallMap<Option<String>, Progress>,
}

/// What counts of a wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wish {
    generation: u64,
    desired: DesiredState,
    global: bool,
    /// It is moved to another machine when it fails.
    moves: bool,
}

impl Waited {
    pub(crate) fn new(name: &Arc<str>) -> Waited {
        Waited {
            name: Arc::clone(name),
            generation: 0,
            wish: None,
            damage: None,
            placement: None,
            states: SmallMap::default(),
            refusal: None,
            is_known: false,
            is_dirty: false,
            is_final: false,
            said: SmallMap::default(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// A machine was given up, or is back.
    pub(crate) fn machine_changed(&mut self, machine: &str) {
        self.is_dirty |= self.states.get(machine).is_some();
    }

    /// Waits for this generation, or a later one.
    pub(crate) fn at_least(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// Everything that the store has of it has been applied.
    pub(crate) fn is_known(&mut self) {
        self.is_known = true;
        self.is_dirty = true;
    }

    /// There may be something to say.
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_dirty && self.is_known && !self.is_final
    }

    /// All has been said.
    pub(crate) fn is_final(&self) -> bool {
        self.is_final
    }

    /// The machines whose states matter; None if all of them do.
    pub(crate) fn machines(&self) -> Option<impl Iterator<Item = &str>> {
        let is_global = self.wish.is_some_and(|wish| wish.global);
        let placement = self.placement.as_ref();
        // Nowhere, perhaps because machines have refused it.
        let is_pending = placement.is_some_and(|p| p.machine.is_none() && p.leaving.is_none());
        // Whoever still has it, perhaps from an earlier placement.
        let is_destroyed = self
            .wish
            .is_some_and(|wish| wish.desired == DesiredState::Destroyed);
        if is_global || is_pending || is_destroyed {
            return None;
        }
        let machines = placement
            .into_iter()
            .flat_map(|placement| [&placement.machine, &placement.leaving])
            .flatten()
            .map(MachineId::as_str);
        Some(machines)
    }

    /// The machines whose states are known.
    pub(crate) fn known_machines(&self) -> Vec<String> {
        self.states.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Takes in what one of its keys holds; None: it was removed. A damaged placement or state
    /// counts as not there; listings name it.
    pub(crate) fn apply(&mut self, key: &str, entry: Option<&Entry>) {
        if self.is_final {
            return;
        }
        self.is_dirty = true;
        match keys::parse(key) {
            Key::Unit(name) => {
                let wish = entry.map_or(Ok(None), |entry| wish(name, entry));
                self.damage = wish.as_ref().err().map(ToString::to_string);
                self.wish = wish.unwrap_or_default();
            }
            Key::Placement(_) => self.placement = entry.and_then(decoded),
            Key::State(_, machine) => match entry.and_then(decoded::<StateRecord>) {
                Some(state) => {
                    if state.reached == Reached::Refused {
                        self.refusal = Some((machine.to_owned(), state.clone()));
                    }
                    self.states.insert(machine.to_owned(), state);
                }
                None => {
                    self.states.remove(machine);
                }
            },
            _ => {}
        }
    }

    /// Says what is new. Nobody waits for the confirmation of a machine that is lost.
    pub(crate) fn look(&mut self, lost: &BTreeSet<String>, lines: &mut Vec<Progress>) {
        self.is_dirty = false;
        for line in self.lines(lost) {
            let about = line.machine.as_ref().map(|machine| machine.id.clone());
            // One machine at a time carries a unit, so that its lines replace each other.
            let about = about.filter(|_| self.wish.is_some_and(|wish| wish.global));
            if self.said.get(&about) != Some(&line) {
                self.is_final |= line.is_final;
                self.said.insert(about, line.clone());
                lines.push(line);
            }
        }
        if self.is_final {
            // A wait for a thousand units goes on until the last one; of the others it needs no more.
            self.placement = None;
            self.states = SmallMap::default();
            self.refusal = None;
            self.said = SmallMap::default();
        }
    }

    fn lines(&self, lost: &BTreeSet<String>) -> Vec<Progress> {
        if let Some(damage) = &self.damage {
            return vec![self.ended(FAILED, damage)];
        }
        let Some(wish) = self.wish else {
            return vec![self.ended("destroyed", "")];
        };
        if wish.generation < self.generation {
            return vec![self.line("submitted", "the store has not seen this wish yet")];
        }
        match (wish.desired, wish.global) {
            (DesiredState::Destroyed, _) => {
                let reason = "waiting until every machine has stopped it";
                self.leaving(wish, "destroyed", reason, lost)
            }
            (DesiredState::Inactive, _) => self.inactive(wish, lost),
            (DesiredState::Loaded | DesiredState::Launched, true) => self.on_all_machines(wish),
            (DesiredState::Loaded | DesiredState::Launched, false) => vec![self.placed(wish)],
        }
    }

    /// A placement that answers the wish.
    fn decided(&self, wish: Wish) -> Option<&PlacementRecord> {
        self.placement
            .as_ref()
            .filter(|placement| placement.decision.generation >= wish.generation)
    }

    fn inactive(&self, wish: Wish, lost: &BTreeSet<String>) -> Vec<Progress> {
        let Some(placement) = &self.placement else {
            return vec![self.ended("inactive", "")];
        };
        if self.decided(wish).is_none() {
            return vec![self.line("submitted", "waiting for the leader to decide")];
        }
        // The engine removes the placement when every machine has confirmed that it is gone.
        if placement.machine.is_none() && placement.leaving.is_none() && placement.assigned == 0 {
            return vec![self.ended("inactive", &placement.reason)];
        }
        self.leaving(wish, "inactive", &placement.reason, lost)
    }

    /// A line for each machine that still has it. When only machines that are given up have it,
    /// the wait ends as `phase`: they stop it when they are back.
    fn leaving(
        &self,
        wish: Wish,
        phase: &str,
        reason: &str,
        lost: &BTreeSet<String>,
    ) -> Vec<Progress> {
        let left: BTreeSet<&str> = self
            .states
            .iter()
            .filter(|(_, state)| !matches!(state.reached, Reached::Gone | Reached::Refused))
            .map(|(machine, _)| machine.as_str())
            .collect();
        if left.is_empty() {
            return vec![self.line("working", reason)];
        }
        let is_decided = self.placement.is_none() || self.decided(wish).is_some();
        if is_decided && left.iter().all(|machine| lost.contains(*machine)) {
            let machines: Vec<&str> = left.into_iter().collect();
            let lost = match machines.as_slice() {
                [machine] => format!("machine {machine} is lost"),
                _ => format!("machines {} are lost", machines.join(", ")),
            };
            let reason = format!("{lost}: what still runs of it there is stopped at the return");
            return vec![Progress {
                is_final: true,
                ..self.on(phase, &reason, machines[0], None)
            }];
        }
        left.into_iter()
            .map(|machine| self.on("working", reason, machine, self.states.get(machine)))
            .collect()
    }

    fn placed(&self, wish: Wish) -> Progress {
        let Some(placement) = self.decided(wish) else {
            return self.line("submitted", "waiting for the leader to decide");
        };
        let reason = placement.reason.as_str();
        let Some(machine) = &placement.machine else {
            return match &placement.leaving {
                Some(machine) => {
                    let state = self.states.get(machine.as_str());
                    self.on("working", reason, machine.as_str(), state)
                }
                None => self.pending(wish, placement),
            };
        };
        let machine = machine.as_str();
        let state = self
            .states
            .get(machine)
            .filter(|state| state.decision >= placement.decision);
        let Some(state) = state else {
            return self.on("placed", reason, machine, None);
        };
        match outcome(wish.desired, state) {
            Outcome::Working => self.on("working", reason, machine, Some(state)),
            Outcome::Refused => {
                let why = state.why.as_deref().unwrap_or(reason);
                self.on("refused", why, machine, Some(state))
            }
            // The same as the planner moves it for.
            Outcome::Reached(FAILED) if wish.moves && state.active == "failed" => {
                self.failed(placement, machine, state)
            }
            Outcome::Reached(phase) => {
                let reason = state.why.as_deref().unwrap_or(reason);
                Progress {
                    is_final: true,
                    ..self.on(phase, reason, machine, Some(state))
                }
            }
        }
    }

    /// It has failed on a machine, and is moved to another one unless it stays there.
    fn failed(&self, placement: &PlacementRecord, machine: &str, state: &StateRecord) -> Progress {
        let failures = &placement.failures;
        if failures.next_ms == 0 && !failures.stays {
            let reason = "it has failed; waiting for the leader to decide what becomes of it";
            return self.on("working", reason, machine, Some(state));
        }
        let why = state.why.as_deref().unwrap_or_default();
        // What the decision says beyond the failure itself.
        let follows = placement
            .reason
            .split_once(why)
            .map_or("", |(_, rest)| rest);
        let reason = match why {
            "" => placement.reason.clone(),
            why => format!("{why}{follows}"),
        };
        Progress {
            is_final: failures.stays,
            ..self.on(FAILED, &reason, machine, Some(state))
        }
    }

    /// Nowhere to go. A machine may join; but where machines have refused it by themselves, no
    /// requirement will change their minds, and the wait ends.
    fn pending(&self, wish: Wish, placement: &PlacementRecord) -> Progress {
        let refusal = self
            .refusal
            .as_ref()
            .filter(|(_, state)| state.decision.generation >= wish.generation);
        let line = match refusal {
            None => self.line("pending", &placement.reason),
            Some((machine, state)) => Progress {
                is_final: true,
                ..self.on(
                    "refused",
                    state.why.as_deref().unwrap_or(&placement.reason),
                    machine,
                    Some(state),
                )
            },
        };
        Progress {
            refusals: refusals(&placement.refusals),
            considered: placement.considered,
            ..line
        }
    }

    fn on_all_machines(&self, wish: Wish) -> Vec<Progress> {
        let Some(placement) = self.decided(wish) else {
            return vec![self.line("submitted", "waiting for the leader to decide")];
        };
        if placement.assigned == 0 {
            return vec![self.pending(wish, placement)];
        }
        let mut lines = Vec::new();
        let mut n_reached = 0;
        let mut phase = wish.desired.as_str();
        for (machine, state) in &self.states {
            if state.decision.generation < wish.generation || state.reached == Reached::Gone {
                continue;
            }
            let why = state.why.as_deref().unwrap_or_default();
            lines.push(match outcome(wish.desired, state) {
                Outcome::Working => self.on("working", why, machine, Some(state)),
                // The engine takes it away from there, so that it is no longer assigned.
                Outcome::Refused => self.on("refused", why, machine, Some(state)),
                Outcome::Reached(reached) => {
                    n_reached += 1;
                    if reached == FAILED {
                        phase = FAILED;
                    }
                    self.on(reached, why, machine, Some(state))
                }
            });
        }
        if n_reached >= placement.assigned {
            lines.push(self.ended(phase, &placement.reason));
        } else if lines.is_empty() {
            lines.push(self.line("placed", &placement.reason));
        }
        lines
    }

    fn line(&self, phase: &str, reason: &str) -> Progress {
        Progress {
            name: self.name.to_string(),
            phase: phase.to_owned(),
            reason: reason.to_owned(),
            ..Progress::default()
        }
    }

    fn ended(&self, phase: &str, reason: &str) -> Progress {
        Progress {
            is_final: true,
            ..self.line(phase, reason)
        }
    }

    fn on(
        &self,
        phase: &str,
        reason: &str,
        machine: &str,
        state: Option<&StateRecord>,
    ) -> Progress {
        Progress {
            machine: Some(MachineRef {
                id: machine.to_owned(),
                primary_ip: String::new(),
            }),
            state: state.map(|state| state_view(machine.to_owned(), state.clone(), false)),
            ..self.line(phase, reason)
        }
    }
}

/// How far a machine has come with the newest decision.
enum Outcome {
    Working,
    Refused,
    /// As wished, or failed: the phase.
    Reached(&'static str),
}

const FAILED: &str = "failed";

fn outcome(desired: DesiredState, state: &StateRecord) -> Outcome {
    match (state.reached, desired) {
        (Reached::Refused, _) => Outcome::Refused,
        (Reached::Launched, DesiredState::Launched) if has_failed(state) => {
            Outcome::Reached(FAILED)
        }
        (Reached::Launched, DesiredState::Launched) => Outcome::Reached("launched"),
        // What was stopped may be `failed` by the signal that stopped it: it is loaded all the same.
        (Reached::Loaded, DesiredState::Loaded) if !can_run(state) => Outcome::Reached(FAILED),
        (Reached::Loaded, DesiredState::Loaded) => Outcome::Reached("loaded"),
        _ => Outcome::Working,
    }
}

fn has_failed(state: &StateRecord) -> bool {
    let is_up = matches!(state.active.as_str(), "active" | "activating" | "reloading");
    state.active == "failed" || !can_run(state) || (state.why.is_some() && !is_up)
}

fn can_run(state: &StateRecord) -> bool {
    !matches!(state.load.as_str(), "bad-setting" | "error" | "not-found")
}

/// What is wished; None: nothing is left of the unit.
fn wish(name: &str, entry: &Entry) -> Result<Option<Wish>, store::Error> {
    let record = UnitRecord::decode(&entry.key, &entry.value)?;
    if record.buried {
        return Ok(None);
    }
    let file = UnitFile::parse(record.text.as_bytes());
    let name = UnitName::parse(name).ok();
    let needs = file.map(|file| Requirements::parse(&file, name.as_ref()).0);
    let needs = needs.unwrap_or_default();
    Ok(Some(Wish {
        generation: entry.mod_revision,
        desired: record.desired,
        global: needs.global,
        moves: needs.reschedule_on_failure > 0 && !needs.global,
    }))
}

fn decoded<T: Document>(entry: &Entry) -> Option<T> {
    T::decode(&entry.key, &entry.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait for thousands of units goes on until the last one: the others must not be kept.
    #[test]
    fn of_what_is_final_nothing_is_kept_and_nothing_is_taken_in() {
        let name = "a.service";
        let mut waited = Waited::new(&name.into());
        waited.is_known();
        let mut lines = Vec::new();
        waited.look(&BTreeSet::new(), &mut lines);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(waited.is_final() && lines[0].is_final);
        assert!(waited.said.is_empty());

        waited.apply(&keys::unit(name), None);
        assert!(!waited.is_dirty);
    }
}
