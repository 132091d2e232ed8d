//! The one place that wires the parts together: store, systemd, agent, engine, API.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fleet_core::records::MachineId;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::access::{Access, Trust};
use crate::agent::{Agent, AgentConfig, AgentMetrics, Duplicate, KEEPALIVES_PER_TTL};
use crate::api::{self, ApiState};
use crate::config::Config;
use crate::config::load::{self, Loaded};
use crate::engine::{Engine, EngineConfig, EngineMetrics, RoleMetrics};
use crate::lease_thread::LeaseThread;
use crate::listen::{self, Door, Listener};
use crate::logging::Verbosity;
use crate::memory::Memory;
use crate::metrics::{self, Metrics, Process};
use crate::peer;
use crate::pki::{self, Pki};
use crate::reload::Controls;
use crate::shutdown::Shutdown;
use crate::store::choice::{self, Choice};
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::{EtcdConfig, EtcdStore};
use crate::store::measured::{Measured, StoreMetrics};
use crate::store::{self, Store};
use crate::units::{Systemd, SystemdConfig, UnitManager};
use crate::{machine, notify};

/// What keeps fleetd from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This computer.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The sockets of the API.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// Which store to use.
    #[error(transparent)]
    Choice(#[from] choice::Error),
    /// The store itself: a file that cannot be opened, TLS files that cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Another machine has this one's id.
    #[error(transparent)]
    Duplicate(#[from] Duplicate),
    /// The runtime.
    #[error("failed to start: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What the server works with; tests give their own.
pub struct Deps {
    /// Who this machine is.
    pub machine: MachineId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// systemd.
    pub manager: Arc<dyn UnitManager>,
    /// Where the API is served.
    pub listeners: Vec<Listener>,
    /// Where leases are kept alive.
    pub leases: LeaseThread,
    /// TLS of the API.
    pub pki: Arc<Pki>,
}

/// A fleetd, wired and not yet running.
pub struct Server {
    agent: Agent,
    engine: Engine,
    state: ApiState,
    listeners: Vec<Listener>,
    insecure: Arc<AtomicBool>,
    pki: Arc<Pki>,
    store: Arc<dyn Store>,
}

impl Server {
    /// Wires the parts, and says where their configuration is changed and their memory is read.
    /// Nothing runs yet.
    pub fn build(config: &Config, deps: Deps) -> (Server, Controls, Memory) {
        let agent_metrics = Arc::new(AgentMetrics::default());
        let engine_metrics = Arc::new(EngineMetrics::default());
        let store_metrics = Arc::new(StoreMetrics::default());
        let store: Arc<dyn Store> = Arc::new(Measured::new(deps.store, Arc::clone(&store_metrics)));
        let access = Access::default();
        let trust = watch::Sender::<Arc<Trust>>::default();
        let state = ApiState::new(
            Arc::clone(&store),
            config.token_limit,
            env!("CARGO_PKG_VERSION"),
        )
        .on(deps.machine.clone())
        .under(access.clone())
        .with_units(
            deps.machine.clone(),
            Arc::clone(&deps.manager),
            Arc::clone(&deps.pki) as _,
        )
        .with_pki(Arc::clone(&deps.pki))
        .trusting(trust.subscribe());
        let api = peer::published(&deps.listeners);
        let agent_config = AgentConfig::from_config(config, deps.machine.clone());
        let agent_config = watch::Sender::new(agent_config.served_at(&api));
        let agent = Agent::new(
            Arc::clone(&store),
            Arc::clone(&deps.manager),
            agent_config.subscribe(),
            Arc::clone(&agent_metrics),
        )
        .with_leases_on(deps.leases.clone())
        .trusting(trust.subscribe());
        let engine_config =
            watch::Sender::new(EngineConfig::from_config(config, deps.machine.clone()));
        let engine = Engine::new(
            Arc::clone(&store),
            engine_config.subscribe(),
            Arc::clone(&engine_metrics),
        )
        .while_registered(agent.standing())
        .with_leases_on(deps.leases);
        let metrics = metrics([
            engine_metrics,
            Arc::new(RoleMetrics(engine.status())),
            agent_metrics,
            store_metrics,
            state.counters(),
        ]);
        let state = state.with_metrics(Arc::new(move || metrics.render()));
        let insecure = Arc::new(AtomicBool::new(config.api_insecure));
        let controls = Controls {
            machine: deps.machine.clone(),
            agent: agent_config,
            engine: engine_config,
            token_limit: state.token_limit(),
            insecure: Arc::clone(&insecure),
            access,
            api,
            trust,
            pki: Arc::clone(&deps.pki),
            current: config.clone(),
            etcd: None,
            verbosity: None,
        };
        let memory = Memory {
            machine: deps.machine,
            agent: agent.memory(),
            standing: agent.standing(),
            engine: engine.status(),
            store: Arc::clone(&store),
        };
        let server = Server {
            agent,
            engine,
            state,
            listeners: deps.listeners,
            insecure,
            pki: deps.pki,
            store,
        };
        (server, controls, memory)
    }

    /// Runs until told to stop. Units are left as they are.
    ///
    /// # Errors
    /// Another machine has this one's id.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Duplicate> {
        let state = self.state.with_shutdown(shutdown.clone());
        let newcomers = api::newcomers(state.clone());
        let router = api::router(state);
        let mut parts = JoinSet::new();
        // Presence first: after a restart the lease must be renewed before anything else.
        parts.spawn(self.agent.run(shutdown.clone()));
        let (stop, engine) = (shutdown.clone(), self.engine);
        parts.spawn(async move {
            engine.run(stop).await;
            Ok(())
        });
        let (stop, listeners) = (shutdown.clone(), self.listeners);
        let pki = self.pki;
        let door = Door {
            insecure: self.insecure,
            pki: Arc::clone(&pki),
            newcomers,
        };
        parts.spawn(async move {
            listen::serve(listeners, router, door, stop).await;
            Ok(())
        });
        let (stop, store) = (shutdown.clone(), self.store);
        parts.spawn(async move {
            pki::run(pki, store, stop).await;
            Ok(())
        });
        parts.spawn(async move {
            notify::watchdog(shutdown).await;
            Ok(())
        });
        notify::ready();
        while let Some(ended) = parts.join_next().await {
            match ended {
                Ok(ended) => ended?,
                // A fleetd without one of its parts is none.
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => warn!(%error, "a part of fleetd was cancelled"),
            }
        }
        Ok(())
    }
}

/// What the parts count, and the process itself.
fn metrics(parts: [Arc<dyn metrics::Source>; 5]) -> Metrics {
    let mut metrics = Metrics::default();
    for part in parts {
        metrics.add(part);
    }
    metrics.add(Arc::new(Process::starting_now()));
    metrics
}

/// What surrounds the server in a process of its own.
pub struct Surroundings {
    /// Reads the configuration again, from where it was read.
    pub load: Box<dyn Fn() -> Result<Loaded, load::Error> + Send>,
    /// How much is logged.
    pub verbosity: Verbosity,
}

/// Runs fleetd as configured until SIGTERM or SIGINT. SIGHUP reads the configuration again,
/// SIGUSR1 prints what is held in memory.
///
/// # Errors
/// What keeps fleetd from starting, or from going on.
pub async fn run(config: Config, surroundings: Surroundings) -> Result<(), Error> {
    // First of all: a signal that comes early must not end the process.
    let mut signals = Signals::new()?;
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| config.systemd_user);
    machine::systemd_runs(runtime.as_deref().map(Path::new))?;
    let machine = machine::id(Path::new(machine::ID_FILE))?;
    let (stop, shutdown) = watch::channel(false);
    let leases = LeaseThread::start(config.agent_ttl / KEEPALIVES_PER_TTL)?;
    let (store, etcd) = open_store(&config, &leases)?;
    let listeners = listen::listeners(&config)?;
    info!(%machine, store = store.describe(), "fleetd is this machine's part of the cluster");
    notify::status(&format!("store: {}", store.describe()));
    let manager = Systemd::new(SystemdConfig::from_config(&config));
    let pki = Pki::new(machine.clone(), Some(&config.state_directory));
    // Without it units run on all the same, and the socket is served.
    if let Err(problem) = pki.load(&pki::Files::from_config(&config)) {
        error!(%problem, "the API is not served over TLS: {problem}");
    }
    let deps = Deps {
        machine,
        store,
        manager,
        listeners,
        leases,
        pki,
    };
    let (server, controls, memory) = Server::build(&config, deps);
    let mut controls = Controls {
        etcd,
        verbosity: Some(surroundings.verbosity),
        ..controls
    };
    controls.read_policy();
    info!("Starting server components");
    let mut serving = std::pin::pin!(server.run(shutdown));
    loop {
        let signal = tokio::select! {
            ended = &mut serving => return Ok(ended?),
            signal = signals.next() => signal,
        };
        match signal {
            Signal::Stop => break,
            Signal::Reload => reload(&mut controls, &*surroundings.load),
            Signal::Dump => memory.print(controls.current()),
        }
    }
    info!("Gracefully shutting down: units stay as they are");
    notify::stopping();
    // Nobody listens any more only when everything has ended already.
    let _ = stop.send(true);
    let again = async {
        // A dump or a reload is of no use any more.
        while !matches!(signals.next().await, Signal::Stop) {}
    };
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = again => warn!("told twice to stop: fleetd ends at once; units stay as they are"),
        () = tokio::time::sleep(STOP_WITHIN) => {
            warn!("a part of fleetd did not end in time: fleetd ends without it; units stay as they are");
        }
    }
    Ok(())
}

