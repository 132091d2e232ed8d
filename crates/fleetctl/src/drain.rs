//! Watching machines get empty.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_api::client::Error;
use fleet_api::v2::{MachineUnit, MachineView, UnitView};
use tokio::time::{Instant, sleep};

use crate::commands::listing::PRESENT;
use crate::error::{CommandError, cures};
use crate::fleet::Fleet;
use crate::machines::{original, shown};
use crate::report::Report;

/// Between two looks: a person sees no difference, and fleetd hardly feels it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Units that no other machine may run are waited for so long, as `start` does.
const STUCK_PATIENCE: Duration = Duration::from_secs(10);

/// Nothing has moved for so long: a unit takes 90 seconds to stop at most, unless it says
/// otherwise, and as long to start.
const STILL_PATIENCE: Duration = Duration::from_secs(300);

/// Most units that are named as left behind.
const MAX_NAMED: usize = 20;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    deadline: Option<Instant>,
}

impl Patience {
    /// Until then; None: as long as it makes sense.
    pub(crate) fn new(deadline: Option<Duration>) -> Patience {
        Patience {
            deadline: deadline.map(|bound| Instant::now() + bound),
        }
    }

    fn is_over(&self, now: Instant, last_change: Instant, only_stuck: bool) -> bool {
        match self.deadline {
            Some(deadline) => now >= deadline,
            None if only_stuck => now >= last_change + STUCK_PATIENCE,
            None => now >= last_change + STILL_PATIENCE,
        }
    }
}

