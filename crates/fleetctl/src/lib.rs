//! fleetctl: one picture of the cluster, one command to change it.
//!
//! It talks to people and to fleetd's API, and knows no etcd, no D-Bus and no database. Only
//! `ui` prints; `exit` has the one table of exit statuses.

use std::ffi::OsString;

mod cli;
mod columns;
mod commands;
#[cfg(test)]
mod compatibility;
mod complete;
mod connect;
mod create;
mod drain;
mod error;
pub mod exit;
mod fleet;
mod global;
mod import;
mod machines;
mod man;
mod names;
mod report;
mod signing;
mod ssh;
mod suggest;
mod tabwriter;
mod ui;
mod wait;
mod when;
mod wishes;

use commands::{Context, Outcome};
use exit::Exit;
use global::{GlobalArgs, Settings};
use ui::Ui;

/// Runs a command line, the program's name included; `env` looks up environment variables.
/// Prints on the process's stdout and stderr.
pub fn run(args: impl IntoIterator<Item = OsString>, env: &dyn Fn(&str) -> Option<String>) -> Exit {
    let parsed = cli::parse(args);
    let global = match &parsed {
        Ok(cli::Parsed::Run(_, commands::Command::Complete(args))) => args.global(),
        Ok(cli::Parsed::Run(global, _)) => (**global).clone(),
        _ => GlobalArgs::default(),
    };
    let settings = Settings::new(global, env);
    let ui = Ui::stdio(settings.no_color, settings.debug);
    let outcome = match parsed {
        Ok(cli::Parsed::Run(_, command)) => match command.run_alone(&ui) {
            Ok(outcome) => outcome,
            Err(command) => run_in_cluster(command, &settings, &ui),
        },
        Ok(cli::Parsed::Help(text)) => {
            ui.data(&text);
            Ok(Exit::Success)
        }
        Ok(cli::Parsed::Version) => {
            ui.line(&cli::version_line());
            Ok(Exit::Success)
        }
        Err(error) => Err(error::CommandError::usage(error.0)),
    };
    let exit = outcome.unwrap_or_else(|error| {
        ui.error(&error.message);
        error.hints.iter().for_each(|hint| ui.hint(hint));
        error.exit
    });
    match ui.finish() {
        Ok(()) => exit,
        Err(error) => {
            ui.error(&format!("failed to write to stdout: {error}"));
            Exit::Failure
        }
    }
}

fn run_in_cluster(command: commands::Command, settings: &Settings, ui: &Ui) -> Outcome {
    let ssh = connect::ssh(settings)?;
    let client = connect::client(settings, &ssh, ui)?;
    // One thread: fleetctl waits for answers, and threads take longer to start than an answer.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            error::CommandError::new(format!("failed to start the runtime: {error}"))
        })?;
    let fleet = fleet::Fleet::new(client, ui);
    let context = Context {
        ui,
        fleet: &fleet,
        ssh: &ssh,
        settings,
    };
    let is_for_people = !matches!(command, commands::Command::Complete(_));
    let outcome = runtime.block_on(command.run(&context));
    if is_for_people {
        report::tell_warnings(ui, &fleet.client.take_warnings());
    }
    outcome
}
