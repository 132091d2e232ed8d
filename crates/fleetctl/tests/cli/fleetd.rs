//! Whole sessions against fleetd's own API.

use crate::session::{HELLO, Session};

#[test]
fn a_unit_from_submit_to_destroy() {
    let mut session = Session::with_fleetd();
    session
        .file("hello.service", HELLO)
        .file("v2/hello.service", "[Service]\nExecStart=/bin/b\n");
    session.file("s@.service", HELLO);
    session
        .run("fleetctl list-machines")
        .run("fleetctl submit hello.service s@.service")
        .run("fleetctl submit hello.service")
        .run("fleetctl start hello")
        .run("fleetctl start hello s@1")
        .run("fleetctl list-units")
        .run("fleetctl list-units --fields=unit,machine,active,sub,hash")
        .run("fleetctl list-unit-files")
        .run("fleetctl restart hello")
        .run("fleetctl start --replace v2/hello")
        .run("fleetctl cat hello")
        .run("fleetctl stop hello")
        .run("fleetctl load hello")
        .run("fleetctl unload hello")
        .run("fleetctl stop hello")
        .run("fleetctl destroy hello 's@*' nope")
        .run("fleetctl list-unit-files")
        .shows(
            "
$ fleetctl list-machines
MACHINE                              IP           METADATA
63d22e369175433883a37d92cc53f36c     172.30.1.2   -
$ fleetctl submit hello.service s@.service
Unit hello.service inactive
Unit s@.service inactive
$ fleetctl submit hello.service
$ fleetctl start hello
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl start hello s@1
Unit s@1.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
Unit s@1.service launched on 63d22e36.../172.30.1.2
$ fleetctl list-units
UNIT           LOAD    ACTIVE  SUB      DESC         MACHINE
hello.service  loaded  active  running  Hello World  63d22e369175433883a37d92cc53f36c
s@1.service    loaded  active  running  Hello World  63d22e369175433883a37d92cc53f36c
$ fleetctl list-units --fields=unit,machine,active,sub,hash
UNIT\t\tMACHINE\t\t\tACTIVE\tSUB\tHASH
hello.service\t63d22e36.../172.30.1.2\tactive\trunning\t3141db9
s@1.service\t63d22e36.../172.30.1.2\tactive\trunning\t3141db9
$ fleetctl list-unit-files
UNIT           HASH     DSTATE    STATE     TARGET
hello.service  3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
s@.service     3141db9  inactive  inactive  -
s@1.service    3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
$ fleetctl restart hello
Unit hello.service launched on 63d22e36.../172.30.1.2
2> Unit(hello.service) was restarted.
$ fleetctl start --replace v2/hello
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl cat hello
[Service]
ExecStart=/bin/b
$ fleetctl stop hello
Unit hello.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [hello.service].
$ fleetctl load hello
Unit hello.service loaded on 63d22e36.../172.30.1.2
2> WARNING: Unit hello.service in registry differs from local unit file hello.service. Add --replace to override.
$ fleetctl unload hello
Unit hello.service inactive
2> Successfully unloaded units [hello.service].
$ fleetctl stop hello
2> Unable to stop unit hello.service in state inactive
rc=1
$ fleetctl destroy hello 's@*' nope
Destroyed hello.service
Destroyed s@.service
Destroyed s@1.service
2> Unit nope.service not found in registry
rc=1
$ fleetctl list-unit-files
UNIT  HASH  DSTATE  STATE  TARGET
",
        );
}

#[test]
fn what_goes_wrong() {
    let mut session = Session::with_fleetd();
    for name in ["bad", "nowhere"] {
        session.file(&format!("{name}.service"), HELLO);
    }
    session
        .run("fleetctl start bad")
        .run("fleetctl start --block-attempts=1 nowhere")
        .run("fleetctl stop nowhere bad")
        .run("fleetctl start s@")
        .shows(
            "
$ fleetctl start bad
Unit bad.service inactive
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1
2>   /bin/false: no
rc=1
$ fleetctl start --block-attempts=1 nowhere
Unit nowhere.service inactive
2> 0 of 1 machines may run nowhere.service: MachineMetadata region=mars refused 1
2> Error waiting for units: timed out waiting for unit nowhere.service to report state launched (0 of 1 machines may run nowhere.service: MachineMetadata region=mars refused 1); it stays wanted and starts as soon as a machine may run it
rc=1
$ fleetctl stop nowhere bad
Unit bad.service loaded on 63d22e36.../172.30.1.2
Unit nowhere.service inactive
2> Successfully stopped units [bad.service nowhere.service].
$ fleetctl start s@
2> Error creating units: unable to find Unit(s@.service) in Registry or on filesystem
rc=1
",
        );
}

#[test]
fn a_thousand_units_that_exist_are_started_and_stopped() {
    let mut session = Session::with_fleetd();
    session.file("w@.service", HELLO);
    let names: Vec<String> = (0..1000).map(|n| format!("w@{n}")).collect();
    session.run(&format!("fleetctl submit -o json {}", names.join(" ")));
    session.run(&format!("fleetctl start -o json {}", names.join(" ")));
    session.run("fleetctl stop -o json 'w@*'");
    let seen = session.seen();
    let count = |outcome: &str| seen.matches(&format!("\"outcome\":\"{outcome}\"")).count();
    assert_eq!(
        (count("inactive"), count("launched"), count("loaded")),
        (1000, 1000, 1000)
    );
    assert!(!seen.contains("rc="));
}
