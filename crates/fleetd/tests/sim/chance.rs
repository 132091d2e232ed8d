//! Everything that happens by chance comes from one seed; what happened is written down.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::stream::Chance;

/// When more happens at one point in time, time will never go on.
const MOST_AT_ONCE: u32 = 20_000;

/// What all parts of one simulation share.
pub struct Sim {
    rng: Mutex<Chance>,
    log: Mutex<Log>,
    begun: Instant,
    /// Everything is printed as it happens.
    loud: bool,
    /// What happens is written down.
    keeps_story: bool,
    /// Told when something has gone wrong.
    pub failed: Notify,
}

#[derive(Default)]
struct Log {
    text: String,
    counters: BTreeMap<&'static str, u64>,
    failure: Option<String>,
    /// The last point in time, and how much has happened at it.
    now: (u128, u32),
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// `keeps_story`: writing down what happens takes longer than most of what happens.
    pub fn new(seed: u64, keeps_story: bool) -> Arc<Sim> {
        Arc::new(Sim {
            keeps_story,
            rng: Mutex::new(Chance::new(seed)),
            log: Mutex::default(),
            begun: Instant::now(),
            loud: std::env::var_os("FLEET_SIM_SEED").is_some(),
            failed: Notify::new(),
        })
    }

    /// From 0 up to and without `end`.
    pub fn below(&self, end: usize) -> usize {
        lock(&self.rng).below(end)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&self, share: usize) -> bool {
        self.below(100) < share
    }

    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A time between the two, in milliseconds.
    pub fn between(&self, least_ms: usize, most_ms: usize) -> Duration {
        Duration::from_millis((least_ms + self.below(most_ms - least_ms + 1)) as u64)
    }

    /// Something happened; the first word counts it.
    pub fn note(&self, what: &'static str, details: std::fmt::Arguments<'_>) {
        let mut log = lock(&self.log);
        *log.counters.entry(what).or_default() += 1;
        let at = self.begun.elapsed().as_millis();
        log.now = match log.now {
            (last, n) if last == at => (last, n + 1),
            _ => (at, 0),
        };
        if log.now.1 == MOST_AT_ONCE {
            let why = format!("it spins: {what} {details}");
            log.failure.get_or_insert(why);
            self.failed.notify_waiters();
        }
        if self.keeps_story {
            let _ = writeln!(log.text, "{at:>7} {what} {details}");
        }
        if self.loud {
            println!("{at:>7} {what} {details}");
        }
    }

    /// Something that must never be has happened. Only the first counts.
    pub fn fail(&self, why: String) {
        self.note("VIOLATION", format_args!("{why}"));
        lock(&self.log).failure.get_or_insert(why);
        self.failed.notify_waiters();
    }

    pub fn failure(&self) -> Option<String> {
        lock(&self.log).failure.clone()
    }

    pub fn trace(&self) -> String {
        lock(&self.log).text.clone()
    }

    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.log).counters.clone()
    }

    pub fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}
