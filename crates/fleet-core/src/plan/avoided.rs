//! Machines on which many different units have failed of late: new units come to them last, so that
//! a machine that breaks everything does not attract everything by being empty. Nothing that runs
//! there is moved for it, and no unit waits for it.
//!
//! That a machine is avoided stands in its membership record, over a change of leader. What its
//! units came to is counted by the leader alone, anew by each.

use std::collections::BTreeMap;

use super::Planner;
use crate::cluster::{Cluster, Machine, Outcome, Timer};
use crate::name::UnitName;
use crate::records::{Avoided, MachineId, MemberStatus, Order};

/// So many different units have to fail. One bad unit, and another one that happens to fail at the
/// same time, are no sign of a bad machine.
const AVOID_AFTER: usize = 3;
/// Of so many that started or failed last: where most units start well, the machine is well.
const AVOID_OF: usize = 5;
/// What happened longer ago has nothing to do with what happens now.
const AVOID_WITHIN_MS: u64 = 600_000;
/// A unit that came later and has been well for so long shows that the machine is well again; one
/// that dies at once does not.
const TRIAL_MS: u64 = 60_000;
/// Units that are named as the reason.
const MAX_NAMED: usize = 5;

/// What ended the time in which a machine was avoided.
pub(crate) enum Trusted {
    Opened,
    Proved(UnitName),
}

impl Trusted {
    pub(crate) fn words(&self) -> String {
        match self {
            Trusted::Opened => "no longer avoided: somebody asked for that".to_owned(),
            Trusted::Proved(unit) => format!(
                "no longer avoided: {unit} has been well there for {} s",
                TRIAL_MS / 1_000
            ),
        }
    }
}

impl Planner<'_> {
    /// Takes in which units have started well or failed since the last plan.
    pub(crate) fn count_outcomes(&mut self) {
        let now_ms = self.now.monotonic_ms;
        let revision = self.cluster.revision;
        for (id, unit, failed) in std::mem::take(&mut self.cluster.marks.outcomes) {
            let Some(machine) = self.cluster.machines.get_mut(&id) else {
                continue;
            };
            // A machine that goes down takes its units with it.
            if machine.is_absent() || machine.is_shutting_down() {
                continue;
            }
            // Without a failure before, a success changes nothing.
            if !failed && machine.outcomes.is_empty() && machine.avoided.is_none() {
                continue;
            }
            let of = unit.template().unwrap_or(unit);
            let is_recent =
                |outcome: &Outcome| now_ms.saturating_sub(outcome.at) <= AVOID_WITHIN_MS;
            machine.outcomes.retain(|o| o.of != of && is_recent(o));
            machine.outcomes.push(Outcome {
                of,
                failed,
                at: now_ms,
            });
            let n_old = machine.outcomes.len().saturating_sub(AVOID_OF);
            machine.outcomes.drain(..n_old);
            if machine.avoided.is_none() {
                machine.avoided = why_avoided(&machine.outcomes).map(|why| Avoided {
                    why,
                    revision,
                    opened: machine.wish.opened,
                });
            }
            if machine.avoided.is_some() {
                self.cluster.marks.machines.insert(id);
            }
        }
    }

    /// Ends the time in which a machine is avoided, if somebody said so or a unit has shown that
    /// it is well.
    pub(crate) fn review_avoided(&mut self, id: &MachineId) -> Option<Trusted> {
        let now_ms = self.now.monotonic_ms;
        let machine = self.cluster.machines.get(id)?;
        let avoided = machine.avoided.as_ref()?;
        let mut trusted = None;
        let mut on_trial = BTreeMap::new();
        if machine.wish.opened != avoided.opened {
            trusted = Some(Trusted::Opened);
        } else if machine.status == MemberStatus::Present {
            let came = self.cluster.came_after(id, machine, avoided.revision);
            let since = |unit: &UnitName| machine.on_trial.get(unit).copied().unwrap_or(now_ms);
            on_trial.extend(came.map(|unit| (unit.clone(), since(unit))));
            let first = on_trial.iter().min_by_key(|(_, since)| **since);
            if let Some((unit, since)) = first {
                let ends = since.saturating_add(TRIAL_MS);
                if ends <= now_ms {
                    trusted = Some(Trusted::Proved(unit.clone()));
                } else {
                    let timer = Timer::Machine(id.clone());
                    self.cluster.timers.insert((ends, timer));
                }
            }
        }
        let machine = self.cluster.machines.get_mut(id)?;
        machine.on_trial = on_trial;
        if trusted.is_some() {
            machine.avoided = None;
            machine.outcomes.clear();
            machine.on_trial.clear();
        }
        trusted
    }
}

impl Cluster {
    /// The units that were sent to a machine after a revision and are well there.
    fn came_after<'c>(
        &'c self,
        id: &'c MachineId,
        machine: &'c Machine,
        revision: u64,
    ) -> impl Iterator<Item = &'c UnitName> {
        machine.units.keys().filter(move |name| {
            self.units.get(*name).is_some_and(|unit| {
                unit.assignments.get(id).is_some_and(|assigned| {
                    assigned.order == Order::Launched
                        && assigned.decision.seq > revision
                        && unit.is_well(id, assigned.decision)
                })
            })
        })
    }
}

/// Why a machine with these outcomes is to be avoided; None: it is not.
fn why_avoided(outcomes: &[Outcome]) -> Option<String> {
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.failed).collect();
    if failed.len() < AVOID_AFTER {
        return None;
    }
    let named = failed.iter().take(MAX_NAMED);
    let named: Vec<_> = named.map(|outcome| outcome.of.as_str()).collect();
    Some(format!(
        "{} of the last {} units failed there within {} min: {}",
        failed.len(),
        outcomes.len(),
        AVOID_WITHIN_MS / 60_000,
        named.join(", ")
    ))
}
