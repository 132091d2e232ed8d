//! The nemesis: five real machines with three members of etcd carry a workload while everything
//! that can break breaks, one thing after the other and several at once; then everything is
//! undone, and what the hosts' own systemd has written down is judged ([`judge`]), and what is left
//! ([`remains`]).
//!
//! The schedule follows from a seed, which is printed; when each thing really happened depends on
//! the computer. `make nemesis` has fresh seeds for longer; FLEET_NEMESIS_SEED=N repeats one,
//! FLEET_NEMESIS_SECONDS=N is for how long faults strike, in rounds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "microseconds of this century, and small counts"
)]

#[path = "../common/chance.rs"]
mod chance;
mod clock;
#[path = "../hosts/cluster.rs"]
#[allow(dead_code, reason = "the tests on hosts use the rest")]
mod cluster;
mod faults;
mod history;
mod judge;
mod remains;
mod report;
mod schedule;
mod users;
mod workload;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_sandbox::{Sandbox, wait_for};
use tokio::time::Instant;

use chance::Chance;
use clock::{Micros, Stage, now};
use cluster::{Cluster, binaries};
use faults::{Done, Nemesis};
use history::Copy;
use judge::Case;
use remains::{Leases, differences};
use schedule::{Extent, Fault, Lane, Step, plan};
use users::{Goal, Town, Users, Want};
use workload::{ALLOWING, ALLOWS, BUSY, STEADY, WEST};

/// What `make test` runs: one round that has every kind of fault.
const SHORT_SEED: u64 = 4_489;
const SHORT: Duration = Duration::from_secs(45);
/// After so long the faults pause, and everything is looked at.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// From the end of the faults until everything is as it is wanted: leases end, a machine boots, units
/// that wait with a back-off are tried again. The longest of these is a unit that failed five times:
/// its last pause is 32 s after 2, 4, 8 and 16 s, a minute in all; three times that, since the computer
/// is shared.
const SETTLE_BOUND: Duration = Duration::from_secs(180);
/// Tombstones rest for two minutes, and again from the beginning when etcd has another leader.
const REST_BOUND: Duration = Duration::from_secs(300);
/// In an idle cluster nothing is written for so long.
const IDLE: Duration = Duration::from_secs(5);

const HOSTS: usize = 5;
const MEMBERS: usize = 3;
/// `agent_ttl` and `lost_after`. A computer that builds beside us needs up to some seconds for what
/// takes one: with the defaults (3 s and 1 s) a restart of fleetd would now and then be a loss.
const LEASE: Duration = Duration::from_secs(6);
const LOST_AFTER: Duration = Duration::from_secs(2);

#[test]
fn nothing_that_strikes_the_cluster_reaches_what_runs_and_nothing_is_left_over() {
    let seed = number("FLEET_NEMESIS_SEED").unwrap_or(SHORT_SEED);
    let length = number("FLEET_NEMESIS_SECONDS").map_or(SHORT, Duration::from_secs);
    say(&format!(
        "nemesis: FLEET_NEMESIS_SEED={seed} FLEET_NEMESIS_SECONDS={}",
        length.as_secs()
    ));
    let world = World::up(seed);
    let mut left = length;
    for round in 0.. {
        let length = left.min(ROUND_MAX);
        world.round(round, length);
        left -= length;
        if left.is_zero() {
            break;
        }
    }
    // A short run does not wait for what goes by itself.
    if length > SHORT {
        world.rests_in_peace();
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is not a number")),
    )
}

/// At once, also under a harness that keeps the output until the end.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

struct World {
    seed: u64,
    cluster: Cluster,
    town: Town,
    leases: Leases,
    builds: [PathBuf; 2],
    directory: tempfile::TempDir,
    /// Of all rounds.
    done: Mutex<Vec<Done>>,
}

