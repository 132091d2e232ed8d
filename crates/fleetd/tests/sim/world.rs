//! A cluster of simulated computers, what befalls it, and what must be true when that is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::hash::UnitHash;
use fleet_core::records::{
    AssignmentRecord, DesiredState, MachineId, MachineRecord, MemberStatus, Order,
};
use fleetd::agent::{Agent, AgentConfig, AgentMetrics};
use fleetd::api::ApiState;
use fleetd::config::{self, Config};
use fleetd::engine::{Engine, EngineConfig, EngineMetrics};
use fleetd::store::codec::{Document, FORMAT, LeaderRecord};
use fleetd::store::keys::{self, Key};
use fleetd::store::{Range, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::audit::{is_global, is_plain, short};
use crate::chance::{Sim, lock};
use crate::life::Life;
use crate::scenario::{Fault, Scenario};
use crate::store::{Cable, Center, Cut, Link, Weather};
use crate::systemd::{Behaviour, Driver, Host};
use crate::users::{Town, specs};

/// By then a cluster without faults has settled: the longest pause between attempts is 30 s, as
/// is the engine's safety tick.
const SETTLE_BOUND: Duration = Duration::from_secs(150);

/// Then it must stay as it is for so long.
const STAY: Duration = Duration::from_secs(65);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// So many looks in a row find nothing to do before a cluster counts as settled: six seconds, in
/// which the lease of a process that died just before the faults ended has run out, too.
const CALM_LOOKS: u32 = 12;

/// One fleetd.
struct Process {
    life: Arc<Life>,
    driver: Arc<Driver>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// The cluster.
pub struct World {
    sim: Arc<Sim>,
    center: Arc<Center>,
    town: Arc<Town>,
    hosts: Vec<Arc<Host>>,
    cables: Vec<Arc<Cable>>,
    processes: Vec<Option<Process>>,
    /// What ends a fault, when its time has come.
    undo: BTreeMap<(Instant, u64), Undo>,
    next_undo: u64,
}

enum Undo {
    Start(usize),
    Heal(usize),
    ClearSky,
    StoreUp,
    StoreBack,
}

impl World {
    /// Runs a scenario to its end; what went wrong is in `sim`.
    pub async fn run(sim: &Arc<Sim>, scenario: &Scenario) {
        fleetd::sim::begin();
        let center = Center::new(sim);
        let n_machines = scenario.machines;
        let mut world = World {
            sim: Arc::clone(sim),
            town: Town::new(sim, &center, n_machines),
            hosts: (0..n_machines)
                .map(|number| Host::new(number + 1, sim, &center))
                .collect(),
            cables: (0..n_machines).map(|_| Arc::default()).collect(),
            processes: (0..n_machines).map(|_| None).collect(),
            center,
            undo: BTreeMap::new(),
            next_undo: 0,
        };
        for machine in 0..n_machines {
            world.start(machine);
        }
        let (stop, stopped) = watch::channel(false);
        let users: Vec<_> = specs(sim, scenario.units, n_machines)
            .into_iter()
            .map(|spec| {
                let town = Arc::clone(&world.town);
                tokio::spawn(town.look_after(spec, stopped.clone(), scenario.busy_ms))
            })
            .collect();
        world.suffer(scenario).await;
        stop.send_replace(true);
        if sim.failure().is_none() {
            world.recover().await;
            for user in users {
                // A user who got no answer in a healthy cluster is a failure that settling tells.
                let failed = sim.failed.notified();
                futures_util::pin_mut!(failed);
                let answered = futures_util::future::select(user, failed);
                let _ = tokio::time::timeout(SETTLE_BOUND, answered).await;
            }
        }
        if sim.failure().is_none() {
            world.settle().await;
        }
        for process in &mut world.processes {
            if let Some(process) = process.take() {
                process.kill();
            }
        }
    }

    /// Starts fleetd on a machine.
    fn start(&mut self, machine: usize) {
        if self.processes[machine].is_some() {
            return;
        }
        let host = &self.hosts[machine];
        let id = MachineId::new(&host.id);
        let life = Arc::new(Life::default());
        let store: Arc<dyn Store> = Arc::new(Link {
            center: Arc::clone(&self.center),
            machine: host.id.clone(),
            cable: Arc::clone(&self.cables[machine]),
            life: Arc::clone(&life),
        });
        let driver = Driver::new(host, &life);
        let (stop, shutdown) = watch::channel(false);
        let region = if machine % 2 == 0 { "eu" } else { "us" };
        let agent = Agent::new(
            Arc::clone(&store),
            Arc::clone(&driver) as _,
            watch::Sender::new(AgentConfig {
                machine: id.clone(),
                machine_id_file: "/nonexistent".into(),
                ttl: config::DEFAULT_AGENT_TTL,
                run_directory: host.run_directory(),
                record: MachineRecord {
                    boot_id: host.boot_id(),
                    public_ip: format!("10.0.0.{}", host.number),
                    metadata: [("region".to_owned(), region.to_owned())].into(),
                    version: fleetd::VERSION.to_owned(),
                    format: FORMAT,
                    disable_engine: false,
                    trouble: None,
                },
            })
            .subscribe(),
            Arc::new(AgentMetrics::default()),
        );
        let engine = Engine::new(
            Arc::clone(&store),
            watch::Sender::new(EngineConfig::from_config(&Config::for_system(), id)).subscribe(),
            Arc::new(EngineMetrics::default()),
        )
        .beside(&agent);
        let api = ApiState::new(store, 100, "1.0.0").with_shutdown(shutdown.clone());
        lock(&self.town.apis)[machine] = Some(api);
        self.sim
            .note("fleetd-starts", format_args!("{}", short(&host.id)));
        self.processes[machine] = Some(Process {
            life,
            driver,
            stop,
            tasks: vec![
                tokio::spawn({
                    let (sim, shutdown) = (Arc::clone(&self.sim), shutdown.clone());
                    async move {
                        if let Err(duplicate) = agent.run(shutdown).await {
                            sim.fail(format!("it took itself for a clone: {duplicate}"));
                        }
                    }
                }),
                tokio::spawn(engine.run(shutdown)),
            ],
        });
    }

    /// Kills fleetd.
    fn kill(&mut self, machine: usize) {
        lock(&self.town.apis)[machine] = None;
        if let Some(process) = self.processes[machine].take() {
            self.sim.note(
                "fleetd-killed",
                format_args!("{}", short(&self.hosts[machine].id)),
            );
            process.kill();
        }
    }

    fn later(&mut self, after: Duration, undo: Undo) {
        self.next_undo += 1;
        let at = Instant::now() + after;
        self.undo.insert((at, self.next_undo), undo);
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(machine) => self.start(machine),
            Undo::Heal(machine) => {
                self.sim.note("healed", format_args!("{}", machine + 1));
                self.cables[machine].set(Cut::default());
            }
            Undo::ClearSky => self.center.set_weather(Weather::default()),
            Undo::StoreUp => {
                self.sim.note("store-up", format_args!(""));
                self.center.set_down(false);
            }
            Undo::StoreBack => {
                self.sim.note("right-store", format_args!(""));
                self.center.bring_back();
            }
        }
    }

    /// What befalls it, until the time is over.
    async fn suffer(&mut self, scenario: &Scenario) {
        let end = Instant::now() + scenario.time;
        let mut script = scenario.script.iter().peekable();
        let begun = Instant::now();
        let mut next = begun + self.pause(scenario);
        loop {
            let undo = self.undo.keys().next().copied();
            let scripted = script.peek().map(|(at, ..)| begun + *at);
            let wake = [Some(end), Some(next), scripted, undo.map(|(at, _)| at)];
            let wake = wake.into_iter().flatten().min().unwrap_or(end);
            let failed = self.sim.failed.notified();
            if tokio::time::timeout_at(wake, failed).await.is_ok() {
                return;
            }
            for violation in fleetd::sim::take_violations() {
                self.sim
                    .fail(format!("the leader's plan leaves: {violation}"));
            }
            let now = Instant::now();
            if now >= end || self.sim.failure().is_some() {
                return;
            }
            if let Some(key) = undo.filter(|(at, _)| *at <= now) {
                if let Some(undo) = self.undo.remove(&key) {
                    self.undo(undo);
                }
            } else if scripted.is_some_and(|at| at <= now) {
                if let Some((_, fault, machine)) = script.next() {
                    self.inflict(*fault, *machine).await;
                }
            } else if now >= next {
                if !scenario.faults.is_empty() {
                    let fault = self.sim.pick(&scenario.faults);
                    let machine = self.sim.below(self.hosts.len());
                    self.inflict(fault, machine).await;
                }
                next = Instant::now() + self.pause(scenario);
            }
        }
    }

    fn pause(&self, scenario: &Scenario) -> Duration {
        match self.sim.below(3) {
            0 => self.sim.between(0, 300),
            _ => self.sim.between(300, scenario.fault_every_ms),
        }
    }

    /// The machine that leads; else some other.
    async fn leader(&self, otherwise: usize) -> usize {
        let read = self
            .center
            .data()
            .read_keys(&[keys::LEADER.to_owned()])
            .await;
        let entry = read.ok().and_then(|mut read| read.entries.pop());
        let leader = entry.and_then(|e| LeaderRecord::decode(&e.key, &e.value).ok());
        leader
            .and_then(|leader| {
                let is = |host: &Arc<Host>| host.id == leader.machine.as_str();
                self.hosts.iter().position(is)
            })
            .unwrap_or(otherwise)
    }

    async fn inflict(&mut self, fault: Fault, machine: usize) {
        let sim = Arc::clone(&self.sim);
        sim.note(fault.name(), format_args!("on {}", machine + 1));
        match fault {
            Fault::Crash => {
                self.kill(machine);
                self.later(sim.between(50, 3_000), Undo::Start(machine));
            }
            Fault::CrashAtPoint => {
                let Some(process) = &self.processes[machine] else {
                    return;
                };
                let life = Arc::clone(&process.life);
                life.end_after(1 + sim.below(30) as u64);
                // It dies when it gets there; if nothing happens it lives on a little longer.
                let _ = tokio::time::timeout(Duration::from_secs(2), life.over()).await;
                self.kill(machine);
                self.later(sim.between(50, 3_000), Undo::Start(machine));
            }
            Fault::CrashLeader => {
                let machine = self.leader(machine).await;
                self.kill(machine);
                self.later(sim.between(50, 8_000), Undo::Start(machine));
            }
            Fault::Upgrade => {
                if let Some(process) = self.processes[machine].take() {
                    process.stop.send_replace(true);
                    let ended = async {
                        for task in process.tasks {
                            let _ = task.await;
                        }
                    };
                    // systemd kills what does not stop in time.
                    let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
                    process.life.end();
                    lock(&self.town.apis)[machine] = None;
                    self.later(sim.between(20, 6_000), Undo::Start(machine));
                }
            }
            Fault::PowerCut => {
                self.kill(machine);
                self.hosts[machine].lose_power();
                self.later(sim.between(500, 15_000), Undo::Start(machine));
            }
            Fault::PowerCutAll => {
                for machine in 0..self.hosts.len() {
                    self.kill(machine);
                    self.hosts[machine].lose_power();
                    self.later(sim.between(500, 15_000), Undo::Start(machine));
                }
            }
            Fault::CrashAll => {
                for machine in 0..self.hosts.len() {
                    self.kill(machine);
                    self.later(sim.between(50, 9_000), Undo::Start(machine));
                }
            }
            Fault::Cut | Fault::CutLeader => {
                let machine = match fault {
                    Fault::CutLeader => self.leader(machine).await,
                    _ => machine,
                };
                let cut = self.some_cut();
                sim.note("cut", format_args!("{} {cut:?}", machine + 1));
                self.cables[machine].set(cut);
                self.later(sim.between(50, 12_000), Undo::Heal(machine));
            }
            Fault::CutAll => {
                for machine in 0..self.hosts.len() {
                    let cut = self.some_cut();
                    self.cables[machine].set(cut);
                    self.later(sim.between(1_000, 12_000), Undo::Heal(machine));
                }
            }
            Fault::Loss | Fault::Slow => {
                let share = 2 + sim.below(30);
                self.center.set_weather(match fault {
                    Fault::Loss => Weather {
                        loss: share,
                        slow: 0,
                    },
                    _ => Weather {
                        loss: 0,
                        slow: share,
                    },
                });
                self.later(sim.between(500, 10_000), Undo::ClearSky);
            }
            Fault::Compact => {
                let data = self.center.data();
                let newest = data
                    .read(Range {
                        limit: Some(1),
                        ..Range::default()
                    })
                    .await;
                if let Ok(newest) = newest {
                    let _ = data.compact(newest.revision).await;
                }
            }
            Fault::BreakWatches => self.center.break_watches("the connection was reset"),
            Fault::StoreDown => {
                self.center.set_down(true);
                self.later(sim.between(100, 12_000), Undo::StoreUp);
            }
            Fault::LeaseEnds => {
                let key = match sim.below(2) {
                    0 => keys::LEADER.to_owned(),
                    _ => keys::machine(&self.hosts[machine].id),
                };
                let data = self.center.data();
                let entry = data.read_keys(&[key]).await;
                let lease = entry.ok().and_then(|mut e| e.entries.pop()?.lease);
                if let Some(lease) = lease {
                    self.center.audit.deceives(&self.hosts[machine].id);
                    let _ = data.revoke(lease).await;
                }
            }
            Fault::SystemdAway => {
                if let Some(process) = &self.processes[machine] {
                    process.driver.disconnect(sim.between(10, 4_000));
                }
            }
            Fault::UnitDies => self.hosts[machine].kill_one(),
            Fault::ClockJump => {
                let hour = 3_600_000;
                fleetd::sim::set_skew_ms(sim.pick(&[-hour, hour, 0, 90_000, -5_000]));
            }
            Fault::WipedStore => {
                self.center.exchange();
                self.later(sim.between(200, 8_000), Undo::StoreBack);
            }
        }
    }

    fn some_cut(&self) -> Cut {
        self.sim.pick(&[
            Cut {
                requests: true,
                answers: true,
            },
            Cut {
                requests: true,
                answers: false,
            },
            Cut {
                requests: false,
                answers: true,
            },
        ])
    }

    /// All faults end.
    async fn recover(&mut self) {
        self.sim.note("recover", format_args!(""));
        self.center.bring_back();
        self.undo.clear();
        self.center.set_down(false);
        self.center.set_weather(Weather::default());
        for machine in 0..self.hosts.len() {
            self.cables[machine].set(Cut::default());
            if self.processes[machine]
                .as_ref()
                .is_some_and(|p| p.life.is_over())
            {
                self.kill(machine);
            }
            self.start(machine);
        }
    }

    /// The desired state is reached, and stays.
    async fn settle(&mut self) {
        let bound = Instant::now() + SETTLE_BOUND;
        let mut calm = 0;
        while calm < CALM_LOOKS {
            tokio::time::sleep(LOOK).await;
            for violation in fleetd::sim::take_violations() {
                self.sim
                    .fail(format!("the leader's plan leaves: {violation}"));
            }
            if self.sim.failure().is_some() {
                return;
            }
            match self.is_settled().await {
                Ok(()) => calm += 1,
                Err(why) if Instant::now() >= bound => {
                    return self.sim.fail(format!("it does not settle: {why}"));
                }
                Err(_) => calm = 0,
            }
        }
        self.sim.note("settled", format_args!(""));
        let revision = self.center.audit.last_write();
        let invocations = self.invocations();
        tokio::time::sleep(STAY).await;
        if let Err(why) = self.is_settled().await {
            return self
                .sim
                .fail(format!("it was settled and is no more: {why}"));
        }
        if self.center.audit.last_write() != revision {
            return self
                .sim
                .fail("it was settled and yet something was written".to_owned());
        }
        if self.invocations() != invocations {
            self.sim
                .fail("it was settled and yet a unit was started".to_owned());
        }
    }

    fn invocations(&self) -> Vec<(String, String)> {
        let units = self.hosts.iter().flat_map(|host| host.units());
        units
            .map(|(name, unit)| (name.to_string(), unit.invocation))
            .collect()
    }

    /// Whether everything is as it was asked for, nothing is left over and nothing is to be done.
    async fn is_settled(&self) -> Result<(), String> {
        let data = self.center.data();
        if let Some(first) = fleetd::sim::replan(&*data)
            .await
            .map_err(|error| error.to_string())?
            .first()
        {
            return Err(first.clone());
        }
        let snapshot = data
            .read(Range::default())
            .await
            .map_err(|error| error.to_string())?;
        let wants = lock(&self.town.wants).clone();
        for (unit, want) in &wants {
            self.town.is_kept(unit, want).await?;
        }
        let mut assigned: BTreeMap<(String, String), AssignmentRecord> = BTreeMap::new();
        for entry in &snapshot.entries {
            let unit = match keys::parse(&entry.key) {
                Key::Assignment(machine, unit) => {
                    let record = AssignmentRecord::decode(&entry.key, &entry.value)
                        .map_err(|error| error.to_string())?;
                    assigned.insert((machine.to_owned(), unit.to_owned()), record);
                    unit
                }
                Key::Unit(unit) | Key::Placement(unit) | Key::State(unit, _) => unit,
                Key::Member(_) => {
                    let member =
                        fleet_core::records::MemberRecord::decode(&entry.key, &entry.value);
                    match member {
                        Ok(member) if member.status == MemberStatus::Present => continue,
                        other => return Err(format!("{}: {other:?}", entry.key)),
                    }
                }
                _ => continue,
            };
            if wants.get(unit).is_none_or(|want| want.text.is_none()) {
                return Err(format!("{} is left over", entry.key));
            }
            if let Key::State(unit, machine) = keys::parse(&entry.key)
                && !assigned.contains_key(&(machine.to_owned(), unit.to_owned()))
            {
                return Err(format!("{} is left over", entry.key));
            }
        }
        for (unit, want) in &wants {
            let homes: Vec<_> = assigned.keys().filter(|(_, u)| u == unit).collect();
            let expected = match want.desired {
                DesiredState::Inactive | DesiredState::Destroyed => 0,
                _ if is_global(unit) => self.hosts.len(),
                _ if is_plain(unit) => 1,
                // Others may have to wait.
                _ => homes.len().min(1),
            };
            if homes.len() != expected {
                return Err(format!(
                    "{unit} is on {} machines, not {expected}",
                    homes.len()
                ));
            }
        }
        for host in &self.hosts {
            let units = host.units();
            for (name, unit) in &units {
                let key = (host.id.clone(), name.to_string());
                let Some(assignment) = assigned.get(&key) else {
                    return Err(format!(
                        "{name} is left over on {}: {:?}",
                        short(&host.id),
                        unit.record
                    ));
                };
                let is_refused = unit.file.is_none() && unit.record.is_none();
                let right = is_refused
                    || (unit.file.as_ref().map(|(hash, _)| *hash) == Some(assignment.hash)
                        && is_as_ordered(assignment, unit));
                if !right {
                    return Err(format!(
                        "{name} on {} is {} with {:?}, ordered: {:?} {}",
                        short(&host.id),
                        unit.active,
                        unit.record,
                        assignment.order,
                        assignment.decision
                    ));
                }
            }
            let missing = assigned.iter().find(|((machine, unit), record)| {
                let is_odd = Behaviour::of(&record.text) == Behaviour::Odd;
                *machine == host.id && !is_odd && !units.keys().any(|name| name.as_str() == unit)
            });
            if let Some(((_, unit), _)) = missing {
                return Err(format!("{unit} is missing on {}", short(&host.id)));
            }
        }
        Ok(())
    }
}

/// Whether a unit is as its assignment says, whatever has become of its process since.
fn is_as_ordered(assignment: &AssignmentRecord, unit: &crate::systemd::HostUnit) -> bool {
    let hash: UnitHash = assignment.hash;
    let Some(record) = &unit.record else {
        return false;
    };
    let is_current = record.decision == assignment.decision && record.hash == hash;
    match assignment.order {
        Order::Launched => {
            let may_be_down = matches!(
                Behaviour::of(&assignment.text),
                Behaviour::Fails | Behaviour::Ends
            ) || unit.active == "failed";
            is_current
                && record.restarts == assignment.restarts
                && (unit.active == "active" || may_be_down && unit.is_down())
        }
        Order::Loaded => is_current && unit.is_down(),
        Order::Gone => false,
    }
}

impl Process {
    fn kill(self) {
        self.life.end();
        for task in self.tasks {
            task.abort();
        }
    }
}
