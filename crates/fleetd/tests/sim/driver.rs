//! The driver that a fleetd has of a simulated systemd.

mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::agent::{Attempt, LaunchRecord, Observed, Phase, Task, TaskKind, Working};
use fleet_core::name::UnitName;
use fleet_core::records::Decision;
use fleetd::units::{Changes, UnitManager};
use tokio::sync::Notify;

use crate::audit::short;
use crate::chance::{Sim, lock};
use crate::host::{Host, HostUnit};
use crate::life::Life;

/// As the real driver's.
const FIRST_ATTEMPT_PAUSE: Duration = Duration::from_millis(250);
const LAST_ATTEMPT_PAUSE: Duration = Duration::from_secs(30);

/// A fleetd's driver of one systemd, for as long as that process lives.
pub struct Driver {
    host: Arc<Host>,
    sim: Arc<Sim>,
    life: Arc<Life>,
    state: Mutex<DriverState>,
    changed: Notify,
}

#[derive(Default)]
struct DriverState {
    entries: BTreeMap<UnitName, Entry>,
    changed: BTreeSet<UnitName>,
    everything: bool,
    trouble: Option<String>,
    next_id: u64,
    /// Until when presence is certain.
    lease: Option<Duration>,
    /// It was prolonged for the time without fleetd.
    is_prolonged: bool,
}

#[derive(Default)]
struct Entry {
    observed: Observed,
    work_id: u64,
    attempts: (Decision, u32),
}

impl Driver {
    /// A driver that will have reached its systemd in a moment.
    pub fn new(host: &Arc<Host>, life: &Arc<Life>) -> Arc<Driver> {
        let driver = Arc::new(Driver {
            host: Arc::clone(host),
            sim: Arc::clone(&host.sim),
            life: Arc::clone(life),
            state: Mutex::default(),
            changed: Notify::new(),
        });
        {
            let mut state = lock(&driver.state);
            state.trouble = Some("systemd has not been reached yet".to_owned());
            for (name, unit) in host.units() {
                let observed = &mut state.entries.entry(name).or_default().observed;
                observed.file = unit.file.as_ref().map(|(hash, _)| *hash);
                observed.body = unit.body();
                observed.record = unit.record;
            }
        }
        host.is_driven_by(&driver);
        let connecting = Arc::clone(&driver);
        life.spawn(async move {
            tokio::time::sleep(connecting.sim.between(1, 30)).await;
            connecting.connected();
        });
        driver
    }

    /// The connection to systemd breaks, for a while.
    pub fn disconnect(self: &Arc<Self>, time: Duration) {
        {
            let mut state = lock(&self.state);
            state.trouble = Some("systemd cannot be reached: it was simulated".to_owned());
            state.everything = true;
            for entry in state.entries.values_mut() {
                entry.work_id = 0;
                entry.observed.working = None;
            }
        }
        self.changed.notify_one();
        let driver = Arc::clone(self);
        self.life.spawn(async move {
            tokio::time::sleep(time).await;
            driver.connected();
        });
    }

    fn connected(self: &Arc<Self>) {
        if self.life.is_over() {
            return;
        }
        let mut orphans = Vec::new();
        {
            let units = self.host.units();
            let mut state = lock(&self.state);
            state.trouble = None;
            state.everything = true;
            for (name, unit) in units {
                let entry = state.entries.entry(name.clone()).or_default();
                entry.observed.file = unit.file.as_ref().map(|(hash, _)| *hash);
                entry.observed.body = unit.body();
                entry.observed.record = unit.record.clone();
                look(&mut entry.observed, &unit);
                let starting = unit
                    .record
                    .as_ref()
                    .is_some_and(|r| r.phase == Phase::Starting);
                let job = unit.job.as_ref().filter(|job| job.is_start && starting);
                if job.is_some() && entry.observed.working.is_none() {
                    entry.observed.working = Some(Working::Starting);
                    orphans.push(name);
                }
            }
        }
        for unit in orphans {
            let id = self.new_id();
            lock(&self.state)
                .entries
                .entry(unit.clone())
                .or_default()
                .work_id = id;
            let driver = Arc::clone(self);
            self.life.spawn(async move {
                while driver.host.unit(&unit).job.is_some() && !driver.life.is_over() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let record = driver.host.unit(&unit).record;
                if let Some(record) = record {
                    driver.started(&unit, id, record, "done").await;
                }
            });
        }
        self.changed.notify_one();
    }

    /// systemd says how a unit is.
    pub fn signal(&self, name: &UnitName, unit: &HostUnit) {
        if self.life.is_over() || lock(&self.state).trouble.is_some() {
            return;
        }
        if lock(&self.state).entries.contains_key(name) {
            self.update(name, |entry| {
                look(&mut entry.observed, unit);
                // Ended with its lease.
                let ended = |record: &LaunchRecord| record.phase == Phase::Stopping;
                if unit.is_down() && unit.record.as_ref().is_some_and(ended) {
                    entry.observed.record = unit.record.clone();
                }
            });
        }
    }

    /// The end of the lease, while it lives.
    fn certain_lease(&self) -> Option<Duration> {
        let until = lock(&self.state).lease?;
        (fleetd::sim::boottime() < until).then_some(until)
    }

    fn lease_is_set(&self) {
        let names: Vec<UnitName> = lock(&self.state).entries.keys().cloned().collect();
        for name in names {
            if self.host.is_exclusive(&name) {
                self.update(&name, |entry| entry.observed.is_lease_set = true);
            }
        }
    }

