//! Metadata that is set at run time decides anew where units may be.

use fleet_sandbox::{Sandbox, wait_for};

use crate::cluster::{Cluster, SOON, sleeper};

#[test]
fn metadata_set_at_run_time_moves_units_without_a_gap_and_stops_what_has_nowhere_to_go() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(3)
            .metadata(0, "region=eu")
            .metadata(1, "region=us")
            .metadata(2, "region=us"),
    );
    // It takes its time to start, so that a gap would show.
    let slow = |x_fleet: &str| {
        sleeper(x_fleet).replace(
            "ExecStart=/bin/sleep infinity",
            "ExecStartPre=/bin/sleep 1\nExecStart=/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n",
        )
    };
    let path = cluster.file("a.service", &slow("MachineMetadata=region=us"));
    cluster.ok(&["start", &path]);
    let path = cluster.file(
        "once.service",
        &slow("MachineMetadata=region=us\nExclusive=yes"),
    );
    cluster.ok(&["start", &path]);
    let path = cluster.file("side.service", &slow("MachineOf=a.service"));
    cluster.ok(&["start", &path]);
    cluster.start(
        "everywhere.service",
        "Global=true\nMachineMetadata=region=us",
    );
    cluster.start("other.service", "MachineMetadata=region=eu");
    let untouched = cluster.invocations(&["other.service"]);
    let hosts_of =
        |unit: &str| -> Vec<usize> { cluster.running(unit).iter().map(|r| r.host).collect() };
    assert_eq!(hosts_of("everywhere.service"), [1, 2]);
    let first = cluster.place("a.service");
    let second = 3 - first;

    // Moved: active elsewhere before it is stopped, with what follows it. Only what may never run
    // twice is stopped first.
    cluster.patch(first, "region", "eu");
    wait_for("all of it to move", SOON, || {
        let mut are_there = true;
        for unit in ["a.service", "side.service"] {
            let old = cluster.active_on(first, unit);
            let new = cluster.active_on(second, unit);
            let is_up = old == "active" || new == "active";
            assert!(is_up, "a gap of {unit}: {old}, {new}");
        }
        let once = cluster.running("once.service");
        assert!(once.len() <= 1, "it runs twice: {once:?}");
        let running = cluster.invocations(&["a.service", "side.service", "once.service"]);
        for now in running.values() {
            are_there &= matches!(&now[..], [one] if one.host == second && one.active == "active");
        }
        match are_there {
            true => Ok(()),
            false => Err(format!("{running:?}")),
        }
    })
    .unwrap();
    // Neither file nor link of it is left where it was.
    let links = ["find", "/run/systemd/system", "-name", "a.service"];
    wait_for("no link to be left", SOON, || {
        match cluster.host(first).run(&links) {
            Ok(left) if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .unwrap();
    let there = cluster.host(second).run(&links).unwrap();
    assert_eq!(there.lines().count(), 2, "linked and enabled: {there}");
    let wait_for_hosts = |unit: &str, expected: &[usize]| {
        wait_for(&format!("{unit} on {expected:?}"), SOON, || {
            let hosts = hosts_of(unit);
            if hosts == expected {
                Ok(())
            } else {
                Err(format!("{hosts:?}"))
            }
        })
        .unwrap();
    };
    wait_for_hosts("everywhere.service", &[second]);

    // Requirements changed by its user: moved if it must be, and left alone if it may stay.
    let at_home = cluster.invocations(&["a.service"]);
    for x_fleet in ["", "MachineMetadata=region=us\nMachineMetadata=region=eu"] {
        let path = cluster.file("a.service", &slow(x_fleet));
        cluster.ok(&["start", "--replace", &path]);
        assert_eq!(cluster.invocations(&["a.service"]), at_home, "{x_fleet:?}");
    }
    let id = cluster.host(first).machine_id().unwrap();
    for (there, x_fleet) in [
        (first, format!("MachineID={id}")),
        (second, "MachineMetadata=region=us".to_owned()),
    ] {
        let path = cluster.file("a.service", &slow(&x_fleet));
        cluster.ok(&["start", "--replace", "--no-block", &path]);
        wait_for("a.service to move by its new requirements", SOON, || {
            let old = cluster.active_on(3 - there, "a.service");
            let new = cluster.active_on(there, "a.service");
            assert!(old == "active" || new == "active", "a gap: {old}, {new}");
            match cluster.running("a.service")[..] {
                [ref one] if one.host == there && one.active == "active" => Ok(()),
                ref running => Err(format!("{running:?}")),
            }
        })
        .unwrap();
    }
    cluster.ok(&["destroy", "once.service"]);

    // Nowhere to go: stopped, and the reason is told.
    cluster.patch(second, "region", "eu");
    for unit in ["a.service", "side.service", "everywhere.service"] {
        wait_for_hosts(unit, &[]);
    }
    for (unit, why) in [
        ("a.service", "MachineMetadata region=us"),
        ("side.service", "MachineOf a.service is not placed"),
        ("everywhere.service", "MachineMetadata region=us"),
    ] {
        let answer = cluster.curl(&["-si"], &format!("units/{unit}"));
        let header = answer.lines().find(|line| line.starts_with("Warning: "));
        assert!(
            header.is_some_and(|line| line.contains(why)),
            "{unit}: {answer}"
        );
    }

    // A machine qualifies: all of it at once.
    cluster.patch(0, "region", "us");
    for unit in ["a.service", "side.service", "everywhere.service"] {
        wait_for_hosts(unit, &[0]);
    }
    // What no longer may run there has gone, to where it may.
    let other = cluster.wait_for_place("other.service", SOON);
    assert_ne!(other, 0);
    assert_eq!(untouched["other.service"][0].host, 0);
}
