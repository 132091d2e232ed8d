//! What an agent must do: from what a machine should run and what is there, the tasks.
//!
//! [`plan_unit`] decides for one unit, [`plan`] for all in the order in which tasks are done.
//! Planning is level-triggered: a plan holds what can be done *now*. A change of contents first
//! yields a stop; when systemd says that the unit is down, the next plan writes and starts. So a
//! unit that takes a minute to stop delays nobody else, and what happens while an agent is dead
//! needs no memory but the files beside the units ([`LaunchRecord`]).
//!
//! **Invariant:** absence is not a command. Without an assignment there is no task that stops,
//! removes or rewrites anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::body::BodyHash;
use crate::hash::UnitHash;
use crate::name::UnitName;
use crate::records::{AssignmentRecord, Decision, Order, Reached, StateRecord};

mod planner;

use planner::Planner;

/// How far fleet has brought a unit on this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// Its file is in place; fleet has not started it.
    Loaded,
    /// A start was about to be asked for: it may or may not have happened.
    Starting,
    /// systemd's job of the start is done. What became of the process is systemd's matter: the
    /// unit is not started again for the same generation.
    Launched,
    /// A stop was about to be asked for: whatever started it before, it does not run any more, or
    /// will not. If it is wanted again it is started again.
    Stopping,
    /// Stopped and removed on order; kept until the cluster has forgotten the assignment.
    Gone,
}

impl Phase {
    /// The word in the record's file.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Loaded => "loaded",
            Phase::Starting => "starting",
            Phase::Launched => "launched",
            Phase::Stopping => "stopping",
            Phase::Gone => "gone",
        }
    }

    /// The reverse of [`Phase::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [
            Phase::Loaded,
            Phase::Starting,
            Phase::Launched,
            Phase::Stopping,
            Phase::Gone,
        ]
        .into_iter()
        .find(|phase| phase.as_str() == word)
    }
}

/// What the agent remembers of a unit, in a file that lives exactly as long as the boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchRecord {
    /// The newest decision that was acted on.
    pub decision: Decision,
    /// How far.
    pub phase: Phase,
    /// The text that was acted on.
    pub hash: UnitHash,
    /// The restarts counter that was acted on.
    pub restarts: u64,
    /// [`Phase::Launched`]: the invocation that the start made. [`Phase::Starting`]: the one
    /// before it. Empty if none is known.
    pub invocation_id: String,
}

/// A task in flight for a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Working {
    /// Its file is being written, removed, or its record.
    Files,
    /// A start or restart was asked for and is not done.
    Starting,
    /// A stop was asked for and is not done.
    Stopping,
}

/// An attempt that failed for a reason that may pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The decision that was being carried out.
    pub decision: Decision,
    /// What happened.
    pub why: String,
    /// The time to try again has come.
    pub due: bool,
}

/// Why a unit is not running, as systemd says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failure {
    /// `exit-code: main process exited, status 1/FAILURE`
    pub why: String,
    /// The last lines of that invocation's journal.
    pub log: Vec<String>,
}

/// What is on this machine of one unit. The default: nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Hash of fleet's file on disk; None: there is no such file.
    pub file: Option<UnitHash>,
    /// What of that file makes the process.
    pub body: Option<BodyHash>,
    /// What was remembered. None: nothing was, or it is of another boot.
    pub record: Option<LaunchRecord>,
    /// Something was remembered that makes no sense to this fleetd, and what is to be done about it:
    /// a newer one has written it. Until then the unit is left alone.
    pub unreadable: Option<String>,
    /// systemd's LoadState; empty if not known.
    pub load: String,
    /// systemd's ActiveState; empty if not known, which counts as `inactive`.
    pub active: String,
    /// systemd's SubState.
    pub sub: String,
    /// systemd's InvocationID in hex; empty while never started.
    pub invocation_id: String,
    /// The unit's Description.
    pub description: String,
    /// A task is in flight.
    pub working: Option<Working>,
    /// The machine can never carry out this decision, and why.
    pub refused: Option<(Decision, String)>,
    /// The last attempt failed, and may be repeated.
    pub attempt: Option<Attempt>,
    /// Why it failed; kept until it starts again.
    pub failure: Option<Failure>,
    /// It has failed and the reason is still being looked up.
    pub failure_pending: bool,
    /// Fleet's file here is of an exclusive unit: what runs, if anything, is bound to the lease.
    pub is_exclusive: bool,
    /// The end of that lease was set by this fleetd. What one before it has set may be later.
    pub is_lease_set: bool,
}

impl Observed {
    /// Nothing of fleet's is here.
    pub fn is_nothing(&self) -> bool {
        self.file.is_none()
            && self.record.is_none()
            && self.unreadable.is_none()
            && self.working.is_none()
    }

