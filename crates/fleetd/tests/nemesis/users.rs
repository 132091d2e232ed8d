//! Users: they change their mind, ask any machine, and ask again until they are answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_sandbox::Output;

use crate::chance::Chance;
use crate::clock::{Micros, Stage, now};
use crate::cluster::Cluster;

/// A user waits no longer for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The host itself ends what somebody has no more patience for, within so much more.
pub(crate) const ENDING: Duration = Duration::from_secs(5);
/// What is said of a unit that the store does not have.
const UNKNOWN: &str = "not found in registry";
/// All faults are undone and still nobody answers.
const LAST_PATIENCE: Duration = Duration::from_secs(90);

/// What a user wants a unit to be, and was told that it will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Want {
    pub(crate) goal: Goal,
    /// Which of its two texts.
    pub(crate) text: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Goal {
    Absent,
    Inactive,
    Loaded,
    Launched,
}

/// Something that a user has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) unit: String,
    pub(crate) what: String,
    pub(crate) begun: Micros,
}

impl Act {
    /// A unit that runs is stopped for it, or started anew.
    pub(crate) fn may_stop(&self) -> bool {
        let is_start = self.what.starts_with("start") || self.what.starts_with("submit");
        !is_start || self.what.contains("--replace")
    }
}

/// All that users asked and were told.
#[derive(Default)]
pub(crate) struct Town {
    pub(crate) wants: Mutex<BTreeMap<String, Want>>,
    pub(crate) acts: Mutex<Vec<Act>>,
    /// In this round etcd is restored from a copy that has been made.
    pub(crate) restored: AtomicBool,
}

/// One round of the users.
pub(crate) struct Users<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) stage: &'a Stage,
    pub(crate) town: &'a Town,
    pub(crate) length: Duration,
}

impl Users<'_> {
    /// Looks after one unit until the round is over; the last question is answered before.
    pub(crate) fn look_after(&self, unit: &str, rng: &mut Chance) {
        loop {
            let next = self.stage.elapsed() + rng.between(500, 4_000);
            if next > self.length || !self.stage.until(next) {
                return;
            }
            let want = self.want(unit);
            let (args, new) = ask(unit, want, rng);
            // Whoever restores an old copy asks users to wait: what they were told meanwhile is lost.
            if self.is_restored() {
                return;
            }
            if self.insist(unit, &args, rng, false) {
                self.set(unit, new);
            }
        }
    }

    /// Asks one machine after the other until one has said yes. False: etcd was restored from an old
    /// copy meanwhile; its user will ask again when that is over, and this is not it yet.
    fn insist(&self, unit: &str, args: &[String], rng: &mut Chance, at_last: bool) -> bool {
        let n_hosts = self.cluster.sandbox.hosts().len();
        let mut last = String::new();
        while self.stage.elapsed() < self.length + LAST_PATIENCE {
            match self.once(unit, args, rng.below(n_hosts)) {
                Ok(()) => return true,
                Err(_) if self.is_restored() && !at_last => return false,
                Err(why) => last = why,
            }
            // A person takes a breath.
            if !self
                .stage
                .until(self.stage.elapsed() + Duration::from_millis(300))
            {
                return false;
            }
        }
        panic!("nobody carries out {args:?}: {last}");
    }

    fn once(&self, unit: &str, args: &[String], host: usize) -> Result<(), String> {
        let act = Act {
            unit: unit.to_owned(),
            what: args.join(" "),
            begun: now(),
        };
        let mut acts = self
            .town
            .acts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        acts.push(act);
        drop(acts);
        let argv = given_up_after(PATIENCE, args);
        let host = self.cluster.host(host);
        match host.exec_with(&argv, None, PATIENCE + ENDING) {
            Ok(out) if is_answered(&out, &args[0]) => Ok(()),
            Ok(out) => Err(crate::cluster::told(&out)),
            Err(e) => Err(e.to_string()),
        }
    }

    /// The store was replaced by an old copy: the user asks again for what they want.
    pub(crate) fn ask_again(&self, unit: &str, rng: &mut Chance) {
        let want = self.want(unit);
        let file = path(unit, want.text);
        let commands: &[&[&str]] = match want.goal {
            // Where it runs unknown to the copy, only a word about it ends that.
            Goal::Absent => &[&["submit", &file], &["destroy", "--no-block", unit]],
            Goal::Inactive => &[
                &["submit", &file],
                &["unload", "--no-block", unit],
                &["submit", "--replace", &file],
            ],
            // A launched unit is not loaded, but stopped; an inactive one is not stopped.
            Goal::Loaded => &[
                &["start", "--no-block", "--replace", &file],
                &["stop", "--no-block", unit],
            ],
            Goal::Launched => &[&["start", "--no-block", "--replace", &file]],
        };
        for command in commands {
            let args: Vec<String> = command.iter().map(|arg| (*arg).to_owned()).collect();
            self.insist(unit, &args, rng, true);
        }
    }

    /// A unit that may have failed, or not be moved any more, is started anew: it counts from the
    /// beginning.
    pub(crate) fn start_anew(&self, unit: &str, rng: &mut Chance) {
        let args = not_blocking("start", &path(unit, self.want(unit).text));
        self.insist(unit, &args, rng, true);
    }

    fn is_restored(&self) -> bool {
        self.town.restored.load(Ordering::Relaxed)
    }

    fn want(&self, unit: &str) -> Want {
        let wants = self
            .town
            .wants
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        wants.get(unit).copied().unwrap_or(Want {
            goal: Goal::Absent,
            text: 1,
        })
    }

    fn set(&self, unit: &str, want: Want) {
        let mut wants = self
            .town
            .wants
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        wants.insert(unit.to_owned(), want);
    }
}

