use crate::session::{HELLO, Session};

#[test]
fn a_unit_says_where_it_is_and_what_was_passed_over() {
    let mut session = Session::with_engine();
    let with = |lines: &str| format!("{HELLO}\n[X-Fleet]\n{lines}\n");
    session
        .file("a.service", HELLO)
        .file("b.service", &with("Conflicts=a.service"))
        .file("mars.service", &with("MachineMetadata=region=mars"))
        .file("with.service", &with("MachineOf=mars.service"))
        .file("g.service", &with("Global=true"))
        .file("idle.service", HELLO);
    session
        .run("fleetctl start a b g")
        .run("fleetctl submit idle")
        .run("fleetctl start --block-attempts=1 mars with")
        .seen();
    session
        .run("fleetctl why a")
        .run("fleetctl why b.service idle")
        .run("fleetctl why mars with g")
        .run("fleetctl why '[bi]*'")
        .shows(
            "
$ fleetctl why a
a.service is active (running) on 63d22e36.../172.30.1.2
  wished    launched, since TIME
  placed    since TIME: fewest units (1) of the machines that may run it
  asked     2 machines: none refused it
  systemd   loaded, active (running) on 63d22e36.../172.30.1.2
$ fleetctl why b.service idle
b.service is active (running) on 6a97c281.../172.30.1.3
  wished    launched, since TIME
  placed    since TIME: fewest units (1) of the machines that may run it
  asked     2 machines: Conflicts with a.service refused 1
  systemd   loaded, active (running) on 6a97c281.../172.30.1.3

idle.service is inactive, and nobody wishes more
  wished    inactive, since TIME
  cure      fleetctl start idle.service has it run
$ fleetctl why mars with g
mars.service is pending: it has no machine
  wished    launched, since TIME
  pending   since TIME: no machine may run it: MachineMetadata region=mars
  asked     2 machines: MachineMetadata region=mars refused 2
  cure      give a machine region=mars (metadata= in its fleet.conf), or change MachineMetadata= and hand the unit in with --replace

with.service is pending: it has no machine
  wished    launched, since TIME
  pending   since TIME: no machine may run it: MachineOf mars.service is not placed
  asked     2 machines: MachineOf mars.service is not placed refused 2
  cure      fleetctl start mars.service, or see fleetctl why mars.service

g.service is global, and active on 2 machines
  wished    launched, since TIME
  placed    since TIME: global: on every machine that qualifies
  asked     2 machines: none refused it
  systemd   loaded, active (running) on 63d22e36.../172.30.1.2
            loaded, active (running) on 6a97c281.../172.30.1.3
$ fleetctl why '[bi]*'
b.service is active (running) on 6a97c281.../172.30.1.3
  wished    launched, since TIME
  placed    since TIME: fewest units (1) of the machines that may run it
  asked     2 machines: Conflicts with a.service refused 1
  systemd   loaded, active (running) on 6a97c281.../172.30.1.3

idle.service is inactive, and nobody wishes more
  wished    inactive, since TIME
  cure      fleetctl start idle.service has it run
",
        );
}

#[test]
fn a_failure_is_told_with_its_last_lines() {
    let mut session = Session::with_fleetd();
    session.file("bad.service", HELLO);
    session
        .run("fleetctl start bad")
        .run("fleetctl why bad")
        .run("fleetctl why -o json bad")
        .shows(
            "
$ fleetctl start bad
Unit bad.service inactive
2> Error waiting for units: unit bad.service failed on 63d22e36.../172.30.1.2: exit code 1
2>   /bin/false: no
rc=1
$ fleetctl why bad
bad.service is failed (failed) on 63d22e36.../172.30.1.2
  wished    launched, since TIME
  placed    least loaded
  asked     1 machine: none refused it
  systemd   loaded, failed (failed) on 63d22e36.../172.30.1.2: exit code 1
  log       /bin/false: no
  cure      fleetctl journal bad.service shows more; fleetctl start bad.service starts it again
$ fleetctl why -o json bad
[
  {
    \"unit\": {
      \"name\": \"bad.service\",
      \"generation\": 3,
      \"hash\": \"3141db959a89c6cbb56420afa11333d332e6e0ab\",
      \"desiredState\": \"launched\",
      \"currentState\": \"launched\",
      \"description\": \"Hello World\",
      \"machineID\": \"63d22e369175433883a37d92cc53f36c\",
      \"reason\": \"least loaded\",
      \"considered\": 1,
      \"changedMs\": MS,
      \"states\": [
        {
          \"machineID\": \"63d22e369175433883a37d92cc53f36c\",
          \"load\": \"loaded\",
          \"active\": \"failed\",
          \"sub\": \"failed\",
          \"hash\": \"3141db959a89c6cbb56420afa11333d332e6e0ab\",
          \"description\": \"Hello World\",
          \"reached\": \"launched\",
          \"invocationID\": \"0-true\",
          \"why\": \"exit code 1\",
          \"log\": [
            \"/bin/false: no\"
          ]
        }
      ]
    },
    \"cures\": [
      \"fleetctl journal bad.service shows more; fleetctl start bad.service starts it again\"
    ]
  }
]
",
        );
}

