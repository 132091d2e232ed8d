//! fleet-core decides: it knows unit names, unit files, requirements, placement and what an
//! agent must do, and nothing else.
//!
//! **Invariant:** no I/O, no clock, no async and no wire format. Whatever depends on the
//! outside world (the time, the store's contents, what systemd says) is an argument, and equal
//! input gives equal output.

/// Whether a bug that is planted for the simulator is alive; never so in what is shipped.
#[macro_export]
macro_rules! planted {
    ($bug:literal) => {{
        #[cfg(fleet_sim)]
        {
            $crate::planted::is_alive($bug)
        }
        #[cfg(not(fleet_sim))]
        {
            false
        }
    }};
}

pub mod agent;
pub mod body;
pub mod check;
pub mod cluster;
pub mod cure;
pub mod events;
pub mod exclusive;
pub mod glob;
pub mod hash;
pub mod name;
pub mod plan;
#[cfg(fleet_sim)]
pub mod planted;
pub mod records;
pub mod requirements;
pub mod signed;
pub mod small_map;
pub mod unit_file;
pub mod validate;

#[cfg(test)]
mod compatibility;
mod schedule;
mod text;
