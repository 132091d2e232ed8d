//! The simulator: the real engine, agent and API loops over a simulated store and systemd, on
//! one thread and from one seed. `scripts/sim.sh` builds and runs it.
#![cfg(fleet_sim)]
#![allow(unreachable_pub)]

mod audit;
mod chance;
mod driver;
mod host;
mod life;
mod operators;
mod scenario;
mod store;
mod users;
mod world;

use std::sync::Arc;
use std::time::Duration;

use chance::Sim;
use scenario::Scenario;
use world::World;

/// What became of one simulation.
struct Outcome {
    failure: Option<String>,
    trace: String,
    counters: std::collections::BTreeMap<&'static str, u64>,
    simulated: Duration,
}

/// What becomes of a scenario, without its story.
fn simulate(scenario: &Scenario) -> Outcome {
    simulate_with(scenario, None, false)
}

/// With its story.
fn tell(scenario: &Scenario) -> Outcome {
    simulate_with(scenario, None, true)
}

/// Simulates with a bug that is alive.
fn simulate_with(scenario: &Scenario, bug: Option<&'static str>, keeps_story: bool) -> Outcome {
    fleet_core::planted::bring_to_life(bug);
    let seed = tokio::runtime::RngSeed::from_bytes(&scenario.seed.to_le_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(seed)
        .build()
        .unwrap();
    let sim = runtime.block_on(async {
        let sim = Sim::new(scenario.seed, keeps_story);
        World::run(&sim, scenario).await;
        sim
    });
    let simulated = runtime.block_on(async { Duration::from_millis(sim.now_ms()) });
    drop(runtime);
    fleet_core::planted::bring_to_life(None);
    Outcome {
        failure: sim.failure(),
        trace: sim.trace(),
        counters: sim.counters(),
        simulated,
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Fails with the seed, the end of its story, and the command that tells it again.
#[track_caller]
fn must_hold(scenario: &Scenario, outcome: &Outcome) {
    let Some(why) = &outcome.failure else {
        return;
    };
    // The same seed tells the same story.
    let told = tell(scenario);
    let lines: Vec<&str> = told.trace.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    panic!(
        "{end}\n\n{why}\n\n{scenario:?}\nFLEET_SIM_SEED={} scripts/sim.sh replay",
        scenario.seed
    );
}

/// Tells the story of `FLEET_SIM_SEED` (of the first seed, if it is not given) as it happens.
#[test]
fn replay() {
    let scenario = Scenario::of(number("FLEET_SIM_SEED").unwrap_or(1));
    let level = match std::env::var_os("FLEET_SIM_SEED") {
        Some(_) => tracing::level_filters::LevelFilter::INFO,
        None => tracing::level_filters::LevelFilter::OFF,
    };
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_max_level(level)
        .with_writer(std::io::stdout)
        .finish();
    let outcome = tracing::subscriber::with_default(subscriber, || simulate(&scenario));
    must_hold(&scenario, &outcome);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 1..6 {
        let scenario = Scenario::of(seed);
        let (one, two) = (tell(&scenario), tell(&scenario));
        let pairs = one.trace.lines().zip(two.trace.lines());
        let same = pairs.take_while(|(a, b)| a == b).count();
        assert!(
            one.trace == two.trace,
            "seed {seed}, line {same}:\n{:?}\n{:?}",
            one.trace.lines().nth(same),
            two.trace.lines().nth(same)
        );
    }
}

#[test]
fn seeds_that_once_failed_hold() {
    for line in include_str!("seeds.txt").lines() {
        let Some(Ok(seed)) = line.split_whitespace().next().map(str::parse) else {
            assert!(line.starts_with('#'), "{line}");
            continue;
        };
        let scenario = Scenario::of(seed);
        must_hold(&scenario, &simulate(&scenario));
    }
}

/// So many seeds from `FLEET_SIM_FROM` on are one verdict.
const FIXED_SEEDS: u64 = 250;

/// Seeds that nobody has seen, for `FLEET_SIM_SECONDS`, or the fixed ones from `FLEET_SIM_FROM` on; on
/// two threads. Each kind of trouble has happened.
#[test]
fn fresh_seeds_hold() {
    let begun = std::time::Instant::now();
    let time = Duration::from_secs(number("FLEET_SIM_SECONDS").unwrap_or(10));
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fixed = number("FLEET_SIM_FROM");
    let first = fixed.unwrap_or(since.unwrap().as_nanos() as u64 >> 8);
    let is_over = |seed: u64| match fixed {
        Some(first) => seed >= first + FIXED_SEEDS,
        None => begun.elapsed() >= time,
    };
    let next = std::sync::atomic::AtomicU64::new(first);
    let run = || {
        let mut counters = std::collections::BTreeMap::new();
        let mut simulated = Duration::ZERO;
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if is_over(seed) {
                break;
            }
            let scenario = Scenario::of(seed);
            let outcome = simulate(&scenario);
            must_hold(&scenario, &outcome);
            simulated += outcome.simulated;
            for (what, n) in outcome.counters {
                *counters.entry(what).or_insert(0) += n;
            }
        }
        (counters, simulated)
    };
    let (mut counters, simulated) = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        let (mut counters, simulated) = run();
        let (more, also) = other
            .join()
            .unwrap_or_else(|why| std::panic::resume_unwind(why));
        for (what, n) in more {
            *counters.entry(what).or_insert(0) += n;
        }
        (counters, simulated + also)
    });
    // Each thread has drawn one that it did not run.
    let seeds = next.into_inner() - first - 2;
    println!(
        "{seeds} seeds from {first}: {simulated:?} in {:?}",
        begun.elapsed()
    );
    if seeds >= 50 {
        let faults = scenario::Fault::ALL.map(scenario::Fault::name);
        let consequences = [
            "lost-message",
            "lost-answer",
            "slow-message",
            "absent",
            "machine-lost",
            "refused",
            "disk-error",
            "systemd-busy",
            "unit-died",
            "auto-restart",
            "moved-for-failure",
            "avoided",
            "lease-over",
            "ask-again",
            "goes-on",
            "repaired",
            "operator",
            "settled",
        ];
        for what in faults.iter().chain(&consequences) {
            assert!(counters.remove(what).is_some(), "{what} has never happened");
        }
    }
}

