use crate::fake::machine;
use crate::session::Session;

#[test]
fn the_shape_that_the_readme_shows() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines = vec![
        machine(
            "148a18ff6e954cd892dac9de9bb90d5a",
            "19.4.0.112",
            "present",
            &[("region", "us-west")],
        ),
        machine(
            "491586a6508f4583a71dbfc4d146e996",
            "19.4.0.113",
            "present",
            &[("region", "us-east")],
        ),
    ];
    session.run("fleetctl list-machines").shows(
        "
$ fleetctl list-machines
MACHINE                              IP           METADATA
148a18ff6e954cd892dac9de9bb90d5a     19.4.0.112   region=us-west
491586a6508f4583a71dbfc4d146e996     19.4.0.113   region=us-east
",
    );
}

#[test]
fn the_originals_table_with_fields_or_full() {
    let mut session = Session::new();
    session
        .run("fleetctl list-machines --fields=machine,ip,metadata")
        .run("fleetctl list-machines --full --no-legend --fields=machine,ip")
        .run("fleetctl list-m -l")
        .shows(
            "
$ fleetctl list-machines --fields=machine,ip,metadata
MACHINE\t\tIP\t\tMETADATA
63d22e36...\t172.30.1.2\thostname=h1
6a97c281...\t172.30.1.3\thostname=h2,zone=z1
$ fleetctl list-machines --full --no-legend --fields=machine,ip
63d22e369175433883a37d92cc53f36c\t172.30.1.2
6a97c281d654404fb1ef271dfcd36920\t172.30.1.3
$ fleetctl list-m -l
MACHINE\t\t\t\t\tIP\t\tMETADATA
63d22e369175433883a37d92cc53f36c\t172.30.1.2\thostname=h1
6a97c281d654404fb1ef271dfcd36920\t172.30.1.3\thostname=h2,zone=z1
",
        );
}

#[test]
fn what_is_unknown_is_a_dash_and_who_is_absent_is_told() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines = vec![
        machine("a", "", "present", &[]),
        machine("b", "10.0.0.2", "suspect", &[]),
        machine("c", "10.0.0.3", "retired", &[]),
    ];
    session
        .run("fleetctl list-machines")
        .run("fleetctl list-machines --all")
        .run("fleetctl list-machines --fields=machine,status")
        .shows(
            "
$ fleetctl list-machines
MACHINE     IP   METADATA
a           -    -
2> Not present: b (suspect)
$ fleetctl list-machines --all
MACHINE     IP         STATUS    METADATA
a           -          present   -
b           10.0.0.2   suspect   -
c           10.0.0.3   retired   -
$ fleetctl list-machines --fields=machine,status
MACHINE\tSTATUS
a\tpresent
2> Not present: b (suspect)
",
        );
}

#[test]
fn json() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines.truncate(1);
    session.run("fleetctl list-machines -o json").shows(
        "
$ fleetctl list-machines -o json
[
  {
    \"id\": \"63d22e369175433883a37d92cc53f36c\",
    \"primaryIP\": \"172.30.1.2\",
    \"metadata\": {
      \"hostname\": \"h1\"
    },
    \"status\": \"present\"
  }
]
",
    );
}

#[test]
fn wrong_fields() {
    let mut session = Session::new();
    session
        .run("fleetctl list-machines --fields=")
        .run("fleetctl list-machines --fields=machine,foo")
        .shows(
            "
$ fleetctl list-machines --fields=
2> Must define output format
2> hint: the fields are machine,ip,metadata,status,version
rc=1
$ fleetctl list-machines --fields=machine,foo
2> Invalid key in output format: \"foo\"
2> hint: the fields are machine,ip,metadata,status,version
rc=1
",
        );
}

#[test]
fn a_store_that_is_away() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().outage =
        Some((503, "fleet server unable to communicate with etcd"));
    session.run("fleetctl list-machines").run("fleetctl list-units").shows(
        "
$ fleetctl list-machines
2> Error retrieving list of active machines from fleet API (googleapi: Error 503: fleet server unable to communicate with etcd)
2> Possible issues:
2>   etcd is unhealthy and/or lost quorum
2>   connection cannot be established to any etcd servers
rc=1
$ fleetctl list-units
2> Error retrieving list of units from repository: googleapi: Error 503: fleet server unable to communicate with etcd
rc=1
",
    );
}

#[test]
fn why_the_store_is_away_is_a_hint_behind_the_originals_words() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().outage = Some((
        503,
        "fleet server unable to communicate with etcd: etcd http://a:2379: no connection within 1s",
    ));
    session
        .run("fleetctl list-machines")
        .run("fleetctl list-units")
        .run("fleetctl start a")
        .shows(
            "
$ fleetctl list-machines
2> Error retrieving list of active machines from fleet API (googleapi: Error 503: fleet server unable to communicate with etcd)
2> Possible issues:
2>   etcd is unhealthy and/or lost quorum
2>   connection cannot be established to any etcd servers
2> hint: fleetd cannot reach its store: etcd http://a:2379: no connection within 1s
rc=1
$ fleetctl list-units
2> Error retrieving list of units from repository: googleapi: Error 503: fleet server unable to communicate with etcd
2> hint: fleetd cannot reach its store: etcd http://a:2379: no connection within 1s
rc=1
$ fleetctl start a
2> Error creating units: error retrieving Unit(a.service) from Registry: googleapi: Error 503: fleet server unable to communicate with etcd
2> hint: fleetd cannot reach its store: etcd http://a:2379: no connection within 1s
rc=1
",
        );
}

#[test]
fn a_refusal_says_itself_why() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().outage =
        Some((403, "plaintext TCP is served on loopback only"));
    session.run("fleetctl list-machines").shows(
        "
$ fleetctl list-machines
2> Error retrieving list of active machines from fleet API (googleapi: Error 403: plaintext TCP is served on loopback only)
rc=1
",
    );
}

#[test]
fn nothing_to_list_and_fields_that_do_not_exist() {
    let mut session = Session::new();
    session.cluster.lock().unwrap().machines.clear();
    session
        .run("fleetctl list-machines")
        .run("fleetctl list-machines --no-legend")
        .run("fleetctl list-machines --fields=machine,ip,metadata")
        .run("fleetctl list-machines --full")
        .run("fleetctl list-machines --no-legend --fields=machine")
        .run("fleetctl list-machines --fields=machine,machine,foo")
        .run("fleetctl list-machines --fields=MACHINE")
        .run("fleetctl list-machines --fields=")
        .shows(
            "
$ fleetctl list-machines
MACHINE     IP   METADATA
$ fleetctl list-machines --no-legend
$ fleetctl list-machines --fields=machine,ip,metadata
MACHINE\tIP\tMETADATA
$ fleetctl list-machines --full
MACHINE\tIP\tMETADATA
$ fleetctl list-machines --no-legend --fields=machine
$ fleetctl list-machines --fields=machine,machine,foo
2> Invalid key in output format: \"foo\"
2> hint: the fields are machine,ip,metadata,status,version
rc=1
$ fleetctl list-machines --fields=MACHINE
2> Invalid key in output format: \"MACHINE\"
2> hint: the fields are machine,ip,metadata,status,version
rc=1
$ fleetctl list-machines --fields=
2> Must define output format
2> hint: the fields are machine,ip,metadata,status,version
rc=1
",
        );
}
