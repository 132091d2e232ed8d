//! What must hold at every step: at each transaction in the store, and at each job that a
//! simulated systemd is asked for.

mod exclusive;
mod failures;
mod moves;
mod names;
mod restored;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_core::hash::UnitHash;
use fleet_core::records::{
    AssignmentRecord, Decision, DesiredState, MachineId, MachineRecord, MachineWish, MemberRecord,
    MemberStatus, Order, PlacementRecord, Reached, StateRecord, UnitRecord,
};
use fleetd::store::codec::{AskedRecord, Document, LeaderRecord};
use fleetd::store::keys::{self, EventWriter, Key};
use fleetd::store::{Entry, Event, Op, Revision, Txn};
use tokio::time::Instant;

use crate::chance::{Sim, lock};
use crate::scenario::Graces;
pub use failures::is_moving;
use failures::{Before, Failing};
use moves::Told;
pub use names::{is_global, is_patient, is_plain, moves_when_it_fails, only_moves};
use restored::Restored;

/// A start that was decided while presence was certain may reach systemd so much later.
const START_SLACK: Duration = Duration::from_millis(500);

/// What was on its way to systemd when fleetd was halted reaches it so soon after that.
const WAKING: Duration = Duration::from_millis(20);

/// News of a machine's return may reach the leader so much later.
const NEWS: Duration = Duration::from_secs(4);

/// Who writes, as it stood when the transaction arrived.
pub struct Writer {
    machine: String,
    leads: bool,
    is_present: bool,
    knows: Absences,
}

/// Which machines somebody has heard to be absent, and when.
pub type Absences = BTreeMap<String, Instant>;

impl Writer {
    /// `before`: the leader's key and the writer's own presence, as far as they were there.
    pub fn of(machine: &str, before: &[Entry], knows: Absences) -> Writer {
        let leads = before.iter().any(|entry| {
            entry.key == keys::LEADER
                && LeaderRecord::decode(&entry.key, &entry.value)
                    .is_ok_and(|leader| leader.machine.as_str() == machine)
        });
        Writer {
            machine: machine.to_owned(),
            leads,
            is_present: before.iter().any(|entry| entry.key != keys::LEADER),
            knows,
        }
    }
}

/// A unit that runs, as it was started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    pub since: Instant,
    pub decision: Decision,
    pub hash: UnitHash,
    pub restarts: u64,
    /// It was wanted elsewhere, too: a handover.
    pub is_superseded: bool,
}

/// The witness.
pub struct Audit {
    sim: Arc<Sim>,
    graces: Graces,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Every version of every assignment, by machine and unit.
    assigned: BTreeMap<(String, String), Vec<AssignmentRecord>>,
    /// The assignments that stand, by unit and machine.
    standing: BTreeMap<String, BTreeMap<String, AssignmentRecord>>,
    /// The machines that have said that the unit runs there, as they were assigned it.
    arrived: BTreeSet<(String, String)>,
    /// The contents that run on a machine, as it has said last, assigned or not.
    runs: BTreeMap<(String, String), UnitHash>,
    placements: BTreeMap<String, PlacementRecord>,
    wishes: BTreeMap<String, Vec<(Revision, UnitRecord)>>,
    members: BTreeMap<String, MemberRecord>,
    /// When each machine's presence ended; None: it is present.
    absent_since: BTreeMap<String, Option<Instant>>,
    /// When it came back.
    back_since: BTreeMap<String, Instant>,
    /// When a machine was last given up, or its wish changed.
    upset: BTreeMap<String, Instant>,
    /// Machines that believe until then that they are present, since nature took no part in the
    /// end of their lease.
    deceived_until: BTreeMap<String, Instant>,
    /// When a fleetd that had been halted went on.
    awake_since: BTreeMap<String, Instant>,
    /// The machines on which something of an exclusive unit runs.
    exclusive: BTreeMap<String, BTreeSet<String>>,
    /// The newest revision at which anything but presence and membership was written.
    last_write: Revision,
    /// What each machine was told of the presence of others.
    told: BTreeMap<String, Told>,
    /// What each machine last said of itself.
    said: BTreeMap<String, MachineRecord>,
    /// The machines that are drained; when it ended.
    drained: BTreeMap<String, Option<Instant>>,
    /// When somebody ended a freeze.
    thawed: Option<Instant>,
    /// The machines that somebody has given up since they were recorded as frozen.
    thawed_machines: BTreeSet<String>,
    /// Where each unit is active now.
    up: BTreeMap<String, BTreeSet<String>>,
    /// What was ordered before an old backup was restored.
    past: BTreeMap<(String, String), Vec<AssignmentRecord>>,
    restored: Option<Restored>,
    /// Where each machine last left its mark.
    marked: BTreeMap<String, Revision>,
    /// As far as it knows: the answer may have been lost.
    known_marks: BTreeMap<String, Revision>,
    /// The newest decision at which each unit was active, by unit and machine.
    was_up: BTreeMap<(String, String), Decision>,
    failing: Failing,
}

