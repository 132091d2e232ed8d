//! Time as the journals have it, and waiting for a moment of the schedule.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Microseconds since 1970, as in the journals: all hosts share the computer's clock.
pub(crate) type Micros = i64;

/// Now.
pub(crate) fn now() -> Micros {
    #[expect(
        clippy::disallowed_methods,
        reason = "journals are stamped with this clock, and are compared with what was done"
    )]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as Micros)
}

/// Seconds and milliseconds between two points, for people.
pub(crate) fn seconds(from: Micros, to: Micros) -> f64 {
    (to - from) as f64 / 1e6
}

/// The clock of one round: everybody acts by it, and ends at once when somebody has failed.
pub(crate) struct Stage {
    begun: Instant,
    ended: Mutex<bool>,
    told: Condvar,
}

impl Stage {
    pub(crate) fn begin() -> Stage {
        Stage {
            begun: Instant::now(),
            ended: Mutex::new(false),
            told: Condvar::new(),
        }
    }

    /// Waits until so long after the beginning. False: the round has been ended meanwhile.
    pub(crate) fn until(&self, at: Duration) -> bool {
        let left = at.saturating_sub(self.begun.elapsed());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) = self
            .told
            .wait_timeout_while(ended, left, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        !*ended
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Nobody waits any longer.
    pub(crate) fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }
}
