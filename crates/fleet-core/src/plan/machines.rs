//! Who is in the cluster: present, suspect, lost; and what that means for units.

use super::avoided::Trusted;
use super::{Change, Planner, Subject, Write};
use crate::cluster::{Freeze, Timer};
use crate::events;
use crate::records::{MachineId, MachineRecord, MemberRecord, MemberStatus};
use crate::schedule::closed_because;

/// Why a machine is away that said so before.
const SHUT_DOWN: &str = "it was shut down";

/// How a machine's status came about: the status and the reason for people.
type Standing = (MemberStatus, String);

impl Planner<'_> {
    pub(crate) fn review_machines(&mut self) {
        if self.cluster.marks.machines.is_empty() {
            return;
        }
        let mut marked = std::mem::take(&mut self.cluster.marks.machines);
        // First who has vanished, then who is lost: a machine whose grace ends now is judged
        // knowing all that have vanished with it.
        for id in &marked {
            if let Some(machine) = self.cluster.machines.get_mut(id)
                && machine.is_absent()
                && machine.vanished_at.is_none()
            {
                machine.vanished_at = Some(self.now.monotonic_ms);
                machine.vanished_unix_ms = self.now.unix_ms;
            }
        }
        for id in &marked {
            self.cluster.call(id);
        }
        if self.cluster.freeze.is_some() {
            // Whoever comes or goes may end the freeze for all.
            marked.extend(self.cluster.roll.waiting().cloned());
        }
        self.update_freeze();
        for id in &marked {
            self.review_machine(id);
        }
        // Only now, so that all of them are judged by the same roll.
        for id in &marked {
            self.cluster.call(id);
        }
        let impatient = std::mem::take(&mut self.cluster.impatient);
        self.cluster.marks.units.extend(impatient);
    }

    /// Begins or ends the freeze.
    fn update_freeze(&mut self) {
        let now_ms = self.now.monotonic_ms;
        let settings = &self.cluster.settings;
        let roll = &self.cluster.roll;
        let too_many = roll.waiting_since().any(|at| {
            at.saturating_add(settings.lost_after_ms) <= now_ms && roll.too_many_at(at, settings)
        });
        let until = now_ms.saturating_add(settings.freeze_for_ms);
        self.cluster.freeze = match self.cluster.freeze {
            Some(thawed) if thawed.until == 0 && planted!("a thaw lasts for ever") => Some(thawed),
            _ if !too_many => None,
            Some(freeze) => Some(freeze),
            None => Some(Freeze { until }),
        };
    }

    /// Whether nothing is moved off a machine that vanished then, because too many others did.
    fn frozen_until(&self, vanished_at: u64) -> Option<u64> {
        let until = self.cluster.freeze?.until;
        if planted!("a failure of most machines is believed") {
            return None;
        }
        (self.now.monotonic_ms < until && self.too_many_at(vanished_at)).then_some(until)
    }

    /// Whether a unit that bears less absence than others has to bear it all the same.
    pub(crate) fn is_frozen_since(&self, vanished_at: u64) -> bool {
        let expired = self
            .cluster
            .freeze
            .is_some_and(|freeze| freeze.until <= self.now.monotonic_ms);
        !expired && self.too_many_at(vanished_at)
    }

    fn too_many_at(&self, vanished_at: u64) -> bool {
        let roll = &self.cluster.roll;
        roll.too_many_at(vanished_at, &self.cluster.settings)
    }

    fn review_machine(&mut self, id: &MachineId) {
        if self.cluster.machines.get(id).is_none_or(|m| m.is_void()) {
            self.cluster.machines.remove(id);
            self.cluster.doubters.remove(id);
            return;
        }
        let (status, reason) = self.standing(id);
        let Some(machine) = self.cluster.machines.get_mut(id) else {
            return;
        };
        let old_status = std::mem::replace(&mut machine.status, status);
        let recorded = machine.member.as_ref().map(|member| member.status);
        if status == MemberStatus::Lost && recorded != Some(MemberStatus::Lost) {
            machine.given_up = true;
        }
        let trusted = self.review_avoided(id);
        let Some(machine) = self.cluster.machines.get_mut(id) else {
            return;
        };
        let left_for = machine.left_for_now();
        let drain_changed = std::mem::replace(&mut machine.left_for, left_for) != left_for;
        let known = machine.presence.as_ref().map(|presence| &presence.metadata);
        let own = known.or(machine.member.as_ref().map(|member| &member.metadata));
        let metadata = own.map(|own| machine.wish.merged(own)).unwrap_or_default();
        let metadata_changed = metadata != machine.metadata;
        let old_metadata = std::mem::replace(&mut machine.metadata, metadata.clone());
        let is_open = closed_because(machine).is_none();
        let was_open = std::mem::replace(&mut machine.open, is_open);
        let old_score = machine.score(id);
        machine.comes_last = machine.avoided.is_some();
        let score = machine.score(id);
        let rank_changed = score != old_score;
        if !machine.is_absent() {
            machine.vanished_at = None;
            machine.given_up = false;
            machine.thawed = false;
        }
        if was_open && (!is_open || metadata_changed || rank_changed) {
            self.cluster.open.remove(&old_score, &old_metadata);
        }
        if is_open && was_open && rank_changed && !metadata_changed {
            // It comes sooner or later in its turn; nobody has waited for that.
            self.cluster.open.insert(&score, &metadata);
        }
        if is_open && (!was_open || metadata_changed) {
            self.cluster.open.insert(&score, &metadata);
            for unit in self.cluster.waiting.for_machine(id, &metadata) {
                let machines = self.cluster.marks.peeks.entry(unit.clone()).or_default();
                machines.insert(id.clone());
            }
            let for_room = self.cluster.waiting.for_room.iter().cloned();
            self.cluster.marks.units.extend(for_room);
        }
        self.write_member(id, status, reason, trusted);
        self.mark_units_of(id, old_status, drain_changed, metadata_changed);
        if drain_changed {
            self.cluster.drains.remove(id);
        }
        if old_status != status || was_open != is_open || metadata_changed || drain_changed {
            self.cluster.explain.all = true;
            self.cluster.look_at_globals_of(id);
        }
    }

    /// Marks the units of a machine that its change concerns.
    fn mark_units_of(
        &mut self,
        id: &MachineId,
        before: MemberStatus,
        drain_changed: bool,
        metadata_changed: bool,
    ) {
        let Some(machine) = self.cluster.machines.get(id) else {
            return;
        };
        if before != machine.status && machine.status == MemberStatus::Present {
            self.cluster.look_at_strays_of(id);
        }
        let Some(machine) = self.cluster.machines.get(id) else {
            return;
        };
        let status_counts = before != machine.status && {
            // That a machine is suspect moves nothing, except units with a grace of their own.
            !matches!(
                (before, machine.status),
                (
                    MemberStatus::Present | MemberStatus::Unsupervised,
                    MemberStatus::Suspect
                )
            )
        };
        if status_counts || drain_changed {
            let units = machine.units.keys().cloned();
            self.cluster.marks.units.extend(units);
            return;
        }
        let became_suspect = before != machine.status && machine.status == MemberStatus::Suspect;
        if !metadata_changed && !became_suspect {
            return;
        }
        for name in machine.units.keys() {
            let unit = self.cluster.units.get(name);
            let Some(wish) = unit.and_then(|unit| unit.wish.as_ref()) else {
                continue;
            };
            if (became_suspect && wish.requirements.lost_after.is_some())
                || (metadata_changed && !wish.requirements.metadata.is_empty())
            {
                self.cluster.marks.units.insert(name.clone());
            }
        }
    }

    /// What the cluster thinks of a machine now.
    fn standing(&mut self, id: &MachineId) -> Standing {
        let (status, mut reason) = self.seen(id);
        let is_away = self.cluster.machines.get(id).is_some_and(|m| m.is_absent());
        let doubted = is_away && self.cluster.doubters.contains(id);
        if doubted && !reason.ends_with(MemberRecord::DOUBTED) {
            // Whoever leads next could not know.
            reason += MemberRecord::DOUBTED;
        }
        (status, reason)
    }

    fn seen(&mut self, id: &MachineId) -> Standing {
        let now_ms = self.now.monotonic_ms;
        let Some(machine) = self.cluster.machines.get(id) else {
            return (MemberStatus::Retired, String::new());
        };
        let recorded = machine.member.as_ref().map(|member| member.status);
        let same = || {
            let reason = machine.member.as_ref().map(|member| member.reason.clone());
            reason.unwrap_or_default()
        };
        if !machine.is_absent() {
            let presence = machine.presence.as_ref();
            if presence.is_some_and(MachineRecord::is_stopped_in_order) {
                return (MemberStatus::Present, MemberRecord::LEAVES.to_owned());
            }
            return match recorded {
                Some(MemberStatus::Present) if same() == MemberRecord::LEAVES => {
                    (MemberStatus::Present, "its fleetd is back".to_owned())
                }
                Some(MemberStatus::Present) => (MemberStatus::Present, same()),
                None => (MemberStatus::Present, "it joined".to_owned()),
                Some(before) => (
                    MemberStatus::Present,
                    format!("it is back, after it was {}", before.as_str()),
                ),
            };
        }
        if machine.was_never_seen() {
            return (MemberStatus::Lost, String::new());
        }
        if machine.has_damaged_member() {
            let reason = "its record cannot be read, so it is left alone";
            return (MemberStatus::Suspect, reason.to_owned());
        }
        match recorded {
            Some(status @ (MemberStatus::Lost | MemberStatus::Retired)) => {
                return (status, same());
            }
            Some(MemberStatus::Unsupervised) => return self.unsupervised(id, same()),
            Some(MemberStatus::Present) | None if machine.left_in_order() => {
                let reason = "fleetd was stopped there in order; its units keep running";
                return self.unsupervised(id, reason.to_owned());
            }
            _ => {}
        }
        let vanished_at = machine.vanished_at.unwrap_or(now_ms);
        let due = vanished_at.saturating_add(self.cluster.settings.lost_after_ms);
        if now_ms < due && !planted!("the first machine back gets everything") {
            self.cluster
                .timers
                .insert((due, Timer::Machine(id.clone())));
            let reason = match recorded {
                Some(MemberStatus::Suspect) => same(),
                _ if machine.shut_down => SHUT_DOWN.to_owned(),
                _ => "its lease has ended".to_owned(),
            };
            return (MemberStatus::Suspect, reason);
        }
        if machine.shut_down {
            return (MemberStatus::Lost, SHUT_DOWN.to_owned());
        }
        let thawed = machine.thawed;
        if let Some(until) = self.frozen_until(vanished_at).filter(|_| !thawed) {
            self.cluster
                .timers
                .insert((until, Timer::Machine(id.clone())));
            // Without numbers: they change with each machine that comes or goes.
            let reason = format!(
                "{}: nothing is moved until they are back, for at most {} s",
                MemberRecord::FROZEN,
                self.cluster.settings.freeze_for_ms / 1000
            );
            return (MemberStatus::Suspect, reason);
        }
        let seconds = now_ms.saturating_sub(vanished_at) / 1000;
        (
            MemberStatus::Lost,
            format!("no sign of life for {seconds} s"),
        )
    }

    /// fleetd was stopped there in order; its units run on, and stay placed there for a while.
    fn unsupervised(&mut self, id: &MachineId, reason: String) -> Standing {
        let now_ms = self.now.monotonic_ms;
        let grace_ms = self.cluster.settings.unsupervised_grace_ms;
        let vanished_at = self.cluster.machines.get(id).and_then(|m| m.vanished_at);
        let due = vanished_at.unwrap_or(now_ms).saturating_add(grace_ms);
        if now_ms < due && !planted!("a farewell is a loss") {
            self.cluster
                .timers
                .insert((due, Timer::Machine(id.clone())));
            return (MemberStatus::Unsupervised, reason);
        }
        let seconds = grace_ms / 1000;
        let reason =
            format!("fleetd was stopped there in order, and is not back after {seconds} s");
        (MemberStatus::Lost, reason)
    }

    fn write_member(
        &mut self,
        id: &MachineId,
        status: MemberStatus,
        reason: String,
        trusted: Option<Trusted>,
    ) {
        let unix_ms = self.now.unix_ms;
        let Some(machine) = self.cluster.machines.get_mut(id) else {
            return;
        };
        if machine.has_damaged_member() || machine.was_never_seen() {
            return;
        }
        let old = machine.member.as_ref();
        let record = MemberRecord {
            status,
            since_ms: match old {
                Some(old) if old.status == status => old.since_ms,
                _ => unix_ms,
            },
            first_seen_ms: old.map_or(unix_ms, |old| old.first_seen_ms),
            public_ip: match (&machine.presence, old) {
                (Some(presence), _) => presence.public_ip.clone(),
                (None, Some(old)) => old.public_ip.clone(),
                (None, None) => String::new(),
            },
            metadata: match (&machine.presence, old) {
                (Some(presence), _) => presence.metadata.clone(),
                (None, Some(old)) => old.metadata.clone(),
                (None, None) => Default::default(),
            },
            reason: reason.clone(),
            avoided: machine.avoided.clone(),
        };
        if old == Some(&record) {
            return;
        }
        let words = match (old.and_then(|old| old.avoided.as_ref()), &record.avoided) {
            (None, Some(avoided)) => format!("avoided: {}", avoided.why),
            (Some(_), None) => trusted.map(|trusted| trusted.words()).unwrap_or_default(),
            _ => format!("{}: {reason}", status.as_str()),
        };
        let event = events::of_member(id, old, &record, &words);
        machine.member = Some(record.clone());
        self.machine_changes.push(Change {
            subject: Subject::Machine(id.clone()),
            writes: vec![Write::Member(id.clone(), record)],
            reason: words,
            while_absent: match status == MemberStatus::Lost && machine.is_absent() {
                true => vec![id.clone()],
                false => Vec::new(),
            },
            events: event.into_iter().collect(),
        });
    }
}
