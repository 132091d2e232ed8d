//! Carries out tasks: all files of a batch first, one reload if a loaded unit needs it, then the
//! jobs, many at a time.
//!
//! systemd finds a new unit file by itself when it is asked to start the unit; a reload of
//! everything takes from 60 ms to seconds and is needed only when a unit is in systemd's memory
//! with an old text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::agent::{LaunchRecord, Task, TaskKind, is_down};
use fleet_core::name::UnitName;
use fleet_core::records::Decision;
use tokio::sync::OwnedSemaphorePermit;
use zbus::OwnedObjectPath;

use super::dbus::{CallError, LinkPath, Manager, UNIT};
use super::state::Entry;
use super::systemd::Driver;

/// A unit to start or restart.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) unit: UnitName,
    pub(crate) id: u64,
    pub(crate) record: LaunchRecord,
    pub(crate) restart: bool,
}

/// After this a job no longer counts as being run: it waits for something.
const SLOW_JOB: Duration = Duration::from_secs(1);

/// Why a unit is not unloaded now.
const RUNS_AGAIN: &str = "it runs again, and is stopped before it is removed";

impl Driver {
    /// Takes queued tasks, one batch after the other, for ever.
    pub(crate) async fn work(self: Arc<Self>) {
        loop {
            let batch = {
                let mut state = self.shared.lock();
                match state.manager.clone() {
                    Some(manager) if !state.queue.is_empty() => {
                        Some((manager, std::mem::take(&mut state.queue)))
                    }
                    _ => None,
                }
            };
            match batch {
                Some((manager, tasks)) => self.batch(&manager, tasks).await,
                None => self.shared.work.notified().await,
            }
        }
    }

    async fn batch(self: &Arc<Self>, manager: &Manager, tasks: Vec<(u64, Task)>) {
        let (mut unloads, mut loads, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (id, task) in tasks {
            let unit = task.unit;
            if !self.shared.is_current(&unit, id) {
                continue;
            }
            match task.kind {
                TaskKind::Stop(record) => {
                    tokio::spawn(Arc::clone(self).stop(manager.clone(), unit, id, record));
                }
                TaskKind::Unload(record) => unloads.push((unit, id, record)),
                TaskKind::Load(record, text) => loads.push(super::load::Load {
                    unit,
                    id,
                    record,
                    text,
                }),
                TaskKind::Remember(record) => self.remember(&unit, id, record),
                TaskKind::Forget => self.forget(&unit, id),
                TaskKind::Start(record) => starts.push(Start {
                    unit,
                    id,
                    record,
                    restart: false,
                }),
                TaskKind::Restart(record) => starts.push(Start {
                    unit,
                    id,
                    record,
                    restart: true,
                }),
            }
        }
        self.unload(manager, unloads).await;
        let starting = starts.iter().map(|start| start.unit.clone());
        let starting: BTreeSet<UnitName> = starting.collect();
        self.load(manager, loads, &starting).await;
        if !starts.is_empty() {
            tokio::spawn(Arc::clone(self).start_each(manager.clone(), starts));
        }
    }

    /// Begins one start after the other as jobs may be asked for: thousands that wait for their turn would
    /// need five kilobytes each.
    async fn start_each(self: Arc<Self>, manager: Manager, starts: Vec<Start>) {
        for start in starts {
            // A load that failed has ended the task.
            if !self.shared.is_current(&start.unit, start.id) {
                continue;
            }
            // Never closed.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return;
            };
            tokio::spawn(Arc::clone(&self).start(manager.clone(), start, slot));
        }
    }

    fn remember(&self, unit: &UnitName, id: u64, record: LaunchRecord) {
        match self.files.write_record(unit, &record) {
            Ok(()) => self.shared.finish(unit, id, |entry| {
                entry.observed.record = Some(record);
            }),
            Err(error) => self.attempt_failed(unit, id, &record, &error.to_string()),
        }
    }

    fn forget(&self, unit: &UnitName, id: u64) {
        if let Err(error) = self.files.remove_record(unit) {
            tracing::warn!(%unit, %error, "launch record cannot be removed");
        }
        self.shared
            .finish(unit, id, |entry| entry.observed.record = None);
    }

