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
2> Unit nope.service not found in registry
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
