//! What the agent counts.

use std::sync::atomic::{AtomicU64, Ordering};

use fleet_core::agent::TaskKind;

use crate::metrics::{Kind, Source, Text};

/// Counters of the agent, from the start of the process.
#[derive(Debug, Default)]
pub struct AgentMetrics {
    wakes: AtomicU64,
    systemd_changes: AtomicU64,
    tasks: [AtomicU64; TaskKind::ALL.len()],
    states: AtomicU64,
    transactions: AtomicU64,
    holding: AtomicU64,
    damaged: AtomicU64,
}

impl AgentMetrics {
    /// The store said something about this machine's assignments.
    pub(crate) fn woken(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the store is believed, and how many assignments cannot be read.
    pub(crate) fn trusts(&self, holding: bool, damaged: usize) {
        self.holding.store(u64::from(holding), Ordering::Relaxed);
        self.damaged.store(damaged as u64, Ordering::Relaxed);
    }

    /// systemd said something about units of fleet's.
    pub(crate) fn systemd_changed(&self) {
        self.systemd_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// A task was handed to systemd.
    pub(crate) fn task(&self, kind: &TaskKind) {
        self.tasks[kind.rank()].fetch_add(1, Ordering::Relaxed);
    }

    /// A transaction with so many states was sent.
    pub(crate) fn sent(&self, states: usize) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.states.fetch_add(states as u64, Ordering::Relaxed);
    }
}

impl Source for AgentMetrics {
    #[expect(clippy::cast_precision_loss, reason = "counters are far below 2^52")]
    fn collect(&self, text: &mut Text) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        text.value(
            "fleet_agent_holding",
            Kind::Gauge,
            "1 while the store is not believed, so that no unit is stopped on its word.",
            get(&self.holding),
        );
        text.value(
            "fleet_agent_damaged_assignments",
            Kind::Gauge,
            "Assignments of this machine that cannot be read; their units are left as they are.",
            get(&self.damaged),
        );
        let mut counter = |name, help, value: &AtomicU64| {
            text.value(name, Kind::Counter, help, get(value));
        };
        counter(
            "fleet_agent_wakes_total",
            "Times that the store woke the agent.",
            &self.wakes,
        );
        counter(
            "fleet_agent_systemd_changes_total",
            "Times that systemd woke the agent.",
            &self.systemd_changes,
        );
        counter(
            "fleet_agent_states_total",
            "Unit states written.",
            &self.states,
        );
        counter(
            "fleet_agent_transactions_total",
            "Transactions in which states were written.",
            &self.transactions,
        );
        let labels: Vec<[(&str, &str); 1]> =
            TaskKind::ALL.iter().map(|kind| [("type", *kind)]).collect();
        let rows: Vec<(&[(&str, &str)], f64)> = labels
            .iter()
            .zip(&self.tasks)
            .map(|(label, n)| (label.as_slice(), get(n)))
            .collect();
        text.family(
            "fleet_agent_tasks_total",
            Kind::Counter,
            "Tasks handed to systemd.",
            &rows,
        );
    }
}
