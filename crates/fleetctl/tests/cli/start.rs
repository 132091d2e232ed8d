use crate::session::{HELLO, Session};

#[test]
fn a_new_unit_is_created_and_started_by_one_batch_and_one_wait() {
    let mut session = Session::new();
    session.file("hello.service", HELLO);
    session.run("fleetctl start hello.service").shows(
        "
$ fleetctl start hello.service
Unit hello.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
",
    );
    assert_eq!(
        session.requests(),
        ["POST /fleet/v2/units", "POST /fleet/v2/wait"]
    );
    session.run("fleetctl start hello").shows(
        "
$ fleetctl start hello
Unit hello.service launched on 63d22e36.../172.30.1.2
",
    );
}

/// What is too much for one request is not sent of units that fleet has.
#[test]
fn units_that_fleet_has_are_started_though_their_files_are_too_much_for_one_request() {
    let mut session = Session::new();
    let text = format!("{HELLO}{}", "Environment=STORY=long\n".repeat(10_000));
    let names: Vec<String> = (0..6).map(|n| format!("big{n}.service")).collect();
    for name in &names {
        session.file(name, &text).unit(name, &text, "inactive");
    }
    session.run(&format!("fleetctl start {}", names.join(" ")));
    let seen = session.seen();
    for name in &names {
        let line = format!("Unit {name} launched on 63d22e36.../172.30.1.2");
        assert!(seen.contains(&line), "{seen}");
    }
    assert!(!seen.contains("rc="), "{seen}");
    let requests = session.requests();
    let wishes = requests
        .iter()
        .filter(|request| *request == "POST /fleet/v2/units");
    assert_eq!(
        wishes.count(),
        2,
        "refused, and without the files: {requests:?}"
    );
}

#[test]
fn a_unit_that_fails_says_why() {
    let mut session = Session::new();
    session.unit("bad.service", HELLO, "inactive");
    session
        .run("fleetctl start bad")
        .run("fleetctl start bad")
        .shows(
            "
$ fleetctl start bad
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1
2>   /bin/false: no
2>   Main process exited, code=exited
rc=1
$ fleetctl start bad
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1
2>   /bin/false: no
2>   Main process exited, code=exited
rc=1
",
        );
}

#[test]
fn a_oneshot_that_is_done_is_a_success() {
    let mut session = Session::new();
    session.unit("once.service", HELLO, "inactive");
    session.run("fleetctl start once").shows(
        "
$ fleetctl start once
Unit once.service launched on 63d22e36.../172.30.1.2
",
    );
}

#[test]
fn what_may_run_nowhere_says_so_and_is_not_waited_for_without_end() {
    let mut session = Session::new();
    session.unit("nowhere.service", HELLO, "inactive");
    session.run("fleetctl start --block-attempts=1 nowhere").shows(
        "
$ fleetctl start --block-attempts=1 nowhere
2> 0 of 2 machines may run nowhere.service: MachineMetadata region=mars refused 2
2> Error waiting for units: timed out waiting for unit nowhere.service to report state launched (0 of 2 machines may run nowhere.service: MachineMetadata region=mars refused 2); it stays wanted and starts as soon as a machine may run it
rc=1
",
    );
}

#[test]
fn without_blocking_nothing_is_waited_for() {
    let mut session = Session::new();
    session.file("slow@.service", HELLO);
    session
        .run("fleetctl start --no-block slow@1 slow@2")
        .shows(
            "
$ fleetctl start --no-block slow@1 slow@2
Unit slow@1.service inactive
Unit slow@2.service inactive
Triggered unit slow@1.service start
Triggered unit slow@2.service start
",
        );
}

#[test]
fn a_global_unit_is_told_for_each_machine() {
    let mut session = Session::new();
    session.file(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
    );
    session.run("fleetctl start g").shows(
        "
$ fleetctl start g
Unit g.service inactive
Triggered global unit g.service start
Unit g.service launched on 63d22e36.../172.30.1.2
Unit g.service launched on 6a97c281.../172.30.1.3
",
    );
}

#[test]
fn a_unit_that_fleet_has_is_told_as_what_it_is_there_whatever_the_local_file_says() {
    let mut session = Session::new();
    let global = "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n";
    session.unit("g.service", global, "inactive");
    session.file("g.service", HELLO);
    session.run("fleetctl start g").shows(
        "
$ fleetctl start g
Triggered global unit g.service start
Unit g.service launched on 63d22e36.../172.30.1.2
Unit g.service launched on 6a97c281.../172.30.1.3
2> WARNING: Unit g.service in registry differs from local unit file g.service. Add --replace to override.
",
    );
}

