use crate::fake::{H1, H2, machine};
use crate::session::{HELLO, Session};

const GLOBAL: &str =
    "[Unit]\nDescription=Watch\n[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n";

#[test]
fn the_shape_that_the_readme_shows() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines = vec![machine(
        "148a18ff6e954cd892dac9de9bb90d5a",
        "19.4.0.112",
        "present",
        &[],
    )];
    session.file("examples/hello.service", HELLO);
    session.file("examples/ping.service", "[Unit]\nDescription=PING\n");
    session.file("examples/pong.service", "[Unit]\nDescription=PONG\n");
    session
        .run("fleetctl submit 'examples/*'")
        .run("fleetctl start hello.service");
    session.run("fleetctl list-units").shows(
        "
$ fleetctl submit 'examples/*'
Unit hello.service inactive
Unit ping.service inactive
Unit pong.service inactive
$ fleetctl start hello.service
Unit hello.service launched on 148a18ff.../19.4.0.112
$ fleetctl list-units
UNIT           LOAD    ACTIVE  SUB      DESC         MACHINE
hello.service  loaded  active  running  Hello World  148a18ff6e954cd892dac9de9bb90d5a
ping.service   -       -       -        -            -
pong.service   -       -       -        -            -
",
    );
}

#[test]
fn global_units_have_a_row_for_each_machine_and_templates_have_none() {
    let mut session = Session::new();
    session
        .unit("g.service", GLOBAL, "launched")
        .unit("h.service", GLOBAL, "inactive");
    session.unit("t@.service", HELLO, "inactive");
    session.run("fleetctl list-units --no-legend").shows(
        "
$ fleetctl list-units --no-legend
g.service  loaded  active  running  Watch  63d22e369175433883a37d92cc53f36c
g.service  loaded  active  running  Watch  6a97c281d654404fb1ef271dfcd36920
h.service  -       -       -        -      -
",
    );
}

#[test]
fn a_unit_that_runs_twice_is_shown_with_both_copies_its_own_machine_first() {
    let mut session = Session::new();
    session.unit("twice.service", HELLO, "launched");
    session
        .run("fleetctl list-units")
        .run("fleetctl list-units --fields=unit,machine,active")
        .shows(
            "
$ fleetctl list-units
UNIT           LOAD    ACTIVE  SUB      DESC         MACHINE
twice.service  loaded  active  running  Hello World  63d22e369175433883a37d92cc53f36c
twice.service  loaded  active  running  Hello World  6a97c281d654404fb1ef271dfcd36920
$ fleetctl list-units --fields=unit,machine,active
UNIT\t\tMACHINE\t\t\tACTIVE
twice.service\t63d22e36.../172.30.1.2\tactive
twice.service\t6a97c281.../172.30.1.3\tactive
",
        );

    // What the other machine said before it was lost is no copy.
    session.cluster.lock().unwrap().machines[1].status = "lost".to_owned();
    session.run("fleetctl list-units --no-legend").shows(
        "
$ fleetctl list-units --no-legend
twice.service  loaded  active  running  Hello World  63d22e369175433883a37d92cc53f36c
",
    );
}

#[test]
fn the_originals_table_with_fields_or_full() {
    let mut session = Session::new();
    session
        .unit("bad.service", HELLO, "launched")
        .unit("hello.service", HELLO, "launched");
    session.unit("idle.service", HELLO, "inactive");
    session
        .run("fleetctl list-units --fields=unit,load,active,sub,machine,hash")
        .run("fleetctl list-units --full")
        .run("fleetctl list-units -l --fields=hash,unit")
        .shows(
            "
$ fleetctl list-units --fields=unit,load,active,sub,machine,hash
UNIT\t\tLOAD\tACTIVE\tSUB\tMACHINE\t\t\tHASH
bad.service\tloaded\tfailed\tfailed\t63d22e36.../172.30.1.2\t3141db9
hello.service\tloaded\tactive\trunning\t63d22e36.../172.30.1.2\t3141db9
$ fleetctl list-units --full
UNIT\t\tMACHINE\t\t\t\t\t\tACTIVE\tSUB
bad.service\t63d22e369175433883a37d92cc53f36c/172.30.1.2\tfailed\tfailed
hello.service\t63d22e369175433883a37d92cc53f36c/172.30.1.2\tactive\trunning
$ fleetctl list-units -l --fields=hash,unit
HASH\t\t\t\t\t\tUNIT
3141db959a89c6cbb56420afa11333d332e6e0ab\tbad.service
3141db959a89c6cbb56420afa11333d332e6e0ab\thello.service
",
        );
}

