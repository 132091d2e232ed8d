//! `fleetctl status`

use std::collections::BTreeMap;

use fleet_api::client::Error;
use fleet_api::v2::{MachineView, UnitStatus, UnitView};
use futures_util::{StreamExt, stream};

use crate::commands::flags::{Format, OutputFlags};
use crate::commands::listing::{PRESENT, to_json};
use crate::commands::put_down::{is_wanted, known_units};
use crate::commands::ssh::SshPort;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::report::Report;
use crate::ssh::arguments::Session;
use crate::ssh::lookup::{Step, not_loaded, status};
use crate::ssh::run;

mod shown;

/// So many units are asked for at the same time.
const ASKED_AT_ONCE: usize = 8;

/// What systemctl ends with for a unit that is not active.
const NOT_ACTIVE: u8 = 3;

/// What ssh ends with when there is no way, and so do we.
const NOT_ASKED: u8 = 255;

/// Show what systemd says of units, where they are
///
/// With what is wished of them, why they are there, and their last lines in the journal. fleetd asks the
/// systemd of each machine that has the unit: a global unit is shown on all its machines, and a machine that
/// does not answer with what was reported last. Machines that fleetd cannot ask are
/// asked through ssh ("systemctl status -l"), as all are with --ssh. Ends with the first status that is
/// not 0 (3 for a unit that is not active, as systemctl's own), and 255 if a machine cannot be asked.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// How many of a unit's last lines in the journal
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: usize,

    /// Ask machines through ssh, as the original did
    #[arg(long)]
    ssh: bool,

    #[command(flatten)]
    port: SshPort,

    #[command(flatten)]
    output: OutputFlags,

    /// The units; patterns as in '*.service', too
    #[arg(value_name = "UNIT")]
    units: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let ui = context.ui;
    if args.units.is_empty() {
        ui.note("No units given");
        return Ok(Exit::Success);
    }
    let report = Report::new(ui, false);
    let units = known_units(context, &report, &args.units, is_wanted, "does not exist.").await?;
    let failed = |error| CommandError::api("", &error);
    let asked = match args.ssh {
        true => None,
        false => ask(context, &units, args.lines).await.map_err(failed)?,
    };
    if args.output.output == Format::Json {
        let statuses = asked.ok_or_else(|| {
            CommandError::new("This fleetd cannot ask machines, and systemctl's words are no JSON.")
        })?;
        ui.data(&to_json(&statuses)?);
        return Ok(report.exit());
    }
    let machines = context.fleet.machines().await.map_err(failed)?;
    let mut shown = Shown {
        context,
        session: Session {
            port: args.port.ssh_port,
            ..Session::default()
        },
        exit: report.exit(),
        has_shown: false,
        hints: BTreeMap::new(),
    };
    match asked {
        None => shown.through_ssh(&units, &machines).await,
        Some(statuses) => {
            for status in &statuses {
                shown.status(status, &machines).await;
            }
        }
    }
    shown.hints.keys().for_each(|hint| ui.hint(hint));
    Ok(shown.exit)
}

/// None: this fleetd cannot ask machines.
async fn ask(
    context: &Context<'_>,
    units: &[UnitView],
    lines: usize,
) -> Result<Option<Vec<UnitStatus>>, Error> {
    if context.fleet.speaks_only_v1() {
        return Ok(None);
    }
    let client = &context.fleet.client;
    let asked = stream::iter(units).map(|unit| client.unit_status(&unit.name, lines));
    let mut asked = asked.buffered(ASKED_AT_ONCE);
    let mut statuses = Vec::with_capacity(units.len());
    while let Some(status) = asked.next().await {
        match status {
            Ok(Some(status)) => statuses.push(status),
            // It is there: an older fleetd does not know the question.
            Ok(None) | Err(Error::NoV2) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(statuses))
}

/// What is on the screen.
struct Shown<'c, 'a> {
    context: &'c Context<'a>,
    session: Session,
    exit: Exit,
    has_shown: bool,
    hints: BTreeMap<String, ()>,
}

impl Shown<'_, '_> {
    async fn status(&mut self, status: &UnitStatus, machines: &[MachineView]) {
        let ui = self.context.ui;
        let unit = &status.unit;
        if status.machines.is_empty() {
            self.begin();
            ui.data(&shown::nowhere(unit));
            let error = not_loaded(unit);
            self.note(error.exit);
            ui.error(&error.message);
            return;
        }
        for on in &status.machines {
            if on.systemd.is_none() && !on.silent && on.machine_status == PRESENT {
                self.context.ui.debug(&on.error);
                if !on.hint.is_empty() {
                    let hint = format!(
                        "asked through ssh, since fleetd cannot ask: {}; {}",
                        on.error, on.hint
                    );
                    self.hints.insert(hint, ());
                }
                let there = only_on(unit, &on.machine_id);
                self.through_ssh(&[there], machines).await;
                continue;
            }
            self.begin();
            ui.data(&shown::on(unit, on));
            match &on.systemd {
                Some(systemd) if systemd.active == "active" || systemd.active == "reloading" => {}
                Some(_) => self.note(Exit::Other(NOT_ACTIVE)),
                None => {
                    self.note(Exit::Other(NOT_ASKED));
                    ui.error(&on.error);
                    if !on.hint.is_empty() {
                        self.hints.insert(on.hint.clone(), ());
                    }
                }
            }
        }
    }

    /// As the original.
    async fn through_ssh(&mut self, units: &[UnitView], machines: &[MachineView]) {
        let ui = self.context.ui;
        for step in status(units, machines) {
            let outcome = match step {
                Step::Refuse(error) => Err(error),
                Step::Show {
                    place,
                    units,
                    heading,
                } => {
                    self.begin();
                    if let Some(heading) = heading {
                        ui.line(&heading);
                    }
                    let mut words: Vec<String> =
                        ["systemctl", "status", "-l"].map(str::to_owned).into();
                    words.extend(units);
                    run::at(self.context.ssh, &place, self.session, &words).await
                }
            };
            match outcome {
                Ok(code) => self.note(code),
                Err(error) => {
                    self.note(error.exit);
                    ui.error(&error.message);
                    error.hints.iter().for_each(|hint| ui.hint(hint));
                }
            }
        }
    }

    /// A blank line between units.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_shown, true) {
            self.context.ui.line("");
        }
    }

    fn note(&mut self, exit: Exit) {
        if self.exit == Exit::Success {
            self.exit = exit;
        }
    }
}

/// The unit as if it were on this machine alone.
fn only_on(unit: &UnitView, machine: &str) -> UnitView {
    let states = unit.states.iter();
    let there = states.filter(|state| state.machine_id == machine).cloned();
    UnitView {
        machine_id: (!unit.global).then(|| machine.to_owned()),
        states: there.collect(),
        ..unit.clone()
    }
}
