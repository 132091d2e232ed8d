//! `fleetctl __complete`: what the shells' completions ask.
//!
//! The first line of the answer is `files` where names of files fit, too, or `words`; then a line
//! for each candidate: the word, a tab, what it means. A cluster that does not answer soon is
//! passed over in silence.

use std::time::Duration;

use crate::cli;
use crate::commands::{Context, Outcome};
use crate::complete::{Candidate, Fitting, fitting};
use crate::exit::Exit;
use crate::fleet::Fleet;
use crate::global::GlobalArgs;
use crate::ui::Ui;

/// Whoever pressed Tab does not wait longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody reads more names than these.
const MAX_UNITS: usize = 1_000;

/// What fits at the end of a command line
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The words typed so far, the program's name first; the last is to be completed
    #[arg(last = true)]
    words: Vec<String>,
}

impl Args {
    /// The global flags of the line that is being typed.
    pub(crate) fn global(&self) -> GlobalArgs {
        let typed = self.words.split_last().map_or(&[][..], |(_, typed)| typed);
        match cli::parse(typed.iter().map(Into::into)) {
            Ok(cli::Parsed::Run(global, _)) => *global,
            _ => GlobalArgs::default(),
        }
    }

    fn fitting(&self) -> Fitting {
        fitting(&cli::clap_command(), &self.words)
    }
}

/// Prints what is known without a cluster; false: that is not all.
pub(crate) fn run_alone(args: &Args, ui: &Ui) -> bool {
    let fitting = args.fitting();
    ui.line(if fitting.files { "files" } else { "words" });
    print(ui, &fitting.before, &fitting.words);
    !(fitting.units || fitting.machines)
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let fitting = args.fitting();
    // Through ssh it would be slow, and might ask for a password in the middle of a word.
    if context.ssh.tunnel.is_some() {
        return Ok(Exit::Success);
    }
    let asking = ask(context.fleet, &fitting);
    if let Ok(candidates) = tokio::time::timeout(PATIENCE, asking).await {
        print(context.ui, &fitting.before, &candidates);
    }
    Ok(Exit::Success)
}

async fn ask(fleet: &Fleet<'_>, fitting: &Fitting) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    if fitting.machines
        && let Ok(machines) = fleet.machines().await
    {
        let machines = machines
            .into_iter()
            .filter(|m| m.id.starts_with(&fitting.begun));
        candidates.extend(machines.map(|machine| {
            let metadata = machine
                .metadata
                .iter()
                .map(|(key, value)| format!(" {key}={value}"));
            let metadata: String = metadata.collect();
            Candidate::new(machine.id, format!("{}{metadata}", machine.primary_ip))
        }));
    }
    if fitting.units
        && let Ok(units) = fleet.beginning_with(&fitting.begun, MAX_UNITS).await
    {
        let description = |unit: &fleet_api::v2::UnitView| unit.description.clone();
        candidates.extend(units.into_iter().map(|unit| {
            let meaning = description(&unit).unwrap_or_default();
            Candidate::new(unit.name, meaning)
        }));
    }
    candidates
}

fn print(ui: &Ui, before: &str, candidates: &[Candidate]) {
    for Candidate { word, meaning } in candidates {
        let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        ui.line(&format!("{before}{word}\t{meaning}"));
    }
}
