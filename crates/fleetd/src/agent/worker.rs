//! The agent's loop.
//!
//! It watches `assignments/<me>/` and nothing else. Whatever wakes it (the store, systemd, its
//! presence, a state that is due) names the units that it is about; each of them is planned by
//! fleet-core, the tasks are handed to systemd, and what is to be said goes to `states/`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::agent::{self, Circumstances, Observed, Phase, Start, Task, TaskKind, UnitPlan};
use fleet_core::name::UnitName;
use fleet_core::records::{AssignmentRecord, MachineId, MachineRecord, Order, Reached};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::hold::Hold;
use super::leaving::trouble_of;
use super::presence::{self, Fence, Standing};
use super::publisher::{Batch, EXPLAINED_WITHIN, PASSING, Publisher};
use super::{AgentConfig, AgentMetrics, Memory, Question};
use crate::access::Trust;
use crate::backoff::Backoff;
use crate::clock;
use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::Document;
use crate::store::{Error, Event, Revision, Store, Watch, WatchBatch, keys};
use crate::units::{Changes, UnitManager, is_exclusive};

mod leased;
mod reading;
mod word;

use word::{PREPARED, WORD_EVERY, Word};

/// States that are still to be said when fleetd stops are given this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the loop works with.
pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) manager: Arc<dyn UnitManager>,
    pub(super) config: watch::Receiver<AgentConfig>,
    pub(super) metrics: Arc<AgentMetrics>,
    /// What this machine says of itself: the loop adds its trouble.
    pub(super) record: Arc<watch::Sender<MachineRecord>>,
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) renew: Arc<Notify>,
    pub(super) asked: mpsc::Receiver<Question>,
    pub(super) trust: watch::Receiver<Arc<Trust>>,
}

/// Everything the loop holds.
pub(super) struct Worker {
    store: Arc<dyn Store>,
    manager: Arc<dyn UnitManager>,
    machine: MachineId,
    config: watch::Receiver<AgentConfig>,
    /// The longest lease that this machine has had: what is bound to it may outlive the last sign of
    /// the machine by so much.
    lease: Duration,
    metrics: Arc<AgentMetrics>,
    record: Arc<watch::Sender<MachineRecord>>,
    standing: watch::Receiver<Standing>,
    renew: Arc<Notify>,
    asked: mpsc::Receiver<Question>,
    /// Which unit files are written and started.
    trust: watch::Receiver<Arc<Trust>>,
    was_certain: bool,
    hold: Hold,
    publisher: Publisher,
    desired: BTreeMap<UnitName, AssignmentRecord>,
    /// The fence behind which `desired` was read; None: it was not, or not wholly.
    read_behind: Option<Fence>,
    /// The revisions of `desired`.
    orders: BTreeMap<UnitName, Revision>,
    /// Units whose assignment cannot be read: frozen as they are.
    damaged: BTreeSet<UnitName>,
    /// When it was first heard that the store is to be believed.
    heard_at: Option<Instant>,
    /// Units that were not to be brought down to what the store has when it was believed.
    late: BTreeSet<UnitName>,
    dirty: BTreeSet<UnitName>,
    /// The last remark on a unit, so that it is logged once.
    remarks: BTreeMap<UnitName, String>,
    /// The one transaction in flight.
    sending: Option<BoxFuture<'static, (Batch, Result<Revision, Error>)>>,
    /// The fence behind which it was sent.
    sent_behind: Option<Fence>,
}

/// Why the inner loop was left.
enum Left {
    /// Told to stop.
    Stopped,
    /// Presence was lost, or its fence is new: read everything again.
    Reregistered,
    /// The right store is there again, instead of another one that was read: read it.
    Named,
    /// The store is away, or its history is. A watch can go on after this revision; None:
    /// everything is to be read.
    Away(Option<Revision>, Error),
}

/// What those beside the loop tell it.
enum Told {
    Question(Question),
    /// Other unit files are taken than before.
    Trust,
}