    async fn stop(
        self: Arc<Self>,
        manager: Manager,
        unit: UnitName,
        id: u64,
        record: LaunchRecord,
    ) {
        // The intent first: if the unit is wanted again before it is down, nobody may take its end
        // for one of its own.
        if let Err(error) = self.files.write_record(&unit, &record) {
            self.attempt_failed(&unit, id, &record, &error.to_string());
            return;
        }
        let decision = record.decision;
        let asking = self.shared.update(&unit, |entry| {
            entry.observed.record = Some(record);
            Arc::clone(&entry.asking)
        });
        let ask = async {
            // Behind a start that is being asked for, so that it is that one which is stopped.
            let _asking = asking.lock().await;
            manager.stop_unit(unit.as_str()).await
        };
        let result = match self.slot().await {
            Ok(slot) => self.job(&unit, slot, ask).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(result) => {
                let is_down = self.shared.update(&unit, |entry| entry.observed.is_down());
                if is_down {
                    self.shared.finish(&unit, id, Entry::attempts_over);
                } else {
                    self.stop_failed(&unit, id, decision, &result);
                }
            }
            // systemd does not have it in memory: nothing of it runs.
            Err(CallError::NoSuchUnit(_)) => self.shared.finish(&unit, id, |entry| {
                entry.attempts_over();
                entry.observed.active = "inactive".to_owned();
                entry.observed.sub = "dead".to_owned();
            }),
            // Planned anew after the reconnection.
            Err(CallError::Lost(_)) => {}
            Err(error) => self.stop_failed(&unit, id, decision, &error.to_string()),
        }
    }

    fn stop_failed(&self, unit: &UnitName, id: u64, decision: Decision, why: &str) {
        let why = format!("it could not be stopped: {why}");
        self.shared.attempt_failed(unit, id, decision, &why);
    }

    async fn unload(
        self: &Arc<Self>,
        manager: &Manager,
        unloads: Vec<(UnitName, u64, LaunchRecord)>,
    ) {
        if unloads.is_empty() {
            return;
        }
        let names = unloads.iter().map(|(unit, ..)| unit.as_str().to_owned());
        let known = in_memory(manager, names.collect()).await;
        let unloads = self.only_what_is_down(manager, known, unloads).await;
        let enabled: Vec<String> = {
            let state = self.shared.lock();
            let units = unloads.iter().map(|(unit, ..)| unit);
            let enabled = units.filter(|unit| state.units.get(*unit).is_some_and(|e| e.install));
            enabled.map(|unit| unit.as_str().to_owned()).collect()
        };
        self.disable(manager, &enabled).await;
        let mut removed = Vec::with_capacity(unloads.len());
        for (unit, id, record) in unloads {
            // What a signal has told meanwhile.
            if !self.shared.update(&unit, |entry| entry.observed.is_down()) {
                self.attempt_failed(&unit, id, &record, RUNS_AGAIN);
                continue;
            }
            match self.files.remove_unit(&unit) {
                Ok(()) => {
                    self.shared
                        .update(&unit, |entry| entry.observed.file = None);
                    removed.push((unit, id, record));
                }
                Err(error) => self.attempt_failed(&unit, id, &record, &error.to_string()),
            }
        }
        let names: Vec<&UnitName> = removed.iter().map(|(unit, ..)| unit).collect();
        let left = self.drop_from_memory(manager, &names).await;
        for (unit, id, record) in self.only_what_is_down(manager, left, removed).await {
            // Last of all: whoever comes after us takes a unit that is remembered as gone for one
            // of which nothing is left.
            match self.files.write_record(&unit, &record) {
                Ok(()) => self.shared.finish(&unit, id, |entry| {
                    forget_state(entry);
                    entry.observed.record = Some(record);
                }),
                Err(error) => self.attempt_failed(&unit, id, &record, &error.to_string()),
            }
        }
        // The last exclusive unit takes the lease with it.
        self.shared.lease.notify_one();
    }

