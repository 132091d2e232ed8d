//! The promises of SPECIFICATION.md on real machines: hosts with their own systemd, a real etcd,
//! real power cuts. Each test asserts on systemd inside the hosts, not on fleet's word.
//!
//! Needs root and release binaries (`cargo build --release --bins`; `make test` does it). Slow
//! safety ticks are off in every cluster here, so that a lost event shows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
#[path = "../common/original.rs"]
mod original;

mod absence;
mod access;
mod alone;
mod api;
mod bad_input;
mod calm;
mod control_plane;
mod cost;
mod cuts;
mod daemon;
mod drain;
mod exclusive;
mod failures;
mod farewell;
mod identity;
mod install;
mod kept;
mod logs;
mod machine;
mod metadata;
mod migration;
mod names;
mod outlives;
mod package;
mod page;
mod session;
mod start;
mod stress;
mod types;
mod uses;
