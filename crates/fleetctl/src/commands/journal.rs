//! `fleetctl journal`

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use fleet_api::client::{Error, JournalWanted};
use fleet_api::v2::{JournalCursor, JournalEntry, JournalLine, UnitView};
use fleet_core::name::with_default_type;

use crate::commands::flags::since_ms;
use crate::commands::listing::PRESENT;
use crate::commands::ssh::SshPort;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::machines;
use crate::names::is_pattern;
use crate::report::visible;
use crate::ssh::arguments::Session;
use crate::ssh::{lookup, run};
use crate::when;

/// So many lines are shown when nobody says how many, or from when on.
const USUAL_LINES: usize = 10;

/// Before reading on after it has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// So often reading on is tried, one time after the other, before that is an error.
const MAX_ATTEMPTS: u32 = 30;

/// Print the last lines of units' journals, from all machines that have them
///
/// fleetd reads them on the machines of the units and merges them in the order of time; with --follow it
/// goes on, also when a unit moves. Times are in UTC. Machines that fleetd cannot ask are asked through
/// ssh ("journalctl") if one unit on one machine is meant; so are all with --ssh, with --sudo, and for
/// journalctl's other output modes; the exit status is journalctl's then, and 255 if the connection fails.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// How many of the newest lines; 10 if nothing is said, and all with --since or --after-cursor
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,

    /// Go on printing lines as they come
    #[arg(long, short = 'f', alias = "f")]
    follow: bool,

    /// Only from then on: 10m, 2h or 3d ago, or a time as 2026-11-28 11:20 in UTC
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only from this machine's journal, by any beginning of its id: also what units said there before they moved
    #[arg(long, short = 'm', value_name = "MACHINE")]
    machine: Option<String>,

    /// Only what comes after this cursor
    #[arg(long, value_name = "CURSOR", conflicts_with = "since")]
    after_cursor: Option<String>,

    /// Print the cursor at the end, from which to go on
    #[arg(long)]
    show_cursor: bool,

    /// Run journalctl with sudo, through ssh
    #[arg(long)]
    sudo: bool,

    /// Ask the machine through ssh, as the original did
    #[arg(long)]
    ssh: bool,

    /// short, cat, or json (all fields, and FLEET_MACHINE_ID); through ssh journalctl's others, too
    #[arg(long, short = 'o', value_name = "MODE", default_value = "short")]
    output: String,

    #[command(flatten)]
    port: SshPort,

    /// The units; patterns as in 'web@*', too
    #[arg(value_name = "UNIT")]
    units: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    if args.units.is_empty() {
        return Err(CommandError::new("One unit file must be provided."));
    }
    let mode = match args.output.as_str() {
        _ if args.ssh || args.sudo => None,
        "short" => Some(Mode::Short),
        "cat" => Some(Mode::Cat),
        "json" => Some(Mode::Json),
        _ => None,
    };
    let Some(mode) = mode else {
        return through_ssh(&args, context, None).await;
    };
    let wanted = wanted(&args, mode, context).await?;
    let mut single = None;
    for unit in args.units.iter().filter(|unit| !is_pattern(unit)) {
        let name = with_default_type(unit);
        let unit = existing(context, &name).await?;
        if let ([_], Some(unit)) = (args.units.as_slice(), unit) {
            single = Some(unit);
        }
    }
    if context.fleet.speaks_only_v1() {
        return through_ssh(&args, context, None).await;
    }
    let is_nowhere = |unit: &UnitView| {
        !unit.global
            && unit.current_state.as_deref() == Some("inactive")
            && unit.machine_id.is_none()
    };
    if let Some(unit) = single.as_ref().filter(|unit| is_nowhere(unit))
        && !args.follow
        && args.machine.is_none()
    {
        return Err(lookup::not_running(unit));
    }
    let mut reader = Reader {
        context,
        mode,
        is_plain: !std::io::stdout().is_terminal(),
        cursor: wanted.after.clone(),
        n_lines: 0,
        missing: BTreeMap::new(),
        only_machine: single
            .filter(|unit| !unit.global)
            .and_then(|unit| unit.machine_id),
    };
    context.fleet.catch_interrupts();
    let ended = tokio::select! {
        ended = reader.read(wanted) => ended?,
        () = context.fleet.interrupted() => Ended::Interrupted,
    };
    if let Ended::Unreachable(why) = ended {
        return through_ssh(&args, context, Some(why)).await;
    }
    if let Ended::Unknown = ended {
        return through_ssh(&args, context, None).await;
    }
    if args.show_cursor
        && let Some(cursor) = &reader.cursor
    {
        context.ui.line(&format!("-- cursor: {cursor}"));
    }
    Ok(match reader.missing.is_empty() {
        true => Exit::Success,
        false if args.follow => Exit::Success,
        false => Exit::Failure,
    })
}