    /// Those that do not run by what is `known` to systemd itself: a signal may be on its way yet.
    /// The others would be orphans for ever, without a file and forgotten: the attempt to unload
    /// them has failed, and they are to be stopped first.
    async fn only_what_is_down(
        self: &Arc<Self>,
        manager: &Manager,
        known: Result<BTreeMap<String, InMemory>, CallError>,
        unloads: Vec<(UnitName, u64, LaunchRecord)>,
    ) -> Vec<(UnitName, u64, LaunchRecord)> {
        let known = match known {
            Ok(known) => known,
            Err(error) => {
                let why = format!("what systemd has of it is not known: {error}");
                for (unit, id, record) in &unloads {
                    // Planned anew after the reconnection.
                    if !matches!(error, CallError::Lost(_)) {
                        self.attempt_failed(unit, *id, record, &why);
                    }
                }
                return Vec::new();
            }
        };
        let is_up = |unit: &UnitName| {
            let known = known.get(unit.as_str());
            known.is_some_and(|known| !is_down(&known.active))
        };
        let (up, down): (Vec<_>, Vec<_>) = unloads.into_iter().partition(|(unit, ..)| is_up(unit));
        let names: Vec<String> = up
            .iter()
            .map(|(unit, ..)| unit.as_str().to_owned())
            .collect();
        if !names.is_empty()
            && let Err(error) = self.look_at(manager, &names).await
        {
            tracing::debug!(?names, %error, "state of units that run again is not known yet");
        }
        for (unit, id, record) in up {
            self.attempt_failed(&unit, id, &record, RUNS_AGAIN);
        }
        down
    }

    /// Sees to it that systemd has nothing left of units whose files are gone. One that failed is
    /// kept until its failure is forgotten, one that others refer to until everything is read
    /// anew: till then whoever wants it would start it with the text that systemd remembers.
    /// Returns what was in its memory before that.
    async fn drop_from_memory(
        &self,
        manager: &Manager,
        units: &[&UnitName],
    ) -> Result<BTreeMap<String, InMemory>, CallError> {
        let names = |units: &[&UnitName]| -> Vec<String> {
            let names = units.iter().map(|unit| unit.as_str().to_owned());
            names.collect()
        };
        let failed: Vec<&UnitName> = {
            let state = self.shared.lock();
            let has_failed = |unit: &&UnitName| {
                let entry = state.units.get(*unit);
                entry.is_some_and(|entry| entry.observed.active == "failed")
            };
            units.iter().copied().filter(has_failed).collect()
        };
        self.reset_failed(manager, &names(&failed)).await?;
        let n_reloads = *self.reloads.lock().await;
        let left = in_memory(manager, names(units)).await?;
        if left.values().any(|left| left.load != "not-found") {
            self.reload_since(manager, n_reloads).await?;
        }
        Ok(left)
    }

    /// Disables units, and returns the links that were removed. Links that stay because systemd
    /// would not remove them are named in the log.
    pub(crate) async fn disable(&self, manager: &Manager, units: &[String]) -> Vec<LinkPath> {
        if units.is_empty() {
            return Vec::new();
        }
        manager.disable(units).await.unwrap_or_else(|error| {
            tracing::warn!(?units, %error, "units could not be disabled");
            Vec::new()
        })
    }

    /// Makes systemd drop failed units from its memory. One that it has dropped is well, and where
    /// asking again would not help it is only said. The error is one that may pass.
    pub(crate) async fn reset_failed(
        &self,
        manager: &Manager,
        units: &[String],
    ) -> Result<(), CallError> {
        use futures_util::StreamExt;
        futures_util::stream::iter(units.to_vec())
            .map(|unit| async move {
                match manager.reset_failed_unit(&unit).await {
                    Err(error @ (CallError::Transient(_) | CallError::Lost(_))) => Err(error),
                    Err(error) => {
                        tracing::debug!(%unit, %error, "failed state not reset");
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                }
            })
            .buffer_unordered(super::signals::CALLS_IN_FLIGHT)
            .fold(Ok(()), async |all, one| all.and(one))
            .await
    }

    /// The turn to ask for a job.
    pub(crate) async fn slot(&self) -> Result<OwnedSemaphorePermit, CallError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.map_err(|_| lost())
    }

    /// Asks for a job and waits for its end; its result in systemd's word.
    pub(crate) async fn job(
        &self,
        unit: &UnitName,
        slot: OwnedSemaphorePermit,
        ask: impl Future<Output = Result<OwnedObjectPath, CallError>>,
    ) -> Result<String, CallError> {
        let mut wait = self.shared.wait_for_job(unit, None);
        match ask.await {
            Ok(job) => self.shared.job_is(unit, wait.id, job.as_str().to_owned()),
            Err(error) => {
                self.shared.forget_job(unit, wait.id);
                return Err(error);
            }
        }
        match tokio::time::timeout(SLOW_JOB, &mut wait.told).await {
            Ok(told) => told.map_err(|_| lost()),
            Err(_) => match self.slow_slots.try_acquire() {
                Ok(slow_slot) => {
                    drop(slot);
                    let told = wait.told.await;
                    drop(slow_slot);
                    told.map_err(|_| lost())
                }
                Err(_) => wait.told.await.map_err(|_| lost()),
            },
        }
    }

