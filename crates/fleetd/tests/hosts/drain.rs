//! Taking a machine out of service.

use std::sync::atomic::{AtomicBool, Ordering};

use fleet_sandbox::wait_for;

use crate::cluster::{Cluster, SOON, sleeper, told};

/// Beginnings of machine ids are enough, and that is what a person types.
fn id(cluster: &Cluster, host: usize) -> String {
    cluster.host(host).machine_id().unwrap()
}

#[test]
fn a_drained_machine_gets_empty_without_a_gap_and_says_what_cannot_leave() {
    let cluster = Cluster::up(3);
    let first = id(&cluster, 0);
    // All units begin on the first host.
    for host in [1, 2] {
        cluster.ok(&["cordon", &id(&cluster, host)[..8]]);
    }
    // It takes its time to start, so that a gap would show.
    let slow = |x_fleet: &str| {
        sleeper(x_fleet).replace("ExecStart=", "ExecStartPre=/bin/sleep 1\nExecStart=")
    };
    let web = cluster.file("web.service", &slow(""));
    cluster.ok(&["start", &web]);
    cluster.start("side.service", "MachineOf=web.service");
    let once = cluster.file("once.service", &slow("Exclusive=yes"));
    cluster.ok(&["start", &once]);
    cluster.start("fixed.service", &format!("MachineID={first}"));
    cluster.start("log.service", "Global=true");
    cluster.host(0).write_file("/etc/only-here", "").unwrap();
    let picky = sleeper("").replace(
        "ExecStart=/bin/sleep infinity",
        "Type=exec\nExecStartPre=/usr/bin/test -e /etc/only-here\nExecStart=/bin/sleep infinity",
    );
    let picky = cluster.file("picky.service", &picky);
    cluster.ok(&["start", &picky]);
    for unit in [
        "web.service",
        "side.service",
        "once.service",
        "picky.service",
    ] {
        assert_eq!(cluster.place(unit), 0, "{unit}");
    }
    let stays = cluster.invocations(&["fixed.service", "picky.service"]);
    for host in [1, 2] {
        cluster.ok(&["uncordon", &id(&cluster, host)[..8]]);
    }

    let done = AtomicBool::new(false);
    let out = std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let mut n_looks = 0;
            while !done.load(Ordering::Relaxed) {
                let old = cluster.active_on(0, "web.service");
                let new = [1, 2].map(|host| cluster.active_on(host, "web.service"));
                assert!(
                    old == "active" || new.iter().any(|state| state == "active"),
                    "a gap: {old}, {new:?}"
                );
                let once = cluster.running("once.service");
                assert!(once.len() <= 1, "it runs twice: {once:?}");
                n_looks += 1;
            }
            n_looks
        });
        let out = cluster.fleetctl_on(1, &["drain", "--deadline=15s", &first[..8]]);
        done.store(true, Ordering::Relaxed);
        assert!(watched.join().unwrap() > 10, "it was hardly looked at");
        out
    });

    assert_eq!(out.code, 1, "{}", told(&out));
    for unit in ["web.service", "side.service", "once.service"] {
        let moved = format!("Unit {unit} moved to ");
        assert!(out.stdout.contains(&moved), "{unit}: {}", told(&out));
        assert_ne!(cluster.wait_for_place(unit, SOON), 0, "{unit}");
    }
    assert_eq!(cluster.place("web.service"), cluster.place("side.service"));
    for why in [
        format!("no other machine may run it: MachineID {first}"),
        "it failed there: exit-code".to_owned(),
        "Unit log.service is left on ".to_owned(),
    ] {
        assert!(out.stderr.contains(&why), "{why}: {}", told(&out));
    }
    assert_eq!(
        cluster.invocations(&["fixed.service", "picky.service"]),
        stays,
        "what cannot leave is not touched"
    );
    let listed = cluster.fleetctl(&["list-machines"]);
    let noted = format!("Draining: {first}");
    assert!(listed.stderr.contains(&noted), "{}", told(&listed));

    // Nothing is in the way any more: the global unit is the last to stop.
    cluster.ok(&["destroy", "fixed", "picky"]);
    let drained = cluster.ok(&["drain", &first[..8]]);
    assert!(drained.ends_with(" drained\n"), "{drained}");
    let units = ["systemctl", "list-units", "--no-legend", "--all"];
    let units = cluster.host(0).run(&units).unwrap();
    for unit in ["web", "side", "once", "fixed", "picky", "log"] {
        let unit = format!("{unit}.service");
        let is_left = units.split_whitespace().any(|word| word == unit);
        assert!(!is_left, "{unit} in {units}");
    }

    cluster.ok(&["uncordon", &first[..8]]);
    wait_for("the global unit to be back", SOON, || {
        match cluster.active_on(0, "log.service").as_str() {
            "active" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .unwrap();
    // Units that have left do not come back.
    assert_ne!(cluster.place("web.service"), 0);
}
