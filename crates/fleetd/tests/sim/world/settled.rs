//! What must be true when all faults are over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::hash::UnitHash;
use fleet_core::records::{
    AssignmentRecord, DesiredState, MachineWish, MemberStatus, Order, PlacementRecord, Reached,
    StateRecord, UnitRecord,
};
use fleetd::store::codec::Document;
use fleetd::store::keys::{self, Key};
use fleetd::store::{Range, Store};
use tokio::time::Instant;

use super::World;
use crate::audit::{is_global, is_moving, is_plain, moves_when_it_fails, short};
use crate::chance::lock;
use crate::host::{Behaviour, HostUnit};

/// By then a cluster without faults has settled: the longest pause between attempts is 30 s, as
/// is the engine's safety tick.
const SETTLE_BOUND: Duration = Duration::from_secs(150);

/// Then it must stay as it is for so long.
const STAY: Duration = Duration::from_secs(65);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// So many looks in a row find nothing to do before a cluster counts as settled: six seconds, in
/// which the lease of a process that died just before the faults ended has run out, too.
const CALM_LOOKS: u32 = 12;

impl World {
    /// The desired state is reached, and stays.
    pub(super) async fn settle(&mut self) {
        let bound = Instant::now() + SETTLE_BOUND;
        let mut calm = 0;
        while calm < CALM_LOOKS {
            tokio::time::sleep(LOOK).await;
            for violation in fleetd::sim::take_violations() {
                self.sim
                    .fail(format!("the leader's plan leaves: {violation}"));
            }
            if self.sim.failure().is_some() {
                return;
            }
            match self.is_settled().await {
                Ok(()) => calm += 1,
                Err(why) if Instant::now() >= bound => {
                    return self.sim.fail(format!("it does not settle: {why}"));
                }
                Err(_) => calm = 0,
            }
        }
        self.sim.note("settled", format_args!(""));
        let revision = self.center.audit.last_write();
        let invocations = self.invocations();
        tokio::time::sleep(STAY).await;
        if let Err(why) = self.is_settled().await {
            return self
                .sim
                .fail(format!("it was settled and is no more: {why}"));
        }
        if self.center.audit.last_write() != revision {
            return self
                .sim
                .fail("it was settled and yet something was written".to_owned());
        }
        if self.invocations() != invocations {
            self.sim
                .fail("it was settled and yet a unit was started".to_owned());
        }
    }

    /// Whether a machine has a unit of which an old backup knows nothing there: absence is no order.
    fn is_kept(&self, machine: &str, unit: &str) -> bool {
        let hosts = self.hosts.iter().filter(|host| host.id == machine);
        self.center.n_restores() > 0
            && hosts
                .flat_map(|host| host.units())
                .any(|(name, _)| name.as_str() == unit)
    }

    fn invocations(&self) -> Vec<(String, String)> {
        let units = self.hosts.iter().flat_map(|host| host.units());
        units
            .map(|(name, unit)| (name.to_string(), unit.invocation))
            .collect()
    }

