//! A plan as transactions: as few as fit, each fenced by leadership.

use std::sync::Arc;

use fleet_core::plan::{Change, Subject, Write};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::store::codec::Document;
use crate::store::{Compare, Error, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Revision, Store, Txn, keys};

/// Transactions in flight at once: etcd's throughput grows little beyond.
const MAX_IN_FLIGHT: usize = 16;

/// What the transactions came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Committed {
    /// The newest revision.
    pub(crate) revision: Revision,
    /// How many transactions.
    pub(crate) transactions: u64,
}

/// Writes all changes. After an error an unknown part of them is written.
pub(crate) async fn commit(
    store: &Arc<dyn Store>,
    fence: &Compare,
    changes: &[Change],
) -> Result<Committed, Error> {
    let mut done = Committed::default();
    for wave in waves(changes) {
        let mut waiting = pack(fence, wave).into_iter();
        let mut flying = FuturesUnordered::new();
        loop {
            while flying.len() < MAX_IN_FLIGHT
                && let Some(txn) = waiting.next()
            {
                let store = Arc::clone(store);
                flying.push(async move { store.commit(txn).await });
            }
            match flying.next().await {
                Some(Ok(revision)) => {
                    done.revision = done.revision.max(revision);
                    done.transactions += 1;
                }
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
    }
    Ok(done)
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

/// Fills transactions up to the store's limits. A change is never divided.
fn pack(fence: &Compare, changes: Vec<&Change>) -> Vec<Txn> {
    let empty = || Txn {
        compares: match fleet_core::planted!("a stale leader commits") {
            true => Vec::new(),
            false => vec![fence.clone()],
        },
        ops: Vec::new(),
    };
    let mut txns = Vec::new();
    let mut txn = empty();
    let mut bytes = 0;
    for change in changes {
        let (compares, ops) = writes(change);
        let more: usize = ops.iter().map(size).sum();
        let full = txn.ops.len() + ops.len() > MAX_TXN_OPS
            || txn.compares.len() + compares.len() > MAX_TXN_OPS
            || bytes + more > MAX_TXN_BYTES;
        if full && !txn.ops.is_empty() {
            txns.push(std::mem::replace(&mut txn, empty()));
            bytes = 0;
        }
        txn.compares.extend(compares);
        txn.ops.extend(ops);
        bytes += more;
    }
    if !txn.ops.is_empty() {
        txns.push(txn);
    }
    txns
}

fn writes(change: &Change) -> (Vec<Compare>, Vec<Op>) {
    let mut compares = Vec::new();
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
                op(key, None)
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
