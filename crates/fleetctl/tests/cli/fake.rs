//! A fleetd for terminal sessions: the API, v2 or that of an original one, over a cluster in
//! memory in which everything happens at once. What a unit does is written in its name:
//!
//! | begins with | does |
//! |---|---|
//! | `bad` | fails when it is started |
//! | `once` | has finished when it was started |
//! | `nowhere` | no machine may run it |
//! | `slow` | is never done |
//! | `stuck` | is not restarted, whatever is asked |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use fleet_api::error::ErrorBody;
use fleet_api::v1::{self, Unit, UnitOption, UnitPage, UnitState, UnitStatePage};
use fleet_api::v2::{
    BatchAnswer, BatchRequest, MachineListing, MachineRef, MachineView, Progress, RefusalView,
    StateView, UnitListing, UnitView, WaitRequest, WishAnswer,
};
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::{UnitFile, UnitOption as CoreOption};

pub(crate) const H1: &str = "63d22e369175433883a37d92cc53f36c";
pub(crate) const H2: &str = "6a97c281d654404fb1ef271dfcd36920";

/// A cluster.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) has_v2: bool,
    pub(crate) machines: Vec<MachineView>,
    pub(crate) units: BTreeMap<String, FakeUnit>,
    /// `POST /fleet/v2/units`, in order.
    pub(crate) requests: Vec<String>,
    /// Every request is answered so.
    pub(crate) outage: Option<(u16, &'static str)>,
    /// So many waits end before anything is said.
    pub(crate) n_broken_waits: u32,
    pub(crate) generation: u64,
}

#[derive(Clone, Default)]
pub(crate) struct FakeUnit {
    pub(crate) file: UnitFile,
    pub(crate) desired: String,
    pub(crate) invocation: u64,
    pub(crate) generation: u64,
}

pub(crate) type Shared = Arc<Mutex<Cluster>>;

pub(crate) fn machine(id: &str, ip: &str, status: &str, metadata: &[(&str, &str)]) -> MachineView {
    MachineView {
        id: id.into(),
        primary_ip: ip.into(),
        metadata: metadata
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        status: status.into(),
        ..MachineView::default()
    }
}

impl Cluster {
    pub(crate) fn add(&mut self, name: &str, text: &str, desired: &str) {
        self.generation += 1;
        let unit = FakeUnit {
            file: UnitFile::parse(text).unwrap(),
            desired: desired.into(),
            invocation: 1,
            generation: self.generation,
        };
        self.units.insert(name.into(), unit);
    }

    fn view(&self, name: &str) -> Option<UnitView> {
        let unit = self.units.get(name)?;
        let is_placed = unit.desired != "inactive" && !name.starts_with("nowhere");
        let global = unit.is_global();
        let on: Vec<&MachineView> = match (is_placed, global) {
            (false, _) => Vec::new(),
            (true, true) => self.machines.iter().collect(),
            (true, false) => self.machines.iter().take(1).collect(),
        };
        let current = if is_placed { &unit.desired } else { "inactive" };
        Some(UnitView {
            name: name.into(),
            generation: unit.generation,
            hash: unit.file.hash().to_string(),
            desired_state: unit.desired.clone(),
            current_state: (!global).then(|| current.to_owned()),
            description: unit.file.description().map(str::to_owned),
            global,
            machine_id: on.first().filter(|_| !global).map(|m| m.id.clone()),
            states: on.iter().map(|m| self.state(name, unit, m)).collect(),
            ..UnitView::default()
        })
    }

