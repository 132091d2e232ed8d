//! Where a unit may run: [`filters`] over candidates, then the smallest [`Score`]. A machine that
//! already has the unit is judged more leniently ([`Cluster::may_stay`]): only what a user has
//! changed since can make it unfit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use crate::cluster::{Cluster, Machine, Score, WaitFor, matching};
use crate::glob::Glob;
use crate::name::UnitName;
use crate::records::{MachineId, Order};
use crate::requirements::Requirements;

mod filters;

use filters::{FILTERS, FOR_A_RETURN, id_matches};
pub(crate) use filters::{closed_because, loadable, metadata_matches, metadata_words};

/// A machine is preferred that suits the unit's followers too; beyond so many of them the rest
/// is not asked, so that one placement stays cheap.
const MAX_GROUP: usize = 64;

/// Why a machine may not run a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum No {
    /// No systemd loads units of its type.
    NotLoadable(String),
    /// It takes no new units.
    Closed(String),
    /// It must not run twice, and this machine, which does not believe the store, may run it.
    InDoubt(MachineId),
    /// The same of a machine that has vanished.
    MayStillRun(MachineId),
    MachineId(String),
    Metadata(String),
    /// A peer is on no machine.
    PeerNowhere(String),
    /// A peer is elsewhere.
    PeerElsewhere(String),
    /// What `Conflicts` of the unit says.
    Conflicts(Glob, Stopping),
    /// `Conflicts` of another unit names it.
    ConflictOf(UnitName, Stopping),
    /// It would replace a unit that cannot go elsewhere.
    ReplacesFixed(UnitName),
    /// Another unit replaces it there.
    ReplacedBy(UnitName),
    /// A copy there, by a wish that this store has never had, is to stop first.
    StrayThere,
    RefusedByAgent(Arc<str>),
    FailedThere(Arc<str>),
    /// It suits the unit, but not one that follows it.
    Follower(UnitName),
}

/// Whether the unit in the way is only still there because its stop is not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stopping(pub(crate) bool);

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { " (still stopping)" } else { "" })
    }
}

/// In the words of the unit file, so that its author recognises them.
impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            No::Closed(why) | No::NotLoadable(why) => f.write_str(why),
            No::InDoubt(id) => write!(
                f,
                "Exclusive, and {} does not believe this store and may run it (fleetctl accept-store)",
                id.short()
            ),
            No::MayStillRun(id) => write!(
                f,
                "Exclusive, and {} did not believe this store when it was seen last: what may run \
                 there has not surely stopped yet",
                id.short()
            ),
            No::MachineId(id) => write!(f, "MachineID {id}"),
            No::Metadata(pairs) => write!(f, "MachineMetadata {pairs}"),
            No::PeerNowhere(peer) => write!(f, "MachineOf {peer} is not placed"),
            No::PeerElsewhere(peer) => write!(f, "MachineOf {peer} is on another machine"),
            No::Conflicts(pattern, stopping) => write!(f, "Conflicts with {pattern}{stopping}"),
            No::ConflictOf(unit, stopping) => write!(f, "{unit} conflicts with it{stopping}"),
            No::ReplacesFixed(unit) => {
                write!(f, "Replaces {unit}, which has nowhere else to go")
            }
            No::ReplacedBy(unit) => write!(f, "{unit} replaces it there"),
            No::StrayThere => f.write_str(STRAY_THERE),
            No::RefusedByAgent(why) => write!(f, "the machine refused it: {why}"),
            No::FailedThere(why) => write!(f, "it failed there: {why}"),
            No::Follower(unit) => write!(f, "{unit}, which follows it, cannot come along"),
        }
    }
}

/// What [`No::StrayThere`] says.
pub(crate) const STRAY_THERE: &str =
    "a copy there, which this store has not ordered, has not stopped yet";

/// A unit in search of a machine.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) unit: &'a UnitName,
    pub(crate) needs: &'a Requirements,
    pub(crate) now_ms: u64,
    /// This one before all others.
    pub(crate) prefer: Option<&'a MachineId>,
    /// Any but this one.
    pub(crate) except: Option<&'a MachineId>,
    /// Only these.
    pub(crate) only: Option<&'a BTreeSet<MachineId>>,
    /// It goes only where its followers can go too.
    pub(crate) with_followers: bool,
    /// It is moved to make room: it may not push out others in its turn.
    pub(crate) makes_room: bool,
}

