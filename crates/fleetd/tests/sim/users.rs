//! People: each looks after units of their own through the API, changes their mind, and asks
//! again until the answer has come.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use fleet_api::v2::{BatchAnswer, BatchRequest, UnitWish};
use fleet_core::hash::UnitHash;
use fleet_core::records::{DesiredState, UnitRecord};
use fleet_core::unit_file::UnitFile;
use fleetd::api::{ApiState, router};
use fleetd::shutdown::stopped;
use fleetd::store::codec::Document;
use fleetd::store::{Store, keys};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use crate::chance::{Sim, lock};
use crate::life::Life;
use crate::scenario::{Kind, Scenario};
use crate::store::Center;

/// A person waits no longer for an answer, and asks again.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// By then nothing that was asked is on its way any more.
const QUIET: Duration = Duration::from_secs(8);

/// What a patient unit says in `LostAfter=`.
pub const LOST_AFTER: Duration = Duration::from_secs(12);

/// What units that are to be moved when they have failed say in `RescheduleOnFailure=`.
pub const MOST_MOVES: u32 = 2;

/// What a user was told that a unit is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Want {
    pub desired: DesiredState,
    /// The text that was last accepted; None: destroyed.
    pub text: Option<String>,
    pub restarts: u64,
}

/// The APIs of the machines that run, and what users were told.
pub struct Town {
    pub sim: Arc<Sim>,
    center: Arc<Center>,
    pub apis: Mutex<Vec<Option<(ApiState, Arc<Life>)>>>,
    pub wants: Mutex<BTreeMap<String, Want>>,
    next_request: AtomicU64,
}

/// A unit and the two texts between which its user changes their mind.
pub struct Spec {
    pub name: String,
    texts: [String; 2],
}

/// What a user may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Start,
    Load,
    Stop,
    Replace,
    Restart,
    Destroy,
}

pub fn specs(sim: &Sim, scenario: &Scenario) -> Vec<Spec> {
    let of = |name: String, programs: [&str; 2], fleet: &str| {
        let fleet = match fleet {
            "" => String::new(),
            fleet => format!("\n[X-Fleet]\n{fleet}\n"),
        };
        let text = |version: usize| {
            let program = programs[version];
            let version = version + 1;
            format!("[Service]\nExecStart=/bin/{program} {name} {version}\n{fleet}")
        };
        Spec {
            texts: [text(0), text(1)],
            name,
        }
    };
    let spec = |name, program, fleet: &str| of(name, [program, program], fleet);
    // Its user changes nothing but where it may run.
    let moves = |name: String| {
        let text = |region: &str| {
            format!(
                "[Service]\nExecStart=/bin/slow {name}\n\n[X-Fleet]\nMachineMetadata=region={region}\n"
            )
        };
        Spec {
            texts: [text("eu"), text("us")],
            name,
        }
    };
    let mut specs = Vec::new();
    for n in 0..scenario.units {
        let kind = match scenario.kind {
            Kind::Restarts => 21,
            _ if n < 3 => 0,
            Kind::TurnBack => 17,
            Kind::Haste if sim.percent(70) => sim.pick(&[5, 12, 17]),
            Kind::Silence if sim.percent(50) => sim.pick(&[4, 17]),
            _ => sim.below(21),
        };
        specs.push(match kind {
            0..=3 => spec(format!("plain{n}.service"), "runs", ""),
            4 => spec(format!("once{n}.service"), "runs", "Exclusive=yes"),
            5 => spec(format!("plain{n}.service"), "slow", ""),
            6 => spec(format!("plain{n}.service"), "fails", ""),
            7 => spec(format!("plain{n}.service"), "ends", ""),
            // Somewhere it must be good.
            8 if scenario.machines > 1 => spec(format!("odd{n}.service"), "odd", ""),
            9 => spec(format!("global{n}.service"), "runs", "Global=true"),
            10 => spec(
                format!("follow{n}.service"),
                "runs",
                "MachineOf=plain0.service",
            ),
            11 => spec(
                format!("apart{n}.service"),
                "runs",
                "Conflicts=apart*.service",
            ),
            12 => spec(
                format!("eu{n}.service"),
                "slow",
                "MachineMetadata=region=eu",
            ),
            13 => moves(format!("moves{n}.service")),
            14 | 15 => {
                let fleet = format!("LostAfter={}s", LOST_AFTER.as_secs());
                spec(format!("patient{n}.service"), "runs", &fleet)
            }
            16 => spec(format!("takes{n}.service"), "runs", "Replaces=eu*.service"),
            17 => spec(format!("once{n}.service"), "slow", "Exclusive=yes"),
            kind => {
                let programs = match kind {
                    18 => ["sick", "fails"],
                    19 => ["dies", "sick"],
                    21 => ["flaps", "runs"],
                    _ => ["runs", "dies"],
                };
                let fleet = format!("RescheduleOnFailure={MOST_MOVES}");
                of(format!("again{n}.service"), programs, &fleet)
            }
        });
    }
    specs
}

