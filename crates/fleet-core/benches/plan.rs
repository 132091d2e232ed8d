//! What a decision costs in a large cluster: `make bench-core`. With `FLEET_BENCH_UNITS` and
//! `FLEET_BENCH_MACHINES` it is another cluster than the one of the promise.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use fleet_core::cluster::Fact;

mod large;

use large::{Large, machine};

/// The promise is about a million units on five thousand machines.
const UNITS: usize = 1_000_000;
const MACHINES: usize = 5_000;

/// Longer than any grace and any freeze.
const LATER_MS: u64 = 1_000_000;

fn main() {
    let n_units = from_environment("FLEET_BENCH_UNITS", UNITS);
    let n_machines = from_environment("FLEET_BENCH_MACHINES", MACHINES);
    let began = Instant::now();
    let mut large = Large::of_machines(n_machines);
    println!("{n_machines} machines join: {:.2?}", began.elapsed());
    let began = Instant::now();
    let n_orders = large.submit(n_units);
    let took = began.elapsed();
    println!(
        "full plan of {n_units} units, reported back: {took:.2?}, {:.1} µs a unit, {n_orders} orders, {} waiting, {} bytes of memory a unit",
        took.as_secs_f64() * 1e6 / n_units as f64,
        large.cluster.waiting_count(),
        resident_bytes().unwrap_or(0) / n_units,
    );

    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    plan_one(&mut criterion, &mut large, n_units);
    lose_a_machine(&mut criterion, &mut large, n_machines);
    criterion.final_summary();
}

/// A unit more among all the others: taken in, placed, and what is to be written about it.
fn plan_one(criterion: &mut Criterion, large: &mut Large, n_units: usize) {
    let mut next = n_units;
    for (kind, what) in ["metadata", "conflicts", "peers", "no requirement"]
        .into_iter()
        .enumerate()
    {
        criterion.bench_function(&format!("plan one of {n_units} units: {what}"), |bench| {
            bench.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    // The next unit of that kind. Who is followed is there before.
                    next += 1;
                    while large::kind(next) != kind {
                        next += 1;
                    }
                    if large::is_first(next) {
                        large.want(next);
                        large.plan_all();
                        next += 1;
                    }
                    let began = Instant::now();
                    large.want(next);
                    black_box(large.plan());
                    spent += began.elapsed();
                }
                spent
            });
        });
        large.plan_all();
    }
}

/// The lease of a machine has ended, and its grace: all its units are placed elsewhere.
fn lose_a_machine(criterion: &mut Criterion, large: &mut Large, n_machines: usize) {
    let mut next = 0;
    criterion.bench_function(&format!("a machine of {n_machines} is lost"), |bench| {
        bench.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                large.tell(Fact::Presence(machine(next % n_machines), None));
                next += 1;
                let began = Instant::now();
                let suspect = large.plan();
                spent += began.elapsed();
                large.pass(suspect.revisit.map_or(0, |_| LATER_MS));
                let began = Instant::now();
                let plan = black_box(large.plan());
                spent += began.elapsed();
                assert!(plan.changes.len() > 1, "its units are placed elsewhere");
                large.plan_all();
            }
            spent
        });
    });
}

fn from_environment(name: &str, usual: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number of units or machines"),
        Err(_) => usual,
    }
}

/// The memory of this process that is in use.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
