//! The engine: decides where units run, on the one machine that leads.
//!
//! Every machine's engine campaigns for leadership and, while another one has it, watches the
//! leader's key and nothing else. The leader holds the whole cluster in memory, fed by one
//! snapshot and one watch; each batch of changes is planned by fleet-core and written in
//! transactions that compare the leader key, so that a deposed leader writes nothing.
//!
//! A plan is applied to the model as it is made. When a write of it fails, or its outcome is not
//! known, the model is thrown away and read anew: what the store holds is the truth.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::MachineId;
use tokio::sync::watch;
use tracing::{info, warn};

mod commit;
mod compact;
mod farewell;
mod graves;
mod intake;
mod intern;
mod leader;
mod leadership;
mod log;
mod metrics;
mod old_rings;

#[cfg(test)]
mod tests;

pub use metrics::{EngineMetrics, RoleMetrics};

use crate::agent::{KEEPALIVES_PER_TTL, Standing};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::lease_thread::LeaseThread;
use crate::reload;
use crate::shutdown::{Shutdown, stopped};
use crate::store::{Error, Revision, Store};
#[cfg(fleet_sim)]
pub(crate) use intake::Intake;
use leadership::{Campaign, Leadership};

/// The leader's lease. A leader that dies is replaced when it ends; one that is stopped in order
/// gives it back, and one that is started again on its machine takes it at once.
const LEADER_TTL: Duration = Duration::from_secs(3);

/// etcd looks for leases that have ended this often.
const EXPIRY_EVERY: Duration = Duration::from_millis(500);

/// The version of what engines decide. It is raised when an older engine must not lead beside or
/// after this one; see ARCHITECTURE.md.
pub const ENGINE_VERSION: u32 = 1;

/// What the engine is told; all but the machine may change while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// Who this machine is.
    pub machine: MachineId,
    /// [`ENGINE_VERSION`], but in tests of mixed clusters.
    pub version: u32,
    /// Whether it may lead.
    pub enabled: bool,
    /// From suspect to lost, in monotonic time.
    pub lost_after: Duration,
    /// From an orderly stop of fleetd until its machine is given up.
    pub unsupervised_grace: Duration,
    /// The share of the machines, in percent, that may vanish at once.
    pub freeze_share: u32,
    /// How long nothing is moved when more vanish.
    pub freeze_for: Duration,
    /// How far apart the leases of machines end that vanish at the same time.
    pub spread: Duration,
    /// Look at everything again this often though nothing happened; None: never.
    pub safety_tick: Option<Duration>,
}

impl EngineConfig {
    /// The engine's part of the configuration.
    pub fn from_config(config: &Config, machine: MachineId) -> EngineConfig {
        EngineConfig {
            machine,
            version: ENGINE_VERSION,
            enabled: !config.disable_engine,
            lost_after: config.lost_after,
            unsupervised_grace: config.unsupervised_grace,
            freeze_share: config.freeze_share,
            freeze_for: config.freeze_for,
            spread: config.agent_ttl / KEEPALIVES_PER_TTL + EXPIRY_EVERY,
            safety_tick: (!config.disable_safety_ticks).then_some(config.engine_reconcile_interval),
        }
    }
}

/// What an engine is at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Not allowed to lead (`disable_engine`).
    Disabled,
    /// About to find out who leads.
    #[default]
    Candidate,
    /// Another one leads.
    Following,
    /// It leads.
    Leading {
        /// The fence of what it writes.
        fence: Revision,
    },
    /// A higher version has led this cluster.
    TooOld {
        /// That version.
        cluster: u32,
    },
}

impl Role {
    /// The word in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Disabled => "disabled",
            Role::Candidate => "candidate",
            Role::Following => "following",
            Role::Leading { .. } => "leading",
            Role::TooOld { .. } => "too old",
        }
    }
}

/// What an engine is, and who leads as far as it knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EngineStatus {
    /// What it is.
    pub role: Role,
    /// Who leads.
    pub leader: Option<MachineId>,
}

/// The engine, not yet running.
pub struct Engine {
    store: Arc<dyn Store>,
    config: watch::Receiver<EngineConfig>,
    metrics: Arc<EngineMetrics>,
    status: watch::Sender<EngineStatus>,
    standing: Option<watch::Receiver<Standing>>,
    leases: LeaseThread,
}

impl Engine {
    /// An engine over a store.
    pub fn new(
        store: Arc<dyn Store>,
        config: watch::Receiver<EngineConfig>,
        metrics: Arc<EngineMetrics>,
    ) -> Engine {
        Engine {
            store,
            config,
            metrics,
            status: watch::Sender::default(),
            standing: None,
            leases: LeaseThread::default(),
        }
    }

