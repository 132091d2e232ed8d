//! The systemd driver against a real `systemd --user` of its own, and the plans that drive it.
//!
//! Needs root and a `systemd` binary, as on any machine where fleet is developed; each test boots
//! its own manager in namespaces and a cgroup of its own, and takes all of it down.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells why"
)]

mod adoption;
mod contents;
mod exclusive;
mod failpoints;
mod failures;
mod install;
mod life;
mod many;
mod names;
mod rig;
mod user_mode;
