use crate::session::{HELLO, Session};

fn session() -> Session {
    let session = Session::new();
    session.unit(
        "g.service",
        "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\n",
        "launched",
    );
    session.unit("hello.service", HELLO, "launched");
    session.unit("s@.service", HELLO, "inactive");
    session
}

#[test]
fn every_unit_and_template() {
    session().run("fleetctl list-unit-files").shows(
        "
$ fleetctl list-unit-files
UNIT           HASH     DSTATE    STATE     TARGET
g.service      534d3b9  launched  -         global
hello.service  3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
s@.service     3141db9  inactive  inactive  -
",
    );
}

#[test]
fn the_originals_table_with_fields_or_full() {
    session()
        .run("fleetctl list-unit-files --fields=unit,hash,dstate,state,target")
        .run("fleetctl list-unit-files --fields=unit,desc,global,tmachine")
        .run("fleetctl list-unit-files --full --no-legend")
        .shows(
            "
$ fleetctl list-unit-files --fields=unit,hash,dstate,state,target
UNIT\t\tHASH\tDSTATE\t\tSTATE\t\tTARGET
g.service\t534d3b9\tlaunched\t-\t\tglobal
hello.service\t3141db9\tlaunched\tlaunched\t63d22e36.../172.30.1.2
s@.service\t3141db9\tinactive\tinactive\t-
$ fleetctl list-unit-files --fields=unit,desc,global,tmachine
UNIT\t\tDESC\t\tGLOBAL\tTMACHINE
g.service\t-\t\ttrue\tglobal
hello.service\tHello World\tfalse\t63d22e36.../172.30.1.2
s@.service\tHello World\tfalse\t-
2> WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead
$ fleetctl list-unit-files --full --no-legend
g.service\t534d3b95103bf58a9e6e8fefa57f34a8a1a0ee81\tlaunched\t-\t\tglobal
hello.service\t3141db959a89c6cbb56420afa11333d332e6e0ab\tlaunched\tlaunched\t63d22e369175433883a37d92cc53f36c/172.30.1.2
s@.service\t3141db959a89c6cbb56420afa11333d332e6e0ab\tinactive\tinactive\t-
",
        );
}

#[test]
fn nothing_to_list_and_fields_that_do_not_exist() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines.clear();
    session
        .run("fleetctl list-unit-files")
        .run("fleetctl list-unit-files --no-legend")
        .run("fleetctl list-unit-files --fields=unit,hash,dstate,state,target")
        .run("fleetctl list-unit-files --full")
        .run("fleetctl list-unit-files --no-legend --fields=unit")
        .run("fleetctl list-unit-files --fields=unit,unit,foo")
        .run("fleetctl list-unit-files --fields=UNIT")
        .run("fleetctl list-unit-files --fields=")
        .shows(
            "
$ fleetctl list-unit-files
UNIT  HASH  DSTATE  STATE  TARGET
$ fleetctl list-unit-files --no-legend
$ fleetctl list-unit-files --fields=unit,hash,dstate,state,target
UNIT\tHASH\tDSTATE\tSTATE\tTARGET
$ fleetctl list-unit-files --full
UNIT\tHASH\tDSTATE\tSTATE\tTARGET
$ fleetctl list-unit-files --no-legend --fields=unit
$ fleetctl list-unit-files --fields=unit,unit,foo
2> Invalid key in output format: \"foo\"
2> hint: the fields are unit,hash,desc,global,dstate,state,target,tmachine
rc=1
$ fleetctl list-unit-files --fields=UNIT
2> Invalid key in output format: \"UNIT\"
2> hint: the fields are unit,hash,desc,global,dstate,state,target,tmachine
rc=1
$ fleetctl list-unit-files --fields=
2> Must define output format
2> hint: the fields are unit,hash,desc,global,dstate,state,target,tmachine
rc=1
",
        );
}
