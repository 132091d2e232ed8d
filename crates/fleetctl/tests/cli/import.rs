//! `fleetctl import`: from an original cluster's etcd, as recorded, and from fleetds.

use tokio::net::UnixListener;

use crate::fake::{self, H1};
use crate::registry::Etcd;
use crate::session::{HELLO, Session};

/// Serves another cluster on a socket in the session's directory, until the test's process ends.
fn serve<Serving: Future<Output = ()>>(
    session: &Session,
    socket: &str,
    serve: impl FnOnce(UnixListener) -> Serving + Send + 'static,
) {
    let listener = std::os::unix::net::UnixListener::bind(session.path().join(socket)).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .unwrap()
            .block_on(async { serve(UnixListener::from_std(listener).unwrap()).await });
    });
}

/// Every accepted wish makes a new one.
fn generations(session: &mut Session) -> String {
    session.run("fleetctl list-unit-files -o json");
    session.seen()
}

fn with_etcd(etcd: &Etcd) -> Session {
    let session = Session::with_fleetd();
    let etcd = etcd.clone();
    serve(&session, "etcd.sock", |listener| etcd.serve(listener));
    session
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let etcd = Etcd::recorded();
    let mut session = with_etcd(&etcd);
    session
        .run("fleetctl import --etcd-v2=unix:etcd.sock --dry-run")
        .run("fleetctl list-unit-files --no-legend")
        .shows(
            r#"
$ fleetctl import --etcd-v2=unix:etcd.sock --dry-run
UNIT             HASH     DSTATE    ON           IMPORT  WHY
.service         -        -         -            refuse  unit name needs characters before ".service"
a\x2db.service   8385c91  inactive  -            create  -
b@.service       b506889  inactive  -            create  -
b@1.service      b506889  launched  -            create  it is on 6a97c281... there, which is not present here: it is placed anew
b@2.service      b506889  loaded    -            create  it is on 6a97c281... there, which is not present here: it is placed anew
bare.service     8385c91  inactive  -            create  -
blanks.service   8385c91  launched  -            create  its hash was 1b78c5d: it is restarted where it runs; it is on 6a97c281... there, which is not present here: it is placed anew
both.service     -        -         -            refuse  MachineID cannot be used with Global
custom.service   99a8f3a  launched  63d22e36...  create  unrecognized requirement in [X-Fleet] section: "Owner"
enabled.service  22bbb29  launched  -            create  it is on 6a97c281... there, which is not present here: it is placed anew
g.service        953d7b6  launched  -            create  -
hello.service    3141db9  launched  63d22e36...  create  -
hot@.service     b506889  inactive  -            create  a template cannot be launched
legacy.service   0d930cb  loaded    63d22e36...  create  -
mangled.service  -        -         -            refuse  /_coreos.com/fleet/job/mangled.service/object is damaged: invalid type: string "b506", expected a sequence at line 1 column 43
odd.service      -        -         -            refuse  its target state "lunched" is none of inactive, loaded and launched: set /_coreos.com/fleet/job/odd.service/target-state to one of them with etcdctl
tick.service     b563664  loaded    63d22e36...  create  -
tick.timer       d0e2659  launched  63d22e36...  create  -
torn.service     -        -         -            refuse  its unit file is missing: there is no unit/7e42917f2dc4093a273cb11a4ad58e51ba38ae96
typo.service     -        -         -            refuse  unrecognized requirement in [X-Fleet] section: "MachineMetaData" (did you mean "MachineMetadata"?); the unit would run without it
unended.service  -        -         -            refuse  unable to find end of section (line 1)

MACHINE                           METADATA        FROM        IMPORT  WHY
63d22e369175433883a37d92cc53f36c  hostname=h1     fleet.conf  leave   put it into that machine's fleet.conf, or set it with --static-metadata
63d22e369175433883a37d92cc53f36c  rack (removed)  set         same    -
63d22e369175433883a37d92cc53f36c  zone=z1         set         set     -
ffc6ee89069e417a8642724cabb86e26  disk=ssd        set         set     -
2> Passed over what is left of destroyed units: empty.service, raced.service
rc=1
$ fleetctl list-unit-files --no-legend
"#,
        );
    let requests = etcd.requests();
    assert_eq!(requests.len(), 3);
    let reads = |request: &String| request.starts_with("GET /v2/keys/_coreos.com/fleet/");
    assert!(requests.iter().all(reads), "{requests:?}");
}