impl Town {
    pub fn new(sim: &Arc<Sim>, center: &Arc<Center>, n_machines: usize) -> Arc<Town> {
        Arc::new(Town {
            sim: Arc::clone(sim),
            center: Arc::clone(center),
            apis: Mutex::new((0..n_machines).map(|_| None).collect()),
            wants: Mutex::default(),
            next_request: AtomicU64::new(1),
        })
    }

    /// Looks after one unit until told to stop; the last question is answered before.
    pub async fn look_after(
        self: Arc<Self>,
        spec: Spec,
        mut stop: tokio::sync::watch::Receiver<bool>,
        busy: usize,
    ) {
        let mut want = Want {
            desired: DesiredState::Destroyed,
            text: None,
            restarts: 0,
        };
        let mut restores = 0;
        loop {
            let pause = match self.sim.below(4) {
                0 => self.sim.between(0, 50),
                _ => self.sim.between(200, busy),
            };
            let stopped = tokio::time::timeout(pause, stopped(&mut stop)).await;
            if self.center.n_restores() != restores {
                // What was said before may be lost: they look at what there is, once nothing of
                // theirs is on its way any more.
                tokio::time::sleep(QUIET).await;
                restores = self.center.n_restores();
                want = self.as_stored(&spec).await;
                lock(&self.wants).insert(spec.name.clone(), want.clone());
                continue;
            }
            if stopped.is_ok() {
                return;
            }
            let ask = self.sim.pick(&[
                Ask::Start,
                Ask::Start,
                Ask::Start,
                Ask::Start,
                Ask::Load,
                Ask::Stop,
                Ask::Replace,
                Ask::Restart,
                Ask::Destroy,
            ]);
            self.ask(&spec, &mut want, ask).await;
            if self.center.n_restores() != restores {
                continue;
            }
            lock(&self.wants).insert(spec.name.clone(), want.clone());
        }
    }

    /// Asks until there is an answer.
    async fn ask(&self, spec: &Spec, want: &mut Want, ask: Ask) {
        let is_there = want.text.is_some();
        let mut next = want.clone();
        let mut wish = UnitWish {
            name: spec.name.clone(),
            ..UnitWish::default()
        };
        match ask {
            Ask::Destroy if !is_there => return,
            Ask::Destroy => {
                next.desired = DesiredState::Destroyed;
                next.text = None;
            }
            Ask::Restart if is_there => {
                wish.restart = true;
                next.restarts += 1;
            }
            Ask::Start | Ask::Restart => next.desired = DesiredState::Launched,
            Ask::Load => next.desired = DesiredState::Loaded,
            Ask::Stop => next.desired = DesiredState::Inactive,
            Ask::Replace => {
                wish.replace = true;
                next.desired = DesiredState::Launched;
            }
        }
        if ask != Ask::Destroy {
            let version = match (&want.text, ask) {
                (Some(text), Ask::Replace) => usize::from(*text == spec.texts[0]),
                (Some(text), _) => usize::from(*text != spec.texts[0]),
                (None, _) => self.sim.below(2),
            };
            wish.text = Some(spec.texts[version].clone());
            next.text.clone_from(&wish.text);
        }
        if !wish.restart {
            wish.desired_state = Some(next.desired.as_str().to_owned());
        }
        let request_id = format!("r{}", self.next_request.fetch_add(1, Ordering::Relaxed));
        self.sim
            .note("ask", format_args!("{request_id} {ask:?} {}", spec.name));
        let restores = self.center.n_restores();
        loop {
            if restores != self.center.n_restores() {
                return;
            }
            let exchanges = self.center.n_exchanges();
            let answer = tokio::time::timeout(PATIENCE, self.send(&request_id, &wish)).await;
            // What another store has answered counts for nothing.
            if let Ok(Some(())) = answer
                && exchanges == self.center.n_exchanges()
            {
                break;
            }
            self.sim.note("ask-again", format_args!("{request_id}"));
            tokio::time::sleep(self.sim.between(50, 1_000)).await;
        }
        self.sim.note("acknowledged", format_args!("{request_id}"));
        if !is_there {
            // A tombstone may or may not have been buried meanwhile: with it goes the counter.
            let restarts = self.restarts(&spec.name).await;
            if restarts != next.restarts && restarts != 0 {
                let name = &spec.name;
                self.sim
                    .fail(format!("{name} was created anew with {restarts} restarts"));
            }
            next.restarts = restarts;
        }
        if self.center.was_damaged(&keys::unit(&spec.name)) {
            // Whoever overwrites garbage counts anew.
            next.restarts = self.restarts(&spec.name).await;
        }
        *want = next;
        if restores != self.center.n_restores() || self.center.is_damaged() {
            return;
        }
        if let Err(why) = self.is_kept(&spec.name, want).await {
            self.sim
                .fail(format!("{request_id} was acknowledged, but {why}"));
        }
    }

