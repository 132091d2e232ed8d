//! What the engine counts. The first five families are the original's.

use std::sync::atomic::{AtomicU64, Ordering};

use fleet_core::plan::{Change, Write};
use fleet_core::records::Order;

use crate::clock;
use crate::metrics::{Kind, Source, Text};

/// Counters of the engine, from the start of the process.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Unix milliseconds; 0 while not leading.
    leading_since: AtomicU64,
    scheduled: AtomicU64,
    unscheduled: AtomicU64,
    plans: AtomicU64,
    failures: AtomicU64,
    wakes: AtomicU64,
    transactions: AtomicU64,
}

impl EngineMetrics {
    pub(crate) fn leading(&self, leads: bool) {
        let since = if leads { clock::unix_ms() } else { 0 };
        self.leading_since.store(since, Ordering::Relaxed);
    }

    pub(crate) fn woken(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn planned(&self) {
        self.plans.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, transactions: u64) {
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
    }

    pub(crate) fn changes(&self, changes: &[Change]) {
        for write in changes.iter().flat_map(|change| &change.writes) {
            if let Write::Assignment(_, _, Some(assignment)) = write {
                let counter = match assignment.order {
                    Order::Gone => &self.unscheduled,
                    Order::Loaded | Order::Launched => &self.scheduled,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Source for EngineMetrics {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counters and times are far below 2^52"
    )]
    fn collect(&self, text: &mut Text) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        text.value(
            "fleet_engine_leader_start_time",
            Kind::Gauge,
            "Start time of becoming an engine leader since epoch in seconds.",
            get(&self.leading_since) / 1000.0,
        );
        text.family(
            "fleet_engine_task_count_total",
            Kind::Counter,
            "Counter of engine schedule tasks.",
            &[
                (&[("type", "attemptscheduleunit")], get(&self.scheduled)),
                (&[("type", "unscheduleunit")], get(&self.unscheduled)),
            ],
        );
        text.value(
            "fleet_engine_reconcile_count_total",
            Kind::Counter,
            "Counter of reconcile rounds.",
            get(&self.plans),
        );
        text.family(
            "fleet_engine_reconcile_failure_count_total",
            Kind::Counter,
            "Counter of scheduling failures.",
            &[(&[("type", "run")], get(&self.failures))],
        );
        text.value(
            "fleet_engine_wakes_total",
            Kind::Counter,
            "Times that the store woke the leading engine.",
            get(&self.wakes),
        );
        text.value(
            "fleet_engine_transactions_total",
            Kind::Counter,
            "Transactions that the engine committed.",
            get(&self.transactions),
        );
    }
}
