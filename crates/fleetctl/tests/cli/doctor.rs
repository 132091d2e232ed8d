use crate::session::{HELLO, Session};

#[test]
fn a_cluster_that_is_well_and_one_that_is_not() {
    let mut session = Session::with_engine();
    session
        .file("a.service", HELLO)
        .file("worst.service", HELLO)
        .file(
            "mars.service",
            &format!("{HELLO}\n[X-Fleet]\nMachineMetadata=region=mars\n"),
        );
    session.run("fleetctl start a").seen();
    session
        .run("fleetctl doctor")
        .run("fleetctl doctor -o json");
    session.shows(
            "
$ fleetctl doctor
All is well: 2 of 2 machines present, 1 of 1 launched units active, 63d22e36.../172.30.1.2 leads.
$ fleetctl doctor -o json
{
  \"well\": true,
  \"summary\": \"All is well: 2 of 2 machines present, 1 of 1 launched units active, 63d22e36.../172.30.1.2 leads.\",
  \"findings\": []
}
",
        );
    session
        .run("fleetctl start worst")
        .run("fleetctl start --block-attempts=1 mars")
        .seen();
    session.run("fleetctl doctor").run("fleetctl doctor -o json").shows(
            "
$ fleetctl doctor
2 things are wrong; 2 of 2 machines present, 1 of 3 launched units active, 63d22e36.../172.30.1.2 leads.

Unit mars.service is pending: no machine may run it: MachineMetadata region=mars
  cure      give a machine region=mars (metadata= in its fleet.conf), or change MachineMetadata= and hand the unit in with --replace

Unit worst.service failed on 6a97c281.../172.30.1.3: exit-code: status 1/FAILURE
  cure      fleetctl journal worst.service shows more; fleetctl start worst.service starts it again
rc=1
$ fleetctl doctor -o json
{
  \"well\": false,
  \"summary\": \"2 things are wrong; 2 of 2 machines present, 1 of 3 launched units active, 63d22e36.../172.30.1.2 leads.\",
  \"findings\": [
    {
      \"about\": \"unit\",
      \"name\": \"mars.service\",
      \"remark\": false,
      \"what\": \"Unit mars.service is pending: no machine may run it: MachineMetadata region=mars\",
      \"cures\": [
        \"give a machine region=mars (metadata= in its fleet.conf), or change MachineMetadata= and hand the unit in with --replace\"
      ]
    },
    {
      \"about\": \"unit\",
      \"name\": \"worst.service\",
      \"remark\": false,
      \"what\": \"Unit worst.service failed on 6a97c281.../172.30.1.3: exit-code: status 1/FAILURE\",
      \"cures\": [
        \"fleetctl journal worst.service shows more; fleetctl start worst.service starts it again\"
      ]
    }
  ]
}
rc=1
",
        );
}

#[test]
fn what_is_meant_is_a_note() {
    let mut session = Session::with_engine();
    // Somebody leads by then.
    session.file("a.service", HELLO);
    session
        .run("fleetctl start a")
        .run("fleetctl cordon 6a97")
        .seen();
    session.run("fleetctl doctor").shows(
        "
$ fleetctl doctor
All is well: 2 of 2 machines present, 1 of 1 launched units active, 63d22e36.../172.30.1.2 leads.

note: Machine 6a97c281.../172.30.1.3 is cordoned
  cure      fleetctl uncordon 6a97c281d654404fb1ef271dfcd36920
",
    );
}

#[test]
fn an_original_fleetd_cannot_be_looked_into() {
    let mut session = Session::with_original();
    session.run("fleetctl doctor").shows(
        "
$ fleetctl doctor
2> This fleetd is an original fleet 1.0, which does not say how it is.
2> hint: fleetctl list-machines and fleetctl list-units work as ever; upgrade fleetd for more
rc=1
",
    );
}
