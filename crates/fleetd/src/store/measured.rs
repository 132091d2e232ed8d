//! A store whose reads and writes are counted and timed, for `/metrics`. Everything that fleetd
//! asks of its store passes here, so that its failpoints are here, too.
//!
//! The families are those that the original documented and never registered: what it called the
//! registry is the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Error, LeaseId, Op, Range, Revision, Snapshot, Store, Txn, Watch};
use crate::failpoint::{self, Failed};
use crate::metrics::{Histogram, Kind, Labels, Source, Text};

/// The original's words for a read of single keys, a transaction, and a read of a range.
const OPERATIONS: [&str; 3] = ["get", "set", "get_all"];
const GET: usize = 0;
const SET: usize = 1;
const GET_ALL: usize = 2;

/// What the store was asked, from the start of the process.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    operations: [Operation; OPERATIONS.len()],
}

#[derive(Debug, Default)]
struct Operation {
    count: AtomicU64,
    failed: AtomicU64,
    took: Histogram,
}

/// A store that counts.
pub struct Measured {
    store: Arc<dyn Store>,
    metrics: Arc<StoreMetrics>,
}

impl Measured {
    /// Counts what a store is asked.
    pub fn new(store: Arc<dyn Store>, metrics: Arc<StoreMetrics>) -> Measured {
        Measured { store, metrics }
    }

    async fn count<T>(
        &self,
        operation: usize,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let result = work.await;
        self.metrics.operations[operation].note(began.elapsed(), result.as_ref().err());
        result
    }
}

impl Operation {
    fn note(&self, took: Duration, error: Option<&Error>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.took.observe(took);
        // That another one was faster is an answer, and no failure of the store.
        if error.is_some_and(|error| !matches!(error, Error::Conflict)) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Store for Measured {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        let read = failpoint::call("store", "read", self.store.read(range), unread);
        self.count(GET_ALL, read).await
    }

    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        let read = failpoint::call("store", "read_keys", self.store.read_keys(keys), unread);
        self.count(GET, read).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let watch = self.store.watch(prefix, after);
        failpoint::call("store", "watch", watch, unread).await
    }

    async fn watch_from_now(&self, prefix: &str) -> Result<(Revision, Watch), Error> {
        let watch = self.store.watch_from_now(prefix);
        failpoint::call("store", "watch", watch, unread).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let family = family_of(&txn);
        let commit = self.store.commit(txn);
        let commit = failpoint::call("store.commit", &family, commit, unwritten);
        self.count(SET, commit).await
    }

    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        failpoint::call("store", "grant", self.store.grant(ttl), unwritten).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        let renew = self.store.keep_alive(lease);
        failpoint::call("store", "keep_alive", renew, unread).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        failpoint::call("store", "revoke", self.store.revoke(lease), unwritten).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        failpoint::call("store", "compact", self.store.compact(revision), unread).await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

/// A transaction's failpoint is named by what it writes first.
fn family_of(txn: &Txn) -> String {
    let key = match txn.ops.first() {
        Some(Op::Put { key, .. } | Op::Delete { key }) => key.as_str(),
        None => "nothing",
    };
    key.split('/').next().unwrap_or_default().to_owned()
}

/// Asked again, it does no harm.
fn unread(failed: Failed) -> Error {
    Error::Unavailable(failed.to_string())
}

fn unwritten(failed: Failed) -> Error {
    match failed {
        Failed::NotDone => Error::Unavailable(failed.to_string()),
        Failed::Lost => Error::OutcomeUnknown(failed.to_string()),
    }
}

impl Source for StoreMetrics {
    fn collect(&self, text: &mut Text) {
        let counts = |label, count: fn(&Operation) -> &AtomicU64| {
            let operations = OPERATIONS.iter().zip(&self.operations);
            let rows: Vec<([(&str, &str); 1], f64)> = operations
                .map(|(name, operation)| ([(label, *name)], get(count(operation))))
                .collect();
            rows
        };
        for (name, help, rows) in [
            (
                "fleet_registry_operation_count_total",
                "Counter of registry operations.",
                counts("type", |operation| &operation.count),
            ),
            (
                "fleet_registry_operation_failed_count_total",
                "Counter of failed registry operations.",
                counts("type", |operation| &operation.failed),
            ),
        ] {
            let rows: Vec<(Labels<'_>, f64)> = rows
                .iter()
                .map(|(labels, value)| (labels.as_slice(), *value))
                .collect();
            text.family(name, Kind::Counter, help, &rows);
        }
        let labels = OPERATIONS.map(|name| [("ops", name)]);
        let rows: Vec<(Labels<'_>, &Histogram)> = labels
            .iter()
            .zip(&self.operations)
            .map(|(labels, operation)| (labels.as_slice(), &operation.took))
            .collect();
        text.histograms(
            "fleet_registry_operation_duration_second",
            "Histogram of the time that a registry operation takes, in seconds.",
            &rows,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn get(count: &AtomicU64) -> f64 {
    count.load(Ordering::Relaxed) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::store::memory::MemoryStore;
    use crate::store::{Compare, Op};

    #[tokio::test]
    async fn operations_and_failures_are_counted_by_their_kind() {
        let metrics = Arc::new(StoreMetrics::default());
        let store = Measured::new(MemoryStore::new(), Arc::clone(&metrics));
        let put = |key: &str| Op::Put {
            key: key.to_owned(),
            value: Vec::new(),
            lease: None,
        };
        let txn = |ops| Txn {
            compares: vec![Compare::Absent("units/a".to_owned())],
            ops,
        };
        store.commit(txn(vec![put("units/a")])).await.unwrap();
        // A conflict is no failure, a transaction that can never be is one.
        store.commit(txn(vec![put("units/a")])).await.unwrap_err();
        let never = txn(vec![put("units/b"), put("")]);
        store.commit(never).await.unwrap_err();
        store.read(Range::default()).await.unwrap();
        for _ in 0..2 {
            let found = store.read_keys(&["units/a".to_owned()]).await.unwrap();
            assert_eq!(found.entries.len(), 1);
        }
        let mut all = Metrics::default();
        all.add(metrics);
        let text = all.render();
        for line in [
            "fleet_registry_operation_count_total{type=\"get\"} 2",
            "fleet_registry_operation_count_total{type=\"set\"} 3",
            "fleet_registry_operation_count_total{type=\"get_all\"} 1",
            "fleet_registry_operation_failed_count_total{type=\"get\"} 0",
            "fleet_registry_operation_failed_count_total{type=\"set\"} 1",
            "fleet_registry_operation_duration_second_count{ops=\"get\"} 2",
            "fleet_registry_operation_duration_second_bucket{ops=\"get_all\",le=\"+Inf\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
    }
}
