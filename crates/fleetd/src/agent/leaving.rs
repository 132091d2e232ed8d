//! The machine is about to shut down, and waits for its units to have gone.
//!
//! The cluster is told at once; its leader moves each unit, active elsewhere before it is stopped
//! here. When all have left that can leave, or the time is over, the shutdown is let go on. A
//! shutdown that is called off returns the machine to service.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::name::UnitName;
use fleet_core::records::{AssignmentRecord, MachineId, MachineRecord, Order, PlacementRecord};
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::UnitFile;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::Document;
use crate::store::{Entry, Error, Range, Revision, Store, keys};
use crate::units::UnitManager;

/// Longer than this no shutdown waits, whatever logind would allow: somebody stands beside it.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often it is looked whether all have left. Short beside logind's five seconds, and done
/// only while the machine goes down.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Placements read in one request.
const KEYS_AT_ONCE: usize = 100;

pub(super) struct Leaving {
    pub(super) store: Arc<dyn Store>,
    pub(super) manager: Arc<dyn UnitManager>,
    pub(super) machine: MachineId,
    pub(super) record: Arc<watch::Sender<MachineRecord>>,
}

/// What the machine says of its trouble.
pub(super) fn trouble_of(manager: &dyn UnitManager) -> Option<String> {
    match *manager.shutdown().borrow() {
        Some(_) => Some(MachineRecord::SHUTTING_DOWN.to_owned()),
        None => manager.trouble(),
    }
}

impl Leaving {
    pub(super) async fn run(self, mut shutdown: Shutdown) {
        tokio::select! {
            () = self.follow() => {}
            () = stopped(&mut shutdown) => {}
        }
    }

    async fn follow(&self) {
        let mut announced = self.manager.shutdown();
        // It may have been announced to the fleetd before.
        announced.mark_changed();
        while announced.changed().await.is_ok() {
            let limit = *announced.borrow_and_update();
            let trouble = trouble_of(&*self.manager);
            self.record.send_if_modified(|record| {
                let changed = record.trouble != trouble;
                record.trouble = trouble;
                changed
            });
            let Some(limit) = limit else { continue };
            info!(
                ?limit,
                "this machine is about to shut down: its units move first"
            );
            tokio::select! {
                left = tokio::time::timeout(limit.min(MAX_WAIT), self.wait_until_empty()) => {
                    match left {
                        Ok(()) => info!("all units have left that can leave: the shutdown goes on"),
                        Err(_) => warn!(
                            "the shutdown goes on, though not all units have left: more time is \
                             InhibitDelayMaxSec= in logind.conf"
                        ),
                    }
                    self.manager.let_shutdown_go_on();
                }
                // Called off.
                _ = announced.changed() => announced.mark_changed(),
            }
        }
        // Nobody announces anything any more.
        std::future::pending().await
    }

    async fn wait_until_empty(&self) {
        let begun = Instant::now();
        loop {
            match self.n_leaving().await {
                Ok(0) => return,
                Ok(n) => debug!(n, "units are still leaving"),
                Err(error) => debug!(%error, "it is not known who is still here"),
            }
            // On a grid, so that a slow store is not asked more often than it answers.
            let rounds = begun.elapsed().as_millis() / LOOK_EVERY.as_millis() + 1;
            let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
            tokio::time::sleep_until(begun + LOOK_EVERY * rounds).await;
        }
    }

