//! submit, load and start: create what is needed, wish for the state, wait for it.

use std::collections::BTreeMap;

use fleet_api::client::Error;
use fleet_api::v2::UnitView;
use fleet_core::name::UnitName;
use fleet_core::requirements::Requirements;

use crate::commands::flags::CreateFlags;
use crate::commands::{Context, Outcome};
use crate::create::{CreateError, Creator, Step, faultless_file};
use crate::error::{CommandError, cures};
use crate::exit::Exit;
use crate::names::{UnitArg, globs, is_pattern, matching_files, without_repetition};
use crate::report::{Goal, Report};
use crate::signing::Signer;
use crate::wait::{Bounds, Waited};
use crate::wishes::{self, Manner, Wish, Wording};

/// The status of a request whose body fleetd does not read to its end.
const TOO_LARGE: u16 = 413;

/// What makes the three commands different.
pub(crate) struct Launch {
    pub(crate) wording: Wording,
    /// None: the unit is only submitted.
    pub(crate) goal: Option<Goal>,
    /// Desired states in which a unit may be replaced.
    pub(crate) replaceable: &'static [Goal],
    pub(crate) bounds: Option<Bounds>,
}

impl Launch {
    fn manner(&self, create: &CreateFlags) -> Manner {
        Manner {
            wording: self.wording,
            bounds: self.bounds,
            unknown_keys: create.unknown_keys(),
            tells_created: true,
            stops: false,
        }
    }
}

pub(crate) async fn run(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[String],
    create: &CreateFlags,
    launch: Launch,
) -> Outcome {
    if args.is_empty() {
        context.ui.note("No units given");
        return Ok(Exit::Success);
    }
    let signer = create.signer()?;
    let signer = signer.as_ref();
    let args = expand(context, report, args).await?;
    let waited = match unasked(context, report, &args, create, signer, &launch).await? {
        Some(waited) => waited,
        None => asked(context, report, &args, create, signer, &launch).await?,
    };
    if waited.interrupted {
        wishes::tell_interrupted(report);
        return Ok(Exit::Interrupted);
    }
    refuse_templates(report, &args, &launch);
    Ok(report.exit())
}

/// Asks what fleetd has of the units, and then wishes for what there is to do.
async fn asked(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[UnitArg],
    create: &CreateFlags,
    signer: Option<&Signer>,
    launch: &Launch,
) -> Result<Waited, CommandError> {
    let names: Vec<String> = args.iter().map(|arg| arg.name.clone()).collect();
    let existing = known(context, &names).await?;
    let wishes = wishes(context, report, args, existing, create, signer, launch).await;
    let manner = launch.manner(create);
    Ok(wishes::carry_out(context.fleet, report, wishes, manner).await)
}

/// Hands in at once what there are good files for: fleetd itself sees whether it has the unit, and
/// says so, which spares a question that would be in the way of every start. None: it must be
/// asked before.
async fn unasked(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[UnitArg],
    create: &CreateFlags,
    signer: Option<&Signer>,
    launch: &Launch,
) -> Result<Option<Waited>, CommandError> {
    // A launched unit is not to be loaded, and what is replaced is compared before.
    if create.replace || launch.goal == Some(Goal::Loaded) || context.fleet.speaks_only_v1() {
        return Ok(None);
    }
    let wish = |arg: &UnitArg| {
        let file = faultless_file(arg, create.unknown_keys())?;
        let file = match signer {
            Some(signer) => signer.sign(&arg.name, &file),
            None => file,
        };
        let global = Requirements::parse(&file, None).0.global;
        Some(Wish {
            file: Some(file),
            unasked: Some(arg.arg.clone()),
            ..Wish::new(&arg.name, launch.goal, global)
        })
    };
    let Some(wishes) = args.iter().map(wish).collect::<Option<Vec<Wish>>>() else {
        return Ok(None);
    };
    if wishes.is_empty() {
        return Ok(None);
    }
    let manner = launch.manner(create);
    match wishes::carry_out_unasked(context.fleet, report, wishes, manner).await {
        Ok(waited) => Ok(waited),
        // Too much for one request. Of units that fleet has no file needs to be sent.
        Err(error) if error.code() == Some(TOO_LARGE) => Ok(None),
        Err(error) => Err(not_retrieved(args.first().map(|arg| &*arg.name), &error)),
    }
}

/// The first step alone, for units that must run already: what fleetd has of them. Those that it
/// does not have are submitted, if there are files for them, and told as failed: nobody had
/// started them. None: interrupted.
pub(crate) async fn known_or_submitted(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[String],
    launch: Launch,
) -> Result<Option<Vec<UnitView>>, CommandError> {
    let args = each_once(context, args.iter().map(|arg| UnitArg::new(arg)).collect());
    let names: Vec<String> = args.iter().map(|arg| arg.name.clone()).collect();
    let mut existing = known(context, &names).await?;
    let create = CreateFlags::default();
    let wishes = wishes(
        context,
        report,
        &args,
        existing.clone(),
        &create,
        None,
        &launch,
    )
    .await;
    let submitted: Vec<String> = wishes.iter().map(|wish| wish.name.clone()).collect();
    let manner = launch.manner(&create);
    let waited = wishes::carry_out(context.fleet, report, wishes, manner).await;
    if waited.interrupted {
        return Ok(None);
    }
    let verb = launch.wording.verb;
    for name in submitted.iter().filter(|name| !report.has_failed(name)) {
        let text = format!(
            "Unable to {verb} unit {name} in state inactive: it has just been submitted \
             (fleetctl start {name} starts it)"
        );
        report.failed(name, &text);
    }
    let units = names.iter().filter_map(|name| existing.remove(name));
    Ok(Some(units.collect()))
}