    fn update<T>(&self, name: &UnitName, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut state = lock(&self.state);
        let entry = state.entries.entry(name.clone()).or_default();
        let before = entry.observed.clone();
        let result = change(entry);
        let observed = &entry.observed;
        let has_changed = *observed != before;
        let is_void =
            observed.is_nothing() && observed.refused.is_none() && observed.attempt.is_none();
        if has_changed {
            state.changed.insert(name.clone());
        }
        if is_void {
            state.entries.remove(name);
        }
        drop(state);
        if has_changed {
            self.changed.notify_one();
        }
        result
    }

    fn new_id(&self) -> u64 {
        let mut state = lock(&self.state);
        state.next_id += 1;
        state.next_id
    }

    fn is_current(&self, unit: &UnitName, id: u64) -> bool {
        lock(&self.state)
            .entries
            .get(unit)
            .is_some_and(|entry| entry.work_id == id)
    }

    fn finish(&self, unit: &UnitName, id: u64, change: impl FnOnce(&mut Entry)) {
        if !self.is_current(unit, id) {
            return;
        }
        self.update(unit, |entry| {
            entry.work_id = 0;
            entry.observed.working = None;
            change(entry);
        });
    }

    fn attempt_failed(self: &Arc<Self>, unit: &UnitName, id: u64, decision: Decision, why: &str) {
        let mut pause = None;
        self.finish(unit, id, |entry| {
            let (of, n) = entry.attempts;
            let n_failed = if of == decision { n } else { 0 };
            entry.attempts = (decision, n_failed + 1);
            entry.observed.attempt = Some(Attempt {
                decision,
                why: why.to_owned(),
                due: false,
            });
            pause = Some((FIRST_ATTEMPT_PAUSE * (1 << n_failed.min(10))).min(LAST_ATTEMPT_PAUSE));
        });
        let Some(pause) = pause else { return };
        let (driver, unit) = (Arc::clone(self), unit.clone());
        self.life.spawn(async move {
            tokio::time::sleep(pause).await;
            driver.update(&unit, |entry| {
                if let Some(attempt) = &mut entry.observed.attempt
                    && attempt.decision == decision
                {
                    attempt.due = true;
                }
            });
        });
    }
}

/// Takes in what systemd says of a unit.
fn look(observed: &mut Observed, unit: &HostUnit) {
    observed.load = if unit.file.is_some() { "loaded" } else { "" }.to_owned();
    observed.active = unit.active.to_owned();
    observed.sub = unit.sub.to_owned();
    observed.invocation_id = unit.invocation.clone();
    observed.is_exclusive = unit.is_exclusive();
    if unit.active == "active" {
        observed.failure = None;
    }
}

fn forget_state(observed: &mut Observed) {
    observed.file = None;
    observed.body = None;
    observed.load.clear();
    observed.active.clear();
    observed.sub.clear();
    observed.invocation_id.clear();
    observed.failure = None;
}

#[async_trait]
impl UnitManager for Driver {
    fn observe(&self, unit: &UnitName) -> Observed {
        let state = lock(&self.state);
        let entry = state.entries.get(unit);
        entry.map_or_else(Observed::default, |entry| entry.observed.clone())
    }

    fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
        let state = lock(&self.state);
        let entries = state.entries.iter();
        entries
            .map(|(unit, entry)| (unit.clone(), entry.observed.clone()))
            .collect()
    }

    fn apply(&self, tasks: Vec<Task>) {
        if self.life.is_over() {
            return;
        }
        let Some(driver) = self.host.driver() else {
            return;
        };
        let id = self.new_id();
        let mut by_unit: BTreeMap<UnitName, Vec<Task>> = BTreeMap::new();
        for task in tasks {
            self.sim.note(
                "task",
                format_args!(
                    "{} {} on {}: {}",
                    task.kind.as_str(),
                    task.unit,
                    short(&self.host.id),
                    task.reason
                ),
            );
            let working = match task.kind {
                TaskKind::Stop(_) => Working::Stopping,
                TaskKind::Start(_) | TaskKind::Restart(_) => Working::Starting,
                _ => Working::Files,
            };
            self.update(&task.unit, |entry| {
                if entry.work_id != id {
                    entry.observed.working = Some(working);
                }
                entry.work_id = id;
                entry.observed.attempt = None;
                entry.observed.refused = None;
            });
            by_unit.entry(task.unit.clone()).or_default().push(task);
        }
        for (unit, tasks) in by_unit {
            self.life.spawn(Arc::clone(&driver).work(unit, id, tasks));
        }
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    async fn is_shutting_down(&self) -> bool {
        self.host.is_shutting_down()
    }

    fn lease_until(&self, until: Duration) {
        if self.life.is_over() {
            return;
        }
        let is_prolonged = {
            let mut state = lock(&self.state);
            state.lease = Some(until);
            state.is_prolonged
        };
        if !is_prolonged && self.host.is_leased() && self.trouble().is_none() {
            self.host.set_lease(until);
            self.lease_is_set();
        }
    }

    async fn lease_for_absence(&self, until: Duration) -> bool {
        self.life.point().await;
        lock(&self.state).is_prolonged = true;
        self.host.set_lease(until);
        true
    }

    async fn changed(&self) -> Changes {
        loop {
            self.life.point().await;
            {
                let mut state = lock(&self.state);
                if state.everything || !state.changed.is_empty() {
                    return Changes {
                        units: std::mem::take(&mut state.changed),
                        everything: std::mem::take(&mut state.everything),
                    };
                }
            }
            self.changed.notified().await;
        }
    }
}
