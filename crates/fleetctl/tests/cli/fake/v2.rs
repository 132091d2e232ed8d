//! API v2 over the cluster.

use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::response::{IntoResponse, Response};
use fleet_api::v2::{
    BatchAnswer, BatchRequest, MachineListing, MachineRef, Progress, RefusalView, StateView,
    UnitListing, WaitRequest, WishAnswer,
};
use fleet_core::unit_file::UnitFile;

use super::{Cluster, Shared, error, json, parameters};

impl Cluster {
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
            let differs = file.as_ref().is_some_and(|file| {
                !is_new && !wish.replace && file.normalized().unwrap() != unit.file
            });
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
                differs,
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

pub(super) async fn machines(State(cluster): State<Shared>) -> Response {
    json(&MachineListing {
        machines: cluster.lock().unwrap().machines.clone(),
    })
}

pub(super) async fn units(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
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

pub(super) async fn unit(
    State(cluster): State<Shared>,
    UrlPath(name): UrlPath<String>,
) -> Response {
    match cluster.lock().unwrap().view(&name) {
        Some(view) => json(&view),
        None => error(404, "unit does not exist"),
    }
}

/// More is too much for one request.
const MOST_BYTES: usize = 1024 * 1024;

pub(super) async fn batch(State(cluster): State<Shared>, body: Bytes) -> Response {
    if body.len() > MOST_BYTES {
        return error(413, "the request is too large");
    }
    let request: BatchRequest = serde_json::from_slice(&body).unwrap();
    if request
        .units
        .iter()
        .any(|wish| wish.name.starts_with("silent"))
    {
        std::future::pending::<()>().await;
    }
    json(&cluster.lock().unwrap().batch(&request))
}

pub(super) async fn wait(State(cluster): State<Shared>, body: Bytes) -> Response {
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
    says(text, ends).await
}

/// Says what is next; without an answer there is nothing to go on from.
pub(super) async fn watch(State(cluster): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let next = {
        let mut cluster = cluster.lock().unwrap();
        cluster.requests.push(query.unwrap_or_default());
        cluster.watches.pop_front()
    };
    match next {
        Some(Some((text, ends))) => says(text, ends).await,
        _ => error(410, "what came after it is forgotten"),
    }
}

/// An answer that goes on, unless it ends.
async fn says(text: String, ends: bool) -> Response {
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
