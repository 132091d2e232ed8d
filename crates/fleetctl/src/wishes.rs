//! Wishes are sent, and waited for: in one batch by v2, one by one to an original fleetd.

use std::collections::{BTreeMap, BTreeSet};

use fleet_api::client::Error;
use fleet_api::v1::{Unit, UnitOption};
use fleet_api::v2::{BatchRequest, UnitWish, WishAnswer};
use fleet_core::unit_file::UnitFile;
use fleet_core::validate::UnknownKeys;

use crate::create;
use crate::error::cures;
use crate::fleet::Fleet;
use crate::report::{Goal, Report};
use crate::wait::{self, Awaited, Bounds, Waited};

/// What a verb wishes for one unit.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) name: String,
    /// New contents.
    pub(crate) file: Option<UnitFile>,
    /// They replace others.
    pub(crate) replace: bool,
    /// None: as it is; `inactive` for a new unit.
    pub(crate) goal: Option<Goal>,
    pub(crate) restart: bool,
    pub(crate) global: bool,
    /// systemd's InvocationIDs before a restart: they must change.
    pub(crate) before: Vec<String>,
    /// Sent without asking before what fleet has of it: its local file, as messages call it. The
    /// file counts if fleet does not have the unit.
    pub(crate) unasked: Option<String>,
}

impl Wish {
    pub(crate) fn new(name: &str, goal: Option<Goal>, global: bool) -> Wish {
        Wish {
            name: name.to_owned(),
            file: None,
            replace: false,
            goal,
            restart: false,
            global,
            before: Vec::new(),
            unasked: None,
        }
    }

    fn is_new(&self) -> bool {
        self.file.is_some() && !self.replace
    }
}

/// How a verb speaks of what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wording {
    /// `start`
    pub(crate) verb: &'static str,
    /// `starting`: `Error starting units: …`
    pub(crate) doing: &'static str,
}

/// How to go about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) wording: Wording,
    /// None: nobody waits.
    pub(crate) bounds: Option<Bounds>,
    pub(crate) unknown_keys: UnknownKeys,
    /// A new or replaced unit is told as `inactive`, as the original's first step does.
    pub(crate) tells_created: bool,
    /// The units are to do less than before.
    pub(crate) stops: bool,
}

/// Sends the wishes and waits for them; tells what becomes of each.
pub(crate) async fn carry_out(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    wishes: Vec<Wish>,
    manner: Manner,
) -> Waited {
    if wishes.is_empty() {
        return Waited::default();
    }
    fleet.catch_interrupts();
    tokio::select! {
        biased;
        () = fleet.interrupted() => Waited {
            interrupted: true,
            ..Waited::default()
        },
        waited = send_and_wait(fleet, report, wishes, manner) => waited,
    }
}

/// Sends wishes for units of which nobody has asked whether fleet has them, and waits for them.
/// None: this fleetd has only v1, and nothing was sent. The error is the request's; nothing is
/// known of any unit then.
pub(crate) async fn carry_out_unasked(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    wishes: Vec<Wish>,
    manner: Manner,
) -> Result<Option<Waited>, Error> {
    fleet.catch_interrupts();
    let send = async {
        let request = batch_request(&wishes, manner.unknown_keys);
        let Some(answer) = fleet.batch(&request).await? else {
            return Ok(None);
        };
        let waited = by_v2(fleet, report, wishes, manner, answer.units).await;
        Ok(Some(waited))
    };
    tokio::select! {
        biased;
        () = fleet.interrupted() => Ok(Some(Waited {
            interrupted: true,
            ..Waited::default()
        })),
        waited = send => waited,
    }
}

async fn send_and_wait(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    wishes: Vec<Wish>,
    manner: Manner,
) -> Waited {
    let request = batch_request(&wishes, manner.unknown_keys);
    match fleet.batch(&request).await {
        Ok(Some(answer)) => by_v2(fleet, report, wishes, manner, answer.units).await,
        Ok(None) => by_v1(fleet, report, wishes, manner).await,
        Err(error) => {
            for wish in &wishes {
                refused(report, wish, manner.wording, &error.original_form());
            }
            report.hint_once(&cures(&error));
            Waited::default()
        }
    }
}

