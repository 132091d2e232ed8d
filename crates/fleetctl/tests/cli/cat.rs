use crate::session::{HELLO, Session};

#[test]
fn the_serial_form_and_nothing_else() {
    let mut session = Session::new();
    session.unit("hello.service", HELLO, "inactive");
    session
        .run("fleetctl cat hello")
        .run("fleetctl cat nope")
        .run("fleetctl cat")
        .shows(
            "
$ fleetctl cat hello
[Unit]
Description=Hello World

[Service]
ExecStart=/bin/sleep 9
$ fleetctl cat nope
2> Unit nope.service not found
rc=1
$ fleetctl cat
2> One unit file must be provided
rc=1
",
        );
}
