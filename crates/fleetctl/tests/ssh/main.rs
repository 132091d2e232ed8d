//! fleetctl through real sshds: two hosts with their own systemd, fleetd and sshd, a user with
//! an ssh-agent beside them. Asserts on what a person sees, and on what the sshds say.
//!
//! Needs root and release binaries (`cargo build --release --bins`; `make test` does it).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod keys;
mod machines;
mod rig;
mod tunnel;

use rig::Rig;

/// One boot for all: each promise leaves the hosts and the known keys as it found them.
#[test]
fn what_ssh_promises() {
    let rig = Rig::up();
    keys::an_unknown_key_that_is_declined(&rig);
    keys::without_checks_nothing_is_stored(&rig);
    keys::an_unknown_key_that_is_accepted(&rig);
    keys::a_key_that_has_changed(&rig);
    tunnel::a_batch_goes_through_one_ssh(&rig);
    tunnel::an_http_endpoint(&rig);
    tunnel::failures_name_host_and_cure(&rig);
    machines::a_command_has_its_output_input_and_status(&rig);
    machines::a_terminal_is_passed_on(&rig);
    machines::the_agent_is_forwarded_when_asked_for(&rig);
    machines::status_and_journal(&rig);
    machines::targets_share_the_tunnels_login(&rig);
    machines::status_of_this_machine_needs_no_ssh(&rig);
}
