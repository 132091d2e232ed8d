use crate::session::{HELLO, Session};

#[test]
fn units_are_loaded_and_what_runs_is_left_alone() {
    let mut session = Session::new();
    session
        .file("a.service", HELLO)
        .unit("hello.service", HELLO, "launched");
    session.run("fleetctl load a hello").run("fleetctl list-unit-files --fields=unit,dstate").shows(
        "
$ fleetctl load a hello
Unit a.service inactive
Unit a.service loaded on 63d22e36.../172.30.1.2
2> Unable to load unit hello.service in state launched: it would be stopped (fleetctl stop hello.service does that)
rc=1
$ fleetctl list-unit-files --fields=unit,dstate
UNIT\t\tDSTATE
a.service\tloaded
hello.service\tlaunched
",
    );
}

#[test]
fn a_template_cannot_be_loaded() {
    let mut session = Session::new();
    session.unit("s@.service", HELLO, "inactive");
    session.run("fleetctl load s@").shows(
        "
$ fleetctl load s@
2> Error loading units: googleapi: Error 400: cannot activate template \"s@.service\"
rc=1
",
    );
}
