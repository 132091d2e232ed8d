use crate::session::Session;

#[test]
fn it_does_nothing_any_more() {
    let mut session = Session::new();
    session
        .run("fleetctl verify a")
        .run("fleetctl verify")
        .shows(
            "
$ fleetctl verify a
2> Command \"verify\" is deprecated, DEPRECATED - No longer works
2> WARNING: The signed/verified units feature is DEPRECATED and cannot be used.
rc=2
$ fleetctl verify
2> Command \"verify\" is deprecated, DEPRECATED - No longer works
2> WARNING: The signed/verified units feature is DEPRECATED and cannot be used.
rc=2
",
        );
    assert!(session.requests().is_empty());
}