impl Seen {
    /// Everything that was ever ordered of a unit on a machine.
    fn orders(&self, key: &(String, String)) -> impl Iterator<Item = &AssignmentRecord> {
        let past = self.past.get(key).into_iter().flatten();
        past.chain(self.assigned.get(key).into_iter().flatten())
    }
}

impl Audit {
    pub fn new(sim: &Arc<Sim>, graces: Graces) -> Audit {
        Audit {
            sim: Arc::clone(sim),
            graces,
            seen: Mutex::default(),
        }
    }

    /// The newest revision at which anything but presence and membership was written.
    pub fn last_write(&self) -> Revision {
        lock(&self.seen).last_write
    }

    /// The machine's lease is ended though it was kept alive, or it is kept alive in another store.
    pub fn deceives(&self, machine: &str) {
        let until = Instant::now() + fleetd::config::DEFAULT_AGENT_TTL;
        lock(&self.seen)
            .deceived_until
            .insert(machine.to_owned(), until);
    }

    /// A fleetd that stood still goes on.
    pub fn goes_on(&self, machine: &str) {
        let awake_since = &mut lock(&self.seen).awake_since;
        awake_since.insert(machine.to_owned(), Instant::now());
    }

    /// Somebody ends the freeze.
    pub fn thaws(&self) {
        lock(&self.seen).thawed = Some(Instant::now());
    }

    /// As [`Audit::deceives`], for all machines.
    pub fn deceives_all(&self) {
        let machines: Vec<String> = lock(&self.seen).members.keys().cloned().collect();
        for machine in machines {
            self.deceives(&machine);
        }
    }

