//! At most one copy of an exclusive unit runs anywhere.

use super::{Audit, short};
use crate::chance::lock;

impl Audit {
    /// An exclusive unit begins on a machine: it must run nowhere else.
    pub fn begins(&self, machine: &str, unit: &str) {
        let mut seen = lock(&self.seen);
        // A backup that does not know where it runs is the exception that RELIABILITY.md names.
        let restored = seen.restored.is_some();
        let running = seen.exclusive.entry(unit.to_owned()).or_default();
        if let Some(other) = running.iter().find(|other| *other != machine && !restored) {
            self.sim.fail(format!(
                "{unit} was started on {} while it ran on {}",
                short(machine),
                short(other)
            ));
        }
        running.insert(machine.to_owned());
    }

    /// Nothing of a unit runs on a machine any more.
    pub fn ends(&self, machine: &str, unit: &str) {
        if let Some(running) = lock(&self.seen).exclusive.get_mut(unit) {
            running.remove(machine);
        }
    }
}
