use crate::session::{HELLO, Session};

/// An ssh that says what it is asked for.
fn session() -> Session {
    let mut session = Session::new();
    session.with_ssh();
    session
        .unit("hello.service", HELLO, "launched")
        .unit("idle.service", HELLO, "inactive");
    session.unit(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
        "launched",
    );
    session
}

#[test]
fn systemctl_is_asked_on_the_units_machines() {
    session()
        .run("fleetctl status hello")
        .run("fleetctl status g")
        .run("fleetctl status")
        .run("fleetctl status nope idle hello")
        .shows(
            "
$ fleetctl status hello
ssh -l core 172.30.1.2 systemctl status \"-l\" \"hello.service\"
$ fleetctl status g
g.service on 63d22e36.../172.30.1.2:
ssh -l core 172.30.1.2 systemctl status \"-l\" \"g.service\"

g.service on 6a97c281.../172.30.1.3:
ssh -l core 172.30.1.3 systemctl status \"-l\" \"g.service\"
$ fleetctl status
2> No units given
$ fleetctl status nope idle hello
ssh -l core 172.30.1.2 systemctl status \"-l\" \"hello.service\"
2> Unit nope.service not found in registry
2> Unit idle.service does not appear to be loaded.
rc=1
",
        );
}
