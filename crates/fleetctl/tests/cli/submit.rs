use crate::session::{HELLO, Session};

#[test]
fn units_are_submitted_once() {
    let mut session = Session::new();
    session
        .file("hello.service", HELLO)
        .file("v2/hello.service", "[Service]\nExecStart=/bin/b\n");
    session
        .run("fleetctl submit hello.service")
        .run("fleetctl submit hello.service")
        .run("fleetctl submit v2/hello.service")
        .run("fleetctl submit --replace v2/hello.service")
        .run("fleetctl submit --replace --sign v2/hello.service")
        .run("fleetctl submit")
        .run("fleetctl cat hello")
        .shows(
            "
$ fleetctl submit hello.service
Unit hello.service inactive
$ fleetctl submit hello.service
$ fleetctl submit v2/hello.service
2> WARNING: Unit hello.service in registry differs from local unit file v2/hello.service. Add --replace to override.
$ fleetctl submit --replace v2/hello.service
Unit hello.service inactive
$ fleetctl submit --replace --sign v2/hello.service
Found same Unit(hello.service) in Registry, nothing to do
$ fleetctl submit
2> No units given
$ fleetctl cat hello
[Service]
ExecStart=/bin/b
",
        );
}

#[test]
fn what_runs_is_not_replaced() {
    let mut session = Session::new();
    session
        .unit("hello.service", HELLO, "launched")
        .file("hello.service", "[Service]\nExecStart=/bin/b\n");
    session
        .run("fleetctl submit --replace hello.service")
        .run("fleetctl subm --replace hello")
        .shows(
            "
$ fleetctl submit --replace hello.service
2> Warning: can not replace Unit(hello.service) in state 'launched', use the appropriate command
rc=1
$ fleetctl subm --replace hello
2> Warning: can not replace Unit(hello.service) in state 'launched', use the appropriate command
rc=1
",
        );
}

#[test]
fn instances_and_templates() {
    let mut session = Session::new();
    session
        .unit("s@.service", HELLO, "inactive")
        .file("d/s@.service", "[Service]\nExecStart=/bin/b\n");
    session
        .run("fleetctl submit d/s@1.service")
        .run("fleetctl submit d/s@1.service")
        .run("fleetctl submit --replace d/s@1.service")
        .run("fleetctl submit d/t@1")
        .shows(
            "
$ fleetctl submit d/s@1.service
Unit s@1.service inactive
2> WARNING: Unit s@.service in registry differs from local template unit file d/s@1.service. Add --replace to override.
$ fleetctl submit d/s@1.service
2> WARNING: Unit s@1.service in registry differs from local template unit file d/s@1.service. Add --replace to override.
$ fleetctl submit --replace d/s@1.service
Unit s@1.service inactive
$ fleetctl submit d/t@1
2> Error creating units: failed getting Unit(d/t@1.service) from template: unable to find template Unit(t@.service) in Registry or on filesystem
rc=1
",
        );
}

#[test]
fn a_global_unit_is_told_as_any_other() {
    let mut session = Session::new();
    session.file(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\nMachineID=x\n",
    );
    session.file(
        "h.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
    );
    session.run("fleetctl submit g h").shows(
        "
$ fleetctl submit g h
Unit h.service inactive
2> Error creating units: MachineID cannot be used with Global (unit g.service)
rc=1
",
    );
}

#[test]
fn of_several_files_for_one_unit_the_first_counts_and_the_others_are_told() {
    let mut session = Session::new();
    session
        .file("hello.service", HELLO)
        .file("v2/hello.service", "[Service]\nExecStart=/bin/b\n");
    session
        .run("fleetctl submit hello ./hello.service v2/hello.service none/hello")
        .shows(
            "
$ fleetctl submit hello ./hello.service v2/hello.service none/hello
Unit hello.service inactive
2> WARNING: v2/hello.service is passed over: Unit hello.service is taken from hello.service
",
        );
}
