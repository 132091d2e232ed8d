//! The sessions that people know from the original, typed to a fleetd of ours and to an original
//! one.

use crate::session::{HELLO, Session};

const TEMPLATE: &str =
    "[Unit]\nDescription=sleeper %i\n\n[Service]\nExecStart=/bin/sleep infinity\n";

const GLOBAL: &str = "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n";

/// Each kind of fleetd, with the same files beside it.
fn sessions() -> [Session; 2] {
    let sessions = [Session::with_fleetd(), Session::with_original()];
    for session in &sessions {
        session
            .file("hello.service", HELLO)
            .file("v2/hello.service", "[Service]\nExecStart=/bin/b\n")
            .file("s@.service", TEMPLATE)
            .file("bad.service", "[Service]\nExecStart=/bin/false\n")
            .file("nowhere.service", HELLO)
            .file("g.service", GLOBAL);
    }
    sessions
}

/// The same to be seen with both.
#[track_caller]
fn both(commands: &[&str], expected: &str) {
    each(commands, [expected, expected]);
}

/// What is to be seen with a fleetd of ours, and with an original one.
#[track_caller]
fn each(commands: &[&str], expected: [&str; 2]) {
    for (mut session, expected) in sessions().into_iter().zip(expected) {
        for command in commands {
            session.run(command);
        }
        session.shows(expected);
    }
}

#[test]
fn submit() {
    both(
        &[
            "fleetctl submit hello.service",
            "fleetctl submit hello.service",
            "fleetctl submit v2/hello.service",
            "fleetctl submit --replace v2/hello.service",
            "fleetctl submit --replace v2/hello.service",
            "fleetctl submit",
        ],
        "
$ fleetctl submit hello.service
Unit hello.service inactive
$ fleetctl submit hello.service
$ fleetctl submit v2/hello.service
2> WARNING: Unit hello.service in registry differs from local unit file v2/hello.service. Add --replace to override.
$ fleetctl submit --replace v2/hello.service
Unit hello.service inactive
$ fleetctl submit --replace v2/hello.service
Found same Unit(hello.service) in Registry, nothing to do
$ fleetctl submit
2> No units given
",
    );
}

#[test]
fn start_instances() {
    both(
        &["fleetctl start s@1 s@2"],
        "
$ fleetctl start s@1 s@2
Unit s@1.service inactive
Unit s@2.service inactive
Unit s@1.service launched on 63d22e36.../172.30.1.2
Unit s@2.service launched on 63d22e36.../172.30.1.2
",
    );
}

#[test]
fn start_what_fails() {
    each(
        &["fleetctl start bad.service", "fleetctl start bad.service"],
        [
            "
$ fleetctl start bad.service
Unit bad.service inactive
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1
2>   /bin/false: no
rc=1
$ fleetctl start bad.service
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1
2>   /bin/false: no
rc=1
",
            "
$ fleetctl start bad.service
Unit bad.service inactive
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: systemd says loaded/failed/failed
rc=1
$ fleetctl start bad.service
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: systemd says loaded/failed/failed
rc=1
",
        ],
    );
}

