use crate::fake::H1;
use crate::session::{HELLO, Session};

fn on(text: &str, x_fleet: &str) -> String {
    format!("{text}\n[X-Fleet]\n{x_fleet}\n")
}

#[test]
fn a_drain_tells_each_unit_and_what_cannot_leave() {
    let mut session = Session::with_engine();
    session.file("a.service", &on(HELLO, &format!("MachineID={H1}")));
    session.file("log.service", &on(HELLO, "Global=true"));
    session.file("bad.service", HELLO);
    session.file("c.service", HELLO);
    session
        .run("fleetctl cordon 6a97")
        .run("fleetctl start --no-block log a bad c")
        .run("fleetctl start a bad c")
        .run("fleetctl uncordon 6a97")
        .run("fleetctl drain --deadline=3s 63d2")
        .shows(
            "
$ fleetctl cordon 6a97
Machine 6a97c281.../172.30.1.3 cordoned
$ fleetctl start --no-block log a bad c
Unit log.service inactive
Unit a.service inactive
Unit bad.service inactive
Unit c.service inactive
Triggered global unit log.service start
Triggered unit a.service start
Triggered unit bad.service start
Triggered unit c.service start
$ fleetctl start a bad c
Unit a.service launched on 63d22e36.../172.30.1.2
Unit bad.service launched on 63d22e36.../172.30.1.2
Unit c.service launched on 63d22e36.../172.30.1.2
$ fleetctl uncordon 6a97
Machine 6a97c281.../172.30.1.3 open
$ fleetctl drain --deadline=3s 63d2
Machine 63d22e36.../172.30.1.2 draining
Unit c.service moved to 6a97c281.../172.30.1.3
2> Unit a.service stays on 63d22e36.../172.30.1.2: 63d22e36 is being drained, and it stays there: no other machine may run it: MachineID 63d22e369175433883a37d92cc53f36c
2> Unit bad.service stays on 63d22e36.../172.30.1.2: 63d22e36 is being drained, and it stays there: no other machine may run it: it failed there: exit-code: status 1/FAILURE
2> Unit a.service is left on 63d22e36.../172.30.1.2: 63d22e36 is being drained, and it stays there: no other machine may run it: MachineID 63d22e369175433883a37d92cc53f36c
2> Unit bad.service is left on 63d22e36.../172.30.1.2: 63d22e36 is being drained, and it stays there: no other machine may run it: it failed there: exit-code: status 1/FAILURE
2> Unit log.service is left on 63d22e36.../172.30.1.2: global units stop last
2> hint: the drain goes on, and what is left moves as soon as it can; fleetctl uncordon 63d22e36 ends it
rc=1
",
        );
}