    /// How many units are here that may yet leave.
    async fn n_leaving(&self) -> Result<usize, Error> {
        let me = keys::machine(self.machine.as_str());
        let presence = self.store.read_keys(std::slice::from_ref(&me)).await?;
        let told_at = presence.entries.iter().find_map(|entry| {
            let record = MachineRecord::decode(&entry.key, &entry.value).ok()?;
            record.is_shutting_down().then_some(entry.mod_revision)
        });
        let assigned = self
            .store
            .read(Range {
                prefix: keys::assignments_of(self.machine.as_str()),
                ..Range::default()
            })
            .await?;
        let here: Vec<Here> = assigned.entries.iter().filter_map(here).collect();
        let Some(told_at) = told_at else {
            return Ok(here.len().max(1));
        };
        let stopping = here.iter().filter(|unit| unit.is_stopping).count();
        let placed: Vec<String> = here
            .iter()
            .filter(|unit| !unit.is_stopping)
            .map(|unit| keys::placement(unit.name.as_str()))
            .collect();
        let mut n = stopping;
        for placements in placed.chunks(KEYS_AT_ONCE) {
            let read = self.store.read_keys(placements).await?;
            let stuck = |entry: &&Entry| self.is_stuck(entry, told_at);
            n += placements.len() - read.entries.iter().filter(stuck).count();
        }
        Ok(n)
    }

    /// The leader has looked at the unit since it was told, and leaves it here.
    fn is_stuck(&self, entry: &Entry, told_at: Revision) -> bool {
        entry.mod_revision > told_at
            && PlacementRecord::decode(&entry.key, &entry.value).is_ok_and(|placement| {
                placement.machine.as_ref() == Some(&self.machine) && placement.leaving.is_none()
            })
    }
}

/// A unit that is to leave.
struct Here {
    name: UnitName,
    is_stopping: bool,
}

