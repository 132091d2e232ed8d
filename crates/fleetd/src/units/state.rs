//! What the systemd driver knows, shared by the task that reads signals and those that work.
//!
//! Signals and answers carry their position in the stream of messages, so that an answer which
//! was overtaken by a signal does not put back an old state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::agent::{Attempt, LaunchRecord, Observed, Phase, Task, TaskKind, Working};
use fleet_core::name::UnitName;
use fleet_core::records::Decision;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use zbus::message::Sequence;

use super::dbus::{CallError, Manager, Row, Signal, unit_object};
use super::noise::Listener;
use crate::clock;

/// A unit that systemd restarts again and again is looked into this often.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(5);

/// A failed attempt is repeated after this, then twice as long each time…
const FIRST_ATTEMPT_PAUSE: Duration = Duration::from_millis(250);
/// … up to this: what has not passed by then needs a person, who should see it go on soon.
const LAST_ATTEMPT_PAUSE: Duration = Duration::from_secs(30);
/// 250 ms doubled so often is beyond the longest pause.
const MAX_DOUBLINGS: u32 = 10;

/// The driver's memory.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Something has changed for the agent.
    pub(crate) changed: Notify,
    /// Tasks are queued, or systemd can be reached again.
    pub(crate) work: Notify,
    /// Everything must be looked at anew.
    pub(crate) resync: Notify,
    /// The lease of the exclusive units is to be looked at.
    pub(crate) lease: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// As [`Shared::lease`].
    lease: Arc<Notify>,
    pub(crate) units: BTreeMap<UnitName, Entry>,
    /// What is in the directories is among them.
    pub(crate) scanned: bool,
    /// systemd's object paths of these units.
    paths: HashMap<String, UnitName>,
    /// Changed since the agent last asked.
    pub(crate) changed: BTreeSet<UnitName>,
    pub(crate) everything_changed: bool,
    /// Tasks not yet begun: at most a few of each unit, since a working unit takes none.
    pub(crate) queue: Vec<(u64, Task)>,
    /// Present while systemd can be reached and everything has been looked at.
    pub(crate) manager: Option<Manager>,
    pub(crate) trouble: Option<String>,
    /// The agent knows of the present trouble.
    trouble_told: bool,
    reloading: bool,
    /// By unit; one of them as a rule.
    waiters: HashMap<UnitName, Vec<Waiter>>,
    next_id: u64,
}

impl Default for Shared {
    fn default() -> Self {
        let lease = Arc::new(Notify::new());
        Shared {
            state: Mutex::new(State::new(Arc::clone(&lease))),
            changed: Notify::new(),
            work: Notify::new(),
            resync: Notify::new(),
            lease,
        }
    }
}

impl State {
    fn new(lease: Arc<Notify>) -> Self {
        State {
            lease,
            units: BTreeMap::new(),
            scanned: false,
            paths: HashMap::new(),
            changed: BTreeSet::new(),
            everything_changed: false,
            queue: Vec::new(),
            manager: None,
            trouble_told: false,
            trouble: Some("systemd has not been reached yet".to_owned()),
            reloading: false,
            waiters: HashMap::new(),
            next_id: 0,
        }
    }
}

/// One unit.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) observed: Observed,
    /// The message that told its state.
    position: Option<Sequence>,
    /// Its description was asked for since the last start began.
    is_described: bool,
    /// Its file has `[Install]` options.
    pub(crate) install: bool,
    /// systemd calls it started before its program has begun.
    pub(crate) simple: bool,
    /// An exclusive unit that was started under the lease, and whose end has not been looked into.
    pub(crate) leased: bool,
    /// When it was seen to go down, in time since boot.
    pub(crate) down_at: Option<Duration>,
    /// The task in flight; an overtaken one has another id and no more say.
    pub(crate) work_id: u64,
    /// Held by whoever asks systemd to start or stop it: an overtaken start that looks whether it
    /// still counts, and then asks, must not ask behind the stop.
    pub(crate) asking: Arc<tokio::sync::Mutex<()>>,
    /// Its main process, if systemd's signals have told it since the last start began; 0: it has none any
    /// more.
    pub(crate) main_pid: Option<u32>,
    /// Told when the unit runs no more, by whoever waits for it to settle.
    pub(crate) settling: Option<oneshot::Sender<()>>,
    /// The invocation whose failure is known or being looked up.
    pub(crate) looked_up: Option<String>,
    /// The newest look-up of a failure; what an overtaken one finds is of an earlier start.
    pub(crate) look_up_id: u64,
    /// The look-up with which the turn began that is under way.
    pub(crate) looking_up: Option<u64>,
    looked_up_at: Option<Instant>,
    /// How often carrying out a decision has failed, one time after the other.
    attempts: (Decision, u32),
}

