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
fn a_machine_or_a_units_machine() {
    session()
        .run("fleetctl ssh 63d2 uptime")
        .run("fleetctl ssh hello uptime")
        .run("fleetctl ssh --machine=6a97 -- ls -l '/tmp'")
        .run("fleetctl ssh --unit=hello --ssh-port=2222 --A")
        .shows(
            "
$ fleetctl ssh 63d2 uptime
ssh -l core -T 172.30.1.2 uptime
$ fleetctl ssh hello uptime
ssh -l core -T 172.30.1.2 uptime
$ fleetctl ssh --machine=6a97 -- ls -l '/tmp'
ssh -l core -T 172.30.1.3 ls -l /tmp
$ fleetctl ssh --unit=hello --ssh-port=2222 --A
ssh -l core -p 2222 -A -T 172.30.1.2
",
        );
}

#[test]
fn who_is_not_found() {
    session()
        .run("fleetctl ssh")
        .run("fleetctl ssh nope")
        .run("fleetctl ssh --machine=nope")
        .run("fleetctl ssh --machine=6 --unit=hello")
        .run("fleetctl ssh --unit=nope")
        .run("fleetctl ssh --unit=g")
        .run("fleetctl ssh idle")
        .shows(
            "
$ fleetctl ssh
2> Unable to proceed: one machine or unit must be provided
rc=1
$ fleetctl ssh nope
2> Unable to proceed: could not find matching unit or machine
2> hint: fleetctl list-machines and list-units show what there is
rc=1
$ fleetctl ssh --machine=nope
2> Unable to proceed: machine does not exist
2> hint: fleetctl list-machines shows the ids; any beginning of one will do
rc=1
$ fleetctl ssh --machine=6 --unit=hello
2> Both machine and unit flags provided, please specify only one.
rc=1
$ fleetctl ssh --unit=nope
2> Unable to proceed: unit does not exist
rc=1
$ fleetctl ssh --unit=g
2> Unable to proceed: global units unsupported
2> hint: g.service is on 63d22e36..., 6a97c281...; name one
rc=1
$ fleetctl ssh idle
2> Unable to proceed: could not find matching unit or machine
2> hint: idle.service is on no machine that answers
rc=1
",
        );
}
