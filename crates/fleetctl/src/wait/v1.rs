//! Waiting with an original fleetd: it is asked again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_api::client::Error;
use fleet_api::v1::{Machine, Unit, UnitState};
use fleet_api::v2::{MachineRef, Progress, StateView};
use tokio::time::{Instant, sleep};

use super::{Awaited, Bounds, Waited, Waits, is_passing};
use crate::error::cures;
use crate::fleet::Fleet;
use crate::report::{Goal, Report};

/// Between two rounds; the original's.
const POLL: Duration = Duration::from_millis(250);

/// Up to so many units are asked for one by one; more are picked out of the listing.
const MAX_SINGLE_POLLS: usize = 16;

/// A launched unit that is dead for so long has finished. v1 does not say whether systemd has
/// got round to starting it; the original waits so long, too.
const FINISHED_AFTER: Duration = Duration::from_secs(2);

/// All that v1 says of it.
const NOWHERE: &str = "fleetd has found no machine for it, and does not say why";

/// An original engine places what it can within two seconds. What has no machine for twice that
/// is said to have none.
const PENDING_AFTER: Duration = Duration::from_secs(4);

/// Waits for units until each is final or its time is over.
pub(crate) async fn wait(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    awaited: Vec<Awaited>,
    bounds: Bounds,
) -> Waited {
    let mut waited = Waited::default();
    let mut waits =
        Waits::new(awaited, bounds, Instant::now()).noticed(fleet.ui.is_watched(), Instant::now());
    poll(fleet, report, &mut waits, &mut waited).await;
    waited.reached.append(&mut waits.reached);
    waited
}

async fn poll(fleet: &Fleet<'_>, report: &Report<'_>, waits: &mut Waits, waited: &mut Waited) {
    let mut poller = Poller {
        machines: None,
        dead_since: BTreeMap::new(),
        unplaced_since: BTreeMap::new(),
    };
    let mut is_lost = false;
    while waits.next_end().is_some() {
        let open: Vec<Awaited> = waits.open().cloned().collect();
        match poller.round(fleet, &open).await {
            Ok(progress) => {
                for progress in progress {
                    for event in waits.progress(&progress, Instant::now()) {
                        waited.take(event, report);
                    }
                }
            }
            Err(error) if is_passing(&error) => {
                if !std::mem::replace(&mut is_lost, true) {
                    fleet.ui.note(&format!("{error}; asking again"));
                }
            }
            Err(error) => {
                for event in waits.fail_all(&error.original_form()) {
                    waited.take(event, report);
                }
                report.hint_once(&cures(&error));
            }
        }
        for event in waits.expire(Instant::now()) {
            waited.take(event, report);
        }
        if waits.next_end().is_some() {
            sleep(POLL).await;
        }
    }
}

struct Poller {
    /// Read when the first unit has a machine.
    machines: Option<BTreeMap<String, Machine>>,
    dead_since: BTreeMap<String, Instant>,
    unplaced_since: BTreeMap<String, Instant>,
}

impl Poller {
    /// What there is to say of each unit.
    async fn round(&mut self, fleet: &Fleet<'_>, open: &[Awaited]) -> Result<Vec<Progress>, Error> {
        let mut listed = match open.len() > MAX_SINGLE_POLLS {
            true => Some(Listed::read(fleet).await?),
            false => None,
        };
        let mut round = Vec::with_capacity(open.len());
        for awaited in open {
            let name = awaited.name.as_str();
            let unit = match &mut listed {
                Some(listed) => listed.units.remove(name),
                None => fleet.client.unit(name).await?,
            };
            let needs_states = awaited.goal == Goal::Destroyed
                || awaited.global
                || unit.as_ref().is_some_and(|unit| {
                    awaited.goal == Goal::Launched && unit.current_state == "launched"
                });
            let states = match &mut listed {
                _ if !needs_states => Vec::new(),
                Some(listed) => listed.states.remove(name).unwrap_or_default(),
                None => fleet.client.states_where(Some(name), None).await?,
            };
            round.push(self.one(fleet, awaited, unit, states).await);
        }
        Ok(round)
    }

