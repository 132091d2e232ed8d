use crate::session::{HELLO, Session};

#[test]
fn a_unit_is_stopped_once() {
    let mut session = Session::new();
    session.unit("hello.service", HELLO, "launched");
    session
        .run("fleetctl stop hello")
        .run("fleetctl stop hello")
        .shows(
            "
$ fleetctl stop hello
Unit hello.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [hello.service].
$ fleetctl stop hello
2> Successfully stopped units [].
",
        );
}

#[test]
fn several_names_and_patterns_each_told() {
    let mut session = Session::new();
    session
        .unit("a.service", HELLO, "launched")
        .unit("idle.service", HELLO, "inactive");
    session
        .unit("web-1.service", HELLO, "launched")
        .unit("web-2.service", HELLO, "launched");
    session
        .run("fleetctl stop nope idle a 'web-?' 'x*'")
        .run("fleetctl stop nope")
        .run("fleetctl stop")
        .shows(
            "
$ fleetctl stop nope idle a 'web-?' 'x*'
Unit a.service loaded on 63d22e36.../172.30.1.2
Unit web-1.service loaded on 63d22e36.../172.30.1.2
Unit web-2.service loaded on 63d22e36.../172.30.1.2
2> Unit nope.service not found in registry
2> No unit in registry matches \"x*\"
2> Unable to stop unit idle.service in state inactive
2> Successfully stopped units [a.service web-1.service web-2.service].
rc=1
$ fleetctl stop nope
2> Unit nope.service not found in registry
2> Units not found in registry
rc=1
$ fleetctl stop
2> No units given
",
        );
}

#[test]
fn a_pattern_is_about_what_is_wanted() {
    let mut session = Session::new();
    session
        .unit("s@.service", HELLO, "inactive")
        .unit("s@1.service", HELLO, "launched")
        .unit("s@2.service", HELLO, "inactive");
    session
        .run("fleetctl stop 's@*'")
        .run("fleetctl restart 's@*'")
        .run("fleetctl unload 's@*'")
        .run("fleetctl stop 's@*'")
        .run("fleetctl restart 's@*'")
        .shows(
            "
$ fleetctl stop 's@*'
Unit s@1.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [s@1.service].
$ fleetctl restart 's@*'
Unit s@1.service launched on 63d22e36.../172.30.1.2
2> Unit(s@1.service) already loaded, starting.
$ fleetctl unload 's@*'
Unit s@1.service inactive
2> Successfully unloaded units [s@1.service].
$ fleetctl stop 's@*'
2> Successfully stopped units [].
$ fleetctl restart 's@*'
2> Nothing to restart: what matches is inactive
",
        );
}

#[test]
fn what_fails_when_it_is_stopped_and_what_is_nowhere_have_stopped() {
    let mut session = Session::new();
    session
        .unit("bad.service", HELLO, "launched")
        .unit("nowhere.service", HELLO, "launched");
    session.run("fleetctl stop bad nowhere").shows(
        "
$ fleetctl stop bad nowhere
Unit bad.service loaded on 63d22e36.../172.30.1.2
Unit nowhere.service inactive
2> Successfully stopped units [bad.service nowhere.service].
",
    );
}

#[test]
fn a_stop_that_takes_too_long() {
    let mut session = Session::new();
    session.unit("slow.service", HELLO, "launched");
    session.run("fleetctl stop --block-attempts 1 slow").run("fleetctl stop --no-block slow").shows(
        "
$ fleetctl stop --block-attempts 1 slow
2> Error waiting for units: timed out waiting for unit slow.service to report state loaded; the request stands
2> Failed to stop units [slow.service]. err: timed out waiting for unit slow.service to report state loaded; the request stands
rc=1
$ fleetctl stop --no-block slow
",
    );
}