/// None: nobody is left to tell anything.
async fn told(
    asked: &mut mpsc::Receiver<Question>,
    trust: &mut watch::Receiver<Arc<Trust>>,
) -> Option<Told> {
    tokio::select! {
        biased;
        Some(question) = asked.recv() => Some(Told::Question(question)),
        Ok(()) = trust.changed() => Some(Told::Trust),
        else => None,
    }
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Worker {
        let config = parts.config.borrow().clone();
        // The lease of a fleetd before may be longer, and what is bound to it lives as long.
        let lease = presence::remembered_ttl(&config.run_directory);
        let lease = lease.map_or(config.ttl, |before| before.max(config.ttl));
        Worker {
            publisher: Publisher::new(Arc::clone(&parts.store), config.machine.clone()),
            hold: Hold::open(config.run_directory.join("cluster")),
            store: parts.store,
            manager: parts.manager,
            machine: config.machine,
            lease,
            config: parts.config,
            metrics: parts.metrics,
            record: parts.record,
            standing: parts.standing,
            renew: parts.renew,
            asked: parts.asked,
            trust: parts.trust,
            was_certain: false,
            desired: BTreeMap::new(),
            read_behind: None,
            orders: BTreeMap::new(),
            damaged: BTreeSet::new(),
            heard_at: None,
            late: BTreeSet::new(),
            dirty: BTreeSet::new(),
            remarks: BTreeMap::new(),
            sending: None,
            sent_behind: None,
        }
    }

    pub(super) async fn run(mut self, mut shutdown: Shutdown) {
        let mut backoff = Backoff::new();
        let mut resume: Option<Revision> = None;
        loop {
            let left = tokio::select! {
                left = self.round(&mut resume, &mut backoff) => left,
                () = stopped(&mut shutdown) => Left::Stopped,
            };
            match left {
                Left::Stopped => break,
                Left::Reregistered => {
                    // What is in flight is kept out by the new fence;
                    // everything is said anew after reading.
                    self.sending = None;
                    resume = None;
                }
                Left::Named => {
                    info!("the right store is back, and is read anew");
                    resume = None;
                }
                Left::Away(_, Error::Compacted(_)) => resume = None,
                Left::Away(revision, error) => {
                    warn!(%error, "the store is away: units stay as they are");
                    resume = revision;
                    backoff.pause().await;
                }
            }
        }
        self.last_words().await;
    }

    /// From registration to the next loss: read the assignments (or resume the watch), then work
    /// on what happens.
    async fn round(&mut self, resume: &mut Option<Revision>, backoff: &mut Backoff) -> Left {
        let fence = loop {
            let standing = *self.standing.borrow_and_update();
            if standing.epoch.is_some() {
                break standing.fence;
            }
            if self.standing_changed().await.is_err() {
                return Left::Stopped;
            }
        };
        // What was read behind another fence may have moved since, and the watch would tell of it
        // only after the first plan.
        let resumed = match *resume {
            Some(revision) if self.read_behind == Some(fence) => {
                let watch = self.resume(revision).await;
                watch.map(|watch| watch.map(|watch| (revision, watch)))
            }
            _ => Ok(None),
        };
        let read = match resumed {
            Ok(Some(resumed)) => Ok(resumed),
            Ok(None) if !self.ends_sending(fence).await => {
                return self.wait_for_fence(fence).await;
            }
            Ok(None) => self.read_all(fence).await,
            Err(error) => Err(error),
        };
        match read {
            Ok((revision, watch)) => {
                *backoff = Backoff::new();
                self.work(fence, revision, watch).await
            }
            Err(error) => Left::Away(*resume, error),
        }
    }

    async fn work(&mut self, fence: Fence, mut revision: Revision, mut watch: Watch) -> Left {
        let mut word = tokio::time::interval(WORD_EVERY);
        word.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.step(fence);
            self.hold.acted_on(revision);
            let due = self.publisher.next_due().filter(|_| self.sending.is_none());
            let manager = Arc::clone(&self.manager);
            tokio::select! {
                batch = watch.next() => match batch {
                    // The cluster has got its name meanwhile, by which its store is known again.
                    Some(Ok(_)) if self.hold.is_known(None) => {
                        self.metrics.woken();
                        return Left::Reregistered;
                    }
                    Some(Ok(batch)) => {
                        revision = batch.revision;
                        self.take_in(batch);
                    }
                    Some(Err(error)) => return Left::Away(Some(revision), error),
                    None => {
                        let error = Error::Unavailable("the watch ended".to_owned());
                        return Left::Away(Some(revision), error);
                    }
                },
                changes = manager.changed() => self.systemd_changed(&changes),
                Some(told) = told(&mut self.asked, &mut self.trust) => match told {
                    Told::Question(question) => self.answer(question),
                    // What was refused before may be taken now.
                    Told::Trust => self.dirty.extend(self.desired.keys().cloned()),
                },
                changed = self.standing.changed() => {
                    let standing = *self.standing.borrow_and_update();
                    if changed.is_err() {
                        return Left::Stopped;
                    }
                    if standing.epoch.is_none() || standing.fence != fence {
                        return Left::Reregistered;
                    }
                }
                sent = OptionFuture::from(self.sending.as_mut()), if self.sending.is_some() => {
                    self.sending = None;
                    if let Some((batch, outcome)) = sent {
                        self.sent(batch, &outcome);
                        match outcome {
                            Ok(_) => {}
                            // The fence: presence was lost, or written by others. And what may
                            // still be on its way must not arrive after what is said next.
                            Err(Error::Conflict | Error::OutcomeUnknown(_)) => {
                                return self.wait_for_fence(fence).await;
                            }
                            Err(error) => return Left::Away(Some(revision), error),
                        }
                    }
                }
                _ = word.tick(), if self.hold.is_holding() => {
                    match self.look_for_a_word().await {
                        Word::None => {}
                        Word::Heard => word.reset_after(PREPARED),
                        Word::Named => return Left::Named,
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Sees off what is on its way before everything is read: it may be on its way to another store
    /// than the one that is read, and its answer must not be taken for that one's. False: it may
    /// still arrive behind this fence.
    async fn ends_sending(&mut self, fence: Fence) -> bool {
        let is_kept_out = self.sent_behind != Some(fence);
        let outcome = match &mut self.sending {
            Some(sending) if !is_kept_out => Some(sending.await.1),
            _ => None,
        };
        self.sending = None;
        !matches!(
            outcome,
            Some(Err(Error::Conflict | Error::OutcomeUnknown(_)))
        )
    }

    /// Nothing can be said until there is another fence, by which everything older is kept out.
    async fn wait_for_fence(&mut self, old: Fence) -> Left {
        self.renew.notify_one();
        loop {
            let standing = *self.standing.borrow_and_update();
            if standing.epoch.is_none() || standing.fence != old {
                return Left::Reregistered;
            }
            if self.standing_changed().await.is_err() {
                return Left::Stopped;
            }
        }
    }

    /// Waits for presence to change, and answers meanwhile.
    async fn standing_changed(&mut self) -> Result<(), watch::error::RecvError> {
        loop {
            tokio::select! {
                changed = self.standing.changed() => return changed,
                Some(question) = self.asked.recv() => self.answer(question),
            }
        }
    }

    fn answer(&self, question: Question) {
        let desired = self.desired.iter().map(|(unit, assignment)| {
            let word = match assignment.order {
                Order::Gone => "inactive",
                Order::Loaded => "loaded",
                Order::Launched => "launched",
            };
            (unit.to_string(), word)
        });
        let observed = self.manager.observe_all();
        // Who asked may have given up.
        let _ = question.send(Memory {
            target_states: desired.collect(),
            publisher: self.publisher.dump(),
            subscribed: observed.keys().map(ToString::to_string).collect(),
        });
    }

    /// Plans what is dirty, hands out the tasks and sends what is due.
    fn step(&mut self, fence: Fence) {
        let standing = *self.standing.borrow();
        // What was read behind another fence starts nothing: it may have moved since.
        let is_certain = standing.is_certain() && standing.fence == fence;
        let circumstances = Circumstances {
            systemd: self.manager.trouble().is_none(),
            start: match is_certain {
                true => Start::Allowed,
                false => Start::NotPresent,
            },
            hold: self.hold.is_holding(),
        };
        if is_certain && !self.was_certain {
            // What could not be started while presence was uncertain is looked at again.
            self.dirty.extend(self.desired.keys().cloned());
        }
        self.was_certain = is_certain;
        let mut tasks = Vec::new();
        for unit in std::mem::take(&mut self.dirty) {
            tasks.extend(self.plan(&unit, circumstances));
        }
        if !tasks.is_empty() {
            agent::in_order(&mut tasks);
            for task in &tasks {
                say(task);
                self.metrics.task(&task.kind);
            }
            self.manager.apply(tasks);
        }
        let due = self
            .publisher
            .next_due()
            .is_some_and(|due| due <= Instant::now());
        if due
            && self.sending.is_none()
            && let Some(batch) = self.publisher.batch(fence)
        {
            self.metrics.sent(batch.len());
            self.sending = Some(Box::pin(batch.send(Arc::clone(&self.store))));
            self.sent_behind = Some(fence);
        }
    }

    fn plan(&mut self, unit: &UnitName, circumstances: Circumstances) -> Vec<Task> {
        if self.damaged.contains(unit) {
            return Vec::new();
        }
        let observed = self.manager.observe(unit);
        if let Some(tasks) = self.bring_down(unit, &observed) {
            return tasks;
        }
        let assignment = self.desired.get(unit);
        let generation = assignment.map_or(0, |assignment| assignment.decision.generation);
        let written_at = self.orders.get(unit).copied().unwrap_or(0);
        let circumstances = Circumstances {
            hold: self.hold.protects(unit, generation, written_at),
            start: match circumstances.start {
                Start::Allowed if self.is_in_doubt(assignment) => Start::InDoubt,
                start => start,
            },
            ..circumstances
        };
        let plan = agent::plan_unit(unit, assignment, &observed, circumstances);
        let plan = self.trusted(unit, assignment, &observed, plan);
        if plan.remark.as_ref() != self.remarks.get(unit) {
            match plan.remark {
                Some(remark) => {
                    warn!(%unit, "{remark}");
                    self.remarks.insert(unit.clone(), remark);
                }
                None => {
                    self.remarks.remove(unit);
                }
            }
        }
        match plan.report {
            Some(report) => {
                let hash = assignment.map(|assignment| assignment.hash);
                let mut state = agent::state_record(&report, &observed, hash);
                state.leased_ms = self.leased_ms(unit, &observed);
                let order = self.orders.get(unit).copied();
                let assignment = self.desired.get(unit);
                let reason = assignment.map_or("", |assignment| &assignment.reason);
                let lasts = match report.settled {
                    true => Duration::ZERO,
                    false if observed.failure_pending => EXPLAINED_WITHIN,
                    false => PASSING,
                };
                self.publisher.say(unit, state, lasts, order, reason);
            }
            None if assignment.is_none() && circumstances.systemd => self.forget(unit, &observed),
            None => {}
        }
        plan.tasks
    }

    /// The plan, unless it lets contents count that this machine does not take.
    fn trusted(
        &self,
        unit: &UnitName,
        assignment: Option<&AssignmentRecord>,
        observed: &Observed,
        plan: UnitPlan,
    ) -> UnitPlan {
        let brings_in = |assignment: &&AssignmentRecord| plan.brings_in(assignment, observed);
        let Some(assignment) = assignment.filter(brings_in) else {
            return plan;
        };
        match self.trust.borrow().check_order(unit, assignment) {
            Ok(()) => plan,
            Err(why) => UnitPlan::of_untrusted(assignment, observed, why),
        }
    }

    /// Whether a unit must not run twice, and the store that wants it here may be an older copy,
    /// which does not know where it has gone since.
    fn is_in_doubt(&self, assignment: Option<&AssignmentRecord>) -> bool {
        self.hold.is_holding()
            && assignment.is_some_and(|assignment| is_exclusive(&assignment.text))
    }

    /// The cluster has forgotten a unit that was reported gone: so is what was said of it.
    fn forget(&mut self, unit: &UnitName, observed: &Observed) {
        if self.publisher.is_in_flight(unit) {
            // Looked at again when it has arrived.
            return;
        }
        let said_gone = self
            .publisher
            .published(unit)
            .is_some_and(|state| state.reached == Reached::Gone);
        let remembered = observed
            .record
            .as_ref()
            .is_some_and(|record| record.phase == Phase::Gone);
        if said_gone {
            self.publisher.remove(unit);
        } else if remembered && observed.working.is_none() {
            self.manager.apply(vec![forget_task(unit)]);
        }
    }

    fn take_in(&mut self, batch: WatchBatch) {
        self.metrics.woken();
        for event in &batch.events {
            if let Some(unit) = self.learn(event) {
                self.dirty.insert(unit);
            }
        }
    }

    /// Takes in one assignment and returns its unit.
    fn learn(&mut self, event: &Event) -> Option<UnitName> {
        let (key, value, revision) = match event {
            Event::Put(entry) => (&entry.key, Some(&entry.value), entry.mod_revision),
            Event::Delete { key, revision } => (key, None, *revision),
        };
        let keys::Key::Assignment(_, unit) = keys::parse(key) else {
            return None;
        };
        let unit = match UnitName::parse(unit) {
            Ok(unit) => unit,
            Err(problem) => {
                error!(key, %problem, "an assignment with no unit's name is passed over");
                return None;
            }
        };
        match value.map(|value| AssignmentRecord::decode(key, value)) {
            None => {
                self.desired.remove(&unit);
                self.orders.remove(&unit);
                self.damaged.remove(&unit);
            }
            Some(Ok(assignment)) => {
                debug!(%unit, decision = %assignment.decision, order = assignment.order.as_str(), reason = assignment.reason, "assigned");
                self.damaged.remove(&unit);
                self.desired.insert(unit.clone(), assignment);
                self.orders.insert(unit.clone(), revision);
            }
            Some(Err(problem)) => {
                error!(
                    key,
                    %problem,
                    "the unit is left as it is until its assignment can be read: ask for the unit \
                     anew (fleetctl start), or put the key right"
                );
                #[cfg(fleet_sim)]
                if fleet_core::planted!("garbage in an assignment is an order to leave")
                    && let Some(known) = self.desired.get_mut(&unit)
                {
                    known.order = fleet_core::records::Order::Gone;
                    return Some(unit);
                }
                self.damaged.insert(unit.clone());
            }
        }
        self.metrics
            .trusts(self.hold.is_holding(), self.damaged.len());
        Some(unit)
    }

    fn systemd_changed(&mut self, changes: &Changes) {
        self.metrics.systemd_changed();
        self.dirty.extend(changes.units.iter().cloned());
        if changes.everything {
            self.dirty.extend(self.desired.keys().cloned());
            self.dirty.extend(self.manager.observe_all().into_keys());
            let trouble = self.manager.trouble();
            if let Some(trouble) = &trouble {
                error!(
                    trouble,
                    "systemd cannot be reached: this machine takes no new units"
                );
            }
            let trouble = trouble_of(&*self.manager);
            self.record.send_if_modified(|record| {
                let changed = record.trouble != trouble;
                record.trouble = trouble;
                changed
            });
        }
    }

    fn sent(&mut self, batch: Batch, outcome: &Result<Revision, Error>) {
        if let Err(error) = outcome {
            warn!(%error, "states were not written; they will be said again");
        }
        for unit in self.taken_in(batch, outcome) {
            // The assignment may be gone already; when the state is, so is what is remembered.
            self.dirty.insert(unit);
        }
    }

    /// Takes in what became of a batch. Returns the units that are gone, or whose key is removed.
    fn taken_in(&mut self, batch: Batch, outcome: &Result<Revision, Error>) -> Vec<UnitName> {
        if let (Ok(revision), true) = (outcome, batch.marks()) {
            self.hold.marked(*revision);
        }
        self.publisher.done(batch, outcome)
    }

    /// Says what is still to be said, if the store is quick about it.
    async fn last_words(&mut self) {
        let Standing { epoch, fence, .. } = *self.standing.borrow();
        if epoch.is_none() {
            return;
        }
        let bound = self.bound_until_back().await;
        let until = clock::boottime() + self.config.borrow().unsupervised_grace;
        let words = async {
            if let Some(sending) = self.sending.take() {
                let (batch, outcome) = sending.await;
                self.taken_in(batch, &outcome);
                if outcome.is_err() {
                    return false;
                }
            }
            for (unit, state) in &bound {
                self.publisher
                    .say(unit, state.clone(), Duration::ZERO, None, "");
            }
            while let Some(batch) = self.publisher.batch(fence) {
                let (batch, outcome) = batch.send(Arc::clone(&self.store)).await;
                self.taken_in(batch, &outcome);
                if outcome.is_err() {
                    return false;
                }
            }
            true
        };
        // What is not said now is said by the next fleetd, which compares before it speaks.
        let said = tokio::time::timeout(LAST_WORDS, words).await;
        let mut bound = bound.iter();
        let is_known = bound.len() > 0
            && bound.all(|(unit, state)| self.publisher.published(unit) == Some(state));
        // Only when the cluster knows that it waits so long are the units kept so long.
        if said == Ok(true) && is_known {
            let kept = self.manager.lease_for_absence(until);
            let kept = tokio::time::timeout(LAST_WORDS, kept).await;
            info!(
                kept = kept == Ok(true),
                "exclusive units stay while fleetd is away"
            );
        }
    }
}

fn forget_task(unit: &UnitName) -> Task {
    Task {
        unit: unit.clone(),
        kind: TaskKind::Forget,
        reason: "the cluster has forgotten it".to_owned(),
    }
}

/// A task that begins, with the words of the original's log line.
fn say(task: &Task) {
    let Task { unit, kind, reason } = task;
    let kind = kind.as_str();
    let (first, rest) = kind.split_at(1);
    let original = format!("{}{rest}Unit", first.to_ascii_uppercase());
    info!(%unit, task = kind, reason, "AgentReconciler task: type={original} job={unit}");
}

#[cfg(test)]
mod tests;
