//! A cluster of simulated computers, what befalls it, and what must be true when that is over.

mod faults;
mod settled;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use faults::Undo;
use fleet_core::records::{MachineId, MachineRecord};
use fleetd::agent::{Agent, AgentConfig, AgentMetrics};
use fleetd::api::ApiState;
use fleetd::config::{self, Config};
use fleetd::engine::{Engine, EngineConfig, EngineMetrics};
use fleetd::store::Store;
use fleetd::store::codec::FORMAT;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::audit::{moves_when_it_fails, short};
use crate::chance::{Sim, lock};
use crate::driver::Driver;
use crate::host::Host;
use crate::life::Life;
use crate::scenario::{Graces, Scenario};
use crate::store::{Cable, Center, Link};
use crate::users::{Town, specs};

/// A user who got no answer in a healthy cluster by then never gets one.
const LAST_ANSWERS: Duration = Duration::from_secs(150);

/// By then every machine has seen the store that it is to believe.
const LAST_WORD_AFTER: Duration = Duration::from_secs(10);

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
    graces: Graces,
    /// What ends a fault, when its time has come.
    undo: BTreeMap<(Instant, u64), Undo>,
    next_undo: u64,
}

impl World {
    /// Runs a scenario to its end; what went wrong is in `sim`.
    pub async fn run(sim: &Arc<Sim>, scenario: &Scenario) {
        fleetd::sim::begin();
        let center = Center::new(sim, scenario.graces);
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
            graces: scenario.graces,
            undo: BTreeMap::new(),
            next_undo: 0,
        };
        for machine in 0..n_machines {
            world.start(machine);
        }
        let (stop, stopped) = watch::channel(false);
        let specs = specs(sim, scenario);
        // What is refused or fails elsewhere tries to leave a drained machine again and again.
        let leaves_some = !specs.iter().any(|spec| {
            let name = spec.name.as_str();
            name.starts_with("odd") || moves_when_it_fails(name)
        });
        let mut users: Vec<_> = specs
            .into_iter()
            .map(|spec| {
                let town = Arc::clone(&world.town);
                tokio::spawn(town.look_after(spec, stopped.clone(), scenario.busy_ms))
            })
            .collect();
        if scenario.operated {
            let town = Arc::clone(&world.town);
            let machines = world.hosts.iter().map(|host| host.id.clone()).collect();
            users.push(tokio::spawn(town.operate(
                machines,
                leaves_some,
                stopped.clone(),
            )));
        }
        world.suffer(scenario).await;
        stop.send_replace(true);
        if sim.failure().is_none() {
            world.recover().await;
            for user in users {
                // Whose last question is not answered is told by settling.
                let failed = sim.failed.notified();
                futures_util::pin_mut!(failed);
                let answered = futures_util::future::select(user, failed);
                let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
            }
        }
        if sim.failure().is_none() && world.center.n_restores() > 0 {
            // A machine that was away has not heard it, and asks only for what was said since.
            tokio::time::sleep(LAST_WORD_AFTER).await;
            let _ = tokio::time::timeout(LAST_ANSWERS, world.town.accept_store()).await;
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
        let life = Life::new(&self.sim);
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
                unsupervised_grace: Duration::from_secs(600),
                run_directory: host.run_directory(),
                record: MachineRecord {
                    boot_id: host.boot_id(),
                    api: String::new(),
                    public_ip: format!("10.0.0.{}", host.number),
                    metadata: [("region".to_owned(), region.to_owned())].into(),
                    version: fleetd::VERSION.to_owned(),
                    format: FORMAT,
                    disable_engine: false,
                    trouble: None,
                    remark: None,
                },
            })
            .subscribe(),
            Arc::new(AgentMetrics::default()),
        );
        let engine = Engine::new(
            Arc::clone(&store),
            watch::Sender::new(EngineConfig {
                lost_after: self.graces.lost_after,
                unsupervised_grace: self.graces.unsupervised,
                freeze_for: self.graces.freeze_for,
                ..EngineConfig::from_config(&Config::for_system(), id.clone())
            })
            .subscribe(),
            Arc::new(EngineMetrics::default()),
        )
        .beside(&agent);
        let api = ApiState::new(store, 100, "1.0.0").on(id);
        let api = api.with_shutdown(shutdown.clone());
        lock(&self.town.apis)[machine] = Some((api, Arc::clone(&life)));
        self.sim
            .note("fleetd-starts", format_args!("{}", short(&host.id)));
        self.processes[machine] = Some(Process {
            driver,
            stop,
            tasks: vec![
                life.spawn({
                    let (sim, shutdown) = (Arc::clone(&self.sim), shutdown.clone());
                    async move {
                        if let Err(duplicate) = agent.run(shutdown).await {
                            sim.fail(format!("it took itself for a clone: {duplicate}"));
                        }
                    }
                }),
                life.spawn(engine.run(shutdown)),
            ],
            life,
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
}

impl Process {
    fn kill(self) {
        self.life.end();
        for task in self.tasks {
            task.abort();
        }
    }
}