    async fn one(
        &mut self,
        fleet: &Fleet<'_>,
        awaited: &Awaited,
        unit: Option<Unit>,
        states: Vec<UnitState>,
    ) -> Progress {
        let mut progress = Progress {
            name: awaited.name.clone(),
            phase: "working".to_owned(),
            ..Progress::default()
        };
        let Some(unit) = unit else {
            // The unit is forgotten at once; its processes are gone when no state is left.
            if states.is_empty() {
                progress.phase = "destroyed".to_owned();
                progress.is_final = true;
            } else {
                progress.reason = "its machine has not stopped it yet".to_owned();
            }
            return progress;
        };
        if awaited.global {
            let is_there = is_global_there(awaited.goal, &states);
            if is_there {
                progress.phase = awaited.goal.as_str().to_owned();
                progress.is_final = true;
            } else if states.is_empty() && self.is_unplaced_for_long(&unit.name) {
                progress.phase = "pending".to_owned();
                progress.reason = NOWHERE.to_owned();
                progress.considered = 1;
            }
            return progress;
        }
        if !unit.machine_id.is_empty() {
            progress.machine = Some(self.machine(fleet, &unit.machine_id).await);
        } else if matches!(unit.desired_state.as_str(), "loaded" | "launched") {
            if awaited.stops || self.is_unplaced_for_long(&unit.name) {
                progress.phase = "pending".to_owned();
            }
            progress.reason = NOWHERE.to_owned();
            // Not one machine by one: v1 does not count.
            progress.considered = 1;
            return progress;
        }
        if unit.current_state != awaited.goal.as_str() {
            return progress;
        }
        match awaited.goal {
            Goal::Launched => self.launched(&mut progress, &unit, states),
            _ => {
                progress.phase = awaited.goal.as_str().to_owned();
                progress.is_final = true;
            }
        }
        progress
    }

    /// fleet has launched it: what does systemd say?
    fn launched(&mut self, progress: &mut Progress, unit: &Unit, states: Vec<UnitState>) {
        let mut states = states.into_iter();
        let Some(state) = states.find(|state| state.machine_id == unit.machine_id) else {
            progress.reason = "systemd has not reported yet".to_owned();
            return;
        };
        let (is_final, phase) = match (state.load.as_str(), state.active.as_str()) {
            ("loaded", "active" | "reloading") => (true, "launched"),
            (_, "failed") => (true, "failed"),
            ("loaded", "inactive") => {
                let now = Instant::now();
                let since = *self.dead_since.entry(unit.name.clone()).or_insert(now);
                // A timer, a socket or the like that is dead was not started. A process that has
                // ended without a fault has done its work.
                let is_service = unit.name.ends_with(".service");
                let ended = if is_service { "launched" } else { "failed" };
                (now - since >= FINISHED_AFTER, ended)
            }
            ("loaded", _) => (false, "working"),
            _ => (true, "failed"),
        };
        progress.reason = format!("systemd says {}/{}/{}", state.load, state.active, state.sub);
        if is_final {
            progress.phase = phase.to_owned();
            progress.is_final = true;
        }
        progress.state = Some(StateView {
            machine_id: state.machine_id,
            load: state.load,
            active: state.active,
            sub: state.sub,
            hash: state.hash,
            ..StateView::default()
        });
    }

    /// It is on no machine, and not only because the engine has not looked at it yet.
    fn is_unplaced_for_long(&mut self, unit: &str) -> bool {
        let now = Instant::now();
        let since = self.unplaced_since.entry(unit.to_owned()).or_insert(now);
        now - *since >= PENDING_AFTER
    }

    async fn machine(&mut self, fleet: &Fleet<'_>, id: &str) -> MachineRef {
        if self.machines.is_none() {
            // Without the list the address is missing, and that is all.
            let machines = fleet.client.machines().await.unwrap_or_default();
            let by_id = machines.into_iter().map(|m| (m.id.clone(), m));
            self.machines = Some(by_id.collect());
        }
        let machine = self.machines.as_ref().and_then(|machines| machines.get(id));
        MachineRef {
            id: id.to_owned(),
            primary_ip: machine.map(|m| m.primary_ip.clone()).unwrap_or_default(),
        }
    }
}

fn is_global_there(goal: Goal, states: &[UnitState]) -> bool {
    match goal {
        Goal::Launched => !states.is_empty() && states.iter().all(|s| s.active == "active"),
        Goal::Loaded => states
            .iter()
            .all(|s| matches!(s.active.as_str(), "inactive" | "failed")),
        Goal::Inactive | Goal::Destroyed => states.is_empty(),
    }
}

/// Everything, when that is less than asking for each.
struct Listed {
    units: BTreeMap<String, Unit>,
    states: BTreeMap<String, Vec<UnitState>>,
}

impl Listed {
    async fn read(fleet: &Fleet<'_>) -> Result<Listed, Error> {
        let units = fleet.client.units().await?;
        let mut states: BTreeMap<String, Vec<UnitState>> = BTreeMap::new();
        for state in fleet.client.states().await? {
            states.entry(state.name.clone()).or_default().push(state);
        }
        Ok(Listed {
            units: units
                .into_iter()
                .map(|unit| (unit.name.clone(), unit))
                .collect(),
            states,
        })
    }
}
