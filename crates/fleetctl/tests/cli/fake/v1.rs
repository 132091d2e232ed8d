//! API v1 as an original fleetd has it, its oddities included: pages of 100 with a token, no
//! states of a global unit's own, a target state that a replacement resets, no validation of a
//! replacement, and a connection that is dropped where a state is asked for that is not there.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use fleet_api::paging::PageToken;
use fleet_api::v1::{Machine, MachinePage, Unit, UnitOption, UnitPage, UnitState, UnitStatePage};
use fleet_core::name::UnitName;
use fleet_core::unit_file::{UnitFile, UnitOption as CoreOption};
use fleet_core::validate::{UnknownKeys, validate_unit};

use super::{Cluster, Shared, error, json, parameters};

/// `token_limit`.
const PAGE: u16 = 100;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/machines", get(machines))
        .route("/units", get(units))
        .route("/units/{name}", any(unit))
        .route("/state", get(states))
        .route("/state/{name}", get(state))
}

/// The page that is asked for, and the token of the next.
fn page<T>(
    items: Vec<T>,
    query: &BTreeMap<String, String>,
) -> Result<(Vec<T>, String), Box<Response>> {
    let token = match query.get("nextPageToken") {
        None => PageToken {
            limit: PAGE,
            page: 1,
        },
        Some(text) => {
            PageToken::parse(text, PAGE).map_err(|why| Box::new(error(400, &why.to_string())))?
        }
    };
    let (begin, end) = (
        usize::from(token.page - 1) * usize::from(PAGE),
        usize::from(token.page) * usize::from(PAGE),
    );
    // Also when the page ends with the last item: an empty one follows.
    let next = (end <= items.len()).then(|| token.next().unwrap().encode());
    let items = items.into_iter().skip(begin).take(usize::from(PAGE));
    Ok((items.collect(), next.unwrap_or_default()))
}

async fn machines(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let cluster = cluster.lock().unwrap();
    let present = cluster.machines.iter().filter(|m| m.status == "present");
    let machines = present.map(|m| Machine {
        id: m.id.clone(),
        metadata: m.metadata.clone(),
        primary_ip: m.primary_ip.clone(),
    });
    match page(machines.collect(), &parameters(query)) {
        Ok((machines, next_page_token)) => json(&MachinePage {
            machines,
            next_page_token,
        }),
        Err(refusal) => *refusal,
    }
}

fn one(cluster: &Cluster, name: &str) -> Option<Unit> {
    let view = cluster.view(name)?;
    let file = &cluster.units[name].file;
    Some(Unit {
        current_state: view.current_state.unwrap_or_default(),
        desired_state: view.desired_state,
        machine_id: view.machine_id.unwrap_or_default(),
        name: name.into(),
        options: file
            .options()
            .iter()
            .map(|o| UnitOption {
                name: o.name.clone(),
                section: o.section.clone(),
                value: o.value.clone(),
            })
            .collect(),
    })
}

async fn units(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let mut cluster = cluster.lock().unwrap();
    for unit in cluster.units.values_mut() {
        unit.n_looks = unit.n_looks.saturating_sub(1);
    }
    let units = cluster.units.keys().filter_map(|name| {
        let mut unit = one(&cluster, name)?;
        if unit.current_state.is_empty() {
            // Here a global unit has one.
            unit.current_state = "inactive".into();
        }
        Some(unit)
    });
    match page(units.collect(), &parameters(query)) {
        Ok((units, next_page_token)) => json(&UnitPage {
            units,
            next_page_token,
        }),
        Err(refusal) => *refusal,
    }
}

async fn unit(
    State(cluster): State<Shared>,
    UrlPath(name): UrlPath<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut cluster = cluster.lock().unwrap();
    let answer = match method {
        Method::GET => {
            let unit = cluster.units.get_mut(&name);
            let is_changing = unit.is_some_and(|unit| {
                unit.n_looks = unit.n_looks.saturating_sub(1);
                unit.n_looks > 0
            });
            if is_changing && cluster.n_failing_looks > 0 {
                cluster.n_failing_looks -= 1;
                return error(500, "");
            }
            one(&cluster, &name).map(|unit| json(&unit))
        }
        Method::DELETE => {
            let removed = cluster.units.remove(&name);
            removed.map(|_| StatusCode::NO_CONTENT.into_response())
        }
        Method::PUT => Some(match put(&mut cluster, &name, &headers, &body) {
            Ok(status) => status.into_response(),
            Err((code, message)) => error(code, &message),
        }),
        _ => Some(error(
            405,
            "only GET, PUT and DELETE supported against this resource",
        )),
    };
    answer.unwrap_or_else(|| error(404, "unit does not exist"))
}

