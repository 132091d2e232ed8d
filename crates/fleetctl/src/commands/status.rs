//! `fleetctl status`

use crate::commands::put_down::{is_wanted, known_units};
use crate::commands::ssh::SshPort;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::report::Report;
use crate::ssh::arguments::Session;
use crate::ssh::lookup::{Step, status};
use crate::ssh::run;

/// Show what systemd says of units, where they are
///
/// Runs "systemctl status -l" on the machine of each unit, through ssh unless that is this one.
/// A global unit is shown on all its machines. Ends with the first status that is not 0
/// (systemctl's own is 3 for a unit that is not active), and 255 if a connection fails.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    port: SshPort,

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
    let session = Session {
        port: args.port.ssh_port,
        ..Session::default()
    };
    let report = Report::new(ui, false);
    let units = known_units(context, &report, &args.units, is_wanted, "does not exist.").await?;
    let failed = |error| CommandError::api("", &error);
    let machines = context.fleet.machines().await.map_err(failed)?;
    let mut exit = report.exit();
    let mut note = |code: Exit| {
        if exit == Exit::Success {
            exit = code;
        }
    };
    let mut has_shown = false;
    for step in status(&units, &machines) {
        let outcome = match step {
            Step::Refuse(error) => Err(error),
            Step::Show {
                place,
                units,
                heading,
            } => {
                if has_shown {
                    ui.line("");
                }
                if let Some(heading) = heading {
                    ui.line(&heading);
                }
                has_shown = true;
                let mut words: Vec<String> =
                    ["systemctl", "status", "-l"].map(str::to_owned).into();
                words.extend(units);
                run::at(context.ssh, &place, session, &words).await
            }
        };
        match outcome {
            Ok(code) => note(code),
            Err(error) => {
                note(error.exit);
                ui.error(&error.message);
                error.hints.iter().for_each(|hint| ui.hint(hint));
            }
        }
    }
    Ok(exit)
}