/// Tells of each unit that leaves, until the machines are empty or patience is over. What is left
/// then is a failure.
pub(crate) async fn follow(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    mut drains: Vec<Drain>,
    patience: Patience,
) {
    let machines = drains.iter().map(|drain| &drain.machine);
    for machine in machines.filter(|machine| machine.status != PRESENT) {
        report.ui.note(&format!(
            "Machine {} is {}: nothing leaves it in order until it is back",
            shown(machine),
            machine.status
        ));
    }
    let mut last_change = Instant::now();
    let mut is_lost = false;
    while !drains.is_empty() {
        let mut problem = None;
        for drain in &mut drains {
            match drain.look(fleet, report).await {
                Ok(has_changed) => {
                    if has_changed {
                        last_change = Instant::now();
                    }
                }
                Err(error) => problem = Some(error),
            }
        }
        if let Some(error) = problem {
            if !std::mem::replace(&mut is_lost, true) {
                report.ui.note(&format!("{error}; asking again"));
                report.hint_once(&cures(&error));
            }
        } else {
            is_lost = false;
        }
        drains.retain(|drain| !drain.is_over);
        let only_stuck = drains.iter().all(Drain::is_stuck);
        if !drains.is_empty() && patience.is_over(Instant::now(), last_change, only_stuck) {
            for drain in &drains {
                drain.tell_left(report);
            }
            return;
        }
        if !drains.is_empty() {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// One machine that is being drained.
pub(crate) struct Drain {
    machine: MachineView,
    /// What it had when it was last looked at.
    left: BTreeMap<String, MachineUnit>,
    /// It was empty then.
    is_over: bool,
    /// Why units stay, as it was told.
    told: BTreeMap<String, String>,
}

impl Drain {
    /// A machine, before it is asked to be drained.
    ///
    /// # Errors
    /// Its units cannot be listed.
    pub(crate) async fn begin(
        fleet: &Fleet<'_>,
        machine: MachineView,
    ) -> Result<Drain, CommandError> {
        let units = match fleet.units_of_machine(&machine.id).await {
            Ok(units) => units,
            Err(Error::NoV2) => return Err(original()),
            Err(error) => {
                let what = format!("Error listing the units of machine {}", machine.id);
                return Err(CommandError::api(&what, &error));
            }
        };
        Ok(Drain {
            machine,
            left: by_name(units),
            is_over: false,
            told: BTreeMap::new(),
        })
    }

    /// All that is left cannot leave, or waits for such a one.
    fn is_stuck(&self) -> bool {
        let stays = |unit: &MachineUnit| stays(unit, &self.machine.id);
        self.left.values().any(stays) && self.left.values().all(|unit| unit.global || stays(unit))
    }

    /// Looks, tells what is new, and says whether anything was.
    async fn look(&mut self, fleet: &Fleet<'_>, report: &Report<'_>) -> Result<bool, Error> {
        let units = fleet.units_of_machine(&self.machine.id).await?;
        let now = by_name(units);
        let before = self.left.clone();
        let mut departed: Vec<String> = before
            .keys()
            .filter(|name| !now.contains_key(*name))
            .cloned()
            .collect();
        if !departed.is_empty() {
            let known = fleet.lookup(&departed).await?;
            let machines = fleet.machines().await?;
            // Global units stop last, and are told last.
            departed.sort_by_key(|name| before.get(name).is_some_and(|unit| unit.global));
            for name in &departed {
                let was_global = before.get(name).is_some_and(|unit| unit.global);
                self.tell_departed(report, name, was_global, known.get(name), &machines);
            }
        }
        for unit in now.values().filter(|unit| stays(unit, &self.machine.id)) {
            if self.told.get(&unit.name) != Some(&unit.reason) {
                self.told.insert(unit.name.clone(), unit.reason.clone());
                let at = shown(&self.machine);
                report.ui.note(&format!(
                    "Unit {} stays on {at}: {}",
                    unit.name, unit.reason
                ));
            }
        }
        if now.is_empty() {
            let words = format!("Machine {} drained", shown(&self.machine));
            report.machine("", "drained", &self.machine, &words);
        }
        self.is_over = now.is_empty();
        self.left = now;
        Ok(before != self.left)
    }

    fn tell_departed(
        &self,
        report: &Report<'_>,
        name: &str,
        was_global: bool,
        unit: Option<&UnitView>,
        machines: &[MachineView],
    ) {
        let to = unit.and_then(|unit| unit.machine_id.as_ref());
        let to = to.and_then(|id| machines.iter().find(|machine| machine.id == *id));
        match (to, unit) {
            (Some(to), _) if !was_global => {
                let words = format!("Unit {name} moved to {}", shown(to));
                report.machine(name, "moved", to, &words);
            }
            (None, Some(unit)) if !was_global && unit.desired_state != "inactive" => {
                let text = format!("Unit {name} is on no machine: {}", unit.reason);
                report.failed(name, &text);
            }
            _ => {
                let words = format!("Unit {name} stopped on {}", shown(&self.machine));
                report.machine(name, "stopped", &self.machine, &words);
            }
        }
    }

    fn tell_left(&self, report: &Report<'_>) {
        let at = shown(&self.machine);
        for unit in self.left.values().take(MAX_NAMED) {
            let id = self.machine.id.as_str();
            let why = match unit.machine_id.as_deref() {
                _ if unit.global => "global units stop last".to_owned(),
                Some(to) if to != id => {
                    format!("another machine has not yet taken it over: {}", unit.reason)
                }
                Some(_) if stays(unit, &self.machine.id) => unit.reason.clone(),
                Some(_) => "it waits for its turn".to_owned(),
                None => unit.reason.clone(),
            };
            report.failed(
                &unit.name,
                &format!("Unit {} is left on {at}: {why}", unit.name),
            );
        }
        if self.left.len() > MAX_NAMED {
            report.failed_machine(
                &self.machine.id,
                &format!(
                    "and {} more units are left on {at}",
                    self.left.len() - MAX_NAMED
                ),
            );
        }
        report.ui.hint(&format!(
            "the drain goes on, and what is left moves as soon as it can; fleetctl uncordon {} \
             ends it",
            self.machine.id.get(..8).unwrap_or(&self.machine.id)
        ));
    }
}

fn by_name(units: Vec<MachineUnit>) -> BTreeMap<String, MachineUnit> {
    let named = units.into_iter().map(|unit| (unit.name.clone(), unit));
    named.collect()
}

/// It is to leave the machine and cannot.
fn stays(unit: &MachineUnit, id: &str) -> bool {
    !unit.refusals.is_empty() && unit.machine_id.as_deref() == Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_longer_while_units_move() {
        let now = Instant::now();
        let usual = Patience::new(None);
        assert!(!usual.is_over(now + STUCK_PATIENCE - Duration::from_secs(1), now, true));
        assert!(usual.is_over(now + STUCK_PATIENCE, now, true));
        assert!(!usual.is_over(now + STUCK_PATIENCE, now, false));
        assert!(usual.is_over(now + STILL_PATIENCE, now, false));
        let bound = Patience::new(Some(Duration::from_secs(30)));
        assert!(!bound.is_over(now + STUCK_PATIENCE, now, true));
        assert!(bound.is_over(Instant::now() + Duration::from_secs(31), now, false));
    }
}