    /// Leadership is kept on that thread.
    pub(crate) fn with_leases_on(self, leases: LeaseThread) -> Engine {
        Engine { leases, ..self }
    }

    /// Campaigns only while this machine is registered: a clone of a machine must not take
    /// leadership for its own.
    pub(crate) fn while_registered(self, standing: watch::Receiver<Standing>) -> Engine {
        Engine {
            standing: Some(standing),
            ..self
        }
    }

    /// As fleetd's server wires it.
    #[cfg(fleet_sim)]
    pub fn beside(self, agent: &crate::agent::Agent) -> Engine {
        self.while_registered(agent.standing())
    }

    /// What it is.
    pub fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.subscribe()
    }

    /// Campaigns, leads, and campaigns again, until told to stop; then sees its machine off, and gives
    /// leadership back.
    pub async fn run(mut self, shutdown: Shutdown) {
        let farewell = self.run_until_stopped(shutdown.clone()).await;
        if farewell == Farewell::Noted {
            return;
        }
        farewell::said(self.standing.clone(), shutdown).await;
        let config = self.config.borrow().clone();
        farewell::see_off(&self.candidate(&config), config.enabled).await;
    }

    async fn run_until_stopped(&mut self, mut shutdown: Shutdown) -> Farewell {
        let mut backoff = Backoff::new();
        let mut changes = self.config.clone();
        loop {
            let config = changes.borrow_and_update().clone();
            if !config.enabled {
                info!("Not starting engine; disable-engine is set");
                self.become_role(Role::Disabled, None);
                tokio::select! {
                    () = reload::changed(&mut changes) => continue,
                    () = stopped(&mut shutdown) => return Farewell::Open,
                }
            }
            let won = tokio::select! {
                won = self.campaign(&config) => won,
                () = reload::changed(&mut changes) => continue,
                () = stopped(&mut shutdown) => return Farewell::Open,
            };
            let leadership = match won {
                Ok(leadership) => leadership,
                Err(error) => {
                    warn!(%error, "the engine cannot campaign; trying again");
                    tokio::select! {
                        () = backoff.pause() => continue,
                        () = stopped(&mut shutdown) => return Farewell::Open,
                    }
                }
            };
            backoff = Backoff::new();
            let fence = leadership.fence();
            info!(machine = %config.machine, fence, "Engine leadership acquired");
            self.become_role(Role::Leading { fence }, Some(config.machine.clone()));
            let stop = tokio::select! {
                // A leader that stops sees its own machine off, and whoever leaves with it.
                () = farewell::said(self.standing.clone(), shutdown.clone()) => true,
                () = leader::lead(&self.store, &self.config, &self.metrics, &leadership) => false,
                () = leadership.lost() => false,
                () = disabled(&mut changes) => {
                    info!("giving leadership back: disable_engine is set");
                    leadership.resign().await;
                    continue;
                }
            };
            self.become_role(Role::Candidate, None);
            if stop {
                let noted = farewell::note(&self.store, &leadership, &config.machine).await;
                leadership.resign().await;
                return noted;
            }
            leadership.resign().await;
            if *shutdown.borrow() {
                return Farewell::Open;
            }
            warn!("Engine leadership lost");
            // Others may lead at once; whoever takes leadership from each other does so in peace.
            tokio::select! {
                () = backoff.pause() => {}
                () = stopped(&mut shutdown) => return Farewell::Open,
            }
        }
    }

    async fn campaign(&mut self, config: &EngineConfig) -> Result<Leadership, Error> {
        if let Some(standing) = &mut self.standing {
            // The sender ends with the agent, and then there is nothing to lead for.
            if standing
                .wait_for(|standing| standing.epoch.is_some())
                .await
                .is_err()
            {
                std::future::pending::<()>().await;
            }
        }
        self.candidate(config).win().await
    }

    fn candidate<'a>(&'a self, config: &'a EngineConfig) -> Campaign<'a> {
        Campaign {
            store: &self.store,
            machine: &config.machine,
            version: config.version,
            ttl: LEADER_TTL,
            status: &self.status,
            leases: &self.leases,
        }
    }

    fn become_role(&self, role: Role, leader: Option<MachineId>) {
        self.metrics.leading(matches!(role, Role::Leading { .. }));
        self.status.send_replace(EngineStatus { role, leader });
    }
}

/// Whether it is written down that this machine's fleetd stops in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Farewell {
    /// As far as it could be.
    Noted,
    /// It is still to be seen to.
    Open,
}

/// Waits until leading is forbidden.
async fn disabled(config: &mut watch::Receiver<EngineConfig>) {
    if config.wait_for(|config| !config.enabled).await.is_err() {
        std::future::pending::<()>().await;
    }
}
