//! Other stores in the place of the right one: an empty one, another cluster's, an old backup.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::records::{AssignmentRecord, Order};
use fleetd::store::codec::{ClusterRecord, Document};
use fleetd::store::keys::{self, Key};
use fleetd::store::memory::MemoryStore;
use fleetd::store::{LeaseId, Op, Range, Store, Txn};
use futures_util::FutureExt;

use super::Center;
use crate::chance::lock;

impl Center {
    /// Whether another store stands in the place of the right one.
    pub fn is_exchanged(&self) -> bool {
        lock(&self.state).right.is_some()
    }

    /// How often the store was exchanged or brought back.
    pub fn n_exchanges(&self) -> u64 {
        lock(&self.state).exchanges
    }

    /// How often an old backup took its place for good.
    pub fn n_restores(&self) -> u64 {
        lock(&self.state).restores
    }

    /// Ids of leases are random in etcd: two stores have none in common.
    fn other_leases(&self) -> LeaseId {
        let n_exchanges = lock(&self.state).exchanges;
        LeaseId(i64::try_from(n_exchanges + 1).unwrap_or(1) << 32)
    }

    /// A backup of this store.
    pub fn copy(&self) -> Arc<MemoryStore> {
        self.data().copy(self.other_leases())
    }

    /// Puts an empty store in the place of this one.
    pub fn exchange(self: &Arc<Self>) {
        self.exchange_for(MemoryStore::with_leases_from(self.other_leases()));
    }

    /// Puts another cluster's store in the place of this one: it knows the same machines, and
    /// orders them to stop everything.
    pub async fn exchange_for_foreign(self: &Arc<Self>) {
        if self.is_exchanged() {
            return;
        }
        let foreign = self.copy();
        let Ok(snapshot) = foreign.read(Range::default()).await else {
            return;
        };
        for entry in snapshot.entries {
            let key = entry.key.clone();
            let op = match keys::parse(&key) {
                Key::Assignment(..) => AssignmentRecord::decode(&key, &entry.value)
                    .map(|mut record| {
                        record.order = Order::Gone;
                        record.decision.generation += 1_000;
                        record.decision.seq += 1_000;
                        record.encode()
                    })
                    .map(|value| Op::Put {
                        key,
                        value,
                        lease: None,
                    })
                    .ok(),
                Key::Cluster => ClusterRecord::decode(&key, &entry.value)
                    .map(|mut record| {
                        record.id = "another".to_owned();
                        record.encode()
                    })
                    .map(|value| Op::Put {
                        key,
                        value,
                        lease: None,
                    })
                    .ok(),
                Key::Placement(_) => None,
                _ => Some(Op::Delete { key }),
            };
            let ops = op.into_iter().collect();
            let _ = foreign
                .commit(Txn {
                    ops,
                    ..Txn::default()
                })
                .await;
        }
        self.exchange_for(foreign);
    }

    fn exchange_for(self: &Arc<Self>, other: Arc<MemoryStore>) {
        {
            let mut state = lock(&self.state);
            if state.right.is_some() {
                return;
            }
            state.stop_pump();
            let right = std::mem::replace(&mut state.data, other);
            state.right = Some((right, state.pumped));
            state.exchanges += 1;
            state.pumped = 1;
        }
        self.break_watches("etcd was exchanged");
        // It has had a history of its own: other revisions, and other leases.
        let data = self.data();
        for n in 0..300 + self.sim.below(300) {
            let key = "history".to_owned();
            let value = n.to_string().into_bytes();
            let lease = None;
            let ops = vec![Op::Put { key, value, lease }];
            let history = data.commit(Txn {
                ops,
                ..Txn::default()
            });
            let _ = history.now_or_never();
            let _ = data.grant(Duration::from_secs(1)).now_or_never();
        }
        self.pump();
    }

    /// Puts an old backup in the place of this store, for good.
    pub async fn restore(self: &Arc<Self>, backup: &MemoryStore) {
        if self.is_exchanged() {
            return;
        }
        let backup = backup.copy(self.other_leases());
        let Ok(snapshot) = backup.read(Range::default()).await else {
            return;
        };
        self.sim
            .note("restored", format_args!("to @{}", snapshot.revision));
        {
            let mut state = lock(&self.state);
            state.stop_pump();
            state.data = backup;
            state.pumped = snapshot.revision;
            state.exchanges += 1;
            state.restores += 1;
            state.damages.clear();
        }
        self.audit.deceives_all();
        self.audit.restored(&snapshot.entries, snapshot.revision);
        self.break_watches("etcd was restored");
        self.pump();
    }

    /// Brings the right store back.
    pub fn bring_back(self: &Arc<Self>) {
        {
            let mut state = lock(&self.state);
            let Some((right, pumped)) = state.right.take() else {
                return;
            };
            state.stop_pump();
            state.data = right;
            state.exchanges += 1;
            // Machines have kept their leases alive in the other one.
            self.audit.deceives_all();
            state.pumped = pumped;
        }
        self.break_watches("etcd was exchanged");
        self.pump();
    }
}
