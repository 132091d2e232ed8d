use crate::session::Session;

#[test]
fn nothing_is_frozen_and_an_original_fleetd_never_is() {
    let mut session = Session::with_engine();
    session.run("fleetctl thaw").shows(
        "
$ fleetctl thaw
2> Nothing is frozen.
",
    );
    let mut session = Session::with_original();
    session.run("fleetctl thaw").shows(
        "
$ fleetctl thaw
2> This fleetd is an original fleet 1.0, which knows no such command.
2> hint: upgrade fleetd there, or stop fleetd on a machine to have its units moved
rc=1
",
    );
}