#[test]
fn a_recorded_cluster_comes_over_and_doing_it_again_changes_nothing() {
    let etcd = Etcd::recorded();
    let mut session = with_etcd(&etcd);
    session
        .run("fleetctl import --etcd-v2=unix:etcd.sock")
        .run("fleetctl list-unit-files")
        .run("fleetctl list-machines")
        .run("fleetctl cat legacy")
        .shows(
            r#"
$ fleetctl import --etcd-v2=unix:etcd.sock
Unit a\x2db.service created, inactive
Unit b@.service created, inactive
Unit b@1.service created, launched (it is on 6a97c281... there, which is not present here: it is placed anew)
Unit b@2.service created, loaded (it is on 6a97c281... there, which is not present here: it is placed anew)
Unit bare.service created, inactive
Unit blanks.service created, launched (its hash was 1b78c5d: it is restarted where it runs; it is on 6a97c281... there, which is not present here: it is placed anew)
Unit custom.service created, launched on 63d22e36... (unrecognized requirement in [X-Fleet] section: "Owner")
Unit enabled.service created, launched (it is on 6a97c281... there, which is not present here: it is placed anew)
Unit g.service created, launched
Unit hello.service created, launched on 63d22e36...
Unit hot@.service created, inactive (a template cannot be launched)
Unit legacy.service created, loaded on 63d22e36...
Unit tick.service created, loaded on 63d22e36...
Unit tick.timer created, launched on 63d22e36...
Machine 63d22e36... metadata hostname=h1 is not imported: put it into that machine's fleet.conf, or set it with --static-metadata
Machine 63d22e36... metadata rack (removed) is so here already
Machine 63d22e36... metadata zone=z1 set
Machine ffc6ee89... metadata disk=ssd set
2> Unit .service is not imported: unit name needs characters before ".service"
2> Unit both.service is not imported: MachineID cannot be used with Global
2> Unit mangled.service is not imported: /_coreos.com/fleet/job/mangled.service/object is damaged: invalid type: string "b506", expected a sequence at line 1 column 43
2> Unit odd.service is not imported: its target state "lunched" is none of inactive, loaded and launched: set /_coreos.com/fleet/job/odd.service/target-state to one of them with etcdctl
2> Unit torn.service is not imported: its unit file is missing: there is no unit/7e42917f2dc4093a273cb11a4ad58e51ba38ae96
2> Unit typo.service is not imported: unrecognized requirement in [X-Fleet] section: "MachineMetaData" (did you mean "MachineMetadata"?); the unit would run without it
2> Unit unended.service is not imported: unable to find end of section (line 1)
2> Passed over what is left of destroyed units: empty.service, raced.service
2> Units: 14 imported, 0 here already, 7 refused. Metadata: 2 set.
2> hint: what is refused can be mended where it is, or submitted here by hand; import may be run again at any time
2> WARNING: no machine ffc6ee89069e417a8642724cabb86e26 has ever been here (metadata wants the whole id): what was set waits for it
rc=1
$ fleetctl list-unit-files
UNIT             HASH     DSTATE    STATE     TARGET
a\x2db.service   8385c91  inactive  inactive  -
b@.service       b506889  inactive  inactive  -
b@1.service      b506889  launched  launched  63d22e369175433883a37d92cc53f36c
b@2.service      b506889  loaded    loaded    63d22e369175433883a37d92cc53f36c
bare.service     8385c91  inactive  inactive  -
blanks.service   8385c91  launched  launched  63d22e369175433883a37d92cc53f36c
custom.service   99a8f3a  launched  launched  63d22e369175433883a37d92cc53f36c
enabled.service  22bbb29  launched  launched  63d22e369175433883a37d92cc53f36c
g.service        953d7b6  launched  -         global
hello.service    3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
hot@.service     b506889  inactive  inactive  -
legacy.service   0d930cb  loaded    loaded    63d22e369175433883a37d92cc53f36c
tick.service     b563664  loaded    loaded    63d22e369175433883a37d92cc53f36c
tick.timer       d0e2659  launched  launched  63d22e369175433883a37d92cc53f36c
$ fleetctl list-machines
MACHINE                              IP           METADATA
63d22e369175433883a37d92cc53f36c     172.30.1.2   zone=z1
$ fleetctl cat legacy
[Service]
ExecStart=/bin/sleep infinity

[X-Fleet]
X-ConditionMachineOf=hello.service
X-ConditionMachineMetadata=zone=z1
X-Conflicts=b@*.service
"#,
        );
    let before = generations(&mut session);
    session.run("fleetctl import --etcd-v2=unix:etcd.sock").shows(r#"
$ fleetctl import --etcd-v2=unix:etcd.sock
Unit a\x2db.service is here already
Unit b@.service is here already
Unit b@1.service is here already
Unit b@2.service is here already
Unit bare.service is here already
Unit blanks.service is here already
Unit custom.service is here already
Unit enabled.service is here already
Unit g.service is here already
Unit hello.service is here already
Unit hot@.service is here already
Unit legacy.service is here already
Unit tick.service is here already
Unit tick.timer is here already
Machine 63d22e36... metadata hostname=h1 is not imported: put it into that machine's fleet.conf, or set it with --static-metadata
Machine 63d22e36... metadata rack (removed) is so here already
Machine 63d22e36... metadata zone=z1 is so here already
Machine ffc6ee89... metadata disk=ssd set
2> Unit .service is not imported: unit name needs characters before ".service"
2> Unit both.service is not imported: MachineID cannot be used with Global
2> Unit mangled.service is not imported: /_coreos.com/fleet/job/mangled.service/object is damaged: invalid type: string "b506", expected a sequence at line 1 column 43
2> Unit odd.service is not imported: its target state "lunched" is none of inactive, loaded and launched: set /_coreos.com/fleet/job/odd.service/target-state to one of them with etcdctl
2> Unit torn.service is not imported: its unit file is missing: there is no unit/7e42917f2dc4093a273cb11a4ad58e51ba38ae96
2> Unit typo.service is not imported: unrecognized requirement in [X-Fleet] section: "MachineMetaData" (did you mean "MachineMetadata"?); the unit would run without it
2> Unit unended.service is not imported: unable to find end of section (line 1)
2> Passed over what is left of destroyed units: empty.service, raced.service
2> Units: 0 imported, 14 here already, 7 refused. Metadata: 1 set.
2> hint: what is refused can be mended where it is, or submitted here by hand; import may be run again at any time
2> WARNING: no machine ffc6ee89069e417a8642724cabb86e26 has ever been here (metadata wants the whole id): what was set waits for it
rc=1
"#);
    assert_eq!(generations(&mut session), before);
    let gets = |request: &String| request.starts_with("GET ");
    assert!(etcd.requests().iter().all(gets));
}

#[test]
fn what_is_here_already_is_left_alone_or_replaced_when_that_is_asked_for() {
    let mut registry = FILE.to_owned();
    for (name, state) in [
        ("same", "launched"),
        ("other", "launched"),
        ("new", "inactive"),
    ] {
        registry += &format!(
            "job/{name}.service/object {{\"UnitHash\":{HASH}}}\n\
             job/{name}.service/target-state {state}\n"
        );
    }
    let mut session = with_etcd(&Etcd::with(&registry));
    session
        .file("same.service", HELLO)
        .file("other.service", "[Service]\nExecStart=/bin/b\n");
    session
        .run("fleetctl load same.service")
        .run("fleetctl start other.service")
        .run("fleetctl import --etcd-v2=unix:etcd.sock")
        .run("fleetctl import --etcd-v2=unix:etcd.sock --dry-run --replace")
        .run("fleetctl import --etcd-v2=unix:etcd.sock --replace")
        .run("fleetctl list-unit-files")
        .shows(
            r#"
$ fleetctl load same.service
Unit same.service inactive
Unit same.service loaded on 63d22e36.../172.30.1.2
$ fleetctl start other.service
Unit other.service inactive
Unit other.service launched on 63d22e36.../172.30.1.2
$ fleetctl import --etcd-v2=unix:etcd.sock
Unit same.service is here already: it is loaded here and stays so; --replace changes that
Unit new.service created, inactive
2> Unit other.service is not imported: there is one with other contents here (7961c58, launched); --replace replaces it
2> Units: 1 imported, 1 here already, 1 refused. Metadata: 0 set.
2> hint: what is refused can be mended where it is, or submitted here by hand; import may be run again at any time
rc=1
$ fleetctl import --etcd-v2=unix:etcd.sock --dry-run --replace
UNIT           HASH     DSTATE    ON  IMPORT   WHY
new.service    3141db9  inactive  -   same     -
other.service  3141db9  launched  -   replace  -
same.service   3141db9  launched  -   set      it was loaded here
$ fleetctl import --etcd-v2=unix:etcd.sock --replace
Unit new.service is here already
Unit other.service replaced, launched
Unit same.service set, launched (it was loaded here)
2> Units: 2 imported, 1 here already, 0 refused. Metadata: 0 set.
$ fleetctl list-unit-files
UNIT           HASH     DSTATE    STATE     TARGET
new.service    3141db9  inactive  inactive  -
other.service  3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
same.service   3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
"#,
        );
}

/// The contents of all units there: [`HELLO`].
const FILE: &str = r#"unit/3141db959a89c6cbb56420afa11333d332e6e0ab {"Raw":"[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/sleep 9\n"}
"#;
const HASH: &str = "[49,65,219,149,154,137,198,203,181,100,32,175,161,19,51,211,50,230,224,171]";

#[test]
fn metadata_of_configurations_is_set_when_that_is_asked_for() {
    let mut session = with_etcd(&Etcd::recorded());
    session
        .run("fleetctl import --etcd-v2=unix:etcd.sock --static-metadata -o json")
        .run("fleetctl list-machines --no-legend");
    let seen = session.seen();
    for line in [
        r#"{"unit":"hello.service","outcome":"created","hash":"3141db9","desiredState":"launched","machineID":"63d22e369175433883a37d92cc53f36c"}"#,
        r#"{"unit":"unended.service","outcome":"refused","hash":"","desiredState":"","why":"unable to find end of section (line 1)"}"#,
        r#"{"machineID":"63d22e369175433883a37d92cc53f36c","outcome":"set","key":"hostname","value":"h1","origin":"fleet.conf"}"#,
        r#"{"machineID":"63d22e369175433883a37d92cc53f36c","outcome":"same","key":"rack","value":"","origin":"set"}"#,
        "63d22e369175433883a37d92cc53f36c     172.30.1.2   hostname=h1,zone=z1",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line}\nin {seen}");
    }
}

