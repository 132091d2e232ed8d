//! A fleetd for terminal sessions: the API, v2 (`v2`) or that of an original one (`v1`), over a
//! cluster in memory in which everything happens at once. What a unit does is written in its name:
//!
//! | begins with | does |
//! |---|---|
//! | `bad` | fails when it is started |
//! | `once` | has finished when it was started |
//! | `nowhere` | no machine may run it |
//! | `slow` | is never done |
//! | `silent` | wishes for it are not answered |
//! | `stuck` | is not restarted, whatever is asked |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fleet_api::error::ErrorBody;
use fleet_api::v2::{MachineView, StateView, UnitView};
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::UnitFile;

mod machines;
mod v1;
mod v2;

pub(crate) const H1: &str = "63d22e369175433883a37d92cc53f36c";
pub(crate) const H2: &str = "6a97c281d654404fb1ef271dfcd36920";

/// A cluster.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) has_v2: bool,
    pub(crate) machines: Vec<MachineView>,
    /// It asks machines for what only they know.
    pub(crate) asks_machines: bool,
    /// Present machines that it cannot ask.
    pub(crate) unreachable: Vec<&'static str>,
    pub(crate) units: BTreeMap<String, FakeUnit>,
    /// `POST /fleet/v2/units`, in order.
    pub(crate) requests: Vec<String>,
    /// Every request is answered so.
    pub(crate) outage: Option<(u16, &'static str)>,
    /// So many waits end before anything is said.
    pub(crate) n_broken_waits: u32,
    /// Every answer warns of it.
    pub(crate) warning: Option<&'static str>,
    /// What watching units says, a request after the other, and whether it ends then; 410 for none.
    pub(crate) watches: std::collections::VecDeque<Option<(String, bool)>>,
    pub(crate) generation: u64,
    /// An original one: a change is seen when it has been asked for so many times.
    pub(crate) n_slow_looks: u32,
    /// An original one: so many looks at a change that is not seen yet fail.
    pub(crate) n_failing_looks: u32,
}

#[derive(Clone, Default)]
pub(crate) struct FakeUnit {
    pub(crate) file: UnitFile,
    pub(crate) desired: String,
    /// What is seen of it until `n_looks` is 0.
    pub(crate) was: String,
    pub(crate) n_looks: u32,
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
            ..FakeUnit::default()
        };
        self.units.insert(name.into(), unit);
    }

    fn view(&self, name: &str) -> Option<UnitView> {
        let unit = self.units.get(name)?;
        let seen = unit.seen();
        let is_placed = seen != "inactive" && !name.starts_with("nowhere");
        let global = unit.is_global();
        let on: Vec<&MachineView> = match (is_placed, global) {
            (false, _) => Vec::new(),
            (true, true) => self.machines.iter().collect(),
            // Two copies after a cut: the one to be stopped is still there.
            (true, false) if name.starts_with("twice") => self.machines.iter().collect(),
            (true, false) => self.machines.iter().take(1).collect(),
        };
        let current = if is_placed { seen } else { "inactive" };
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
        let (active, sub) = match unit.seen() {
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
}

impl FakeUnit {
    /// What the cluster has come to, as far as anybody sees.
    fn seen(&self) -> &str {
        match self.n_looks {
            0 => &self.desired,
            _ => &self.was,
        }
    }

    fn is_global(&self) -> bool {
        Requirements::parse(&self.file, None).0.global
    }
}

/// Serves the cluster until the runtime ends.
pub(crate) async fn serve(cluster: Shared, listener: tokio::net::UnixListener) {
    let v2 = Router::new()
        .route("/machines", get(v2::machines))
        .route("/units", get(v2::units).post(v2::batch))
        .route("/units/{name}", get(v2::unit))
        .route("/watch/units", get(v2::watch))
        .route("/units/{name}/status", get(machines::status))
        .route("/journal", get(machines::journal))
        .route("/wait", post(v2::wait));
    let router = Router::new()
        .nest("/fleet/v1", v1::router())
        .nest("/v1-alpha", v1::router())
        .nest("/fleet/v2", v2)
        .fallback(async || error(404, ""))
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
    let warning = cluster.lock().unwrap().warning;
    let mut response = next.run(request).await;
    if let Some(warning) = warning {
        let value = HeaderValue::from_str(&format!("199 fleet \"{warning}\"")).unwrap();
        response.headers_mut().insert("Warning", value);
    }
    let server = HeaderValue::from_static("fleetd/v1.0.0-15-g45224983");
    response.headers_mut().insert("Server", server);
    response
}

fn error(code: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(code).unwrap();
    (status, json(&ErrorBody::new(code, message))).into_response()
}

fn json<T: serde::Serialize>(value: &T) -> Response {
    let text = fleet_api::v1::to_json(value);
    ([("Content-Type", "application/json")], text).into_response()
}

fn parameters(query: Option<String>) -> BTreeMap<String, String> {
    let query = query.unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| {
        // What names have that URLs do not.
        text.replace("%7F", "\u{7f}")
            .replace("%3F", "?")
            .replace("%2A", "*")
            .replace("%3D", "=")
    };
    pairs
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect()
}
