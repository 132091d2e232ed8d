//! An end that is meant: fleetd is stopped in order, or the machine itself goes down.

use std::time::Duration;

use fleet_sandbox::{Host, Sandbox, wait_for};
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

/// Gives a host its logind, which sandboxes do without, and waits until fleetd holds up shutdowns.
pub(crate) fn with_logind(host: &Host) {
    let masks = [
        "/etc/systemd/system/systemd-logind.service",
        "/etc/systemd/system/dbus-org.freedesktop.login1.service",
    ];
    host.run(&["rm", masks[0], masks[1]]).unwrap();
    host.run(&["systemctl", "daemon-reload"]).unwrap();
    host.run(&["systemctl", "start", "systemd-logind.service"])
        .unwrap();
    // It looks for a logind when it starts, and then only now and then.
    host.run(&["systemctl", "restart", "fleet.service"])
        .unwrap();
    wait_for("fleetd to hold up shutdowns", SOON, || {
        let out = host.exec(&["systemd-inhibit", "--list", "--no-legend"]);
        match out.unwrap() {
            out if out.stdout.contains("fleet") && out.stdout.contains("delay") => Ok(()),
            out => Err(told(&out)),
        }
    })
    .unwrap();
}

/// When systemd last said this of a unit, in microseconds; by its journal, which outlives the host.
fn said_at(cluster: &Cluster, host: usize, unit: &str, message: &str) -> u64 {
    let id = format!("MESSAGE_ID={message}");
    let of = format!("UNIT={unit}");
    let lines = cluster
        .host(host)
        .journal(&["-o", "json", "--output-fields=UNIT", &id, &of])
        .unwrap();
    let last = lines.lines().last().unwrap_or_default();
    let time = last
        .split("\"__REALTIME_TIMESTAMP\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    time.and_then(|time| time.parse().ok())
        .unwrap_or_else(|| panic!("{unit} on {host}: {message} in {lines:?}"))
}

const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";

#[test]
fn units_move_before_a_machine_goes_down_that_logind_shuts_down() {
    let cluster = Cluster::up(3);
    let ids: Vec<String> = (0..3)
        .map(|host| cluster.host(host).machine_id().unwrap())
        .collect();
    with_logind(&cluster.host(2));
    for id in &ids[..2] {
        cluster.ok(&["cordon", id]);
    }
    // It takes its time to start, so that a gap would show.
    let slow = |x_fleet: &str| {
        sleeper(x_fleet).replace("ExecStart=", "ExecStartPre=/bin/sleep 0.5\nExecStart=")
    };
    for (unit, x_fleet) in [
        ("web.service", ""),
        ("side.service", "MachineOf=web.service"),
        ("once.service", "Exclusive=yes"),
    ] {
        let path = cluster.file(unit, &slow(x_fleet));
        cluster.ok(&["start", &path]);
        assert_eq!(cluster.place(unit), 2, "{unit}");
    }
    // Neither of them can leave, and neither holds anything up.
    cluster.start("fixed.service", &format!("MachineID={}", ids[2]));
    cluster.start("log.service", "Global=true");
    for id in &ids[..2] {
        cluster.ok(&["uncordon", id]);
    }

    let host = cluster.host(2);
    let asked = Instant::now();
    // The command itself may be cut off by what it begins.
    let _ = host.exec(&["systemctl", "poweroff"]);
    wait_for("the machine to be off", FAILOVER, || {
        match host.is_on().unwrap() {
            false => Ok(()),
            true => Err("it is on".to_owned()),
        }
    })
    .unwrap();
    println!("the machine was off {:?} after poweroff", asked.elapsed());
    for unit in ["web.service", "side.service", "once.service"] {
        let there = cluster.wait_for_place(unit, SOON);
        let started = said_at(&cluster, there, unit, STARTED);
        if unit == "once.service" {
            let stopped = said_at(&cluster, 2, unit, STOPPED);
            println!(
                "{unit}: started {} ms after it had stopped",
                (started - stopped) / 1000
            );
            assert!(stopped < started, "{unit} has run twice");
        } else {
            let stops = said_at(&cluster, 2, unit, STOPPING);
            println!(
                "{unit}: stopped {} ms after it had started",
                (stops - started) / 1000
            );
            assert!(
                started < stops,
                "{unit} was stopped before it ran elsewhere"
            );
        }
    }
    assert_eq!(cluster.place("web.service"), cluster.place("side.service"));
}
