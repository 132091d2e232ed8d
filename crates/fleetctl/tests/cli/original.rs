//! An original fleetd, which has no API v2.

use crate::session::{HELLO, Session};

#[test]
fn listings() {
    let mut session = Session::with_original();
    session.three_units();
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
2> Error waiting for units: timed out waiting for unit nowhere.service to report state launched (fleetd has found no machine for it, and does not say why); it stays wanted
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

#[test]
fn what_takes_its_time_is_looked_at_again_and_again() {
    let mut session = Session::with_original();
    session.cluster.lock().unwrap().n_slow_looks = 3;
    session.file("hello.service", HELLO);
    session.run("fleetctl start hello.service");
    let looks = |session: &Session| {
        let requests = session.requests();
        let is_look = |request: &&String| *request == "GET /fleet/v1/units/hello.service";
        requests.iter().filter(is_look).count()
    };
    // To see whether it is there, that it is inactive, and three times until it is launched.
    assert_eq!(looks(&session), 5);
    session.run("fleetctl stop hello");
    assert_eq!(looks(&session), 4);
    session.shows(
        "
$ fleetctl start hello.service
Unit hello.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl stop hello
Unit hello.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [hello.service].
",
    );
}

#[test]
fn a_look_that_fails_does_not_end_the_wait() {
    let mut session = Session::with_original();
    {
        let mut cluster = session.cluster.lock().unwrap();
        (cluster.n_slow_looks, cluster.n_failing_looks) = (4, 2);
    }
    session.unit("hello.service", HELLO, "inactive");
    session.run("fleetctl start hello").shows(
        "
$ fleetctl start hello
Unit hello.service launched on 63d22e36.../172.30.1.2
2> fleetd answered 500 without a reason; asking again
",
    );
}

#[test]
fn all_pages_of_a_listing_are_read() {
    let mut session = Session::with_original();
    // A page holds 100: the second time, the last one is full and an empty one follows.
    for n_units in [250, 300] {
        for n in 0..n_units {
            session.unit(&format!("u{n:03}.service"), HELLO, "launched");
        }
        for listing in ["list-unit-files", "list-units"] {
            session.run(&format!("fleetctl {listing} --no-legend --fields=unit"));
            let seen = session.seen();
            assert_eq!(seen.lines().count(), n_units + 1, "{seen}");
            assert!(seen.contains(&format!("\nu{:03}.service\n", n_units - 1)));
        }
    }
}

#[test]
fn errors_are_shown_as_the_original_showed_them() {
    let mut session = Session::with_original();
    session.unit("a.service", HELLO, "launched");
    session.cluster.lock().unwrap().outage = Some((500, ""));
    session
        .run("fleetctl cat a")
        .run("fleetctl list-units")
        .run("fleetctl start a b")
        .run("fleetctl stop a");
    let no_etcd = "fleet server unable to communicate with etcd";
    session.cluster.lock().unwrap().outage = Some((503, no_etcd));
    session
        .run("fleetctl list-machines")
        .run("fleetctl list-unit-files")
        .shows(
            "
$ fleetctl cat a
2> Error retrieving Unit a.service: googleapi: got HTTP response code 500 with body: {\"error\":{\"code\":500,\"message\":\"\"}}
rc=1
$ fleetctl list-units
2> Error retrieving list of units from repository: googleapi: got HTTP response code 500 with body: {\"error\":{\"code\":500,\"message\":\"\"}}
rc=1
$ fleetctl start a b
2> Error creating units: error retrieving Unit(a.service) from Registry: googleapi: got HTTP response code 500 with body: {\"error\":{\"code\":500,\"message\":\"\"}}
rc=1
$ fleetctl stop a
2> googleapi: got HTTP response code 500 with body: {\"error\":{\"code\":500,\"message\":\"\"}}
rc=1
$ fleetctl list-machines
2> Error retrieving list of active machines from fleet API (googleapi: Error 503: fleet server unable to communicate with etcd)
2> Possible issues:
2>   etcd is unhealthy and/or lost quorum
2>   connection cannot be established to any etcd servers
rc=1
$ fleetctl list-unit-files
2> Error retrieving list of units from repository: googleapi: Error 503: fleet server unable to communicate with etcd
rc=1
",
        );
}

#[test]
fn what_an_original_refuses_is_told_and_the_others_go_on() {
    let mut session = Session::with_original();
    session
        .file("a.service", HELLO)
        .file(
            "b.service",
            "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\nReplaces=x\n",
        )
        .file("c d.service", HELLO);
    session.unit("s@.service", HELLO, "inactive");
    session
        .run("fleetctl start a b s@ s@1")
        .run("fleetctl load s@2 s@1")
        .run("fleetctl stop 's@*' a")
        .run("fleetctl unload 's@*' a")
        .run("fleetctl list-unit-files --fields=unit,dstate,state,target")
        .shows(
            "
$ fleetctl start a b s@ s@1
Unit a.service inactive
Unit s@1.service inactive
Unit a.service launched on 63d22e36.../172.30.1.2
Unit s@1.service launched on 63d22e36.../172.30.1.2
2> Error creating units: Global cannot be used with Replaces (unit b.service)
2> Error starting units: googleapi: Error 400: cannot activate template \"s@.service\"
rc=1
$ fleetctl load s@2 s@1
Unit s@2.service inactive
Unit s@2.service loaded on 63d22e36.../172.30.1.2
2> Unable to load unit s@1.service in state launched: it would be stopped (fleetctl stop s@1.service does that)
rc=1
$ fleetctl stop 's@*' a
Unit a.service loaded on 63d22e36.../172.30.1.2
Unit s@1.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [a.service s@1.service].
$ fleetctl unload 's@*' a
Unit a.service inactive
Unit s@1.service inactive
Unit s@2.service inactive
2> Successfully unloaded units [a.service s@1.service s@2.service].
$ fleetctl list-unit-files --fields=unit,dstate,state,target
UNIT\t\tDSTATE\t\tSTATE\t\tTARGET
a.service\tinactive\tinactive\t-
s@.service\tinactive\tinactive\t-
s@1.service\tinactive\tinactive\t-
s@2.service\tinactive\tinactive\t-
",
        );
}

#[test]
fn an_interrupt_ends_the_wait_and_not_the_request() {
    let mut session = Session::with_original();
    session.unit("slow.service", HELLO, "inactive");
    session
        .interrupt("fleetctl start slow", "PUT /fleet/v1/units/slow.service")
        .shows(
            "
$ fleetctl start slow
2> Interrupted. What was asked for stands; fleetctl list-units shows how it goes on.
rc=130
",
        );
    assert_eq!(
        session.cluster.lock().unwrap().units["slow.service"].desired,
        "launched"
    );
}

#[test]
fn a_global_unit_that_no_machine_has_is_not_waited_for() {
    let mut session = Session::with_original();
    session.cluster.lock().unwrap().machines.clear();
    session.unit(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
        "launched",
    );
    session.run("fleetctl restart g").shows(
        "
$ fleetctl restart g
Triggered global unit g.service restart
2> no machine runs g.service yet: fleetd has found no machine for it, and does not say why
",
    );
}
