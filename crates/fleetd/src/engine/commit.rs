//! A plan as transactions: as few as fit, each fenced by leadership.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::plan::{Change, Subject, Write};
use fleet_core::records::UnitRecord;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::graves::Burial;
use super::log;
use crate::events::{self, Ring};
use crate::store::codec::Document;
use crate::store::{
    Compare, Error, LeaseId, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Revision, Store, Txn, keys,
};

/// Transactions in flight at once: etcd's throughput grows little beyond.
const MAX_IN_FLIGHT: usize = 16;

/// An etcd that takes longer for a transaction has more to do than it can. It gets half as many at once
/// then: what waits in its queue is not done sooner, and what comes too late costs the leadership.
const SLOW: Duration = Duration::from_millis(250);

/// How many transactions may be in flight, by how long the last ones took.
#[derive(Debug)]
pub(crate) struct Window(usize);

impl Default for Window {
    fn default() -> Self {
        Window(MAX_IN_FLIGHT)
    }
}

impl Window {
    fn note(&mut self, took: Duration) {
        self.0 = match took > SLOW {
            true => self.0.div_ceil(2),
            false => (self.0 + 1).min(MAX_IN_FLIGHT),
        };
    }
}

/// What the transactions came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Committed {
    /// The newest revision.
    pub(crate) revision: Revision,
    /// How many transactions.
    pub(crate) transactions: u64,
}

/// Where what is decided is told, and whose decision it is.
pub(crate) struct Telling<'a> {
    pub(crate) ring: &'a mut Ring,
    pub(crate) by: &'a str,
}

/// A transaction and what it writes down.
struct Packed<'c> {
    txn: Txn,
    changes: Vec<&'c Change>,
}

/// Writes all changes. After an error an unknown part of them is written, but nothing is under
/// way any more, unless the error says that this is not known.
pub(crate) async fn commit(
    store: &Arc<dyn Store>,
    fence: &[Compare],
    changes: &[Change],
    burial: &mut Burial<'_>,
    window: &mut Window,
    telling: &mut Telling<'_>,
) -> Result<Committed, Error> {
    let mut done = Committed::default();
    for wave in waves(changes) {
        let mut waiting = pack(fence, wave, burial, telling).into_iter();
        let mut flying = FuturesUnordered::new();
        let mut failure = None;
        loop {
            while failure.is_none()
                && flying.len() < window.0
                && let Some(Packed { txn, changes }) = waiting.next()
            {
                let store = Arc::clone(store);
                flying.push(async move {
                    let began = Instant::now();
                    let outcome = store.commit(txn).await;
                    (outcome, began.elapsed(), changes)
                });
            }
            let landed = flying.next().await;
            let landed = landed.map(|(outcome, took, changes)| {
                window.note(took);
                if let Ok(revision) = outcome {
                    changes
                        .iter()
                        .for_each(|change| log::decided(change, revision));
                }
                outcome
            });
            match landed {
                Some(Ok(revision)) => {
                    done.revision = done.revision.max(revision);
                    done.transactions += 1;
                }
                // What flies beside it is awaited: it might arrive after the next plan.
                Some(Err(error)) => failure = Some(worse(failure, error)),
                None => break,
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
    }
    Ok(done)
}

/// The first failure, but an unknown outcome counts more: only that one is dangerous.
fn worse(before: Option<Error>, now: Error) -> Error {
    match (before, now) {
        (_, unknown @ Error::OutcomeUnknown(_)) => unknown,
        (Some(before), _) => before,
        (None, now) => now,
    }
}

/// Parts of a plan that may be written in any order; the parts themselves follow each other. A
/// unit whose changes need several transactions has them in several parts.
fn waves(changes: &[Change]) -> Vec<Vec<&Change>> {
    let mut waves: Vec<Vec<&Change>> = Vec::new();
    let mut position = 0;
    let mut last: Option<&Subject> = None;
    for change in changes {
        position = if last == Some(&change.subject) {
            position + 1
        } else {
            0
        };
        last = Some(&change.subject);
        if waves.len() == position {
            waves.push(Vec::new());
        }
        waves[position].push(change);
    }
    waves
}

/// Fills transactions up to the store's limits, with room for what they tell. A change is never
/// divided.
fn pack<'c>(
    fence: &[Compare],
    changes: Vec<&'c Change>,
    burial: &mut Burial<'_>,
    telling: &mut Telling<'_>,
) -> Vec<Packed<'c>> {
    let empty = || Packed {
        txn: Txn {
            compares: match fleet_core::planted!("a stale leader commits") {
                true => Vec::new(),
                false => fence.to_vec(),
            },
            ops: Vec::new(),
        },
        changes: Vec::new(),
    };
    let mut filled = Vec::new();
    let mut packed = empty();
    let mut bytes = 0;
    for change in changes {
        let (compares, ops) = writes(change, burial);
        let more: usize = ops.iter().map(size).sum();
        let txn = &packed.txn;
        let full = txn.ops.len() + ops.len() > MAX_TXN_OPS - events::MAX_PUTS
            || txn.compares.len() + compares.len() > MAX_TXN_OPS
            || bytes + more > MAX_TXN_BYTES - events::MAX_BYTES;
        if full && !txn.ops.is_empty() {
            filled.push(std::mem::replace(&mut packed, empty()));
            bytes = 0;
        }
        packed.txn.compares.extend(compares);
        packed.txn.ops.extend(ops);
        packed.changes.push(change);
        bytes += more;
    }
    if !packed.txn.ops.is_empty() {
        filled.push(packed);
    }
    for Packed { txn, changes } in &mut filled {
        let told = changes
            .iter()
            .flat_map(|change| change.events.iter().cloned());
        txn.ops
            .extend(telling.ring.puts(telling.by, told.collect()));
    }
    filled
}

