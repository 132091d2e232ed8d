//! `fleetctl doctor`

use fleet_api::client::Error;
use serde::Serialize;

use crate::commands::flags::{Format, OutputFlags};
use crate::commands::listing::to_json;
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::report::visible;

mod findings;

use findings::{Known, findings};

/// So many findings of a kind are shown; `-o json` has them all.
const MAX_SHOWN: usize = 10;

/// Say what is wrong with the cluster, and what would cure it
///
/// Looks at who leads, at all machines, all units and all records of the store. Ends with status 1 if
/// something is wrong; what is merely unusual (a machine that is cordoned, versions that differ) is told,
/// too, and does not count.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputFlags,
}

/// Something that is not as it should be.
#[derive(Serialize, Debug, Default)]
#[serde(rename_all = "camelCase")]
struct Finding {
    /// One word for programs: `leader`, `machine`, `unit`, `record`, `cluster`.
    about: &'static str,
    /// Which of them; empty: all.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// It is unusual, and meant.
    remark: bool,
    what: String,
    cures: Vec<String>,
}

/// The whole answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Diagnosis {
    well: bool,
    summary: String,
    findings: Vec<Finding>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let failed = |error: Error| match error {
        Error::NoV2 => CommandError::new(
            "This fleetd is an original fleet 1.0, which does not say how it is.",
        )
        .hint(
            "fleetctl list-machines and fleetctl list-units work as ever; upgrade fleetd for more",
        ),
        error => CommandError::api("", &error),
    };
    let client = &context.fleet.client;
    let cluster = client.checked_cluster().await.map_err(failed)?;
    let machines = context.fleet.machines().await.map_err(failed)?;
    let units = context.fleet.units().await.map_err(failed)?;
    // What fleetd warns of here is in what it said of the cluster's records.
    drop(client.take_warnings());
    let known = Known {
        cluster: &cluster,
        machines: &machines,
        units: &units,
    };
    let findings = findings(&known);
    let n_wrong = findings.iter().filter(|finding| !finding.remark).count();
    let diagnosis = Diagnosis {
        well: n_wrong == 0,
        summary: match n_wrong {
            0 => format!("All is well: {}.", known.in_numbers()),
            1 => format!("1 thing is wrong; {}.", known.in_numbers()),
            n => format!("{n} things are wrong; {}.", known.in_numbers()),
        },
        findings,
    };
    match args.output.output {
        Format::Json => context.ui.data(&to_json(&diagnosis)?),
        Format::Text => tell(context, &diagnosis),
    }
    Ok(if diagnosis.well {
        Exit::Success
    } else {
        Exit::Failure
    })
}

fn tell(context: &Context<'_>, diagnosis: &Diagnosis) {
    context.ui.line(&diagnosis.summary);
    let (mut about, mut n_shown) = (("", false), 0);
    for finding in &diagnosis.findings {
        let kind = (finding.about, finding.remark);
        if kind != about {
            tell_rest(context, about.0, n_shown);
            (about, n_shown) = (kind, 0);
        }
        n_shown += 1;
        if n_shown > MAX_SHOWN {
            continue;
        }
        let mark = if finding.remark { "note: " } else { "" };
        context
            .ui
            .line(&format!("\n{mark}{}", visible(&finding.what)));
        for cure in &finding.cures {
            context.ui.line(&format!("  cure      {}", visible(cure)));
        }
    }
    tell_rest(context, about.0, n_shown);
}

/// Those of a kind that are not shown.
fn tell_rest(context: &Context<'_>, about: &str, n: usize) {
    if let Some(more @ 1..) = n.checked_sub(MAX_SHOWN) {
        let line =
            format!("\nand {more} more of the kind ({about}): fleetctl doctor -o json has all");
        context.ui.line(&line);
    }
}
