//! `fleetctl submit`

use crate::commands::flags::{CreateFlags, OutputFlags};
use crate::commands::launch::{self, Launch};
use crate::commands::{Context, Outcome};
use crate::report::Goal;
use crate::wishes::Wording;

/// Hand units to the cluster without running them
///
/// A unit that fleet has already is kept; with --replace its contents are replaced, if it is
/// inactive. For an instance such as web@1 that has no file of its own, the template web@.service
/// is taken, from fleet or from the same directory.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Unit files, or patterns of them
    #[arg(value_name = "UNIT", value_hint = clap::ValueHint::FilePath)]
    units: Vec<String>,

    #[command(flatten)]
    create: CreateFlags,

    #[command(flatten)]
    output: OutputFlags,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let submit = Launch {
        wording: Wording {
            verb: "submit",
            doing: "submitting",
        },
        goal: None,
        replaceable: &[Goal::Inactive],
        bounds: None,
    };
    let report = args.output.report(context.ui);
    launch::run(context, &report, &args.units, &args.create, submit).await
}