    /// One request over the API of some machine; None: no answer.
    pub async fn call(&self, request: Request<Body>) -> Option<(u16, Bytes)> {
        if self.center.is_exchanged() {
            return None;
        }
        let (api, life) = {
            let apis = lock(&self.apis);
            let alive: Vec<_> = apis.iter().flatten().collect();
            if alive.is_empty() {
                return None;
            }
            alive[self.sim.below(alive.len())].clone()
        };
        let service = TowerToHyperService::new(router(api));
        let answer = async move {
            let response = service.call(request).await.ok()?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, body))
        };
        life.of(answer).await
    }

    /// One wish; None: no answer that says yes.
    async fn send(&self, request_id: &str, wish: &UnitWish) -> Option<()> {
        // An older client, where it can say the same.
        let has_v1 = !wish.restart && !wish.replace && wish.text.is_none();
        if has_v1 && self.sim.percent(50) {
            let path = format!("/fleet/v1/units/{}", wish.name);
            let request = Request::delete(path).body(Body::empty()).ok()?;
            let (status, _) = self.call(request).await?;
            return matches!(status, 204 | 404).then_some(());
        }
        let batch = BatchRequest {
            request_id: request_id.to_owned(),
            unknown_keys: String::new(),
            units: vec![wish.clone()],
        };
        let body = serde_json::to_vec(&batch).ok()?;
        let request = Request::post("/fleet/v2/units")
            .body(Body::from(body))
            .ok()?;
        let (status, body) = self.call(request).await?;
        if status != 200 {
            return None;
        }
        let answer: BatchAnswer = serde_json::from_slice(&body).ok()?;
        let unit = answer.units.first()?;
        match (unit.outcome.as_str(), unit.code) {
            // Destroyed by the attempt before.
            ("error", Some(404)) if wish.text.is_none() => Some(()),
            ("error", _) if self.center.is_damaged() => None,
            ("error", Some(400..=499)) => {
                self.sim.fail(format!("{request_id} was refused: {unit:?}"));
                Some(())
            }
            ("error", _) => None,
            _ => Some(()),
        }
    }

    /// What the store says of a unit.
    async fn as_stored(&self, spec: &Spec) -> Want {
        let record = self.record(&spec.name).await;
        let restarts = record.as_ref().map_or(0, |record| record.restarts);
        let record = record.filter(|record| record.desired != DesiredState::Destroyed);
        let Some(record) = record else {
            return Want {
                desired: DesiredState::Destroyed,
                text: None,
                restarts,
            };
        };
        let is_it = |text: &&String| {
            let hash = UnitFile::parse(text.as_bytes()).map(|file| file.hash());
            hash.is_ok_and(|hash| hash == record.hash)
        };
        Want {
            desired: record.desired,
            text: spec.texts.iter().find(is_it).cloned(),
            restarts: record.restarts,
        }
    }

    async fn record(&self, name: &str) -> Option<UnitRecord> {
        let read = self.center.data().read_keys(&[keys::unit(name)]).await;
        let entry = read.ok()?.entries.pop()?;
        UnitRecord::decode(&entry.key, &entry.value).ok()
    }

    async fn restarts(&self, name: &str) -> u64 {
        self.record(name).await.map_or(0, |record| record.restarts)
    }

    /// Whether the store holds what was acknowledged.
    pub async fn is_kept(&self, name: &str, want: &Want) -> Result<(), String> {
        let record = self.record(name).await;
        let Some(text) = &want.text else {
            return match record {
                Some(record) if record.desired != DesiredState::Destroyed => {
                    Err(format!("{name} is {:?}, not destroyed", record.desired))
                }
                _ => Ok(()),
            };
        };
        let Some(record) = record else {
            return Err(format!("{name} is not there, wanted {want:?}"));
        };
        let hash = UnitFile::parse(text.as_bytes()).map(|file| file.hash());
        let has_text = hash.is_ok_and(|hash: UnitHash| hash == record.hash);
        if record.desired != want.desired || !has_text || record.restarts != want.restarts {
            return Err(format!(
                "{name} is {:?} with {} restarts and the {} text, wanted {want:?}",
                record.desired,
                record.restarts,
                if has_text { "right" } else { "wrong" },
            ));
        }
        Ok(())
    }
}