    /// A transaction was carried out.
    pub fn committed(&self, writer: &Writer, txn: &Txn, revision: Revision) {
        let mut seen = lock(&self.seen);
        let mut touched = Vec::new();
        let mut left = Vec::new();
        let before = self.before(&seen, txn);
        let avoided = seen
            .members
            .iter()
            .filter(|(_, member)| member.avoided.is_some());
        let was_avoided = avoided.map(|(machine, _)| machine.clone()).collect();
        for op in &txn.ops {
            let (key, value) = match op {
                Op::Put { key, value, .. } => (key, Some(value)),
                Op::Delete { key } => (key, None),
            };
            let parsed = keys::parse(key);
            let by = writer.machine.get(..8).unwrap_or_default();
            let fence = match parsed {
                Key::Placement(_) | Key::Assignment(..) | Key::Member(_) => writer.leads,
                Key::Unit(_) if value.is_none_or(|value| is_buried(key, value)) => writer.leads,
                // With its assignment.
                Key::State(..) if value.is_none() && writer.leads => true,
                Key::State(_, machine) => writer.is_present && machine == writer.machine,
                Key::Event(EventWriter::Engine, _) => writer.leads,
                Key::Event(EventWriter::Agent(machine), _) => {
                    writer.is_present && machine == writer.machine
                }
                Key::Event(EventWriter::Api(machine), _) => machine == writer.machine,
                _ => true,
            };
            if !fence {
                self.sim.fail(format!("{by} wrote {key} at {revision}, which was not its to write: it was deposed, or absent"));
            }
            if !matches!(parsed, Key::Machine(_) | Key::Leader | Key::Event(..))
                && !only_avoided(&seen, key, value)
            {
                seen.last_write = revision;
            }
            let what = value.map_or("removed".into(), |value| String::from_utf8_lossy(value));
            self.sim
                .note("commit", format_args!("@{revision} {by} {key} {what}"));
            match (parsed, value) {
                (Key::Assignment(machine, unit), value) => {
                    touched.push(unit.to_owned());
                    let record = value.and_then(|v| AssignmentRecord::decode(key, v).ok());
                    let is_wanted = |r: &AssignmentRecord| r.order != Order::Gone;
                    if !record.as_ref().is_some_and(is_wanted) {
                        let place = (unit.to_owned(), machine.to_owned());
                        left.extend(seen.arrived.take(&place));
                    }
                    let had = before.get(unit).cloned().unwrap_or_default();
                    self.assigned(&mut seen, machine, unit, record, &had, revision);
                }
                (Key::Placement(unit), Some(value)) => {
                    touched.push(unit.to_owned());
                    if let Ok(record) = PlacementRecord::decode(key, value) {
                        seen.placements.insert(unit.to_owned(), record);
                    }
                }
                (Key::Placement(unit), None) => {
                    seen.placements.remove(unit);
                }
                (Key::Unit(unit), Some(value)) => {
                    if let Ok(record) = UnitRecord::decode(key, value)
                        && !record.buried
                    {
                        let wishes = seen.wishes.entry(unit.to_owned()).or_default();
                        wishes.push((revision, record));
                    }
                }
                (Key::Member(machine), Some(value)) => {
                    if let Ok(record) = MemberRecord::decode(key, value) {
                        self.member(&mut seen, machine, record, writer);
                    }
                }
                (Key::State(unit, machine), Some(value)) => {
                    let state = StateRecord::decode(key, value).ok();
                    if state
                        .as_ref()
                        .is_some_and(|s| s.reached == Reached::Refused)
                    {
                        seen.failing.refused(unit, machine);
                    }
                    let ran = state
                        .as_ref()
                        .is_some_and(|s| s.reached == Reached::Launched && s.active == "active");
                    let place = (unit.to_owned(), machine.to_owned());
                    match state.as_ref().filter(|_| ran) {
                        Some(state) => seen.runs.insert(place, state.hash),
                        None => seen.runs.remove(&place),
                    };
                    let standing = seen.standing.get(unit).and_then(|at| at.get(machine));
                    if ran && standing.is_some_and(|record| record.order == Order::Launched) {
                        seen.arrived.insert((unit.to_owned(), machine.to_owned()));
                    }
                }
                (Key::MachineWish(machine), value) => {
                    let now = Instant::now();
                    seen.upset.insert(machine.to_owned(), now);
                    let wish = value.and_then(|value| MachineWish::decode(key, value).ok());
                    seen.failing.wished(machine, wish.as_ref());
                    if wish.is_some_and(|wish| wish.drain) {
                        seen.drained.insert(machine.to_owned(), None);
                    } else if let Some(until) = seen.drained.get_mut(machine) {
                        until.get_or_insert(now);
                    }
                }
                (Key::Mark(machine), Some(_)) => {
                    seen.marked.insert(machine.to_owned(), revision);
                }
                (Key::AcceptStore, Some(_)) => {
                    if let Some(restored) = &mut seen.restored {
                        restored.accepted = true;
                    }
                }
                (Key::Thaw, value) => {
                    seen.thawed = Some(Instant::now());
                    let asked = value.and_then(|value| AskedRecord::decode(key, value).ok());
                    let machines = asked.map(|asked| asked.machines).unwrap_or_default();
                    let ids = machines.iter().map(|id| id.as_str().to_owned());
                    seen.thawed_machines = ids.collect();
                }
                _ => {}
            }
        }
        told::check(&self.sim, txn, revision);
        self.check_arrivals(&mut seen, &before, &was_avoided);
        for unit in touched {
            self.check_copies(&seen, &unit);
        }
        for (unit, machine) in left {
            self.check_move(&seen, &before, &unit, &machine);
        }
    }

