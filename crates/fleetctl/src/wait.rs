//! Waiting until units are what was wished for: how long, and what to say meanwhile.
//!
//! [`Waits`] decides and does nothing else: progress and the time go in, [`Event`]s come out.
//! The wait itself is fleetd's (`v2`), or polling where fleetd is an original one (`v1`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_api::client::Error;
use fleet_api::v2::{MachineRef, Progress};
use tokio::time::Instant;

use crate::report::{Goal, Report};

pub(crate) mod v1;
pub(crate) mod v2;
mod words;

use words::{doing, log, pending_text, trouble};

/// A unit that no machine may run is waited for so long: a machine that is just booting may
/// still come, a wrong requirement will not mend itself.
const PENDING_BOUND: Duration = Duration::from_secs(10);

/// A unit that a machine is at work on is waited for so long: longer than systemd's own 90 s,
/// after which it gives up and the unit's failure is seen.
const WORKING_BOUND: Duration = Duration::from_secs(120);

/// One attempt of `--block-attempts`; the original's.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Somebody at a terminal who has seen nothing for so long is told what is waited for.
const NOTICE_AFTER: Duration = Duration::from_secs(3);

/// And again so often.
const NOTICE_EVERY: Duration = Duration::from_secs(30);

/// So many units are named in a notice.
const MAX_NAMED: usize = 3;

/// How long to wait for one unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    /// While no machine may run it.
    pub(crate) pending: Duration,
    /// While a machine is at work on it.
    pub(crate) working: Duration,
    /// The time counts from the beginning, whatever becomes of the unit meanwhile.
    pub(crate) is_total: bool,
}

impl Bounds {
    /// `--block-attempts`: so many times two seconds; 0: the defaults.
    pub(crate) fn of_attempts(attempts: u32) -> Bounds {
        match attempts {
            0 => Bounds {
                pending: PENDING_BOUND,
                working: WORKING_BOUND,
                is_total: false,
            },
            n => Bounds {
                pending: ATTEMPT * n,
                working: ATTEMPT * n,
                is_total: true,
            },
        }
    }
}

/// A unit to wait for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Awaited {
    pub(crate) name: String,
    /// Of the wish; 0 with an original fleetd, which knows none.
    pub(crate) generation: u64,
    pub(crate) goal: Goal,
    pub(crate) global: bool,
    /// It is to do less than before: stop, unload, destroy.
    pub(crate) stops: bool,
    /// systemd's InvocationIDs before a restart: they must change.
    pub(crate) before: Vec<String>,
}

impl Awaited {
    pub(crate) fn new(name: &str, generation: u64, goal: Goal, global: bool) -> Awaited {
        Awaited {
            name: name.to_owned(),
            generation,
            goal,
            global,
            stops: false,
            before: Vec::new(),
        }
    }
}

/// What to say of a unit.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// It is what was wished for, there.
    Reached {
        unit: String,
        goal: Goal,
        machine: Option<MachineRef>,
    },
    /// It will not be, or has not been for too long.
    Failed {
        unit: String,
        text: String,
        log: Vec<String>,
    },
    /// How it goes.
    Note(String),
}

/// How a wait ended.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    /// Units that are what was wished for.
    pub(crate) reached: Vec<String>,
    /// Units that are not, and why.
    pub(crate) failed: Vec<(String, String)>,
    /// Ctrl-C.
    pub(crate) interrupted: bool,
}

impl Waited {
    /// Nothing has come of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.reached.is_empty() && self.failed.is_empty()
    }

    /// Says it, and keeps what counts.
    fn take(&mut self, event: Event, report: &Report<'_>) {
        match event {
            Event::Reached {
                unit,
                goal,
                machine,
            } => report.reached(&unit, goal, machine.as_ref()),
            Event::Failed { unit, text, log } => {
                let line = format!("Error waiting for units: {text}");
                report.failed_with_log(&unit, &line, &log);
                self.failed.push((unit, text));
            }
            Event::Note(text) => report.ui.note(&text),
        }
    }
}

/// Units that are waited for.
pub(crate) struct Waits {
    bounds: Bounds,
    /// Those that are not final.
    open: BTreeMap<String, Open>,
    /// No unit's time ends earlier.
    next_end: Option<Instant>,
    /// When to say what is waited for.
    notice_at: Option<Instant>,
    pub(crate) reached: Vec<String>,
}

struct Open {
    awaited: Awaited,
    is_pending: bool,
    /// In this phase.
    since: Instant,
    /// Why it is not there yet.
    reason: String,
    /// Machines of a global unit that have been told of. A state that changes is told anew by
    /// fleetd, and not by us.
    told: BTreeSet<String>,
    has_failed: bool,
}