/// What a search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    At(Score),
    Nowhere {
        /// Some machine refused only because another unit is stuck: one that is to be replaced,
        /// or one that follows.
        for_want_of_room: bool,
    },
}

impl Cluster {
    /// The best machine for a unit.
    pub(crate) fn find(&self, search: &Search<'_>) -> Found {
        let group = self.group(search.unit);
        let mut alone = None;
        // Where it has failed it is tried after all others.
        let failed_on = self.failed_on(search.unit);
        let mut last = None;
        let mut for_want_of_room = false;
        for score in self.candidates(search) {
            if search.except == Some(&score.machine) {
                continue;
            }
            let Some(machine) = self.machines.get(&score.machine) else {
                continue;
            };
            match self.judge(search, &score.machine, machine) {
                Ok(()) => {}
                Err(No::ReplacesFixed(_)) => {
                    for_want_of_room = true;
                    continue;
                }
                Err(_) => continue,
            }
            if self
                .group_fits(search, &group, &score.machine, machine)
                .is_ok()
            {
                if !failed_on.contains(&score.machine) {
                    return Found::At(score);
                }
                last.get_or_insert(score);
                continue;
            }
            if search.with_followers {
                for_want_of_room = true;
            } else if alone.is_none() {
                alone = Some(score);
            }
        }
        last.or(alone)
            .map_or(Found::Nowhere { for_want_of_room }, Found::At)
    }

    /// The machines where a unit has failed before it was moved.
    pub(crate) fn failed_on(&self, unit: &UnitName) -> &[MachineId] {
        self.units.get(unit).map_or(&[], |unit| unit.failed_on())
    }

    /// Whether a machine may get a unit, by all the rules.
    pub(crate) fn judge(
        &self,
        search: &Search<'_>,
        id: &MachineId,
        machine: &Machine,
    ) -> Result<(), No> {
        FILTERS
            .iter()
            .try_for_each(|filter| filter(self, search, id, machine))
    }

    /// As [`Cluster::judge`], and the unit's followers if they have to come along.
    pub(crate) fn judge_all(
        &self,
        search: &Search<'_>,
        id: &MachineId,
        machine: &Machine,
    ) -> Result<(), No> {
        self.judge(search, id, machine)?;
        if search.with_followers {
            self.group_fits(search, &self.group(search.unit), id, machine)?;
        }
        Ok(())
    }

    /// Whether a unit may go back to a machine that has not yet confirmed its stop.
    pub(crate) fn may_return(&self, search: &Search<'_>, id: &MachineId) -> bool {
        self.machines.get(id).is_some_and(|machine| {
            machine.damaged.is_empty()
                && !machine.is_being_left()
                && FOR_A_RETURN
                    .iter()
                    .all(|filter| filter(self, search, id, machine).is_ok())
        })
    }

    /// Whether a unit may stay where it is. `gives_way` collects the units that conflict with it
    /// there and have to leave in its stead.
    pub(crate) fn may_stay(
        &self,
        unit: &UnitName,
        needs: &Requirements,
        id: &MachineId,
        gives_way: &mut BTreeSet<UnitName>,
    ) -> Result<(), No> {
        let Some(machine) = self.machines.get(id) else {
            return Ok(());
        };
        if !machine.damaged.is_empty() {
            return Ok(());
        }
        id_matches(needs, id)?;
        metadata_matches(needs, machine)?;
        self.peers_match(needs, id, &[])?;
        let rank = self.rank(unit);
        for other in self.conflicting(unit, needs, machine) {
            if !machine.runs(other.as_str()) {
                continue;
            }
            if self.is_global(&other) {
                gives_way.insert(other);
                continue;
            }
            if self.rank(&other) < rank || self.units.get(&other).is_some_and(|u| u.is_frozen()) {
                return Err(self.conflict_words(unit, needs, &other, Stopping(false)));
            }
            gives_way.insert(other);
        }
        Ok(())
    }

    /// Of two units that must not be together, the one whose wish is newer gives way.
    pub(crate) fn rank(&self, unit: &UnitName) -> (u64, UnitName) {
        let wish = self.units.get(unit).and_then(|unit| unit.wish.as_ref());
        (wish.map_or(0, |wish| wish.generation), unit.clone())
    }

    pub(crate) fn is_global(&self, unit: &UnitName) -> bool {
        self.globals.contains_key(unit)
    }