    /// What changes nothing but its place leaves a machine only when it has arrived elsewhere.
    fn check_move(&self, seen: &Seen, before: &Before, unit: &str, from: &str) {
        let gone = seen.absent_since.get(from).copied().flatten();
        let back = seen.back_since.get(from);
        let is_away = gone.is_some() || back.is_some_and(|back| back.elapsed() < NEWS);
        if !only_moves(unit) || is_away {
            return;
        }
        let standing = seen.standing.get(unit).into_iter().flatten();
        // Its user may have had it stopped meanwhile.
        let had = before.get(unit).and_then(|before| before.get(from));
        let wishes = seen.wishes.get(unit).map(Vec::as_slice).unwrap_or_default();
        let was_stopped = wishes.iter().any(|(generation, wish)| {
            wish.desired != DesiredState::Launched
                && had.is_some_and(|had| *generation > had.decision.generation)
        });
        if was_stopped {
            return;
        }
        let mut wanted = standing
            .filter(|(_, record)| record.order == Order::Launched)
            .map(|(machine, record)| ((unit.to_owned(), machine.clone()), record.hash))
            .peekable();
        // A copy of before a backup may run where it is sent: that has said so before it was.
        let is_there = |(place, hash)| {
            seen.arrived.contains(&place) || seen.runs.get(&place).is_some_and(|runs| *runs == hash)
        };
        if wanted.peek().is_some() && !wanted.any(is_there) {
            self.sim.fail(format!(
                "{unit} was taken from {} before it had arrived elsewhere",
                short(from)
            ));
        }
    }

    fn assigned(
        &self,
        seen: &mut Seen,
        machine: &str,
        unit: &str,
        record: Option<AssignmentRecord>,
        had: &BTreeMap<String, AssignmentRecord>,
        revision: Revision,
    ) {
        if let Some(record) = &record {
            self.check_new_home(seen, machine, unit, record, had);
        }
        let standing = seen.standing.entry(unit.to_owned()).or_default();
        let Some(record) = record else {
            standing.remove(machine);
            if seen.restored.is_some() {
                // What an old backup did not know was told to leave by a number above its own; now
                // that it has, the store's own numbers count again.
                let key = (machine.to_owned(), unit.to_owned());
                let over = seen.assigned.remove(&key).unwrap_or_default();
                seen.past.entry(key).or_default().extend(over);
            }
            return;
        };
        let versions = seen
            .assigned
            .entry((machine.to_owned(), unit.to_owned()))
            .or_default();
        // What was on its way to the store before it was restored carries that one's numbers: whoever
        // is told by them knows the copy for what it is.
        let is_foreign = |version: &&AssignmentRecord| {
            seen.restored.is_some() && version.decision.generation > revision
        };
        let ours = versions.iter().filter(|version| !is_foreign(version));
        if let Some(newest) = ours.map(|version| version.decision).max()
            && record.decision < newest
        {
            self.sim.fail(format!(
                "{unit} on {}: decision {} after {newest}",
                short(machine),
                record.decision
            ));
        }
        versions.push(record.clone());
        standing.insert(machine.to_owned(), record);
    }

