//! What may keep a unit from a machine: each filter is a small function that lets the machine pass or
//! says why not.

use std::collections::BTreeSet;

use super::{Found, No, Search, Stopping};
use crate::cluster::{Cluster, Machine};
use crate::name::UnitName;
use crate::records::{MachineId, MemberStatus};
use crate::requirements::{Requirements, not_loadable};

pub(super) type Filter = fn(&Cluster, &Search<'_>, &MachineId, &Machine) -> Result<(), No>;

/// In the order in which reasons are given: the first that refuses names it.
pub(super) const FILTERS: [Filter; 11] = [
    is_loadable,
    not_in_doubt,
    takes_new_units,
    has_id,
    has_metadata,
    has_peers,
    no_conflict,
    not_replaced,
    not_backed_off,
    no_stray_stops,
    makes_way,
];

/// Those that count for a unit whose stop a machine has not yet confirmed.
pub(super) const FOR_A_RETURN: [Filter; 6] = [
    has_id,
    has_metadata,
    has_peers,
    no_conflict,
    not_replaced,
    no_stray_stops,
];

fn is_loadable(_: &Cluster, search: &Search<'_>, _: &MachineId, _: &Machine) -> Result<(), No> {
    loadable(search.unit)
}

/// Whether any systemd would load the unit, by its name alone: what no machine can run is tried
/// on none.
pub(crate) fn loadable(unit: &UnitName) -> Result<(), No> {
    not_loadable(unit.unit_type()).map_or(Ok(()), |why| Err(No::NotLoadable(why)))
}

/// An older copy of the store does not know where a unit has gone since: whoever does not believe it
/// may run it, whatever stands in it, and for a while after it was seen last.
fn not_in_doubt(
    cluster: &Cluster,
    search: &Search<'_>,
    _: &MachineId,
    _: &Machine,
) -> Result<(), No> {
    if !search.needs.exclusive {
        return Ok(());
    }
    let mut doubters = cluster.doubters_with(search.unit, search.now_ms);
    match doubters.next() {
        Some(doubter) if doubter.is_there => Err(No::InDoubt(doubter.id.clone())),
        Some(doubter) => Err(No::MayStillRun(doubter.id.clone())),
        None => Ok(()),
    }
}

fn takes_new_units(
    _: &Cluster,
    _: &Search<'_>,
    _: &MachineId,
    machine: &Machine,
) -> Result<(), No> {
    closed_because(machine).map_or(Ok(()), |why| Err(No::Closed(why)))
}

/// Why a machine takes no new units at present.
pub(crate) fn closed_because(machine: &Machine) -> Option<String> {
    if machine.status != MemberStatus::Present {
        return Some(format!("the machine is {}", machine.status.as_str()));
    }
    if machine.wish.drain {
        return Some("the machine is being drained".to_owned());
    }
    if machine.wish.cordon {
        return Some("the machine is cordoned".to_owned());
    }
    if let Some(place) = machine.damaged.first() {
        return Some(format!(
            "a record of the machine cannot be read ({place:?})"
        ));
    }
    machine.presence.as_ref()?.trouble.clone()
}

fn has_id(_: &Cluster, search: &Search<'_>, id: &MachineId, _: &Machine) -> Result<(), No> {
    id_matches(search.needs, id)
}

pub(super) fn id_matches(needs: &Requirements, id: &MachineId) -> Result<(), No> {
    match &needs.machine_id {
        Some(text) if text != id.as_str() && text != id.short() => Err(No::MachineId(text.clone())),
        _ => Ok(()),
    }
}

fn has_metadata(
    _: &Cluster,
    search: &Search<'_>,
    _: &MachineId,
    machine: &Machine,
) -> Result<(), No> {
    metadata_matches(search.needs, machine)
}

pub(crate) fn metadata_matches(needs: &Requirements, machine: &Machine) -> Result<(), No> {
    for (key, values) in &needs.metadata {
        let fits = machine
            .metadata
            .get(key)
            .is_some_and(|value| values.contains(value));
        if !fits {
            return Err(No::Metadata(any_of(key, values)));
        }
    }
    Ok(())
}

/// A requirement of metadata in the words of its refusal.
pub(crate) fn metadata_words(key: &str, values: &BTreeSet<String>) -> String {
    No::Metadata(any_of(key, values)).to_string()
}

/// `region=eu or region=us`
fn any_of(key: &str, values: &BTreeSet<String>) -> String {
    let pairs: Vec<_> = values
        .iter()
        .map(|value| format!("{key}={value}"))
        .collect();
    pairs.join(" or ")
}

fn has_peers(
    cluster: &Cluster,
    search: &Search<'_>,
    id: &MachineId,
    _: &Machine,
) -> Result<(), No> {
    cluster.peers_match(search.needs, id, &[])
}

fn no_conflict(
    cluster: &Cluster,
    search: &Search<'_>,
    _: &MachineId,
    machine: &Machine,
) -> Result<(), No> {
    if machine.conflicts.is_empty() && search.needs.conflicts.is_empty() {
        return Ok(());
    }
    // A unit whose stop is not confirmed counts as being there.
    match cluster
        .conflicting(search.unit, search.needs, machine)
        .first()
    {
        Some(other) => {
            let stopping = Stopping(!machine.runs(other.as_str()));
            Err(cluster.conflict_words(search.unit, search.needs, other, stopping))
        }
        None => Ok(()),
    }
}

fn not_replaced(
    cluster: &Cluster,
    search: &Search<'_>,
    _: &MachineId,
    machine: &Machine,
) -> Result<(), No> {
    cluster
        .replacer(search.unit, search.needs, machine)
        .map_or(Ok(()), |unit| Err(No::ReplacedBy(unit)))
}

fn not_backed_off(
    cluster: &Cluster,
    search: &Search<'_>,
    id: &MachineId,
    _: &Machine,
) -> Result<(), No> {
    let unit = cluster.units.get(search.unit);
    match unit.and_then(|unit| unit.back_off(id, search.now_ms)) {
        Some(back_off) if back_off.failed => Err(No::FailedThere(back_off.why.clone())),
        Some(back_off) => Err(No::RefusedByAgent(back_off.why.clone())),
        None => Ok(()),
    }
}

fn no_stray_stops(
    cluster: &Cluster,
    search: &Search<'_>,
    id: &MachineId,
    _: &Machine,
) -> Result<(), No> {
    let unit = cluster.units.get(search.unit);
    match unit.is_some_and(|unit| unit.goes_by_a_higher_number(id)) {
        true => Err(No::StrayThere),
        false => Ok(()),
    }
}

/// Units that this one replaces must be able to go elsewhere.
fn makes_way(
    cluster: &Cluster,
    search: &Search<'_>,
    id: &MachineId,
    machine: &Machine,
) -> Result<(), No> {
    for other in cluster.replaced(search.unit, search.needs, machine) {
        let no = || No::ReplacesFixed(other.clone());
        let Some(unit) = cluster.units.get(&other) else {
            continue;
        };
        if unit.home() != Some(id) && !unit.is_global() {
            continue; // It is on its way already.
        }
        let Some(wish) = unit.wish.as_ref() else {
            return Err(no());
        };
        if search.makes_room || unit.is_global() || unit.is_frozen() {
            return Err(no());
        }
        let elsewhere = Search {
            unit: &other,
            needs: &wish.requirements,
            prefer: None,
            except: Some(id),
            only: None,
            with_followers: true,
            makes_room: true,
            ..*search
        };
        if !matches!(cluster.find(&elsewhere), Found::At(_)) {
            return Err(no());
        }
    }
    Ok(())
}