#[test]
fn start_what_no_machine_may_run() {
    each(
        &["fleetctl start --block-attempts=1 nowhere.service"],
        ["
$ fleetctl start --block-attempts=1 nowhere.service
Unit nowhere.service inactive
2> 0 of 1 machines may run nowhere.service: MachineMetadata region=mars refused 1
2> Error waiting for units: timed out waiting for unit nowhere.service to report state launched (0 of 1 machines may run nowhere.service: MachineMetadata region=mars refused 1); it stays wanted and starts as soon as a machine may run it
rc=1
", "
$ fleetctl start --block-attempts=1 nowhere.service
Unit nowhere.service inactive
2> Error waiting for units: timed out waiting for unit nowhere.service to report state launched (fleetd has found no machine for it, and does not say why); it stays wanted
rc=1
"],
    );
}

#[test]
fn start_a_template() {
    both(
        &["fleetctl start s@.service", "fleetctl load s@"],
        "
$ fleetctl start s@.service
Unit s@.service inactive
2> Error starting units: googleapi: Error 400: cannot activate template \"s@.service\"
rc=1
$ fleetctl load s@
2> Error loading units: googleapi: Error 400: cannot activate template \"s@.service\"
rc=1
",
    );
}

#[test]
fn start_a_global_unit() {
    each(
        &[
            "fleetctl start g.service",
            "fleetctl stop g",
            "fleetctl unload g",
        ],
        [
            "
$ fleetctl start g.service
Unit g.service inactive
Triggered global unit g.service start
Unit g.service launched on 63d22e36.../172.30.1.2
$ fleetctl stop g
Triggered global unit g.service stop
Unit g.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [g.service].
$ fleetctl unload g
Triggered global unit g.service unload
2> Successfully unloaded units [g.service].
",
            "
$ fleetctl start g.service
Unit g.service inactive
Triggered global unit g.service start
$ fleetctl stop g
Triggered global unit g.service stop
2> Successfully stopped units [].
$ fleetctl unload g
Triggered global unit g.service unload
2> Successfully unloaded units [].
",
        ],
    );
}

#[test]
fn without_blocking() {
    both(
        &[
            "fleetctl start --no-block s@1",
            "fleetctl stop --no-block s@1",
        ],
        "
$ fleetctl start --no-block s@1
Unit s@1.service inactive
Triggered unit s@1.service start
$ fleetctl stop --no-block s@1
Triggered unit s@1.service stop
",
    );
}

#[test]
fn replace_what_runs() {
    each(
        &[
            "fleetctl start hello.service",
            "fleetctl start --replace v2/hello.service",
            "fleetctl load --replace hello.service",
            "fleetctl submit --replace hello.service",
        ],
        [
            "
$ fleetctl start hello.service
Unit hello.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl start --replace v2/hello.service
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl load --replace hello.service
2> Warning: can not replace Unit(hello.service) in state 'launched', use the appropriate command
rc=1
$ fleetctl submit --replace hello.service
2> Warning: can not replace Unit(hello.service) in state 'launched', use the appropriate command
rc=1
",
            "
$ fleetctl start hello.service
Unit hello.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl start --replace v2/hello.service
Unit hello.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl load --replace hello.service
2> Warning: can not replace Unit(hello.service) in state 'launched', use the appropriate command
rc=1
$ fleetctl submit --replace hello.service
2> Warning: can not replace Unit(hello.service) in state 'launched', use the appropriate command
rc=1
",
        ],
    );
}

#[test]
fn stop_unload_and_destroy() {
    both(
        &[
            "fleetctl start hello.service",
            "fleetctl stop hello",
            "fleetctl stop hello",
            "fleetctl unload hello",
            "fleetctl stop hello",
            "fleetctl destroy hello",
            "fleetctl destroy hello",
        ],
        "
$ fleetctl start hello.service
Unit hello.service inactive
Unit hello.service launched on 63d22e36.../172.30.1.2
$ fleetctl stop hello
Unit hello.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [hello.service].
$ fleetctl stop hello
2> Successfully stopped units [].
$ fleetctl unload hello
Unit hello.service inactive
2> Successfully unloaded units [hello.service].
$ fleetctl stop hello
2> Unable to stop unit hello.service in state inactive
rc=1
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
fn restart() {
    each(
        &[
            "fleetctl start s@1",
            "fleetctl restart s@1",
            "fleetctl stop s@1",
            "fleetctl restart s@1",
            "fleetctl unload s@1",
            "fleetctl restart s@1",
        ],
        [
            "
$ fleetctl start s@1
Unit s@1.service inactive
Unit s@1.service launched on 63d22e36.../172.30.1.2
$ fleetctl restart s@1
Unit s@1.service launched on 63d22e36.../172.30.1.2
2> Unit(s@1.service) was restarted.
$ fleetctl stop s@1
Unit s@1.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [s@1.service].
$ fleetctl restart s@1
Unit s@1.service launched on 63d22e36.../172.30.1.2
2> Unit(s@1.service) already loaded, starting.
$ fleetctl unload s@1
Unit s@1.service inactive
2> Successfully unloaded units [s@1.service].
$ fleetctl restart s@1
2> Unable to restart unit s@1.service in state inactive
rc=1
",
            "
$ fleetctl start s@1
Unit s@1.service inactive
Unit s@1.service launched on 63d22e36.../172.30.1.2
$ fleetctl restart s@1
Unit s@1.service loaded on 63d22e36.../172.30.1.2
Unit s@1.service launched on 63d22e36.../172.30.1.2
2> Unit(s@1.service) was restarted.
$ fleetctl stop s@1
Unit s@1.service loaded on 63d22e36.../172.30.1.2
2> Successfully stopped units [s@1.service].
$ fleetctl restart s@1
Unit s@1.service launched on 63d22e36.../172.30.1.2
2> Unit(s@1.service) already loaded, starting.
$ fleetctl unload s@1
Unit s@1.service inactive
2> Successfully unloaded units [s@1.service].
$ fleetctl restart s@1
2> Unable to restart unit s@1.service in state inactive
rc=1
",
        ],
    );
}

#[test]
fn create_if_needed_in_its_order() {
    for mut session in sessions() {
        session
            .file("d/s@.service", HELLO)
            .file("d/s@7.service", "[Service]\nExecStart=/bin/seven\n")
            .file("e1.service", "# nothing\n")
            .file("e2.service", "[Unit\n")
            .file("e3@.service", "[Unit\n")
            .file("noext", HELLO);
        session
            .run("fleetctl submit s@.service")
            .run("fleetctl submit d/s@7")
            .run("fleetctl submit d/s@5")
            .run("fleetctl submit d/s@5")
            .run("fleetctl submit nope.service foo@1 e1 e2 e3@1 ./noext d")
            .run("fleetctl submit --replace s@9")
            .run("fleetctl submit --replace s@.service d/s@5 d/s@7")
            .run("fleetctl list-unit-files --fields=unit,hash")
            .shows("
$ fleetctl submit s@.service
Unit s@.service inactive
$ fleetctl submit d/s@7
Unit s@7.service inactive
$ fleetctl submit d/s@5
Unit s@5.service inactive
2> WARNING: Unit s@.service in registry differs from local template unit file d/s@5.service. Add --replace to override.
$ fleetctl submit d/s@5
2> WARNING: Unit s@5.service in registry differs from local template unit file d/s@5.service. Add --replace to override.
$ fleetctl submit nope.service foo@1 e1 e2 e3@1 ./noext d
2> Error creating units: unable to find Unit(nope.service) in Registry or on filesystem
2> Error creating units: failed getting Unit(foo@1.service) from template: unable to find template Unit(foo@.service) in Registry or on filesystem
2> Error creating units: failed creating unit e1.service: googleapi: Error 409: unit does not exist and options field empty
2> Error creating units: failed getting Unit(e2.service) from file: unable to find end of section (line 1)
2> Error creating units: failed getting Unit(e3@1.service) from template: unable to load template Unit(e3@.service) from file: unable to find end of section (line 1)
2> Error creating units: unable to find Unit(noext.service) in Registry or on filesystem
2> Error creating units: unable to find Unit(d.service) in Registry or on filesystem
rc=1
$ fleetctl submit --replace s@9
Unit s@9.service inactive
$ fleetctl submit --replace s@.service d/s@5 d/s@7
Found same Unit(s@.service) in Registry, nothing to do
Found same Unit(s@7.service) in Registry, nothing to do
Unit s@5.service inactive
$ fleetctl list-unit-files --fields=unit,hash
UNIT\t\tHASH
s@.service\tbb2be70
s@5.service\t3141db9
s@7.service\tdeb1a34
s@9.service\tbb2be70
");
    }
}

#[test]
fn listings() {
    for mut session in sessions() {
        session.cluster.lock().unwrap().machines.truncate(1);
        session
            .run("fleetctl start --no-block hello.service g.service")
            .run("fleetctl submit s@.service");
        session.seen();
        session
            .run("fleetctl list-machines --fields=machine,ip --no-legend --full")
            .run("fleetctl list-units --fields=unit,load,active,sub,machine,hash")
            .run("fleetctl list-unit-files --fields=unit,hash,dstate,state,target")
            .run("fleetctl list-unit-files --fields=unit,hash,desc,global,dstate,state,target,tmachine")
            .shows("
$ fleetctl list-machines --fields=machine,ip --no-legend --full
63d22e369175433883a37d92cc53f36c\t172.30.1.2
$ fleetctl list-units --fields=unit,load,active,sub,machine,hash
UNIT\t\tLOAD\tACTIVE\tSUB\tMACHINE\t\t\tHASH
g.service\tloaded\tactive\trunning\t63d22e36.../172.30.1.2\t534d3b9
hello.service\tloaded\tactive\trunning\t63d22e36.../172.30.1.2\t3141db9
$ fleetctl list-unit-files --fields=unit,hash,dstate,state,target
UNIT\t\tHASH\tDSTATE\t\tSTATE\t\tTARGET
g.service\t534d3b9\tlaunched\t-\t\tglobal
hello.service\t3141db9\tlaunched\tlaunched\t63d22e36.../172.30.1.2
s@.service\tbb2be70\tinactive\tinactive\t-
$ fleetctl list-unit-files --fields=unit,hash,desc,global,dstate,state,target,tmachine
UNIT\t\tHASH\tDESC\t\tGLOBAL\tDSTATE\t\tSTATE\t\tTARGET\t\t\tTMACHINE
g.service\t534d3b9\t-\t\ttrue\tlaunched\t-\t\tglobal\t\t\tglobal
hello.service\t3141db9\tHello World\tfalse\tlaunched\tlaunched\t63d22e36.../172.30.1.2\t63d22e36.../172.30.1.2
s@.service\tbb2be70\tsleeper %i\tfalse\tinactive\tinactive\t-\t\t\t-
2> WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead
");
    }
}
