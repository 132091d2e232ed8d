//! stop, unload and destroy: wish for less, wait for it.

use std::collections::BTreeSet;

use fleet_api::v2::UnitView;
use fleet_core::validate::UnknownKeys;

use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::names::{UnitArg, globs, is_pattern};
use crate::report::{Goal, Report};
use crate::wait::{Bounds, Waited};
use crate::wishes::{self, Manner, Wish, Wording};

/// So many units are named in a question.
const MAX_NAMED: usize = 20;

/// The three commands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Stop,
    Unload,
    Destroy,
}

impl Verb {
    fn wording(self) -> Wording {
        let (verb, doing) = match self {
            Verb::Stop => ("stop", "stopping"),
            Verb::Unload => ("unload", "unloading"),
            Verb::Destroy => ("destroy", "destroying"),
        };
        Wording { verb, doing }
    }

    fn done(self) -> &'static str {
        match self {
            Verb::Stop => "stopped",
            Verb::Unload => "unloaded",
            Verb::Destroy => "destroyed",
        }
    }
}

/// What makes the three commands different.
pub(crate) struct PutDown {
    pub(crate) verb: Verb,
    pub(crate) bounds: Option<Bounds>,
    /// Somebody at a terminal is asked whether all units are meant that a pattern stands for.
    pub(crate) asks: bool,
}

pub(crate) async fn run(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[String],
    PutDown { verb, bounds, asks }: PutDown,
) -> Outcome {
    if args.is_empty() {
        context.ui.note("No units given");
        return Ok(Exit::Success);
    }
    // A pattern is about what runs, of which stop may take something away.
    let is_meant_by_pattern = |unit: &UnitView| verb != Verb::Stop || is_wanted(unit);
    let units = known_units(context, report, args, is_meant_by_pattern, NOT_FOUND).await?;
    if units.is_empty() && report.exit() == Exit::Failure {
        context.ui.error("Units not found in registry");
        return Ok(report.exit());
    }
    let has_patterns = args.iter().any(|arg| is_pattern(arg));
    if asks && has_patterns && context.ui.is_interactive() && !is_meant(context, &units, verb) {
        let done = verb.done();
        return Err(CommandError::new(format!("Nothing was {done}")));
    }
    let wishes = units
        .iter()
        .filter_map(|unit| wish(report, unit, verb))
        .collect();
    let manner = Manner {
        wording: verb.wording(),
        bounds,
        unknown_keys: UnknownKeys::Default,
        tells_created: false,
        stops: true,
    };
    let waited = wishes::carry_out(context.fleet, report, wishes, manner).await;
    if waited.interrupted {
        wishes::tell_interrupted(report);
        return Ok(Exit::Interrupted);
    }
    // Whoever has read why nothing was done need not read that nothing was.
    let is_news = !waited.is_empty() || report.exit() == Exit::Success;
    if bounds.is_some() && verb != Verb::Destroy && is_news {
        sum_up(context, verb, &waited);
    }
    Ok(report.exit())
}

/// A pattern is typed in a moment, and a cluster is large.
fn is_meant(context: &Context<'_>, units: &[UnitView], verb: Verb) -> bool {
    let named: Vec<&str> = units
        .iter()
        .take(MAX_NAMED)
        .map(|u| u.name.as_str())
        .collect();
    let more = match units.len() - named.len() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let (names, n_units) = (named.join(" "), units.len());
    let noun = if n_units == 1 { "unit" } else { "units" };
    context.ui.confirms(&format!(
        "{names}{more}: {} {n_units} {noun}?",
        verb.wording().verb
    ))
}

/// It is to be on a machine.
pub(crate) fn is_wanted(unit: &UnitView) -> bool {
    unit.desired_state != Goal::Inactive.as_str()
}

/// What is said of a unit that does not exist.
pub(crate) const NOT_FOUND: &str = "not found in registry";

/// The units that are meant; those that do not exist are reported: `Unit x` and `absent`. Of the units that match a
/// pattern those are taken that `is_meant_by_pattern`.
pub(crate) async fn known_units(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[String],
    is_meant_by_pattern: impl Fn(&UnitView) -> bool,
    absent: &str,
) -> Result<Vec<UnitView>, CommandError> {
    let (patterns, names): (Vec<&String>, Vec<&String>) =
        args.iter().partition(|arg| is_pattern(arg));
    let names: Vec<String> = names.iter().map(|arg| UnitArg::new(arg).name).collect();
    let failed = |error| CommandError::api("", &error);
    let mut known = context.fleet.lookup(&names).await.map_err(failed)?;
    let mut units = Vec::with_capacity(names.len());
    let mut seen = BTreeSet::new();
    for name in names {
        match known.remove(&name) {
            Some(unit) => units.push(unit),
            None if seen.contains(&name) => continue,
            None => report.failed(&name, &format!("Unit {name} {absent}")),
        }
        seen.insert(name);
    }
    for pattern in patterns {
        let matching = context
            .fleet
            .matching(&globs(pattern))
            .await
            .map_err(failed)?;
        if matching.is_empty() {
            report.failed(pattern, &format!("No unit in registry matches {pattern:?}"));
        }
        let new = matching
            .into_iter()
            .filter(|unit| is_meant_by_pattern(unit) && seen.insert(unit.name.clone()));
        units.extend(new);
    }
    Ok(units)
}

/// None: there is nothing to wish for.
fn wish(report: &Report<'_>, unit: &UnitView, verb: Verb) -> Option<Wish> {
    let current = unit.current_state.as_deref().unwrap_or_default();
    let (is_inactive, is_loaded) = match unit.global {
        true => (false, false),
        false => (current == "inactive", current == "loaded"),
    };
    let desired = unit.desired_state.as_str();
    let goal = match verb {
        Verb::Stop if desired == "inactive" => {
            let text = format!("Unable to stop unit {} in state inactive", unit.name);
            report.failed(&unit.name, &text);
            return None;
        }
        Verb::Stop if desired == "loaded" && is_loaded => return None,
        Verb::Stop => Goal::Loaded,
        Verb::Unload if desired == "inactive" && is_inactive => return None,
        Verb::Unload => Goal::Inactive,
        Verb::Destroy => Goal::Destroyed,
    };
    Some(Wish::new(&unit.name, Some(goal), unit.global))
}

fn sum_up(context: &Context<'_>, verb: Verb, waited: &Waited) {
    if waited.failed.is_empty() {
        let units = waited.reached.join(" ");
        context
            .ui
            .note(&format!("Successfully {} units [{units}].", verb.done()));
        return;
    }
    let units: Vec<&str> = waited
        .failed
        .iter()
        .map(|(unit, _)| unit.as_str())
        .collect();
    let first = waited.failed.first().map_or("", |(_, text)| text.as_str());
    context.ui.error(&format!(
        "Failed to {} units [{}]. err: {first}",
        verb.wording().verb,
        units.join(" ")
    ));
}
