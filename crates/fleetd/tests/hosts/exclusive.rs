//! At most one, when asked: a unit with `Exclusive=yes` never runs twice, also when its machine is
//! cut off and nobody is left there who could stop it.

use std::time::Duration;

use fleet_sandbox::{Builder, Host, Loss, Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

/// Bound of what waits for a lease to end and for a stop that takes its whole time.
const MOVED: Duration = Duration::from_secs(120);

const ONCE: &str = "once.service";
const OFTEN: &str = "often.service";

/// It does not mind being asked to stop, and has to be killed.
fn stubborn() -> String {
    let shell = "ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'";
    sleeper("Exclusive=yes").replace("ExecStart=/bin/sleep infinity", shell)
}

/// A cluster whose first host, from where it is looked at, runs no units.
fn cluster(builder: Builder) -> Cluster {
    let cluster = Cluster::with(builder);
    let id = cluster.host(0).machine_id().unwrap();
    cluster.ok(&["cordon", &id]);
    cluster
}

fn fleetd(host: &Host) -> String {
    let argv = [
        "systemctl",
        "show",
        "--value",
        "-p",
        "MainPID",
        "fleet.service",
    ];
    host.run(&argv).unwrap().trim().to_owned()
}

/// How much longer than the promised two seconds both copies may run where the computer is busy.
const BUSY: f64 = 3.0;

/// Now, in seconds of the clock that all hosts share and that systemd stamps with.
fn now(host: &Host) -> f64 {
    let uptime = host.run(&["cut", "-d", " ", "-f1", "/proc/uptime"]);
    uptime.unwrap().trim().parse().unwrap()
}

/// When systemd last said that it had stopped the unit there after `since` (see [`now`]), in
/// microseconds of the same clock. The journal's time is a little later than the act.
fn stopped_at(host: &Host, unit: &str, since: f64) -> u64 {
    wait_for("the stop to be in the journal", FAILOVER, || {
        // "Stopped …" and "… failed with result": both are said when nothing of it runs any more.
        let out = host
            .journal(&["-o", "json", "-u", unit, "--no-pager"])
            .unwrap();
        let stops = out
            .lines()
            .filter(|line| line.contains("\"MESSAGE\":\"Stopped "));
        let mut times = stops.filter_map(|line| {
            let (_, rest) = line.split_once("\"__MONOTONIC_TIMESTAMP\":\"")?;
            let time: u64 = rest.split('"').next()?.parse().ok()?;
            // An earlier stop is about another time that the unit was here.
            (Duration::from_micros(time).as_secs_f64() >= since).then_some(time)
        });
        times.next_back().ok_or_else(|| out.clone())
    })
    .unwrap()
}

fn started_at(host: &Host, unit: &str) -> u64 {
    let argv = [
        "systemctl",
        "show",
        "--value",
        "-p",
        "ExecMainStartTimestampMonotonic",
        unit,
    ];
    host.run(&argv).unwrap().trim().parse().unwrap()
}

#[test]
fn an_exclusive_unit_never_runs_twice_though_its_machine_is_cut_off_and_its_fleetd_is_dead() {
    let cluster = cluster(Sandbox::builder().hosts(3));
    let file = cluster.file(ONCE, &stubborn());
    cluster.ok(&["start", &file]);

    let killed = |host: &Host| {
        let directory = "/run/systemd/system/fleet.service.d/killed.conf";
        host.write_file(directory, "[Service]\nRestart=no\n")
            .unwrap();
        host.run(&["systemctl", "daemon-reload"]).unwrap();
        host.cut().unwrap();
        host.run(&["kill", "-KILL", &fleetd(host)]).unwrap();
    };
    let standing_still = |host: &Host| {
        host.run(&["kill", "-STOP", &fleetd(host)]).unwrap();
        host.lose(Loss::From).unwrap();
    };
    let deaf = |host: &Host| host.lose(Loss::To).unwrap();
    type Befalls<'a> = &'a dyn Fn(&Host);
    let rounds: [(&str, Befalls); 3] = [
        ("cut off, fleetd killed", &killed),
        ("mute, fleetd stopped by a signal", &standing_still),
        ("deaf, fleetd well", &deaf),
    ];
    for (what, befalls) in rounds {
        let old = cluster.wait_for_place(ONCE, FAILOVER);
        let host = cluster.host(old);
        let since = now(&host);
        befalls(&host);
        let new = wait_for(&format!("{ONCE} to run elsewhere: {what}"), MOVED, || {
            let here = [1, 2]
                .into_iter()
                .find(|other| *other != old && cluster.active_on(*other, ONCE) == "active");
            here.ok_or_else(|| cluster.ok(&["list-units"]))
        })
        .unwrap();
        let (stopped, started) = (
            stopped_at(&host, ONCE, since),
            started_at(&cluster.host(new), ONCE),
        );
        let after = |time: u64| Duration::from_micros(time).as_secs_f64() - since;
        println!(
            "{what}: stopped after {:.1} s, started elsewhere after {:.1} s",
            after(stopped),
            after(started)
        );
        assert!(
            stopped < started,
            "{what}: it was stopped at {stopped} and started elsewhere at {started}"
        );
        // All is well again, and it stays where it is.
        host.heal().unwrap();
        host.run(&["systemctl", "start", "fleet.service"]).unwrap();
        host.run(&["kill", "-CONT", &fleetd(&host)]).unwrap();
        cluster.wait_for_machines(0, 3);
        assert_eq!(cluster.wait_for_place(ONCE, SOON), new, "{what}");
    }

    // Nothing of it comes back with the power.
    let old = cluster.place(ONCE);
    cluster.host(old).kill().unwrap();
    let new = cluster.wait_for_place(ONCE, MOVED);
    assert_ne!(new, old);
    cluster.host(old).boot().unwrap();
    cluster.wait_for_machines(0, 3);
    assert_eq!(cluster.place(ONCE), new);
}

#[test]
fn an_upgrade_or_a_crash_of_fleetd_touches_no_exclusive_unit_and_an_end_of_the_store_ends_it() {
    // A busy computer starts fleetd late: the lease is longer than usual.
    let cluster = cluster(Sandbox::builder().hosts(2).fleet_conf("agent_ttl=8s"));
    let file = cluster.file(ONCE, &sleeper("Exclusive=yes"));
    cluster.ok(&["start", &file]);
    let host = cluster.host(1);
    let before = cluster.invocations(&[ONCE]);

    // An orderly stop, for longer than any lease.
    host.run(&["systemctl", "stop", "fleet.service"]).unwrap();
    let id = host.machine_id().unwrap();
    wait_for("the machine to be unsupervised", SOON, || {
        let out = cluster.fleetctl(&["list-machines"]);
        match out.stderr.contains(&format!("{id} (unsupervised)")) {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
    assert_eq!(cluster.invocations(&[ONCE]), before);
    host.run(&["systemctl", "start", "fleet.service"]).unwrap();
    cluster.wait_until_complete();
    assert_eq!(cluster.invocations(&[ONCE]), before);

    // Crashes.
    for _ in 0..3 {
        let pid = fleetd(&host);
        host.run(&["kill", "-KILL", &pid]).unwrap();
        wait_for("another fleetd", SOON, || match fleetd(&host) {
            other if other != pid && other != "0" => Ok(()),
            other => Err(other),
        })
        .unwrap();
    }
    cluster.wait_until_complete();
    assert_eq!(cluster.invocations(&[ONCE]), before);

    // Without the store nobody knows where it runs; with it, it starts again.
    host.lose(Loss::Both).unwrap();
    wait_for("it to be stopped", FAILOVER, || {
        match cluster.active_on(1, ONCE).as_str() {
            "inactive" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .unwrap();
    host.heal().unwrap();
    assert_eq!(cluster.wait_for_place(ONCE, FAILOVER), 1);
    assert_ne!(cluster.invocations(&[ONCE]), before);

    // Nothing is left of it.
    cluster.ok(&["destroy", ONCE]);
    wait_for("nothing to be left of the lease", SOON, || {
        let out = host
            .exec(&["sh", "-c", "ls -d /run/systemd/system/*lease* /run/systemd/system/once* /run/systemd/transient/*lease*"])
            .unwrap();
        match out.stdout.is_empty() {
            true => Ok(()),
            false => Err(out.stdout),
        }
    })
    .unwrap();
}

#[test]
fn an_ordinary_unit_runs_on_where_it_is_cut_off_and_one_copy_gives_way_after_the_heal() {
    let cluster = cluster(Sandbox::builder().hosts(3));
    cluster.start(OFTEN, "");
    let old = cluster.place(OFTEN);
    let host = cluster.host(old);
    host.lose(Loss::Both).unwrap();
    let new = wait_for("a second copy", FAILOVER, || {
        let running = cluster.running(OFTEN);
        let other = running
            .iter()
            .find(|running| running.host != old && running.active == "active");
        other
            .map(|running| running.host)
            .ok_or_else(|| format!("{running:?}"))
    })
    .unwrap();
    assert_eq!(cluster.running(OFTEN).len(), 2, "available on both sides");
    let kept = cluster
        .running(OFTEN)
        .into_iter()
        .find(|running| running.host == new);
    let healed = now(&host);
    host.heal().unwrap();
    assert_eq!(cluster.wait_for_place(OFTEN, FAILOVER), new);
    let stopped = Duration::from_micros(stopped_at(&host, OFTEN, healed)).as_secs_f64();
    println!("after the heal both ran for {:.2} s", stopped - healed);
    assert!(stopped - healed <= 2.0 + BUSY, "{}", stopped - healed);
    assert_eq!(
        cluster.running(OFTEN),
        [kept.unwrap()],
        "the newer decision wins, untouched"
    );
}
