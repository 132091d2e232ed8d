//! The simulated computers: a systemd with jobs and invocations, and files that end with the boot.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use fleet_core::agent::{LaunchRecord, Phase};
use fleet_core::body::BodyHash;
use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::Decision;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::audit::{Running, short};
use crate::chance::{Sim, lock};
use crate::driver::Driver;
use crate::store::Center;

/// A computer. It outlives its fleetd; what is below /run does not outlive its power.
pub struct Host {
    pub id: String,
    pub number: usize,
    pub sim: Arc<Sim>,
    pub center: Arc<Center>,
    state: Mutex<HostState>,
}

#[derive(Default)]
struct HostState {
    boot: u64,
    shuts_down: bool,
    units: BTreeMap<UnitName, HostUnit>,
    driver: Weak<Driver>,
    next_job: u64,
    next_invocation: u64,
    /// Something is wrong with it: whatever is started there fails.
    is_bad: bool,
    /// Until then (time since the simulation began) exclusive units run.
    lease: Option<Duration>,
}

/// One unit on a computer.
#[derive(Clone, Default)]
pub struct HostUnit {
    pub file: Option<(UnitHash, Arc<str>)>,
    pub record: Option<LaunchRecord>,
    pub active: &'static str,
    pub sub: &'static str,
    pub invocation: String,
    pub running: Option<Running>,
    pub job: Option<Job>,
}

#[derive(Clone)]
pub struct Job {
    id: u64,
    pub is_start: bool,
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
    /// It fails on machines with an odd number.
    Sick,
    /// Its process dies again and again; systemd restarts it some times, and then gives up.
    Dies,
    /// Its process dies some times; systemd takes longer to restart it than fleet waits before it
    /// moves what has failed. In the end it stays.
    Flaps,
}

/// So often systemd restarts what dies.
const RESTARTS: usize = 3;