impl World {
    /// Boots the machines and starts what runs all the time.
    fn up(seed: u64) -> World {
        let mut builder = Sandbox::builder()
            .hosts(HOSTS)
            .etcd(MEMBERS)
            .fleet_conf(format!(
                "agent_ttl={}s\nlost_after={}s",
                LEASE.as_secs(),
                LOST_AFTER.as_secs()
            ));
        for host in WEST {
            builder = builder.metadata(host, "region=west");
        }
        let cluster = Cluster::with(builder);
        for host in cluster.sandbox.hosts() {
            for unit in workload::all() {
                for version in [1, 2] {
                    let path = users::path(unit.name, version);
                    host.write_file(path, unit.text(version)).unwrap();
                }
            }
        }
        for host in ALLOWING {
            cluster.host(host).write_file(ALLOWS, "").unwrap();
        }
        let instance = workload::unit("s@1.service").unwrap();
        cluster.file("s@.service", &instance.text(1));
        cluster.ok(&["submit", "/units/s@.service"]);
        let town = Town::default();
        for unit in &STEADY {
            // Instances come from their template.
            let what = match unit.name.contains('@') {
                true => unit.name.to_owned(),
                false => users::path(unit.name, 1),
            };
            match unit.may_fail() {
                true => cluster.ok(&["start", "--no-block", &what]),
                false => cluster.ok(&["start", &what]),
            };
            let want = Want {
                goal: Goal::Launched,
                text: 1,
            };
            town.wants
                .lock()
                .unwrap()
                .insert(unit.name.to_owned(), want);
        }
        let directory = tempfile::tempdir().unwrap();
        let builds = two_builds();
        let mut world = World {
            seed,
            cluster,
            town,
            leases: Leases(0),
            builds,
            directory,
            done: Mutex::default(),
        };
        world.settle(None).unwrap();
        world.idle().unwrap();
        world.leases = remains::renewed_leases(&world.cluster).unwrap();
        world
    }

    /// Strikes, undoes, waits, judges.
    fn round(&self, round: usize, length: Duration) {
        let extent = Extent {
            n_hosts: HOSTS,
            n_members: MEMBERS,
            length,
        };
        let steps = plan(self.seed, round, extent);
        let begun = now();
        self.town.restored.store(false, Ordering::Relaxed);
        let stage = Stage::begin();
        let nemesis = Nemesis {
            cluster: &self.cluster,
            stage: &stage,
            builds: &self.builds,
            directory: self.directory.path(),
            restored: &self.town.restored,
            done: Mutex::default(),
        };
        let users = Users {
            cluster: &self.cluster,
            stage: &stage,
            town: &self.town,
            length,
        };
        let unharmed = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for lane in lanes() {
                let own: Vec<Step> = steps.iter().filter(|s| s.lane == lane).copied().collect();
                let (nemesis, stage) = (&nemesis, &stage);
                threads.push(scope.spawn(move || {
                    let _guard = EndsStage(stage);
                    nemesis.strike(&own);
                }));
            }
            for unit in &BUSY {
                let (users, stage, seed) = (&users, &stage, self.seed);
                threads.push(scope.spawn(move || {
                    let _guard = EndsStage(stage);
                    let mut rng = Chance::of(seed, &format!("{round} {}", unit.name));
                    users.look_after(unit.name, &mut rng);
                }));
            }
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        let settled = match unharmed {
            false => {
                Err("somebody of the nemesis or of the users has failed, see above".to_owned())
            }
            true => {
                self.make_good(&nemesis, &users, round);
                self.settle(Some(&self.leases)).and_then(|()| self.idle())
            }
        };
        let faults = nemesis
            .done
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(faults.iter().cloned());
        let copies = self.copies(&all);
        drop(all);
        let acts = self
            .town
            .acts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let acts: Vec<_> = acts
            .iter()
            .filter(|act| act.begun >= begun)
            .cloned()
            .collect();
        let case = Case {
            begun,
            copies: &copies,
            acts: &acts,
            faults: &faults,
        };
        let judgement = judge::judge(&case);
        say(&report::summary(round, &case, &judgement));
        if settled.is_err() || !judgement.convictions.is_empty() {
            let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
            panic!(
                "{}",
                report::failure(
                    self.seed,
                    round,
                    &self.cluster,
                    &case,
                    &judgement,
                    settled,
                    &kept
                )
            );
        }
    }

    /// What operators and users do when all is undone. If an old copy of etcd was restored, all
    /// machines, which are there now, are told to believe it, and who wanted something says so
    /// again. What has failed is started anew.
    fn make_good(&self, nemesis: &Nemesis<'_>, users: &Users<'_>, round: usize) {
        let done = nemesis.done.lock().unwrap_or_else(PoisonError::into_inner);
        let restored = done
            .iter()
            .find(|done| done.fault == Fault::Restore)
            .cloned();
        drop(done);
        if let Some(restored) = restored {
            self.believe(nemesis, users, round, restored);
        }
        for unit in STEADY.iter().filter(|unit| unit.may_fail()) {
            let mut rng = Chance::of(self.seed, &format!("{round} anew {}", unit.name));
            users.start_anew(unit.name, &mut rng);
        }
    }

