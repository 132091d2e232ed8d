//! The agent: makes this machine's systemd match what the cluster assigned to it.
//!
//! Three tasks of their own: [`presence`] says that the machine is there, [`identity`] who it is, and
//! the [`worker`] follows its assignments. Stopping the agent leaves every unit as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::dump;
use fleet_core::records::{MachineId, MachineRecord};
use tokio::sync::{Notify, mpsc, oneshot, watch};

mod address;
mod hold;
mod identity;
mod leaving;
mod metrics;
mod presence;
mod publisher;
mod runfile;
mod worker;

pub use metrics::AgentMetrics;
pub use presence::Duplicate;

use crate::access::Trust;
use crate::config::Config;
use crate::lease_thread::LeaseThread;
use crate::machine;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::store::codec::FORMAT;
use crate::units::UnitManager;
use identity::Identity;
use leaving::Leaving;
use presence::Presence;
pub(crate) use presence::{Fence, KEEPALIVES_PER_TTL, Standing};
use worker::{Parts, Worker};

/// What the agent is told; `ttl` and `record` may change while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentConfig {
    /// Who this machine is.
    pub machine: MachineId,
    /// Where that is written.
    pub machine_id_file: PathBuf,
    /// How long presence outlives the last keepalive.
    pub ttl: Duration,
    /// How long the cluster leaves this machine's units here when fleetd is stopped in order.
    pub unsupervised_grace: Duration,
    /// Where what ends with the boot is kept.
    pub run_directory: PathBuf,
    /// What to publish of this machine; an empty address is found out.
    pub record: MachineRecord,
}

impl AgentConfig {
    /// The agent's part of the configuration.
    pub fn from_config(config: &Config, machine: MachineId) -> AgentConfig {
        AgentConfig {
            machine,
            machine_id_file: PathBuf::from(machine::ID_FILE),
            ttl: config.agent_ttl,
            unsupervised_grace: config.unsupervised_grace,
            run_directory: config.run_directory.clone(),
            record: MachineRecord {
                boot_id: boot_id(),
                public_ip: config.public_ip.clone().unwrap_or_default(),
                api: String::new(),
                metadata: config.metadata.clone(),
                version: crate::VERSION.to_owned(),
                format: FORMAT,
                disable_engine: config.disable_engine,
                trouble: None,
                remark: None,
            },
        }
    }
}

impl AgentConfig {
    /// As of a machine whose API others reach there; empty: nowhere.
    pub(crate) fn served_at(mut self, api: &str) -> AgentConfig {
        api.clone_into(&mut self.record.api);
        self
    }
}

/// The kernel's boot id; empty where there is none (no /proc).
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Containers share the kernel's: with their process namespace, and the start of its first
    // process, it is their own.
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let namespace: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let init = std::fs::read_to_string("/proc/1/stat").unwrap_or_default();
    let started = init
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(19));
    format!("{}-{namespace}-{}", text.trim(), started.unwrap_or("0"))
}

/// The agent, not yet running.
pub struct Agent {
    store: Arc<dyn Store>,
    manager: Arc<dyn UnitManager>,
    config: watch::Receiver<AgentConfig>,
    metrics: Arc<AgentMetrics>,
    standing: watch::Sender<Standing>,
    ask: mpsc::Sender<Question>,
    asked: mpsc::Receiver<Question>,
    leases: LeaseThread,
    trust: watch::Receiver<Arc<Trust>>,
}

/// Asks the agent what it holds in memory.
pub(crate) type Question = oneshot::Sender<Memory>;

/// People ask one by one.
const MAX_QUESTIONS: usize = 4;

/// What the agent holds in memory, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) target_states: BTreeMap<String, &'static str>,
    pub(crate) publisher: dump::Publisher,
    pub(crate) subscribed: Vec<String>,
}

impl Agent {
    /// An agent over a store and a systemd.
    pub fn new(
        store: Arc<dyn Store>,
        manager: Arc<dyn UnitManager>,
        config: watch::Receiver<AgentConfig>,
        metrics: Arc<AgentMetrics>,
    ) -> Agent {
        let (ask, asked) = mpsc::channel(MAX_QUESTIONS);
        Agent {
            store,
            manager,
            config,
            metrics,
            standing: watch::Sender::default(),
            ask,
            asked,
            leases: LeaseThread::default(),
            trust: watch::Sender::default().subscribe(),
        }
    }

    /// Only unit files that are taken by this are written and started.
    pub(crate) fn trusting(self, trust: watch::Receiver<Arc<Trust>>) -> Agent {
        Agent { trust, ..self }
    }

    /// Presence is kept on that thread.
    pub(crate) fn with_leases_on(self, leases: LeaseThread) -> Agent {
        Agent { leases, ..self }
    }

    /// Where the agent is asked what it holds in memory.
    pub(crate) fn memory(&self) -> mpsc::Sender<Question> {
        self.ask.clone()
    }

    /// How this machine's presence stands.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Runs until told to stop, or until another machine turns out to have this one's id. Units
    /// stay as they are.
    ///
    /// # Errors
    /// The other machine.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Duplicate> {
        let config = self.config.borrow().clone();
        let mut record = Identity::first_record(&config);
        record.trouble = leaving::trouble_of(&*self.manager);
        let record = Arc::new(watch::Sender::new(record));
        let standing = self.standing.subscribe();
        let renew = Arc::new(Notify::new());
        let presence = Presence {
            store: Arc::clone(&self.store),
            machine: config.machine.clone(),
            config: self.config.clone(),
            file: config.run_directory.join(presence::FILE),
            record: record.subscribe(),
            standing: self.standing,
            renew: Arc::clone(&renew),
            registered: None,
            manager: Arc::clone(&self.manager),
            beat: self.leases.beat(),
        };
        // It stays until the last word is said, which its fence lets in.
        let (leave, left) = watch::channel(false);
        let mut presence = self.leases.spawn(presence.run(left));
        let identity = Identity {
            config: self.config.clone(),
            record: Arc::clone(&record),
            told: None,
        };
        let identity = identity.run(shutdown.clone());
        let leaving = Leaving {
            store: Arc::clone(&self.store),
            manager: Arc::clone(&self.manager),
            machine: config.machine.clone(),
            record: Arc::clone(&record),
        };
        let leaving = leaving.run(shutdown.clone());
        let worker = Worker::new(Parts {
            store: self.store,
            manager: self.manager,
            config: self.config,
            metrics: self.metrics,
            record,
            standing,
            renew,
            asked: self.asked,
            trust: self.trust,
        });
        let mut work = std::pin::pin!(async move {
            tokio::join!(worker.run(shutdown), identity, leaving);
            leave.send_replace(true);
        });
        tokio::select! {
            () = &mut work => {
                // It ends by the same signal.
                presence.await.unwrap_or_else(passed_on)
            }
            ended = &mut presence => match ended.unwrap_or_else(passed_on) {
                Err(duplicate) => Err(duplicate),
                Ok(()) => {
                    work.await;
                    Ok(())
                }
            },
        }
    }
}

/// An agent without presence is none: its panic is the agent's. Otherwise it was cancelled.
fn passed_on(error: tokio::task::JoinError) -> Result<(), Duplicate> {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
    Ok(())
}