    /// systemd runs nothing of it and is not about to.
    pub fn is_down(&self) -> bool {
        is_down(&self.active)
    }

    /// The decision that was carried out last, or is being carried out. None: nothing is known of one,
    /// or the unit is gone, and what is remembered of it is about to be forgotten.
    pub fn done(&self) -> Option<Decision> {
        let record = self.record.as_ref();
        let record = record.filter(|record| record.phase != Phase::Gone);
        record.map(|record| record.decision)
    }

    fn phase(&self) -> Option<Phase> {
        self.record.as_ref().map(|record| record.phase)
    }
}

/// Whether systemd runs nothing of a unit with this ActiveState, and is not about to.
pub fn is_down(active: &str) -> bool {
    matches!(active, "" | "inactive" | "failed")
}

/// One step on one unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// The unit.
    pub unit: UnitName,
    /// What to do.
    pub kind: TaskKind,
    /// Why, in words.
    pub reason: String,
}

/// What to do. The order of the variants is the order in which tasks of different units are done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskKind {
    /// Remember the intent, stop it and wait until it is down.
    Stop(LaunchRecord),
    /// It is down: remove its file, links and failed state, and remember that.
    Unload(LaunchRecord),
    /// It is down: write its file and remember that.
    Load(LaunchRecord, Arc<str>),
    /// Change nothing but what is remembered.
    Remember(LaunchRecord),
    /// Remove what is remembered.
    Forget,
    /// Remember the intent and start it.
    Start(LaunchRecord),
    /// Remember the intent and restart it.
    Restart(LaunchRecord),
}

impl TaskKind {
    /// The word for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            TaskKind::Stop(_) => "stop",
            TaskKind::Unload(_) => "unload",
            TaskKind::Load(..) => "load",
            TaskKind::Remember(_) => "remember",
            TaskKind::Forget => "forget",
            TaskKind::Start(_) => "start",
            TaskKind::Restart(_) => "restart",
        }
    }

    /// Its place in [`TaskKind::ALL`] and in a plan.
    pub fn rank(&self) -> usize {
        match self {
            TaskKind::Stop(_) => 0,
            TaskKind::Unload(_) => 1,
            TaskKind::Load(..) => 2,
            TaskKind::Remember(_) => 3,
            TaskKind::Forget => 4,
            TaskKind::Start(_) => 5,
            TaskKind::Restart(_) => 6,
        }
    }

    /// The words of all kinds, by rank.
    pub const ALL: [&'static str; 7] = [
        "stop", "unload", "load", "remember", "forget", "start", "restart",
    ];
}

/// Whether a unit may be started or restarted now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// It may.
    Allowed,
    /// The machine's presence is not certain: somebody else may run its units by now.
    NotPresent,
    /// It must not run twice, and the store, which may be an older copy, may not know where it runs.
    InDoubt,
}

/// What holds for one unit, or for all of a machine, while planning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Circumstances {
    /// systemd can be reached. If not, nothing can be done and nothing is known.
    pub systemd: bool,
    /// Whether it may start.
    pub start: Start,
    /// The store may not be the one that these units came from: nothing is stopped.
    pub hold: bool,
}

impl Circumstances {
    /// All is well.
    pub const GOOD: Circumstances = Circumstances {
        systemd: true,
        start: Start::Allowed,
        hold: false,
    };
}

/// What is to be said of a unit in `states/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The newest decision carried out or worked on.
    pub decision: Decision,
    /// How far.
    pub reached: Reached,
    /// Why it was refused, cannot go on, or failed.
    pub why: Option<String>,
    /// This will stand for a while: say it at once. Otherwise only if it lasts.
    pub settled: bool,
}

/// What to do about a unit, and what to say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnitPlan {
    /// In the order in which they must be done.
    pub tasks: Vec<Task>,
    /// For `states/`; None: nothing (new) can be said.
    pub report: Option<Report>,
    /// Why nothing is done although something seems wrong: worth a line in the log.
    pub remark: Option<String>,
}