    fn state(&self, name: &str, unit: &FakeUnit, machine: &MachineView) -> StateView {
        let (active, sub) = match unit.desired.as_str() {
            "launched" if name.starts_with("bad") => ("failed", "failed"),
            "launched" if name.starts_with("once") => ("inactive", "dead"),
            "launched" if name.starts_with("slow") => ("activating", "start"),
            "launched" => ("active", "running"),
            _ => ("inactive", "dead"),
        };
        StateView {
            machine_id: machine.id.clone(),
            load: "loaded".into(),
            active: active.into(),
            sub: sub.into(),
            hash: unit.file.hash().to_string(),
            description: unit.file.description().unwrap_or_default().into(),
            reached: unit.desired.clone(),
            invocation_id: unit.invocation.to_string(),
            stale: machine.status != "present",
            ..StateView::default()
        }
    }

    fn batch(&mut self, request: &BatchRequest) -> BatchAnswer {
        let units = request.units.iter().map(|wish| {
            self.generation += 1;
            let generation = self.generation;
            let error = |code, text: &str| WishAnswer {
                name: wish.name.clone(),
                outcome: "error".into(),
                code: Some(code),
                error: Some(text.into()),
                ..WishAnswer::default()
            };
            let file = wish
                .text
                .as_ref()
                .map(|text| UnitFile::parse(text).unwrap());
            let is_new = !self.units.contains_key(&wish.name);
            if is_new && file.is_none() {
                return error(409, "unit does not exist and options field empty");
            }
            if wish.desired_state.as_deref() == Some("destroyed") {
                self.units.remove(&wish.name);
                return WishAnswer {
                    name: wish.name.clone(),
                    outcome: "changed".into(),
                    generation,
                    ..WishAnswer::default()
                };
            }
            let unit = self.units.entry(wish.name.clone()).or_default();
            unit.generation = generation;
            let mut outcome = if is_new { "created" } else { "changed" };
            if let Some(file) = file
                && (is_new || wish.replace)
            {
                if !is_new {
                    outcome = "replaced";
                }
                unit.file = file;
            }
            match &wish.desired_state {
                Some(desired) => unit.desired.clone_from(desired),
                None if is_new => unit.desired = "inactive".into(),
                None => {}
            }
            if (wish.restart || is_new) && !wish.name.starts_with("stuck") {
                unit.invocation += 1;
            }
            WishAnswer {
                name: wish.name.clone(),
                outcome: outcome.into(),
                generation,
                ..WishAnswer::default()
            }
        });
        BatchAnswer {
            units: units.collect(),
        }
    }

    /// The lines of a wait. None at the end: it goes on for ever.
    fn progress(&self, name: &str) -> (Vec<Progress>, bool) {
        let line = |phase: &str, is_final| Progress {
            name: name.into(),
            phase: phase.into(),
            is_final,
            ..Progress::default()
        };
        let Some(view) = self.view(name) else {
            return (vec![line("destroyed", true)], true);
        };
        if name.starts_with("slow") {
            return (vec![line("placed", false)], false);
        }
        if name.starts_with("nowhere") && view.desired_state != "inactive" {
            let pending = Progress {
                refusals: vec![RefusalView {
                    requirement: "MachineMetadata region=mars".into(),
                    machines: 2,
                }],
                considered: 2,
                reason: "no machine may run it".into(),
                ..line("pending", false)
            };
            return (vec![pending], false);
        }
        let machine = |state: &StateView| {
            let machine = self.machines.iter().find(|m| m.id == state.machine_id);
            machine.map(|m| MachineRef {
                id: m.id.clone(),
                primary_ip: m.primary_ip.clone(),
            })
        };
        if view.global {
            let lines = view.states.iter().map(|state| Progress {
                machine: machine(state),
                ..line(&view.desired_state, false)
            });
            let mut lines: Vec<Progress> = lines.collect();
            lines.push(line(&view.desired_state, true));
            return (lines, true);
        }
        let Some(state) = view.states.first() else {
            return (vec![line(&view.desired_state, true)], true);
        };
        let is_bad = state.active == "failed";
        let mut last = Progress {
            machine: machine(state),
            state: Some(state.clone()),
            ..line(
                if is_bad {
                    "failed"
                } else {
                    &view.desired_state
                },
                true,
            )
        };
        if let (true, Some(state)) = (is_bad, &mut last.state) {
            state.why = Some("exit code 1".into());
            state.log = vec![
                "/bin/false: no".into(),
                "Main process exited, code=exited".into(),
            ];
        }
        (vec![last], true)
    }
}