/// Where hosts have a unit's file.
pub(crate) fn path(unit: &str, version: usize) -> String {
    format!("/units/{version}/{unit}")
}

/// What a user asks next, and what the unit will be when it is granted.
fn ask(unit: &str, want: Want, rng: &mut Chance) -> (Vec<String>, Want) {
    let file = |version: usize| path(unit, version);
    let verbs: &[&str] = match want.goal {
        Goal::Absent => &["start", "start", "load", "submit"],
        Goal::Inactive => &["start", "start", "load", "destroy"],
        Goal::Loaded => &["start", "start", "unload", "destroy"],
        Goal::Launched => &["stop", "unload", "destroy", "restart", "replace", "start"],
    };
    let verb = verbs[rng.below(verbs.len())];
    let (args, goal, text) = match verb {
        "submit" => (
            vec!["submit".to_owned(), file(want.text)],
            Goal::Inactive,
            want.text,
        ),
        "load" => (
            not_blocking("load", &file(want.text)),
            Goal::Loaded,
            want.text,
        ),
        "start" => (
            not_blocking("start", &file(want.text)),
            Goal::Launched,
            want.text,
        ),
        "stop" => (not_blocking("stop", unit), Goal::Loaded, want.text),
        "unload" => (not_blocking("unload", unit), Goal::Inactive, want.text),
        "restart" => (not_blocking("restart", unit), Goal::Launched, want.text),
        "replace" => {
            let other = 3 - want.text;
            let mut args = not_blocking("start", &file(other));
            args.push("--replace".to_owned());
            (args, Goal::Launched, other)
        }
        _ => (not_blocking("destroy", unit), Goal::Absent, want.text),
    };
    (args, Want { goal, text })
}

fn not_blocking(verb: &str, what: &str) -> Vec<String> {
    vec![verb.to_owned(), "--no-block".to_owned(), what.to_owned()]
}

/// fleetctl, for whoever has so much patience. Who has no more of it ends the command: on a host that stood
/// still it would go on when that is over, behind what was asked for next.
pub(crate) fn given_up_after(patience: Duration, args: &[impl AsRef<str>]) -> Vec<String> {
    let seconds = patience.as_secs().to_string();
    let fleetctl = ["timeout", "--signal=KILL", &seconds, "fleetctl"];
    let args = args.iter().map(AsRef::as_ref);
    fleetctl
        .into_iter()
        .chain(args)
        .map(str::to_owned)
        .collect()
}

/// What is asked for a second time may have been done by the first.
fn is_answered(out: &Output, verb: &str) -> bool {
    out.success() || verb == "destroy" && out.stderr.contains(UNKNOWN)
}