/// Whoever could write to the other etcd does not get at this terminal.
#[test]
fn what_another_cluster_says_is_shown_without_its_control_characters() {
    let etcd = Etcd::with(
        "job/\u{1b}[31mred.service/object {}\n\
         job/left\u{7f}over/target m\u{85}1\n\
         machines/\u{1b}]0;m/metadata/k\u{202e} v\u{7}\n",
    );
    let mut session = with_etcd(&etcd);
    session
        .run("fleetctl import --dry-run --etcd-v2=unix:etcd.sock")
        .run("fleetctl import --etcd-v2=unix:etcd.sock");
    let seen = session.seen();
    let is_odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!seen.contains(is_odd), "{seen:?}");
    for shown in [
        r"\u{1b}[31mred.service",
        r"left\u{7f}over",
        r"\u{1b}]0;m",
        r"k\u{202e}=v\u{7}",
    ] {
        assert!(seen.matches(shown).count() >= 2, "{shown}\nin {seen}");
    }
}

#[test]
fn an_etcd_that_cannot_be_read_is_named_with_the_cure() {
    let mut session = with_etcd(&Etcd::recorded().guarded("Basic cm9vdDpyM2Q="));
    let plain = Etcd::recorded().without_v2();
    serve(&session, "plain.sock", |listener| plain.serve(listener));
    session
        .run("fleetctl import")
        .run("fleetctl import --etcd-v2=unix:etcd.sock --from-fleet=unix:old.sock")
        .run("fleetctl import --etcd-v2=10.0.0.1:2379")
        .run("fleetctl import --etcd-v2=,")
        .run("fleetctl import --etcd-v2=unix:etcd.sock all")
        .run("fleetctl import --etcd-v2=unix:nowhere.sock")
        .run("fleetctl import --etcd-v2=unix:plain.sock")
        .run("fleetctl import --etcd-v2=unix:etcd.sock")
        .run("fleetctl import --etcd-v2=unix:etcd.sock --etcd-username=root --etcd-password=r3d --etcd-key-prefix=/nowhere/")
        .run("fleetctl import --from-fleet=unix:nowhere.sock")
        .shows(
            r#"
$ fleetctl import
2> Error: import needs --etcd-v2=URL or --from-fleet=URL
2> Run 'fleetctl import --help' for usage.
rc=2
$ fleetctl import --etcd-v2=unix:etcd.sock --from-fleet=unix:old.sock
2> Error: the argument '--etcd-v2 <URL[,URL]>' cannot be used with '--from-fleet <URL>'
2> Run 'fleetctl import --help' for usage.
rc=2
$ fleetctl import --etcd-v2=10.0.0.1:2379
2> invalid argument "10.0.0.1:2379" for "--etcd-v2" flag: URL scheme undefined
rc=1
$ fleetctl import --etcd-v2=,
2> Error: invalid argument "," for "--etcd-v2" flag: it takes 1 to 16 URLs such as http://10.0.0.1:2379
rc=2
$ fleetctl import --etcd-v2=unix:etcd.sock all
2> Error: unexpected argument "all"
2> Run 'fleetctl import --help' for usage.
rc=2
$ fleetctl import --etcd-v2=unix:nowhere.sock
2> Error reading the other cluster from unix:nowhere.sock: Get "http://domain-sock/v2/keys/_coreos.com/fleet/job?recursive=true&quorum=true&alt=json": dial unix nowhere.sock: connect: no such file or directory
2> hint: is that where its etcd listens for clients?
rc=1
$ fleetctl import --etcd-v2=unix:plain.sock
2> Error reading the other cluster from unix:plain.sock: nothing there speaks etcd's v2 keys API
2> hint: etcd 3.4 and 3.5 have it with --enable-v2=true, newer ones not at all; --from-fleet reads an original fleetd instead
rc=1
$ fleetctl import --etcd-v2=unix:etcd.sock
2> Error reading the other cluster from unix:etcd.sock: etcd says no (401): The request requires user authentication
2> hint: give a user that may read: --etcd-username and FLEETCTL_ETCD_PASSWORD
rc=1
$ fleetctl import --etcd-v2=unix:etcd.sock --etcd-username=root --etcd-password=r3d --etcd-key-prefix=/nowhere/
2> Error reading the other cluster from unix:etcd.sock: no fleet is kept in etcd under /nowhere/
2> hint: --etcd-key-prefix names another prefix
rc=1
$ fleetctl import --from-fleet=unix:nowhere.sock
2> Error reading the other cluster: Get "http://domain-sock/fleet/v1/units?alt=json": dial unix nowhere.sock: connect: no such file or directory
2> hint: is unix:nowhere.sock where a fleetd of the other cluster listens?
rc=1
"#,
        );
    session.run("fleetctl import --dry-run --etcd-v2=unix:nowhere.sock,unix:etcd.sock --etcd-username=root --etcd-password=r3d");
    let seen = session.seen();
    assert!(
        seen.contains("2> WARNING: an etcd does not answer: unix:nowhere.sock: "),
        "{seen}"
    );
    assert!(
        seen.contains("hello.service    3141db9  launched  63d22e36...  create"),
        "{seen}"
    );
}

