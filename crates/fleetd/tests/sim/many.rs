//! Many simulations, on two threads.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::scenario::Scenario;
use crate::{must_hold, simulate};

/// After so many failures the rest would say nothing new.
const MOST_FAILURES: usize = 50;

/// What became of them.
#[derive(Default)]
pub struct Many {
    seeds: u64,
    simulated: Duration,
    counters: BTreeMap<&'static str, u64>,
    failed: Vec<Scenario>,
}

impl Many {
    /// Simulates as many as are drawn. A failure is told at once, and the others go on.
    pub fn of(draw: impl Fn() -> Option<Scenario> + Sync) -> Many {
        let run = || {
            let mut many = Many::default();
            while many.failed.len() < MOST_FAILURES
                && let Some(scenario) = draw()
            {
                many.simulate(scenario);
            }
            many
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(run);
            let mut many = run();
            many.take_in(
                other
                    .join()
                    .unwrap_or_else(|why| std::panic::resume_unwind(why)),
            );
            many
        })
    }

    fn simulate(&mut self, scenario: Scenario) {
        let outcome = simulate(&scenario);
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.count(outcome.counters);
        if let Some(why) = outcome.failure {
            println!("{why}\n    {}", scenario.replay());
            self.failed.push(scenario);
        }
    }

    fn take_in(&mut self, other: Many) {
        self.seeds += other.seeds;
        self.simulated += other.simulated;
        self.count(other.counters);
        self.failed.extend(other.failed);
    }

    fn count(&mut self, counters: BTreeMap<&'static str, u64>) {
        for (what, n) in counters {
            *self.counters.entry(what).or_default() += n;
        }
    }

    /// Fails with the story of the first that failed; else tells how often what has happened.
    #[track_caller]
    pub fn must_hold(self) -> BTreeMap<&'static str, u64> {
        if let Some(scenario) = self.failed.first() {
            must_hold(scenario, &simulate(scenario));
            panic!("it has failed once, and not again: {}", scenario.replay());
        }
        self.counters
    }
}

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seeds, failed) = (self.seeds, self.failed.len());
        write!(f, "{seeds} seeds, {failed} failed, {:?}", self.simulated)
    }
}
