//! Pauses between attempts to reach a store that is away: growing, jittered, and short enough
//! that a machine is back within a second or two of its store.

use std::time::Duration;

use crate::clock;

const FIRST: Duration = Duration::from_millis(50);
/// A rejoin must not take longer than this after connectivity returns.
const LONGEST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// Waits, each time about twice as long as before; half of it is jitter, so that machines
    /// that lost the store together do not come back in step.
    pub(crate) async fn pause(&mut self) {
        let jitter = f64::from(clock::boottime().subsec_nanos() % 1_000) / 1_000.0;
        tokio::time::sleep(self.next.mul_f64(0.5 + jitter / 2.0)).await;
        self.next = (self.next * 2).min(LONGEST);
    }
}