impl FakeUnit {
    fn is_global(&self) -> bool {
        Requirements::parse(&self.file, None).0.global
    }
}

/// Serves the cluster until the runtime ends.
pub(crate) async fn serve(cluster: Shared, listener: tokio::net::UnixListener) {
    let router = Router::new()
        .route("/fleet/v1/machines", get(v1_machines))
        .route("/fleet/v1/units", get(v1_units))
        .route("/fleet/v1/units/{name}", any(v1_unit))
        .route("/fleet/v1/state", get(v1_states))
        .route("/fleet/v2/machines", get(v2_machines))
        .route("/fleet/v2/units", get(v2_units).post(v2_batch))
        .route("/fleet/v2/units/{name}", get(v2_unit))
        .route("/fleet/v2/wait", post(v2_wait))
        .layer(axum::middleware::from_fn_with_state(cluster.clone(), gate))
        .with_state(cluster);
    axum::serve(listener, router).await.unwrap();
}

/// Notes the request; an original fleetd knows no v2, and one without its store knows nothing.
async fn gate(
    State(cluster): State<Shared>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let path = request.uri().path().to_owned();
    {
        let mut cluster = cluster.lock().unwrap();
        cluster
            .requests
            .push(format!("{} {path}", request.method()));
        if let Some((code, message)) = cluster.outage {
            return error(code, message);
        }
        if path.starts_with("/fleet/v2") && !cluster.has_v2 {
            return error(404, "");
        }
    }
    next.run(request).await
}

fn error(code: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(code).unwrap();
    (status, v1::to_json(&ErrorBody::new(code, message))).into_response()
}

fn json<T: serde::Serialize>(value: &T) -> Response {
    v1::to_json(value).into_response()
}

fn parameters(query: Option<String>) -> BTreeMap<String, String> {
    let query = query.unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| {
        // What names have that URLs do not.
        text.replace("%7F", "\u{7f}")
            .replace("%3F", "?")
            .replace("%2A", "*")
    };
    pairs
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect()
}

async fn v1_machines(State(cluster): State<Shared>) -> Response {
    let cluster = cluster.lock().unwrap();
    let present = cluster.machines.iter().filter(|m| m.status == "present");
    json(&v1::MachinePage {
        machines: present
            .map(|m| v1::Machine {
                id: m.id.clone(),
                metadata: m.metadata.clone(),
                primary_ip: m.primary_ip.clone(),
            })
            .collect(),
        ..v1::MachinePage::default()
    })
}