#[test]
fn states_of_absent_machines_are_marked_and_in_the_originals_table_hidden_once_lost() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines = vec![
        machine(H1, "172.30.1.2", "suspect", &[]),
        machine(H2, "172.30.1.3", "lost", &[]),
    ];
    session.unit("g.service", GLOBAL, "launched");
    session
        .run("fleetctl list-units")
        .run("fleetctl list-units --fields=unit,machine,active")
        .shows(
            "
$ fleetctl list-units
UNIT       LOAD    ACTIVE   SUB      DESC   MACHINE
g.service  loaded  active?  running  Watch  63d22e369175433883a37d92cc53f36c
g.service  loaded  active?  running  Watch  6a97c281d654404fb1ef271dfcd36920
$ fleetctl list-units --fields=unit,machine,active
UNIT\t\tMACHINE\t\tACTIVE
g.service\t63d22e36...\tactive
",
        );
}

#[test]
fn json() {
    let mut session = Session::new();
    session.unit("a.service", "[Service]\nExecStart=/bin/a\n", "launched");
    session.unit("b.service", HELLO, "inactive");
    session.run("fleetctl list-units --output=json").shows(
        "
$ fleetctl list-units --output=json
[
  {
    \"unit\": \"a.service\",
    \"load\": \"loaded\",
    \"active\": \"active\",
    \"sub\": \"running\",
    \"description\": null,
    \"machineID\": \"63d22e369175433883a37d92cc53f36c\",
    \"hash\": \"dc244fef41a3382ca41f5c4ebc8b33614902a7ea\",
    \"stale\": false
  },
  {
    \"unit\": \"b.service\",
    \"load\": null,
    \"active\": null,
    \"sub\": null,
    \"description\": null,
    \"machineID\": null,
    \"hash\": null,
    \"stale\": false
  }
]
",
    );
}

#[test]
fn without_units_there_is_only_the_header() {
    let mut session = Session::new();
    session
        .run("fleetctl list-units")
        .run("fleetctl list-units --fields=unit,machine,active,sub")
        .run("fleetctl list-units -o json")
        .shows(
            "
$ fleetctl list-units
UNIT  LOAD  ACTIVE  SUB  DESC  MACHINE
$ fleetctl list-units --fields=unit,machine,active,sub
UNIT\tMACHINE\tACTIVE\tSUB
$ fleetctl list-units -o json
[]
",
        );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let session = Session::new();
    session.unit("a.service", HELLO, "launched");
    let socket = session.path().join("fleet.sock");
    let mut fleetctl = std::process::Command::new(env!("CARGO_BIN_EXE_fleetctl"))
        .arg(format!("--endpoint=unix://{}", socket.display()))
        .arg("list-units")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(fleetctl.stdout.take());
    let output = fleetctl.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), b"".as_slice())
    );
}

#[test]
fn nothing_to_list_and_fields_that_do_not_exist() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines.clear();
    session
        .run("fleetctl list-units")
        .run("fleetctl list-units --no-legend")
        .run("fleetctl list-units --fields=unit,machine,active,sub")
        .run("fleetctl list-units --full")
        .run("fleetctl list-units --no-legend --fields=unit")
        .run("fleetctl list-units --fields=unit,unit,foo")
        .run("fleetctl list-units --fields=UNIT")
        .run("fleetctl list-units --fields=")
        .shows(
            "
$ fleetctl list-units
UNIT  LOAD  ACTIVE  SUB  DESC  MACHINE
$ fleetctl list-units --no-legend
$ fleetctl list-units --fields=unit,machine,active,sub
UNIT\tMACHINE\tACTIVE\tSUB
$ fleetctl list-units --full
UNIT\tMACHINE\tACTIVE\tSUB
$ fleetctl list-units --no-legend --fields=unit
$ fleetctl list-units --fields=unit,unit,foo
2> Invalid key in output format: \"foo\"
2> hint: the fields are unit,machine,load,active,sub,hash
rc=1
$ fleetctl list-units --fields=UNIT
2> Invalid key in output format: \"UNIT\"
2> hint: the fields are unit,machine,load,active,sub,hash
rc=1
$ fleetctl list-units --fields=
2> Must define output format
2> hint: the fields are unit,machine,load,active,sub,hash
rc=1
",
        );
}

