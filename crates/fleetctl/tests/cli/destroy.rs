use crate::session::{HELLO, Session};

#[test]
fn a_unit_is_destroyed_once() {
    let mut session = Session::new();
    session.unit("hello.service", HELLO, "launched");
    session.run("fleetctl destroy hello");
    assert_eq!(
        session.requests(),
        [
            "GET /fleet/v2/units/hello.service",
            "POST /fleet/v2/units",
            "POST /fleet/v2/wait"
        ]
    );
    session.run("fleetctl destroy hello").shows(
        "
$ fleetctl destroy hello
Destroyed hello.service
$ fleetctl destroy hello
2> Unit hello.service not found in registry
2> Units not found in registry
rc=1
",
    );
}

#[test]
fn a_global_unit_is_told_as_any_other() {
    for mut session in [Session::new(), Session::with_original()] {
        let global = "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n";
        session
            .unit("g.service", global, "launched")
            .unit("h.service", global, "inactive");
        session.run("fleetctl destroy g h").shows(
            "
$ fleetctl destroy g h
Destroyed g.service
Destroyed h.service
",
        );
    }
}

#[test]
fn without_blocking_nothing_is_waited_for() {
    let mut session = Session::new();
    session
        .unit("a.service", HELLO, "launched")
        .unit("b.service", HELLO, "inactive");
    session
        .run("fleetctl destroy --no-block -o json 'a*' b.service")
        .shows(
            "
$ fleetctl destroy --no-block -o json 'a*' b.service
{\"unit\":\"b.service\",\"outcome\":\"destroyed\"}
{\"unit\":\"a.service\",\"outcome\":\"destroyed\"}
",
        );
    assert_eq!(session.requests().last().unwrap(), "POST /fleet/v2/units");
}
