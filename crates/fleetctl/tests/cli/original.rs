//! An original fleetd, which has no API v2.

use crate::session::{HELLO, Session};

#[test]
fn listings() {
    let mut session = Session::with_original();
    session
        .unit("hello.service", HELLO, "launched")
        .unit("idle.service", HELLO, "inactive");
    session.unit(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
        "launched",
    );
    session
        .run("fleetctl list-machines")
        .run("fleetctl list-units")
        .run("fleetctl list-units --fields=unit,machine")
        .run("fleetctl list-unit-files")
        .shows(
            "
$ fleetctl list-machines
MACHINE                              IP           METADATA
63d22e369175433883a37d92cc53f36c     172.30.1.2   hostname=h1
6a97c281d654404fb1ef271dfcd36920     172.30.1.3   hostname=h2,zone=z1
$ fleetctl list-units
UNIT           LOAD    ACTIVE  SUB      DESC         MACHINE
g.service      loaded  active  running  -            63d22e369175433883a37d92cc53f36c
g.service      loaded  active  running  -            6a97c281d654404fb1ef271dfcd36920
hello.service  loaded  active  running  Hello World  63d22e369175433883a37d92cc53f36c
idle.service   -       -       -        -            -
$ fleetctl list-units --fields=unit,machine
UNIT\t\tMACHINE
g.service\t63d22e36.../172.30.1.2
g.service\t6a97c281.../172.30.1.3
hello.service\t63d22e36.../172.30.1.2
$ fleetctl list-unit-files
UNIT           HASH     DSTATE    STATE     TARGET
g.service      534d3b9  launched  -         global
hello.service  3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
idle.service   3141db9  inactive  inactive  -
",
        );
}

#[test]
fn a_unit_from_submit_to_destroy() {
    let mut session = Session::with_original();
    session
        .file("hello.service", HELLO)
        .file("v2/hello.service", "[Service]\nExecStart=/bin/b\n");
    session
        .run("fleetctl submit hello.service")
        .run("fleetctl start hello.service")
        .run("fleetctl start hello.service")
        .run("fleetctl restart hello")
        .run("fleetctl stop hello")
        .run("fleetctl start --replace v2/hello.service")
        .run("fleetctl unload hello")
        .run("fleetctl destroy hello")
        .run("fleetctl destroy hello")
        .shows(
            "
$ fleetctl submit hello.service
Unit hello.service inactive
$ fleetctl start hello.service
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl start hello.service
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl restart hello
Unit hello.service loaded on 63d22e36.../172.30.1.2
Unit hello.service launched on 63d22e36.../172.30.1.2
2> Unit(hello.service) was restarted.
$ fleetctl stop hello
Unit hello.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [hello.service].
$ fleetctl start --replace v2/hello.service
Unit hello.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl unload hello
Unit hello.service inactive
2> Successfully unloaded units [hello.service].
$ fleetctl destroy hello
Destroyed hello.service
$ fleetctl destroy hello
2> Unit hello.service not found in registry
2> Units not found in registry
rc=1
",
        );
}

#[test]
fn global_units_are_triggered() {
    let mut session = Session::with_original();
    session.file(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
    );
    session
        .run("fleetctl start g")
        .run("fleetctl restart g")
        .run("fleetctl stop g")
        .shows(
            "
$ fleetctl start g
Unit g.service inactive
Triggered global unit g.service start
$ fleetctl restart g
Triggered global unit g.service restart
2> Unit(g.service) was restarted.
$ fleetctl stop g
Triggered global unit g.service stop
2> Successfully stopped units [].
",
        );
}

#[test]
fn failures() {
    let mut session = Session::with_original();
    session
        .unit("bad.service", HELLO, "inactive")
        .unit("nowhere.service", HELLO, "inactive");
    session.unit(
        "once.service",
        "[Service]\nType=oneshot\nExecStart=/bin/a\n",
        "inactive",
    );
    session
        .run("fleetctl start bad")
        .run("fleetctl start once")
        .run("fleetctl start --block-attempts=1 nowhere")
        .shows(
            "
$ fleetctl start bad
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: systemd says loaded/failed/failed
rc=1
$ fleetctl start once
Unit once.service launched on 63d22e36.../172.30.1.2
$ fleetctl start --block-attempts=1 nowhere
2> no machine runs nowhere.service yet: fleetd has found no machine for it (this one does not say why)
2> Error waiting for units: timed out waiting for unit nowhere.service to report state launched (no machine runs nowhere.service yet: fleetd has found no machine for it (this one does not say why)); it stays wanted and starts as soon as a machine may run it
rc=1
",
        );
}

#[test]
fn many_units() {
    let mut session = Session::with_original();
    session.file("w@.service", HELLO);
    let names: Vec<String> = (0..40).map(|n| format!("w@{n}")).collect();
    session.run(&format!("fleetctl start {}", names.join(" ")));
    let launched = |unit: &crate::fake::FakeUnit| unit.desired == "launched";
    assert!(session.cluster.lock().unwrap().units.values().all(launched));
    session.run("fleetctl destroy 'w@*'");
    assert!(session.cluster.lock().unwrap().units.is_empty());
}