#[test]
fn a_cluster_comes_over_by_its_api() {
    let mut session = Session::with_fleetd();
    let old = Session::with_original();
    old.unit("hello.service", HELLO, "launched")
        .unit("b@.service", HELLO, "inactive")
        .unit(
            "both.service",
            &format!("[Service]\nExecStart=/bin/a\n[X-Fleet]\nMachineID={H1}\nGlobal=true\n"),
            "launched",
        )
        .unit(
            "typo.service",
            "[Service]\nExecStart=/bin/a\n[X-Fleet]\nMachineMetaData=a=b\n",
            "loaded",
        );
    let cluster = old.cluster.clone();
    serve(&session, "old.sock", |listener| {
        fake::serve(cluster, listener)
    });
    session
        .run("fleetctl import --from-fleet=unix:old.sock --dry-run")
        .run("fleetctl import --from-fleet=unix:old.sock --allow-unknown --static-metadata")
        .run("fleetctl import --from-fleet=unix:fleet.sock")
        .run("fleetctl list-unit-files")
        .shows(
            r#"
$ fleetctl import --from-fleet=unix:old.sock --dry-run
UNIT           HASH     DSTATE    ON           IMPORT  WHY
b@.service     3141db9  inactive  -            create  -
both.service   -        -         -            refuse  MachineID cannot be used with Global
hello.service  3141db9  launched  63d22e36...  create  -
typo.service   -        -         -            refuse  unrecognized requirement in [X-Fleet] section: "MachineMetaData" (did you mean "MachineMetadata"?); the unit would run without it

MACHINE                           METADATA     FROM     IMPORT  WHY
63d22e369175433883a37d92cc53f36c  hostname=h1  unknown  leave   the API does not say whether it is set or configured: put it into that machine's fleet.conf, or set it with --static-metadata
6a97c281d654404fb1ef271dfcd36920  hostname=h2  unknown  leave   the API does not say whether it is set or configured: put it into that machine's fleet.conf, or set it with --static-metadata
6a97c281d654404fb1ef271dfcd36920  zone=z1      unknown  leave   the API does not say whether it is set or configured: put it into that machine's fleet.conf, or set it with --static-metadata
rc=1
$ fleetctl import --from-fleet=unix:old.sock --allow-unknown --static-metadata
Unit b@.service created, inactive
Unit hello.service created, launched on 63d22e36...
Unit typo.service created, loaded on 63d22e36... (unrecognized requirement in [X-Fleet] section: "MachineMetaData" (did you mean "MachineMetadata"?))
Machine 63d22e36... metadata hostname=h1 set
Machine 6a97c281... metadata hostname=h2 set
Machine 6a97c281... metadata zone=z1 set
2> Unit both.service is not imported: MachineID cannot be used with Global
2> Units: 3 imported, 0 here already, 1 refused. Metadata: 3 set.
2> hint: what is refused can be mended where it is, or submitted here by hand; import may be run again at any time
2> WARNING: no machine 6a97c281d654404fb1ef271dfcd36920 has ever been here (metadata wants the whole id): what was set waits for it
rc=1
$ fleetctl import --from-fleet=unix:fleet.sock
Unit b@.service is here already
Unit hello.service is here already
Machine 63d22e36... metadata hostname=h1 is so here already
2> Unit typo.service is not imported: unrecognized requirement in [X-Fleet] section: "MachineMetaData" (did you mean "MachineMetadata"?); the unit would run without it
2> Units: 0 imported, 2 here already, 1 refused. Metadata: 0 set.
2> hint: what is refused can be mended where it is, or submitted here by hand; import may be run again at any time
rc=1
$ fleetctl list-unit-files
UNIT           HASH     DSTATE    STATE     TARGET
b@.service     3141db9  inactive  inactive  -
hello.service  3141db9  launched  launched  63d22e369175433883a37d92cc53f36c
typo.service   4e768a3  loaded    loaded    63d22e369175433883a37d92cc53f36c
"#,
        );
    let requests = old.requests();
    assert!(
        requests.iter().all(|request| request.starts_with("GET ")),
        "{requests:?}"
    );
}