fn as_v1(cluster: &Cluster, name: &str) -> Option<Unit> {
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

async fn v1_units(State(cluster): State<Shared>) -> Response {
    let cluster = cluster.lock().unwrap();
    json(&UnitPage {
        units: cluster
            .units
            .keys()
            .filter_map(|name| as_v1(&cluster, name))
            .collect(),
        ..UnitPage::default()
    })
}

async fn v1_unit(
    State(cluster): State<Shared>,
    UrlPath(name): UrlPath<String>,
    method: Method,
    body: Bytes,
) -> Response {
    let mut cluster = cluster.lock().unwrap();
    let known = as_v1(&cluster, &name);
    if method == Method::PUT {
        let unit: Unit = serde_json::from_slice(&body).unwrap();
        let options = unit.options.iter();
        let options = options.map(|o| CoreOption::new(&o.section, &o.name, &o.value));
        let file = UnitFile::from_options(options.collect());
        if file.options().is_empty() && known.is_none() {
            return error(409, "unit does not exist and options field empty");
        }
        if name.contains("@.") && !matches!(unit.desired_state.as_str(), "" | "inactive") {
            return error(400, &format!("cannot activate template \"{name}\""));
        }
        let is_launch = unit.desired_state == "launched";
        if !file.options().is_empty() {
            let desired = match unit.desired_state.as_str() {
                "" => "inactive",
                desired => desired,
            };
            cluster.add(&name, &file.to_text(), desired);
            return StatusCode::CREATED.into_response();
        }
        let unit_known = cluster.units.get_mut(&name).unwrap();
        unit_known.invocation += u64::from(is_launch && unit_known.desired != "launched");
        unit_known.desired = unit.desired_state;
        return StatusCode::NO_CONTENT.into_response();
    }
    match (method, known) {
        (_, None) => error(404, "unit does not exist"),
        (Method::DELETE, Some(_)) => {
            cluster.units.remove(&name);
            StatusCode::NO_CONTENT.into_response()
        }
        (_, Some(unit)) => json(&unit),
    }
}

async fn v1_states(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let cluster = cluster.lock().unwrap();
    let query = parameters(query);
    let wanted = query.get("unitName");
    let names = cluster
        .units
        .keys()
        .filter(|name| wanted.is_none_or(|wanted| wanted == *name));
    let states = names.flat_map(|name| {
        let view = cluster.view(name).unwrap();
        view.states.into_iter().map(|state| UnitState {
            hash: state.hash,
            machine_id: state.machine_id,
            name: name.clone(),
            active: state.active,
            load: state.load,
            sub: state.sub,
        })
    });
    json(&UnitStatePage {
        states: states.collect(),
        ..UnitStatePage::default()
    })
}

async fn v2_machines(State(cluster): State<Shared>) -> Response {
    json(&MachineListing {
        machines: cluster.lock().unwrap().machines.clone(),
    })
}

async fn v2_units(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let cluster = cluster.lock().unwrap();
    let query = parameters(query);
    let after = query.get("after").cloned().unwrap_or_default();
    let limit: usize = query
        .get("limit")
        .map_or(5_000, |limit| limit.parse().unwrap());
    let mut names: Vec<&String> = cluster.units.keys().filter(|name| **name > after).collect();
    let more = names.len() > limit;
    names.truncate(limit);
    json(&UnitListing {
        revision: 7,
        units: names.iter().filter_map(|name| cluster.view(name)).collect(),
        more,
    })
}

async fn v2_unit(State(cluster): State<Shared>, UrlPath(name): UrlPath<String>) -> Response {
    match cluster.lock().unwrap().view(&name) {
        Some(view) => json(&view),
        None => error(404, "unit does not exist"),
    }
}

async fn v2_batch(State(cluster): State<Shared>, body: Bytes) -> Response {
    let request: BatchRequest = serde_json::from_slice(&body).unwrap();
    json(&cluster.lock().unwrap().batch(&request))
}

async fn v2_wait(State(cluster): State<Shared>, body: Bytes) -> Response {
    let request: WaitRequest = serde_json::from_slice(&body).unwrap();
    {
        let mut cluster = cluster.lock().unwrap();
        if cluster.n_broken_waits > 0 {
            cluster.n_broken_waits -= 1;
            return Body::empty().into_response();
        }
    }
    let mut text = String::new();
    let mut ends = true;
    for wait in &request.units {
        let (lines, is_over) = cluster.lock().unwrap().progress(&wait.name);
        for line in lines {
            text.push_str(&serde_json::to_string(&line).unwrap());
            text.push('\n');
        }
        ends &= is_over;
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    sender.send(Bytes::from(text)).await.unwrap();
    if !ends {
        // The answer stays open until the client has gone.
        tokio::spawn(async move { sender.closed().await });
    }
    Body::from_stream(futures_util::stream::unfold(
        receiver,
        |mut receiver| async {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), receiver))
        },
    ))
    .into_response()
}
