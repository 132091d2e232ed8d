//! `fleetctl events`

use std::time::Duration;

use fleet_api::client::{Error, EventsWanted};
use fleet_api::v2::{EventListing, EventView, MAX_EVENTS, MachineView};
use fleet_core::name::with_default_type;

use crate::commands::flags::{self, Format, OutputFlags};
use crate::commands::listing::to_json;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::machines;
use crate::names::is_pattern;
use crate::report::short_id;

mod table;

use table::Table;

/// So many are shown when nobody says how many or since when, as many screens have.
const USUAL_LINES: usize = 100;

/// As above, before following.
const LINES_BEFORE: usize = 10;

/// With `--since` alone all are shown, and that is not without an end.
const MAX_LINES: usize = 100_000;

/// Before following on after it has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// So often following on is tried, one time after the other, before that is an error.
const MAX_ATTEMPTS: u32 = 30;

/// Show what was decided and what happened, when, why, and by whom
///
/// Each machine and the leader keep their newest events for a while, in the cluster's store. An event is
/// there exactly when what it tells of is. Times are in UTC, by the clocks of those who told it; the order
/// is that in which things were written down.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only of this unit, or of those that the pattern matches
    #[arg(long, short = 'u', value_name = "UNIT")]
    unit: Option<String>,

    /// Only of this machine, by any beginning of its id
    #[arg(long, short = 'm', value_name = "MACHINE")]
    machine: Option<String>,

    /// Only from then on: 10m, 2h or 3d ago, or a time as 2026-11-28 11:20 in UTC
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// How many of the newest; 100 if nothing is said, and 10 with --follow
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,

    /// Go on showing them as they come
    #[arg(long, short = 'f')]
    follow: bool,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let machines = context.fleet.machines().await.map_err(failed)?;
    let machine = args
        .machine
        .as_ref()
        .map(|name| machines::find(&machines, name))
        .transpose()?;
    let since_ms = args.since.as_deref().map(flags::since_ms).transpose()?;
    let unit = args.unit.map(|unit| match is_pattern(&unit) {
        true => unit,
        false => with_default_type(&unit),
    });
    let wanted = EventsWanted {
        unit,
        machine: machine.map(|machine| machine.id.clone()),
        since_ms,
        ..EventsWanted::default()
    };
    let lines = match (args.lines, args.follow, since_ms) {
        (Some(lines), ..) => lines.min(MAX_LINES),
        (None, _, Some(_)) => MAX_LINES,
        (None, true, None) => LINES_BEFORE,
        (None, false, None) => USUAL_LINES,
    };
    let mut shown = Shown {
        context,
        format: args.output.output,
        table: Table::new(&machines),
        follows: args.follow,
    };
    let listing = list(context, &wanted, lines).await.map_err(failed)?;
    shown.listing(&listing)?;
    if !args.follow {
        return Ok(Exit::Success);
    }
    context.fleet.catch_interrupts();
    tokio::select! {
        ended = follow(context, &wanted, listing.revision, &mut shown) => ended,
        () = context.fleet.interrupted() => Ok(Exit::Success),
    }
}

/// The newest events, page by page.
async fn list(
    context: &Context<'_>,
    wanted: &EventsWanted,
    lines: usize,
) -> Result<EventListing, Error> {
    let client = &context.fleet.client;
    let mut all = EventListing::default();
    let mut before = None;
    loop {
        let missing = lines.saturating_sub(all.events.len());
        let page = EventsWanted {
            before,
            limit: Some(missing.clamp(1, MAX_EVENTS)),
            ..wanted.clone()
        };
        let page = client.events(&page).await?;
        let is_first = before.is_none();
        // By revision: a page that does not go back would be read until memory ends.
        let goes_on = page.more && before.is_none_or(|before| page.before < before);
        before = Some(page.before);
        if is_first {
            all.revision = page.revision;
        }
        let mut events = page.events;
        events.append(&mut all.events);
        all.events = events;
        if !goes_on || all.events.len() >= lines {
            let n_too_many = all.events.len().saturating_sub(lines);
            all.events.drain(..n_too_many);
            return Ok(all);
        }
    }
}

