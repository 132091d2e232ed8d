//! What is remembered of a unit as systemd tells of it.

use fleet_core::agent::Failure;

use super::*;

/// A unit whose failure was looked up while systemd waits to restart it.
fn restarting() -> Entry {
    let mut entry = Entry::default();
    entry.observed.invocation_id = "1".to_owned();
    take(&mut entry, "activating", "auto-restart");
    assert!(entry.wants_lookup());
    entry.observed.failure_pending = false;
    entry.observed.failure = Some(Failure {
        why: "exit-code: main process exited, status 7/NOTRUNNING".to_owned(),
        log: Vec::new(),
    });
    entry
}

fn take(entry: &mut Entry, active: &str, sub: &str) {
    let of = |text: &str| Some(text.to_owned());
    entry.take_state(of(active), of(sub), Sequence::default());
}

#[test]
fn a_unit_that_systemd_is_restarting_is_not_told_as_failed_in_between() {
    let mut entry = restarting();
    take(&mut entry, "inactive", "dead");
    assert_eq!(entry.observed.failure, None);
    take(&mut entry, "activating", "start");
    take(&mut entry, "active", "running");
    assert!(!entry.wants_lookup());
}

#[test]
fn the_end_of_the_last_attempt_is_told() {
    let mut entry = restarting();
    take(&mut entry, "inactive", "dead");
    entry.observed.invocation_id = "2".to_owned();
    take(&mut entry, "failed", "failed");
    assert!(entry.wants_lookup(), "another invocation has failed");

    // Given up without another attempt.
    let mut entry = restarting();
    take(&mut entry, "failed", "failed");
    assert!(entry.observed.failure.is_some());

    let mut entry = restarting();
    take(&mut entry, "inactive", "dead");
    take(&mut entry, "failed", "failed");
    assert!(entry.wants_lookup(), "what was dropped is looked up again");
}