async fn existing(context: &Context<'_>, name: &str) -> Result<Option<UnitView>, CommandError> {
    let failed = |error| CommandError::api(&format!("Error retrieving unit {name}"), &error);
    match context.fleet.unit(name).await.map_err(failed)? {
        Some(unit) => Ok(Some(unit)),
        None => Err(CommandError::new(format!("Unit {name} does not exist."))),
    }
}

async fn wanted(
    args: &Args,
    mode: Mode,
    context: &Context<'_>,
) -> Result<JournalWanted, CommandError> {
    let machine = match &args.machine {
        None => None,
        Some(name) => {
            let failed = |error| CommandError::api("", &error);
            let known = context.fleet.machines().await.map_err(failed)?;
            Some(machines::find(&known, name)?.id.clone())
        }
    };
    let after = args
        .after_cursor
        .as_deref()
        .map(JournalCursor::parse)
        .transpose();
    let since = args.since.as_deref().map(since_ms).transpose()?;
    let has_beginning = args.since.is_some() || args.after_cursor.is_some();
    let units = args.units.iter().flat_map(|unit| match is_pattern(unit) {
        true => crate::names::globs(unit)
            .iter()
            .map(|glob| glob.as_str().to_owned())
            .collect(),
        false => vec![with_default_type(unit)],
    });
    Ok(JournalWanted {
        units: units.collect(),
        machine,
        lines: args.lines.or((!has_beginning).then_some(USUAL_LINES)),
        since_us: since.map(|ms| ms * 1_000),
        after: after.map_err(CommandError::new)?,
        follow: args.follow,
        fields: mode == Mode::Json,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Short,
    Cat,
    Json,
}

/// How reading ended.
enum Ended {
    All,
    Interrupted,
    /// The only machine that is meant cannot be asked, and nothing has been printed; why, and a hint.
    Unreachable((String, String)),
    /// This fleetd reads no journals.
    Unknown,
}

/// Prints what comes.
struct Reader<'c, 'a> {
    context: &'c Context<'a>,
    mode: Mode,
    /// Nobody's terminal is in danger.
    is_plain: bool,
    cursor: Option<JournalCursor>,
    n_lines: usize,
    /// Machines from which nothing comes, and what is said of them.
    missing: BTreeMap<String, String>,
    /// The machine of the one unit that is meant.
    only_machine: Option<String>,
}

impl Reader<'_, '_> {
    async fn read(&mut self, mut wanted: JournalWanted) -> Result<Ended, CommandError> {
        let client = &self.context.fleet.client;
        let mut attempts = 0;
        loop {
            let why = match client.journal(&wanted).await {
                Ok(mut lines) => loop {
                    match lines.next().await {
                        Ok(Some(line)) => {
                            attempts = 0;
                            if let Some(ended) = self.line(&line).await? {
                                return Ok(ended);
                            }
                            if !line.end.is_empty() && !wanted.follow {
                                return Ok(Ended::All);
                            }
                        }
                        Ok(None) => break "it ended".to_owned(),
                        Err(error) => break error.to_string(),
                    }
                },
                Err(error) if attempts == 0 && is_unknown(&error) => return Ok(Ended::Unknown),
                Err(error) if attempts == 0 || attempts >= MAX_ATTEMPTS => {
                    return Err(CommandError::api("", &error));
                }
                Err(error) => error.to_string(),
            };
            self.context.ui.debug(&format!("reading on: {why}"));
            // Nothing is said twice, whether it is followed or not.
            if let Some(cursor) = &self.cursor {
                wanted.after = Some(cursor.clone());
                wanted.lines = None;
            }
            attempts += 1;
            if attempts > MAX_ATTEMPTS {
                return Err(CommandError::new(format!(
                    "The journal cannot be read on: {why}"
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn line(&mut self, line: &JournalLine) -> Result<Option<Ended>, CommandError> {
        let ui = self.context.ui;
        if let Some(entry) = &line.entry {
            self.n_lines += 1;
            let begun = self.cursor.get_or_insert_with(JournalCursor::default);
            begun.note(entry);
            self.entry(entry)?;
        }
        if let Ok(cursor) = JournalCursor::parse(&line.cursor) {
            self.cursor = Some(cursor);
        }
        if line.note.is_empty() {
            return Ok(None);
        }
        if !line.missing_id.is_empty() {
            let is_only = self.only_machine.as_ref() == Some(&line.missing_id);
            if is_only
                && self.n_lines == 0
                && !line.silent
                && self.is_present(&line.missing_id).await
            {
                let why = (line.note.clone(), line.hint.clone());
                return Ok(Some(Ended::Unreachable(why)));
            }
            self.missing
                .insert(line.missing_id.clone(), line.note.clone());
        }
        ui.warning(&visible(&line.note));
        if !line.hint.is_empty() {
            ui.hint(&visible(&line.hint));
        }
        Ok(None)
    }

    async fn is_present(&self, machine: &str) -> bool {
        let machines = self.context.fleet.machines().await.unwrap_or_default();
        machines
            .iter()
            .any(|known| known.id == machine && known.status == PRESENT)
    }

    fn entry(&self, entry: &JournalEntry) -> Result<(), CommandError> {
        let ui = self.context.ui;
        match self.mode {
            Mode::Short => ui.data(&when::journal_line(entry)),
            Mode::Cat if self.is_plain => ui.line(&entry.message),
            Mode::Cat => {
                for line in entry.message.lines() {
                    ui.line(&when::shown_text(line));
                }
            }
            Mode::Json => {
                let mut fields = serde_json::Map::new();
                fields.insert(
                    "FLEET_MACHINE_ID".to_owned(),
                    entry.machine_id.clone().into(),
                );
                fields.extend(entry.fields.clone().unwrap_or_default());
                let line = serde_json::to_string(&fields)
                    .map_err(|error| CommandError::new(format!("failed to write JSON: {error}")))?;
                ui.line(&line);
            }
        }
        Ok(())
    }
}

/// An older fleetd: it has no such resource.
fn is_unknown(error: &Error) -> bool {
    match error {
        Error::NoV2 => true,
        Error::Answer {
            code: 404, message, ..
        } => message.starts_with("no such resource"),
        _ => false,
    }
}

/// As the original: journalctl on the unit's machine. `why` fleetd does not read it, and a hint.
async fn through_ssh(args: &Args, context: &Context<'_>, why: Option<(String, String)>) -> Outcome {
    let [unit] = args.units.as_slice() else {
        return Err(CommandError::new("One unit file must be provided."));
    };
    let name = with_default_type(unit);
    let failed = |error| CommandError::api(&format!("Error retrieving unit {name}"), &error);
    let Some(unit) = existing(context, &name).await? else {
        return Err(CommandError::new(format!("Unit {name} does not exist.")));
    };
    let machines = context.fleet.machines().await.map_err(failed)?;
    let place = lookup::journal(&unit, &machines)?;
    if let Some((why, hint)) = why {
        context.ui.hint(&format!(
            "asked through ssh, since fleetd cannot ask: {why}; {hint}"
        ));
    }
    // sudo asks for a password on a terminal only, and Ctrl-C ends a journal that is followed
    // at the far side only if there is one.
    let is_interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let session = Session {
        port: args.port.ssh_port,
        forward_agent: false,
        tty: Some(is_interactive && (args.sudo || args.follow)),
    };
    run::at(context.ssh, &place, session, &words(args, &name)).await
}

fn words(args: &Args, unit: &str) -> Vec<String> {
    let lines = args.lines.unwrap_or(USUAL_LINES).to_string();
    let sudo = args.sudo.then_some("sudo");
    let follow = args.follow.then_some("-f");
    let journalctl = [
        "journalctl",
        "--unit",
        unit,
        "--no-pager",
        "-n",
        &lines,
        "--output",
        &args.output,
    ];
    let words = sudo.into_iter().chain(journalctl).chain(follow);
    words.map(str::to_owned).collect()
}
