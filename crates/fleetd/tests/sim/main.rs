//! The simulator: the real engine, agent and API loops over a simulated store and systemd, on
//! one thread and from one seed. `scripts/sim.sh` builds and runs it.
#![cfg(fleet_sim)]
#![allow(unreachable_pub)]

mod audit;
mod chance;
mod driver;
mod host;
mod life;
mod many;
mod operators;
mod planted;
mod scenario;
mod store;
#[path = "../common/chance.rs"]
mod stream;
mod users;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chance::Sim;
use many::Many;
use scenario::{Kind, Scenario};
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
    panic!("{end}\n\n{why}\n\n{scenario:?}\n{}", scenario.replay());
}

/// Tells the story of `FLEET_SIM_SEED` (of the first seed, if it is not given) as it happens; of
/// `FLEET_SIM_KIND`, if it is another than what seeds stand for.
#[test]
fn replay() {
    let kind = std::env::var("FLEET_SIM_KIND").unwrap_or(Kind::Any.name().to_owned());
    let kinds = Kind::ALL.map(Kind::name);
    let kind = Kind::named(&kind).unwrap_or_else(|| panic!("{kind} is none of {kinds:?}"));
    let scenario = kind.scenario(number("FLEET_SIM_SEED").unwrap_or(1));
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
    let lines = include_str!("seeds.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let word = line.split_whitespace().next().unwrap_or_default();
        let (kind, seed) = word.split_once('/').unwrap_or((Kind::Any.name(), word));
        let (Some(kind), Ok(seed)) = (Kind::named(kind), seed.parse()) else {
            panic!("{line}");
        };
        let scenario = kind.scenario(seed);
        must_hold(&scenario, &simulate(&scenario));
    }
}

/// All seeds of a kind that everybody runs: one commit, one verdict.
fn fixed_seeds_of(kind: Kind) -> Many {
    let next = AtomicU64::new(*kind.fixed().start());
    Many::of(|| {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        kind.fixed().contains(&seed).then(|| kind.scenario(seed))
    })
}

/// Each kind of trouble has happened.
#[test]
fn fixed_seeds_hold() {
    let mut counters = fixed_seeds_of(Kind::Any).must_hold();
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

/// How long fresh seeds are tried if nobody says `FLEET_SIM_SECONDS`.
const FRESH_SECONDS: u64 = 10;

/// Seeds that nobody has seen, of all kinds, for a bounded time; from `FLEET_SIM_FROM` on, if it is given.
#[test]
fn fresh_seeds_hold() {
    let begun = std::time::Instant::now();
    let time = Duration::from_secs(number("FLEET_SIM_SECONDS").unwrap_or(FRESH_SECONDS));
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = number("FLEET_SIM_FROM").unwrap_or(since.unwrap().as_nanos() as u64 >> 8);
    let next = AtomicU64::new(first);
    let many = Many::of(|| {
        let is_over = begun.elapsed() >= time;
        (!is_over).then(|| Scenario::drawn(next.fetch_add(1, Ordering::Relaxed)))
    });
    println!("from {first}: {many}, in {:?}", begun.elapsed());
    many.must_hold();
}

/// An old backup in the place of the store stops nothing until somebody says that it is to be
/// believed. Then all settles as ever, but for what it knows nothing of: that stays.
#[test]
fn an_old_backup_stops_nothing() {
    let counters = fixed_seeds_of(Kind::OldBackup).must_hold();
    let restored = counters.get("restored").copied().unwrap_or(0);
    assert!(restored >= 10, "only {restored} were restored");
}

/// A copy that is written on while a machine does not see it is no right store for it.
#[test]
fn an_older_copy_that_was_written_on_stops_nothing() {
    let counters = fixed_seeds_of(Kind::StaleCopy).must_hold();
    let restored = counters.get("restored").copied().unwrap_or(0);
    assert!(restored >= 20, "only {restored} were restored");
}

/// Who vanishes for a moment in which the leader stands still keeps its units.
#[test]
fn a_leader_that_stood_still_gives_nobody_up_who_is_back() {
    let counters = fixed_seeds_of(Kind::Blink).must_hold();
    let blinks = counters.get("blink").copied().unwrap_or(0);
    assert!(blinks >= 40, "only {blinks} times");
}

/// While most machines are away nothing moves, until somebody says that they are gone; and that is
/// said of these alone, and not by garbage.
#[test]
fn a_freeze_ends_when_somebody_says_so() {
    let counters = fixed_seeds_of(Kind::Freeze).must_hold();
    let thawed = counters.get("thawed").copied().unwrap_or(0);
    assert!(thawed >= 20, "only {thawed} times");
}

/// What systemd restarts stays where it is, however long systemd takes for that.
#[test]
fn units_that_systemd_restarts_stay() {
    let counters = fixed_seeds_of(Kind::Restarts).must_hold();
    let restarted = counters.get("auto-restart").copied().unwrap_or(0);
    assert!(restarted >= 50, "only {restarted} times");
}

/// Users who change their minds before a unit is down get what they asked for last.
#[test]
fn users_in_haste_get_what_they_asked_for() {
    let counters = fixed_seeds_of(Kind::Haste).must_hold();
    let asked = counters.get("acknowledged").copied().unwrap_or(0);
    assert!(asked >= 1_000, "only {asked} times");
}

/// Twenty machines, about a thousand times faster than they would be. What other work on the
/// computer and another processor make of that is no fault of the simulator: a part is enough here,
/// and what it is is printed.
#[test]
fn twenty_machines_are_simulated_a_thousand_times_faster() {
    const AT_LEAST: f64 = 200.0;
    let scenario = Kind::Crowd.scenario(20);
    // The computer may be busy with other things: the time of this thread counts, not the wall's.
    let ratios = (0..3).map(|_| {
        let begun = thread_time();
        let outcome = simulate(&scenario);
        must_hold(&scenario, &outcome);
        outcome.simulated.as_secs_f64() / (thread_time() - begun).as_secs_f64()
    });
    let best = ratios.fold(0.0, f64::max);
    println!("{best:.0} times faster");
    assert!(best >= AT_LEAST, "only {best:.0} times faster");
}

/// For how long this thread has been on a processor.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// An exclusive unit never runs twice, whoever is cut off, for how long, and dies meanwhile.
#[test]
fn long_cuts_and_killed_agents_hold() {
    let counters = fixed_seeds_of(Kind::Silence).must_hold();
    let ended = counters.get("lease-over").copied().unwrap_or(0);
    assert!(ended >= 5, "only {ended} leases have ended");
}

/// What was to leave a machine, and may stay before it has stopped, runs there again.
#[test]
fn units_that_turn_back_run() {
    let counters = fixed_seeds_of(Kind::TurnBack).must_hold();
    let stopped = counters.get("stop-job").copied().unwrap_or(0);
    assert!(stopped >= 100, "only {stopped} were stopped");
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