fn writes(change: &Change, burial: &mut Burial<'_>) -> (Vec<Compare>, Vec<Op>) {
    let absent = change.while_absent.iter();
    let mut compares: Vec<Compare> = absent
        .filter(|_| !fleet_core::planted!("who is back is given up"))
        .map(|machine| Compare::Absent(keys::machine(machine.as_str())))
        .collect();
    let mut ops: Vec<Op> = change
        .writes
        .iter()
        .map(|write| match write {
            Write::Placement(unit, record) => op(
                keys::placement(unit.as_str()),
                record.as_ref().map(Document::encode),
            ),
            Write::Assignment(machine, unit, record) => op(
                keys::assignment(machine.as_str(), unit.as_str()),
                record.as_ref().map(Document::encode),
            ),
            Write::Member(machine, record) => {
                op(keys::member(machine.as_str()), Some(record.encode()))
            }
            Write::DeleteUnit(unit, generation) => {
                let key = keys::unit(unit.as_str());
                // A declared exception to one writer: only the tombstone that was planned
                // with, never a unit that was created anew meanwhile.
                compares.push(Compare::ModRevision(key.clone(), *generation));
                bury(key, burial.tombstones().get(unit), burial.next_lease())
            }
        })
        .collect();
    // What was said of a unit that is gone goes with its assignment (the other declared exception
    // to one writer): the agent that said it may have lost its memory with its power.
    ops.extend(change.writes.iter().filter_map(|write| match write {
        Write::Assignment(machine, unit, None) => {
            Some(op(keys::state(unit.as_str(), machine.as_str()), None))
        }
        _ => None,
    }));
    (compares, ops)
}

/// The tombstone rests for a while, if it can.
fn bury(key: String, tombstone: Option<&UnitRecord>, lease: Option<LeaseId>) -> Op {
    let (Some(tombstone), Some(lease)) = (tombstone, lease) else {
        return Op::Delete { key };
    };
    let buried = UnitRecord {
        buried: true,
        ..tombstone.clone()
    };
    Op::Put {
        key,
        value: buried.encode(),
        lease: Some(lease),
    }
}

fn op(key: String, value: Option<Vec<u8>>) -> Op {
    match value {
        Some(value) => Op::Put {
            key,
            value,
            lease: None,
        },
        None => Op::Delete { key },
    }
}

