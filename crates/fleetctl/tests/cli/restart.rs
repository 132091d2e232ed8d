use crate::session::{HELLO, Session};

#[test]
fn what_runs_becomes_another_invocation() {
    let mut session = Session::new();
    session
        .unit("a.service", HELLO, "launched")
        .unit("stuck.service", HELLO, "launched");
    session
        .unit("loaded.service", HELLO, "loaded")
        .unit("idle.service", HELLO, "inactive");
    session
        .run("fleetctl restart a stuck loaded idle nope")
        .shows(
            "
$ fleetctl restart a stuck loaded idle nope
Unit a.service launched on 63d22e36.../172.30.1.2
Unit loaded.service launched on 63d22e36.../172.30.1.2
2> Error creating units: unable to find Unit(nope.service) in Registry or on filesystem
2> Unit(loaded.service) already loaded, starting.
2> Unable to restart unit idle.service in state inactive
2> Error waiting for units: unit stuck.service was not restarted: it is still invocation 1
2> Unit(a.service) was restarted.
rc=1
",
        );
    assert_eq!(
        session.cluster.lock().unwrap().units["a.service"].invocation,
        2
    );
}

#[test]
fn what_fleet_does_not_have_is_submitted_and_what_differs_is_told() {
    let mut session = Session::new();
    session
        .unit("a.service", HELLO, "launched")
        .file("a.service", "[Service]\nExecStart=/bin/b\n")
        .file("new.service", HELLO)
        .unit("web-1.service", HELLO, "launched")
        .unit("web-2.service", HELLO, "launched");
    session
        .run("fleetctl restart a new 'web-*' web-1")
        .run("fleetctl restart new")
        .run("fleetctl restart 'x*'")
        .run("fleetctl restart")
        .shows("
$ fleetctl restart a new 'web-*' web-1
Unit new.service inactive
Unit a.service launched on 63d22e36.../172.30.1.2
Unit web-1.service launched on 63d22e36.../172.30.1.2
Unit web-2.service launched on 63d22e36.../172.30.1.2
2> WARNING: Unit a.service in registry differs from local unit file a.service. Add --replace to override.
2> Unable to restart unit new.service in state inactive: it has just been submitted (fleetctl start new.service starts it)
2> Unit(a.service) was restarted.
2> Unit(web-1.service) was restarted.
2> Unit(web-2.service) was restarted.
rc=1
$ fleetctl restart new
2> Unable to restart unit new.service in state inactive
rc=1
$ fleetctl restart 'x*'
2> No unit in registry matches \"x*\"
rc=1
$ fleetctl restart
2> No units given
");
}

#[test]
fn a_global_unit_is_restarted_on_all_machines() {
    let mut session = Session::new();
    session.unit(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
        "launched",
    );
    session.run("fleetctl restart g").shows(
        "
$ fleetctl restart g
Triggered global unit g.service restart
Unit g.service launched on 63d22e36.../172.30.1.2
Unit g.service launched on 6a97c281.../172.30.1.3
2> Unit(g.service) was restarted.
",
    );
}