    /// The units on a machine that must not be together with this one, in whichever direction.
    pub(crate) fn conflicting(
        &self,
        unit: &UnitName,
        needs: &Requirements,
        machine: &Machine,
    ) -> BTreeSet<UnitName> {
        let mut units: BTreeSet<_> = machine.conflicts.owners(unit.as_str()).cloned().collect();
        for pattern in &needs.conflicts {
            units.extend(matching(&machine.units, pattern).map(|(name, _)| name.clone()));
        }
        units.remove(unit);
        units
    }

    pub(crate) fn conflict_words(
        &self,
        unit: &UnitName,
        needs: &Requirements,
        other: &UnitName,
        stopping: Stopping,
    ) -> No {
        let own = needs
            .conflicts
            .iter()
            .find(|pattern| pattern.matches(other.as_str()));
        match own {
            Some(pattern) if other != unit => No::Conflicts(pattern.clone(), stopping),
            _ => No::ConflictOf(other.clone(), stopping),
        }
    }

    /// A unit on this machine that makes this one go elsewhere.
    pub(crate) fn replacer(
        &self,
        unit: &UnitName,
        needs: &Requirements,
        machine: &Machine,
    ) -> Option<UnitName> {
        if machine.replaces.is_empty() {
            return None;
        }
        let owners: BTreeSet<_> = machine.replaces.owners(unit.as_str()).collect();
        owners
            .into_iter()
            .find(|owner| {
                // Two units that replace each other leave each other alone.
                let mutual = needs
                    .replaces
                    .iter()
                    .any(|pattern| pattern.matches(owner.as_str()));
                *owner != unit && !mutual && machine.runs(owner.as_str())
            })
            .cloned()
    }

    /// The units on a machine that this one makes go elsewhere.
    pub(crate) fn replaced(
        &self,
        unit: &UnitName,
        needs: &Requirements,
        machine: &Machine,
    ) -> BTreeSet<UnitName> {
        let mut units = BTreeSet::new();
        for pattern in &needs.replaces {
            for (other, order) in matching(&machine.units, pattern) {
                let mutual = self
                    .units
                    .get(other)
                    .and_then(|other| other.wish.as_ref())
                    .is_some_and(|wish| {
                        wish.requirements
                            .replaces
                            .iter()
                            .any(|p| p.matches(unit.as_str()))
                    });
                if other != unit && *order != Order::Gone && !mutual {
                    units.insert(other.clone());
                }
            }
        }
        units
    }

    /// Whether a unit is, or is to be, on a machine.
    pub(crate) fn is_on(&self, unit: &str, id: &MachineId) -> bool {
        self.units.get(unit).is_some_and(|unit| {
            if unit.is_global() {
                unit.wanted_at().any(|(at, _)| at == id)
            } else {
                unit.home() == Some(id)
            }
        })
    }

    /// A circle of `MachineOf` that starts and ends at this unit.
    pub(crate) fn cycle(&self, unit: &UnitName) -> Option<Vec<String>> {
        // Breadth first, so that the shortest circle is named.
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([unit.as_str()]);
        while let Some(at) = queue.pop_front() {
            let wish = self.units.get(at).and_then(|unit| unit.wish.as_ref());
            for peer in wish.map_or(&[][..], |wish| &wish.requirements.machine_of) {
                if peer == unit.as_str() {
                    let mut circle = vec![unit.as_str().to_owned()];
                    let mut step = at;
                    while step != unit.as_str() {
                        circle.push(step.to_owned());
                        step = came_from.get(step).copied().unwrap_or(unit.as_str());
                    }
                    circle.push(unit.as_str().to_owned());
                    circle.reverse();
                    return Some(circle);
                }
                if !came_from.contains_key(peer.as_str()) {
                    came_from.insert(peer, at);
                    queue.push_back(peer);
                }
            }
        }
        None
    }

    /// What could end the wait of a unit that found no machine.
    pub(crate) fn wait_for(&self, needs: &Requirements) -> WaitFor {
        if let Some(id) = &needs.machine_id {
            return WaitFor::MachineId(id.clone());
        }
        let ordinary = needs
            .machine_of
            .iter()
            .map(|peer| self.units.get(peer.as_str()))
            .find(|peer| !peer.is_some_and(|peer| peer.is_global()));
        if let Some(peer) = ordinary {
            let home = peer.and_then(|peer| peer.home());
            return home.map_or(WaitFor::Peer, |id| WaitFor::Machine(id.clone()));
        }
        match needs.metadata.first_key_value() {
            Some((key, values)) => WaitFor::Metadata(key.clone(), values.clone()),
            None => WaitFor::Any,
        }
    }

