//! API v2: what v1 cannot say. Its types and paths are those of [`fleet_api::v2`].

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use fleet_api::v2::{BASE, MAX_PAGE, RefusalView, StateView, UnitListing, UnitView};
use fleet_core::records::{MemberStatus, PlacementRecord, Reached, Refusal, StateRecord};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::path::V2;
use super::read::{LiveUnit, Reading, StateOf, UnitRange, current_state, home};
use super::request::{Answer, Call, Reply, RequestBody};
use super::{Api, batch, rows, wait};
use crate::access::Verb;
use crate::store::keys::{self, Key};
use crate::store::{self, Range, Revision};

pub(crate) mod certificates;
mod cluster;
mod events;
mod journal;
mod machines;
mod status;
mod whoami;

pub(crate) use machines::Members;

/// Most entries read at a time beside a page of units.
const MAX_CHUNK: usize = 5_000;

pub(crate) async fn serve(
    state: &Api,
    call: &Call,
    body: &mut RequestBody,
    resource: V2,
) -> Answer {
    match (resource, call.method.clone()) {
        (V2::Units, Method::GET) => list(state, call).await,
        (V2::Units, Method::POST) => batch::submit(state, call, body).await,
        (V2::Unit(name), Method::GET) => get(state, &name).await,
        (V2::Machines, Method::GET) => machines::list(state, call).await,
        (V2::Machine(id), Method::GET) => machines::get(state, call, &id).await,
        (V2::Machine(id), Method::POST) => machines::change(state, call, &id, body).await,
        (V2::UnitsOfMachine(id), Method::GET) => machines::units(state, call, &id).await,
        (V2::Cluster, Method::GET) => cluster::get(state, call).await,
        (V2::Events, Method::GET) => events::get(state, call).await,
        (V2::UnitStatus(name), Method::GET) => status::of_unit(state, call, &name).await,
        (V2::UnitOnMachine(id, name), Method::GET) => {
            status::of_machine(state, call, &id, &name).await
        }
        (V2::Journal, Method::GET) => journal::get(state, call).await,
        (V2::WatchUnits, Method::GET) => {
            let revision = number(call, "revision")?;
            rows::watch(state, call, revision).await
        }
        (V2::Thaw, Method::POST) => machines::thaw(state, call).await,
        (V2::AcceptStore, Method::POST) => machines::accept_store(state, call).await,
        (V2::Join, Method::POST) => Err(Failure::bad_request(
            "whoever joins has no certificate yet, and says so in TLS: fleetctl join does",
        )),
        (V2::JoinTokens, Method::POST) => certificates::join_token(state, call, body).await,
        (V2::Certificates, Method::POST) => certificates::renew(state, call, body).await,
        (V2::Revocations, Method::GET) => certificates::revocations(state).await,
        (V2::Revocations, Method::POST) => certificates::revoke(state, call, body).await,
        (V2::Whoami, Method::GET) => whoami::get(state, call).await,
        (V2::Wait, Method::POST) => wait::start(state, call, body).await,
        (V2::OpenApi, Method::GET) => Ok(Reply::text(
            "application/json",
            fleet_api::openapi::DOCUMENT,
        )),
        (V2::Units | V2::Machine(_) | V2::Revocations, _) => not_allowed("GET and POST"),
        (
            V2::Unit(_)
            | V2::Machines
            | V2::UnitsOfMachine(_)
            | V2::Cluster
            | V2::Events
            | V2::UnitStatus(_)
            | V2::UnitOnMachine(..)
            | V2::Journal
            | V2::WatchUnits
            | V2::Whoami
            | V2::OpenApi,
            _,
        ) => not_allowed("GET"),
        (
            V2::Wait | V2::Thaw | V2::AcceptStore | V2::Join | V2::JoinTokens | V2::Certificates,
            _,
        ) => not_allowed("POST"),
    }
}

/// A body of v2.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("unable to decode body: {error}")))
}

fn not_allowed(methods: &str) -> Answer {
    let message = format!("only {methods} supported against this resource");
    Err(Failure::new(405, message))
}

