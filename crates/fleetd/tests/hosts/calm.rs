//! Losing machines is decided calmly.

use fleet_sandbox::{Builder, Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, sleeper, told};

const UNITS: [&str; 4] = ["u@1.service", "u@2.service", "u@3.service", "u@4.service"];

fn cluster(n_hosts: usize) -> Cluster {
    with(Sandbox::builder().hosts(n_hosts))
}

fn with(builder: Builder) -> Cluster {
    let cluster = Cluster::with(builder);
    cluster.file("u@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/u@.service"]);
    cluster.ok(&["start", "u@1", "u@2", "u@3", "u@4"]);
    cluster
}

#[test]
fn a_fleetd_that_stands_still_for_less_than_the_time_to_lost_loses_nothing() {
    let cluster = cluster(3);
    let before = cluster.invocations(&UNITS);
    let pause = "kill -STOP $0; sleep 1.5; kill -CONT $0";
    for host in 0..3 {
        let show = [
            "systemctl",
            "show",
            "--value",
            "-p",
            "MainPID",
            "fleet.service",
        ];
        let pid = cluster.host(host).run(&show).unwrap();
        let argv = ["sh", "-c", pause, pid.trim()];
        cluster.host(host).run(&argv).unwrap();
    }
    cluster.wait_until_complete();
    assert_eq!(cluster.invocations(&UNITS), before);
}

#[test]
fn nothing_moves_when_too_many_vanish_at_once_until_somebody_says_that_they_are_gone() {
    // The leases of machines that are cut off at once end as far apart as their last renewals,
    // and on a busy computer farther than the second after which a machine is lost by default.
    let cluster = with(Sandbox::builder().hosts(4).fleet_conf("lost_after=4s"));
    let before = cluster.invocations(&UNITS);
    for host in [2, 3] {
        cluster.host(host).cut().unwrap();
    }
    wait_until_frozen(&cluster);
    assert_eq!(cluster.invocations(&UNITS), before);
    // One is back: the other one is lost alone, as any machine may be.
    cluster.host(2).heal().unwrap();
    let elsewhere = |gone: &[usize]| {
        let here: Vec<usize> = (0..4).filter(|host| !gone.contains(host)).collect();
        wait_for(
            "every unit to run on a machine that is there",
            FAILOVER,
            || {
                let missing: Vec<&str> = UNITS
                    .into_iter()
                    .filter(|unit| {
                        here.iter()
                            .all(|host| cluster.active_on(*host, unit) != "active")
                    })
                    .collect();
                match missing.is_empty() {
                    true => Ok(()),
                    false => Err(format!("{missing:?}")),
                }
            },
        )
        .unwrap();
    };
    elsewhere(&[3]);
    cluster.host(3).heal().unwrap();
    for unit in UNITS {
        cluster.wait_for_place(unit, FAILOVER);
    }
    cluster.wait_until_complete();

    for host in [2, 3] {
        cluster.host(host).cut().unwrap();
    }
    wait_until_frozen(&cluster);
    let thawed = cluster.ok(&["thaw"]);
    // The other one's time may not be over yet; it is lost alone then.
    assert!(!thawed.is_empty());
    assert!(
        thawed.lines().all(|line| line.ends_with(" given up")),
        "{thawed}"
    );
    elsewhere(&[2, 3]);
}

fn wait_until_frozen(cluster: &Cluster) {
    wait_for("list-machines to say that it is frozen", FAILOVER, || {
        let out = cluster.fleetctl(&["list-machines"]);
        match out.stderr.contains("too many machines vanished at once")
            && out.stderr.contains("fleetctl thaw")
        {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
}
