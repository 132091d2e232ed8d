//! `/units` and `/units/{name}`.

use fleet_api::v1::{Unit, UnitOption, UnitPage};
use fleet_core::name::UnitName;
use fleet_core::records::{DesiredState, PlacementRecord, StateRecord};
use fleet_core::unit_file::{self, UnitFile};
use fleet_core::validate::UnknownKeys;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, USER_AGENT};

use super::super::Api;
use super::super::failure::Failure;
use super::super::read::{LiveUnit, Reading, current_state};
use super::super::request::{Answer, Call, MAX_V1_BODY, Reply, RequestBody};
use super::super::wish::{Author, Candidate, check_template, update};
use super::Page;
use crate::access::Verb;
use crate::store;

pub(crate) async fn list(state: &Api, call: &Call) -> Answer {
    let mut page = Page::of(state, call, "units".to_owned())?;
    let mut reading = Reading::new(&*state.store);
    let range = loop {
        let (after, skip, limit) = (page.after(), page.skip(), page.limit());
        let shown = call.permit.shown_units(Verb::UnitRead);
        let is_shown = |name: &str| shown.as_ref().is_none_or(|shown| shown(name));
        let read = reading.units(after, skip, limit, page.revision(), is_shown);
        match read.await {
            Err(store::Error::Compacted(_)) if page.forget_history() => {}
            read => break read?,
        }
    };
    let names = range.units.iter().map(|unit| unit.name.as_str());
    let placements = reading.placements(names).await?;
    let states = reading.states_where_placed(&placements).await?;
    let units = range
        .units
        .iter()
        .map(|unit| entity(unit, placements.get(&unit.name), states.get(&unit.name)))
        .collect();
    let last = range.units.last().map(|unit| unit.name.as_str());
    let page = UnitPage {
        next_page_token: page.next(state, last, range.more, range.revision),
        units,
    };
    Ok(Reply::json(&page).with_warnings(reading.into_warnings()))
}

pub(crate) async fn get(state: &Api, name: &str) -> Answer {
    let mut reading = Reading::new(&*state.store);
    let unit = reading.unit(name).await?.ok_or_else(Failure::no_unit)?;
    let placements = reading.placements([name].into_iter()).await?;
    let states = reading.states_where_placed(&placements).await?;
    let wait = placements.get(name).and_then(|at| why_waiting(&unit, at));
    let unit = entity(&unit, placements.get(name), states.get(name));
    let mut warnings = reading.into_warnings();
    warnings.extend(wait);
    Ok(Reply::json(&unit).with_warnings(warnings))
}

/// Why a unit that is wanted on a machine is on none: the body of v1 has no place for it.
fn why_waiting(unit: &LiveUnit, placement: &PlacementRecord) -> Option<String> {
    let wanted = matches!(
        unit.record.desired,
        DesiredState::Loaded | DesiredState::Launched
    );
    let nowhere = placement.machine.is_none() && placement.assigned == 0;
    if !wanted || !nowhere {
        return None;
    }
    let why = match &placement.refusals[..] {
        // The reason of a global unit says where it belongs, not why it is not there.
        [most, ..] if unit.global => format!("no machine may run it: {}", most.requirement),
        _ => placement.reason.clone(),
    };
    Some(format!("Unit {}: {why}", unit.name))
}