#[test]
fn a_machine_says_how_it_stands() {
    let mut session = Session::with_engine();
    session.file("a.service", HELLO);
    session
        .run("fleetctl start a")
        .run("fleetctl cordon 63d2")
        .seen();
    session
        .run("fleetctl why 63d2")
        .run("fleetctl why 6a97...")
        .run("fleetctl why -o json 6a97")
        .shows(
            "
$ fleetctl why 63d2
machine 63d22e369175433883a37d92cc53f36c (172.30.1.2) is present
  since     TIME
  joined    TIME
  version   1.0.0
  takes     no new units: it is cordoned
  units     a.service (launched): fewest units (0) of the machines that may run it
  cure      fleetctl uncordon 63d22e369175433883a37d92cc53f36c
$ fleetctl why 6a97...
machine 6a97c281d654404fb1ef271dfcd36920 (172.30.1.3) is present
  since     TIME
  joined    TIME
  version   1.0.0
  takes     new units
  units     none
$ fleetctl why -o json 6a97
[
  {
    \"machine\": {
      \"id\": \"6a97c281d654404fb1ef271dfcd36920\",
      \"primaryIP\": \"172.30.1.3\",
      \"metadata\": {},
      \"status\": \"present\",
      \"sinceMs\": MS,
      \"firstSeenMs\": MS,
      \"version\": \"1.0.0\"
    },
    \"units\": [],
    \"cures\": []
  }
]
",
        );
}

#[test]
fn what_is_not_known_is_told_and_the_others_go_on() {
    let mut session = Session::with_units_and_ssh();
    session
        .run("fleetctl why")
        .run("fleetctl why nothing hello")
        .run("fleetctl why 6")
        .run("fleetctl why '*.timer'")
        .shows(
            "
$ fleetctl why
2> No unit and no machine is named.
2> hint: fleetctl why UNIT, or fleetctl why MACHINE with any beginning of its id
rc=1
$ fleetctl why nothing hello
hello.service is active (running) on 63d22e36.../172.30.1.2
  wished    launched
  placed    nobody has decided yet
  systemd   loaded, active (running) on 63d22e36.../172.30.1.2
2> nothing is not known: neither a unit nor the beginning of a machine's id
2> hint: fleetctl list-unit-files and fleetctl list-machines --all show what is known
rc=1
$ fleetctl why 6
2> Machine 6 is not clear: several ids begin so
2> hint: write more of it: 63d22e369175433883a37d92cc53f36c, 6a97c281d654404fb1ef271dfcd36920
rc=1
$ fleetctl why '*.timer'
2> *.timer is not known: neither a unit nor the beginning of a machine's id
2> hint: fleetctl list-unit-files and fleetctl list-machines --all show what is known
rc=1
",
        );
}

#[test]
fn an_original_fleetd_keeps_no_reasons() {
    let mut session = Session::with_original();
    session.three_units();
    session.run("fleetctl why hello 63d2").shows(
        "
$ fleetctl why hello 63d2
hello.service is active (running) on 63d22e36.../172.30.1.2
  wished    launched
  placed    this fleetd is an original one, which keeps no reasons
  systemd   loaded, active (running) on 63d22e36.../172.30.1.2

machine 63d22e369175433883a37d92cc53f36c (172.30.1.2) is present
  metadata  hostname=h1
",
    );
}