    fn believe(&self, nemesis: &Nemesis<'_>, users: &Users<'_>, round: usize, restored: Done) {
        self.cluster.wait_until_complete();
        nemesis.operate(&["accept-store"]);
        // The copy may have a drain that was over already.
        for host in self.cluster.sandbox.hosts() {
            nemesis.operate(&["uncordon", &host.machine_id().unwrap()]);
        }
        for unit in &BUSY {
            let mut rng = Chance::of(self.seed, &format!("{round} again {}", unit.name));
            users.ask_again(unit.name, &mut rng);
        }
        // Until now old copies were not to be stopped.
        let accepted = Done {
            ended: now(),
            ..restored
        };
        let mut done = nemesis.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(accepted);
    }

    /// Waits until everything is as it is wanted, and nothing else is there.
    fn settle(&self, leases: Option<&Leases>) -> Result<(), String> {
        let wants = self
            .town
            .wants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let settled = wait_for("the cluster to settle", SETTLE_BOUND, || match differences(
            &self.cluster,
            &wants,
            &["s@.service"],
            leases,
        ) {
            Ok(wrong) if wrong.is_empty() => Ok(()),
            Ok(wrong) => Err(wrong.join("\n  ")),
            Err(e) => Err(e),
        });
        settled.map_err(|e| e.to_string())
    }

    /// Nothing is left of destroyed units in the end.
    fn rests_in_peace(&self) {
        wait_for("tombstones to go", REST_BOUND, || {
            match remains::graves(&self.cluster)? {
                None => Ok(()),
                Some(graves) => Err(graves),
            }
        })
        .unwrap();
        self.settle(Some(&self.leases)).unwrap();
    }

    /// Whoever has nothing to do writes nothing.
    fn idle(&self) -> Result<(), String> {
        let etcd = self.cluster.sandbox.etcd(0);
        let revision = || etcd.revision().map_err(|e| e.to_string());
        let from = Instant::now();
        let mut last = (revision()?, Instant::now());
        wait_for("the store to be idle", SETTLE_BOUND, || {
            let now = revision()?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            let still = last.1.elapsed();
            (still >= IDLE).then_some(()).ok_or(format!(
                "revision {now}, still for {still:?} after {:?}",
                from.elapsed()
            ))
        })
        .map_err(|e| e.to_string())
    }

    fn copies(&self, done: &[Done]) -> Vec<Copy> {
        let ours = |unit: &str| workload::unit(unit).is_some();
        let hosts = self.cluster.sandbox.hosts();
        let of = |host: usize| -> Vec<Copy> {
            let cuts =
                |done: &&Done| done.lane == Lane::Host(host) && done.fault == Fault::CutPower;
            let cuts: Vec<Micros> = done.iter().filter(cuts).map(|done| done.struck).collect();
            history::copies(host, &history::lines_of(&hosts[host], ours), &cuts, now())
        };
        (0..hosts.len()).flat_map(of).collect()
    }
}

fn lanes() -> impl Iterator<Item = Lane> {
    (0..HOSTS)
        .map(Lane::Host)
        .chain([Lane::Store, Lane::Operator])
}

/// Two builds: the one for the hosts, and the one that cargo makes for this test, of another
/// profile. FLEET_NEMESIS_OTHER names a fleetd of another version instead.
fn two_builds() -> [PathBuf; 2] {
    let other = std::env::var_os("FLEET_NEMESIS_OTHER").map(PathBuf::from);
    let other = other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_fleetd")));
    let builds = [binaries().join("fleetd"), other];
    let [one, two] = builds.each_ref().map(|path| std::fs::read(path).unwrap());
    assert!(one != two, "{builds:?} are to be two builds");
    builds
}

/// When one has failed the others need not go on.
struct EndsStage<'a>(&'a Stage);

impl Drop for EndsStage<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_run_has_every_kind_of_fault() {
        let extent = Extent {
            n_hosts: HOSTS,
            n_members: MEMBERS,
            length: SHORT,
        };
        let steps = plan(SHORT_SEED, 0, extent);
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for step in &steps {
            let kind = format!("{:?}", step.fault);
            let kind = kind.split('(').next().unwrap_or_default().to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
        for kind in [
            "KillFleetd",
            "PauseFleetd",
            "StopFleetd",
            "Upgrade",
            "CutPower",
            "CutCable",
            "LoseFrames",
            "Strand",
            "LoseQuorum",
            "Restore",
            "Drain",
        ] {
            assert!(kinds.contains_key(kind), "no {kind} in {kinds:?}");
        }
        let one = ["KillMember", "PauseMember", "CutMember"];
        assert!(
            one.iter().any(|kind| kinds.contains_key(*kind)),
            "{kinds:?}"
        );
    }
}
