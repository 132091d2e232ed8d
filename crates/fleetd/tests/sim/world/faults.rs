//! What befalls the cluster, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use fleetd::store::codec::{Document, LeaderRecord};
use fleetd::store::keys;
use fleetd::store::memory::MemoryStore;
use fleetd::store::{Entry, Range, Store};
use tokio::time::Instant;

use super::World;
use crate::chance::lock;
use crate::host::Host;
use crate::life::Life;
use crate::scenario::{Fault, Scenario};
use crate::store::{Center, Cut, Weather};

/// What ends a fault.
pub(super) enum Undo {
    Start(usize),
    GoOn(usize, Arc<Life>),
    Heal(usize),
    Mend(usize),
    ClearSky,
    StoreUp,
    StoreBack,
    Repair(String),
    Restore(Arc<MemoryStore>),
    /// While a machine does not see it.
    RestoreUnseen(Arc<MemoryStore>, usize),
    AcceptStore,
    Thaw,
    GarbageInThaw,
}

/// By then a leader that has heard that machines are gone has given them up.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(3);

/// Who has been away for so long, and is not given up, is waited for because too many are.
const FROZEN_AFTER: Duration = Duration::from_secs(2);

impl World {
    fn later(&mut self, after: Duration, undo: Undo) {
        self.next_undo += 1;
        let at = Instant::now() + after;
        self.undo.insert((at, self.next_undo), undo);
    }