/// Shows what comes, for ever: whoever looks ends it.
async fn follow(
    context: &Context<'_>,
    wanted: &EventsWanted,
    mut revision: u64,
    shown: &mut Shown<'_, '_>,
) -> Outcome {
    let client = &context.fleet.client;
    let mut attempts = 0;
    loop {
        let from = EventsWanted {
            after: Some(revision),
            ..wanted.clone()
        };
        let why = match client.follow_events(&from).await {
            Ok(mut lines) => loop {
                match lines.next().await {
                    Ok(line) => {
                        attempts = 0;
                        revision = revision.max(line.revision);
                        if let Some(event) = &line.event {
                            shown.event(event)?;
                        }
                        if context.ui.is_unheard() {
                            return Ok(Exit::Success);
                        }
                        if !line.end.is_empty() {
                            break line.end;
                        }
                    }
                    Err(error) => break error.to_string(),
                }
            },
            // The store knows no longer what was after it, and the rings may.
            Err(error) if error.code() == Some(410) => error.to_string(),
            Err(error) if attempts == 0 => return Err(failed(error)),
            Err(error) => error.to_string(),
        };
        context.ui.debug(&format!("following events on: {why}"));
        loop {
            attempts += 1;
            tokio::time::sleep(PAUSE).await;
            let missed = EventsWanted {
                after: Some(revision),
                ..wanted.clone()
            };
            match list(context, &missed, MAX_LINES).await {
                Ok(listing) => {
                    for event in &listing.events {
                        shown.event(event)?;
                    }
                    revision = listing.revision;
                    break;
                }
                Err(error) if attempts >= MAX_ATTEMPTS => return Err(failed(error)),
                Err(_) => {}
            }
        }
    }
}

fn failed(error: Error) -> CommandError {
    match error {
        Error::NoV2 => CommandError::new(
            "This fleetd is an original fleet 1.0, which does not keep what happened.",
        )
        .hint("see the machines' journals (journalctl -u fleet), or upgrade fleetd"),
        error if error.code() == Some(404) => {
            CommandError::new("This fleetd is too old: it does not keep what happened.")
                .hint("upgrade fleetd")
        }
        error => CommandError::api("", &error),
    }
}

/// What is on the screen.
struct Shown<'c, 'a> {
    context: &'c Context<'a>,
    format: Format,
    table: Table,
    follows: bool,
}

impl Shown<'_, '_> {
    fn listing(&mut self, listing: &EventListing) -> Result<(), CommandError> {
        let ui = self.context.ui;
        match (self.format, self.follows) {
            (Format::Json, false) => ui.data(&to_json(&listing.events)?),
            (Format::Json, true) => {
                for event in &listing.events {
                    self.event(event)?;
                }
            }
            (Format::Text, _) => {
                if listing.events.is_empty() && !self.follows {
                    ui.note("Nothing of that kind is kept.");
                    return Ok(());
                }
                ui.data(&self.table.of(&listing.events));
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &EventView) -> Result<(), CommandError> {
        let ui = self.context.ui;
        match self.format {
            Format::Json => {
                let line = serde_json::to_string(event)
                    .map_err(|error| CommandError::new(format!("failed to write JSON: {error}")))?;
                ui.line(&line);
            }
            Format::Text => ui.data(&self.table.row(event)),
        }
        Ok(())
    }
}

fn machine_cell(event: &EventView) -> String {
    let machine = event.machine_id.as_deref().map(short_id);
    let from = event.from_id.as_deref().map(short_id);
    match (machine, from) {
        (Some(machine), Some(from)) => format!("{from} → {machine}"),
        (None, Some(from)) => format!("{from} →"),
        (Some(machine), None) => machine,
        (None, None) => String::new(),
    }
}

fn by_cell(event: &EventView, machines: &[MachineId]) -> String {
    match machines.contains(&event.by) {
        true => short_id(&event.by),
        false => event.by.clone(),
    }
}

/// A machine's whole id.
type MachineId = String;

fn ids(machines: &[MachineView]) -> Vec<MachineId> {
    machines.iter().map(|machine| machine.id.clone()).collect()
}