/// What fleetd has of the units.
async fn known(
    context: &Context<'_>,
    names: &[String],
) -> Result<BTreeMap<String, UnitView>, CommandError> {
    let found = context.fleet.lookup(names).await;
    found.map_err(|error| not_retrieved(names.first().map(String::as_str), &error))
}

/// One stands for all: without fleetd nothing can be said of any.
fn not_retrieved(first: Option<&str>, error: &Error) -> CommandError {
    let first = first.unwrap_or_default();
    CommandError::api(
        &format!("Error creating units: error retrieving Unit({first}) from Registry"),
        error,
    )
}

/// Patterns become local files or, if none matches, units that fleet has.
async fn expand(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[String],
) -> Result<Vec<UnitArg>, CommandError> {
    let mut expanded = Vec::with_capacity(args.len());
    for arg in args {
        let unit = UnitArg::new(arg);
        if !is_pattern(arg) || unit.file().is_file() {
            expanded.push(unit);
            continue;
        }
        let mut matching = matching_files(arg);
        if matching.is_empty() {
            let units = context.fleet.matching(&globs(arg)).await;
            let units = units.map_err(|error| {
                CommandError::api("Error retrieving list of units from repository", &error)
            })?;
            matching.extend(units.iter().map(|unit| UnitArg::new(&unit.name)));
        }
        if matching.is_empty() {
            report.failed(
                arg,
                &format!("Error creating units: no unit file and no unit matches {arg:?}"),
            );
        }
        expanded.append(&mut matching);
    }
    Ok(each_once(context, expanded))
}

/// One unit has one file, however many are given.
fn each_once(context: &Context<'_>, args: Vec<UnitArg>) -> Vec<UnitArg> {
    let (args, passed_over) = without_repetition(args);
    for (arg, counts) in passed_over {
        let (file, name) = (arg.arg, arg.name);
        let warning = format!("{file} is passed over: Unit {name} is taken from {counts}");
        context.ui.warning(&warning);
    }
    args
}

async fn wishes(
    context: &Context<'_>,
    report: &Report<'_>,
    args: &[UnitArg],
    mut existing: BTreeMap<String, UnitView>,
    create: &CreateFlags,
    signer: Option<&Signer>,
    launch: &Launch,
) -> Vec<Wish> {
    let mut creator = Creator::new(
        context.fleet,
        report,
        create.replace,
        create.unknown_keys(),
        signer,
        launch.replaceable,
    );
    let mut wishes = Vec::with_capacity(args.len());
    for arg in args {
        let existing = existing.remove(&arg.name);
        match creator.step(arg, existing.as_ref()).await {
            Ok(step) => wishes.extend(wish(report, arg, existing, step, launch)),
            Err(CreateError::Unit(text)) => {
                report.failed(&arg.name, &format!("Error creating units: {text}"));
            }
            Err(CreateError::NotReplaceable(text)) => report.failed(&arg.name, &text),
            Err(CreateError::Api(error)) => {
                let text = error.original_form();
                report.failed(
                    &arg.name,
                    &format!(
                        "Error creating units: error retrieving Unit({}) from Registry: {text}",
                        arg.name
                    ),
                );
                report.hint_once(&cures(&error));
            }
        }
    }
    wishes
}

fn wish(
    report: &Report<'_>,
    arg: &UnitArg,
    existing: Option<UnitView>,
    step: Step,
    launch: &Launch,
) -> Option<Wish> {
    let is_launched = existing
        .as_ref()
        .is_some_and(|unit| unit.desired_state == Goal::Launched.as_str());
    if launch.goal == Some(Goal::Loaded) && is_launched {
        let text = format!(
            "Unable to load unit {} in state launched: it would be stopped \
             (fleetctl stop {} does that)",
            arg.name, arg.name
        );
        report.failed(&arg.name, &text);
        return None;
    }
    let was_global = existing.is_some_and(|unit| unit.global);
    let global = step.is_global().unwrap_or(was_global);
    let goal = launch.goal.filter(|_| !is_template(&arg.name));
    let (file, replace) = match step {
        // Nothing is wished for.
        Step::Keep if goal.is_none() => return None,
        Step::Keep => (None, false),
        Step::Create(file) => (Some(file), false),
        Step::Replace(file) => (Some(file), true),
    };
    Some(Wish {
        file,
        replace,
        ..Wish::new(&arg.name, goal, global)
    })
}

/// A template is submitted, but it cannot run.
fn refuse_templates(report: &Report<'_>, args: &[UnitArg], launch: &Launch) {
    if launch.goal.is_none() {
        return;
    }
    let templates = args.iter().filter(|arg| is_template(&arg.name));
    for arg in templates.filter(|arg| !report.has_failed(&arg.name)) {
        let text = format!(
            "Error {} units: googleapi: Error 400: cannot activate template \"{}\"",
            launch.wording.doing, arg.name
        );
        report.failed(&arg.name, &text);
    }
}

fn is_template(name: &str) -> bool {
    UnitName::parse(name).is_ok_and(|name| name.is_template())
}
