//! `GET /fleet/v2/units/{name}/status` and `GET /fleet/v2/machines/{id}/units/{name}`: a unit as the
//! systemds of its machines say at this moment.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_api::v2::{JournalEntry, MAX_STATUS_LINES, UnitOnMachine, UnitStatus, UnitView};
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::journal::Lines;
use super::{Members, number, unit_view};
use crate::access::{Object, Verb};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::here::Here;
use crate::api::read::Reading;
use crate::api::request::{Answer, Call, Reply};
use crate::peer;
use crate::units::JournalQuery;

/// As `systemctl status` has.
const USUAL_LINES: usize = 10;

/// So many machines are asked for one unit; of a global one on more the rest is not.
const MAX_ASKED: usize = 200;

/// So many of them at the same time.
const ASKED_AT_ONCE: usize = 16;

/// A journal of some gigabytes answers within this; a status is told without its lines otherwise.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn of_unit(state: &Api, call: &Call, name: &str) -> Answer {
    let n_lines = lines(call, name)?;
    let here = state.here()?;
    let mut reading = Reading::new(&*state.store);
    let (unit, members) = unit_view(&mut reading, name).await?;
    let unit = UnitView { text: None, ..unit };
    let named = [&unit.machine_id, &unit.leaving_id].into_iter().flatten();
    let reported = unit.states.iter().map(|state| &state.machine_id);
    let machines: BTreeSet<String> = named.chain(reported).cloned().collect();
    let n_left = machines.len().saturating_sub(MAX_ASKED);
    let name = unit_name(name)?;
    let asked = stream::iter(machines.into_iter().take(MAX_ASKED))
        .map(|machine| {
            let (name, members) = (&name, &members);
            async move {
                let asked = on_machine(state, here, call, &machine, name, n_lines).await;
                with_machine(asked, &machine, members)
            }
        })
        .buffered(ASKED_AT_ONCE);
    let machines: Vec<UnitOnMachine> = asked.collect().await;
    let mut warnings = reading.into_warnings();
    if n_left > 0 {
        warnings.push(format!(
            "{name} is on {n_left} more machines, which were not asked"
        ));
    }
    Ok(Reply::json(&UnitStatus { unit, machines }).with_warnings(warnings))
}

pub(super) async fn of_machine(state: &Api, call: &Call, machine: &str, name: &str) -> Answer {
    let n_lines = lines(call, name)?;
    let here = state.here()?;
    here.check_hop(call, machine)?;
    let name = unit_name(name)?;
    let mut reading = Reading::new(&*state.store);
    let members = Members::read(&mut reading, None).await?;
    if !members.knows(machine) && machine != here.machine.as_str() {
        return Err(Failure::new(404, format!("machine {machine} is not known")));
    }
    let asked = on_machine(state, here, call, machine, &name, n_lines).await;
    Ok(Reply::json(&with_machine(asked, machine, &members)))
}

/// Whoever may not read the unit's journal gets none of it here either.
fn lines(call: &Call, unit: &str) -> Result<usize, Failure> {
    let lines = number(call, "lines")?;
    if !call.permit.shows(Verb::JournalRead, Object::Unit(unit)) {
        return Ok(0);
    }
    Ok(lines.map_or(USUAL_LINES, |lines| {
        usize::try_from(lines).map_or(MAX_STATUS_LINES, |lines| lines.min(MAX_STATUS_LINES))
    }))
}

fn unit_name(name: &str) -> Result<UnitName, Failure> {
    UnitName::parse(name)
        .map_err(|error| Failure::bad_request(format!("invalid unit name {name:?}: {error}")))
}

/// What is known of the machine without asking it.
fn with_machine(on: UnitOnMachine, machine: &str, members: &Members) -> UnitOnMachine {
    let about = members.view(machine, None);
    UnitOnMachine {
        machine_id: machine.to_owned(),
        primary_ip: about.primary_ip,
        machine_status: about.status,
        machine_since_ms: about.since_ms,
        ..on
    }
}

/// Asks a machine, this one or another.
async fn on_machine(
    state: &Api,
    here: &Here,
    call: &Call,
    machine: &str,
    unit: &UnitName,
    n_lines: usize,
) -> UnitOnMachine {
    if machine == here.machine.as_str() {
        return on_this_machine(here, unit, n_lines).await;
    }
    let not_asked = |error: &peer::Error| UnitOnMachine {
        error: error.to_string(),
        hint: error.hint(),
        silent: error.is_silent(),
        ..UnitOnMachine::default()
    };
    let machine = MachineId::new(machine);
    let behalf = call.permit.behalf();
    let mut reading = Reading::new(&*state.store);
    let peer = match here.peer(&mut reading, &machine, behalf.as_deref()).await {
        Ok(Ok(peer)) => peer,
        Ok(Err(error)) => return not_asked(&error),
        Err(failure) => {
            return UnitOnMachine {
                error: failure.full_message(),
                ..UnitOnMachine::default()
            };
        }
    };
    let asked = peer
        .client
        .unit_on_machine(machine.as_str(), unit.as_str(), n_lines);
    asked
        .await
        .unwrap_or_else(|error| not_asked(&peer.failed(&error)))
}

async fn on_this_machine(here: &Here, unit: &UnitName, n_lines: usize) -> UnitOnMachine {
    let (systemd, lines) =
        tokio::join!(here.manager.inspect(unit), last_lines(here, unit, n_lines));
    let (systemd, error) = match systemd {
        Ok(view) => (Some(view), String::new()),
        Err(why) => (None, format!("machine {}: {why}", here.machine.short())),
    };
    UnitOnMachine {
        systemd,
        lines,
        error,
        ..UnitOnMachine::default()
    }
}

/// No journal is no trouble: the status is told without it.
async fn last_lines(here: &Here, unit: &UnitName, n_lines: usize) -> Vec<JournalEntry> {
    let mut found = Vec::new();
    if n_lines == 0 {
        return found;
    }
    let query = JournalQuery {
        units: vec![unit.clone()],
        lines: Some(n_lines),
        ..JournalQuery::default()
    };
    let read = async {
        let Ok(mut lines) = Lines::of(here, &query).await else {
            return;
        };
        while let Ok(Some(entry)) = lines.next().await {
            found.push(entry);
        }
    };
    let _ = timeout(JOURNAL_TIMEOUT, read).await;
    found
}