pub(crate) async fn put(state: &Api, call: &Call, body: &mut RequestBody, name: &str) -> Answer {
    check_content_type(call)?;
    let wish = fleet_api::body::unit(&body.read(MAX_V1_BODY).await?)
        .map_err(|error| Failure::bad_request(format!("unable to decode body: {error}")))?;
    if !wish.name.is_empty() && wish.name != name {
        return Err(Failure::bad_request(format!(
            "name in URL {name:?} differs from unit name in request body {:?}",
            wish.name
        )));
    }
    let name = UnitName::parse(name).map_err(|error| Failure::bad_request(error.to_string()))?;
    let file = (!wish.options.is_empty()).then(|| {
        let file = UnitFile::from_options(wish.options.into_iter().map(option).collect());
        Candidate::of(&name, &file, UnknownKeys::Allow)
    });
    let desired = desired_state(&wish.desired_state);
    let unloads_first = is_originals_fleetctl(call);
    let author = Author::of(call);
    let mut decided = None;
    let (_, (status, warnings)) = update(state, &call.permit, name.as_str(), |stored| {
        if stored.is_by(&author)
            && let Some(decided) = decided.take()
        {
            return Ok((None, decided));
        }
        let (text, status, warnings) = match (stored.live(), &file) {
            (None, None) => {
                return Err(match stored.damage() {
                    Some(damage) => damage.clone().into(),
                    None => Failure::new(409, "unit does not exist and options field empty"),
                });
            }
            (Some(live), file) if file.as_ref().is_none_or(|file| file.is(live.hash)) => {
                if wish.desired_state.is_empty() {
                    return Err(Failure::new(
                        409,
                        "must provide DesiredState to update existing unit",
                    ));
                }
                (None, StatusCode::NO_CONTENT, Vec::new())
            }
            (_, Some(file)) => {
                let warnings = file.warnings.clone()?;
                (file.text.as_ref(), StatusCode::CREATED, warnings)
            }
            // The guard above takes every live unit without a file.
            (Some(_), None) => return Err(Failure::no_unit()),
        };
        let before = stored.live().map(|live| live.desired);
        let desired = desired.clone()?.or(before.filter(|_| !unloads_first));
        let desired = match (desired, stored.damage()) {
            (Some(desired), _) => desired,
            // What was wanted of it cannot be read, and it may run.
            (None, Some(damage)) => return Err(damage.clone().into()),
            (None, None) => DesiredState::Inactive,
        };
        check_template(&name, desired)?;
        let result = (status, warnings);
        decided = Some(result.clone());
        // A start that is asked for again is one; everything else is done already.
        let is_change = text.is_some() || before != Some(desired);
        let is_start = desired == DesiredState::Launched;
        let record = (is_change || is_start).then(|| stored.next(text, desired, &author));
        Ok((record, result))
    })
    .await?;
    let warnings = warnings
        .iter()
        .map(|warning| format!("Unit {name}: {warning}"))
        .collect();
    Ok(Reply::empty(status).with_warnings(warnings))
}

pub(crate) async fn delete(state: &Api, call: &Call, name: &str) -> Answer {
    let author = Author::of(call);
    update(state, &call.permit, name, |stored| {
        if stored.is_by(&author) {
            return Ok((None, ()));
        }
        if stored.live().is_none() && stored.damage().is_none() {
            return Err(Failure::no_unit());
        }
        Ok((Some(stored.tombstone(&author)), ()))
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

fn option(option: UnitOption) -> unit_file::UnitOption {
    unit_file::UnitOption::new(option.section, option.name, option.value)
}

/// The word of a wish; empty for none.
fn desired_state(word: &str) -> Result<Option<DesiredState>, Failure> {
    match word {
        "" => Ok(None),
        "inactive" => Ok(Some(DesiredState::Inactive)),
        "loaded" => Ok(Some(DesiredState::Loaded)),
        "launched" => Ok(Some(DesiredState::Launched)),
        word => Err(Failure::bad_request(format!(
            "invalid desiredState {word:?}: use \"inactive\", \"loaded\" or \"launched\""
        ))),
    }
}

/// Whether the original's fleetctl asks, by the name of the library that it speaks with. Its
/// `--replace` sends new contents without a state, waits until the unit is inactive, and asks for
/// the state only then: it would wait for ever for a unit that keeps its state.
fn is_originals_fleetctl(call: &Call) -> bool {
    let agent = call.headers.get(USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"google-api-go-client/"))
}

fn check_content_type(call: &Call) -> Result<(), Failure> {
    let values: Vec<_> = call.headers.get_all(CONTENT_TYPE).iter().collect();
    let [value] = values[..] else {
        return Err(Failure::new(
            415,
            format!("expected 1 Content-Type, got {}", values.len()),
        ));
    };
    let media_type = value
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if !media_type.eq_ignore_ascii_case(b"application/json") {
        return Err(Failure::new(
            415,
            "only acceptable Content-Type is application/json",
        ));
    }
    Ok(())
}

fn entity(
    unit: &LiveUnit,
    placement: Option<&PlacementRecord>,
    state: Option<&StateRecord>,
) -> Unit {
    let options = unit
        .file
        .options()
        .iter()
        .map(|option| UnitOption {
            name: option.name.clone(),
            section: option.section.clone(),
            value: option.value.clone(),
        })
        .collect();
    let machine = placement.and_then(|placement| placement.machine.as_ref());
    let mut entity = Unit {
        desired_state: unit.record.desired.as_str().to_owned(),
        name: unit.name.clone(),
        options,
        ..Unit::default()
    };
    if !unit.global {
        entity.current_state = current_state(placement, state).as_str().to_owned();
        entity.machine_id = machine.map(ToString::to_string).unwrap_or_default();
    }
    entity
}