#[test]
fn an_original_fleetd_is_no_place_to_import_to() {
    let mut session = Session::with_original();
    let etcd = Etcd::recorded();
    serve(&session, "etcd.sock", |listener| etcd.serve(listener));
    session.run("fleetctl import --etcd-v2=unix:etcd.sock").shows(r#"
$ fleetctl import --etcd-v2=unix:etcd.sock
2> Unit .service is not imported: unit name needs characters before ".service"
2> Unit both.service is not imported: MachineID cannot be used with Global
2> Unit mangled.service is not imported: /_coreos.com/fleet/job/mangled.service/object is damaged: invalid type: string "b506", expected a sequence at line 1 column 43
2> Unit odd.service is not imported: its target state "lunched" is none of inactive, loaded and launched: set /_coreos.com/fleet/job/odd.service/target-state to one of them with etcdctl
2> Unit torn.service is not imported: its unit file is missing: there is no unit/7e42917f2dc4093a273cb11a4ad58e51ba38ae96
2> Unit typo.service is not imported: unrecognized requirement in [X-Fleet] section: "MachineMetaData" (did you mean "MachineMetadata"?); the unit would run without it
2> Unit unended.service is not imported: unable to find end of section (line 1)
2> Error importing units: this cluster's fleetd is an original one
2> hint: --endpoint names a fleetd of the new cluster
rc=1
"#);
    assert!(session.cluster.lock().unwrap().units.is_empty());
}
