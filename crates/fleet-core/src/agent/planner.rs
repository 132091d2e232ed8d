//! What to do about one unit that is assigned to this machine.

use std::sync::Arc;

use super::{
    Circumstances, LaunchRecord, Observed, Phase, Start, Task, TaskKind, UnitPlan, Working,
};
use crate::body::BodyHash;
use crate::name::UnitName;
use crate::records::{AssignmentRecord, Order, Reached};

pub(super) struct Planner<'a> {
    pub(super) name: &'a UnitName,
    pub(super) assignment: &'a AssignmentRecord,
    pub(super) observed: &'a Observed,
    pub(super) circumstances: Circumstances,
    pub(super) plan: UnitPlan,
}

impl Planner<'_> {
    /// Adds the tasks and returns what has been reached without them.
    pub(super) fn decide(&mut self) -> Reached {
        let observed = self.observed;
        if observed.working == Some(Working::Files) || observed.working == Some(Working::Stopping) {
            return Reached::Working;
        }
        if let Some((decision, _)) = &observed.refused
            && *decision == self.assignment.decision
            && self.assignment.order != Order::Gone
        {
            return Reached::Refused;
        }
        if let Some(attempt) = &observed.attempt
            && attempt.decision == self.assignment.decision
            && !attempt.due
        {
            return Reached::Working;
        }
        match self.assignment.order {
            Order::Gone => self.gone(),
            Order::Loaded => self.loaded(),
            Order::Launched => self.launched(),
        }
    }

    fn gone(&mut self) -> Reached {
        let observed = self.observed;
        // A name that fleet has neither written nor remembers is the machine's own: hands off.
        if observed.is_nothing() {
            return Reached::Gone;
        }
        if observed.phase() == Some(Phase::Gone) && observed.file.is_none() {
            let known = observed.record.as_ref().map(|r| r.decision);
            if known != Some(self.assignment.decision) && !self.circumstances.hold {
                self.task(
                    TaskKind::Remember(self.record(Phase::Gone)),
                    "unit already gone",
                );
            }
            return Reached::Gone;
        }
        if self.refuse_to_stop("the order is to remove it") {
            return Reached::Working;
        }
        if self.is_idle_and_down() || planted!("a running unit is unloaded") {
            self.task(
                TaskKind::Unload(self.record(Phase::Gone)),
                "unit loaded but not scheduled here",
            );
        } else {
            self.stop("unit running but not scheduled here");
        }
        Reached::Working
    }

    fn loaded(&mut self) -> Reached {
        let observed = self.observed;
        let started = observed.working == Some(Working::Starting)
            || matches!(
                observed.phase(),
                Some(Phase::Starting | Phase::Launched | Phase::Stopping)
            );
        if started && !self.is_idle_and_down() {
            if !self.refuse_to_stop("the order is to load it only") {
                self.stop("unit currently launched but desired state is loaded");
            }
            return Reached::Working;
        }
        match observed.file {
            Some(hash) if hash == self.assignment.hash => {
                let record = self.record(Phase::Loaded);
                if observed.record.as_ref() == Some(&record) {
                    return Reached::Loaded;
                }
                self.task(TaskKind::Remember(record), "unit already loaded");
            }
            Some(_) => {
                if self.down_for_new_contents() {
                    self.load(Phase::Loaded, "unit loaded but hash differs to expected");
                }
            }
            None => self.load(Phase::Loaded, "unit scheduled here but not loaded"),
        }
        Reached::Working
    }

    fn launched(&mut self) -> Reached {
        let observed = self.observed;
        match observed.file {
            Some(hash) if hash == self.assignment.hash => self.launched_with_right_file(),
            // Where a unit may run is no business of its process.
            Some(_) if self.only_requirements_differ() => {
                // A start in flight is let come to its end first.
                if observed.working.is_none() {
                    self.load(Phase::Launched, "only its requirements have changed");
                }
                Reached::Working
            }
            Some(_) => {
                if self.down_for_new_contents() && self.may_start() {
                    self.load(Phase::Loaded, "unit loaded but hash differs to expected");
                    self.start("unit currently loaded but desired state is launched");
                }
                Reached::Working
            }
            // Its file was taken away by hand while it runs: put it back, touch nothing else.
            None if !observed.is_down() && self.owned() => {
                let phase = observed.phase().unwrap_or(Phase::Loaded);
                self.load(phase, "the file of a running unit is missing");
                Reached::Working
            }
            None => {
                if observed.working.is_none() && self.may_start() {
                    self.load(Phase::Loaded, "unit scheduled here but not loaded");
                    self.start("unit currently loaded but desired state is launched");
                }
                Reached::Working
            }
        }
    }

    fn launched_with_right_file(&mut self) -> Reached {
        let (observed, assignment) = (self.observed, self.assignment);
        // A start in flight is not asked for twice; its end will be planned for.
        if observed.working.is_some() {
            return Reached::Working;
        }
        let Some(record) = observed.record.as_ref().filter(|r| r.phase != Phase::Gone) else {
            return self.start_or_adopt("unit currently loaded but desired state is launched");
        };
        match record.phase {
            Phase::Launched => {
                if assignment.restarts > record.restarts {
                    if self.may_start()
                        && (observed.is_down() || !self.refuse_to_stop("a restart was asked for"))
                    {
                        self.task(
                            TaskKind::Restart(self.record(Phase::Starting)),
                            "a restart was asked for",
                        );
                    }
                    return Reached::Working;
                }
                if assignment.decision.generation > record.decision.generation {
                    return self.start_or_adopt("a start was asked for again");
                }
                if planted!("adopted units are restarted") && assignment.decision != record.decision
                {
                    self.task(TaskKind::Restart(self.record(Phase::Starting)), "");
                    return Reached::Working;
                }
                if assignment.decision != record.decision {
                    return self.adopt("same wish, newer placement");
                }
                if observed.is_down() && planted!("what has failed is started again") {
                    self.start("");
                    return Reached::Working;
                }
                Reached::Launched
            }
            Phase::Starting => {
                // The agent died between intent and result. Another invocation than the one
                // before the intent shows that the start happened.
                let ran = observed.active == "failed"
                    || (!observed.invocation_id.is_empty()
                        && observed.invocation_id != record.invocation_id);
                let is_newer = assignment.decision.generation > record.decision.generation;
                if is_newer && observed.is_down() {
                    return self.start_or_adopt("a start was asked for again");
                }
                if !ran && observed.active == "active" && !observed.invocation_id.is_empty() {
                    // Up all the time: only a restart is asked for then, and it was not.
                    if !self.refuse_to_stop("a restart was asked for") && self.may_start() {
                        let record = self.record(Phase::Starting);
                        self.task(TaskKind::Restart(record), "the restart was interrupted");
                    }
                // What is still going down was there before.
                } else if ran || !observed.is_down() && observed.active != "deactivating" {
                    return self.adopt("the start had happened");
                } else if self.may_start() {
                    self.start("the start was interrupted");
                }
                Reached::Working
            }
            // What fleet has stopped is started again, also for the same wish.
            Phase::Loaded | Phase::Stopping | Phase::Gone => {
                self.start_or_adopt("unit currently loaded but desired state is launched")
            }
        }
    }

    fn start_or_adopt(&mut self, reason: &str) -> Reached {
        if !self.observed.is_down() && self.observed.active != "deactivating" {
            return self.adopt("unit already running with these contents");
        }
        if self.may_start() {
            self.start(reason);
        }
        Reached::Working
    }

    fn adopt(&mut self, reason: &str) -> Reached {
        let mut record = self.record(Phase::Launched);
        record.invocation_id = self.observed.invocation_id.clone();
        if let Some(known) = &self.observed.record
            && self.circumstances.hold
        {
            // The numbers of a store that is not believed may be above all that the right one gives.
            if known.phase == Phase::Launched {
                return Reached::Launched;
            }
            record.decision = known.decision;
            record.restarts = known.restarts;
        }
        self.task(TaskKind::Remember(record), reason);
        Reached::Working
    }

    fn start(&mut self, reason: &str) {
        self.task(TaskKind::Start(self.record(Phase::Starting)), reason);
    }

    /// The record tells of the stop and, until there is something new, of what was there.
    fn stop(&mut self, reason: &str) {
        let mut record = match &self.observed.record {
            Some(record) => record.clone(),
            None => self.record(Phase::Stopping),
        };
        record.decision = self.assignment.decision;
        if !planted!("a stop is not remembered") {
            record.phase = Phase::Stopping;
        }
        self.task(TaskKind::Stop(record), reason);
    }

    fn load(&mut self, phase: Phase, reason: &str) {
        let mut record = self.record(phase);
        if let Some(old) = &self.observed.record
            && phase != Phase::Loaded
        {
            record.restarts = old.restarts;
            record.invocation_id.clone_from(&old.invocation_id);
        }
        let text = Arc::clone(&self.assignment.text);
        self.task(TaskKind::Load(record, text), reason);
    }

    /// Whether what fleet has started here is what is wanted but for its requirements.
    fn only_requirements_differ(&self) -> bool {
        let observed = self.observed;
        let is_started = matches!(observed.phase(), Some(Phase::Starting | Phase::Launched));
        let runs = observed.working == Some(Working::Starting) || !observed.is_down();
        is_started
            && runs
            && observed.active != "deactivating"
            && observed.body == Some(BodyHash::of_text(&self.assignment.text))
    }

    /// Whether other contents may be written now: the old process is down to the last of its
    /// stop directives, which come from the old file. Orders the stop if it is not.
    fn down_for_new_contents(&mut self) -> bool {
        if self.is_idle_and_down() {
            return true;
        }
        // What is stopped only to be started anew must be allowed to.
        if self.circumstances.start == Start::InDoubt && !self.may_start() {
            return false;
        }
        if !self.refuse_to_stop("its contents are to change") {
            self.stop("unit loaded but hash differs to expected");
        }
        false
    }

    /// Whether the unit must not be stopped now; says so.
    fn refuse_to_stop(&mut self, wanted: &str) -> bool {
        if self.circumstances.hold {
            self.plan.remark = Some(format!(
                "{wanted}, but the store may not be the one that it came from: it is kept"
            ));
        }
        self.circumstances.hold
    }

    /// Whether a unit may be started now; says so if not.
    fn may_start(&mut self) -> bool {
        let why = match self.circumstances.start {
            Start::Allowed => return true,
            Start::NotPresent => {
                "not started: this machine's presence is not certain at the moment"
            }
            Start::InDoubt => {
                "not started: it is Exclusive, and this machine does not believe the store, which \
                 may not know where it runs. Bring the right store back, or say that this one is \
                 right: fleetctl accept-store"
            }
        };
        self.plan.remark = Some(why.to_owned());
        false
    }

    fn is_idle_and_down(&self) -> bool {
        self.observed.is_down() && self.observed.working.is_none()
    }

    /// Whether what runs under this name was started by fleet with the assigned contents.
    fn owned(&self) -> bool {
        self.observed.record.as_ref().is_some_and(|record| {
            record.hash == self.assignment.hash
                && matches!(record.phase, Phase::Starting | Phase::Launched)
        })
    }

    fn record(&self, phase: Phase) -> LaunchRecord {
        LaunchRecord {
            decision: match &self.observed.record {
                Some(old) if planted!("the generation is forgotten") => old.decision,
                _ => self.assignment.decision,
            },
            phase,
            hash: self.assignment.hash,
            restarts: self.assignment.restarts,
            invocation_id: match phase {
                Phase::Starting | Phase::Launched => self.observed.invocation_id.clone(),
                Phase::Loaded | Phase::Stopping | Phase::Gone => String::new(),
            },
        }
    }

    fn task(&mut self, kind: TaskKind, reason: &str) {
        self.plan.tasks.push(Task {
            unit: self.name.clone(),
            kind,
            reason: reason.to_owned(),
        });
    }
}
