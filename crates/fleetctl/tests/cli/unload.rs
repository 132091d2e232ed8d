use crate::session::{HELLO, Session};

#[test]
fn units_leave_their_machines() {
    let mut session = Session::new();
    session.unit("hello.service", HELLO, "launched");
    session.unit(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
        "launched",
    );
    session
        .run("fleetctl unload hello")
        .run("fleetctl unload hello")
        .run("fleetctl unload --no-block g")
        .shows(
            "
$ fleetctl unload hello
Unit hello.service inactive
2> Successfully unloaded units [hello.service].
$ fleetctl unload hello
2> Successfully unloaded units [].
$ fleetctl unload --no-block g
Triggered global unit g.service unload
",
        );
}