async fn list(state: &Api, call: &Call) -> Answer {
    let limit = number(call, "limit")?.map_or(MAX_PAGE, |limit| {
        usize::try_from(limit)
            .unwrap_or(MAX_PAGE)
            .clamp(1, MAX_PAGE)
    });
    let revision = number(call, "revision")?;
    let after = call.parameter("after");
    if let Some(fields) = call.parameter("fields") {
        let asked = rows::Asked {
            fields,
            after,
            revision,
            limit,
        };
        return rows::list(state, call, asked).await;
    }
    let mut reading = Reading::new(&*state.store);
    let shown = call.permit.shown_units(Verb::UnitRead);
    let is_shown = |name: &str| shown.as_ref().is_none_or(|shown| shown(name));
    let page = reading
        .units(after, 0, limit, revision, is_shown)
        .await
        .map_err(compacted)?;
    let at = Some(page.revision);
    // Side by side: they are all of the page's revision.
    let mut readings = [(); 3].map(|()| Reading::new(&*state.store));
    let [of_placements, of_states, of_members] = &mut readings;
    let (mut placements, mut states, members) = tokio::try_join!(
        placements(state, of_placements, &page.units, at),
        states(state, of_states, &page.units, at),
        members_of(state, of_members, &page),
    )?;
    let units = page
        .units
        .into_iter()
        .map(|unit| {
            let states = states.remove(&unit.name).unwrap_or_default();
            let placement = placements.remove(&unit.name);
            view(unit, placement, states, &members)
        })
        .collect();
    let listing = UnitListing {
        revision: page.revision,
        units,
        more: page.more,
    };
    let warnings = std::iter::once(reading).chain(readings);
    let warnings = warnings.flat_map(Reading::into_warnings).collect();
    Ok(Reply::json(&listing).with_warnings(warnings))
}

/// The machines at a page's revision. They are read once for the listing, however many pages it has,
/// and forgotten with its last one.
async fn members_of(
    state: &Api,
    reading: &mut Reading<'_>,
    page: &UnitRange,
) -> Result<Arc<Members>, Failure> {
    let kept = || {
        let kept = state.members.lock();
        kept.unwrap_or_else(PoisonError::into_inner)
    };
    let known = kept().clone();
    let known = known.filter(|(revision, _)| *revision == page.revision);
    let members = match known {
        Some((_, members)) => members,
        None => {
            let read = Members::read(reading, Some(page.revision)).await;
            Arc::new(read.map_err(compacted)?)
        }
    };
    let mut kept = kept();
    if page.more {
        *kept = Some((page.revision, Arc::clone(&members)));
    } else if kept
        .as_ref()
        .is_some_and(|(revision, _)| *revision == page.revision)
    {
        *kept = None;
    }
    Ok(members)
}

async fn get(state: &Api, name: &str) -> Answer {
    let mut reading = Reading::new(&*state.store);
    let (view, _) = unit_view(&mut reading, name).await?;
    Ok(Reply::json(&view).with_warnings(reading.into_warnings()))
}

/// All that is known of one unit, and the machines.
async fn unit_view(reading: &mut Reading<'_>, name: &str) -> Result<(UnitView, Members), Failure> {
    let unit = reading.unit(name).await?.ok_or_else(Failure::no_unit)?;
    let placement = reading.placement(name).await?;
    let states = reading.states(Some(name)).await?;
    let members = Members::read(reading, None).await?;
    let text = Some(unit.record.text.to_string());
    let changed_by = unit.record.changed_by.clone();
    let view = UnitView {
        text,
        changed_by,
        changed_ms: unit.record.changed_ms,
        since_ms: placement.as_ref().map_or(0, |placement| placement.since_ms),
        passed_over: placement
            .as_ref()
            .map(|placement| refusals(&placement.passed_over))
            .unwrap_or_default(),
        ..view(unit, placement, states, &members)
    };
    Ok((view, members))
}

/// The placements of a page of units: a range over the same names.
async fn placements(
    state: &Api,
    reading: &mut Reading<'_>,
    units: &[LiveUnit],
    revision: Option<Revision>,
) -> Result<HashMap<String, PlacementRecord>, Failure> {
    let mut placements = HashMap::with_capacity(units.len());
    let (Some(first), Some(last)) = (units.first(), units.last()) else {
        return Ok(placements);
    };
    let mut after = just_before(&keys::placement(&first.name));
    let end = keys::placement(&last.name);
    loop {
        let range = Range {
            prefix: keys::PLACEMENTS.to_owned(),
            after: Some(after),
            until: Some(format!("{end}\0")),
            limit: Some(chunk(units)),
            revision,
            ..Range::default()
        };
        let snapshot = state.store.read(range).await.map_err(compacted)?;
        for entry in &snapshot.entries {
            if let Key::Placement(unit) = keys::parse(&entry.key)
                && let Some(record) = reading.decode(entry)
            {
                placements.insert(unit.to_owned(), record);
            }
        }
        match snapshot.entries.last() {
            Some(entry) if snapshot.more => after = entry.key.clone(),
            _ => return Ok(placements),
        }
    }
}