    /// At most one machine wants an ordinary unit, or two while it is handed over.
    fn check_copies(&self, seen: &Seen, unit: &str) {
        if is_global(unit) {
            return;
        }
        let Some(standing) = seen.standing.get(unit) else {
            return;
        };
        let wanted: Vec<&String> = standing
            .iter()
            .filter(|(_, record)| record.order != Order::Gone)
            .map(|(machine, _)| machine)
            .collect();
        let leaving = seen
            .placements
            .get(unit)
            .and_then(|placement| placement.leaving.as_ref())
            .map(MachineId::as_str);
        let handed_over = wanted.len() == 2
            && wanted
                .iter()
                .any(|machine| Some(machine.as_str()) == leaving);
        if wanted.len() > 1 && !handed_over {
            self.sim
                .fail(format!("{unit} is wanted on {wanted:?} at once"));
        }
    }

    fn member(&self, seen: &mut Seen, machine: &str, record: MemberRecord, writer: &Writer) {
        let before = seen.members.get(machine).map(|before| before.status);
        if record.status == MemberStatus::Lost && before != Some(MemberStatus::Lost) {
            self.sim
                .note("machine-lost", format_args!("{}", short(machine)));
            seen.upset.insert(machine.to_owned(), Instant::now());
            self.check_loss(seen, machine, writer);
        }
        if record.status == MemberStatus::Present {
            seen.thawed_machines.remove(machine);
        }
        if record.avoided.is_some() {
            self.sim.note("avoided", format_args!("{}", short(machine)));
        }
        seen.members.insert(machine.to_owned(), record);
    }

