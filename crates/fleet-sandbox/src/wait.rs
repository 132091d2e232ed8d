//! Waiting for a state with a bound, never for a moment.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Between two looks at a predicate: short against a boot, long against a look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A point in time at which a wait gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start: Instant,
    bound: Duration,
}

impl Deadline {
    #[expect(
        clippy::disallowed_methods,
        reason = "the sandbox drives real machines: no test pauses its clock"
    )]
    pub(crate) fn after(bound: Duration) -> Deadline {
        Deadline {
            start: Instant::now(),
            bound,
        }
    }

    /// What remains; zero when it has passed.
    pub(crate) fn remaining(&self) -> Duration {
        self.bound.saturating_sub(self.start.elapsed())
    }

    pub(crate) fn error(&self, what: &str, last: impl Into<String>) -> Error {
        Error::Timeout {
            what: what.to_owned(),
            seconds: self.start.elapsed().as_secs_f64(),
            last: last.into(),
        }
    }
}

/// Calls `look` until it says `Ok`, at most for `bound`. `look` says what it sees instead in
/// its error; the last of these stands in the failure.
///
/// # Errors
/// [`Error::Timeout`] with what was last seen.
pub fn wait_for<T, E: Display>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> std::result::Result<T, E>,
) -> Result<T> {
    let deadline = Deadline::after(bound);
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if deadline.remaining().is_zero() => {
                return Err(deadline.error(what, seen.to_string()));
            }
            Err(_) => pause(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks of a bounded wait"
)]
pub(crate) fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_returned_as_soon_as_it_is_there() {
        let mut looks = 0;
        let value = wait_for("three looks", Duration::from_secs(60), || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err("too few")
            }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_failure_says_what_was_last_seen() {
        let failure = wait_for("the impossible", Duration::ZERO, || Err::<(), _>("a cloud"))
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("the impossible") && failure.ends_with("last seen: a cloud"),
            "{failure}"
        );
    }
}