/// Global units are here because the machine is; and a record that cannot be read moves nothing.
fn here(entry: &Entry) -> Option<Here> {
    let keys::Key::Assignment(_, name) = keys::parse(&entry.key) else {
        return None;
    };
    let name = UnitName::parse(name).ok()?;
    let assignment = AssignmentRecord::decode(&entry.key, &entry.value).ok()?;
    let is_stopping = assignment.order == Order::Gone;
    let file = UnitFile::parse(assignment.text.as_bytes()).ok()?;
    let (requirements, _) = Requirements::parse(&file, Some(&name));
    (is_stopping || !requirements.global).then_some(Here { name, is_stopping })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use fleet_core::agent::{Observed, Task};
    use fleet_core::hash::UnitHash;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Op, Txn};
    use crate::units::Changes;

    const MACHINE: &str = "148a18ff6e954cd892dac9de9bb90d5a";
    const OTHER: &str = "491586a6508f4583a71dbfc4d146e996";

    /// A logind whose shutdowns are announced by a test.
    struct Announcer {
        announced: watch::Sender<Option<Duration>>,
        goes_on: AtomicBool,
    }

    #[async_trait]
    impl UnitManager for Announcer {
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
            false
        }

        fn shutdown(&self) -> watch::Receiver<Option<Duration>> {
            self.announced.subscribe()
        }

        fn let_shutdown_go_on(&self) {
            self.goes_on.store(true, Ordering::Relaxed);
        }

        async fn changed(&self) -> Changes {
            std::future::pending().await
        }
    }

    struct Rig {
        store: Arc<MemoryStore>,
        logind: Arc<Announcer>,
        record: watch::Receiver<MachineRecord>,
        _stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Rig {
        /// A machine with an ordinary and a global unit.
        async fn new() -> Rig {
            let store = MemoryStore::new();
            let logind = Arc::new(Announcer {
                announced: watch::Sender::new(None),
                goes_on: AtomicBool::new(false),
            });
            let record = Arc::new(watch::Sender::new(MachineRecord::default()));
            let (stop, shutdown) = watch::channel(false);
            let leaving = Leaving {
                store: Arc::clone(&store) as _,
                manager: Arc::clone(&logind) as _,
                machine: MachineId::new(MACHINE),
                record: Arc::clone(&record),
            };
            let rig = Rig {
                store,
                logind,
                record: record.subscribe(),
                _stop: stop,
                task: tokio::spawn(leaving.run(shutdown)),
            };
            rig.assign("web.service", Order::Launched, "").await;
            let global = "[X-Fleet]\nGlobal=true\n";
            rig.assign("log.service", Order::Launched, global).await;
            rig
        }

        async fn put(&self, key: String, value: Vec<u8>) {
            let op = Op::Put {
                key,
                value,
                lease: None,
            };
            let txn = Txn {
                compares: Vec::new(),
                ops: vec![op],
            };
            self.store.commit(txn).await.unwrap();
        }

        async fn assign(&self, unit: &str, order: Order, text: &str) {
            let record = AssignmentRecord {
                text: text.into(),
                hash: UnitHash::of(text.as_bytes()),
                decision: Default::default(),
                order,
                restarts: 0,
                reason: "it was asked for".to_owned(),
            };
            let key = keys::assignment(MACHINE, unit);
            self.put(key, record.encode()).await;
        }

        async fn place(&self, machine: &str, leaving: Option<&str>) {
            let record = PlacementRecord {
                machine: Some(MachineId::new(machine)),
                leaving: leaving.map(MachineId::new),
                decision: Default::default(),
                reason: "so".to_owned(),
                refusals: Vec::new(),
                passed_over: Vec::new(),
                considered: 0,
                assigned: 0,
                since_ms: 0,
                failures: Default::default(),
            };
            let key = keys::placement("web.service");
            self.put(key, record.encode()).await;
        }

        /// Announces a shutdown; the store learns of it as by the presence task.
        async fn announce(&mut self, limit: Duration) {
            self.logind.announced.send_replace(Some(limit));
            let told = self.record.wait_for(MachineRecord::is_shutting_down).await;
            let value = told.unwrap().encode();
            self.put(keys::machine(MACHINE), value).await;
        }

        fn goes_on(&self) -> bool {
            self.logind.goes_on.load(Ordering::Relaxed)
        }

        /// Simulated time, in which several looks are taken.
        async fn looks(&self) {
            tokio::time::sleep(LOOK_EVERY * 5).await;
        }
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_until_all_have_left_but_global_units() {
        let mut rig = Rig::new().await;
        rig.place(MACHINE, None).await;
        rig.announce(LIMIT).await;
        rig.looks().await;
        assert!(!rig.goes_on(), "what was placed before says nothing");
        rig.place(OTHER, Some(MACHINE)).await;
        rig.looks().await;
        assert!(!rig.goes_on(), "it has not started elsewhere");
        rig.assign("web.service", Order::Gone, "").await;
        rig.looks().await;
        assert!(!rig.goes_on(), "it has not stopped here");
        let ops = vec![Op::Delete {
            key: keys::assignment(MACHINE, "web.service"),
        }];
        let compares = Vec::new();
        rig.store.commit(Txn { compares, ops }).await.unwrap();
        rig.looks().await;
        assert!(rig.goes_on());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_leader_leaves_here_holds_up_no_shutdown() {
        let mut rig = Rig::new().await;
        rig.place(MACHINE, None).await;
        rig.announce(LIMIT).await;
        rig.looks().await;
        assert!(!rig.goes_on());
        rig.place(MACHINE, None).await;
        rig.looks().await;
        assert!(rig.goes_on());
    }

    #[tokio::test(start_paused = true)]
    async fn no_shutdown_waits_longer_than_it_may() {
        let mut rig = Rig::new().await;
        rig.announce(LIMIT).await;
        tokio::time::sleep(LIMIT - LOOK_EVERY).await;
        assert!(!rig.goes_on());
        tokio::time::sleep(LOOK_EVERY * 2).await;
        assert!(rig.goes_on());
        let mut rig = Rig::new().await;
        rig.announce(Duration::from_secs(86_400)).await;
        tokio::time::sleep(MAX_WAIT + LOOK_EVERY).await;
        assert!(rig.goes_on());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_that_is_called_off_returns_the_machine_to_service() {
        let mut rig = Rig::new().await;
        for round in 0..2 {
            rig.announce(LIMIT).await;
            rig.looks().await;
            rig.logind.announced.send_replace(None);
            let told = rig.record.wait_for(|record| record.trouble.is_none());
            told.await.unwrap();
            assert!(!rig.goes_on(), "round {round}");
        }
        assert!(!rig.task.is_finished());
    }
}