/// How long systemd waits before it restarts what flaps (its `RestartSec=`), in milliseconds.
const FLAPS_RESTART_MS: (usize, usize) = (2_500, 6_000);

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
            Some("sick") => Behaviour::Sick,
            Some("dies") => Behaviour::Dies,
            Some("flaps") => Behaviour::Flaps,
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
        state.shuts_down = false;
        for (name, _) in std::mem::take(&mut state.units) {
            let audit = &self.center.audit;
            audit.is_down(&self.id, name.as_str());
            audit.is_failed(&self.id, name.as_str(), false);
            audit.ends(&self.id, name.as_str());
        }
        state.lease = None;
        fleetd::sim::remove_files_below(&self.run_directory());
    }

    /// The machine goes down in order: its systemd stops every unit.
    pub fn shut_down(self: &Arc<Self>) {
        lock(&self.state).shuts_down = true;
        for (name, unit) in self.units() {
            if unit.is_down() {
                continue;
            }
            let time = self.sim.between(10, 1_500);
            let job = self.new_job(&name, false);
            let host = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                if host.is_current(&name, job) {
                    host.change(&name, |unit| {
                        unit.job = None;
                        unit.active = "inactive";
                        unit.sub = "dead";
                        unit.running = None;
                    });
                }
            });
        }
    }

    /// From now on whatever is started there fails, or no longer.
    pub fn set_bad(&self, is_bad: bool) {
        lock(&self.state).is_bad = is_bad;
    }

    pub fn is_shutting_down(&self) -> bool {
        lock(&self.state).shuts_down
    }

    /// A new fleetd drives its systemd.
    pub fn is_driven_by(&self, driver: &Arc<Driver>) {
        lock(&self.state).driver = Arc::downgrade(driver);
    }

    pub fn driver(&self) -> Option<Arc<Driver>> {
        lock(&self.state).driver.upgrade()
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

    pub fn change<T>(&self, name: &UnitName, change: impl FnOnce(&mut HostUnit) -> T) -> T {
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
        if seen.running.is_none() {
            self.center.audit.ends(&self.id, name.as_str());
        }
        let audit = &self.center.audit;
        match seen.active {
            "active" => {
                let record = seen.record.as_ref().map(|record| record.decision);
                audit.is_up(&self.id, name.as_str(), record.unwrap_or_default());
            }
            _ => audit.is_down(&self.id, name.as_str()),
        }
        audit.is_failed(&self.id, name.as_str(), seen.active == "failed");
        if let Some(driver) = driver {
            driver.signal(name, &seen);
        }
        result
    }

    pub fn unit(&self, name: &UnitName) -> HostUnit {
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
    pub fn start(
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
        if self.is_shutting_down() {
            let _ = tell.send("canceled");
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
        let (invocation, is_bad) = (self.new_invocation(), lock(&self.state).is_bad);
        let running = Running {
            since: Instant::now(),
            decision: record.decision,
            hash: record.hash,
            restarts: record.restarts,
            is_superseded,
        };
        if self.is_exclusive(name) {
            self.center.audit.begins(&self.id, name.as_str());
        }
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
            let fails = match behaviour {
                Behaviour::Fails => true,
                Behaviour::Sick => host.number % 2 == 1,
                _ => is_bad,
            };
            host.change(&name, |unit| {
                unit.job = None;
                (unit.active, unit.sub) = match behaviour {
                    _ if fails => ("failed", "failed"),
                    Behaviour::Ends => ("inactive", "dead"),
                    _ => ("active", "running"),
                };
                if unit.is_down() {
                    unit.running = None;
                }
            });
            let _ = tell.send(if fails { "failed" } else { "done" });
            match behaviour {
                Behaviour::Dies if !fails => host.restart_some_times(&name, job.1, true).await,
                Behaviour::Flaps if !fails => host.restart_some_times(&name, job.1, false).await,
                _ => {}
            }
        });
        told
    }

    fn new_invocation(&self) -> String {
        let mut state = lock(&self.state);
        state.next_invocation += 1;
        format!("{:08x}{:024x}", self.number, state.next_invocation)
    }

    /// Its process dies; systemd restarts it, and gives up in the end, unless it stays by then.
    async fn restart_some_times(&self, name: &UnitName, boot: u64, gives_up: bool) {
        let (least, most) = match gives_up {
            true => (100, 1_500),
            false => FLAPS_RESTART_MS,
        };
        let mut invocation = self.unit(name).invocation;
        let is_still = |invocation: &str| {
            let unit = self.unit(name);
            let is_same = lock(&self.state).boot == boot && unit.invocation == invocation;
            is_same && unit.job.is_none() && !unit.is_down()
        };
        for _ in 0..RESTARTS {
            tokio::time::sleep(self.sim.between(20, 900)).await;
            if !is_still(&invocation) {
                return;
            }
            self.sim.note("auto-restart", format_args!("{name}"));
            self.change(name, |unit| {
                unit.active = "activating";
                unit.sub = "auto-restart";
            });
            tokio::time::sleep(self.sim.between(least, most)).await;
            if !is_still(&invocation) {
                return;
            }
            invocation = self.new_invocation();
            self.change(name, |unit| {
                unit.active = "active";
                unit.sub = "running";
                unit.invocation.clone_from(&invocation);
            });
        }
        if !gives_up {
            return;
        }
        tokio::time::sleep(self.sim.between(20, 900)).await;
        if is_still(&invocation) {
            self.change(name, |unit| {
                unit.active = "failed";
                unit.sub = "failed";
                unit.running = None;
            });
        }
    }

    /// Whether a unit is bound to the lease.
    pub fn is_exclusive(&self, name: &UnitName) -> bool {
        self.unit(name).is_exclusive()
    }

    /// Whether anything runs that is bound to the lease.
    pub fn is_leased(&self) -> bool {
        let state = lock(&self.state);
        let mut running = state.units.values().filter(|unit| !unit.is_down());
        running.any(HostUnit::is_exclusive)
    }

    /// systemd ends the exclusive units then, whoever is there to see it, unless it is told another
    /// time.
    pub fn set_lease(self: &Arc<Self>, until: Duration) {
        let boot = {
            let mut state = lock(&self.state);
            let before = state.lease.replace(until);
            if before.is_some_and(|before| before <= until) {
                return; // Whoever waits for that end looks again then.
            }
            state.boot
        };
        let host = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(left) = host.left_of_lease(boot) {
                tokio::time::sleep(left).await;
            }
        });
    }

    /// How long the lease of this boot still lives. When it is over, its units end.
    fn left_of_lease(self: &Arc<Self>, boot: u64) -> Option<Duration> {
        let units = {
            let mut state = lock(&self.state);
            let until = state.lease.filter(|_| state.boot == boot)?;
            let left = until.saturating_sub(fleetd::sim::boottime());
            if !left.is_zero() {
                return Some(left);
            }
            state.lease = None;
            state.units.clone()
        };
        for (name, unit) in units {
            if unit.is_exclusive() && !unit.is_down() && unit.active != "deactivating" {
                self.end_with_lease(&name);
            }
        }
        None
    }

    /// It is stopped within twice its stop timeout, and counts as stopped by fleet.
    fn end_with_lease(self: &Arc<Self>, name: &UnitName) {
        let at = short(&self.id);
        self.sim.note("lease-over", format_args!("{name} on {at}"));
        let job = self.new_job(name, false);
        self.change(name, |unit| {
            unit.active = "deactivating";
            unit.sub = "stop-sigterm";
        });
        let time = self.sim.between(1, 6_000);
        let (host, name) = (Arc::clone(self), name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if host.is_current(&name, job) {
                host.change(&name, |unit| {
                    unit.job = None;
                    unit.active = "inactive";
                    unit.sub = "dead";
                    unit.running = None;
                    if let Some(record) = &mut unit.record {
                        record.phase = Phase::Stopping;
                    }
                });
            }
        });
    }

    pub fn stop(
        self: &Arc<Self>,
        name: &UnitName,
        decision: Decision,
    ) -> oneshot::Receiver<&'static str> {
        let (tell, told) = oneshot::channel();
        let unit = self.unit(name);
        // What is going down already was judged when that began.
        if let Some(running) = &unit.running
            && unit.active != "deactivating"
        {
            let audit = &self.center.audit;
            audit.stops(&self.id, name.as_str(), decision, running);
            if unit.active == "active" {
                audit.hands_over(&self.id, name.as_str(), decision, running);
            }
        }
        let text = unit.file.as_ref().map(|(_, text)| Arc::clone(text));
        let time = match Behaviour::of(text.as_deref().unwrap_or_default()) {
            // Twice the stop timeout that fleet gives it, or without any.
            Behaviour::Slow if unit.is_exclusive() => self.sim.between(200, 6_000),
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
    /// What of its file makes the process.
    pub fn body(&self) -> Option<BodyHash> {
        let text = self.file.as_ref().map(|(_, text)| text);
        text.map(|text| BodyHash::of_text(text))
    }

    pub fn is_exclusive(&self) -> bool {
        let text = self.file.as_ref().map(|(_, text)| text);
        text.is_some_and(|text| text.contains("Exclusive=yes"))
    }

    pub fn is_down(&self) -> bool {
        matches!(self.active, "" | "inactive" | "failed")
    }
}
