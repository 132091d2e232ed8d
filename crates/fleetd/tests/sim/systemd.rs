//! The simulated computers: a systemd with jobs and invocations, files that end with the boot,
//! and the driver that a fleetd has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::agent::{Attempt, Failure, LaunchRecord, Observed, Phase, Task, TaskKind, Working};
use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::Decision;
use fleetd::units::{Changes, UnitManager};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::audit::{Running, short};
use crate::chance::{Sim, lock};
use crate::life::Life;
use crate::store::Center;

/// As the real driver's.
const FIRST_ATTEMPT_PAUSE: Duration = Duration::from_millis(250);
const LAST_ATTEMPT_PAUSE: Duration = Duration::from_secs(30);

/// A computer. It outlives its fleetd; what is below /run does not outlive its power.
pub struct Host {
    pub id: String,
    pub number: usize,
    sim: Arc<Sim>,
    center: Arc<Center>,
    state: Mutex<HostState>,
}

#[derive(Default)]
struct HostState {
    boot: u64,
    units: BTreeMap<UnitName, HostUnit>,
    driver: Weak<Driver>,
    next_job: u64,
    next_invocation: u64,
}

/// One unit on a computer.
#[derive(Clone, Default)]
pub struct HostUnit {
    pub file: Option<(UnitHash, Arc<str>)>,
    pub record: Option<LaunchRecord>,
    pub active: &'static str,
    sub: &'static str,
    pub invocation: String,
    pub running: Option<Running>,
    job: Option<Job>,
}

#[derive(Clone)]
struct Job {
    id: u64,
    is_start: bool,
}

/// How a unit behaves, by its name in ExecStart: `/bin/slow`, `/bin/fails`, …
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    Runs,
    Slow,
    Fails,
    /// systemd cannot load it on machines with an odd number.
    Odd,
    Ends,
}

impl Behaviour {
    pub fn of(text: &str) -> Behaviour {
        let command = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart=/bin/"));
        match command.and_then(|command| command.split(' ').next()) {
            Some("slow") => Behaviour::Slow,
            Some("fails") => Behaviour::Fails,
            Some("odd") => Behaviour::Odd,
            Some("ends") => Behaviour::Ends,
            _ => Behaviour::Runs,
        }
    }
}

impl Host {
    pub fn new(number: usize, sim: &Arc<Sim>, center: &Arc<Center>) -> Arc<Host> {
        Arc::new(Host {
            id: format!("{number:08x}{:024x}", 0xf1ee7),
            number,
            sim: Arc::clone(sim),
            center: Arc::clone(center),
            state: Mutex::default(),
        })
    }

    pub fn boot_id(&self) -> String {
        format!("boot-{}", lock(&self.state).boot)
    }

