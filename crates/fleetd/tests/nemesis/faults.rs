//! Doing and undoing faults.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_sandbox::{Host, Loss, wait_for};

use crate::clock::{Micros, Stage, now};
use crate::cluster::{Cluster, told};
use crate::schedule::{Fault, Lane, Step};
use crate::users::{ENDING, given_up_after};

/// fleetd in a host.
const FLEETD: &str = "/opt/fleet/bin/fleetd";
/// An operator asks again until an API answers: etcd may have no majority for some seconds.
const OPERATOR_BOUND: Duration = Duration::from_secs(60);
/// One question of an operator.
const QUESTION_BOUND: Duration = Duration::from_secs(15);
/// TimeoutStopSec of fleet.service, and its start.
const RESTART_BOUND: Duration = Duration::from_secs(60);
/// Between two kills of a row.
const NEXT_KILL: Duration = Duration::from_millis(700);

/// A fault as it was done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) lane: Lane,
    pub(crate) fault: Fault,
    pub(crate) begun: Micros,
    /// When it was undone.
    pub(crate) ended: Micros,
    /// When it was in effect: the power was off, etcd was restored.
    pub(crate) struck: Micros,
}

/// Where a round's faults are done and written down.
pub(crate) struct Nemesis<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) stage: &'a Stage,
    /// Two builds of fleetd.
    pub(crate) builds: &'a [PathBuf; 2],
    pub(crate) directory: &'a Path,
    /// Set before the snapshot is saved from which etcd is restored.
    pub(crate) restored: &'a AtomicBool,
    pub(crate) done: Mutex<Vec<Done>>,
}

impl Nemesis<'_> {
    /// Does and undoes the faults of one lane, each at its time.
    pub(crate) fn strike(&self, steps: &[Step]) {
        for step in steps {
            if !self.stage.until(step.at) {
                return;
            }
            let begun = now();
            let pid = self.begin(step);
            let mut struck = now();
            if step.fault == Fault::Restore {
                self.stage.until((step.at + step.until) / 2);
                struck = now();
                let file = self.snapshot();
                self.cluster.sandbox.restore_etcd(&file).unwrap();
            }
            self.stage.until(step.until);
            self.end(step, &pid);
            let done = Done {
                lane: step.lane,
                fault: step.fault,
                begun,
                ended: now(),
                struck,
            };
            let mut all = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(done);
        }
    }

    /// Returns the number of the process that was paused.
    fn begin(&self, step: &Step) -> String {
        let etcd = |member: usize| self.cluster.sandbox.etcd(member);
        let host = match step.lane {
            Lane::Host(host) => self.cluster.host(host),
            _ => self.cluster.host(0),
        };
        match step.fault {
            Fault::KillFleetd(times) => {
                for n in 0..times {
                    self.stage.until(step.at + NEXT_KILL * n as u32);
                    // It may be between two lives.
                    signal(&host, "KILL", "");
                }
            }
            Fault::PauseFleetd => return signal(&host, "STOP", ""),
            Fault::StopFleetd => systemctl(&host, "stop"),
            Fault::Upgrade => {
                let other = step.at.as_millis() as usize % self.builds.len();
                host.install(&self.builds[other], FLEETD).unwrap();
                systemctl(&host, "restart");
            }
            Fault::CutPower => host.kill().unwrap(),
            Fault::CutCable => host.cut().unwrap(),
            Fault::LoseFrames(loss) => host.lose(loss).unwrap(),
            Fault::Strand => {
                let pid = signal(&host, "STOP", "");
                host.lose(Loss::Both).unwrap();
                return pid;
            }
            Fault::KillMember(member) => etcd(member).kill().unwrap(),
            Fault::PauseMember(member) => etcd(member).freeze().unwrap(),
            Fault::CutMember(member) => etcd(member).cut().unwrap(),
            Fault::LoseQuorum(spared) => {
                for member in self.others(spared) {
                    etcd(member).kill().unwrap();
                }
            }
            Fault::Restore => {
                self.restored.store(true, Ordering::Relaxed);
                wait_for("a snapshot of etcd", OPERATOR_BOUND, || {
                    let file = self.snapshot();
                    let _ = std::fs::remove_file(&file);
                    self.cluster.sandbox.save_etcd(&file)
                })
                .unwrap();
            }
            Fault::Drain(host) => self.operate(&["drain", "--no-block", &self.id(host)]),
        }
        String::new()
    }

    fn end(&self, step: &Step, pid: &str) {
        let etcd = |member: usize| self.cluster.sandbox.etcd(member);
        let host = match step.lane {
            Lane::Host(host) => self.cluster.host(host),
            _ => self.cluster.host(0),
        };
        match step.fault {
            Fault::KillFleetd(_) | Fault::Upgrade => {}
            Fault::PauseFleetd => {
                signal(&host, "CONT", pid);
            }
            Fault::Strand => {
                host.heal().unwrap();
                signal(&host, "CONT", pid);
            }
            Fault::StopFleetd => systemctl(&host, "start"),
            Fault::CutPower => host.boot().unwrap(),
            Fault::CutCable | Fault::LoseFrames(_) => host.heal().unwrap(),
            Fault::KillMember(member) => etcd(member).start().unwrap(),
            Fault::PauseMember(member) => etcd(member).thaw().unwrap(),
            Fault::CutMember(member) => etcd(member).heal().unwrap(),
            Fault::LoseQuorum(spared) => {
                // The first is healthy only when the second is there.
                std::thread::scope(|scope| {
                    for member in self.others(spared) {
                        let member = etcd(member);
                        scope.spawn(move || member.start().unwrap());
                    }
                });
            }
            Fault::Restore => self.operate(&["accept-store"]),
            Fault::Drain(host) => self.operate(&["uncordon", &self.id(host)]),
        }
    }

    fn others(&self, spared: usize) -> impl Iterator<Item = usize> {
        (0..self.cluster.sandbox.members().len()).filter(move |member| *member != spared)
    }

    fn id(&self, host: usize) -> String {
        self.cluster.host(host).machine_id().unwrap()
    }

    fn snapshot(&self) -> PathBuf {
        self.directory.join("snapshot")
    }

    /// fleetctl, on one host after the other, until it succeeds.
    pub(crate) fn operate(&self, args: &[&str]) {
        let argv = given_up_after(QUESTION_BOUND, args);
        let hosts = self.cluster.sandbox.hosts();
        let mut next = 0;
        wait_for(&format!("fleetctl {args:?}"), OPERATOR_BOUND, || {
            let host = &hosts[next % hosts.len()];
            next += 1;
            match host.exec_with(&argv, None, QUESTION_BOUND + ENDING) {
                Ok(out) if out.success() => Ok(()),
                Ok(out) => Err(format!("{}: {}", host.name(), told(&out))),
                Err(e) => Err(e.to_string()),
            }
        })
        .unwrap();
    }
}

/// Signals fleetd, or the process of this number; returns the number. None runs: nothing.
fn signal(host: &Host, signal: &str, pid: &str) -> String {
    let script = "pid=${1:-$(systemctl show --value -p MainPID fleet.service)}; \
        [ \"$pid\" != 0 ] && kill -\"$0\" \"$pid\"; echo \"$pid\"";
    let out = host.exec(&["sh", "-c", script, signal, pid]).unwrap();
    out.stdout.trim().to_owned()
}

fn systemctl(host: &Host, verb: &str) {
    let argv = ["systemctl", verb, "fleet.service"];
    let out = host.exec_with(&argv, None, RESTART_BOUND).unwrap();
    assert!(
        out.success(),
        "{verb} fleet on {}: {}",
        host.name(),
        told(&out)
    );
}