#[test]
fn a_machine_is_empty_in_the_end() {
    let mut session = Session::with_engine();
    session.file("a.service", HELLO);
    session.file("side.service", &on(HELLO, "MachineOf=a.service"));
    session.file("log.service", &on(HELLO, "Global=true"));
    session
        .run("fleetctl cordon 6a97")
        .run("fleetctl start a side log")
        .run("fleetctl uncordon 6a97")
        .run("fleetctl drain --max-parallel=1 63d2")
        .run("fleetctl list-units --fields=unit,machine")
        .run("fleetctl list-machines --no-legend")
        .run("fleetctl drain -o json 63d2")
        .run("fleetctl uncordon 63d2")
        .shows(
            "
$ fleetctl cordon 6a97
Machine 6a97c281.../172.30.1.3 cordoned
$ fleetctl start a side log
Unit a.service inactive
Unit side.service inactive
Unit log.service inactive
Triggered global unit log.service start
Unit a.service launched on 63d22e36.../172.30.1.2
Unit log.service launched on 63d22e36.../172.30.1.2
Unit side.service launched on 63d22e36.../172.30.1.2
$ fleetctl uncordon 6a97
Machine 6a97c281.../172.30.1.3 open
$ fleetctl drain --max-parallel=1 63d2
Machine 63d22e36.../172.30.1.2 draining
Unit a.service moved to 6a97c281.../172.30.1.3
Unit side.service moved to 6a97c281.../172.30.1.3
Unit log.service stopped on 63d22e36.../172.30.1.2
Machine 63d22e36.../172.30.1.2 drained
$ fleetctl list-units --fields=unit,machine
UNIT\t\tMACHINE
a.service\t6a97c281.../172.30.1.3
log.service\t6a97c281.../172.30.1.3
side.service\t6a97c281.../172.30.1.3
$ fleetctl list-machines --no-legend
63d22e369175433883a37d92cc53f36c     172.30.1.2   -
6a97c281d654404fb1ef271dfcd36920     172.30.1.3   -
2> Draining: 63d22e369175433883a37d92cc53f36c
$ fleetctl drain -o json 63d2
{\"outcome\":\"draining\",\"machineID\":\"63d22e369175433883a37d92cc53f36c\",\"primaryIP\":\"172.30.1.2\"}
{\"outcome\":\"drained\",\"machineID\":\"63d22e369175433883a37d92cc53f36c\",\"primaryIP\":\"172.30.1.2\"}
$ fleetctl uncordon 63d2
Machine 63d22e36.../172.30.1.2 open
",
        );
}

#[test]
fn an_interrupted_drain_goes_on() {
    let mut session = Session::with_engine();
    session.file("slow.service", HELLO);
    session
        .run("fleetctl cordon 6a97")
        .run("fleetctl start slow")
        .run("fleetctl uncordon 6a97")
        .run("fleetctl drain --no-block 63d2");
    session.requests();
    session
        .interrupt(
            "fleetctl drain 63d2",
            &format!("GET /fleet/v2/machines/{H1}/units again"),
        )
        .run("fleetctl drain --deadline=200ms 63d2")
        .run("fleetctl list-machines --no-legend")
        .run("fleetctl drain --deadline=soon 63d2")
        .run("fleetctl drain --max-parallel=0 63d2")
        .shows(
            "
$ fleetctl cordon 6a97
Machine 6a97c281.../172.30.1.3 cordoned
$ fleetctl start slow
Unit slow.service inactive
Unit slow.service launched on 63d22e36.../172.30.1.2
$ fleetctl uncordon 6a97
Machine 6a97c281.../172.30.1.3 open
$ fleetctl drain --no-block 63d2
Machine 63d22e36.../172.30.1.2 draining
$ fleetctl drain 63d2
Machine 63d22e36.../172.30.1.2 draining
2> Interrupted. What was asked for stands: the drain goes on; fleetctl uncordon ends it.
rc=130
$ fleetctl drain --deadline=200ms 63d2
Machine 63d22e36.../172.30.1.2 draining
2> Unit slow.service is left on 63d22e36.../172.30.1.2: another machine has not yet taken it over: 63d22e36 is being drained; fewest units (0) of the machines that may run it
2> hint: the drain goes on, and what is left moves as soon as it can; fleetctl uncordon 63d22e36 ends it
rc=1
$ fleetctl list-machines --no-legend
63d22e369175433883a37d92cc53f36c     172.30.1.2   -
6a97c281d654404fb1ef271dfcd36920     172.30.1.3   -
2> Draining: 63d22e369175433883a37d92cc53f36c
$ fleetctl drain --deadline=soon 63d2
2> Error: invalid argument \"soon\" for \"--deadline\" flag: not a time such as 90s, 5min or 1h30m
2> Run 'fleetctl drain --help' for usage.
rc=2
$ fleetctl drain --max-parallel=0 63d2
2> Error: invalid argument \"0\" for \"--max-parallel\" flag: 0 is not in 1..=4294967295
2> Run 'fleetctl drain --help' for usage.
rc=2
",
        );
}

#[test]
fn an_original_fleetd_has_no_drain() {
    let mut session = Session::with_original();
    session
        .run("fleetctl drain 63d2")
        .run("fleetctl cordon 63d2")
        .shows(
            "
$ fleetctl drain 63d2
2> This fleetd is an original fleet 1.0, which knows no such command.
2> hint: upgrade fleetd there, or stop fleetd on a machine to have its units moved
rc=1
$ fleetctl cordon 63d2
2> This fleetd is an original fleet 1.0, which knows no such command.
2> hint: upgrade fleetd there, or stop fleetd on a machine to have its units moved
rc=1
",
        );
}
