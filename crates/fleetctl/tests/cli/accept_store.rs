use crate::session::Session;

#[test]
fn it_is_said_once_and_an_original_fleetd_has_no_such_thing() {
    let mut session = Session::with_engine();
    session.run("fleetctl accept-store").shows(
        "
$ fleetctl accept-store
2> The store is to be believed: machines that hold their units are told.
",
    );
    let mut session = Session::with_original();
    session.run("fleetctl accept-store").shows(
        "
$ fleetctl accept-store
2> This fleetd is an original fleet 1.0, which knows no such command.
2> hint: upgrade fleetd there, or stop fleetd on a machine to have its units moved
rc=1
",
    );
}
