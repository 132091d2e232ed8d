//! An end that is meant: fleetd is stopped in order, or the machine itself goes down.

use std::time::Duration;

use fleet_sandbox::{Sandbox, wait_for};
use tokio::time::Instant;

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

/// Long enough to see that nothing moves, short enough to wait for.
const GRACE: Duration = Duration::from_secs(20);

fn cluster() -> Cluster {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(3)
            .fleet_conf("unsupervised_grace=20s"),
    );
    cluster.file("u@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/u@.service"]);
    cluster.ok(&["start", "u@1", "u@2", "u@3"]);
    cluster
}

/// The unit that runs on a host.
fn unit_on(cluster: &Cluster, host: usize) -> &'static str {
    ["u@1.service", "u@2.service", "u@3.service"]
        .into_iter()
        .find(|unit| cluster.place(unit) == host)
        .unwrap()
}

#[test]
fn an_orderly_stop_of_fleetd_keeps_its_units_for_the_grace_and_no_longer() {
    let cluster = cluster();
    let unit = unit_on(&cluster, 2);
    let before = cluster.invocations(&["u@1.service", "u@2.service", "u@3.service"]);
    let host = cluster.host(2);
    host.run(&["systemctl", "stop", "fleet.service"]).unwrap();
    let stopped = Instant::now();
    let id = host.machine_id().unwrap();
    wait_for("the machine to be shown as unsupervised", SOON, || {
        let out = cluster.fleetctl(&["list-machines"]);
        match out
            .stderr
            .contains(&format!("Not present: {id} (unsupervised)"))
        {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
    // It runs where it was, until the grace is over, and then elsewhere as well.
    let moved = wait_for("the unit to run elsewhere", FAILOVER, || {
        let running = cluster.running(unit);
        match running
            .iter()
            .any(|running| running.host != 2 && running.active == "active")
        {
            true => Ok(stopped.elapsed()),
            false => Err(format!("{running:?}")),
        }
    })
    .unwrap();
    println!("after an orderly stop of fleetd the unit was active elsewhere after {moved:?}");
    assert!(moved >= GRACE, "it moved after {moved:?}");
    let there = |running: &crate::cluster::Running| running.host == 2;
    let now = cluster.invocations(&[unit]);
    assert!(
        now[unit]
            .iter()
            .any(|running| before[unit].contains(running)),
        "without fleetd nothing stops it: {now:?}"
    );
    // Who comes back gives up what has moved, and nothing else.
    host.run(&["systemctl", "start", "fleet.service"]).unwrap();
    wait_for("one copy to be left", SOON, || {
        let running = cluster.running(unit);
        match running.len() == 1 && !running.iter().any(there) {
            true => Ok(()),
            false => Err(format!("{running:?}")),
        }
    })
    .unwrap();
    for other in before.keys().filter(|other| *other != unit) {
        assert_eq!(cluster.running(other), before[other], "{other}");
    }
}

#[test]
fn units_of_a_machine_that_is_shut_down_run_elsewhere_at_once() {
    let cluster = cluster();
    let unit = unit_on(&cluster, 2);
    let others: Vec<&str> = ["u@1.service", "u@2.service", "u@3.service"]
        .into_iter()
        .filter(|other| *other != unit)
        .collect();
    let before = cluster.invocations(&others);
    let host = cluster.host(2);
    let id = host.machine_id().unwrap();
    let asked = Instant::now();
    // The command itself may be cut off by what it begins.
    let _ = host.exec(&["systemctl", "poweroff", "--no-block"]);
    let moved = wait_for("the unit to run elsewhere", SOON, || {
        let places: Vec<String> = [0, 1].map(|host| cluster.active_on(host, unit)).to_vec();
        match places.iter().any(|state| state == "active") {
            true => Ok(asked.elapsed()),
            false => Err(format!("{places:?}")),
        }
    })
    .unwrap();
    println!("after poweroff the unit was active elsewhere after {moved:?}");
    wait_for("the machine to be shown as lost", FAILOVER, || {
        let out = cluster.fleetctl(&["list-machines", "-o", "json"]);
        match out.stdout.contains("it was shut down") && out.stdout.contains(&id) {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
    assert_eq!(cluster.invocations(&others), before);
}