/// Someone who waits for the end of a job.
#[derive(Debug)]
struct Waiter {
    id: u64,
    /// Not known until systemd has answered; the end may be told before that is read.
    job: Option<String>,
    ended: Vec<(String, String)>,
    tell: oneshot::Sender<String>,
}

/// A place in the line of waiters, taken before the job is asked for.
#[derive(Debug)]
pub(crate) struct JobWait {
    pub(crate) id: u64,
    pub(crate) told: oneshot::Receiver<String>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the memory is still readable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` on a unit and tells the agent if what it observes is different afterwards.
    pub(crate) fn update<T>(&self, unit: &UnitName, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut state = self.lock();
        let result = state.update(unit, change);
        let has_changed = !state.changed.is_empty();
        drop(state);
        if has_changed {
            self.changed.notify_one();
        }
        result
    }

    /// Takes in a signal; the units whose failure must be looked up.
    pub(crate) fn signal(&self, signal: Signal, position: Sequence) -> Vec<UnitName> {
        let mut state = self.lock();
        let mut failed = Vec::new();
        match signal {
            Signal::State {
                path,
                active,
                sub,
                invocation_id,
            } => {
                if let Some(unit) = state.paths.get(&path).cloned() {
                    state.update(&unit, |entry| {
                        entry.take_state(active, sub, position);
                        if let Some(id) = invocation_id {
                            entry.observed.invocation_id = id;
                        }
                        if entry.wants_lookup() {
                            failed.push(unit.clone());
                        }
                    });
                }
            }
            Signal::JobRemoved(job, unit, result) => state.job_removed(job, &unit, result),
            // A reload forgets every unit and finds it again; what counts is told at its end.
            Signal::UnitRemoved(unit) if !state.reloading => {
                if let Some(unit) = state.known(&unit) {
                    state.update(&unit, |entry| entry.take_removal(position));
                }
            }
            Signal::UnitRemoved(_) => {}
            Signal::Reloading(begins) => {
                state.reloading = begins;
                if !begins {
                    self.resync.notify_one();
                }
            }
        }
        let has_changed = !state.changed.is_empty();
        drop(state);
        if has_changed {
            self.changed.notify_one();
        }
        failed
    }

    /// A connection is there and everything was looked at.
    pub(crate) fn connected(&self, manager: &Manager) {
        let mut state = self.lock();
        state.manager = Some(manager.clone());
        state.trouble = None;
        state.trouble_told = false;
        state.everything_changed = true;
        drop(state);
        self.changed.notify_one();
        self.work.notify_one();
    }

    /// The connection is gone, or could not be made. Whoever waits for a job is told by the drop
    /// of its sender. Returns whether the agent is told now, which it is when this is `lasting`;
    /// until then it has no trouble to publish, but sees some and plans nothing.
    pub(crate) fn disconnected(&self, why: &CallError, lasting: bool) -> bool {
        let mut state = self.lock();
        state.manager = None;
        state.reloading = false;
        state.waiters.clear();
        state.queue.clear();
        for entry in state.units.values_mut() {
            entry.position = None;
            // Whatever is in flight has no more say; it is planned anew when all is known again.
            entry.work_id = 0;
            entry.observed.working = None;
            entry.observed.failure_pending = false;
            entry.looked_up = None;
            entry.looking_up = None;
            // What looks over the lost connection has no more say, nor the same number again.
            entry.look_up_id += 1;
        }
        state.trouble = Some(format!("systemd cannot be reached: {why}"));
        let tell = lasting && !state.trouble_told;
        if tell {
            state.trouble_told = true;
            state.everything_changed = true;
        }
        drop(state);
        if tell {
            self.changed.notify_one();
        }
        tell
    }

    /// Takes a place among those who wait for jobs of a unit.
    pub(crate) fn wait_for_job(&self, unit: &UnitName, job: Option<String>) -> JobWait {
        let (tell, told) = oneshot::channel();
        let mut state = self.lock();
        let id = state.new_id();
        state.waiters.entry(unit.clone()).or_default().push(Waiter {
            id,
            job,
            ended: Vec::new(),
            tell,
        });
        JobWait { id, told }
    }

    /// The job of a place has become known.
    pub(crate) fn job_is(&self, unit: &UnitName, id: u64, job: String) {
        let mut state = self.lock();
        let Some(waiters) = state.waiters.get_mut(unit) else {
            return;
        };
        let Some(index) = waiters.iter().position(|waiter| waiter.id == id) else {
            return;
        };
        let ended = &waiters[index].ended;
        match ended.iter().find(|(ended, _)| *ended == job).cloned() {
            Some((_, result)) => {
                let waiter = waiters.swap_remove(index);
                // A receiver that has gone no longer wants to know.
                let _ = waiter.tell.send(result);
            }
            None => waiters[index].job = Some(job),
        }
        state.waits_no_more(unit);
    }

    /// For jobs of how many units somebody waits.
    pub(crate) fn n_jobs(&self) -> usize {
        self.lock().waiters.len()
    }

    /// Gives a place up.
    pub(crate) fn forget_job(&self, unit: &UnitName, id: u64) {
        let mut state = self.lock();
        if let Some(waiters) = state.waiters.get_mut(unit) {
            waiters.retain(|waiter| waiter.id != id);
        }
        state.waits_no_more(unit);
    }

    /// Ends a task: runs `change` on the unit, unless the task was overtaken.
    pub(crate) fn finish(&self, unit: &UnitName, id: u64, change: impl FnOnce(&mut Entry)) {
        self.update(unit, |entry| {
            if entry.work_id != id {
                return;
            }
            entry.work_id = 0;
            entry.observed.working = None;
            change(entry);
        });
    }

    /// Ends a task that may work another time, and says so when that time has come.
    pub(crate) fn attempt_failed(
        self: &Arc<Self>,
        unit: &UnitName,
        id: u64,
        decision: Decision,
        why: &str,
    ) {
        let mut pause = None;
        self.finish(unit, id, |entry| {
            pause = Some(entry.attempt_failed(decision, why.to_owned()));
        });
        let Some(pause) = pause else {
            return;
        };
        tracing::warn!(%unit, reason = why, ?pause, "task failed and is tried again");
        let (shared, unit) = (Arc::clone(self), unit.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            shared.update(&unit, |entry| {
                if let Some(attempt) = &mut entry.observed.attempt
                    && attempt.decision == decision
                {
                    attempt.due = true;
                }
            });
        });
    }

    /// Whether a task has not been overtaken.
    pub(crate) fn is_current(&self, unit: &UnitName, id: u64) -> bool {
        self.lock()
            .units
            .get(unit)
            .is_some_and(|entry| entry.work_id == id)
    }

    /// Whether signals of this object are of interest.
    pub(crate) fn is_own_path(&self, path: &str) -> bool {
        self.lock().paths.contains_key(path)
    }

    /// Queues tasks and marks their units as working.
    pub(crate) fn queue(self: &Arc<Self>, tasks: Vec<Task>) {
        let mut state = self.lock();
        // One id for all tasks of a unit that are given together.
        let id = state.new_id();
        for task in tasks {
            let working = match task.kind {
                TaskKind::Stop(_) => Working::Stopping,
                TaskKind::Start(_) | TaskKind::Restart(_) => Working::Starting,
                _ => Working::Files,
            };
            state.update(&task.unit, |entry| {
                // A start that follows a load has not begun: its file is being written.
                if entry.work_id != id {
                    entry.observed.working = Some(working);
                }
                entry.work_id = id;
                entry.observed.attempt = None;
                entry.observed.refused = None;
            });
            state.queue.push((id, task));
        }
        drop(state);
        self.work.notify_one();
    }
}

impl Listener for Shared {
    fn is_own(&self, path: &str) -> bool {
        self.is_own_path(path)
    }

    fn main_pid_is(&self, path: &str, pid: u32) {
        let mut state = self.lock();
        let State { paths, units, .. } = &mut *state;
        if let Some(entry) = paths.get(path).and_then(|unit| units.get_mut(unit)) {
            entry.main_pid = Some(pid);
        }
    }
}

impl State {
    /// Runs `change` on a unit and marks it if what is observed is different afterwards.
    pub(crate) fn update<T>(&mut self, unit: &UnitName, change: impl FnOnce(&mut Entry) -> T) -> T {
        if !self.units.contains_key(unit) {
            self.paths.insert(unit_object(unit.as_str()), unit.clone());
        }
        let entry = self.units.entry(unit.clone()).or_default();
        let before = entry.observed.clone();
        let result = change(entry);
        if entry.observed.is_down() != before.is_down() {
            entry.down_at = entry.observed.is_down().then(clock::boottime);
        }
        let is_new = entry.observed.is_exclusive && !before.is_exclusive;
        if is_new || entry.may_have_ended() {
            self.lease.notify_one();
        }
        if entry.observed != before {
            self.changed.insert(unit.clone());
        }
        if entry.observed.is_nothing()
            && entry.observed.refused.is_none()
            && entry.observed.attempt.is_none()
        {
            self.units.remove(unit);
            self.paths.remove(&unit_object(unit.as_str()));
        }
        result
    }

    /// Takes in rows of a listing; the units whose failure must be looked up, and the running
    /// start jobs that nobody waits for.
    pub(crate) fn take_rows(
        &mut self,
        rows: Vec<Row>,
        position: Sequence,
    ) -> (Vec<UnitName>, Vec<(UnitName, String)>) {
        let (mut failed, mut orphans) = (Vec::new(), Vec::new());
        for row in rows {
            let Some(unit) = self.known(&row.name) else {
                continue;
            };
            self.update(&unit, |entry| {
                entry.observed.load = row.load;
                entry.observed.description = row.description;
                entry.take_state(Some(row.active), Some(row.sub), position);
                if entry.wants_lookup() {
                    failed.push(unit.clone());
                }
                let starting = entry
                    .observed
                    .record
                    .as_ref()
                    .is_some_and(|record| record.phase == Phase::Starting);
                if let Some((kind, path)) = row.job
                    && matches!(kind.as_str(), "start" | "restart")
                    && starting
                    && entry.observed.working.is_none()
                {
                    entry.observed.working = Some(Working::Starting);
                    orphans.push((unit.clone(), path.as_str().to_owned()));
                }
            });
        }
        (failed, orphans)
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn known(&self, unit: &str) -> Option<UnitName> {
        self.units.get_key_value(unit).map(|(name, _)| name.clone())
    }

    fn job_removed(&mut self, job: String, unit: &str, result: String) {
        let Some((unit, waiters)) = self.waiters.remove_entry(unit) else {
            return;
        };
        let mut kept = Vec::new();
        for mut waiter in waiters {
            if waiter.job.as_ref() == Some(&job) {
                let _ = waiter.tell.send(result.clone());
                continue;
            }
            if waiter.job.is_none() {
                waiter.ended.push((job.clone(), result.clone()));
            }
            kept.push(waiter);
        }
        if !kept.is_empty() {
            self.waiters.insert(unit, kept);
        }
    }

    /// Keeps no empty list of a unit for which nobody waits any more.
    fn waits_no_more(&mut self, unit: &UnitName) {
        if self.waiters.get(unit).is_some_and(Vec::is_empty) {
            self.waiters.remove(unit);
        }
    }
}

impl Entry {
    /// An exclusive unit is down or going down, and nobody knows yet whether by itself or with its
    /// lease.
    pub(crate) fn may_have_ended(&self) -> bool {
        let launched = |record: &LaunchRecord| record.phase == Phase::Launched;
        self.leased
            && (self.observed.is_down() || self.observed.active == "deactivating")
            && self.observed.working.is_none()
            && self.observed.record.as_ref().is_some_and(launched)
    }

    /// Another attempt has failed; the pause before the next one.
    pub(crate) fn attempt_failed(&mut self, decision: Decision, why: String) -> Duration {
        let n_failed = self.n_failed(decision);
        self.attempts = (decision, n_failed + 1);
        self.observed.attempt = Some(Attempt {
            decision,
            why,
            due: false,
        });
        let pause = FIRST_ATTEMPT_PAUSE.saturating_mul(1 << n_failed.min(MAX_DOUBLINGS));
        pause.min(LAST_ATTEMPT_PAUSE)
    }

    /// How many attempts at this decision have failed since the last success.
    pub(crate) fn n_failed(&self, decision: Decision) -> u32 {
        let (of, n_failed) = self.attempts;
        if of == decision { n_failed } else { 0 }
    }

    /// What was tried has worked, or is given up.
    pub(crate) fn attempts_over(&mut self) {
        self.attempts = (Decision::default(), 0);
    }

    /// A start is about to be asked for. Until it has made another invocation, systemd may tell
    /// once more how the last one ended: that is no failure of this start.
    pub(crate) fn start_anew(&mut self) {
        self.observed.failure = None;
        self.observed.failure_pending = false;
        self.is_described = false;
        self.main_pid = None;
        self.look_up_id += 1;
        self.looked_up =
            (self.observed.active == "failed").then(|| self.observed.invocation_id.clone());
    }

    /// The start has ended. One that failed before it made an invocation (started too often, say)
    /// has not been looked up.
    pub(crate) fn wants_lookup_after_start(&mut self) -> bool {
        if self.observed.failure.is_none() && !self.observed.failure_pending {
            self.looked_up = None;
        }
        self.wants_lookup()
    }

    /// What systemd's signals do not tell.
    pub(crate) fn take_description(&mut self, row: Row) {
        self.observed.load = row.load;
        self.observed.description = row.description;
        self.is_described = true;
    }

    /// Whether signals and what was asked meanwhile have told all of a start that has ended well:
    /// systemd tells how a unit is before it tells that the job is done.
    pub(crate) fn is_told(&self, before: &str) -> bool {
        self.is_described
            && self.observed.active == "active"
            && !self.observed.invocation_id.is_empty()
            && self.observed.invocation_id != before
    }

    fn take_state(&mut self, active: Option<String>, sub: Option<String>, position: Sequence) {
        if self.position.is_some_and(|newest| newest > position) {
            return;
        }
        self.position = Some(position);
        if let Some(active) = active {
            // Between two attempts systemd takes the unit down: that is not the end that was
            // looked up when the earlier one failed, and it tells of that end if it comes.
            let is_between = self.is_restarting() && active == "inactive";
            if active == "active" || is_between {
                self.observed.failure = None;
                self.observed.failure_pending = false;
                self.looked_up = None;
            }
            self.observed.active = active;
        }
        if let Some(sub) = sub {
            self.observed.sub = sub;
        }
        if !self.is_running()
            && let Some(settling) = self.settling.take()
        {
            // Whoever waited may have had enough meanwhile.
            let _ = settling.send(());
        }
    }

    /// Whether systemd says that it has a process. One that has ended well may stay `active`.
    pub(crate) fn is_running(&self) -> bool {
        self.observed.active == "active" && self.observed.sub != "exited"
    }

    /// Whether it has failed, and systemd is about to start it once more.
    fn is_restarting(&self) -> bool {
        self.observed.sub == "auto-restart"
    }

    fn take_removal(&mut self, position: Sequence) {
        self.take_state(
            Some("inactive".to_owned()),
            Some("dead".to_owned()),
            position,
        );
    }

    /// Whether it has failed and nobody has yet looked up why; the caller then must.
    fn wants_lookup(&mut self) -> bool {
        let restarting = self.is_restarting();
        let failed = self.observed.active == "failed" || restarting;
        let id = Some(self.observed.invocation_id.clone());
        if !failed || self.observed.failure_pending || self.looked_up == id {
            return false;
        }
        let now = Instant::now();
        let recent = |at: Instant| now.duration_since(at) < LOOK_UP_PAUSE;
        if restarting && self.looked_up_at.is_some_and(recent) {
            return false;
        }
        self.looked_up_at = Some(now);
        self.looked_up = id;
        self.look_up_id += 1;
        self.observed.failure_pending = true;
        true
    }
}

#[cfg(test)]
mod tests;
