//! What a fleetd says that asks machines: their systemds are well, and each of their journals has two
//! lines of a unit, and a third one that comes.

use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::response::{IntoResponse, Response};
use fleet_api::v2::{
    JournalCursor, JournalEntry, JournalLine, SystemdView, UnitOnMachine, UnitStatus, UnitView,
};
use fleet_core::glob::Glob;

use super::{Cluster, H1, Shared, error, json};

/// 2023-11-14 22:13:20 UTC
const BEGAN_US: u64 = 1_700_000_000_000_000;

const HINT: &str = "have its fleetd serve machines: api_listen= in fleet.conf";

impl Cluster {
    fn on_machine(&self, unit: &UnitView, id: &str, n_lines: usize) -> UnitOnMachine {
        let machine = self.machines.iter().find(|machine| machine.id == id);
        let machine = machine.cloned().unwrap_or_default();
        let on = UnitOnMachine {
            machine_id: id.into(),
            primary_ip: machine.primary_ip,
            machine_status: machine.status.clone(),
            ..UnitOnMachine::default()
        };
        let short = &id[..8];
        if machine.status != "present" {
            let (error, hint) = (
                format!("machine {short} is not present"),
                format!("fleetctl why {short}"),
            );
            return UnitOnMachine {
                error,
                hint,
                machine_since_ms: 1,
                ..on
            };
        }
        if self.unreachable.contains(&id) {
            let error = format!("machine {short} says nowhere that other machines reach its API");
            return UnitOnMachine {
                error,
                hint: HINT.into(),
                ..on
            };
        }
        let state = unit.states.iter().find(|state| state.machine_id == id);
        let state = state.cloned().unwrap_or_default();
        let is_active = state.active == "active";
        let systemd = SystemdView {
            load: state.load,
            active: state.active.clone(),
            sub: state.sub,
            since_ms: 1,
            result: match state.active.as_str() {
                "failed" => "exit-code: main process exited, status 1/FAILURE".into(),
                _ => String::new(),
            },
            file: format!("/run/systemd/system/{}", unit.name),
            main_pid: if is_active { 42 } else { 0 },
            main_command: if is_active {
                "sleep".into()
            } else {
                String::new()
            },
            tasks: is_active.then_some(1),
            tasks_max: Some(4_915),
            memory: is_active.then_some(1_536),
            memory_peak: is_active.then_some(3 << 20),
            cpu_ns: is_active.then_some(12_345_678),
            control_group: format!("/system.slice/{}", unit.name),
            ..SystemdView::default()
        };
        let lines = (1..=2).map(|number| entry(id, &unit.name, number));
        let lines: Vec<JournalEntry> = lines.collect();
        UnitOnMachine {
            systemd: Some(systemd),
            lines: lines[2_usize.saturating_sub(n_lines)..].to_vec(),
            ..on
        }
    }
}

/// Machines tell the same, a second apart.
fn entry(id: &str, unit: &str, number: u64) -> JournalEntry {
    let (host, later) = if id == H1 { ("h1", 0) } else { ("h2", 500_000) };
    let fields = serde_json::json!({"MESSAGE": format!("{number}"), "_SYSTEMD_UNIT": unit});
    JournalEntry {
        machine_id: id.into(),
        at_us: BEGAN_US + number * 1_000_000 + later,
        unit: unit.into(),
        host: host.into(),
        identifier: "sh".into(),
        pid: "42".into(),
        message: format!("{number} of {unit}"),
        cursor: format!("s={host};i={number}"),
        fields: fields.as_object().cloned(),
        ..JournalEntry::default()
    }
}

pub(super) async fn status(
    State(cluster): State<Shared>,
    UrlPath(name): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let cluster = cluster.lock().unwrap();
    if !cluster.asks_machines {
        return error(404, "no such resource in API v2");
    }
    let Some(unit) = cluster.view(&name) else {
        return error(404, "unit does not exist");
    };
    let n_lines = super::parameters(query)["lines"].parse().unwrap();
    let ids = unit.states.iter().map(|state| state.machine_id.as_str());
    let machines = ids
        .map(|id| cluster.on_machine(&unit, id, n_lines))
        .collect();
    let unit = UnitView {
        reason: "least loaded".into(),
        changed_by: "uid 0".into(),
        ..unit
    };
    json(&UnitStatus { unit, machines })
}

pub(super) async fn journal(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let cluster = cluster.lock().unwrap();
    if !cluster.asks_machines {
        return error(404, "no such resource in API v2");
    }
    let query = query.unwrap_or_default().replace("%2A", "*");
    let units = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("unit="));
    let globs: Vec<Glob> = units.map(Glob::new).collect();
    let parameters = super::parameters(Some(query.replace("%2C", ",")));
    let follow = parameters["follow"] == "true";
    let after = parameters
        .get("after")
        .map(|text| JournalCursor::parse(text).unwrap());
    let wants = |id: &str| {
        parameters
            .get("machine")
            .is_none_or(|machine| machine == id)
    };
    let names = cluster
        .units
        .keys()
        .filter(|name| globs.iter().any(|glob| glob.matches(name)));
    let mut lines: Vec<JournalLine> = Vec::new();
    let mut cursor = after.clone().unwrap_or_default();
    for unit in names.filter_map(|name| cluster.view(name)) {
        for state in unit.states.iter().filter(|state| wants(&state.machine_id)) {
            let on = cluster.on_machine(&unit, &state.machine_id, 2);
            if !on.error.is_empty() {
                lines.push(JournalLine {
                    note: on.error,
                    hint: on.hint,
                    missing_id: state.machine_id.clone(),
                    ..JournalLine::default()
                });
                continue;
            }
            let known = after
                .as_ref()
                .and_then(|after| after.machines.get(&on.machine_id));
            let new = match known {
                Some(_) => vec![entry(&on.machine_id, &unit.name, 3)],
                None => on.lines,
            };
            lines.extend(new.into_iter().map(|entry| JournalLine {
                entry: Some(entry),
                ..JournalLine::default()
            }));
        }
    }
    lines.sort_by_key(|line| line.entry.as_ref().map(|entry| entry.at_us));
    if let Some(n_lines) = parameters.get("lines").map(|n| n.parse::<usize>().unwrap()) {
        let n_too_many = lines.len().saturating_sub(n_lines);
        lines.drain(..n_too_many);
    }
    lines
        .iter()
        .filter_map(|line| line.entry.as_ref())
        .for_each(|entry| cursor.note(entry));
    let is_over = !follow;
    if is_over {
        lines.push(JournalLine {
            cursor: cursor.to_string(),
            end: "that is all".into(),
            ..JournalLine::default()
        });
    }
    let texts = lines
        .iter()
        .map(|line| serde_json::to_string(line).unwrap() + "\n");
    let text: String = texts.collect();
    // Who follows is cut off after the first lines, and reads on.
    if is_over || after.is_none() {
        return Body::from(text).into_response();
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    sender.try_send(Bytes::from(text)).unwrap();
    tokio::spawn(async move { sender.closed().await });
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), receiver))
    });
    Body::from_stream(body).into_response()
}