impl Waits {
    pub(crate) fn new(awaited: Vec<Awaited>, bounds: Bounds, now: Instant) -> Waits {
        let open = awaited.into_iter().map(|awaited| {
            let one = Open {
                awaited,
                is_pending: false,
                since: now,
                reason: String::new(),
                told: BTreeSet::new(),
                has_failed: false,
            };
            (one.awaited.name.clone(), one)
        });
        let open: BTreeMap<String, Open> = open.collect();
        Waits {
            bounds,
            notice_at: None,
            next_end: (!open.is_empty()).then_some(now + bounds.pending.min(bounds.working)),
            open,
            reached: Vec::new(),
        }
    }

    /// Tells from time to time what is waited for, if somebody `is_watching`.
    pub(crate) fn noticed(self, is_watching: bool, now: Instant) -> Waits {
        Waits {
            notice_at: is_watching.then_some(now + NOTICE_AFTER),
            ..self
        }
    }

    /// Those that are not final.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Awaited> {
        self.open.values().map(|open| &open.awaited)
    }

    /// When [`Waits::expire`] must be called next; None: all are final.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        let end = self.next_end.filter(|_| !self.open.is_empty())?;
        Some(self.notice_at.map_or(end, |notice| notice.min(end)))
    }

    /// fleetd says how far a unit has come.
    pub(crate) fn progress(&mut self, progress: &Progress, now: Instant) -> Vec<Event> {
        let Some(open) = self.open.get_mut(&progress.name) else {
            return Vec::new();
        };
        let goal = open.awaited.goal;
        let mut events = Vec::new();
        if progress.phase == "pending" && goal != Goal::Destroyed {
            if open.awaited.stops {
                // What runs nowhere has been stopped.
                events.push(self.reach(&progress.name, Goal::Inactive, None));
                return events;
            }
            events.extend(open.pending(progress));
            if open.awaited.global {
                // It runs on every machine that qualifies: on none, at present. Nothing has failed,
                // and nothing has been reached.
                self.open.remove(&progress.name);
                return events;
            }
            self.enter(&progress.name, true, now);
            return events;
        }
        if !open.is_success(progress) && matches!(progress.phase.as_str(), "failed" | "refused") {
            events.extend(open.trouble(progress));
            if progress.is_final {
                self.open.remove(&progress.name);
            } else {
                self.enter(&progress.name, false, now);
                if let Some(open) = self.open.get_mut(&progress.name) {
                    open.reason.clone_from(&progress.reason);
                }
            }
            return events;
        }
        if let Some(event) = open.reached_on_machine(progress) {
            events.push(event);
        }
        if !progress.is_final {
            // `submitted` says nothing new: the engine has not looked at it yet.
            if progress.phase != "submitted" {
                let reason = doing(progress);
                self.enter(&progress.name, false, now);
                if let Some(open) = self.open.get_mut(&progress.name) {
                    open.reason = reason;
                }
            }
            return events;
        }
        if !open.is_success(progress) {
            events.push(Event::Failed {
                unit: progress.name.clone(),
                text: format!(
                    "unit {} was changed by somebody else: it is {} now",
                    progress.name, progress.phase
                ),
                log: Vec::new(),
            });
            self.open.remove(&progress.name);
        } else if open.has_failed {
            self.open.remove(&progress.name);
        } else if open.awaited.global && goal != Goal::Destroyed {
            self.close(&progress.name);
        } else if let Some(text) = open.not_restarted(progress) {
            events.push(Event::Failed {
                unit: progress.name.clone(),
                text,
                log: Vec::new(),
            });
            self.open.remove(&progress.name);
        } else {
            // A machine that cannot confirm it, since it is lost.
            let is_off = matches!(goal, Goal::Inactive | Goal::Destroyed);
            if is_off && progress.machine.is_some() && !progress.reason.is_empty() {
                let text = format!("Unit {}: {}", progress.name, progress.reason);
                events.push(Event::Note(text));
            }
            events.push(self.reach(&progress.name, goal, progress.machine.clone()));
        }
        events
    }

    /// A unit cannot be waited for, since asking for it failed.
    pub(crate) fn fail_all(&mut self, why: &str) -> Vec<Event> {
        let failed = std::mem::take(&mut self.open).into_keys();
        failed
            .map(|unit| Event::Failed {
                text: format!("unit {unit}: {why}"),
                unit,
                log: Vec::new(),
            })
            .collect()
    }

    /// The units whose time is over. The wishes stand.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        let mut next_end: Option<Instant> = None;
        let bounds = self.bounds;
        self.open.retain(|name, open| {
            let end = open.end(bounds);
            if end > now {
                next_end = Some(next_end.map_or(end, |next| next.min(end)));
                return true;
            }
            events.push(Event::Failed {
                unit: name.clone(),
                text: open.timed_out(),
                log: Vec::new(),
            });
            false
        });
        self.next_end = next_end;
        if self.notice_at.is_some_and(|at| at <= now) && !self.open.is_empty() {
            self.notice_at = Some(now + NOTICE_EVERY);
            events.push(Event::Note(self.notice()));
        }
        events
    }

    /// `Waiting for slow.service: systemd says loaded/activating/start`
    fn notice(&self) -> String {
        let named = self.open.values().take(MAX_NAMED);
        let named = named.map(|open| match open.reason.as_str() {
            "" => open.awaited.name.clone(),
            reason if reason.contains(&open.awaited.name) => reason.to_owned(),
            reason => format!("{}: {reason}", open.awaited.name),
        });
        let mut text = format!("Waiting for {}", named.collect::<Vec<_>>().join(", "));
        if self.open.len() > MAX_NAMED {
            text.push_str(&format!(" and {} more", self.open.len() - MAX_NAMED));
        }
        text.push_str(" (Ctrl-C ends the wait, not the request)");
        text
    }

    fn enter(&mut self, name: &str, is_pending: bool, now: Instant) {
        let Some(open) = self.open.get_mut(name) else {
            return;
        };
        if open.is_pending != is_pending {
            open.is_pending = is_pending;
            if !self.bounds.is_total {
                open.since = now;
            }
            let end = open.end(self.bounds);
            self.next_end = Some(self.next_end.map_or(end, |next| next.min(end)));
        }
    }

    fn reach(&mut self, name: &str, goal: Goal, machine: Option<MachineRef>) -> Event {
        self.close(name);
        Event::Reached {
            unit: name.to_owned(),
            goal,
            machine,
        }
    }

    fn close(&mut self, name: &str) {
        self.open.remove(name);
        self.reached.push(name.to_owned());
    }
}

