//! `fleetctl list-units --watch`: rows, and then each that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_api::client::{Error, UnitStream};
use fleet_api::v2::{UnitChanges, UnitRow};

use super::{IN_JSON, JsonRow, SHOWN, cells, each_row, failed, json_row};
use crate::columns::Columns;
use crate::commands::listing::ListFlags;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::report::tell_warnings;
use crate::ui::Ui;
use crate::when;

const HEADER: [&str; 7] = [
    "TIME (UTC)",
    "UNIT",
    "LOAD",
    "ACTIVE",
    "SUB",
    "DESC",
    "MACHINE",
];

/// What stands in the column ACTIVE of what is not there any more.
const GONE: &str = "gone";

/// Before watching on after it has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// So often watching on is tried, one time after the other, before that is an error.
const MAX_ATTEMPTS: u32 = 30;

pub(super) async fn run(flags: &ListFlags, context: &Context<'_>) -> Outcome {
    let mut shown = Shown::new(flags, context.ui);
    context.fleet.catch_interrupts();
    tokio::select! {
        ended = watch(context, &mut shown) => ended,
        () = context.fleet.interrupted() => Ok(Exit::Success),
    }
}

/// For ever: whoever looks ends it.
async fn watch(context: &Context<'_>, shown: &mut Shown<'_>) -> Outcome {
    let client = &context.fleet.client;
    let mut revision = None;
    let mut attempts = 0;
    loop {
        let why = match client.watch_units(shown.fields(), revision).await {
            Ok(mut stream) => loop {
                match take(&mut stream, shown, &mut revision).await {
                    Ok(end) => {
                        attempts = 0;
                        if let Some(failure) = shown.failure.take() {
                            return Err(failure);
                        }
                        if context.ui.is_unheard() {
                            return Ok(Exit::Success);
                        }
                        if !end.is_empty() {
                            break end;
                        }
                    }
                    Err(error) => break error.to_string(),
                }
            },
            Err(error) if error.code() == Some(410) => {
                // All units come again, and what is different from what was shown is shown.
                revision = None;
                error.to_string()
            }
            Err(error) if !shown.is_begun || attempts >= MAX_ATTEMPTS => return Err(cannot(error)),
            Err(error) => error.to_string(),
        };
        context.ui.debug(&format!("watching on: {why}"));
        attempts += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Shows a line. Says why it is the last one, if it is.
async fn take(
    stream: &mut UnitStream<'_>,
    shown: &mut Shown<'_>,
    revision: &mut Option<u64>,
) -> Result<String, Error> {
    stream
        .next(|changes| {
            shown.take(changes);
            // A listing that breaks off begins anew.
            if changes.revision > 0 {
                *revision = Some(changes.revision);
            }
            changes.end.clone()
        })
        .await
}

fn cannot(error: Error) -> CommandError {
    match error {
        Error::NoV2 => {
            CommandError::new("This fleetd is an original fleet 1.0, which cannot be watched.")
                .hint("list again and again (watch fleetctl list-units), or upgrade fleetd")
        }
        error if error.code() == Some(404) => {
            CommandError::new("This fleetd is too old to be watched.").hint("upgrade fleetd")
        }
        error => failed(error),
    }
}

/// What is on the screen.
struct Shown<'a> {
    ui: &'a Ui,
    is_json: bool,
    has_legend: bool,
    columns: Columns<{ HEADER.len() }>,
    is_begun: bool,
    /// The rows of each unit, as they were shown last.
    units: BTreeMap<String, Vec<Row>>,
    /// The units of a listing that is not complete yet.
    listed: BTreeSet<String>,
    failure: Option<CommandError>,
}

/// A unit on a machine.
#[derive(Clone, PartialEq, Eq)]
struct Row {
    machine: String,
    /// As it is shown, without the time.
    text: String,
}

impl<'a> Shown<'a> {
    fn new(flags: &ListFlags, ui: &'a Ui) -> Shown<'a> {
        Shown {
            ui,
            is_json: flags.is_json(),
            has_legend: !flags.no_legend,
            columns: Columns::new([19, 16, 6, 8, 7, 16, 0]),
            is_begun: false,
            units: BTreeMap::new(),
            listed: BTreeSet::new(),
            failure: None,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        match self.is_json {
            true => IN_JSON,
            false => SHOWN,
        }
    }

    fn take(&mut self, changes: &UnitChanges<'_>) {
        let now_ms = when::now_ms();
        tell_warnings(self.ui, &changes.warnings);
        let mut text = String::new();
        if !self.is_begun {
            self.is_begun = true;
            if !self.is_json && self.has_legend {
                text.push_str(&self.columns.line(&HEADER.map(str::to_owned)));
            }
        }
        for unit in &changes.units {
            self.unit(unit, now_ms, &mut text);
        }
        for name in &changes.gone {
            self.gone(name, now_ms, &mut text);
        }
        if changes.listing {
            let names = changes.units.iter().map(|unit| unit.name.to_string());
            self.listed.extend(names);
            if changes.revision > 0 {
                let listed = std::mem::take(&mut self.listed);
                let known = self.units.keys();
                let gone: Vec<String> = known
                    .filter(|name| !listed.contains(*name))
                    .cloned()
                    .collect();
                for name in gone {
                    self.gone(&name, now_ms, &mut text);
                }
            }
        }
        if !text.is_empty() {
            self.ui.data(&text);
        }
    }

    /// Shows those of its rows that are not on the screen.
    fn unit(&mut self, unit: &UnitRow<'_>, now_ms: u64, text: &mut String) {
        let before = self.units.remove(&*unit.name).unwrap_or_default();
        let mut rows = Vec::new();
        each_row(std::slice::from_ref(unit), |unit, state| {
            let cells = cells(unit, state);
            let [.., machine] = &cells;
            let row = Row {
                machine: machine.to_string(),
                text: match self.is_json {
                    true => self.json(&json_row(unit, state)),
                    false => cells.join("\t"),
                },
            };
            if !before.contains(&row) {
                match self.is_json {
                    true => text.push_str(&self.json_line(JsonRow {
                        at_ms: Some(now_ms),
                        ..json_row(unit, state)
                    })),
                    false => text.push_str(&self.line(now_ms, cells.map(|cell| cell.into_owned()))),
                }
            }
            rows.push(row);
        });
        // Of a unit that is in one place, the new place says it.
        let is_here = |row: &&Row| !rows.iter().any(|now| now.machine == row.machine);
        if unit.global {
            let gone: Vec<String> = before
                .iter()
                .filter(is_here)
                .map(|row| row.machine.clone())
                .collect();
            for machine in gone.iter().filter(|machine| !machine.is_empty()) {
                text.push_str(&self.gone_line(&unit.name, machine, now_ms));
            }
        }
        self.units.insert(unit.name.to_string(), rows);
    }

    fn gone(&mut self, name: &str, now_ms: u64, text: &mut String) {
        if self.units.remove(name).is_some_and(|rows| !rows.is_empty()) {
            text.push_str(&self.gone_line(name, "", now_ms));
        }
    }

    fn gone_line(&mut self, name: &str, machine: &str, now_ms: u64) -> String {
        if !self.is_json {
            let cells = [name, "", GONE, "", "", machine];
            return self.line(now_ms, cells.map(str::to_owned));
        }
        let unit = UnitRow {
            name: name.into(),
            ..UnitRow::default()
        };
        self.json_line(JsonRow {
            machine_id: Some(machine).filter(|machine| !machine.is_empty()),
            at_ms: Some(now_ms),
            gone: true,
            ..json_row(&unit, None)
        })
    }

    fn line(&mut self, now_ms: u64, cells: [String; 6]) -> String {
        let time = when::utc(now_ms);
        let [unit, load, active, sub, description, machine] = cells;
        let time = time.trim_end_matches(" UTC").to_owned();
        let cells = Columns::cells([time, unit, load, active, sub, description, machine]);
        self.columns.widen(&cells);
        self.columns.line(&cells)
    }

    fn json_line(&mut self, row: JsonRow<'_>) -> String {
        self.json(&row) + "\n"
    }

    fn json(&mut self, row: &JsonRow<'_>) -> String {
        serde_json::to_string(row).unwrap_or_else(|error| {
            let failure = CommandError::new(format!("failed to write JSON: {error}"));
            self.failure = Some(failure);
            String::new()
        })
    }
}
