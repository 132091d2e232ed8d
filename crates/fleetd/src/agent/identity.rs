//! What this machine says of itself, kept current: configuration, address, and whether its
//! machine id is still the one that fleetd was started with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::{MachineId, MachineRecord};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::{AgentConfig, address};
use crate::machine;
use crate::reload;
use crate::shutdown::{Shutdown, stopped};

/// Address and machine id are looked at this often: addresses may come late or change.
const LOOK_EVERY: Duration = Duration::from_secs(60);

pub(crate) struct Identity {
    pub(crate) config: watch::Receiver<AgentConfig>,
    pub(crate) record: Arc<watch::Sender<MachineRecord>>,
    /// The id in the file when it was last told to differ.
    pub(crate) told: Option<MachineId>,
}

impl Identity {
    /// The record as it is published first.
    pub(crate) fn first_record(config: &AgentConfig) -> MachineRecord {
        let mut record = config.record.clone();
        if record.public_ip.is_empty() {
            record.public_ip = find_address().unwrap_or_default();
        }
        record
    }

    pub(crate) async fn run(mut self, mut shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = reload::changed(&mut self.config) => {}
                () = stopped(&mut shutdown) => return,
            }
            self.look(find_address());
        }
    }

    /// Publishes what differs. An address that cannot be found out at present stays.
    fn look(&mut self, found: Option<String>) {
        let config = self.config.borrow_and_update().clone();
        self.record.send_if_modified(|record| {
            let fixed = Some(config.record.public_ip).filter(|ip| !ip.is_empty());
            let address = fixed.or(found).unwrap_or_else(|| record.public_ip.clone());
            if address != record.public_ip {
                info!(
                    from = record.public_ip,
                    to = address,
                    "this machine's address has changed"
                );
            }
            let fresh = MachineRecord {
                public_ip: address,
                // Not configured: the agent's loop says it.
                trouble: record.trouble.clone(),
                remark: record.remark.clone(),
                ..config.record
            };
            let changed = fresh != *record;
            *record = fresh;
            changed
        });
        self.compare_id(&config.machine, &config.machine_id_file);
    }

    /// A machine id that changed under fleetd is not taken: leases, assignments and states are in
    /// the old name.
    fn compare_id(&mut self, machine: &MachineId, file: &Path) {
        let now = machine::id(file).ok().filter(|now| now != machine);
        if now == self.told {
            return;
        }
        if let Some(now) = &now {
            warn!(
                %machine, file = %file.display(), found = %now,
                "the machine id has changed: this fleetd goes on under the old one until it is \
                 restarted (systemctl restart fleet)"
            );
        }
        self.told = now;
    }
}

fn find_address() -> Option<String> {
    address::find().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_wins_and_what_was_found_stays() {
        let dir = tempfile::tempdir().unwrap();
        let config = AgentConfig {
            machine: MachineId::new("148a18ff6e954cd892dac9de9bb90d5a"),
            machine_id_file: dir.path().join("machine-id"),
            ttl: Duration::from_secs(3),
            unsupervised_grace: Duration::from_secs(600),
            run_directory: dir.path().to_owned(),
            record: MachineRecord::default(),
        };
        let trouble = Some("systemd cannot be reached".to_owned());
        let first = MachineRecord {
            public_ip: "10.0.0.1".to_owned(),
            trouble: trouble.clone(),
            remark: None,
            ..MachineRecord::default()
        };
        let (configured, config_rx) = watch::channel(config.clone());
        let (record, mut published) = watch::channel(first);
        let mut identity = Identity {
            config: config_rx,
            record: Arc::new(record),
            told: None,
        };
        // No address at present.
        identity.look(None);
        assert!(!published.has_changed().unwrap());
        identity.look(Some("10.0.0.2".to_owned()));
        assert_eq!(published.borrow_and_update().public_ip, "10.0.0.2");

        let mut changed = config;
        changed.record.public_ip = "192.0.2.7".to_owned();
        changed
            .record
            .metadata
            .insert("a".to_owned(), "b".to_owned());
        configured.send_replace(changed);
        identity.look(Some("10.0.0.2".to_owned()));
        let record = published.borrow_and_update().clone();
        assert_eq!(record.public_ip, "192.0.2.7");
        assert_eq!(record.metadata["a"], "b");
        assert_eq!(record.trouble, trouble, "the agent's word stays");
    }

    #[test]
    fn another_machine_id_is_told_once_and_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine-id");
        let own = MachineId::new("148a18ff6e954cd892dac9de9bb90d5a");
        let other = "f3b1ad0ab2f94fd8a8a1d1b3cf4a9b5c";
        let (record, _) = watch::channel(MachineRecord::default());
        let (_, config) = watch::channel(AgentConfig {
            machine: own.clone(),
            machine_id_file: file.clone(),
            ttl: Duration::from_secs(3),
            unsupervised_grace: Duration::from_secs(600),
            run_directory: dir.path().to_owned(),
            record: MachineRecord::default(),
        });
        let mut identity = Identity {
            config,
            record: Arc::new(record),
            told: None,
        };
        std::fs::write(&file, own.as_str()).unwrap();
        identity.look(None);
        assert_eq!(identity.told, None);
        std::fs::write(&file, other).unwrap();
        identity.look(None);
        assert_eq!(identity.told, Some(MachineId::new(other)));
        assert_eq!(identity.config.borrow().machine, own);
        // Unreadable for a moment, or mended: nothing to say, and a later change is told again.
        std::fs::write(&file, own.as_str()).unwrap();
        identity.look(None);
        assert_eq!(identity.told, None);
    }
}
