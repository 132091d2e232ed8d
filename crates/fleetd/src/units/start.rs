//! Starts: the intent is remembered, the job is asked for and waited for, and its outcome is
//! remembered.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::agent::{Failure, LaunchRecord, Phase, Working};
use fleet_core::name::UnitName;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::dbus::{CallError, Manager, unit_object};
use super::failure;
use super::systemd::Driver;

/// A program that dies at once does so within this time after systemd called it started.
const SETTLE: Duration = Duration::from_millis(30);
/// While the program has not begun, or is in its first burst of work, it is looked at again.
const SETTLE_AGAIN: Duration = Duration::from_millis(15);
/// How often it is looked at again because its process is not yet the program: 300 ms at most.
const MAX_NOT_BEGUN: u32 = 20;
/// How often it is looked at again because it has not yet paused: 90 ms at most.
const MAX_BUSY: u32 = 6;
/// What a unit needs may be about to be loaded by fleet, too; after that many attempts it is
/// refused.
const MAX_MISSING_ATTEMPTS: u32 = 4;

impl Driver {
    /// Asks for a start or restart, and sees it through.
    pub(crate) async fn start(
        self: Arc<Self>,
        manager: Manager,
        unit: UnitName,
        id: u64,
        record: LaunchRecord,
        restart: bool,
    ) {
        // The intent first: whoever comes after us must know that a start may have happened.
        if let Err(error) = self.files.write_record(&unit, &record) {
            self.attempt_failed(&unit, id, &record, &error.to_string());
            return;
        }
        self.shared.update(&unit, |entry| {
            if entry.work_id == id {
                entry.observed.working = Some(Working::Starting);
            }
            entry.observed.record = Some(record.clone());
            entry.start_anew();
        });
        let exclusive = self
            .shared
            .update(&unit, |entry| entry.observed.is_exclusive);
        if exclusive && let Err(error) = self.enter_lease(&manager, &unit).await {
            if !matches!(error, CallError::Lost(_)) {
                self.attempt_failed(&unit, id, &record, &error.to_string());
            }
            return;
        }
        let n_reloads = *self.reloads.lock().await;
        let ask = || async {
            if restart {
                manager.restart_unit(unit.as_str()).await
            } else {
                manager.start_unit(unit.as_str()).await
            }
        };
        let mut result = self.job(&unit, ask()).await;
        if let Err(CallError::NoSuchUnit(_)) = result {
            // It has not noticed the file: then everything is read anew, once.
            match self.reload_since(&manager, n_reloads).await {
                Ok(()) => result = self.job(&unit, ask()).await,
                Err(error) => result = Err(error),
            }
        }
        match result {
            Ok(result) => {
                self.started(&manager, &unit, id, record, &result).await;
            }
            Err(CallError::Lost(_)) => {}
            Err(CallError::NoSuchUnit(why)) => {
                self.is_missing_something(&manager, &unit, id, &record, why)
                    .await;
            }
            Err(CallError::BadUnit(answer)) => {
                let why = failure::not_loaded(&unit, &answer, self.user).await;
                self.refuse(&manager, &unit, id, &record, why).await;
            }
            Err(CallError::Permanent(why)) => self.refuse(&manager, &unit, id, &record, why).await,
            Err(CallError::Transient(why)) => self.attempt_failed(&unit, id, &record, &why),
        }
    }

    /// The job of a start is done: sees what became of it, and remembers it.
    async fn started(
        self: &Arc<Self>,
        manager: &Manager,
        unit: &UnitName,
        id: u64,
        mut record: LaunchRecord,
        result: &str,
    ) {
        let names = [unit.as_str().to_owned()];
        if let Err(error) = self.look_at(manager, &names).await {
            tracing::debug!(%unit, %error, "state after a start is not known yet");
        }
        if result == "unsupported" {
            let why = failure::job_result(result);
            return self.refuse(manager, unit, id, &record, why).await;
        }
        if result == "failed" && self.nothing_ran(unit, &record) {
            let why = failure::not_begun(manager, unit).await;
            return self
                .is_missing_something(manager, unit, id, &record, why)
                .await;
        }
        let settling = self.shared.update(unit, |entry| {
            if !entry.simple || entry.observed.active != "active" {
                return None;
            }
            let (tell, told) = oneshot::channel();
            entry.settling = Some(tell);
            Some(told)
        });
        if let Some(told) = settling {
            settle(manager, unit, told).await;
        }
        let (is_current, invocation_id) = {
            let state = self.shared.lock();
            let entry = state.units.get(unit);
            (
                entry.is_some_and(|entry| entry.work_id == id),
                entry.map(|entry| entry.observed.invocation_id.clone()),
            )
        };
        if !is_current {
            return;
        }
        record.phase = Phase::Launched;
        record.invocation_id = invocation_id.unwrap_or_default();
        if let Err(error) = self.files.write_record(unit, &record) {
            tracing::warn!(%unit, %error, "launch record cannot be written");
        }
        let mut wants_lookup = false;
        self.shared.finish(unit, id, |entry| {
            entry.attempts_over();
            entry.observed.record = Some(record);
            wants_lookup = entry.wants_lookup_after_start();
            let well = matches!(result, "done" | "skipped");
            // Of a failed unit systemd knows more, and that is being looked up.
            if !well && entry.observed.active != "failed" {
                entry.observed.failure = Some(Failure {
                    why: failure::job_result(result),
                    log: Vec::new(),
                });
            }
        });
        if wants_lookup {
            self.spawn_look_up(manager, unit.clone());
        }
    }