#[test]
fn a_template_is_submitted_but_does_not_start() {
    let mut session = Session::new();
    session.file("s@.service", HELLO);
    session
        .run("fleetctl start s@.service")
        .run("fleetctl start s@")
        .shows(
            "
$ fleetctl start s@.service
Unit s@.service inactive
2> Error starting units: googleapi: Error 400: cannot activate template \"s@.service\"
rc=1
$ fleetctl start s@
2> Error starting units: googleapi: Error 400: cannot activate template \"s@.service\"
rc=1
",
        );
}

#[test]
fn instances_come_from_the_template_that_fleet_has() {
    let mut session = Session::new();
    session.unit("s@.service", HELLO, "inactive");
    session.run("fleetctl start s@1 t@1").shows(
        "
$ fleetctl start s@1 t@1
Unit s@1.service inactive
Unit s@1.service launched on 63d22e36.../172.30.1.2
2> Error creating units: failed getting Unit(t@1.service) from template: unable to find template Unit(t@.service) in Registry or on filesystem
rc=1
",
    );
}

#[test]
fn one_bad_unit_does_not_keep_the_others_from_starting() {
    let mut session = Session::new();
    session
        .file("a.service", HELLO)
        .file("b.service", "[Unit\n");
    session.file(
        "c.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nMachineMetaData=a=b\n",
    );
    session.file(
        "d.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nColour=red\n",
    );
    session.file("e.service", "# nothing\n");
    session.run("fleetctl start a b c d e nope").shows(
        "
$ fleetctl start a b c d e nope
Unit a.service inactive
Unit d.service inactive
Unit a.service launched on 63d22e36.../172.30.1.2
Unit d.service launched on 63d22e36.../172.30.1.2
2> Error creating units: failed getting Unit(b.service) from file: unable to find end of section (line 1)
2> Error creating units: Unit c.service: unrecognized requirement in [X-Fleet] section: \"MachineMetaData\" (did you mean \"MachineMetadata\"?); the unit would run without it
2> WARNING: Unit d.service: unrecognized requirement in [X-Fleet] section: \"Colour\"
2> Error creating units: failed creating unit e.service: googleapi: Error 409: unit does not exist and options field empty
2> Error creating units: unable to find Unit(nope.service) in Registry or on filesystem
rc=1
",
    );
    session.run("fleetctl start --strict d2/d.service").run("fleetctl start --allow-unknown c").shows(
        "
$ fleetctl start --strict d2/d.service
Unit d.service launched on 63d22e36.../172.30.1.2
$ fleetctl start --allow-unknown c
Unit c.service inactive
Unit c.service launched on 63d22e36.../172.30.1.2
2> WARNING: Unit c.service: unrecognized requirement in [X-Fleet] section: \"MachineMetaData\" (did you mean \"MachineMetadata\"?)
",
    );
}

#[test]
fn a_running_unit_is_replaced_in_place() {
    let mut session = Session::new();
    session.unit("hello.service", HELLO, "launched");
    session
        .file("hello.service", HELLO)
        .file("v2/hello.service", "[Service]\nExecStart=/bin/b\n");
    session
        .run("fleetctl start v2/hello")
        .run("fleetctl start --replace v2/hello.service")
        .run("fleetctl start --replace v2/hello.service")
        .run("fleetctl start --replace v3/hello.service")
        .shows(
            "
$ fleetctl start v2/hello
Unit hello.service launched on 63d22e36.../172.30.1.2
2> WARNING: Unit hello.service in registry differs from local unit file v2/hello.service. Add --replace to override.
$ fleetctl start --replace v2/hello.service
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl start --replace v2/hello.service
Found same Unit(hello.service) in Registry, nothing to do
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl start --replace v3/hello.service
2> Error creating units: stat v3/hello.service: no such file or directory
rc=1
",
        );
}