/// Tells that units were interrupted while waited for.
pub(crate) fn tell_interrupted(report: &Report<'_>) {
    report
        .ui
        .note("Interrupted. What was asked for stands; fleetctl list-units shows how it goes on.");
}

fn batch_request(wishes: &[Wish], unknown_keys: UnknownKeys) -> BatchRequest {
    let units = wishes.iter().map(|wish| UnitWish {
        name: wish.name.clone(),
        text: wish.file.as_ref().map(UnitFile::to_text),
        replace: wish.replace,
        desired_state: wish.goal.map(|goal| goal.as_str().to_owned()),
        restart: wish.restart,
        prefer: None,
    });
    BatchRequest {
        request_id: request_id(),
        unknown_keys: match unknown_keys {
            UnknownKeys::Default => "",
            UnknownKeys::Strict => "strict",
            UnknownKeys::Allow => "allow",
        }
        .to_owned(),
        units: units.collect(),
    }
}

/// Not asked for twice by any two commands: random bits of the kernel.
pub(crate) fn request_id() -> String {
    let mut bits = [0; 16];
    // Without them the process's own number must do.
    let file = std::fs::File::open("/dev/urandom");
    let read = file.and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bits));
    match read {
        Ok(()) => bits.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => format!("pid-{}", std::process::id()),
    }
}

async fn by_v2(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    mut wishes: Vec<Wish>,
    manner: Manner,
    answers: Vec<WishAnswer>,
) -> Waited {
    learn_of_differences(fleet, report, &mut wishes, &answers).await;
    let mut answers: BTreeMap<String, WishAnswer> = answers
        .into_iter()
        .map(|answer| (answer.name.clone(), answer))
        .collect();
    let mut taken = Vec::with_capacity(wishes.len());
    for wish in &wishes {
        let Some(answer) = answers.remove(&wish.name) else {
            refused(report, wish, manner.wording, "fleetd did not answer for it");
            continue;
        };
        for warning in &answer.warnings {
            // What fleetctl has read itself it has warned of already.
            if wish.file.is_none() {
                report.ui.warning(&format!("Unit {}: {warning}", wish.name));
            }
        }
        match answer.outcome.as_str() {
            "error" => {
                let code = answer.code.unwrap_or(500);
                let text = answer.error.unwrap_or_default();
                refused(
                    report,
                    wish,
                    manner.wording,
                    &format!("googleapi: Error {code}: {text}"),
                );
                continue;
            }
            "created" if manner.tells_created => report.reached(&wish.name, Goal::Inactive, None),
            "replaced" if manner.tells_created && wish.goal.is_none() => {
                report.reached(&wish.name, Goal::Inactive, None);
            }
            _ => {}
        }
        taken.push((wish, answer.generation));
    }
    let awaited: Vec<Awaited> = taken
        .into_iter()
        .filter_map(|(wish, generation)| accepted(report, wish, manner, generation))
        .collect();
    match manner.bounds {
        Some(bounds) if !awaited.is_empty() => wait::v2::wait(fleet, report, awaited, bounds).await,
        _ => Waited::default(),
    }
}

/// Units that fleet has with other contents than those that were offered: what they are is asked
/// for now.
async fn learn_of_differences(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    wishes: &mut [Wish],
    answers: &[WishAnswer],
) {
    let differing: BTreeSet<&str> = answers
        .iter()
        .filter(|answer| answer.differs)
        .map(|answer| answer.name.as_str())
        .collect();
    let differs = |wish: &&mut Wish| wish.unasked.is_some() && differing.contains(&*wish.name);
    let names: Vec<String> = wishes
        .iter_mut()
        .filter(differs)
        .map(|wish| wish.name.clone())
        .collect();
    if names.is_empty() {
        return;
    }
    // Without an answer it is waited for as its local file would have it.
    let existing = fleet.lookup(&names).await.unwrap_or_default();
    for wish in wishes.iter_mut().filter(differs) {
        if let Some(unit) = existing.get(&wish.name) {
            wish.global = unit.global;
        }
        if let Some(file) = &wish.unasked {
            create::warn_of_difference(report, &wish.name, create::Kind::Unit, file);
        }
    }
}

