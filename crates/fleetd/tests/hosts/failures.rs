//! Failure of a unit is not failure of a machine, and a machine that breaks its units is avoided.

use fleet_sandbox::wait_for;

use crate::cluster::{Cluster, FAILOVER, SOON, told};

/// A unit that runs where /etc/only-here is, and fails elsewhere; each attempt leaves a line.
fn picky(name: &str, service: &str, x_fleet: &str) -> String {
    format!(
        "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=1min\n\n[Service]\n{service}\n\
         ExecStart=/bin/sh -c 'echo once more >> /run/{name}.attempts; \
         test -e /etc/only-here || exit 7; exec sleep infinity'\n\n[X-Fleet]\n{x_fleet}\n"
    )
}

/// How often the unit was started on each host since it was looked last.
fn attempts(cluster: &Cluster, name: &str) -> Vec<usize> {
    let hosts = cluster.sandbox.hosts();
    let script = format!("cat /run/{name}.attempts; rm -f /run/{name}.attempts");
    let on = |host: &fleet_sandbox::Host| {
        let out = host.exec(&["sh", "-c", &script]).unwrap();
        out.stdout.lines().count()
    };
    hosts.iter().map(on).collect()
}

fn id(cluster: &Cluster, host: usize) -> String {
    cluster.host(host).machine_id().unwrap()
}

#[test]
fn a_unit_that_is_given_up_is_moved_and_a_machine_that_breaks_units_is_avoided() {
    let cluster = Cluster::up(3);
    a_machine_that_breaks_units_is_avoided_until_it_is_trusted_again(&cluster);
    a_unit_runs_where_it_can_once_systemd_has_given_it_up_elsewhere(&cluster);
}

fn a_machine_that_breaks_units_is_avoided_until_it_is_trusted_again(cluster: &Cluster) {
    let bad = id(cluster, 1);
    let here = format!("MachineID={bad}");
    cluster.start("keep.service", &here);
    let kept = cluster.invocations(&["keep.service"]);
    for n in 1..=3 {
        let path = cluster.file(&format!("f{n}.service"), &picky("f", "", &here));
        let out = cluster.fleetctl(&["start", &path]);
        assert_eq!(out.code, 1, "{}", told(&out));
    }
    cluster.ok(&["destroy", "f1", "f2", "f3"]);
    let is_avoided = || {
        let out = cluster.fleetctl(&["list-machines"]);
        let why = format!("Avoided: {bad} (3 of the last 3 units failed there within 10 min: ");
        match out.stderr.contains(&why) && out.stderr.contains("fleetctl uncordon") {
            true => Ok(()),
            false => Err(told(&out)),
        }
    };
    wait_for("list-machines to say that it is avoided", SOON, is_avoided).unwrap();
    for n in 1..=4 {
        let unit = format!("n{n}.service");
        cluster.start(&unit, "");
        assert_ne!(cluster.place(&unit), 1, "{unit} went to where units fail");
    }

    // Whoever leads now knows it from the store.
    for host in cluster.sandbox.hosts() {
        host.run(&["systemctl", "restart", "fleet"]).unwrap();
    }
    cluster.wait_until_complete();
    wait_for("it to be avoided still", FAILOVER, is_avoided).unwrap();
    cluster.start("n5.service", "");
    assert_ne!(cluster.place("n5.service"), 1);
    assert_eq!(
        cluster.invocations(&["keep.service"]),
        kept,
        "nothing that runs is touched"
    );

    cluster.ok(&["uncordon", &bad[..8]]);
    let out = cluster.fleetctl(&["list-machines"]);
    assert!(!out.stderr.contains("Avoided"), "{}", told(&out));
    // It has the fewest units by far; the leader may not have read it yet.
    wait_for("new units to come to it again", SOON, || {
        cluster.ok(&["start", "n5"]);
        cluster.ok(&["destroy", "n5"]);
        cluster.start("n5.service", "");
        match cluster.place("n5.service") {
            1 => Ok(()),
            host => Err(format!("it went to {host}")),
        }
    })
    .unwrap();
    assert_eq!(cluster.invocations(&["keep.service"]), kept);
    cluster.ok(&["destroy", "keep", "n1", "n2", "n3", "n4", "n5"]);
}

fn a_unit_runs_where_it_can_once_systemd_has_given_it_up_elsewhere(cluster: &Cluster) {
    // With nowhere else to go it stays failed, and says why.
    for host in [1, 2] {
        cluster.ok(&["cordon", &id(cluster, host)]);
    }
    let restarts = "Restart=on-failure\nRestartSec=100ms";
    let path = cluster.file(
        "picky.service",
        &picky("picky", restarts, "RescheduleOnFailure=yes"),
    );
    let out = cluster.fleetctl(&["start", &path]);
    // It is a simple service, which systemd takes for started before it has failed the last time.
    assert!(
        out.code == 0 || out.stderr.contains("it stays there"),
        "{}",
        told(&out)
    );
    wait_for("systemd to give it up", SOON, || {
        match cluster.active_on(0, "picky.service").as_str() {
            "failed" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .unwrap();
    let out = cluster.fleetctl(&["start", "picky"]);
    assert!(
        out.code == 0
            || out
                .stderr
                .contains("no other machine may run it: the machine is cordoned"),
        "{}",
        told(&out)
    );
    wait_for("systemd to give it up again", SOON, || {
        match cluster.active_on(0, "picky.service").as_str() {
            "failed" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .unwrap();
    let first = attempts(cluster, "picky");
    assert!(
        first[0] >= 3,
        "systemd's own restarts come first: {first:?}"
    );
    assert_eq!(first[1..], [0, 0], "{first:?}");

    cluster.host(2).write_file("/etc/only-here", "").unwrap();
    for host in [1, 2] {
        cluster.ok(&["uncordon", &id(cluster, host)]);
    }
    // Where it fails it is active for a moment, too.
    wait_for(
        "it to run where it can, and nowhere else",
        FAILOVER,
        || match cluster.running("picky.service").as_slice() {
            [one] if one.active == "active" && one.host == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .unwrap();
    let moved = attempts(cluster, "picky");
    assert_eq!(moved[2], 1, "{moved:?}");
    assert_eq!(
        moved[0], 0,
        "it does not come back to where it failed: {moved:?}"
    );
    cluster.ok(&["destroy", "picky"]);
}
