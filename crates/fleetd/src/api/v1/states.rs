//! `/state`: units as systemd sees them on their machines.

use fleet_api::v1::{UnitState, UnitStatePage};
use fleet_core::records::StateRecord;

use super::super::Api;
use super::super::failure::Failure;
use super::super::read::{Reading, is_shown};
use super::super::request::{Answer, Call, Reply};
use super::{cut, page_token};

pub(crate) async fn list(state: &Api, call: &Call) -> Answer {
    let token = page_token(state, call)?;
    // An empty filter is none.
    let filter = |key| call.parameter(key).filter(|value| !value.is_empty());
    let (unit, machine) = (filter("unitName"), filter("machineID"));
    let mut reading = Reading::new(&*state.store);
    let given_up = reading.given_up().await?;
    let mut states = reading.states(unit).await?;
    // Keys are sorted by bytes with the `/` between the two names, which is another order.
    states.sort_by(|a, b| (&a.unit, &a.machine).cmp(&(&b.unit, &b.machine)));
    let shown = states
        .into_iter()
        .filter(|state| machine.is_none_or(|machine| machine == state.machine))
        .filter(|state| is_shown(&state.record) && !given_up.contains(&state.machine))
        .map(|state| entity(&state.unit, &state.machine, &state.record));
    let (states, next_page_token) = cut(shown, token);
    let page = UnitStatePage {
        next_page_token,
        states,
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