    /// [`Driver::await_orphan`] with a type of known size: looking at units and seeing starts
    /// through call each other.
    pub(crate) fn boxed_await_orphan(
        self: Arc<Self>,
        manager: Manager,
        unit: UnitName,
        job: String,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.await_orphan(manager, unit, job))
    }

    /// A start that an earlier process asked for is still under way: sees it through.
    async fn await_orphan(self: Arc<Self>, manager: Manager, unit: UnitName, job: String) {
        let wait = self.shared.wait_for_job(&unit, Some(job.clone()));
        let (id, record) = self.shared.update(&unit, |entry| {
            entry.work_id = wait.id;
            (wait.id, entry.observed.record.clone())
        });
        let path = job.as_str();
        // It may have ended before we took our place.
        let job_interface = "org.freedesktop.systemd1.Job";
        let told = match manager
            .property::<String>(path, job_interface, "JobType")
            .await
        {
            Ok(_) => wait.told.await,
            Err(_) => {
                self.shared.forget_job(wait.id);
                Ok("done".to_owned())
            }
        };
        if let (Ok(result), Some(record)) = (told, record) {
            self.started(&manager, &unit, id, record, &result).await;
        }
    }

    /// Whether systemd has not even begun with the start.
    fn nothing_ran(&self, unit: &UnitName, record: &LaunchRecord) -> bool {
        let state = self.shared.lock();
        state.units.get(unit).is_some_and(|entry| {
            entry.observed.active == "inactive"
                && entry.observed.invocation_id == record.invocation_id
        })
    }

    /// What a unit needs is not there (yet): tried again a few times, then refused.
    async fn is_missing_something(
        &self,
        manager: &Manager,
        unit: &UnitName,
        id: u64,
        record: &LaunchRecord,
        why: String,
    ) {
        let n_failed = self
            .shared
            .update(unit, |entry| entry.n_failed(record.decision));
        if n_failed < MAX_MISSING_ATTEMPTS {
            self.attempt_failed(unit, id, record, &why);
        } else {
            self.refuse(manager, unit, id, record, why).await;
        }
    }
}

/// Waits until a program that systemd calls started has shown that it runs, or `told`.
async fn settle(manager: &Manager, unit: &UnitName, mut told: oneshot::Receiver<()>) {
    if tokio::time::timeout(SETTLE, &mut told).await.is_ok() {
        return;
    }
    let path = unit_object(unit.as_str());
    let interface = "org.freedesktop.systemd1.Service";
    let Ok(pid) = manager.property::<u32>(&path, interface, "MainPID").await else {
        return;
    };
    let (mut not_begun, mut busy) = (0, 0);
    loop {
        match first_run(pid) {
            FirstRun::NotBegun if not_begun < MAX_NOT_BEGUN => not_begun += 1,
            FirstRun::Busy if busy < MAX_BUSY => busy += 1,
            _ => return,
        }
        if tokio::time::timeout(SETTLE_AGAIN, &mut told).await.is_ok() {
            return;
        }
    }
}

enum FirstRun {
    /// systemd's child has not yet become the program: its name is in parentheses.
    NotBegun,
    /// The program has not yet paused.
    Busy,
    /// It waits for something, or has gone.
    Over,
}

fn first_run(pid: u32) -> FirstRun {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return FirstRun::Over;
    };
    // `123 (name) S …`; the name may contain anything.
    let (Some(begin), Some(end)) = (stat.find('('), stat.rfind(')')) else {
        return FirstRun::Over;
    };
    if stat[begin + 1..].starts_with('(') {
        return FirstRun::NotBegun;
    }
    match stat[end..].chars().nth(2) {
        Some('R' | 'D') => FirstRun::Busy,
        _ => FirstRun::Over,
    }
}
