//! How the driver carries out the tasks of one unit, one after another.

use std::sync::Arc;

use fleet_core::agent::{Failure, LaunchRecord, Phase, Task, TaskKind, Working};
use fleet_core::body::BodyHash;
use fleet_core::name::UnitName;

use super::{Driver, forget_state};
use crate::audit::short;
use crate::host::Behaviour;

impl Driver {
    /// Carries out the tasks of one unit, in their order.
    pub(super) async fn work(self: Arc<Self>, unit: UnitName, id: u64, tasks: Vec<Task>) {
        let last = tasks.len().saturating_sub(1);
        for (n, task) in tasks.into_iter().enumerate() {
            self.life.point().await;
            if !self.is_current(&unit, id) {
                return;
            }
            let is_last = n == last;
            match task.kind {
                TaskKind::Stop(record) => self.stop(&unit, id, record).await,
                TaskKind::Unload(record) => self.unload(&unit, id, record).await,
                TaskKind::Load(record, text) => self.load(&unit, id, record, text, is_last).await,
                TaskKind::Remember(record) => {
                    self.host.change(&unit, |unit| {
                        // What is adopted counts from what was asked for by then.
                        if let Some(running) = &mut unit.running {
                            running.restarts = running.restarts.min(record.restarts);
                        }
                        unit.record = Some(record.clone());
                    });
                    self.life.point().await;
                    self.finish(&unit, id, |entry| entry.observed.record = Some(record));
                }
                TaskKind::Forget => {
                    self.host.change(&unit, |unit| unit.record = None);
                    self.life.point().await;
                    self.finish(&unit, id, |entry| entry.observed.record = None);
                }
                TaskKind::Start(record) => self.start(&unit, id, record, false).await,
                TaskKind::Restart(record) => self.start(&unit, id, record, true).await,
            }
        }
    }

    async fn stop(self: &Arc<Self>, unit: &UnitName, id: u64, record: LaunchRecord) {
        let decision = record.decision;
        self.host
            .change(unit, |unit| unit.record = Some(record.clone()));
        self.update(unit, |entry| entry.observed.record = Some(record));
        self.life.point().await;
        let told = self.host.stop(unit, decision);
        let result = told.await.unwrap_or("canceled");
        self.life.point().await;
        let is_down = self.host.unit(unit).is_down();
        if is_down {
            self.finish(unit, id, |entry| entry.attempts = Default::default());
        } else {
            let why = format!("it could not be stopped: {result}");
            self.attempt_failed(unit, id, decision, &why);
        }
    }

    async fn unload(&self, unit: &UnitName, id: u64, record: LaunchRecord) {
        if !self.host.unit(unit).is_down() {
            self.host.center.audit.orphans(&self.host.id, unit.as_str());
        }
        self.host.change(unit, |unit| unit.file = None);
        self.life.point().await;
        self.host.change(unit, |unit| {
            unit.record = Some(record.clone());
            unit.active = "";
            unit.sub = "";
            unit.invocation.clear();
        });
        self.life.point().await;
        self.finish(unit, id, |entry| {
            forget_state(&mut entry.observed);
            entry.observed.record = Some(record);
        });
    }

    async fn load(
        self: &Arc<Self>,
        unit: &UnitName,
        id: u64,
        record: LaunchRecord,
        text: Arc<str>,
        is_last: bool,
    ) {
        if self.sim.percent(3) {
            self.sim.note("disk-error", format_args!("{unit}"));
            return self.attempt_failed(unit, id, record.decision, "no space left on device");
        }
        let old = self.host.unit(unit);
        if !old.is_down()
            && old
                .body()
                .is_some_and(|body| body != BodyHash::of_text(&text))
        {
            self.host.center.audit.orphans(&self.host.id, unit.as_str());
        }
        self.host.change(unit, |unit| {
            unit.file = Some((record.hash, Arc::clone(&text)))
        });
        self.life.point().await;
        self.host
            .change(unit, |unit| unit.record = Some(record.clone()));
        self.update(unit, |entry| {
            entry.observed.file = Some(record.hash);
            entry.observed.body = Some(BodyHash::of_text(&text));
            entry.observed.record = Some(record.clone());
        });
        tokio::time::sleep(self.sim.between(0, 3)).await;
        self.life.point().await;
        let odd = Behaviour::of(&text) == Behaviour::Odd && self.host.number % 2 == 1;
        if odd {
            self.refuse(unit, id, &record, "systemd cannot load it (bad-setting)");
        } else if is_last {
            self.finish(unit, id, |entry| entry.attempts = Default::default());
        }
    }

    fn refuse(&self, unit: &UnitName, id: u64, record: &LaunchRecord, why: &str) {
        if !self.is_current(unit, id) {
            return;
        }
        self.sim.note(
            "refused",
            format_args!("{unit} on {}", short(&self.host.id)),
        );
        let is_down = self.host.unit(unit).is_down();
        if is_down {
            self.host.change(unit, |unit| {
                unit.file = None;
                unit.record = None;
                unit.active = "";
                unit.sub = "";
            });
        }
        self.finish(unit, id, |entry| {
            if is_down {
                forget_state(&mut entry.observed);
                entry.observed.record = None;
            }
            entry.attempts = Default::default();
            entry.observed.refused = Some((record.decision, why.to_owned()));
        });
    }

    async fn start(
        self: &Arc<Self>,
        unit: &UnitName,
        id: u64,
        record: LaunchRecord,
        restart: bool,
    ) {
        self.host
            .change(unit, |unit| unit.record = Some(record.clone()));
        self.update(unit, |entry| {
            if entry.work_id == id {
                entry.observed.working = Some(Working::Starting);
            }
            entry.observed.record = Some(record.clone());
            entry.observed.failure = None;
        });
        self.life.point().await;
        if !self.is_current(unit, id) {
            return;
        }
        if self.sim.percent(2) {
            self.sim.note("systemd-busy", format_args!("{unit}"));
            return self.attempt_failed(unit, id, record.decision, "systemd is busy");
        }
        if self.host.is_exclusive(unit) {
            let Some(until) = self.certain_lease() else {
                return self.attempt_failed(unit, id, record.decision, "the lease has ended");
            };
            self.host.set_lease(until);
            self.lease_is_set();
        }
        let told = self.host.start(unit, &record, restart);
        self.life.point().await;
        let result = told.await.unwrap_or("canceled");
        self.started(unit, id, record, result).await;
    }

    pub(super) async fn started(
        &self,
        unit: &UnitName,
        id: u64,
        mut record: LaunchRecord,
        result: &str,
    ) {
        self.life.point().await;
        if !self.is_current(unit, id) {
            return;
        }
        let seen = self.host.unit(unit);
        // What ended with the lease meanwhile counts as stopped.
        let ended = seen
            .record
            .as_ref()
            .is_some_and(|seen| seen.phase == Phase::Stopping);
        record.phase = match ended {
            true => Phase::Stopping,
            false => Phase::Launched,
        };
        record.invocation_id = seen.invocation.clone();
        self.host
            .change(unit, |unit| unit.record = Some(record.clone()));
        self.life.point().await;
        self.finish(unit, id, |entry| {
            entry.attempts = Default::default();
            entry.observed.record = Some(record);
            if result != "done" {
                entry.observed.failure = Some(Failure {
                    why: format!("its start job ended: {result}"),
                    log: Vec::new(),
                });
            }
        });
    }
}
