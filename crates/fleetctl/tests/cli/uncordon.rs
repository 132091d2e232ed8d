use crate::session::{HELLO, Session};

#[test]
fn a_drain_ends_and_what_has_left_stays_away() {
    let mut session = Session::with_engine();
    session.file("a.service", HELLO).file("slow.service", HELLO);
    session
        .run("fleetctl cordon 6a97")
        .run("fleetctl start a slow")
        .run("fleetctl uncordon 6a97");
    session.seen();
    session
        .run("fleetctl drain --deadline=1s 63d2")
        .run("fleetctl uncordon 63d2")
        .run("fleetctl start slow")
        .run("fleetctl list-units --fields=unit,machine,active")
        .run("fleetctl uncordon nobody")
        .shows(
            "
$ fleetctl drain --deadline=1s 63d2
Machine 63d22e36.../172.30.1.2 draining
Unit a.service moved to 6a97c281.../172.30.1.3
2> Unit slow.service is left on 63d22e36.../172.30.1.2: another machine has not yet taken it over: 63d22e36 is being drained; fewest units (1) of the machines that may run it
2> hint: the drain goes on, and what is left moves as soon as it can; fleetctl uncordon 63d22e36 ends it
rc=1
$ fleetctl uncordon 63d2
Machine 63d22e36.../172.30.1.2 open
$ fleetctl start slow
Unit slow.service launched on 63d22e36.../172.30.1.2
$ fleetctl list-units --fields=unit,machine,active
UNIT\t\tMACHINE\t\t\tACTIVE
a.service\t6a97c281.../172.30.1.3\tactive
slow.service\t63d22e36.../172.30.1.2\tactive
$ fleetctl uncordon nobody
2> Machine nobody not found: no machine's id begins so
2> hint: fleetctl list-machines --all shows the ids; any beginning of one will do
rc=1
",
        );
}