#[test]
fn a_fleetd_that_knows_fields_is_asked_for_them_once_in_a_listing() {
    let mut session = Session::with_engine();
    session.file("a.service", HELLO);
    session.file("g.service", GLOBAL);
    session.file("t@.service", HELLO);
    session
        .run("fleetctl submit t@.service")
        .run("fleetctl start a.service")
        .run("fleetctl start g.service");
    session.cluster.lock().unwrap().requests.clear();
    session
        .run("fleetctl list-units")
        .run("fleetctl list-units --fields=unit,machine,active,hash")
        .run("fleetctl list-unit-files")
        .run("fleetctl list-unit-files --fields=unit,desc,target")
        .shows(
            "
$ fleetctl submit t@.service
Unit t@.service inactive
$ fleetctl start a.service
Unit a.service inactive
Unit a.service launched on 63d22e36.../172.30.1.2
$ fleetctl start g.service
Unit g.service inactive
Triggered global unit g.service start
Unit g.service launched on 63d22e36.../172.30.1.2
Unit g.service launched on 6a97c281.../172.30.1.3
$ fleetctl list-units
UNIT       LOAD    ACTIVE  SUB      DESC         MACHINE
a.service  loaded  active  running  Hello World  63d22e369175433883a37d92cc53f36c
g.service  loaded  active  running  Watch        63d22e369175433883a37d92cc53f36c
g.service  loaded  active  running  Watch        6a97c281d654404fb1ef271dfcd36920
$ fleetctl list-units --fields=unit,machine,active,hash
UNIT\t\tMACHINE\t\t\tACTIVE\tHASH
a.service\t63d22e36.../172.30.1.2\tactive\t3141db9
g.service\t63d22e36.../172.30.1.2\tactive\td78d985
g.service\t6a97c281.../172.30.1.3\tactive\td78d985
$ fleetctl list-unit-files
UNIT        HASH     DSTATE    STATE     TARGET
a.service   3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
g.service   d78d985  launched  -         global
t@.service  3141db9  inactive  inactive  -
$ fleetctl list-unit-files --fields=unit,desc,target
UNIT\t\tDESC\t\tTARGET
a.service\tHello World\t63d22e36.../172.30.1.2
g.service\tWatch\t\tglobal
t@.service\tHello World\t-
",
        );
    let requests = session.cluster.lock().unwrap().requests.clone();
    let asked = |what: &str| requests.iter().filter(|r| r.starts_with(what)).count();
    assert_eq!(asked("GET /fleet/v2/units"), 4, "{requests:?}");
    assert_eq!(asked("GET /fleet/v2/machines"), 2, "{requests:?}");
    assert_eq!(requests.len(), 6, "{requests:?}");
}

#[test]
fn what_fleetd_cannot_read_is_said_with_the_cure() {
    let mut session = Session::new();
    session.file("a.service", HELLO);
    session.run("fleetctl submit a").seen();
    session.cluster.lock().unwrap().warning =
        Some("the document at units/b.service is damaged: expected value at line 1 column 1");
    session.run("fleetctl list-units").shows(
        "
$ fleetctl list-units
UNIT       LOAD  ACTIVE  SUB  DESC  MACHINE
a.service  -     -       -    -     -
2> WARNING: the document at units/b.service is damaged: expected value at line 1 column 1
2> hint: what cannot be read is left out; fleetctl doctor names all of it, and its cure
",
    );
}
