//! The six common uses.

use fleet_sandbox::{Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

#[test]
fn copies_together_apart_and_by_metadata() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(3)
            .metadata(0, "region=us-west")
            .metadata(1, "region=us-east,disk=ssd")
            .metadata(2, "region=us-east"),
    );

    // One unit anywhere.
    cluster.start("one.service", "");
    cluster.place("one.service");

    // Many copies of it, from a template: the least loaded machine each time.
    cluster.file("copy@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/copy@.service"]);
    cluster.ok(&["start", "copy@1", "copy@2", "copy@3"]);
    let mut load = [0; 3];
    load[cluster.place("one.service")] += 1;
    for copy in ["copy@1.service", "copy@2.service", "copy@3.service"] {
        load[cluster.place(copy)] += 1;
    }
    assert_eq!(
        load.iter().max(),
        Some(&2),
        "four units on three machines: {load:?}"
    );
    assert_eq!(
        load.iter().min(),
        Some(&1),
        "four units on three machines: {load:?}"
    );

    // Together.
    cluster.start("db.service", "");
    cluster.start("web.service", "MachineOf=db.service");
    assert_eq!(cluster.place("web.service"), cluster.place("db.service"));

    // Apart, in both directions: the one that says so may be there first or last.
    cluster.start("a.service", "Conflicts=b*.service");
    cluster.start("b1.service", "");
    cluster.start("b2.service", "");
    assert_ne!(cluster.place("a.service"), cluster.place("b1.service"));
    assert_ne!(cluster.place("a.service"), cluster.place("b2.service"));
    cluster.start("c.service", "");
    cluster.start("d.service", "Conflicts=c.service");
    assert_ne!(cluster.place("c.service"), cluster.place("d.service"));

    // By metadata: values of one key are alternatives, keys are all demanded.
    cluster.start("west.service", "MachineMetadata=region=us-west");
    assert_eq!(cluster.place("west.service"), 0);
    cluster.start(
        "ssd.service",
        "MachineMetadata=\"region=us-west\" \"region=us-east\"\nMachineMetadata=disk=ssd",
    );
    assert_eq!(cluster.place("ssd.service"), 1);

    // By machine.
    let id = cluster.host(2).machine_id().unwrap();
    cluster.start("pinned.service", &format!("MachineID={id}"));
    assert_eq!(cluster.place("pinned.service"), 2);

    // In the place of another one, which goes elsewhere.
    cluster.start("old.service", "");
    let spot = cluster.place("old.service");
    cluster.patch(spot, "spot", "here");
    cluster.start(
        "new.service",
        "MachineMetadata=spot=here\nReplaces=old.service",
    );
    assert_eq!(cluster.place("new.service"), spot);
    wait_for("old.service to have moved", SOON, || {
        match &cluster.running("old.service")[..] {
            [one] if one.host != spot && one.active == "active" => Ok(()),
            running => Err(format!("{running:?}")),
        }
    })
    .unwrap();
    assert_eq!(cluster.place("new.service"), spot, "it stays");

    // Everywhere.
    cluster.start("everywhere.service", "Global=true");
    let hosts: Vec<usize> = cluster
        .running("everywhere.service")
        .iter()
        .map(|r| r.host)
        .collect();
    assert_eq!(hosts, [0, 1, 2]);
    let rows = cluster.ok(&["list-units", "--no-legend"]);
    assert_eq!(
        rows.lines()
            .filter(|row| row.starts_with("everywhere.service "))
            .count(),
        3
    );
}

#[test]
fn units_of_a_machine_that_loses_its_power_run_elsewhere_and_nothing_else_moves() {
    let cluster = Cluster::up(3);
    cluster.file("n@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/n@.service"]);
    let units: Vec<String> = (1..=6).map(|n| format!("n@{n}.service")).collect();
    let names: Vec<&str> = units.iter().map(String::as_str).collect();
    cluster.ok(&[&["start"], names.as_slice()].concat());
    let before = cluster.invocations(&names);
    let victim = cluster.place("n@1.service");
    let asked_on = (victim + 1) % 3;

    cluster.host(victim).kill().unwrap();
    for unit in &names {
        cluster.wait_for_place(unit, FAILOVER);
    }
    let after = cluster.invocations(&names);
    for unit in &names {
        let (was, is) = (&before[*unit][0], &after[*unit][0]);
        if was.host == victim {
            assert_ne!(is.host, victim, "{unit} moves");
        } else {
            assert_eq!(
                is, was,
                "{unit} was not on the lost machine and is not touched"
            );
        }
    }
    cluster.wait_for_machines(asked_on, 2);

    // It is told in order, with the reasons.
    let victim_id = cluster.host(victim).machine_id().unwrap();
    let short = victim_id.get(..8).unwrap();
    let moved_to = after["n@1.service"][0].host;
    let new_id = cluster.host(moved_to).machine_id().unwrap();
    let new = new_id.get(..8).unwrap();
    let of_machine = told_by(&cluster, asked_on, &["--machine", &victim_id]);
    let of_unit = told_by(&cluster, asked_on, &["--unit", "n@1"]);
    let both = told_by(&cluster, asked_on, &["-n", "1000"]);
    assert_in_order(
        &of_machine,
        &[
            format!("present - {short}... "),
            format!("started n@1.service {short}... "),
            format!("suspect - {short}... "),
            format!("lost - {short}... "),
            format!("moved n@1.service {short}... → {new}... "),
        ],
    );
    assert_in_order(
        &of_unit,
        &[
            "submitted n@1.service - uid 0 a new unit, to be launched".to_owned(),
            format!("placed n@1.service {short}... "),
            format!("moved n@1.service {short}... → {new}... "),
            format!("started n@1.service {new}... {new}... {short} is lost; "),
        ],
    );
    assert!(
        both.iter().any(|row| row.starts_with("leader - ")),
        "{both:?}"
    );
    // Nor does a fleetd that is killed forget what it has told.
    let fleetd = ["systemctl", "kill", "-s", "KILL", "fleet.service"];
    cluster.host(moved_to).run(&fleetd).unwrap();
    cluster.wait_for_machines(asked_on, 2);
    assert_in_order(&told_by(&cluster, asked_on, &["--unit", "n@1"]), &of_unit);
    let journal = [
        "journalctl",
        "-u",
        "fleet",
        "F_KIND=started",
        "F_UNIT=n@1.service",
    ];
    let journal = cluster.host(moved_to).run(&journal).unwrap();
    assert!(journal.contains(&format!("{short} is lost")), "{journal}");

    // The machine comes back with nothing on it, and nothing moves back by itself.
    cluster.host(victim).boot().unwrap();
    cluster.wait_for_machines(asked_on, 3);
    assert_eq!(cluster.invocations(&names), after);
}

/// The rows of `fleetctl events`, without the times, a blank between the columns.
fn told_by(cluster: &Cluster, host: usize, args: &[&str]) -> Vec<String> {
    let out = cluster.fleetctl_on(host, &[&["events"], args].concat());
    assert!(out.code == 0, "{}", told(&out));
    let rows = out.stdout.lines().skip(1);
    let words = rows.map(|row| row.split_whitespace().skip(2).collect::<Vec<_>>().join(" "));
    words.collect()
}

/// There is a row that begins so, then one behind it for the next, and so on.
#[track_caller]
fn assert_in_order(rows: &[String], beginnings: &[String]) {
    let mut rest = rows.iter();
    for beginning in beginnings {
        let found = rest.any(|row| row.starts_with(beginning.as_str()));
        assert!(found, "{beginning} in its place in {rows:#?}");
    }
}
