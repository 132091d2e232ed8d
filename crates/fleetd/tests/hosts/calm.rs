//! Losing machines is decided calmly.

use fleet_sandbox::{Builder, Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, sleeper, told};
use crate::daemon;

/// So many renewals of the leases that are left take longer than the end of a lease and `lost_after`:
/// time enough for what must not happen.
const RENEWALS: f64 = 40.0;

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
    let show = [
        "systemctl",
        "show",
        "--value",
        "-p",
        "MainPID",
        "fleet.service",
    ];
    for host in 0..3 {
        let pid = cluster.host(host).run(&show).unwrap();
        let argv = ["sh", "-c", pause, pid.trim()];
        cluster.host(host).run(&argv).unwrap();
    }
    cluster.wait_until_complete();
    assert_eq!(cluster.invocations(&UNITS), before);

    // Also when it is missed meanwhile, whoever it is: each of them, the leader too. There is more time,
    // since a test waits until it is told.
    for host in 0..3 {
        let conf = daemon::conf(&cluster, host);
        daemon::reload(&cluster, host, &format!("{conf}lost_after=60s\n"));
    }
    for host in 0..3 {
        let pid = cluster.host(host).run(&show).unwrap();
        let signal = |signal: &str| {
            let argv = ["kill", signal, pid.trim()];
            cluster.host(host).run(&argv).unwrap();
        };
        let missed = format!(
            "Not present: {} (suspect)",
            cluster.host(host).machine_id().unwrap()
        );
        signal("-STOP");
        wait_for("a fleetd that stands still to be missed", FAILOVER, || {
            let out = cluster.fleetctl_on((host + 1) % 3, &["list-machines"]);
            match out.stderr.contains(&missed) {
                true => Ok(()),
                false => Err(told(&out)),
            }
        })
        .unwrap();
        signal("-CONT");
        cluster.wait_until_complete();
        assert_eq!(cluster.invocations(&UNITS), before);
    }
    cluster.wait_for_renewals(RENEWALS);
    assert_eq!(cluster.invocations(&UNITS), before);
}

#[test]
fn nothing_moves_when_too_many_vanish_at_once_until_somebody_says_that_they_are_gone() {
    let cluster = cluster(4);
    let before = cluster.invocations(&UNITS);
    cut_at_once(&cluster, [2, 3]);
    wait_until_frozen(&cluster);
    cluster.wait_for_renewals(RENEWALS);
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
    for unit in UNITS {
        // Who is back in time keeps its own.
        if before[unit].iter().any(|running| running.host != 3) {
            assert_eq!(cluster.running(unit), before[unit], "{unit}");
        }
    }
    cluster.host(3).heal().unwrap();
    for unit in UNITS {
        cluster.wait_for_place(unit, FAILOVER);
    }
    cluster.wait_until_complete();

    cut_at_once(&cluster, [2, 3]);
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

/// Within a few milliseconds, although each of them waits for ip(8).
fn cut_at_once(cluster: &Cluster, hosts: [usize; 2]) {
    let cuts = hosts.map(|host| {
        let host = cluster.host(host);
        std::thread::spawn(move || host.cut().unwrap())
    });
    for cut in cuts {
        cut.join().unwrap();
    }
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

#[test]
fn units_wait_as_long_as_they_say_and_what_one_machine_alone_may_run_stays_its() {
    const VICTIM: usize = 2;
    /// What the impatient one is spared, at least, in microseconds: most of `lost_after`.
    const SPARED: u64 = 2_000_000;
    let cluster = Cluster::with(Sandbox::builder().hosts(3).fleet_conf("lost_after=5s"));
    let id = cluster.host(VICTIM).machine_id().unwrap();
    cluster.patch(VICTIM, "spot", "here");
    for (unit, x_fleet) in [
        ("fast.service", "LostAfter=100ms\nMachineMetadata=spot=here"),
        ("usual.service", "MachineMetadata=spot=here"),
        ("slow.service", "LostAfter=10min\nMachineMetadata=spot=here"),
        ("only.service", &format!("MachineID={id}")),
    ] {
        cluster.start(unit, x_fleet);
        assert_eq!(cluster.place(unit), VICTIM);
    }
    cluster.patch(1, "spot", "here");
    cluster.host(VICTIM).kill().unwrap();
    let began = ["fast.service", "usual.service"].map(|unit| {
        assert_eq!(cluster.wait_for_place(unit, FAILOVER), 1, "{unit}");
        let show = [
            "systemctl",
            "show",
            "--value",
            "-p",
            "ActiveEnterTimestampMonotonic",
        ];
        let argv = [&show[..], &[unit]].concat();
        let at: u64 = cluster.host(1).run(&argv).unwrap().trim().parse().unwrap();
        at
    });
    assert!(
        began[0] + SPARED < began[1],
        "the impatient one first: {began:?}"
    );
    cluster.host(VICTIM).boot().unwrap();
    let started = |host: usize, unit: &str| {
        let grep = format!("^Started {unit}");
        let argv = ["journalctl", "-o", "cat", "-t", "systemd", "--grep", &grep];
        cluster.host(host).exec(&argv).unwrap().stdout
    };
    assert_ne!(started(1, "fast.service"), "", "a start is found");
    for unit in ["slow.service", "only.service"] {
        assert_eq!(cluster.wait_for_place(unit, FAILOVER), VICTIM, "{unit}");
        for host in 0..2 {
            assert_eq!(started(host, unit), "", "{unit} was started on host {host}");
        }
    }
}

#[test]
fn a_replacement_that_has_not_started_is_cancelled_when_the_machine_is_back() {
    let cluster = Cluster::up(2);
    // Where the file is, it does not get ready.
    let waits = "ExecStartPre=/bin/sh -c 'while [ -e /etc/not-yet ]; do sleep 0.1; done'\n\
                 TimeoutStartSec=infinity";
    let text = sleeper("").replace("[Service]\n", &format!("[Service]\n{waits}\n"));
    let path = cluster.file("lazy.service", &text);
    cluster.ok(&["start", &path]);
    let home = cluster.place("lazy.service");
    let before = cluster.invocations(&["lazy.service"]);
    let other = 1 - home;
    cluster.host(other).write_file("/etc/not-yet", "").unwrap();
    cluster.host(home).cut().unwrap();
    wait_for(
        "the replacement to be on its way",
        FAILOVER,
        || match cluster.active_on(other, "lazy.service").as_str() {
            "activating" => Ok(()),
            state => Err(state.to_owned()),
        },
    )
    .unwrap();
    cluster.host(home).heal().unwrap();
    assert_eq!(cluster.wait_for_place("lazy.service", FAILOVER), home);
    assert_eq!(
        cluster.invocations(&["lazy.service"]),
        before,
        "the original was never touched"
    );
    cluster.wait_until_complete();
}