async fn by_v1(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    wishes: Vec<Wish>,
    manner: Manner,
) -> Waited {
    let mut refusals: BTreeMap<&str, Error> = BTreeMap::new();
    let mut created = Vec::new();
    for wish in &wishes {
        let Some(file) = &wish.file else { continue };
        let unit = v1_unit(&wish.name, file);
        match fleet.client.put_unit(&wish.name, &unit).await {
            // v1 says nothing of a global unit's current state.
            Ok(_) if wish.global => report.reached(&wish.name, Goal::Inactive, None),
            Ok(_) => created.push(Awaited::new(&wish.name, 0, Goal::Inactive, false)),
            Err(error) => drop(refusals.insert(&wish.name, error)),
        }
    }
    // As the original's first step: what is new, or has new contents, is inactive first.
    let bounds = manner.bounds.unwrap_or(Bounds::of_attempts(0));
    wait::v1::wait(fleet, report, created, bounds).await;
    let mut restarting = Vec::new();
    for wish in wishes.iter().filter(|wish| wish.restart) {
        match fleet
            .client
            .set_desired_state(&wish.name, Goal::Loaded.as_str())
            .await
        {
            Ok(()) => restarting.push(Awaited::new(&wish.name, 0, Goal::Loaded, wish.global)),
            Err(error) => drop(refusals.insert(&wish.name, error)),
        }
    }
    // Also when nobody waits for the end: a stop that was not seen restarts nothing.
    wait::v1::wait(fleet, report, restarting, bounds).await;
    let mut awaited = Vec::new();
    for wish in &wishes {
        let set = match (refusals.remove(wish.name.as_str()), wish.goal) {
            (Some(error), _) => Err(error),
            (None, None) => Ok(()),
            (None, Some(Goal::Destroyed)) => fleet.client.delete_unit(&wish.name).await,
            (None, Some(goal)) => {
                fleet
                    .client
                    .set_desired_state(&wish.name, goal.as_str())
                    .await
            }
        };
        match set {
            Ok(()) => {
                let accepted = accepted(report, wish, manner, 0);
                // An original fleetd decides on each machine whether a global unit runs there: only
                // after a restart is it known what to expect, and when it is to be gone.
                let is_known = !wish.global || wish.restart || wish.goal == Some(Goal::Destroyed);
                awaited.extend(accepted.filter(|_| is_known));
            }
            Err(error) => {
                refused(report, wish, manner.wording, &error.original_form());
                report.hint_once(&cures(&error));
            }
        }
    }
    match manner.bounds {
        Some(bounds) => wait::v1::wait(fleet, report, awaited, bounds).await,
        None => Waited::default(),
    }
}

/// fleetd has taken the wish: what to say at once, and what to wait for.
fn accepted(report: &Report<'_>, wish: &Wish, manner: Manner, generation: u64) -> Option<Awaited> {
    let goal = wish.goal?;
    let verb = manner.wording.verb;
    match manner.bounds {
        None if goal == Goal::Destroyed => report.reached(&wish.name, goal, None),
        None => report.triggered(&wish.name, verb, wish.global),
        Some(_) if wish.global && goal != Goal::Destroyed => {
            report.triggered(&wish.name, verb, true);
        }
        Some(_) => {}
    }
    Some(Awaited {
        stops: manner.stops,
        before: wish.before.clone(),
        ..Awaited::new(&wish.name, generation, goal, wish.global)
    })
}

/// fleetd has not taken the wish.
fn refused(report: &Report<'_>, wish: &Wish, wording: Wording, why: &str) {
    let text = match wish.is_new() || wish.replace {
        true => format!(
            "Error creating units: failed creating unit {}: {why}",
            wish.name
        ),
        false if why.contains(&wish.name) => format!("Error {} units: {why}", wording.doing),
        false => format!("Error {} units: {}: {why}", wording.doing, wish.name),
    };
    report.failed(&wish.name, &text);
}

fn v1_unit(name: &str, file: &UnitFile) -> Unit {
    let options = file.options().iter().map(|option| UnitOption {
        name: option.name.clone(),
        section: option.section.clone(),
        value: option.value.clone(),
    });
    Unit {
        name: name.to_owned(),
        options: options.collect(),
        ..Unit::default()
    }
}
