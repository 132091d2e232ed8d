//! fleet's daemon: the part that *does*. It keeps the store, drives systemd, runs the loops of
//! engine and agent, and serves the HTTP API. What is to be done is decided by fleet-core.

/// The version that fleetd tells: `v1.0.0`.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

pub mod access;
pub mod agent;
pub mod api;
pub(crate) mod backoff;
pub mod clock;
pub mod config;
pub mod engine;
mod events;
#[doc(hidden)]
pub mod failpoint;
#[doc(hidden)]
pub mod fuzz;
pub mod lease_thread;
pub mod listen;
pub mod logging;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod panics;
pub mod peer;
pub mod pki;
pub mod reload;
pub mod server;
pub mod shutdown;
#[cfg(fleet_sim)]
pub mod sim;
mod stall;
pub mod store;
pub(crate) mod task;
pub(crate) mod ticks;
pub mod units;
