//! Units that are moved when they fail, and machines that are avoided because many did: fleetd's
//! own engine, with played agents on which `bad` units fail on the second machine and `worst` ones
//! on both.

use crate::session::{HELLO, Session};

/// Each is a process of its own: what has not happened by then never happens.
const MAX_LOOKS: usize = 500;

/// A unit with these lines in its `[X-Fleet]` section.
fn unit(lines: &str) -> String {
    format!("{HELLO}\n[X-Fleet]\n{lines}\n")
}

/// What was seen, without the time of the day.
fn seen(session: &mut Session) -> String {
    let mut seen = session.seen();
    let mut from = 0;
    while let Some(at) = seen[from..].find(" is moved at ") {
        let time = from + at + " is moved at ".len();
        seen.replace_range(time..time + "10:00:00".len(), "HH:MM:SS");
        from = time;
    }
    seen
}

#[test]
fn a_start_waits_while_a_unit_that_failed_is_moved_and_ends_when_it_stays_failed() {
    let mut session = Session::with_engine();
    session
        .file("first.service", HELLO)
        .file("bad.service", &unit("RescheduleOnFailure=yes"))
        .file("worst.service", &unit("RescheduleOnFailure=1"))
        .file(
            "bad-stuck.service",
            &unit("RescheduleOnFailure=yes\nMachineID=6a97c281"),
        );
    session.run("fleetctl submit first bad worst bad-stuck");
    session.seen();
    session
        .run("fleetctl start first")
        .run("fleetctl start bad")
        .run("fleetctl start worst")
        .run("fleetctl start bad-stuck");
    let seen = seen(&mut session);
    assert_eq!(
        seen.trim(),
        "
$ fleetctl start first
Unit first.service launched on 63d22e36.../172.30.1.2
$ fleetctl start bad
Unit bad.service launched on 63d22e36.../172.30.1.2
2> unit bad.service failed on 6a97c281.../172.30.1.3: exit-code: status 1/FAILURE; it is moved at HH:MM:SS UTC, if it has not recovered: move 1 of at most 5
$ fleetctl start worst
2> unit worst.service failed on 6a97c281.../172.30.1.3: exit-code: status 1/FAILURE; it is moved at HH:MM:SS UTC, if it has not recovered: move 1 of at most 1
2> Error waiting for units: unit worst.service failed on 63d22e36.../172.30.1.2: exit-code: status 1/FAILURE; it stays failed there after 1 of at most 1 moves, until it is started anew
rc=1
$ fleetctl start bad-stuck
2> unit bad-stuck.service failed on 6a97c281.../172.30.1.3: exit-code: status 1/FAILURE; it is moved at HH:MM:SS UTC, if it has not recovered: move 1 of at most 5
2> Error waiting for units: unit bad-stuck.service failed on 6a97c281.../172.30.1.3: exit-code: status 1/FAILURE, and it stays there: no other machine may run it: MachineID 6a97c281
rc=1
"
        .trim()
    );
}

#[test]
fn a_machine_where_many_units_fail_is_shown_as_avoided_until_it_is_opened() {
    let mut session = Session::with_engine();
    for n in 1..=3 {
        session.file(&format!("bad{n}.service"), &unit("MachineID=6a97c281"));
    }
    session.run("fleetctl start bad1 bad2 bad3");
    // The leader counts failures at the same time as they are told.
    let is_told = (0..MAX_LOOKS).any(|_| {
        let seen = session.run("fleetctl list-machines").seen();
        seen.contains("2> Avoided: ")
    });
    assert!(is_told, "it is not avoided");
    session
        .run("fleetctl list-machines")
        .run("fleetctl uncordon 6a97")
        .run("fleetctl list-machines")
        .shows(
            "
$ fleetctl list-machines
MACHINE                              IP           METADATA
63d22e369175433883a37d92cc53f36c     172.30.1.2   -
6a97c281d654404fb1ef271dfcd36920     172.30.1.3   -
2> Avoided: 6a97c281d654404fb1ef271dfcd36920 (3 of the last 3 units failed there within 10 min: bad1.service, bad2.service, bad3.service)
2> hint: new units come to them last, until one runs well there or fleetctl uncordon trusts them again
$ fleetctl uncordon 6a97
Machine 6a97c281.../172.30.1.3 open
$ fleetctl list-machines
MACHINE                              IP           METADATA
63d22e369175433883a37d92cc53f36c     172.30.1.2   -
6a97c281d654404fb1ef271dfcd36920     172.30.1.3   -
",
        );
}
