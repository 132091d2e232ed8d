//! Bugs that are planted on purpose, so that a test can show that the simulator finds them.
//! Compiled only for the simulator (`--cfg fleet_sim`); one at most is alive on a thread.

use std::cell::Cell;

thread_local! {
    static ALIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Brings one bug to life on this thread, and ends the one before; None: there is none.
pub fn bring_to_life(bug: Option<&'static str>) {
    ALIVE.set(bug);
}

/// Whether this bug is alive.
pub fn is_alive(bug: &str) -> bool {
    ALIVE.get() == Some(bug)
}