/// The parts end within two seconds each, side by side, when nothing hangs.
const STOP_WITHIN: Duration = Duration::from_secs(10);

enum Signal {
    Stop,
    Reload,
    Dump,
}

struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    user1: unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            user1: unix::signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Dump,
        }
    }
}

fn reload(controls: &mut Controls, load: &dyn Fn() -> Result<Loaded, load::Error>) {
    notify::reloading();
    let outcome = load()
        .map_err(|problem| problem.to_string())
        .and_then(|loaded| {
            info!("{}", loaded.about_file());
            controls.apply(&loaded).map(|_| ())
        });
    match outcome {
        Ok(()) => info!("the configuration was read again"),
        Err(problem) => error!(
            problem,
            "the configuration was not taken, everything stays as it was: {problem}"
        ),
    }
    notify::ready();
}

type Opened = (Arc<dyn Store>, Option<Arc<EtcdStore>>);

fn open_store(config: &Config, leases: &LeaseThread) -> Result<Opened, Error> {
    let choice = choice::choose(config)?;
    if choice::etcd_answers_unasked(choice) {
        warn!(
            "an etcd listens on 127.0.0.1:2379, and this machine uses its embedded store: to \
             join a cluster write etcd_servers=http://127.0.0.1:2379 in fleet.conf"
        );
    }
    match choice {
        Choice::Etcd => {
            info!("Establishing etcd connectivity");
            let etcd = EtcdStore::with_leases_on(leases, EtcdConfig::from_config(config))?;
            Ok((Arc::clone(&etcd) as _, Some(etcd)))
        }
        Choice::Embedded => {
            let store = EmbeddedStore::open(config.state_directory.join("store.redb"))?;
            Ok((store, None))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use fleet_core::agent::{Observed, Task};
    use fleet_core::name::UnitName;

    use super::*;
    use crate::api::ApiMetrics;
    use crate::store::memory::MemoryStore;
    use crate::units::Changes;

    /// A systemd on which the presence task breaks when it says goodbye.
    struct Broken;

    #[async_trait::async_trait]
    impl UnitManager for Broken {
        fn observe(&self, _: &UnitName) -> Observed {
            Observed::default()
        }

        fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
            BTreeMap::new()
        }

        fn apply(&self, _: Vec<Task>) {}

        fn trouble(&self) -> Option<String> {
            None
        }

        async fn is_shutting_down(&self) -> bool {
            panic!("this task is broken")
        }

        async fn changed(&self) -> Changes {
            std::future::pending().await
        }
    }

    /// A fleetd without presence, or without an agent, would look alive and do nothing.
    #[tokio::test]
    async fn a_panic_of_a_part_is_the_servers() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            run_directory: dir.path().to_owned(),
            state_directory: dir.path().to_owned(),
            ..Config::for_system()
        };
        let machine = MachineId::new("148a18ff6e954cd892dac9de9bb90d5a");
        let deps = Deps {
            machine: machine.clone(),
            store: MemoryStore::new(),
            manager: Arc::new(Broken),
            listeners: Vec::new(),
            leases: LeaseThread::default(),
            pki: Pki::off(),
        };
        let (stop, shutdown) = watch::channel(false);
        let (server, controls, _) = Server::build(&config, deps);
        let mut standing = server.agent.standing();
        let running = tokio::spawn(server.run(shutdown));
        let registered = standing.wait_for(|standing| standing.epoch.is_some());
        registered.await.unwrap();
        stop.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
        let error = ended.expect("it ends").unwrap_err();
        assert!(error.is_panic(), "{error}");
        drop(controls);
    }

    const COMPATIBILITY: &str = include_str!("../../../COMPATIBILITY.md");

    /// The rows of "Metrics" are the families that there are.
    #[test]
    fn every_family_of_metrics_has_its_row_in_the_documents() {
        let metrics = metrics([
            Arc::new(EngineMetrics::default()),
            Arc::new(RoleMetrics(watch::Sender::default().subscribe())),
            Arc::new(AgentMetrics::default()),
            Arc::new(StoreMetrics::default()),
            Arc::new(ApiMetrics::default()),
        ]);
        let families: BTreeSet<String> = metrics.families().into_iter().collect();
        let section = COMPATIBILITY.split("\n## Metrics\n").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows: BTreeSet<String> = section
            .lines()
            .filter_map(|line| {
                let row = line.strip_prefix("| `")?.strip_suffix(" |")?;
                let cells: Vec<&str> = row.split(" | ").collect();
                let [name, kind, _labels, _original, _fleet] = cells[..] else {
                    panic!("five cells: {line}");
                };
                assert!(cells.iter().all(|cell| !cell.is_empty()), "{line}");
                (kind != "-").then(|| format!("{} {kind}", name.trim_end_matches('`')))
            })
            .collect();
        assert_eq!(rows, families);
    }
}