    /// Where its fleetd keeps small files.
    pub fn run_directory(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}", self.id))
    }

    /// The power is cut: nothing runs any more, and what was below /run is gone.
    pub fn lose_power(&self) {
        let mut state = lock(&self.state);
        state.boot += 1;
        state.units.clear();
        fleetd::sim::remove_files_below(&self.run_directory());
    }

    pub fn units(&self) -> BTreeMap<UnitName, HostUnit> {
        lock(&self.state).units.clone()
    }

    /// A running unit dies by itself.
    pub fn kill_one(&self) {
        let victim = {
            let state = lock(&self.state);
            let running = state
                .units
                .iter()
                .filter(|(_, unit)| unit.active == "active");
            let running: Vec<_> = running.map(|(name, _)| name.clone()).collect();
            (!running.is_empty()).then(|| running[self.sim.below(running.len())].clone())
        };
        if let Some(unit) = victim {
            self.sim
                .note("unit-died", format_args!("{unit} on {}", short(&self.id)));
            self.change(&unit, |unit| {
                unit.active = "failed";
                unit.sub = "failed";
                unit.running = None;
            });
        }
    }

    fn change<T>(&self, name: &UnitName, change: impl FnOnce(&mut HostUnit) -> T) -> T {
        let (result, driver, seen) = {
            let mut state = lock(&self.state);
            let unit = state.units.entry(name.clone()).or_default();
            let result = change(unit);
            let seen = unit.clone();
            if seen.file.is_none() && seen.record.is_none() && seen.is_down() && seen.job.is_none()
            {
                state.units.remove(name);
            }
            (result, state.driver.upgrade(), seen)
        };
        if let Some(driver) = driver {
            driver.signal(name, &seen);
        }
        result
    }

    fn unit(&self, name: &UnitName) -> HostUnit {
        lock(&self.state)
            .units
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    /// A new job takes the place of the one before, as systemd's replace mode does.
    fn new_job(&self, name: &UnitName, is_start: bool) -> (u64, u64) {
        let (id, boot) = {
            let mut state = lock(&self.state);
            state.next_job += 1;
            (state.next_job, state.boot)
        };
        self.change(name, |unit| unit.job = Some(Job { id, is_start }));
        (id, boot)
    }

    /// Whether a job is still the unit's job, in the same boot.
    fn is_current(&self, name: &UnitName, (id, boot): (u64, u64)) -> bool {
        let state = lock(&self.state);
        let job = state.units.get(name).and_then(|unit| unit.job.as_ref());
        state.boot == boot && job.is_some_and(|job| job.id == id)
    }

    /// Starts (or restarts) a unit; the job's result is told when it is over.
    fn start(
        self: &Arc<Self>,
        name: &UnitName,
        record: &LaunchRecord,
        restart: bool,
    ) -> oneshot::Receiver<&'static str> {
        let (tell, told) = oneshot::channel();
        let unit = self.unit(name);
        if !restart && unit.active == "active" {
            let _ = tell.send("done");
            return told;
        }
        let is_superseded = self
            .center
            .audit
            .starts(&self.id, name.as_str(), record.decision);
        if let (true, Some(running)) = (restart, &unit.running) {
            self.center
                .audit
                .stops(&self.id, name.as_str(), record.decision, running);
        }
        let text = unit.file.as_ref().map(|(_, text)| Arc::clone(text));
        let behaviour = Behaviour::of(text.as_deref().unwrap_or_default());
        let stop_time = if restart && !unit.is_down() { 20 } else { 0 };
        let time = match behaviour {
            Behaviour::Slow => self.sim.between(200, 12_000),
            _ => self.sim.between(1, 40),
        } + Duration::from_millis(stop_time);
        let job = self.new_job(name, true);
        let invocation = {
            let mut state = lock(&self.state);
            state.next_invocation += 1;
            format!("{:08x}{:024x}", self.number, state.next_invocation)
        };
        let running = Running {
            since: Instant::now(),
            decision: record.decision,
            hash: record.hash,
            restarts: record.restarts,
            is_superseded,
        };
        self.sim.note(
            "start-job",
            format_args!(
                "{name} on {} {} {invocation}",
                short(&self.id),
                record.decision
            ),
        );
        self.change(name, |unit| {
            unit.active = "activating";
            unit.sub = "start";
            unit.invocation = invocation;
            unit.running = Some(running);
        });
        let (host, name) = (Arc::clone(self), name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if !host.is_current(&name, job) {
                let _ = tell.send("canceled");
                return;
            }
            let fails = behaviour == Behaviour::Fails;
            host.change(&name, |unit| {
                unit.job = None;
                (unit.active, unit.sub) = match behaviour {
                    Behaviour::Fails => ("failed", "failed"),
                    Behaviour::Ends => ("inactive", "dead"),
                    _ => ("active", "running"),
                };
                if unit.is_down() {
                    unit.running = None;
                }
            });
            let _ = tell.send(if fails { "failed" } else { "done" });
        });
        told
    }

    fn stop(
        self: &Arc<Self>,
        name: &UnitName,
        decision: Decision,
    ) -> oneshot::Receiver<&'static str> {
        let (tell, told) = oneshot::channel();
        let unit = self.unit(name);
        if let Some(running) = &unit.running {
            self.center
                .audit
                .stops(&self.id, name.as_str(), decision, running);
        }
        let text = unit.file.as_ref().map(|(_, text)| Arc::clone(text));
        let time = match Behaviour::of(text.as_deref().unwrap_or_default()) {
            Behaviour::Slow => self.sim.between(200, 8_000),
            _ => self.sim.between(1, 40),
        };
        let job = self.new_job(name, false);
        self.sim.note(
            "stop-job",
            format_args!("{name} on {} {decision}", short(&self.id)),
        );
        if !unit.is_down() {
            self.change(name, |unit| {
                unit.active = "deactivating";
                unit.sub = "stop-sigterm";
            });
        }
        let (host, name) = (Arc::clone(self), name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if !host.is_current(&name, job) {
                let _ = tell.send("canceled");
                return;
            }
            host.change(&name, |unit| {
                unit.job = None;
                if !unit.is_down() {
                    unit.active = "inactive";
                    unit.sub = "dead";
                }
                unit.running = None;
            });
            let _ = tell.send("done");
        });
        told
    }
}

impl HostUnit {
    pub fn is_down(&self) -> bool {
        matches!(self.active, "" | "inactive" | "failed")
    }
}

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
                observed.record = unit.record;
            }
        }
        lock(&host.state).driver = Arc::downgrade(&driver);
        let connecting = Arc::clone(&driver);
        tokio::spawn(async move {
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
        tokio::spawn(async move {
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
            tokio::spawn(async move {
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
    fn signal(&self, name: &UnitName, unit: &HostUnit) {
        if self.life.is_over() || lock(&self.state).trouble.is_some() {
            return;
        }
        if lock(&self.state).entries.contains_key(name) {
            self.update(name, |entry| look(&mut entry.observed, unit));
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
        tokio::spawn(async move {
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

    /// Carries out the tasks of one unit, in their order.
    async fn work(self: Arc<Self>, unit: UnitName, id: u64, tasks: Vec<Task>) {
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
                    self.host
                        .change(&unit, |unit| unit.record = Some(record.clone()));
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
        self.host.change(unit, |unit| {
            unit.file = Some((record.hash, Arc::clone(&text)))
        });
        self.life.point().await;
        self.host
            .change(unit, |unit| unit.record = Some(record.clone()));
        self.update(unit, |entry| {
            entry.observed.file = Some(record.hash);
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
        let told = self.host.start(unit, &record, restart);
        self.life.point().await;
        let result = told.await.unwrap_or("canceled");
        self.started(unit, id, record, result).await;
    }

    async fn started(&self, unit: &UnitName, id: u64, mut record: LaunchRecord, result: &str) {
        self.life.point().await;
        if !self.is_current(unit, id) {
            return;
        }
        let seen = self.host.unit(unit);
        record.phase = Phase::Launched;
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

/// Takes in what systemd says of a unit.
fn look(observed: &mut Observed, unit: &HostUnit) {
    observed.load = if unit.file.is_some() { "loaded" } else { "" }.to_owned();
    observed.active = unit.active.to_owned();
    observed.sub = unit.sub.to_owned();
    observed.invocation_id = unit.invocation.clone();
    if unit.active == "active" {
        observed.failure = None;
    }
}

fn forget_state(observed: &mut Observed) {
    observed.file = None;
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
        let Some(driver) = lock(&self.host.state).driver.upgrade() else {
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
            tokio::spawn(Arc::clone(&driver).work(unit, id, tasks));
        }
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    async fn is_shutting_down(&self) -> bool {
        false
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