/// An old backup in the place of the store stops nothing until somebody says that it is to be
/// believed. Then all settles as ever, but for what it knows nothing of: that stays.
#[test]
fn an_old_backup_stops_nothing() {
    let mut restored = 0;
    for seed in 1..=20 {
        let scenario = Scenario {
            faults: vec![scenario::Fault::OldBackup],
            operated: false,
            ..Scenario::of(seed)
        };
        let outcome = simulate(&scenario);
        must_hold(&scenario, &outcome);
        restored += outcome.counters.get("restored").copied().unwrap_or(0);
    }
    assert!(restored >= 10, "only {restored} were restored");
}

/// Twenty machines, at least a thousand times faster than they would be.
#[test]
fn twenty_machines_are_simulated_a_thousand_times_faster() {
    let scenario = Scenario {
        machines: 20,
        units: 40,
        busy_ms: 120_000,
        time: Duration::from_secs(600),
        fault_every_ms: 60_000,
        faults: vec![
            scenario::Fault::Crash,
            scenario::Fault::PowerCut,
            scenario::Fault::Cut,
        ],
        operated: false,
        ..Scenario::of(20)
    };
    // The computer may be busy with other things: the time of this thread counts, not the wall's.
    let ratios = (0..8).map(|_| {
        let begun = thread_time();
        let outcome = simulate(&scenario);
        must_hold(&scenario, &outcome);
        outcome.simulated.as_secs_f64() / (thread_time() - begun).as_secs_f64()
    });
    let best = ratios.fold(0.0, f64::max);
    println!("{best:.0} times faster");
    assert!(best >= 1_000.0, "only {best:.0} times faster");
}