    async fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(machine) => self.start(machine),
            Undo::GoOn(machine, life) => {
                self.sim.note("goes-on", format_args!("{}", machine + 1));
                self.center.audit.goes_on(&self.hosts[machine].id);
                life.go_on();
            }
            Undo::Heal(machine) => {
                self.sim.note("healed", format_args!("{}", machine + 1));
                self.cables[machine].set(Cut::default());
            }
            Undo::Mend(machine) => {
                self.sim.note("mended", format_args!("{}", machine + 1));
                self.hosts[machine].set_bad(false);
            }
            Undo::ClearSky => self.center.set_weather(Weather::default()),
            Undo::StoreUp => {
                self.sim.note("store-up", format_args!(""));
                self.center.set_down(false);
            }
            Undo::StoreBack => {
                self.sim.note("right-store", format_args!(""));
                self.center.bring_back();
            }
            Undo::Repair(key) => self.center.repair(&key).await,
            Undo::Restore(backup) => {
                self.center.restore(&backup).await;
                self.later(self.sim.between(3_000, 15_000), Undo::AcceptStore);
            }
            Undo::RestoreUnseen(backup, machine) => {
                self.cables[machine].set(Cut::ALL);
                self.later(self.sim.between(4_000, 14_000), Undo::Heal(machine));
                tokio::time::sleep(self.sim.between(50, 500)).await;
                self.center.restore(&backup).await;
                self.later(self.sim.between(16_000, 30_000), Undo::AcceptStore);
            }
            Undo::Thaw => self.thaw(),
            Undo::GarbageInThaw => {
                if let Some(key) = self.center.damage_key(keys::THAW).await {
                    self.sim.note("damaged", format_args!("{key}"));
                    self.later(self.sim.between(3_000, 8_000), Undo::Repair(key));
                }
            }
            Undo::AcceptStore => {
                let town = Arc::clone(&self.town);
                tokio::spawn(async move { town.accept_store().await });
            }
        }
    }

    /// What befalls it, until the time is over.
    pub(super) async fn suffer(&mut self, scenario: &Scenario) {
        let end = Instant::now() + scenario.time;
        let mut script = scenario.script.iter().peekable();
        let begun = Instant::now();
        let mut next = begun + self.pause(scenario);
        loop {
            let undo = self.undo.keys().next().copied();
            let scripted = script.peek().map(|(at, ..)| begun + *at);
            let wake = [Some(end), Some(next), scripted, undo.map(|(at, _)| at)];
            let wake = wake.into_iter().flatten().min().unwrap_or(end);
            let failed = self.sim.failed.notified();
            if tokio::time::timeout_at(wake, failed).await.is_ok() {
                return;
            }
            for violation in fleetd::sim::take_violations() {
                self.sim
                    .fail(format!("the leader's plan leaves: {violation}"));
            }
            let now = Instant::now();
            if now >= end || self.sim.failure().is_some() {
                return;
            }
            if let Some(key) = undo.filter(|(at, _)| *at <= now) {
                if let Some(undo) = self.undo.remove(&key) {
                    self.undo(undo).await;
                }
            } else if scripted.is_some_and(|at| at <= now) {
                if let Some((_, fault, machine)) = script.next() {
                    self.inflict(*fault, *machine).await;
                }
            } else if now >= next {
                if !scenario.faults.is_empty() {
                    let fault = self.sim.pick(&scenario.faults);
                    let machine = self.sim.below(self.hosts.len());
                    self.inflict(fault, machine).await;
                }
                next = Instant::now() + self.pause(scenario);
            }
        }
    }

    fn pause(&self, scenario: &Scenario) -> Duration {
        match self.sim.below(3) {
            0 => self.sim.between(0, 300),
            _ => self.sim.between(300, scenario.fault_every_ms),
        }
    }

    /// Somebody says that the machines that are away are gone. Who is waited for because too many are
    /// away is given up then, if nobody else comes to lead meanwhile.
    fn thaw(&self) {
        let (town, center, sim) = (&self.town, &self.center, &self.sim);
        let (town, center, sim) = (Arc::clone(town), Arc::clone(center), Arc::clone(sim));
        tokio::spawn(async move {
            let leader = lead(&center).await.map(|leader| leader.create_revision);
            let waited_for = center.audit.waited_for(FROZEN_AFTER);
            town.thaw().await;
            tokio::time::sleep(GIVEN_UP_WITHIN).await;
            let now = lead(&center).await.map(|leader| leader.create_revision);
            if leader.is_none() || now != leader || waited_for.is_empty() {
                return;
            }
            sim.note("thawed", format_args!("{}", waited_for.len()));
            center.audit.must_be_given_up(&waited_for);
        });
    }

    /// The machine that leads; else some other.
    async fn leader(&self, otherwise: usize) -> usize {
        let entry = lead(&self.center).await;
        let leader = entry.and_then(|e| LeaderRecord::decode(&e.key, &e.value).ok());
        leader
            .and_then(|leader| {
                let is = |host: &Arc<Host>| host.id == leader.machine.as_str();
                self.hosts.iter().position(is)
            })
            .unwrap_or(otherwise)
    }

    async fn inflict(&mut self, fault: Fault, machine: usize) {
        let sim = Arc::clone(&self.sim);
        sim.note(fault.name(), format_args!("on {}", machine + 1));
        match fault {
            Fault::Crash => {
                self.kill(machine);
                self.later(sim.between(50, 3_000), Undo::Start(machine));
            }
            Fault::CrashAtPoint => {
                let Some(process) = &self.processes[machine] else {
                    return;
                };
                let life = Arc::clone(&process.life);
                life.end_after(1 + sim.below(80) as u64);
                // It dies when it gets there; if nothing happens it lives on a little longer.
                let _ = tokio::time::timeout(Duration::from_secs(2), life.over()).await;
                self.kill(machine);
                self.later(sim.between(50, 3_000), Undo::Start(machine));
            }
            Fault::CrashLeader => {
                let machine = self.leader(machine).await;
                self.kill(machine);
                self.later(sim.between(50, 8_000), Undo::Start(machine));
            }
            Fault::Upgrade => {
                self.stop_in_order(machine).await;
                self.later(sim.between(20, 6_000), Undo::Start(machine));
            }
            Fault::StopInOrder => {
                self.stop_in_order(machine).await;
                self.later(sim.between(3_000, 25_000), Undo::Start(machine));
            }
            Fault::ShutDown => {
                self.hosts[machine].shut_down();
                self.stop_in_order(machine).await;
                self.hosts[machine].lose_power();
                self.later(sim.between(500, 20_000), Undo::Start(machine));
            }
            Fault::StandStill => {
                let machine = match sim.percent(40) {
                    true => self.leader(machine).await,
                    false => machine,
                };
                if let Some(process) = &self.processes[machine] {
                    let life = Arc::clone(&process.life);
                    life.stand_still();
                    let time = match sim.below(2) {
                        0 => sim.between(20, 2_900),
                        _ => sim.between(2_900, 20_000),
                    };
                    self.later(time, Undo::GoOn(machine, life));
                }
            }
            Fault::PowerCut => {
                self.kill(machine);
                self.hosts[machine].lose_power();
                self.later(sim.between(500, 15_000), Undo::Start(machine));
            }
            Fault::PowerCutAll => {
                for machine in 0..self.hosts.len() {
                    self.kill(machine);
                    self.hosts[machine].lose_power();
                    self.later(sim.between(500, 15_000), Undo::Start(machine));
                }
            }
            Fault::CrashAll => {
                for machine in 0..self.hosts.len() {
                    self.kill(machine);
                    self.later(sim.between(50, 9_000), Undo::Start(machine));
                }
            }
            Fault::Cut | Fault::CutLeader => {
                let machine = match fault {
                    Fault::CutLeader => self.leader(machine).await,
                    _ => machine,
                };
                let cut = self.some_cut();
                sim.note("cut", format_args!("{} {cut:?}", machine + 1));
                self.cables[machine].set(cut);
                let time = match sim.below(4) {
                    0 => sim.between(12_000, 40_000),
                    _ => sim.between(50, 12_000),
                };
                self.later(time, Undo::Heal(machine));
            }
            Fault::Silence => {
                let cut = self.some_cut();
                self.cables[machine].set(cut);
                tokio::time::sleep(sim.between(0, 4_000)).await;
                self.kill(machine);
                let time = sim.between(12_000, 40_000);
                self.later(time, Undo::Heal(machine));
                self.later(time, Undo::Start(machine));
            }
            Fault::CutAll => {
                for machine in 0..self.hosts.len() {
                    let cut = self.some_cut();
                    self.cables[machine].set(cut);
                    self.later(sim.between(1_000, 12_000), Undo::Heal(machine));
                }
            }
            Fault::Loss | Fault::Slow => {
                let share = 2 + sim.below(30);
                self.center.set_weather(match fault {
                    Fault::Loss => Weather {
                        loss: share,
                        slow: 0,
                    },
                    _ => Weather {
                        loss: 0,
                        slow: share,
                    },
                });
                self.later(sim.between(500, 10_000), Undo::ClearSky);
            }
            Fault::Compact => {
                let data = self.center.data();
                let newest = data
                    .read(Range {
                        limit: Some(1),
                        ..Range::default()
                    })
                    .await;
                if let Ok(newest) = newest {
                    let _ = data.compact(newest.revision).await;
                }
            }
            Fault::BreakWatches => self.center.break_watches("the connection was reset"),
            Fault::StoreDown => {
                self.center.set_down(true);
                self.later(sim.between(100, 12_000), Undo::StoreUp);
            }
            Fault::LeaseEnds => {
                let key = match sim.below(2) {
                    0 => keys::LEADER.to_owned(),
                    _ => keys::machine(&self.hosts[machine].id),
                };
                let data = self.center.data();
                let entry = data.read_keys(&[key]).await;
                let lease = entry.ok().and_then(|mut e| e.entries.pop()?.lease);
                if let Some(lease) = lease {
                    self.center.audit.deceives(&self.hosts[machine].id);
                    let _ = data.revoke(lease).await;
                }
            }
            Fault::SystemdAway => {
                if let Some(process) = &self.processes[machine] {
                    process.driver.disconnect(sim.between(10, 4_000));
                }
            }
            Fault::UnitDies => self.hosts[machine].kill_one(),
            Fault::BadMachine => {
                self.hosts[machine].set_bad(true);
                self.later(sim.between(3_000, 30_000), Undo::Mend(machine));
            }
            Fault::ClockJump => {
                let hour = 3_600_000;
                fleetd::sim::set_skew_ms(sim.pick(&[-hour, hour, 0, 90_000, -5_000]));
            }
            Fault::Damage => {
                if let Some(key) = self.center.damage().await {
                    sim.note("damaged", format_args!("{key}"));
                    self.later(sim.between(200, 15_000), Undo::Repair(key));
                }
            }
            Fault::ForeignStore => {
                self.center.exchange_for_foreign().await;
                self.later(sim.between(200, 8_000), Undo::StoreBack);
            }
            Fault::OldBackup => {
                // Of two backups the newer one may look like the future of the older one.
                let is_first = !self
                    .undo
                    .values()
                    .any(|undo| matches!(undo, Undo::Restore(_)))
                    && self.center.n_restores() == 0;
                if is_first && !self.center.is_exchanged() {
                    let backup = self.center.copy();
                    self.later(sim.between(500, 20_000), Undo::Restore(backup));
                }
            }
            Fault::OldBackupUnseen => {
                let is_first = !self
                    .undo
                    .values()
                    .any(|undo| matches!(undo, Undo::RestoreUnseen(..)))
                    && self.center.n_restores() == 0;
                if is_first {
                    let restore = Undo::RestoreUnseen(self.center.copy(), machine);
                    self.later(sim.between(2_000, 12_000), restore);
                }
            }
            Fault::Blink => {
                let leader = self.leader(machine).await;
                let machine = (leader + 1 + machine) % self.hosts.len();
                let key = keys::machine(&self.hosts[machine].id);
                let data = self.center.data();
                let entry = data.read_keys(&[key]).await;
                let lease = entry.ok().and_then(|mut e| e.entries.pop()?.lease);
                if let (Some(lease), Some(process)) = (lease, &self.processes[leader])
                    && machine != leader
                {
                    self.center.audit.deceives(&self.hosts[machine].id);
                    let _ = data.revoke(lease).await;
                    // It has heard that, and what comes next it hears too late.
                    let life = Arc::clone(&process.life);
                    tokio::time::sleep(sim.between(4, 30)).await;
                    life.stand_still();
                    self.later(sim.between(800, 2_400), Undo::GoOn(leader, life));
                }
            }
            Fault::Outage => {
                let is_over = !self.undo.values().any(|u| matches!(u, Undo::Heal(_)));
                let leader = self.leader(machine).await;
                let n_machines = self.hosts.len();
                if is_over {
                    for n in 1..=n_machines * 3 / 5 {
                        let machine = (leader + n) % n_machines;
                        self.cables[machine].set(Cut::ALL);
                        self.later(sim.between(18_000, 40_000), Undo::Heal(machine));
                    }
                    let word = match sim.percent(60) {
                        true => Undo::Thaw,
                        false => Undo::GarbageInThaw,
                    };
                    self.later(sim.between(7_000, 14_000), word);
                }
            }
            Fault::WipedStore => {
                self.center.exchange();
                self.later(sim.between(200, 8_000), Undo::StoreBack);
            }
        }
    }

    /// Stops fleetd as systemd does.
    async fn stop_in_order(&mut self, machine: usize) {
        if let Some(process) = self.processes[machine].take() {
            process.stop.send_replace(true);
            let ended = async {
                for task in process.tasks {
                    let _ = task.await;
                }
            };
            // systemd kills what does not stop in time.
            let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
            process.life.end();
            lock(&self.town.apis)[machine] = None;
        }
    }

    fn some_cut(&self) -> Cut {
        self.sim.pick(&[
            Cut::ALL,
            Cut {
                requests: true,
                answers: false,
            },
            Cut {
                requests: false,
                answers: true,
            },
        ])
    }

    /// All faults end.
    pub(super) async fn recover(&mut self) {
        self.sim.note("recover", format_args!(""));
        self.center.bring_back();
        self.center.repair_all().await;
        self.undo.clear();
        self.center.set_down(false);
        self.center.set_weather(Weather::default());
        for machine in 0..self.hosts.len() {
            self.cables[machine].set(Cut::default());
            self.hosts[machine].set_bad(false);
            if let Some(process) = &self.processes[machine] {
                self.center.audit.goes_on(&self.hosts[machine].id);
                process.life.go_on();
            }
            if self.processes[machine]
                .as_ref()
                .is_some_and(|p| p.life.is_over())
            {
                self.kill(machine);
            }
            self.start(machine);
        }
    }
}

/// The key of who leads.
async fn lead(center: &Center) -> Option<Entry> {
    let read = center.data().read_keys(&[keys::LEADER.to_owned()]).await;
    read.ok()?.entries.pop()
}