/// The states of a page of units.
async fn states(
    state: &Api,
    reading: &mut Reading<'_>,
    units: &[LiveUnit],
    revision: Option<Revision>,
) -> Result<HashMap<String, Vec<StateOf>>, Failure> {
    let mut states: HashMap<String, Vec<StateOf>> = units
        .iter()
        .map(|unit| (unit.name.clone(), Vec::new()))
        .collect();
    // The `/` behind a unit's name sorts after `-` and `.`, so that keys are not in the order of
    // the names: the range goes from the first to the last *key* of these units.
    let first = units.iter().map(|unit| keys::states_of(&unit.name)).min();
    let last = units.iter().map(|unit| keys::states_of(&unit.name)).max();
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(states);
    };
    let mut after = just_before(&first);
    loop {
        let range = Range {
            prefix: keys::STATES.to_owned(),
            after: Some(after),
            limit: Some(chunk(units)),
            revision,
            ..Range::default()
        };
        let snapshot = state.store.read(range).await.map_err(compacted)?;
        let end = snapshot
            .entries
            .iter()
            .position(|entry| entry.key > last && !entry.key.starts_with(&last))
            .unwrap_or(snapshot.entries.len());
        for found in reading.states_in(&snapshot.entries[..end]) {
            if let Some(states) = states.get_mut(&found.unit) {
                states.push(found);
            }
        }
        match snapshot.entries.last() {
            Some(entry) if snapshot.more && end == snapshot.entries.len() => {
                after = entry.key.clone();
            }
            _ => return Ok(states),
        }
    }
}

/// How much to read at once beside a page: about what belongs to it, seldom much more.
fn chunk(units: &[LiveUnit]) -> usize {
    (2 * units.len() + 16).min(MAX_CHUNK)
}

/// A text that sorts before a key, and hardly anything between them.
fn just_before(key: &str) -> String {
    let mut before = key.to_owned();
    before.pop();
    before
}

fn view(
    unit: LiveUnit,
    placement: Option<PlacementRecord>,
    states: Vec<StateOf>,
    members: &Members,
) -> UnitView {
    let placed = placement.as_ref();
    let machine = placed.and_then(|placement| placement.machine.as_ref());
    // A machine that is given up will not confirm that the unit has left it.
    let has_left = |machine: &str| {
        let status = members.status(machine);
        matches!(status, MemberStatus::Lost | MemberStatus::Retired)
    };
    let home = placed
        .and_then(home)
        .filter(|home| machine.is_some() || !has_left(home.as_str()));
    let there = home.and_then(|home| states.iter().find(|state| state.machine == home.as_str()));
    let current = (!unit.global).then(|| {
        let state = there.map(|state| &state.record);
        current_state(placed, state).as_str().to_owned()
    });
    let machine_id = machine.map(ToString::to_string);
    let leaving_id = placed
        .and_then(|placement| placement.leaving.as_ref())
        .map(ToString::to_string);
    let description = unit.file.description().map(str::to_owned);
    // Of a unit without a placement nothing is said.
    let (reason, refused, considered) = placement.map_or_else(Default::default, |placement| {
        (placement.reason, placement.refusals, placement.considered)
    });
    UnitView {
        name: unit.name,
        generation: unit.generation,
        hash: unit.record.hash.to_string(),
        desired_state: unit.record.desired.as_str().to_owned(),
        current_state: current,
        description,
        global: unit.global,
        machine_id,
        reason,
        refusals: refusals(&refused),
        passed_over: Vec::new(),
        considered,
        leaving_id,
        since_ms: 0,
        states: states
            .into_iter()
            .filter(|state| state.record.reached != Reached::Gone)
            .map(|state| {
                let is_stale = members.status(&state.machine) != MemberStatus::Present;
                state_view(state.machine, state.record, is_stale)
            })
            .collect(),
        text: None,
        changed_by: String::new(),
        changed_ms: 0,
    }
}

/// Refusals on the wire.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<RefusalView> {
    refusals
        .iter()
        .map(|refusal| RefusalView {
            requirement: refusal.requirement.clone(),
            machines: refusal.machines,
        })
        .collect()
}

/// A state on the wire.
pub(crate) fn state_view(machine: String, state: StateRecord, is_stale: bool) -> StateView {
    StateView {
        machine_id: machine,
        load: state.load,
        active: state.active,
        sub: state.sub,
        hash: state.hash.to_string(),
        description: state.description,
        reached: state.reached.as_str().to_owned(),
        invocation_id: state.invocation_id,
        stale: is_stale,
        why: state.why,
        log: state.log,
    }
}

/// A numeric parameter.
fn number(call: &Call, key: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = call.parameter(key) else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|_| Failure::bad_request(format!("invalid {key} {text:?}: use a number")))
}

/// A listing whose revision is no longer kept, or not of this store, cannot go on.
pub(crate) fn compacted(error: store::Error) -> Failure {
    match error {
        store::Error::Compacted(_) | store::Error::Refused(_) => Failure::new(
            410,
            format!("{error}: begin the listing anew (GET {BASE}/units)"),
        ),
        error => error.into(),
    }
}
