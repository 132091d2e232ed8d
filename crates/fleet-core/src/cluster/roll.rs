//! Who is away. It is kept machine by machine, so that no event has to ask all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Machine;
use super::{Cluster, Settings};
use crate::records::{MachineId, MemberStatus};

/// The members of the cluster, and those of them that have vanished.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Roll {
    members: BTreeMap<MachineId, Option<Away>>,
    /// Those that are not given up yet, by when they vanished.
    waiting: BTreeMap<u64, BTreeSet<MachineId>>,
    /// How many vanished at each time; of those also that were given up a moment ago.
    vanished: BTreeMap<u64, usize>,
}

/// A member that has vanished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Away {
    since: u64,
    is_given_up: bool,
    /// It says something about the others. One that was lost before this planner looked went for
    /// a reason of its own.
    counts: bool,
}

impl Roll {
    /// Enters what a machine is now; None: it is forgotten.
    fn enter(&mut self, id: &MachineId, machine: Option<&Machine>) {
        let now = machine.and_then(standing);
        if self.members.get(id).copied() == now {
            return;
        }
        if let Some(Some(away)) = self.members.remove(id) {
            if let Some(ids) = self.waiting.get_mut(&away.since) {
                ids.remove(id);
                if ids.is_empty() {
                    self.waiting.remove(&away.since);
                }
            }
            if away.counts
                && let Some(n) = self.vanished.get_mut(&away.since)
            {
                *n -= 1;
                if *n == 0 {
                    self.vanished.remove(&away.since);
                }
            }
        }
        let Some(now) = now else { return };
        self.members.insert(id.clone(), now);
        let Some(away) = now else { return };
        if !away.is_given_up {
            let ids = self.waiting.entry(away.since).or_default();
            ids.insert(id.clone());
        }
        if away.counts {
            *self.vanished.entry(away.since).or_default() += 1;
        }
    }

    /// The machines that are away and not given up yet.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &MachineId> {
        self.waiting.values().flatten()
    }

    /// When they vanished, each time once.
    pub(crate) fn waiting_since(&self) -> impl Iterator<Item = u64> {
        self.waiting.keys().copied()
    }

    /// Whether too many vanished about that time for it to be their fault. What vanishes within the
    /// grace and the spread vanishes at once: nobody is given up in less than the grace, and the
    /// leases of machines that are cut off together end apart. What comes too late to keep the
    /// first machine's units where they were still keeps those of all others.
    pub(crate) fn too_many_at(&self, vanished_at: u64, settings: &Settings) -> bool {
        let share = self.members.len() * settings.freeze_percent as usize / 100;
        let limit = share.max(1);
        let window_ms = settings.lost_after_ms.saturating_add(settings.spread_ms);
        let from = vanished_at.saturating_sub(window_ms);
        let to = vanished_at.saturating_add(window_ms);
        self.vanished
            .range(from..=to)
            .map(|(_, n)| n)
            .sum::<usize>()
            > limit
    }
}

impl Cluster {
    /// A machine has changed, or its first unit has come, or its last has gone.
    pub(crate) fn call(&mut self, id: &MachineId) {
        self.roll.enter(id, self.machines.get(id));
    }

    /// The roll as it would be if every machine were asked.
    #[cfg(test)]
    pub(crate) fn roll_of_all(&self) -> Roll {
        let mut roll = Roll::default();
        for (id, machine) in &self.machines {
            roll.enter(id, Some(machine));
        }
        roll
    }
}

/// None: it is no member. Some(None): it has not vanished.
fn standing(machine: &Machine) -> Option<Option<Away>> {
    #[cfg(test)]
    tests::ASKED.set(tests::ASKED.get() + 1);
    let recorded = machine.member.as_ref().map(|member| member.status);
    let gone = matches!(
        recorded,
        Some(MemberStatus::Retired | MemberStatus::Unsupervised)
    );
    // Who said goodbye has not vanished.
    let left = machine.left_in_order() || (machine.is_absent() && machine.shut_down);
    if gone || left || machine.was_never_seen() {
        return None;
    }
    let since = machine.vanished_at.filter(|_| machine.is_absent());
    let is_given_up = recorded == Some(MemberStatus::Lost);
    Some(since.map(|since| Away {
        since,
        is_given_up,
        counts: !is_given_up || machine.given_up,
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::cluster::Fact;
    use crate::plan::Now;
    use crate::records::MachineRecord;

    thread_local! {
        /// How often a machine was asked on this thread.
        pub(super) static ASKED: Cell<usize> = const { Cell::new(0) };
    }

    /// How many machines are asked when one is lost, from the end of its lease to the end of its
    /// grace.
    fn asked_for_a_loss(n_machines: usize) -> usize {
        let mut cluster = Cluster::new(Settings::default());
        let plan = |cluster: &mut Cluster, monotonic_ms| {
            cluster.plan(Now {
                monotonic_ms,
                unix_ms: monotonic_ms,
            })
        };
        for n in 0..n_machines {
            let id = MachineId::new(&format!("m{n}"));
            cluster.apply(Fact::Presence(id, Some(MachineRecord::default())));
        }
        plan(&mut cluster, 0);
        ASKED.set(0);
        let lost = MachineId::new("m7");
        cluster.apply(Fact::Presence(lost.clone(), None));
        plan(&mut cluster, 1_000);
        let due = 1_000 + cluster.settings.lost_after_ms;
        plan(&mut cluster, due);
        assert_eq!(cluster.status(&lost), MemberStatus::Lost);
        ASKED.get()
    }

    #[test]
    fn the_loss_of_a_machine_costs_the_same_in_a_cluster_twice_as_large() {
        let few = asked_for_a_loss(100);
        assert_eq!(few, asked_for_a_loss(200));
        assert!(few < 10, "{few}");
    }
}
