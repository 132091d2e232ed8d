//! SIGUSR1: what fleetd holds in memory, as one line on stdout.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::dump::{self, Dump};
use fleet_core::records::MachineId;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::agent::{Question, Standing};
use crate::config::Config;
use crate::config::keys::KEYS;
use crate::engine::{ENGINE_VERSION, EngineStatus, Role};
use crate::store::Store;

/// The agent may be waiting for its store: so long it is given to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where the parts are asked.
#[derive(Clone)]
pub struct Memory {
    pub(crate) machine: MachineId,
    pub(crate) agent: mpsc::Sender<Question>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) engine: watch::Receiver<EngineStatus>,
    pub(crate) store: Arc<dyn Store>,
}

impl Memory {
    /// Prints what there is, in the background.
    pub(crate) fn print(&self, config: &Config) {
        let (memory, config) = (self.clone(), config.clone());
        tokio::spawn(async move {
            let line = memory.dump(&config).await.to_line();
            // Whoever reads stdout may be slow.
            let printed = tokio::task::spawn_blocking(move || {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&line).and_then(|()| stdout.flush())
            });
            if let Ok(Err(error)) = printed.await {
                warn!(%error, "what fleetd holds in memory could not be printed");
            }
        });
    }

    /// What there is.
    pub async fn dump(&self, config: &Config) -> Dump {
        let memory = tokio::time::timeout(ANSWER_WITHIN, self.ask()).await;
        let memory = memory.ok().flatten();
        let answered = memory.is_some();
        let memory = memory.unwrap_or_default();
        let standing = *self.standing.borrow();
        let engine = self.engine.borrow().clone();
        Dump {
            agent: dump::Agent {
                cache: dump::AgentCache {
                    target_states: memory.target_states,
                },
                answered,
            },
            publisher: memory.publisher,
            generator: dump::Generator {
                subscribed: memory.subscribed,
            },
            presence: dump::Presence {
                machine_id: self.machine.as_str().to_owned(),
                epoch: standing.epoch,
                certain: standing.is_certain(),
            },
            engine: dump::Engine {
                role: engine.role.as_str(),
                leader: engine.leader.map(|leader| leader.as_str().to_owned()),
                fence: match engine.role {
                    Role::Leading { fence } => Some(fence),
                    _ => None,
                },
                version: ENGINE_VERSION,
            },
            store: dump::Store {
                description: self.store.describe(),
            },
            config: KEYS
                .iter()
                .map(|key| (key.name, key.shown(config)))
                .collect(),
        }
    }

    async fn ask(&self) -> Option<crate::agent::Memory> {
        let (question, answer) = oneshot::channel();
        self.agent.send(question).await.ok()?;
        answer.await.ok()
    }
}
