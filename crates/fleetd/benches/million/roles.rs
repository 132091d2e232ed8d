//! The two programs beside etcd: the fleetd that leads, and the agents of all other machines.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use fleetd::agent::{Agent, AgentConfig, AgentMetrics};
use fleetd::config::Config;
use fleetd::lease_thread::LeaseThread;
use fleetd::listen::Listener;
use fleetd::pki::Pki;
use fleetd::server::{Deps, Server};
use fleetd::store::Store;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::etcd::store_at;
use crate::scripted::{AtOnce, Counting, Said};
use crate::units::{machine, metadata};

/// Keepalives of five thousand machines are not what is measured: the first comes after a third of
/// this. All agents share one connection here, and a keepalive that is late cuts the watches of all.
const TTL: Duration = Duration::from_secs(3_600);
/// The agents join in groups of so many, as machines would not all boot in the same instant.
const JOIN_TOGETHER: usize = 100;
/// A line for each change would cost more than the change.
const TELL_EVERY: Duration = Duration::from_millis(5);

fn config(directory: &Path, number: usize) -> Config {
    Config {
        public_ip: Some("127.0.0.1".to_owned()),
        metadata: metadata(number),
        agent_ttl: TTL,
        run_directory: directory.to_owned(),
        state_directory: directory.to_owned(),
        ..Config::for_system()
    }
}

/// A fleetd with a scripted systemd, which leads because no other machine may. Runs until it is
/// ended.
pub(crate) fn leader(url: &str, directory: &Path, number: usize) -> Result<()> {
    // As fleetd's own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = tokio::net::UnixListener::bind(directory.join("fleet.sock"))?;
        let deps = Deps {
            machine: machine(number),
            store: store_at(url)?,
            manager: Arc::new(AtOnce::default()),
            listeners: vec![Listener::Unix(socket)],
            leases: LeaseThread::default(),
            pki: Pki::off(),
        };
        let (_stop, shutdown) = watch::channel(false);
        let (server, _controls, _) = Server::build(&config(directory, number), deps);
        server.run(shutdown).await?;
        Ok(())
    })
}

struct Machine {
    agent: JoinHandle<()>,
    manager: Arc<AtOnce>,
    store: Arc<Counting>,
    _stop: watch::Sender<bool>,
    _config: watch::Sender<AgentConfig>,
}

impl Machine {
    fn boot(
        store: Arc<dyn Store>,
        said: &Arc<Said>,
        directory: &Path,
        number: usize,
    ) -> Result<Machine> {
        let directory = directory.join(format!("machine-{number}"));
        std::fs::create_dir(&directory)?;
        let manager = Arc::new(AtOnce::default());
        let store = Arc::new(Counting {
            store,
            said: Arc::clone(said),
            lease: Mutex::new(None),
            is_lost: AtomicBool::new(false),
        });
        let config = AgentConfig::from_config(&config(&directory, number), machine(number));
        let config = watch::Sender::new(config);
        let agent = Agent::new(
            Arc::clone(&store) as _,
            Arc::clone(&manager) as _,
            config.subscribe(),
            Arc::new(AgentMetrics::default()),
        );
        let (stop, shutdown) = watch::channel(false);
        let agent = tokio::spawn(async move {
            agent
                .run(shutdown)
                .await
                .expect("each machine has an id of its own");
        });
        Ok(Machine {
            agent,
            manager,
            store,
            _stop: stop,
            _config: config,
        })
    }

    /// As if its power were cut and its lease had ended.
    async fn lose(&self) -> Result<()> {
        self.store.is_lost.store(true, Ordering::Relaxed);
        self.agent.abort();
        let lease = *self.store.lease.lock().expect("nobody panics");
        let store = &self.store.store;
        store.revoke(lease.context("it has no lease")?).await?;
        Ok(())
    }
}

/// The agents of many machines. Says how many are there, and how many units run, whenever that has
/// changed; its number on the standard input takes a machine away.
pub(crate) fn agents(url: &str, directory: &Path, count: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store: Arc<dyn Store> = store_at(url)?;
        let said = Arc::new(Said::default());
        let mut machines = Vec::with_capacity(count);
        while machines.len() < count {
            let together = JOIN_TOGETHER.min(count - machines.len());
            for _ in 0..together {
                let store = Arc::clone(&store);
                machines.push(Machine::boot(store, &said, directory, machines.len())?);
            }
            while said.present.load(Ordering::Relaxed) < machines.len() {
                said.changed.notified().await;
            }
        }
        println_now("present", machines.len());
        let mut orders = orders();
        loop {
            tokio::select! {
                () = said.changed.notified() => {
                    println_now("launched", said.launched.load(Ordering::Relaxed));
                    tokio::time::sleep(TELL_EVERY).await;
                }
                order = orders.recv() => {
                    let Some(number) = order else { return Ok(()) };
                    println_now("lost", machines[number].manager.n_running());
                    machines[number].lose().await?;
                }
            }
        }
    })
}

/// Numbers on the standard input, until it ends.
fn orders() -> mpsc::Receiver<usize> {
    let (tell, told) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let number = line.ok().and_then(|line| line.parse().ok());
            let Some(number) = number else { return };
            if tell.blocking_send(number).is_err() {
                return;
            }
        }
    });
    told
}

#[expect(clippy::print_stdout, reason = "its parent reads it")]
fn println_now(what: &str, count: usize) {
    println!("{what} {count}");
    // Whoever read it may have gone.
    let _ = std::io::stdout().flush();
}
