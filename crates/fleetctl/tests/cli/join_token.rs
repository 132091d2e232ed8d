use crate::join::cluster;
use crate::session::Session;

#[test]
fn what_it_prints_is_the_command_to_run_there() {
    let mut session = cluster();
    session.run("fleetctl LOCAL join-token --ttl=10m");
    let seen = session.seen();
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines[1].starts_with("fleetctl join fleet1-"), "{seen}");
    // This fleetd has no address of its own to tell.
    assert!(lines[1].ends_with(" https://HOST:PORT"), "{seen}");
    assert!(
        lines[2].starts_with("2> It lets in once, until TIME UTC"),
        "{seen}"
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut session = cluster();
    session
        .run("fleetctl LOCAL join-token --role=operator")
        .run("fleetctl LOCAL join-token --ttl=8d")
        .run("fleetctl LOCAL join-token --ttl=soon")
        .run("fleetctl LOCAL join-token --host='*.example'")
        .shows(
            "
$ fleetctl LOCAL join-token --role=operator
2> a token for role operator is for somebody: name the user
rc=1
$ fleetctl LOCAL join-token --ttl=8d
2> a join token is good for 604800 s at most: make another one when it is needed
rc=1
$ fleetctl LOCAL join-token --ttl=soon
2> Error: invalid argument \"soon\" for \"--ttl\" flag: write it as 30s, 10m, 2h or 7d
2> Run 'fleetctl join-token --help' for usage.
rc=2
$ fleetctl LOCAL join-token --host='*.example'
2> \"*.example\" is no host name: a machine's certificate is for that machine alone, * would be for many
rc=1
",
        );
    let mut session = Session::with_original();
    session.run("fleetctl join-token").shows(
        "
$ fleetctl join-token
2> this fleetd knows no join tokens: upgrade it
rc=1
",
    );
}