impl Open {
    fn end(&self, bounds: Bounds) -> Instant {
        self.since
            + match self.is_pending {
                true => bounds.pending,
                false => bounds.working,
            }
    }

    /// What to say when no machine may run it, unless that has been said.
    fn pending(&mut self, progress: &Progress) -> Option<Event> {
        let text = pending_text(progress);
        if text == self.reason {
            return None;
        }
        self.reason.clone_from(&text);
        Some(Event::Note(text))
    }

    /// The phase is what was wished for. A unit that has failed has been stopped, too.
    fn is_success(&self, progress: &Progress) -> bool {
        let reached = progress.state.as_ref().map(|state| state.reached.as_str());
        progress.phase == self.awaited.goal.as_str()
            || (progress.phase == "failed"
                && match self.awaited.goal {
                    Goal::Launched => false,
                    Goal::Loaded => reached == Some("loaded"),
                    Goal::Inactive | Goal::Destroyed => reached == Some("gone"),
                })
    }

    /// A machine of a global unit has got there.
    fn reached_on_machine(&mut self, progress: &Progress) -> Option<Event> {
        let machine = progress.machine.as_ref()?;
        let is_news = self.awaited.global
            && self.is_success(progress)
            && self.told.insert(machine.id.clone());
        if !is_news {
            return None;
        }
        Some(Event::Reached {
            unit: progress.name.clone(),
            goal: self.awaited.goal,
            machine: progress.machine.clone(),
        })
    }

    /// It has failed or was refused: for good, on one machine of a global unit, or with another
    /// machine to come.
    fn trouble(&mut self, progress: &Progress) -> Option<Event> {
        let text = trouble(progress);
        let is_of_machine = self.awaited.global && progress.machine.is_some();
        if let (true, Some(machine)) = (is_of_machine, &progress.machine)
            && !self.told.insert(machine.id.clone())
        {
            return None;
        }
        let is_failure = progress.is_final || (is_of_machine && progress.phase == "failed");
        if !is_failure {
            return Some(Event::Note(text));
        }
        // The last line of a global unit repeats what its machines have said.
        if std::mem::replace(&mut self.has_failed, true) && !is_of_machine {
            return None;
        }
        Some(Event::Failed {
            unit: progress.name.clone(),
            text,
            log: log(progress),
        })
    }

    /// After a restart the unit must be another invocation.
    fn not_restarted(&self, progress: &Progress) -> Option<String> {
        let now = &progress.state.as_ref()?.invocation_id;
        let is_same = !now.is_empty() && self.awaited.before.contains(now);
        is_same.then(|| {
            format!(
                "unit {} was not restarted: it is still invocation {now}",
                self.awaited.name
            )
        })
    }

    fn timed_out(&self) -> String {
        let Awaited {
            name, goal, stops, ..
        } = &self.awaited;
        let mut text = format!(
            "timed out waiting for unit {name} to report state {}",
            goal.as_str()
        );
        if !self.reason.is_empty() {
            text.push_str(&format!(" ({})", self.reason));
        }
        text.push_str(match (stops, self.is_pending) {
            (true, _) => "; the request stands",
            (false, true) => "; it stays wanted and starts as soon as a machine may run it",
            (false, false) => "; it stays wanted",
        });
        text
    }
}

/// Asking again may help.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Broken { .. } | Error::Timeout { .. } => true,
        Error::Answer { code, .. } => *code >= 500,
        Error::NoWay(_) | Error::NoV2 | Error::Protocol { .. } => false,
    }
}

#[cfg(test)]
mod tests;
