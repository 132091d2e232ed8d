//! Flags, abbreviations, help, and what happens before any fleetd is asked.

use crate::session::{HELLO, Session};

#[test]
fn what_cannot_be_understood_is_status_2() {
    Session::new()
        .run("fleetctl bogus")
        .run("fleetctl st")
        .run("fleetctl list-u")
        .run("fleetctl list-machines --bogus")
        .run("fleetctl list-units -v")
        .run("fleetctl start --block-attempts=x a")
        .run("fleetctl list-units --no-legend=maybe")
        .run("fleetctl help nope")
        .shows(
            "
$ fleetctl bogus
2> Error: unknown command \"bogus\" for \"fleetctl\"
2> Run 'fleetctl --help' for usage.
rc=2
$ fleetctl st
2> Error: unknown command \"st\" for \"fleetctl\"
2> 
2> Did you mean this?
2> \tcat
2> \tssh
2> \tstart
2> \tstatus
2> \tstop
2> 
2> Run 'fleetctl --help' for usage.
rc=2
$ fleetctl list-u
2> Error: unknown command \"list-u\" for \"fleetctl\"
2> 
2> Did you mean this?
2> \tlist-unit-files
2> \tlist-units
2> 
2> Run 'fleetctl --help' for usage.
rc=2
$ fleetctl list-machines --bogus
2> Error: unknown flag: --bogus
2> Run 'fleetctl list-machines --help' for usage.
rc=2
$ fleetctl list-units -v
2> Error: unknown flag: -v
2> Run 'fleetctl list-units --help' for usage.
rc=2
$ fleetctl start --block-attempts=x a
2> Error: invalid argument \"x\" for \"--block-attempts\" flag: not a whole number
2> Run 'fleetctl start --help' for usage.
rc=2
$ fleetctl list-units --no-legend=maybe
2> Error: invalid argument \"maybe\" for \"--no-legend\" flag: neither true nor false
rc=2
$ fleetctl help nope
2> Error: unknown command \"nope\" for \"fleetctl\"
2> Run 'fleetctl --help' for usage.
rc=2
",
        );
}

#[test]
fn of_a_flag_that_is_given_several_times_the_last_one_counts() {
    let mut session = Session::new();
    session.unit("a.service", HELLO, "launched");
    session
        .run("fleetctl --endpoint=http://127.0.0.1:1 --endpoint=unix://DIR/fleet.sock list-unit-files --fields=unit --fields=unit,dstate --no-legend --no-legend")
        .run("fleetctl list-unit-files --no-legend --fields=unit --no-legend=false")
        .run("fleetctl list-unit-files --l --full=false --fields=unit,hash --no-legend=false --no-legend=1")
        .shows(
            "
$ fleetctl --endpoint=http://127.0.0.1:1 --endpoint=unix://DIR/fleet.sock list-unit-files --fields=unit --fields=unit,dstate --no-legend --no-legend
a.service\tlaunched
$ fleetctl list-unit-files --no-legend --fields=unit --no-legend=false
UNIT
a.service
$ fleetctl list-unit-files --l --full=false --fields=unit,hash --no-legend=false --no-legend=1
a.service\t3141db9
",
        );
}

#[test]
fn flags_and_arguments_are_mixed_until_two_dashes() {
    let mut session = Session::new();
    session
        .unit("a.service", HELLO, "launched")
        .unit("b.service", HELLO, "launched");
    session
        .run("fleetctl stop a --no-block=true b --debug=false")
        .run("fleetctl unload --no-block -- b --no-block")
        .shows(
            "
$ fleetctl stop a --no-block=true b --debug=false
Triggered unit a.service stop
Triggered unit b.service stop
$ fleetctl unload --no-block -- b --no-block
Triggered unit b.service unload
2> Unit --no-block.service not found in registry
rc=1
",
        );
}

#[test]
fn flags_that_mean_nothing_any_more_are_taken() {
    let mut session = Session::new();
    session.file("a.service", HELLO);
    let global = "--experimental-api=false --etcd-key-prefix=/x/ --driver=API \
                  --request-timeout=3 --ssh-timeout=2.5 --ssh-username=me";
    for command in ["submit", "load", "start"] {
        session.run(&format!("fleetctl {global} {command} --sign a.service"));
    }
    session.shows("
$ fleetctl --experimental-api=false --etcd-key-prefix=/x/ --driver=API --request-timeout=3 --ssh-timeout=2.5 --ssh-username=me submit --sign a.service
Unit a.service inactive
$ fleetctl --experimental-api=false --etcd-key-prefix=/x/ --driver=API --request-timeout=3 --ssh-timeout=2.5 --ssh-username=me load --sign a.service
Unit a.service loaded on 63d22e36.../172.30.1.2
$ fleetctl --experimental-api=false --etcd-key-prefix=/x/ --driver=API --request-timeout=3 --ssh-timeout=2.5 --ssh-username=me start --sign a.service
Unit a.service launched on 63d22e36.../172.30.1.2
");
}

#[test]
fn endpoints_and_drivers() {
    Session::new()
        .run("fleetctl --endpoint=unix://var/run/fleet.sock list-units")
        .run("fleetctl --endpoint=unix:///nothing/here list-units")
        .run("fleetctl --endpoint=http://127.0.0.1:1,http://b list-units")
        .run("fleetctl --driver=etcd list-units")
        .run("fleetctl --driver foo list-units")
        .shows(
            "
$ fleetctl --endpoint=unix://var/run/fleet.sock list-units
2> Unable to initialize client: unable to connect to host \"var\" with scheme \"unix\"
2> hint: write it as unix:///run/fleet.sock, http://host:port or https://host:port
rc=1
$ fleetctl --endpoint=unix:///nothing/here list-units
2> Error retrieving list of units from repository: Get \"http://domain-sock/fleet/v2/units?fields=description,global,machineID,states&alt=json\": dial unix /nothing/here: connect: no such file or directory
2> hint: no fleetd listens at unix:///nothing/here: start it (systemctl start fleet), or say where one is with --endpoint or FLEETCTL_ENDPOINT
rc=1
$ fleetctl --endpoint=http://127.0.0.1:1,http://b list-units
2> WARNING: multiple endpoints provided but only the first (http://127.0.0.1:1) is used
2> Error retrieving list of units from repository: Get \"http://127.0.0.1:1/fleet/v2/units?fields=description,global,machineID,states&alt=json\": dial tcp 127.0.0.1:1: connect: connection refused
2> hint: no fleetd listens at http://127.0.0.1:1: start it (systemctl start fleet), or say where one is with --endpoint or FLEETCTL_ENDPOINT
rc=1
$ fleetctl --driver=etcd list-units
2> Unable to initialize client: the etcd driver is gone: it went around every check of the API
2> hint: drop --driver=etcd and give a fleetd as --endpoint=unix:///run/fleet.sock or http://host:port
rc=1
$ fleetctl --driver foo list-units
2> Unable to initialize client: unrecognized driver \"foo\"
2> hint: API is the only driver
rc=1
",
        );
}
