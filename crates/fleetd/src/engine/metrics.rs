//! What the engine counts. The first six families are the original's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet_core::plan::{Change, Write};
use fleet_core::records::{MemberStatus, Order};
use tokio::sync::watch;

use super::{EngineStatus, Role};
use crate::clock;
use crate::metrics::{Histogram, Kind, Source, Text};

/// Counters of the engine, from the start of the process.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Unix milliseconds; 0 while not leading.
    leading_since: AtomicU64,
    scheduled: AtomicU64,
    unscheduled: AtomicU64,
    plans: AtomicU64,
    took: Histogram,
    /// By [`TASKS`].
    unwritten: [AtomicU64; 2],
    runs_failed: AtomicU64,
    machines_away: AtomicU64,
    unplaceable: AtomicU64,
    wakes: AtomicU64,
    transactions: AtomicU64,
    damaged: AtomicU64,
}

/// The original's words for giving a unit to a machine and taking it away.
const TASKS: [&str; 2] = ["attemptscheduleunit", "unscheduleunit"];

impl EngineMetrics {
    pub(crate) fn leading(&self, leads: bool) {
        let since = if leads { clock::unix_ms() } else { 0 };
        self.leading_since.store(since, Ordering::Relaxed);
    }

    /// So many documents cannot be read.
    pub(crate) fn damaged(&self, n: usize) {
        self.damaged.store(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn woken(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    /// One round is over, planning and writing.
    pub(crate) fn planned(&self, took: Duration) {
        self.plans.fetch_add(1, Ordering::Relaxed);
        self.took.observe(took);
    }

    pub(crate) fn failed(&self) {
        self.runs_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, transactions: u64) {
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
    }

    /// These are decided.
    pub(crate) fn changes(&self, changes: &[Change]) {
        count_tasks(changes, [&self.scheduled, &self.unscheduled]);
        for write in changes.iter().flat_map(|change| &change.writes) {
            let counter = match write {
                Write::Member(_, member) if member.status == MemberStatus::Lost => {
                    &self.machines_away
                }
                Write::Placement(_, Some(placement))
                    if placement.machine.is_none() && !placement.refusals.is_empty() =>
                {
                    &self.unplaceable
                }
                _ => continue,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// These could not be written, all or in part.
    pub(crate) fn not_written(&self, changes: &[Change]) {
        count_tasks(changes, self.unwritten.each_ref());
    }
}

/// Counts what is given to machines and what is taken from them.
fn count_tasks(changes: &[Change], [given, taken]: [&AtomicU64; 2]) {
    for write in changes.iter().flat_map(|change| &change.writes) {
        if let Write::Assignment(_, _, Some(assignment)) = write {
            let counter = match assignment.order {
                Order::Gone => taken,
                Order::Loaded | Order::Launched => given,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is counted of an engine's role.
#[derive(Debug)]
pub struct RoleMetrics(pub watch::Receiver<EngineStatus>);

impl Source for RoleMetrics {
    fn collect(&self, text: &mut Text) {
        let too_old = matches!(self.0.borrow().role, Role::TooOld { .. });
        text.value(
            "fleet_engine_too_old",
            Kind::Gauge,
            "1 while a newer engine has led this cluster, so that this one may not.",
            f64::from(u8::from(too_old)),
        );
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
            "fleet_engine_damaged_documents",
            Kind::Gauge,
            "Stored documents that the leader cannot read; its journal names them.",
            get(&self.damaged),
        );
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
                (&[("type", TASKS[0])], get(&self.scheduled)),
                (&[("type", TASKS[1])], get(&self.unscheduled)),
            ],
        );
        text.family(
            "fleet_engine_task_failure_count_total",
            Kind::Counter,
            "Counter of engine schedule task failures.",
            &[
                (&[("type", TASKS[0])], get(&self.unwritten[0])),
                (&[("type", TASKS[1])], get(&self.unwritten[1])),
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
            &[
                (&[("type", "machine_away")], get(&self.machines_away)),
                (&[("type", "run")], get(&self.runs_failed)),
                (&[("type", "schedule")], get(&self.unplaceable)),
            ],
        );
        text.histograms(
            "fleet_engine_reconcile_duration_second",
            "Histogram of the time that a reconcile round takes, in seconds.",
            &[(&[], &self.took)],
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet_core::hash::UnitHash;
    use fleet_core::name::UnitName;
    use fleet_core::plan::Subject;
    use fleet_core::records::{
        AssignmentRecord, Decision, Failures, MachineId, MemberRecord, PlacementRecord, Refusal,
    };

    use super::*;
    use crate::metrics::Metrics;

    fn text(metrics: &Arc<EngineMetrics>) -> String {
        let mut all = Metrics::default();
        all.add(Arc::clone(metrics) as _);
        all.render()
    }

    #[track_caller]
    fn check(metrics: &Arc<EngineMetrics>, line: &str) {
        let text = text(metrics);
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }

    /// The writes that each family counts, and that it counts nothing else: a healthy unit is no
    /// failure.
    #[test]
    fn each_decision_is_counted_once_and_where_it_belongs() {
        let name = UnitName::parse("a.service").unwrap();
        let (m1, m2) = (MachineId::new("m1"), MachineId::new("m2"));
        let assignment = |order| AssignmentRecord {
            text: "".into(),
            hash: UnitHash::of(b""),
            decision: Decision::default(),
            order,
            restarts: 0,
            reason: String::new(),
        };
        let placement = |machine: Option<&MachineId>, refusals| PlacementRecord {
            failures: Failures::default(),
            machine: machine.cloned(),
            leaving: None,
            decision: Decision::default(),
            reason: String::new(),
            refusals,
            passed_over: Vec::new(),
            considered: 1,
            assigned: 0,
            since_ms: 0,
        };
        let member = |status| MemberRecord {
            avoided: None,
            status,
            since_ms: 0,
            first_seen_ms: 0,
            public_ip: String::new(),
            metadata: std::collections::BTreeMap::new(),
            reason: String::new(),
        };
        let refusal = Refusal {
            requirement: "MachineID".into(),
            machines: 1,
        };
        let change = |writes| Change {
            subject: Subject::Unit(name.clone()),
            writes,
            reason: String::new(),
            while_absent: Vec::new(),
            events: Vec::new(),
        };
        let changes = [
            change(vec![
                Write::Member(m1.clone(), member(MemberStatus::Lost)),
                Write::Member(m2.clone(), member(MemberStatus::Present)),
            ]),
            change(vec![
                Write::Placement(name.clone(), Some(placement(Some(&m2), vec![]))),
                Write::Assignment(m1.clone(), name.clone(), Some(assignment(Order::Gone))),
                Write::Assignment(m2.clone(), name.clone(), Some(assignment(Order::Launched))),
            ]),
            change(vec![
                Write::Placement(name.clone(), Some(placement(None, vec![refusal]))),
                Write::Assignment(m2, name.clone(), None),
            ]),
        ];
        let metrics = Arc::new(EngineMetrics::default());
        metrics.planned(Duration::from_micros(700));
        metrics.changes(&changes);
        metrics.not_written(&changes[1..]);
        metrics.failed();
        metrics.leading(true);
        for line in [
            "fleet_engine_reconcile_count_total 1",
            "fleet_engine_reconcile_duration_second_bucket{le=\"0.001\"} 1",
            "fleet_engine_task_count_total{type=\"attemptscheduleunit\"} 1",
            "fleet_engine_task_count_total{type=\"unscheduleunit\"} 1",
            "fleet_engine_task_failure_count_total{type=\"attemptscheduleunit\"} 1",
            "fleet_engine_task_failure_count_total{type=\"unscheduleunit\"} 1",
            "fleet_engine_reconcile_failure_count_total{type=\"machine_away\"} 1",
            "fleet_engine_reconcile_failure_count_total{type=\"run\"} 1",
            "fleet_engine_reconcile_failure_count_total{type=\"schedule\"} 1",
        ] {
            check(&metrics, line);
        }
        // Set, not added to, by each election.
        let since = || {
            let text = text(&metrics);
            let lines = text.lines();
            let mut values =
                lines.filter_map(|line| line.strip_prefix("fleet_engine_leader_start_time "));
            values.next().unwrap().parse::<f64>().unwrap()
        };
        for _ in 0..2 {
            metrics.leading(true);
            let now = clock::unix_ms() as f64 / 1000.0;
            assert!(
                (now - 60.0..=now).contains(&since()),
                "{} at {now}",
                since()
            );
            metrics.leading(false);
            assert_eq!(since(), 0.0);
        }
    }
}