fn size(op: &Op) -> usize {
    match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use fleet_core::name::UnitName;

    use super::*;
    use crate::engine::intake::Tombstones;
    use crate::events::Owner;
    use crate::store::{Range, Snapshot, Watch};

    /// Refuses the first transaction at once, and leaves each later one unanswered after a while.
    #[derive(Default)]
    struct Late {
        asked: AtomicUsize,
        answered: AtomicUsize,
    }

    #[async_trait]
    impl Store for Late {
        async fn read(&self, _: Range) -> Result<Snapshot, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn read_keys(&self, _: &[String]) -> Result<Snapshot, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn watch(&self, _: &str, _: Revision) -> Result<Watch, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn commit(&self, _: Txn) -> Result<Revision, Error> {
            let outcome = match self.asked.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Error::Conflict),
                _ => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Err(Error::OutcomeUnknown("no answer".to_owned()))
                }
            };
            self.answered.fetch_add(1, Ordering::SeqCst);
            outcome
        }
        async fn grant(&self, _: Duration) -> Result<(LeaseId, Duration), Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn keep_alive(&self, _: LeaseId) -> Result<Duration, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn revoke(&self, _: LeaseId) -> Result<(), Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn compact(&self, _: Revision) -> Result<(), Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        fn describe(&self) -> String {
            "late".to_owned()
        }
    }

    fn unplaced(n_units: usize) -> Vec<Change> {
        let unplaced = (0..n_units).map(|n| {
            let unit = UnitName::parse(&format!("u{n}.service")).unwrap();
            Change {
                subject: Subject::Unit(unit.clone()),
                writes: vec![Write::Placement(unit, None)],
                reason: String::new(),
                while_absent: Vec::new(),
                events: Vec::new(),
            }
        });
        unplaced.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_under_way_when_a_plan_has_failed_and_the_worst_is_told() {
        let late = Arc::new(Late::default());
        let store: Arc<dyn Store> = Arc::clone(&late) as _;
        let changes = unplaced(3 * MAX_TXN_OPS);
        let fence = [Compare::CreateRevision(keys::LEADER.to_owned(), 1)];
        let outcome = commit(
            &store,
            &fence,
            &changes,
            &mut Burial::new(&Tombstones::new(), Vec::new()),
            &mut Window::default(),
            &mut Telling {
                ring: &mut Ring::after(Owner::Engine, &[]),
                by: "m1",
            },
        )
        .await;
        assert!(
            matches!(outcome, Err(Error::OutcomeUnknown(_))),
            "{outcome:?}"
        );
        assert_eq!(
            late.answered.load(Ordering::SeqCst),
            late.asked.load(Ordering::SeqCst)
        );
    }

    /// Takes its time for each transaction, and knows how many were under way at once since it was
    /// asked last.
    #[derive(Default)]
    struct Slow {
        takes: std::sync::Mutex<Duration>,
        flying: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl Store for Slow {
        async fn read(&self, _: Range) -> Result<Snapshot, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn read_keys(&self, _: &[String]) -> Result<Snapshot, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn watch(&self, _: &str, _: Revision) -> Result<Watch, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn commit(&self, _: Txn) -> Result<Revision, Error> {
            let flying = self.flying.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(flying, Ordering::SeqCst);
            let takes = *self.takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            self.flying.fetch_sub(1, Ordering::SeqCst);
            Ok(1)
        }
        async fn grant(&self, _: Duration) -> Result<(LeaseId, Duration), Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn keep_alive(&self, _: LeaseId) -> Result<Duration, Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn revoke(&self, _: LeaseId) -> Result<(), Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        async fn compact(&self, _: Revision) -> Result<(), Error> {
            Err(Error::Unavailable("not asked".to_owned()))
        }
        fn describe(&self) -> String {
            "slow".to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_gets_fewer_transactions_at_once_and_a_fast_one_all_again() {
        let slow = Arc::new(Slow::default());
        let store: Arc<dyn Store> = Arc::clone(&slow) as _;
        let changes = unplaced(40 * MAX_TXN_OPS);
        let mut window = Window::default();
        let mut most_of = async |takes: Duration| {
            *slow.takes.lock().unwrap() = takes;
            // What was learnt of the store before still counts for the first few.
            for _ in 0..2 {
                slow.most.store(0, Ordering::SeqCst);
                let tombstones = Tombstones::new();
                let mut burial = Burial::new(&tombstones, Vec::new());
                let mut telling = Telling {
                    ring: &mut Ring::after(Owner::Engine, &[]),
                    by: "m1",
                };
                commit(
                    &store,
                    &[],
                    &changes,
                    &mut burial,
                    &mut window,
                    &mut telling,
                )
                .await
                .unwrap();
            }
            slow.most.load(Ordering::SeqCst)
        };
        assert_eq!(most_of(SLOW / 2).await, MAX_IN_FLIGHT);
        assert_eq!(most_of(SLOW * 2).await, 1);
        assert_eq!(most_of(SLOW / 2).await, MAX_IN_FLIGHT);
    }
}
