//! What became of each unit that a verb was given: one line each, in words or as JSON.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use fleet_api::v2::{MachineRef, MachineView};
use serde::Serialize;

use crate::exit::Exit;
use crate::ui::Ui;

/// So many characters of a machine's id are shown in words.
const SHORT_ID: usize = 8;

/// A desired or reached state, in the API's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Goal {
    Inactive,
    Loaded,
    Launched,
    Destroyed,
}

impl Goal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Goal::Inactive => "inactive",
            Goal::Loaded => "loaded",
            Goal::Launched => "launched",
            Goal::Destroyed => "destroyed",
        }
    }
}

/// `63d22e36.../172.30.1.2`, with `full` the whole id; without the address if it is not known.
pub(crate) fn legend(id: &str, address: &str, full: bool) -> String {
    let mut legend = match full {
        true => id.to_owned(),
        false => short_id(id),
    };
    if !address.is_empty() {
        legend.push('/');
        legend.push_str(address);
    }
    legend
}

/// Text of others as it may be shown: what would move the cursor, colour the terminal or turn the
/// direction of writing is spelled out.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_odd(c) {
            true => visible.extend(c.escape_default()),
            false => visible.push(c),
        }
    }
    Cow::Owned(visible)
}

/// Says what fleetd warned of, once each: mostly records that cannot be read, and are left out.
pub(crate) fn tell_warnings(ui: &Ui, warnings: &[String]) {
    let distinct: BTreeSet<&String> = warnings.iter().collect();
    for warning in &distinct {
        ui.warning(&visible(warning));
    }
    if distinct.iter().any(|warning| warning.contains(DAMAGED)) {
        ui.hint("what cannot be read is left out; fleetctl doctor names all of it, and its cure");
    }
}

/// What fleetd says of a record that it cannot read.
const DAMAGED: &str = "is damaged";

/// `63d22e36...`
pub(crate) fn short_id(id: &str) -> String {
    match id.char_indices().nth(SHORT_ID) {
        Some((end, _)) => format!("{}...", &id[..end]),
        None => id.to_owned(),
    }
}

/// Tells what became of each unit, and remembers whether all went well.
pub(crate) struct Report<'a> {
    pub(crate) ui: &'a Ui,
    json: bool,
    /// Units (and patterns) that something went wrong with.
    failed: RefCell<BTreeSet<String>>,
    /// A request failed because of the cluster; its cure is said once.
    has_hinted: Cell<bool>,
}

/// The line of one unit in JSON.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'a str,
    outcome: &'a str,
    #[serde(rename = "machineID", skip_serializing_if = "str::is_empty")]
    machine_id: &'a str,
    #[serde(rename = "primaryIP", skip_serializing_if = "str::is_empty")]
    primary_ip: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    log: &'a [String],
}

impl<'a> Report<'a> {
    pub(crate) fn new(ui: &'a Ui, json: bool) -> Report<'a> {
        Report {
            ui,
            json,
            failed: RefCell::default(),
            has_hinted: Cell::new(false),
        }
    }

    /// A unit has reached what was wished for.
    pub(crate) fn reached(&self, unit: &str, goal: Goal, machine: Option<&MachineRef>) {
        let (id, ip) = machine.map_or(("", ""), |m| (m.id.as_str(), m.primary_ip.as_str()));
        let words = match goal {
            Goal::Destroyed => format!("Destroyed {unit}"),
            // What is inactive is on no machine.
            goal if id.is_empty() || goal == Goal::Inactive => {
                format!("Unit {unit} {}", goal.as_str())
            }
            goal => format!("Unit {unit} {} on {}", goal.as_str(), legend(id, ip, false)),
        };
        let line = Line {
            unit,
            outcome: goal.as_str(),
            machine_id: id,
            primary_ip: ip,
            ..Line::default()
        };
        self.tell(&words, &line);
    }

    /// A wish was accepted, and nobody waits for it.
    pub(crate) fn triggered(&self, unit: &str, verb: &str, global: bool) {
        let global = if global { "global " } else { "" };
        let line = Line {
            unit,
            outcome: "triggered",
            ..Line::default()
        };
        self.tell(&format!("Triggered {global}unit {unit} {verb}"), &line);
    }

    /// The unit is as it shall be, already.
    pub(crate) fn same(&self, unit: &str) {
        let line = Line {
            unit,
            outcome: "unchanged",
            ..Line::default()
        };
        let words = format!("Found same Unit({unit}) in Registry, nothing to do");
        self.tell(&words, &line);
    }

    /// What has become of a machine, or of a unit of it (`moved`, `stopped`).
    pub(crate) fn machine(&self, unit: &str, outcome: &str, machine: &MachineView, words: &str) {
        let line = Line {
            unit,
            outcome,
            machine_id: &machine.id,
            primary_ip: &machine.primary_ip,
            ..Line::default()
        };
        self.tell(words, &line);
    }

    /// As [`Report::failed`], about a machine.
    pub(crate) fn failed_machine(&self, machine: &str, text: &str) {
        self.failed.borrow_mut().insert(machine.to_owned());
        self.ui.error(text);
        if self.json {
            self.json(&Line {
                outcome: "failed",
                machine_id: machine,
                error: text,
                ..Line::default()
            });
        }
    }

    /// Something was not done. `text` is the whole line on stderr.
    pub(crate) fn failed(&self, unit: &str, text: &str) {
        self.failed_with_log(unit, text, &[]);
    }

    /// As [`Report::failed`], with the unit's last lines in the journal.
    pub(crate) fn failed_with_log(&self, unit: &str, text: &str, log: &[String]) {
        self.failed.borrow_mut().insert(unit.to_owned());
        self.ui.error(text);
        log.iter()
            .for_each(|line| self.ui.note(&format!("  {line}")));
        if self.json {
            self.json(&Line {
                unit,
                outcome: "failed",
                error: text,
                log,
                ..Line::default()
            });
        }
    }

    /// Says a cure, once however many units it would cure.
    pub(crate) fn hint_once(&self, hints: &[String]) {
        if !self.has_hinted.replace(true) {
            hints.iter().for_each(|hint| self.ui.hint(hint));
        }
    }

    /// Something went wrong with the unit.
    pub(crate) fn has_failed(&self, unit: &str) -> bool {
        self.failed.borrow().contains(unit)
    }

    /// 1 if anything was not done.
    pub(crate) fn exit(&self) -> Exit {
        match self.failed.borrow().is_empty() {
            true => Exit::Success,
            false => Exit::Failure,
        }
    }

    fn tell(&self, words: &str, line: &Line<'_>) {
        if self.json {
            self.json(line);
        } else {
            self.ui.line(words);
        }
    }

    fn json(&self, line: &Line<'_>) {
        match serde_json::to_string(line) {
            Ok(text) => self.ui.line(&text),
            Err(error) => self.ui.error(&format!("failed to write JSON: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legends() {
        let id = "63d22e369175433883a37d92cc53f36c";
        assert_eq!(legend(id, "172.30.1.2", false), "63d22e36.../172.30.1.2");
        assert_eq!(legend(id, "172.30.1.2", true), format!("{id}/172.30.1.2"));
        assert_eq!(legend(id, "", false), "63d22e36...");
        assert_eq!(legend("short", "", false), "short");
    }
}