    /// Whether everything is as it was asked for, nothing is left over and nothing is to be done.
    async fn is_settled(&self) -> Result<(), String> {
        let data = self.center.data();
        if let Some(first) = fleetd::sim::replan(&*data)
            .await
            .map_err(|error| error.to_string())?
            .first()
        {
            return Err(first.clone());
        }
        let snapshot = data
            .read(Range::default())
            .await
            .map_err(|error| error.to_string())?;
        let wants = lock(&self.town.wants).clone();
        for (unit, want) in &wants {
            self.town.is_kept(unit, want).await?;
        }
        let mut assigned: BTreeMap<(String, String), AssignmentRecord> = BTreeMap::new();
        let mut placements = BTreeMap::new();
        let mut closed = BTreeSet::new();
        for entry in &snapshot.entries {
            let unit = match keys::parse(&entry.key) {
                Key::Assignment(machine, unit) => {
                    let record = AssignmentRecord::decode(&entry.key, &entry.value)
                        .map_err(|error| error.to_string())?;
                    assigned.insert((machine.to_owned(), unit.to_owned()), record);
                    unit
                }
                Key::Placement(unit) => {
                    let record = PlacementRecord::decode(&entry.key, &entry.value)
                        .map_err(|error| error.to_string())?;
                    placements.insert(unit.to_owned(), record);
                    unit
                }
                Key::Unit(unit) | Key::State(unit, _) => unit,
                Key::MachineWish(machine) => {
                    let wish = MachineWish::decode(&entry.key, &entry.value)
                        .map_err(|error| error.to_string())?;
                    if wish.drain || wish.cordon {
                        closed.insert((machine.to_owned(), wish.drain));
                    }
                    continue;
                }
                Key::Member(_) => {
                    let member =
                        fleet_core::records::MemberRecord::decode(&entry.key, &entry.value);
                    match member {
                        Ok(member) if member.status == MemberStatus::Present => continue,
                        other => return Err(format!("{}: {other:?}", entry.key)),
                    }
                }
                _ => continue,
            };
            // It goes with its lease.
            let rests = entry.lease.is_some()
                && UnitRecord::decode(&entry.key, &entry.value).is_ok_and(|unit| unit.buried);
            if rests && matches!(keys::parse(&entry.key), Key::Unit(_)) {
                continue;
            }
            if let Key::State(unit, machine) = keys::parse(&entry.key)
                && self.is_kept(machine, unit)
            {
                continue;
            }
            if wants.get(unit).is_none_or(|want| want.text.is_none()) {
                return Err(format!("{} is left over", entry.key));
            }
            if let Key::State(unit, machine) = keys::parse(&entry.key)
                && self.center.n_restores() == 0
            {
                if !assigned.contains_key(&(machine.to_owned(), unit.to_owned())) {
                    return Err(format!("{} is left over", entry.key));
                }
                let state = StateRecord::decode(&entry.key, &entry.value);
                if state.is_ok_and(|state| state.reached == Reached::Working) {
                    return Err(format!("{}: its machine is still at it", entry.key));
                }
            }
        }
        for (unit, want) in &wants {
            let homes: Vec<_> = assigned.keys().filter(|(_, u)| u == unit).collect();
            let goes_anywhere = is_plain(unit) || moves_when_it_fails(unit);
            let is_open = closed.len() < self.hosts.len();
            let drained =
                |(machine, _): &&&(String, String)| closed.contains(&(machine.clone(), true));
            if let Some((machine, _)) = homes.iter().find(drained)
                && goes_anywhere
                && is_open
            {
                return Err(format!("{unit} is still on {}", short(machine)));
            }
            let expected = match want.desired {
                DesiredState::Inactive | DesiredState::Destroyed => 0,
                // Where they are already, they stay.
                _ if is_global(unit) && !closed.is_empty() => homes.len(),
                _ if is_global(unit) => self.hosts.len(),
                _ if goes_anywhere && is_open => 1,
                // Others may have to wait.
                _ => homes.len().min(1),
            };
            if homes.len() != expected {
                return Err(format!(
                    "{unit} is on {} machines, not {expected}",
                    homes.len()
                ));
            }
        }
        for host in &self.hosts {
            let units = host.units();
            for (name, unit) in &units {
                let key = (host.id.clone(), name.to_string());
                let Some(assignment) = assigned.get(&key) else {
                    if self.is_kept(&host.id, name.as_str()) {
                        continue;
                    }
                    return Err(format!(
                        "{name} is left over on {}: {:?}",
                        short(&host.id),
                        unit.record
                    ));
                };
                let is_refused = unit.file.is_none() && unit.record.is_none();
                let right = is_refused
                    || (unit.file.as_ref().map(|(hash, _)| *hash) == Some(assignment.hash)
                        && is_as_ordered(assignment, unit));
                let others = self.hosts.iter().filter(|other| {
                    let is_closed = closed.iter().any(|(machine, _)| *machine == other.id);
                    other.id != host.id && !is_closed
                });
                if moves_when_it_fails(name.as_str())
                    && unit.active == "failed"
                    && assignment.order == Order::Launched
                    && let Some(placement) = placements.get(name.as_str())
                    && let (reason, others) = (&placement.reason, others.count())
                    && let Some(why) = is_moving(&placement.failures, reason, others)
                {
                    return Err(format!("{name} on {} {why}", short(&host.id)));
                }
                if !right {
                    return Err(format!(
                        "{name} on {} is {} with {:?}, ordered: {:?} {}",
                        short(&host.id),
                        unit.active,
                        unit.record,
                        assignment.order,
                        assignment.decision
                    ));
                }
            }
            let missing = assigned.iter().find(|((machine, unit), record)| {
                let is_odd = Behaviour::of(&record.text) == Behaviour::Odd;
                *machine == host.id && !is_odd && !units.keys().any(|name| name.as_str() == unit)
            });
            if let Some(((_, unit), _)) = missing {
                return Err(format!("{unit} is missing on {}", short(&host.id)));
            }
        }
        Ok(())
    }
}

/// Whether a unit is as its assignment says, whatever has become of its process since.
fn is_as_ordered(assignment: &AssignmentRecord, unit: &HostUnit) -> bool {
    let hash: UnitHash = assignment.hash;
    let Some(record) = &unit.record else {
        return false;
    };
    let is_current = record.decision == assignment.decision && record.hash == hash;
    match assignment.order {
        Order::Launched => {
            let may_be_down = matches!(
                Behaviour::of(&assignment.text),
                Behaviour::Fails | Behaviour::Ends
            ) || unit.active == "failed";
            is_current
                && record.restarts == assignment.restarts
                && (unit.active == "active" || may_be_down && unit.is_down())
        }
        Order::Loaded => is_current && unit.is_down(),
        Order::Gone => false,
    }
}
