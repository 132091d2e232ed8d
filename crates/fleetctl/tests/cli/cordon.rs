use crate::session::{HELLO, Session};

#[test]
fn a_machine_is_cordoned_and_opened_again() {
    let mut session = Session::with_engine();
    session.file("a.service", HELLO).file("b.service", HELLO);
    session
        .run("fleetctl cordon 63d22e36")
        .run("fleetctl start a b")
        .run("fleetctl list-machines")
        .run("fleetctl uncordon 63d22e36... 6a97")
        .run("fleetctl list-machines --no-legend")
        .run("fleetctl cordon -o json 6")
        .run("fleetctl cordon -o json 6a97 6a97")
        .run("fleetctl cordon nobody 63")
        .run("fleetctl uncordon")
        .shows(
            "
$ fleetctl cordon 63d22e36
Machine 63d22e36.../172.30.1.2 cordoned
$ fleetctl start a b
Unit a.service inactive
Unit b.service inactive
Unit a.service launched on 6a97c281.../172.30.1.3
Unit b.service launched on 6a97c281.../172.30.1.3
$ fleetctl list-machines
MACHINE                              IP           METADATA
63d22e369175433883a37d92cc53f36c     172.30.1.2   -
6a97c281d654404fb1ef271dfcd36920     172.30.1.3   -
2> Cordoned: 63d22e369175433883a37d92cc53f36c
$ fleetctl uncordon 63d22e36... 6a97
Machine 63d22e36.../172.30.1.2 open
Machine 6a97c281.../172.30.1.3 open
$ fleetctl list-machines --no-legend
63d22e369175433883a37d92cc53f36c     172.30.1.2   -
6a97c281d654404fb1ef271dfcd36920     172.30.1.3   -
$ fleetctl cordon -o json 6
{\"outcome\":\"failed\",\"machineID\":\"6\",\"error\":\"Machine 6 is not clear: several ids begin so\"}
2> Machine 6 is not clear: several ids begin so
2> hint: write more of it: 63d22e369175433883a37d92cc53f36c, 6a97c281d654404fb1ef271dfcd36920
rc=1
$ fleetctl cordon -o json 6a97 6a97
{\"outcome\":\"cordoned\",\"machineID\":\"6a97c281d654404fb1ef271dfcd36920\",\"primaryIP\":\"172.30.1.3\"}
$ fleetctl cordon nobody 63
Machine 63d22e36.../172.30.1.2 cordoned
2> Machine nobody not found: no machine's id begins so
2> hint: fleetctl list-machines --all shows the ids; any beginning of one will do
rc=1
$ fleetctl uncordon
2> No machine is named.
2> hint: fleetctl list-machines shows the ids; any beginning of one will do
rc=1
",
        );
}
