//! fleetctl through real sshds: two hosts with their own systemd, fleetd and sshd, a user with
//! an ssh-agent beside them. Asserts on what a person sees, and on what the sshds say.
//!
//! Needs root and release binaries (`cargo build --release --bins`; `make test` does it).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod journal;
mod keys;
mod restart;
mod rig;
mod ssh;
mod status;
mod tunnel;

use rig::Rig;

/// One boot for all: each promise leaves the hosts and the known keys as it found them.
#[test]
fn what_ssh_promises() {
    let rig = Rig::up();
    keys::an_unknown_key_that_is_declined(&rig);
    keys::without_checks_nothing_is_stored(&rig);
    keys::an_unknown_key_that_is_accepted(&rig);
    keys::another_port_has_its_own_line(&rig);
    keys::hashed_hosts_are_known(&rig);
    keys::a_key_that_has_changed(&rig);
    tunnel::a_batch_goes_through_one_ssh(&rig);
    tunnel::an_http_endpoint(&rig);
    tunnel::failures_name_host_and_cure(&rig);
    ssh::a_command_has_its_output_input_and_status(&rig);
    ssh::a_terminal_is_passed_on(&rig);
    ssh::the_agent_is_forwarded_when_asked_for(&rig);
    ssh::targets_share_the_tunnels_login(&rig);
    status::start_units(&rig);
    journal::lines_from_the_units_machine(&rig);
    journal::on_this_machine_without_ssh(&rig);
    status::systemctls_words_from_every_machine(&rig);
    status::on_this_machine_without_ssh(&rig);
    status::machines_that_fleetd_cannot_ask_are_asked_through_ssh(&rig);
    journal::a_machine_that_fleetd_cannot_ask_is_asked_through_ssh(&rig);
    journal::lines_are_followed_as_they_come(&rig);
    restart::a_global_unit_on_all_machines(&rig);
    tunnel::a_host_that_is_silent_is_given_up_in_time(&rig);
}
