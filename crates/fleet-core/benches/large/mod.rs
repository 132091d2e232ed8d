//! A large cluster in which requirements are in play: machines in regions, with two kinds of disk;
//! apps of a few instances each, of which some want a region and a disk, some must not stand
//! beside each other, and some follow another unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::cluster::{Cluster, Fact, Reported, Settings, Wish};
use fleet_core::plan::{Now, Plan, Write};
use fleet_core::records::{MachineRecord, Order, Reached};

mod units;

use units::{INSTANCES, metadata, unit};
pub(crate) use units::{kind, machine};

/// The cluster, and what makes time go on in it.
pub(crate) struct Large {
    pub(crate) cluster: Cluster,
    revision: u64,
    now_ms: u64,
    /// What units of the same contents share, as the engine has them share it.
    known: BTreeMap<[u8; 20], Wish>,
}

impl Large {
    /// Machines that are there, and no unit.
    pub(crate) fn of_machines(n_machines: usize) -> Large {
        let mut large = Large {
            cluster: Cluster::new(Settings::default()),
            revision: 1,
            now_ms: 0,
            known: BTreeMap::new(),
        };
        for n in 0..n_machines {
            let record = MachineRecord {
                metadata: metadata(n),
                ..MachineRecord::default()
            };
            large.tell(Fact::Presence(machine(n), Some(record)));
        }
        large.plan_all();
        large
    }

    /// So many units are submitted at once and placed; returns how many placements were decided.
    pub(crate) fn submit(&mut self, n_units: usize) -> usize {
        for n in 0..n_units {
            self.want(n);
        }
        self.plan_all()
    }

    /// One unit is submitted.
    pub(crate) fn want(&mut self, n: usize) {
        let (name, record) = unit(n);
        let mut wish = Wish::read(&name, &record, self.revision + 1)
            .expect("the benchmark's unit files are unit files");
        let known = self.known.entry(wish.hash.0).or_insert(wish.clone());
        wish.text = Arc::clone(&known.text);
        wish.requirements = Arc::clone(&known.requirements);
        self.tell(Fact::Unit(name, Some(wish)));
    }

    /// A fact at a new revision.
    pub(crate) fn tell(&mut self, fact: Fact) {
        self.revision += 1;
        self.cluster.observe(self.revision);
        self.cluster.apply(fact);
    }

    /// Plans once, at the time that it is.
    pub(crate) fn plan(&mut self) -> Plan {
        self.cluster.plan(Now {
            monotonic_ms: self.now_ms,
            unix_ms: 1_700_000_000_000 + self.now_ms,
        })
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Plans until nothing is left to be decided, and has every order carried out.
    pub(crate) fn plan_all(&mut self) -> usize {
        let mut n_orders = 0;
        loop {
            let plan = self.plan();
            for change in &plan.changes {
                for write in &change.writes {
                    if let Write::Assignment(id, name, Some(record)) = write {
                        n_orders += 1;
                        let reached = match record.order {
                            Order::Launched => Reached::Launched,
                            Order::Loaded => Reached::Loaded,
                            Order::Gone => Reached::Gone,
                        };
                        let state = Reported {
                            decision: record.decision,
                            reached,
                            failed: false,
                            starting: false,
                            why: None,
                            leased_ms: None,
                        };
                        self.tell(Fact::State(name.clone(), id.clone(), Some(state)));
                    }
                }
            }
            if plan.changes.is_empty() && plan.revisit.is_none_or(|at| at > self.now_ms) {
                return n_orders;
            }
        }
    }
}

/// It is the first of its app, which others may follow.
pub(crate) fn is_first(n: usize) -> bool {
    n.is_multiple_of(INSTANCES)
}