    /// What there is, when the news of it was lost.
    pub fn presence(&self, entries: &[Entry]) {
        let mut seen = lock(&self.seen);
        let is_there = |machine: &str| {
            let key = keys::machine(machine);
            entries.iter().any(|entry| entry.key == key)
        };
        for (machine, absent_since) in &mut seen.absent_since {
            match is_there(machine) {
                true => *absent_since = None,
                false => {
                    absent_since.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    /// What the store tells everybody.
    pub fn events(&self, events: &[Event]) {
        let mut seen = lock(&self.seen);
        for event in events {
            seen.failing.told(event);
            let (Event::Put(Entry { key, .. }) | Event::Delete { key, .. }) = event;
            let Key::Machine(machine) = keys::parse(key) else {
                continue;
            };
            let machine = machine.to_owned();
            match event {
                Event::Put(entry) => {
                    if let Ok(record) = MachineRecord::decode(&entry.key, &entry.value) {
                        seen.said.insert(machine.clone(), record);
                    }
                    seen.back_since.insert(machine.clone(), Instant::now());
                    seen.absent_since.insert(machine, None)
                }
                Event::Delete { .. } => {
                    self.sim.note("absent", format_args!("{}", short(&machine)));
                    seen.absent_since.insert(machine, Some(Instant::now()))
                }
            };
        }
    }

    /// A systemd is asked to start a unit. Returns whether it is wanted elsewhere, too, or was told
    /// to go before it ran.
    pub fn starts(&self, machine: &str, unit: &str, decision: Decision) -> bool {
        let seen = lock(&self.seen);
        let gone = seen.absent_since.get(machine).copied().flatten();
        let deceived = seen.deceived_until.get(machine).copied();
        let gone = gone.max(deceived.filter(|_| gone.is_some()));
        let awake = seen.awake_since.get(machine);
        let is_waking = awake.is_some_and(|since| since.elapsed() < WAKING);
        if !is_waking && gone.is_some_and(|gone| gone + START_SLACK < Instant::now()) {
            self.sim.fail(format!(
                "{unit} was started on {} at {decision} though its lease had ended",
                short(machine)
            ));
        }
        let key = (machine.to_owned(), unit.to_owned());
        let mut versions = seen.orders(&key);
        let ordered = versions.any(|v| v.decision == decision && v.order == Order::Launched);
        if !ordered {
            self.sim.fail(format!(
                "{unit} was started on {} at {decision}, which nobody ordered",
                short(machine)
            ));
        }
        let mut standing = seen.standing.get(unit).into_iter().flatten();
        standing.any(|(at, record)| {
            record.decision > decision && (at != machine || record.order == Order::Gone)
                || at != machine && record.order != Order::Gone
        })
    }

    /// A systemd is asked to stop or restart what runs.
    pub fn stops(&self, machine: &str, unit: &str, decision: Decision, running: &Running) {
        let seen = lock(&self.seen);
        let key = (machine.to_owned(), unit.to_owned());
        let mut versions = seen.orders(&key);
        let ordered = versions.any(|version| {
            version.decision == decision
                && (version.order != Order::Launched
                    || (version.hash != running.hash && !only_moves(unit))
                    || version.restarts > running.restarts)
        });
        let at = short(machine);
        if !ordered {
            self.sim.fail(format!(
                "{unit} was stopped on {at} at {decision} without a positive record"
            ));
            return;
        }
        if let Some(restored) = &seen.restored {
            // What the right store had ordered may have been on its way.
            let past = seen.past.get(&key).into_iter().flatten();
            let is_past = past.into_iter().any(|order| order.decision == decision);
            if !is_past && restored.protects(&seen, machine, unit, running) {
                self.sim.fail(format!(
                    "{unit} was stopped on {at} at {decision} on the word of an old backup"
                ));
            }
            return;
        }
        if is_plain(unit) && !self.is_asked_for(&seen, machine, unit, decision, running) {
            self.sim.fail(format!(
                "{unit} was stopped on {at} at {decision} though nobody had asked for that, and \
                 its machine had not been given up"
            ));
        }
    }

    /// Whether a user changed what a plain unit is to be, or something happened to its machine.
    fn is_asked_for(
        &self,
        seen: &Seen,
        machine: &str,
        unit: &str,
        decision: Decision,
        running: &Running,
    ) -> bool {
        let upset = seen.upset.get(machine);
        self.by_wish(seen, unit, decision, running)
            || running.is_superseded
            || upset.is_some_and(|at| *at >= running.since)
            || moves::is_left(seen, machine)
    }

    /// Whether a user changed what a unit is to be.
    fn by_wish(&self, seen: &Seen, unit: &str, decision: Decision, running: &Running) -> bool {
        let wishes = seen.wishes.get(unit).map(Vec::as_slice).unwrap_or_default();
        wishes.iter().any(|(generation, wish)| {
            *generation > running.decision.generation
                && *generation <= decision.generation
                && (wish.desired != DesiredState::Launched
                    || wish.hash != running.hash
                    || wish.restarts > running.restarts)
        })
    }

    /// A file is removed or replaced while the unit runs.
    pub fn orphans(&self, machine: &str, unit: &str) {
        self.sim.fail(format!(
            "the file of {unit} was removed on {} while it ran",
            short(machine)
        ));
    }
}

/// A membership record that says only that its machine is avoided, or no longer: time alone may
/// bring that about.
fn only_avoided(seen: &Seen, key: &str, value: Option<&Vec<u8>>) -> bool {
    let Key::Member(machine) = keys::parse(key) else {
        return false;
    };
    let (Some(before), Some(value)) = (seen.members.get(machine), value) else {
        return false;
    };
    MemberRecord::decode(key, value).is_ok_and(|record| {
        let before = MemberRecord {
            avoided: record.avoided.clone(),
            ..before.clone()
        };
        record == before
    })
}

/// A tombstone that the leader has laid to rest.
fn is_buried(key: &str, value: &[u8]) -> bool {
    UnitRecord::decode(key, value).is_ok_and(|record| record.buried)
}

/// The first characters of a machine's id.
pub fn short(machine: &str) -> &str {
    machine.get(..8).unwrap_or(machine)
}