/// All tasks for all units, in the order of [`TaskKind`] and then of the names.
pub fn plan(
    desired: &BTreeMap<UnitName, AssignmentRecord>,
    observed: &BTreeMap<UnitName, Observed>,
    circumstances: Circumstances,
) -> Vec<Task> {
    let nothing = Observed::default();
    let mut names: Vec<&UnitName> = desired.keys().chain(observed.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut tasks: Vec<Task> = names
        .into_iter()
        .flat_map(|name| {
            let observed = observed.get(name).unwrap_or(&nothing);
            plan_unit(name, desired.get(name), observed, circumstances).tasks
        })
        .collect();
    in_order(&mut tasks);
    tasks
}

/// Sorts the tasks of many units: stops, removals and files before starts.
pub fn in_order(tasks: &mut [Task]) {
    tasks.sort_by(|a, b| (a.kind.rank(), &a.unit).cmp(&(b.kind.rank(), &b.unit)));
}

/// What to do about one unit now, and what to say about it.
pub fn plan_unit(
    name: &UnitName,
    assignment: Option<&AssignmentRecord>,
    observed: &Observed,
    circumstances: Circumstances,
) -> UnitPlan {
    if !circumstances.systemd {
        return UnitPlan::default();
    }
    if let Some(why) = &observed.unreadable {
        return left_alone(assignment, observed, why);
    }
    let Some(assignment) = assignment else {
        if planted!("a vanished assignment is a stop")
            && let Some(record) = &observed.record
            && !observed.is_down()
            && observed.working.is_none()
        {
            let task = Task {
                unit: name.clone(),
                kind: TaskKind::Stop(record.clone()),
                reason: String::new(),
            };
            return UnitPlan {
                tasks: vec![task],
                ..UnitPlan::default()
            };
        }
        return without_assignment(observed);
    };
    if let Some(record) = &observed.record
        && assignment.decision < record.decision
    {
        return UnitPlan {
            remark: Some(format!(
                "the assignment is older ({}) than what was done ({}): ignored",
                assignment.decision, record.decision
            )),
            report: Some(report_kept(record, observed)),
            ..UnitPlan::default()
        };
    }
    let mut planner = Planner {
        name,
        assignment,
        observed,
        circumstances,
        plan: UnitPlan::default(),
    };
    let reached = planner.decide();
    let mut plan = planner.plan;
    let mut report = report(assignment.decision, reached, observed);
    // What is tried again right now will not stand: only its outcome is worth saying.
    report.settled &= reached != Reached::Working || plan.tasks.is_empty();
    if circumstances.start == Start::InDoubt && reached == Reached::Working && plan.tasks.is_empty()
    {
        // It stands until somebody does something about it.
        report.settled |= plan.remark.is_some();
        report.why = plan.remark.clone().or(report.why);
    }
    plan.report = Some(report);
    plan
}

impl UnitPlan {
    /// Whether it lets contents of a store count that did not count before: it writes them, starts
    /// them, or stops what runs to make room for them. They must be trusted then; to carry out another
    /// order on what is here they need not be.
    pub fn brings_in(&self, assignment: &AssignmentRecord, observed: &Observed) -> bool {
        self.tasks.iter().any(|task| match task.kind {
            TaskKind::Load(..) | TaskKind::Start(_) | TaskKind::Restart(_) => true,
            TaskKind::Stop(_) => {
                assignment.order != Order::Gone && observed.file != Some(assignment.hash)
            }
            TaskKind::Unload(_) | TaskKind::Remember(_) | TaskKind::Forget => false,
        })
    }

    /// The plan instead of one that [`UnitPlan::brings_in`] contents that are not trusted, and why not:
    /// nothing is done. What runs goes on running: only a machine where nothing does refuses the unit,
    /// since it is placed elsewhere then.
    pub fn of_untrusted(
        assignment: &AssignmentRecord,
        observed: &Observed,
        why: String,
    ) -> UnitPlan {
        let reached = match observed.is_down() && observed.working.is_none() {
            true => Reached::Refused,
            false => Reached::Working,
        };
        UnitPlan {
            tasks: Vec::new(),
            report: Some(Report {
                decision: assignment.decision,
                reached,
                why: Some(why.clone()),
                settled: true,
            }),
            remark: Some(why),
        }
    }
}

/// What is to be remembered of a unit instead, before a store is believed that it did not come
/// from: an older copy counts anew from where it is, so that its decisions are not to be compared
/// with what was remembered. None: nothing is to be changed, or it cannot be at the moment.
pub fn believing(
    name: &UnitName,
    assignment: Option<&AssignmentRecord>,
    observed: &Observed,
) -> Option<Task> {
    let record = observed.record.as_ref()?;
    // What is in flight writes its own record when it is done.
    if observed.working.is_some() {
        return None;
    }
    let (decision, restarts) = match assignment {
        Some(assignment) => (assignment.decision, assignment.restarts),
        // Whatever this store says of it one day is newer; it is no order to restart it.
        None => (Decision::default(), u64::MAX),
    };
    let task = TaskKind::Remember(LaunchRecord {
        decision,
        restarts,
        ..record.clone()
    });
    (record.decision > decision).then(|| Task {
        unit: name.clone(),
        kind: task,
        reason: "another store is believed from now on".to_owned(),
    })
}

/// Whether a task in flight will yet write a record that the store, which is about to be believed,
/// knows nothing of: it is waited for, to be brought down then ([`believing`]).
pub fn is_still_writing(assignment: Option<&AssignmentRecord>, observed: &Observed) -> bool {
    let known = assignment.map(|assignment| assignment.decision);
    let record = observed.record.as_ref();
    observed.working.is_some()
        && record.is_some_and(|record| record.decision > known.unwrap_or_default())
}

/// The state record that says `report`.
pub fn state_record(
    report: &Report,
    observed: &Observed,
    assigned: Option<UnitHash>,
) -> StateRecord {
    let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
    let gone = matches!(report.reached, Reached::Gone | Reached::Refused);
    let load = match observed.file {
        _ if gone => "not-found",
        Some(_) => "loaded",
        // It has not come so far yet, and is not shown as loaded.
        None => "",
    };
    let failure = observed.failure.as_ref();
    StateRecord {
        load: or(&observed.load, load),
        active: or(&observed.active, "inactive"),
        sub: or(&observed.sub, "dead"),
        hash: observed
            .file
            .or(observed.record.as_ref().map(|record| record.hash))
            .or(assigned)
            .unwrap_or_else(|| UnitHash::of(b"")),
        decision: report.decision,
        reached: report.reached,
        invocation_id: observed.invocation_id.clone(),
        description: observed.description.clone(),
        why: report.why.clone(),
        leased_ms: None,
        log: match failure {
            Some(failure) if !gone => failure.log.clone(),
            _ => Vec::new(),
        },
    }
}

/// Nobody knows what was done with the unit: a start might be a second one, a stop not meant. What
/// runs, runs.
fn left_alone(assignment: Option<&AssignmentRecord>, observed: &Observed, why: &str) -> UnitPlan {
    let report = assignment.map(|assignment| Report {
        why: Some(why.to_owned()),
        settled: true,
        ..report(assignment.decision, Reached::Working, observed)
    });
    UnitPlan {
        tasks: Vec::new(),
        report,
        remark: Some(why.to_owned()),
    }
}

fn without_assignment(observed: &Observed) -> UnitPlan {
    if observed.is_nothing() || observed.working.is_some() {
        return UnitPlan::default();
    }
    match &observed.record {
        // The cluster knows that it is gone; the agent forgets it once its state is removed.
        Some(record) if record.phase == Phase::Gone => UnitPlan::default(),
        record => UnitPlan {
            remark: Some(
                "the unit is here but has no assignment, and absence is no order: it is kept"
                    .to_owned(),
            ),
            report: record.as_ref().map(|record| report_stray(record, observed)),
            ..UnitPlan::default()
        },
    }
}

/// The report on what nobody has ordered. A start or a stop that was under way when its order was lost is
/// asked for by nobody any more: what has come of it is what is here, and the cluster can tell it to go.
fn report_stray(record: &LaunchRecord, observed: &Observed) -> Report {
    let is_halfway = matches!(record.phase, Phase::Starting | Phase::Stopping);
    let passing = matches!(observed.active.as_str(), "activating" | "deactivating");
    if !is_halfway || passing {
        return report_kept(record, observed);
    }
    match observed.file {
        _ if !observed.is_down() => report(record.decision, Reached::Launched, observed),
        Some(_) => report(record.decision, Reached::Loaded, observed),
        None => report_kept(record, observed),
    }
}

/// The report on a unit that stays as its record says.
fn report_kept(record: &LaunchRecord, observed: &Observed) -> Report {
    let reached = match record.phase {
        Phase::Loaded => Reached::Loaded,
        Phase::Starting | Phase::Stopping => Reached::Working,
        Phase::Launched => Reached::Launched,
        Phase::Gone => Reached::Gone,
    };
    report(record.decision, reached, observed)
}

fn report(decision: Decision, reached: Reached, observed: &Observed) -> Report {
    let why = match reached {
        Reached::Refused => observed.refused.as_ref().map(|(_, why)| why.clone()),
        Reached::Working => observed.attempt.as_ref().map(|a| a.why.clone()),
        Reached::Gone => None,
        Reached::Loaded | Reached::Launched => observed.failure.as_ref().map(|f| f.why.clone()),
    };
    let passing = matches!(
        observed.active.as_str(),
        "activating" | "deactivating" | "reloading" | "maintenance"
    );
    let settled = match reached {
        Reached::Gone | Reached::Refused => true,
        // What waits for its next attempt stands for a while; a task in flight does not.
        Reached::Working => observed.working.is_none() && observed.attempt.is_some(),
        Reached::Loaded | Reached::Launched => !passing && !observed.failure_pending,
    };
    Report {
        decision,
        reached,
        why,
        settled,
    }
}

#[cfg(test)]
mod tests;