#[test]
fn a_local_file_that_is_damaged_keeps_no_unit_of_fleets_from_starting() {
    let mut session = Session::new();
    session
        .unit("hello.service", HELLO, "inactive")
        .file("hello.service", "[Unit\n");
    session
        .run("fleetctl start hello")
        .run("fleetctl start --replace hello")
        .shows("
$ fleetctl start hello
Unit hello.service launched on 63d22e36.../172.30.1.2
2> WARNING: Unit hello.service cannot be compared with its local file: failed getting Unit(hello.service) from file: unable to find end of section (line 1)
$ fleetctl start --replace hello
2> Error creating units: failed getting Unit(hello.service) from file: unable to find end of section (line 1)
rc=1
");
}

#[test]
fn patterns_mean_local_files_first_and_then_units_that_fleet_has() {
    let mut session = Session::new();
    session
        .file("d/web-1.service", HELLO)
        .file("d/web-2.service", HELLO);
    session
        .unit("db-1.service", HELLO, "inactive")
        .unit("db-2.timer", HELLO, "inactive");
    session
        .run("fleetctl start 'd/web-*'")
        .run("fleetctl start 'db-*'")
        .run("fleetctl start 'x*' db-?")
        .shows(
            "
$ fleetctl start 'd/web-*'
Unit web-1.service inactive
Unit web-2.service inactive
Unit web-1.service launched on 63d22e36.../172.30.1.2
Unit web-2.service launched on 63d22e36.../172.30.1.2
$ fleetctl start 'db-*'
Unit db-1.service launched on 63d22e36.../172.30.1.2
Unit db-2.timer launched on 63d22e36.../172.30.1.2
$ fleetctl start 'x*' db-?
Unit db-1.service launched on 63d22e36.../172.30.1.2
2> Error creating units: no unit file and no unit matches \"x*\"
rc=1
",
        );
}

#[test]
fn a_thousand_units_are_one_batch() {
    let mut session = Session::new();
    session.file("w@.service", HELLO);
    let names: Vec<String> = (0..1000).map(|n| format!("w@{n}")).collect();
    session.run(&format!("fleetctl start -o json {}", names.join(" ")));
    assert_eq!(
        session.requests(),
        [
            "GET /fleet/v2/units",
            "GET /fleet/v1/units/w@.service",
            "POST /fleet/v2/units",
            "POST /fleet/v2/wait"
        ]
    );
    assert_eq!(session.cluster.lock().unwrap().units.len(), 1000);
    session.run("fleetctl destroy --no-block 'w@*'");
    assert!(session.cluster.lock().unwrap().units.is_empty());
}

#[test]
fn json_has_a_line_for_each_unit() {
    let mut session = Session::new();
    session
        .unit("a.service", HELLO, "inactive")
        .unit("bad.service", HELLO, "inactive");
    session.run("fleetctl start -o json a bad").shows(
        "
$ fleetctl start -o json a bad
{\"unit\":\"a.service\",\"outcome\":\"launched\",\"machineID\":\"63d22e369175433883a37d92cc53f36c\",\"primaryIP\":\"172.30.1.2\"}
{\"unit\":\"bad.service\",\"outcome\":\"failed\",\"error\":\"Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1\",\"log\":[\"/bin/false: no\",\"Main process exited, code=exited\"]}
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1
2>   /bin/false: no
2>   Main process exited, code=exited
rc=1
",
    );
}

#[test]
fn an_interrupt_ends_the_wait_and_not_the_request() {
    let mut session = Session::new();
    session.unit("slow.service", HELLO, "inactive");
    session
        .interrupt("fleetctl start slow", "POST /fleet/v2/wait")
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
fn an_interrupt_ends_a_request_that_is_not_answered() {
    let mut session = Session::new();
    session.unit("silent.service", HELLO, "inactive");
    session
        .interrupt("fleetctl start silent", "POST /fleet/v2/units")
        .shows(
            "
$ fleetctl start silent
2> Interrupted. What was asked for stands; fleetctl list-units shows how it goes on.
rc=130
",
        );
}

#[test]
fn a_wait_that_breaks_off_is_asked_for_again() {
    let mut session = Session::new();
    session.unit("a.service", HELLO, "inactive");
    session.cluster.lock().unwrap().n_broken_waits = 2;
    session.run("fleetctl start a").shows(
        "
$ fleetctl start a
Unit a.service launched on 63d22e36.../172.30.1.2
2> the connection to fleetd at unix://DIR/fleet.sock broke: the wait ended early; asking again
",
    );
}

#[test]
fn many_known_units_are_picked_out_of_listings() {
    let mut session = Session::new();
    for n in 0..1000 {
        session.unit(&format!("u-{n:03}.service"), HELLO, "inactive");
    }
    let names: Vec<String> = (0..10).map(|n| format!("u-{:03}", n * 111)).collect();
    session.run(&format!("fleetctl start {}", names.join(" ")));
    let cluster = session.cluster.lock().unwrap();
    let launched = cluster
        .units
        .values()
        .filter(|unit| unit.desired == "launched");
    assert_eq!(launched.count(), 10);
    let listings = cluster
        .requests
        .iter()
        .filter(|request| *request == "GET /fleet/v2/units");
    // Pages of 200, each from the next unit that is wanted: two of them each.
    assert_eq!(listings.count(), 5);
}
