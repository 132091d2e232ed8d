use crate::session::Session;

#[test]
fn a_socket_that_is_not_there() {
    Session::new()
        .run("fleetctl fd-forward")
        .run("fleetctl fd-forward a b")
        .run("fleetctl fd-forward /nope")
        .shows(
            "
$ fleetctl fd-forward
2> Provide a single argument
rc=1
$ fleetctl fd-forward a b
2> Provide a single argument
rc=1
$ fleetctl fd-forward /nope
2> Failed dialing remote address: dial unix /nope: connect: no such file or directory
rc=1
",
        );
}

#[test]
fn bytes_go_both_ways_until_one_end_is_closed() {
    // Its input is empty here: the far end has nothing to answer.
    Session::new()
        .run("fleetctl fd-forward DIR/fleet.sock")
        .run("fleetctl fd-forward unix://DIR/fleet.sock")
        .shows(
            "
$ fleetctl fd-forward DIR/fleet.sock
$ fleetctl fd-forward unix://DIR/fleet.sock
",
        );
}
