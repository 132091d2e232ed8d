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
use tracing::{info, warn};

mod commit;
mod compact;
mod intake;
mod intern;
mod leader;
mod leadership;
mod metrics;

#[cfg(test)]
mod tests;

pub use metrics::EngineMetrics;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::shutdown::{Shutdown, stopped};
use crate::store::Store;
use leadership::Leadership;

/// The leader's lease. A leader that dies is replaced when it ends; one that is stopped in order
/// gives it back, and one that is started again on its machine takes it at once.
const LEADER_TTL: Duration = Duration::from_secs(3);

/// What the engine is told at its start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Who this machine is.
    pub machine: MachineId,
    /// From suspect to lost, in monotonic time.
    pub lost_after: Duration,
    /// Look at everything again this often though nothing happened; None: never.
    pub safety_tick: Option<Duration>,
}

impl EngineConfig {
    /// The engine's part of the configuration.
    pub fn from_config(config: &Config, machine: MachineId) -> EngineConfig {
        EngineConfig {
            machine,
            lost_after: config.lost_after,
            safety_tick: (!config.disable_safety_ticks).then_some(config.engine_reconcile_interval),
        }
    }
}

/// The engine, not yet running.
pub struct Engine {
    store: Arc<dyn Store>,
    config: EngineConfig,
    metrics: Arc<EngineMetrics>,
}

impl Engine {
    /// An engine over a store.
    pub fn new(store: Arc<dyn Store>, config: EngineConfig, metrics: Arc<EngineMetrics>) -> Engine {
        Engine {
            store,
            config,
            metrics,
        }
    }

    /// Campaigns, leads, and campaigns again, until told to stop; then gives leadership back.
    pub async fn run(self, mut shutdown: Shutdown) {
        let mut backoff = Backoff::new();
        loop {
            let campaign = Leadership::campaign(&self.store, &self.config.machine, LEADER_TTL);
            let won = tokio::select! {
                won = campaign => won,
                () = stopped(&mut shutdown) => return,
            };
            let leadership = match won {
                Ok(leadership) => leadership,
                Err(error) => {
                    warn!(%error, "the engine cannot campaign; trying again");
                    tokio::select! {
                        () = backoff.pause() => continue,
                        () = stopped(&mut shutdown) => return,
                    }
                }
            };
            backoff = Backoff::new();
            info!(machine = %self.config.machine, fence = leadership.fence(), "Engine leadership acquired");
            self.metrics.leading(true);
            let stop = tokio::select! {
                () = leader::lead(&self.store, &self.config, &self.metrics, &leadership) => false,
                () = leadership.lost() => false,
                () = stopped(&mut shutdown) => true,
            };
            self.metrics.leading(false);
            if stop {
                leadership.resign().await;
                return;
            }
            warn!("Engine leadership lost");
            leadership.resign().await;
        }
    }
}
