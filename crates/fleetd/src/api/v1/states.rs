//! `/state`: units as systemd sees them on their machines.

use fleet_api::v1::{UnitState, UnitStatePage};
use fleet_core::records::StateRecord;

use super::super::Api;
use super::super::failure::Failure;
use super::super::read::{Reading, StateOf, is_shown};
use super::super::request::{Answer, Call, Reply};
use super::Page;
use crate::access::Verb;
use crate::store;

pub(crate) async fn list(state: &Api, call: &Call) -> Answer {
    // An empty filter is none.
    let filter = |key| call.parameter(key).filter(|value| !value.is_empty());
    let (unit, machine) = (filter("unitName"), filter("machineID"));
    let mut page = Page::of(state, call, format!("states of {unit:?} on {machine:?}"))?;
    let mut reading = Reading::new(&*state.store);
    let given_up = reading.given_up().await?;
    let shown = call.permit.shown_units(Verb::UnitRead);
    let is_wanted = |found: &StateOf| {
        shown.as_ref().is_none_or(|shown| shown(&found.unit))
            && machine.is_none_or(|machine| machine == found.machine)
            && is_shown(&found.record)
            && !given_up.contains(&found.machine)
    };
    let wanted = page.skip() + page.limit() + 1;
    let (revision, mut states) = loop {
        let after = page.after().and_then(|after| after.split_once('/'));
        let read = reading.sorted_states(unit, after, wanted, page.revision(), is_wanted);
        match read.await {
            Err(store::Error::Compacted(_)) if page.forget_history() => {}
            read => break read?,
        }
    };
    let more = states.len() == wanted;
    states.drain(..page.skip().min(states.len()));
    states.truncate(page.limit());
    let last = states.last().map(|s| format!("{}/{}", s.unit, s.machine));
    let page = UnitStatePage {
        next_page_token: page.next(state, last.as_deref(), more, revision),
        states: states
            .iter()
            .map(|state| entity(&state.unit, &state.machine, &state.record))
            .collect(),
    };
    Ok(Reply::json(&page).with_warnings(reading.into_warnings()))
}

pub(crate) async fn get(state: &Api, name: &str) -> Answer {
    let mut reading = Reading::new(&*state.store);
    let given_up = reading.given_up().await?;
    let placed_on = reading
        .placement(name)
        .await?
        .and_then(|placement| placement.machine);
    let mut states = reading.states(Some(name)).await?;
    states.retain(|state| is_shown(&state.record) && !given_up.contains(&state.machine));
    let of_machine = |machine: &str| states.iter().find(|state| state.machine == machine);
    let found = placed_on
        .and_then(|machine| of_machine(machine.as_str()))
        .or(states.first());
    match found {
        Some(state) => Ok(Reply::json(&entity(name, &state.machine, &state.record))
            .with_warnings(reading.into_warnings())),
        None => Err(Failure::new(404, "unit state does not exist")),
    }
}

fn entity(unit: &str, machine: &str, record: &StateRecord) -> UnitState {
    UnitState {
        hash: record.hash.to_string(),
        machine_id: machine.to_owned(),
        name: unit.to_owned(),
        active: record.active.clone(),
        load: record.load.clone(),
        sub: record.sub.clone(),
    }
}
