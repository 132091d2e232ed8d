use crate::session::Session;

#[test]
fn the_version_needs_no_fleetd() {
    let mut session = Session::new();
    session
        .run("fleetctl version")
        .run("fleetctl --version")
        .run("fleetctl -v")
        .run("fleetctl --debug --version")
        .run("FLEETCTL_ENDPOINT=nonsense fleetctl version")
        .shows(
            "
$ fleetctl version
fleetctl version v1.0.0
$ fleetctl --version
fleetctl version v1.0.0
$ fleetctl -v
fleetctl version v1.0.0
$ fleetctl --debug --version
fleetctl version v1.0.0
$ FLEETCTL_ENDPOINT=nonsense fleetctl version
fleetctl version v1.0.0
",
        );
    assert!(session.requests().is_empty());
}

#[test]
fn behind_a_command_it_is_that_commands_help() {
    Session::new()
        .run("fleetctl version --version")
        .run("fleetctl version -v")
        .shows(
            "
$ fleetctl version --version
Print fleetctl's version

Usage: fleetctl version

Global flags: see fleetctl --help.
$ fleetctl version -v
2> Error: unknown flag: -v
2> Run 'fleetctl version --help' for usage.
rc=2
",
        );
}