    /// Machines that are worth asking, best first.
    fn candidates<'a>(&'a self, search: &Search<'a>) -> Box<dyn Iterator<Item = Score> + 'a> {
        let of = |ids: &mut dyn Iterator<Item = &MachineId>| {
            let mut scores: Vec<_> = ids
                .filter_map(|id| {
                    let machine = self.machines.get(id)?;
                    machine.open.then(|| machine.score(id))
                })
                .collect();
            scores.sort();
            Box::new(scores.into_iter())
        };
        let preferred = search
            .prefer
            .filter(|id| search.only.is_none_or(|only| only.contains(*id)));
        let preferred = of(&mut preferred.into_iter());
        if let Some(only) = search.only {
            return Box::new(preferred.chain(of(&mut only.iter())));
        }
        let others: Box<dyn Iterator<Item = Score>> = match self.wait_for(search.needs) {
            WaitFor::MachineId(text) => {
                let from = (Bound::Included(text.as_str()), Bound::Unbounded);
                let ids = self.machines.range::<str, _>(from).map(|(id, _)| id);
                of(&mut ids
                    .take_while(|id| id.as_str().starts_with(&text))
                    .filter(|id| id_matches(search.needs, id).is_ok()))
            }
            WaitFor::Machine(id) => of(&mut std::iter::once(&id)),
            WaitFor::Peer => Box::new(std::iter::empty()),
            WaitFor::Metadata(..) | WaitFor::Any => {
                Box::new(self.open.candidates(&search.needs.metadata).cloned())
            }
        };
        Box::new(preferred.chain(others))
    }

    pub(crate) fn peers_match(
        &self,
        needs: &Requirements,
        id: &MachineId,
        along: &[UnitName],
    ) -> Result<(), No> {
        for peer in &needs.machine_of {
            let comes_along = || along.iter().any(|unit| unit.as_str() == peer);
            if self.is_on(peer, id) || comes_along() {
                continue;
            }
            let placed = self
                .units
                .get(peer.as_str())
                .is_some_and(|unit| unit.home().is_some());
            return Err(if placed {
                No::PeerElsewhere(peer.clone())
            } else {
                No::PeerNowhere(peer.clone())
            });
        }
        Ok(())
    }

    /// The units that follow a unit, directly or not, and are wanted on a machine.
    fn group(&self, unit: &UnitName) -> Vec<UnitName> {
        if !self.followers.contains_key(unit.as_str()) {
            return Vec::new();
        }
        let mut group: Vec<UnitName> = Vec::new();
        let mut next = 0;
        let mut at = unit.clone();
        loop {
            for follower in self.followers.get(at.as_str()).into_iter().flatten() {
                let wanted = self.units.get(follower).is_some_and(|unit| {
                    let wish = unit.wish.as_ref();
                    !unit.is_frozen() && wish.is_some_and(|wish| wish.order(follower).is_some())
                });
                if wanted
                    && follower != unit
                    && !group.contains(follower)
                    && group.len() < MAX_GROUP
                {
                    group.push(follower.clone());
                }
            }
            match group.get(next) {
                Some(follower) => at = follower.clone(),
                None => return group,
            }
            next += 1;
        }
    }

    /// Whether a machine suits the followers of a unit that would come to it.
    fn group_fits(
        &self,
        search: &Search<'_>,
        group: &[UnitName],
        id: &MachineId,
        machine: &Machine,
    ) -> Result<(), No> {
        if group.is_empty() {
            return Ok(());
        }
        let mut along = group.to_vec();
        along.push(search.unit.clone());
        for follower in group {
            let no = || No::Follower(follower.clone());
            let Some(unit) = self.units.get(follower) else {
                continue;
            };
            let Some(wish) = &unit.wish else {
                continue;
            };
            let needs = &wish.requirements;
            id_matches(needs, id).map_err(|_| no())?;
            metadata_matches(needs, machine).map_err(|_| no())?;
            self.peers_match(needs, id, &along).map_err(|_| no())?;
            let others = self.conflicting(follower, needs, machine);
            if others.iter().any(|other| !along.contains(other))
                || self.replacer(follower, needs, machine).is_some()
                || unit.back_off(id, search.now_ms).is_some()
                || unit.goes_by_a_higher_number(id)
            {
                return Err(no());
            }
        }
        Ok(())
    }
}
