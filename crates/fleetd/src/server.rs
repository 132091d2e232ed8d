//! The one place that wires the parts together: store, systemd, agent, engine, API.

use std::path::Path;
use std::sync::Arc;

use fleet_core::records::MachineId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::agent::{Agent, AgentConfig, AgentMetrics};
use crate::api::{self, ApiState};
use crate::config::Config;
use crate::engine::{Engine, EngineConfig, EngineMetrics};
use crate::listen::{self, Listener};
use crate::metrics::{self, Metrics, Process};
use crate::shutdown::Shutdown;
use crate::store::choice::{self, Choice};
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::{EtcdConfig, EtcdStore, TlsFiles};
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
}

/// A fleetd, wired and not yet running.
pub struct Server {
    parts: Parts,
}

struct Parts {
    agent: Agent,
    engine: Option<Engine>,
    state: ApiState,
    listeners: Vec<Listener>,
    insecure: bool,
}

impl Server {
    /// Wires the parts. Nothing runs yet.
    pub fn build(config: &Config, deps: Deps) -> Server {
        let agent_metrics = Arc::new(AgentMetrics::default());
        let engine_metrics = Arc::new(EngineMetrics::default());
        let store_metrics = Arc::new(StoreMetrics::default());
        let store: Arc<dyn Store> = Arc::new(Measured::new(deps.store, Arc::clone(&store_metrics)));
        let state = ApiState::new(
            Arc::clone(&store),
            config.token_limit,
            env!("CARGO_PKG_VERSION"),
        );
        let metrics = metrics([
            Arc::clone(&engine_metrics) as _,
            Arc::clone(&agent_metrics) as _,
            store_metrics,
            state.counters(),
        ]);
        let state = state.with_metrics(Arc::new(move || metrics.render()));
        let agent = Agent::new(
            Arc::clone(&store),
            Arc::clone(&deps.manager),
            AgentConfig::from_config(config, deps.machine.clone()),
            agent_metrics,
        );
        let engine = (!config.disable_engine).then(|| {
            Engine::new(
                Arc::clone(&store),
                EngineConfig::from_config(config, deps.machine.clone()),
                engine_metrics,
            )
        });
        if engine.is_none() {
            info!("Not starting engine; disable-engine is set");
        }
        Server {
            parts: Parts {
                agent,
                engine,
                state,
                listeners: deps.listeners,
                insecure: config.api_insecure,
            },
        }
    }

    /// Runs until told to stop. Units are left as they are.
    pub async fn run(self, shutdown: Shutdown) {
        let Parts {
            agent,
            engine,
            state,
            listeners,
            insecure,
        } = self.parts;
        let router = api::router(state.with_shutdown(shutdown.clone()));
        let mut parts = JoinSet::new();
        // Presence first: after a restart the lease must be renewed before anything else.
        parts.spawn(agent.run(shutdown.clone()));
        if let Some(engine) = engine {
            parts.spawn(engine.run(shutdown.clone()));
        }
        parts.spawn(listen::serve(listeners, router, insecure, shutdown.clone()));
        parts.spawn(notify::watchdog(shutdown));
        notify::ready();
        while let Some(ended) = parts.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a part of fleetd ended by a fault");
            }
        }
    }
}

/// What the parts count, and the process itself.
fn metrics(parts: [Arc<dyn metrics::Source>; 4]) -> Metrics {
    let mut metrics = Metrics::default();
    for part in parts {
        metrics.add(part);
    }
    metrics.add(Arc::new(Process::starting_now()));
    metrics
}

/// Runs fleetd as configured until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), Error> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| config.systemd_user);
    machine::systemd_runs(runtime.as_deref().map(Path::new))?;
    let machine = machine::id(Path::new("/etc/machine-id"))?;
    let (stop, shutdown) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let store = open_store(&config)?;
    let listeners = listen::listeners(&config)?;
    info!(%machine, store = store.describe(), "fleetd is this machine's part of the cluster");
    notify::status(&format!("store: {}", store.describe()));
    let manager = Systemd::new(SystemdConfig::from_config(&config));
    let deps = Deps {
        machine,
        store,
        manager,
        listeners,
    };
    let server = Server::build(&config, deps);
    let serving = server.run(shutdown);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return Ok(()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping: units stay as they are");
    notify::stopping();
    // Nobody listens any more only when everything has ended already.
    let _ = stop.send(true);
    serving.await;
    Ok(())
}

fn open_store(config: &Config) -> Result<Arc<dyn Store>, Error> {
    let choice = choice::choose(config)?;
    if choice::etcd_answers_unasked(choice) {
        warn!(
            "an etcd listens on 127.0.0.1:2379, and this machine uses its embedded store: to \
             join a cluster write etcd_servers=http://127.0.0.1:2379 in fleet.conf"
        );
    }
    match choice {
        Choice::Etcd => Ok(EtcdStore::new(etcd_config(config))?),
        Choice::Embedded => Ok(EmbeddedStore::open(
            config.state_directory.join("store.redb"),
        )?),
    }
}

fn etcd_config(config: &Config) -> EtcdConfig {
    EtcdConfig {
        endpoints: config.etcd_servers.clone(),
        username: config.etcd_username.clone(),
        password: config.etcd_password.clone(),
        tls: TlsFiles {
            ca: config.etcd_cafile.clone(),
            certificate: config.etcd_certfile.clone(),
            key: config.etcd_keyfile.clone(),
        },
        prefix: config.etcd_key_prefix.clone(),
        request_timeout: config.etcd_request_timeout,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::ApiMetrics;

    const COMPATIBILITY: &str = include_str!("../../../COMPATIBILITY.md");

    /// The rows of "Metrics" are the families that there are.
    #[test]
    fn every_family_of_metrics_has_its_row_in_the_documents() {
        let metrics = metrics([
            Arc::new(EngineMetrics::default()),
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
