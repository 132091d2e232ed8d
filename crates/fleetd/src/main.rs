//! fleetd: reads its configuration, wires the server, runs it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use fleetd::config::keys::{KEYS, Kind};
use fleetd::config::load::{self, Action, Loaded};
use fleetd::server::{self, Surroundings};
use fleetd::{VERSION, logging, panics, reload};
use tracing::{error, info, warn};

/// Exit status of a fleetd that could not start or ended by a fault.
const FAILED: u8 = 1;
/// Exit status for a command line that does not exist, as Go's `flag` has it.
const USAGE: u8 = 2;

/// Work on other threads (a commit of the embedded store) is given this long at the end.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    panics::end_the_process();
    let loaded = match load::load(std::env::args_os(), std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(problem) => return refuse(&problem),
    };
    match loaded.action {
        Action::Run => run(loaded),
        Action::Version => print(&format!("fleetd version {VERSION}\n")),
        Action::Help => {
            complain(&usage());
            ExitCode::SUCCESS
        }
        Action::CheckConfig => {
            for warning in loaded.unsupported.iter().chain(&loaded.warnings) {
                complain(&format!("warning: {warning}\n"));
            }
            let status = print(&loaded.describe());
            match reload::check(&loaded.config) {
                Ok(()) => status,
                Err(problem) => {
                    complain(&format!("FATAL {problem}\n"));
                    ExitCode::from(FAILED)
                }
            }
        }
    }
}

fn run(loaded: Loaded) -> ExitCode {
    let verbosity = logging::init(loaded.config.verbosity);
    info!(version = VERSION, "Starting fleetd version {VERSION}");
    info!("{}", loaded.about_file());
    for unsupported in &loaded.unsupported {
        error!("{unsupported}");
    }
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    // One worker: two would wake each other for every message. What takes long hands over to another
    // thread (`task::maybe_long`), and leases have a thread of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("fleetd")
        .build();
    let surroundings = Surroundings {
        load: Box::new(|| load::load(std::env::args_os(), std::env::vars_os())),
        verbosity,
    };
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(server::run(loaded.config, surroundings));
            // What still runs in the background must not hold up the end.
            runtime.shutdown_timeout(LEAVE_WITHIN);
            outcome
        }
        Err(problem) => Err(problem.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem @ server::Error::Duplicate(_)) => {
            error!("{problem}");
            ExitCode::from(FAILED)
        }
        Err(problem) => {
            error!("Failed creating Server: {problem:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn refuse(problem: &load::Error) -> ExitCode {
    match problem {
        // As Go's `flag` ends.
        problem if problem.is_usage() => {
            complain(&format!("{problem}\n{}", usage()));
            match problem {
                load::Error::Argument => ExitCode::from(FAILED),
                _ => ExitCode::from(USAGE),
            }
        }
        _ => {
            complain(&format!("FATAL {problem}\n"));
            ExitCode::from(FAILED)
        }
    }
}

fn usage() -> String {
    let program = std::env::args_os()
        .next()
        .unwrap_or_else(|| "fleetd".into());
    let mut text = format!(
        "Usage of {}:\n  \
         -config string\n    \tPath to config file. fleetd will look for a config at {} by default.\n  \
         -check-config\n    \tPrint the configuration and where each value comes from, and exit\n  \
         -version\n    \tPrint the version and exit\n\
         Each of these may stand in the file as key=value, in the environment as FLEET_<KEY>, \
         or here:\n",
        program.to_string_lossy(),
        load::DEFAULT_FILE,
    );
    for key in KEYS {
        let value = match key.kind {
            Kind::Bool => "",
            _ => "=VALUE",
        };
        text.push_str(&format!("  --{}{value}\n    \t{}\n", key.name, key.help));
    }
    text
}

/// Data goes to stdout. A reader that has gone away is no failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Everything else goes to stderr.
fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