    /// Reloads unless someone has since `n_reloads` was read.
    pub(crate) async fn reload_since(
        &self,
        manager: &Manager,
        n_reloads: u64,
    ) -> Result<(), CallError> {
        let mut done = self.reloads.lock().await;
        if *done == n_reloads {
            manager.reload().await?;
            *done += 1;
        }
        Ok(())
    }

    /// The machine can never run this: what was written is taken back, and the reason is kept.
    pub(crate) async fn refuse(
        &self,
        manager: &Manager,
        unit: &UnitName,
        id: u64,
        record: &LaunchRecord,
        why: String,
    ) {
        if !self.shared.is_current(unit, id) {
            return;
        }
        let (is_down, install, failed) = self.shared.update(unit, |entry| {
            let failed = entry.observed.active == "failed";
            (entry.observed.is_down(), entry.install, failed)
        });
        // What runs is not orphaned, whatever systemd has refused.
        if is_down {
            let names = [unit.as_str().to_owned()];
            if install {
                self.disable(manager, &names).await;
            }
            let removed = self
                .files
                .remove_unit(unit)
                .and_then(|()| self.files.remove_record(unit));
            if let Err(error) = removed {
                tracing::warn!(%unit, %error, "files of a refused unit cannot be removed");
            }
            if failed && let Err(error) = self.reset_failed(manager, &names).await {
                tracing::debug!(%unit, %error, "failed state of a refused unit not reset");
            }
        }
        tracing::warn!(%unit, reason = %why, "unit refused");
        let decision = record.decision;
        self.shared.finish(unit, id, |entry| {
            if is_down {
                forget_state(entry);
                entry.observed.record = None;
            }
            entry.attempts_over();
            entry.observed.refused = Some((decision, why));
        });
    }

    /// It may work another time.
    pub(crate) fn attempt_failed(
        &self,
        unit: &UnitName,
        id: u64,
        record: &LaunchRecord,
        why: &str,
    ) {
        self.shared.attempt_failed(unit, id, record.decision, why);
    }
}
/// Nothing of the unit is left in systemd, as far as fleet is concerned.
fn forget_state(entry: &mut Entry) {
    let observed = &mut entry.observed;
    observed.file = None;
    observed.body = None;
    observed.load.clear();
    observed.active.clear();
    observed.sub.clear();
    observed.invocation_id.clear();
    observed.description.clear();
    observed.failure = None;
    observed.failure_pending = false;
    observed.is_exclusive = false;
    observed.is_lease_set = false;
    entry.leased = false;
    entry.install = false;
    entry.looked_up = None;
}

/// What systemd says of a unit in its memory before files are written.
#[derive(Debug)]
pub(crate) struct InMemory {
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) fragment: String,
    pub(crate) needs_reload: bool,
}

/// What of these units is in systemd's memory. Loads nothing.
pub(crate) async fn in_memory(
    manager: &Manager,
    units: Vec<String>,
) -> Result<BTreeMap<String, InMemory>, CallError> {
    use futures_util::{StreamExt, TryStreamExt};
    let found: Vec<Option<(String, InMemory)>> = futures_util::stream::iter(units)
        .map(|unit| async move {
            match manager.get_unit(&unit).await {
                Ok(path) => Ok(look_into(manager, &path).await?.map(|found| (unit, found))),
                Err(CallError::NoSuchUnit(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(super::signals::CALLS_IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

async fn look_into(
    manager: &Manager,
    path: &OwnedObjectPath,
) -> Result<Option<InMemory>, CallError> {
    let properties = match manager.properties(path.as_str(), UNIT).await {
        Ok(properties) => properties,
        Err(CallError::Lost(why)) => return Err(CallError::Lost(why)),
        // Dropped from memory since.
        Err(_) => return Ok(None),
    };
    let text = |name: &str| {
        let value = properties
            .get(name)
            .and_then(|v| v.downcast_ref::<&str>().ok());
        value.unwrap_or_default().to_owned()
    };
    Ok(Some(InMemory {
        load: text("LoadState"),
        active: text("ActiveState"),
        fragment: text("FragmentPath"),
        needs_reload: properties
            .get("NeedDaemonReload")
            .and_then(|value| value.downcast_ref::<bool>().ok())
            .unwrap_or(false),
    }))
}

/// The connection was lost, and everybody who waited with it.
fn lost() -> CallError {
    CallError::Lost("a job was under way".to_owned())
}