fn put(
    cluster: &mut Cluster,
    name: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<StatusCode, (u16, String)> {
    let refuse = |code: u16, message: &str| Err((code, message.to_owned()));
    let types: Vec<_> = headers.get_all("Content-Type").iter().collect();
    let [content_type] = types[..] else {
        return refuse(
            415,
            &format!("expected 1 Content-Type, got {}", types.len()),
        );
    };
    let content_type = content_type.to_str().unwrap().split(';').next();
    if content_type != Some("application/json") {
        return refuse(415, "only acceptable Content-Type is application/json");
    }
    let unit: Unit = serde_json::from_slice(body)
        .map_err(|why| (400, format!("unable to decode body: {why}")))?;
    if !unit.name.is_empty() && unit.name != name {
        let other = &unit.name;
        return refuse(
            400,
            &format!("name in URL \"{name}\" differs from unit name in request body \"{other}\""),
        );
    }
    let parsed = UnitName::parse(name).map_err(|why| (400, why.to_string()))?;
    let options = unit.options.iter();
    let options = options.map(|o| CoreOption::new(&o.section, &o.name, &o.value));
    let file = UnitFile::from_options(options.collect());
    let desired = unit.desired_state.as_str();
    let has_options = !file.options().is_empty();
    let known = cluster.units.get(name).cloned();
    let is_same = known
        .as_ref()
        .is_some_and(|known| known.file.hash() == file.hash());
    match &known {
        None if !has_options => {
            return refuse(409, "unit does not exist and options field empty");
        }
        None => {
            validate_unit(None, &file, UnknownKeys::Allow).map_err(|why| (400, why.message()))?;
            if !matches!(desired, "" | "inactive" | "loaded" | "launched") {
                return refuse(500, "");
            }
        }
        Some(_) if !has_options || is_same => {
            if desired.is_empty() {
                return refuse(409, "must provide DesiredState to update existing unit");
            }
            if parsed.is_template() && desired != "inactive" {
                return refuse(400, &format!("cannot activate template \"{name}\""));
            }
        }
        // New contents are taken as they are.
        Some(_) => {}
    }
    let is_new = known.is_none();
    let was = known.map_or("inactive".to_owned(), |known| known.desired);
    if has_options && !is_same {
        let desired = if desired.is_empty() {
            "inactive"
        } else {
            desired
        };
        let invocation = cluster.units.get(name).map_or(1, |known| known.invocation);
        cluster.add(name, &file.to_text(), desired);
        let n_looks = if is_new && desired == "inactive" {
            0
        } else {
            cluster.n_slow_looks
        };
        let unit = cluster.units.get_mut(name).unwrap();
        (unit.was, unit.n_looks, unit.invocation) = (was, n_looks, invocation);
        return Ok(StatusCode::CREATED);
    }
    let n_looks = cluster.n_slow_looks;
    let unit = cluster.units.get_mut(name).unwrap();
    unit.invocation += u64::from(desired == "launched" && unit.desired != "launched");
    if unit.desired != desired {
        (unit.was, unit.n_looks) = (was, n_looks);
    }
    unit.desired = desired.to_owned();
    Ok(StatusCode::NO_CONTENT)
}

fn states_of(cluster: &Cluster, name: &str) -> Vec<UnitState> {
    let view = cluster.view(name).unwrap_or_default();
    let states = view.states.into_iter().map(|state| UnitState {
        hash: state.hash,
        machine_id: state.machine_id,
        name: name.to_owned(),
        active: state.active,
        load: state.load,
        sub: state.sub,
    });
    states.collect()
}

async fn states(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let cluster = cluster.lock().unwrap();
    let query = parameters(query);
    let is_wanted = |key: &str, value: &str| query.get(key).is_none_or(|wanted| wanted == value);
    let names = cluster.units.keys();
    let states = names
        .filter(|name| is_wanted("unitName", name))
        .flat_map(|name| states_of(&cluster, name))
        .filter(|state| is_wanted("machineID", &state.machine_id));
    match page(states.collect(), &query) {
        Ok((states, next_page_token)) => json(&UnitStatePage {
            states,
            next_page_token,
        }),
        Err(refusal) => *refusal,
    }
}

async fn state(State(cluster): State<Shared>, UrlPath(name): UrlPath<String>) -> Response {
    let states = states_of(&cluster.lock().unwrap(), &name);
    match states.first() {
        Some(state) => json(state),
        // The handler crashes: no answer, and the connection is closed. No hook says a word.
        None => std::panic::resume_unwind(Box::new(())),
    }
}