/// For how long this thread has been on a processor.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The promises of SPECIFICATION.md, "It never stops what runs fine", each with bugs that break it
/// and that were planted on purpose (`planted!` in the code). Each is found within so many seeds;
/// without it the same seeds hold. Most are found in what seeds stand for; the lease needs cuts longer
/// than most.
const PLANTED: [(u8, &str, fn(u64) -> Scenario); 30] = [
    (1, "adopted units are restarted", Scenario::of),
    (1, "a farewell is a loss", Scenario::of),
    (2, "a broken watch goes on from now", Scenario::of),
    (2, "a running unit is unloaded", Scenario::of),
    (2, "a vanished assignment is a stop", Scenario::of),
    (2, "any store is believed", Scenario::of),
    (3, "LostAfter is not waited for", Scenario::of),
    (3, "a failure of most machines is believed", Scenario::of),
    (3, "the first machine back gets everything", Scenario::of),
    (4, "a cut is not noticed", Scenario::of),
    (4, "starts without presence", Scenario::of),
    (
        5,
        "an exclusive unit moves when its machine is lost",
        Scenario::of,
    ),
    (
        5,
        "the lease is prolonged without an answer",
        Scenario::of_silence,
    ),
    (6, "a move stops the old copy first", Scenario::of),
    (6, "the old copy stops first", Scenario::of),
    (7, "a repeated request counts twice", Scenario::of),
    (7, "a stale leader commits", Scenario::of),
    (7, "an unknown write is taken for done", Scenario::of),
    (7, "states are written without presence", Scenario::of),
    (7, "what is late is written", Scenario::of),
    (8, "a stop is not remembered", Scenario::of_haste),
    (8, "the generation is forgotten", Scenario::of),
    (8, "tombstones are left", Scenario::of),
    (9, "a failed unit has lost its machine", Scenario::of),
    (
        9,
        "a machine that breaks units is not avoided",
        Scenario::of,
    ),
    (9, "moves are not counted", Scenario::of),
    (9, "systemd's own restarts are not waited for", Scenario::of),
    (9, "the back-off is not waited for", Scenario::of),
    (9, "what has failed is started again", Scenario::of),
    (10, "garbage ends fleetd", Scenario::of),
];

/// An exclusive unit never runs twice, whoever is cut off, for how long, and dies meanwhile.
#[test]
fn long_cuts_and_killed_agents_hold() {
    let mut ended = 0;
    for seed in 1..=60 {
        let scenario = Scenario::of_silence(seed);
        let outcome = simulate(&scenario);
        must_hold(&scenario, &outcome);
        ended += outcome.counters.get("lease-over").copied().unwrap_or(0);
    }
    assert!(ended >= 5, "only {ended} leases have ended");
}

/// Without the bug these seeds hold: they are the fixed ones of one run.
const FOUND_WITHIN: u64 = FIXED_SEEDS;

#[test]
fn bugs_that_were_planted_are_found() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let look = || {
        let mut missed = Vec::new();
        while let Some((promise, bug, scenario)) =
            PLANTED.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        {
            let found = (1..=FOUND_WITHIN).find_map(|seed| {
                let outcome = simulate_with(&scenario(seed), Some(bug), false);
                Some((seed, outcome.failure?))
            });
            match found {
                Some((seed, why)) => println!("{promise:>2} {bug}: seed {seed}: {why:.150}"),
                None => missed.push((promise, bug)),
            }
        }
        missed
    };
    let missed = std::thread::scope(|scope| {
        let other = scope.spawn(look);
        let mut missed = look();
        missed.extend(other.join().unwrap());
        missed
    });
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn the_store_of_the_simulator_passes_the_conformance_suite() {
    let tests = {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            fleetd::sim::begin();
            let store = || -> Arc<dyn fleetd::store::Store> {
                let sim = Sim::new(1, false);
                Arc::new(store::Link {
                    center: store::Center::new(&sim, scenario::Graces::DEFAULT),
                    machine: "m1".to_owned(),
                    cable: Arc::default(),
                    life: Arc::default(),
                })
            };
            let suite = fleetd::store::conformance::suite(&store);
            let n = suite.len();
            for (name, test) in suite {
                println!("{name}");
                test.await;
            }
            n
        })
    };
    assert!(tests >= 18, "{tests}");
}
