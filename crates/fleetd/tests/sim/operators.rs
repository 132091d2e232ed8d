//! People who look after machines: they drain, cordon and label them, and end freezes.

use std::sync::Arc;

use axum::body::Body;
use fleet_api::v2::MachineChange;
use fleetd::shutdown::stopped;
use hyper::{Method, Request};

use crate::audit::short;
use crate::users::{PATIENCE, Town};

/// What an operator may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Drain,
    DrainOneByOne,
    Cordon,
    Release,
    MoveToUs,
    MoveToEu,
    Unlabel,
    Thaw,
    AcceptStore,
}

impl Town {
    /// Looks after the machines until told to stop. Then all or most of them are released.
    pub async fn operate(
        self: Arc<Self>,
        machines: Vec<String>,
        leaves_some: bool,
        mut stop: tokio::sync::watch::Receiver<bool>,
    ) {
        loop {
            let pause = self.sim.between(500, 15_000);
            if tokio::time::timeout(pause, stopped(&mut stop))
                .await
                .is_ok()
            {
                break;
            }
            let machine = &machines[self.sim.below(machines.len())];
            let act = self.sim.pick(&[
                Act::Drain,
                Act::DrainOneByOne,
                Act::Cordon,
                Act::Release,
                Act::Release,
                Act::Release,
                Act::MoveToUs,
                Act::MoveToEu,
                Act::Unlabel,
                Act::Thaw,
            ]);
            self.act(machine, act).await;
            // They change their mind while units are still leaving it.
            if matches!(act, Act::Drain | Act::DrainOneByOne) && self.sim.percent(40) {
                tokio::time::sleep(self.sim.between(10, 3_000)).await;
                self.act(machine, Act::Release).await;
            }
        }
        for machine in &machines {
            if !leaves_some || self.sim.percent(80) {
                self.act(machine, Act::Release).await;
                self.act(machine, Act::Unlabel).await;
            }
        }
    }

    /// Machines are to believe the store.
    pub async fn accept_store(&self) {
        self.act("", Act::AcceptStore).await;
    }

    /// The machines that are away are really gone.
    pub async fn thaw(&self) {
        self.act("", Act::Thaw).await;
    }

    /// Asks until there is an answer. All of it may be asked twice.
    async fn act(&self, machine: &str, act: Act) {
        self.sim
            .note("operator", format_args!("{act:?} {}", short(machine)));
        loop {
            let Some(request) = request(machine, act) else {
                return self.sim.fail(format!("{act:?} cannot be asked"));
            };
            let answer = tokio::time::timeout(PATIENCE, self.call(request)).await;
            match answer.ok().flatten().map(|(status, _)| status) {
                // 404: it has never been here.
                Some(200 | 204 | 404) => return,
                Some(status @ 400..=499) => {
                    let why = format!("{act:?} of {machine} was refused: {status}");
                    return self.sim.fail(why);
                }
                _ => tokio::time::sleep(self.sim.between(50, 1_000)).await,
            }
        }
    }
}

fn request(machine: &str, act: Act) -> Option<Request<Body>> {
    let of_machine = format!("/fleet/v2/machines/{machine}");
    let change = |change: MachineChange| serde_json::to_vec(&change);
    let label = |op: &str, value: &str| {
        let path = format!("/{machine}/metadata/region");
        format!(r#"[{{"op":"{op}","path":"{path}","value":"{value}"}}]"#).into_bytes()
    };
    let labels = "/fleet/v1/machines".to_owned();
    let (method, path, body) = match act {
        Act::Drain | Act::DrainOneByOne => {
            let wish = MachineChange {
                draining: Some(true),
                max_parallel: (act == Act::DrainOneByOne).then_some(1),
                ..MachineChange::default()
            };
            (Method::POST, of_machine, change(wish).ok()?)
        }
        Act::Cordon => {
            let wish = MachineChange {
                cordoned: Some(true),
                ..MachineChange::default()
            };
            (Method::POST, of_machine, change(wish).ok()?)
        }
        Act::Release => {
            let wish = MachineChange {
                cordoned: Some(false),
                draining: Some(false),
                ..MachineChange::default()
            };
            (Method::POST, of_machine, change(wish).ok()?)
        }
        Act::MoveToUs => (Method::PATCH, labels, label("add", "us")),
        Act::MoveToEu => (Method::PATCH, labels, label("add", "eu")),
        Act::Unlabel => (Method::PATCH, labels, label("remove", "")),
        Act::AcceptStore => (
            Method::POST,
            "/fleet/v2/accept-store".to_owned(),
            Vec::new(),
        ),
        Act::Thaw => (Method::POST, "/fleet/v2/thaw".to_owned(), Vec::new()),
    };
    let request = Request::builder().method(method).uri(path);
    request.body(Body::from(body)).ok()
}
