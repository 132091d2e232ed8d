//! Names that a machine has itself are refused by it, and another machine runs the unit.

use fleet_sandbox::wait_for;

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

#[test]
fn a_name_that_a_machine_has_itself_is_refused_with_the_path_and_runs_elsewhere() {
    let cluster = Cluster::up(2);
    let host = cluster.host(0);
    let id = host.machine_id().unwrap();
    let own = sleeper("");
    host.write_file("/etc/systemd/system/etc.service", &own)
        .unwrap();
    host.write_file("/run/systemd/system/run.service", &own)
        .unwrap();
    host.write_file(
        "/etc/systemd/system-generators/gen",
        "#!/bin/sh\ncp /etc/systemd/system/etc.service \"$1\"/generated.service\n",
    )
    .unwrap();
    host.run(&["chmod", "755", "/etc/systemd/system-generators/gen"])
        .unwrap();
    host.run(&["systemctl", "daemon-reload"]).unwrap();
    host.run(&["systemctl", "start", "etc", "run", "generated"])
        .unwrap();
    let transient = ["systemd-run", "--unit=transient", "/bin/sleep", "infinity"];
    host.run(&transient).unwrap();

    let units = [
        ("etc.service", "/etc/systemd/system/etc.service"),
        ("run.service", "/run/systemd/system/run.service"),
        (
            "generated.service",
            "/run/systemd/generator/generated.service",
        ),
        (
            "transient.service",
            "/run/systemd/transient/transient.service",
        ),
        (
            "debug-shell.service",
            "/lib/systemd/system/debug-shell.service",
        ),
    ];
    let names: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
    let before = cluster.invocations(&names);
    for (unit, place) in units {
        // It may run there only: refused, with the reason wherever one looks.
        let pinned = cluster.file(unit, &sleeper(&format!("MachineID={id}")));
        let out = cluster.fleetctl(&["start", "--block-attempts=1", &pinned]);
        assert_eq!(out.code, 1, "{}", told(&out));
        let why = format!("this machine has a {unit} of its own: ");
        assert!(out.stderr.contains(&why), "{}", told(&out));
        assert!(out.stderr.contains(place), "{}", told(&out));
        wait_for(&format!("v1 to say why {unit} waits"), SOON, || {
            let answer = cluster.curl(&["-si"], &format!("units/{unit}"));
            let header = answer.lines().find(|line| line.starts_with("Warning: "));
            match header {
                Some(header) if header.contains(place) => Ok(()),
                _ => Err(answer),
            }
        })
        .unwrap();
        assert!(
            !cluster
                .ok(&["list-units", "--no-legend"])
                .contains("active"),
            "what the machine runs is not shown as fleet's"
        );
        cluster.ok(&["destroy", unit]);
    }
    assert_eq!(cluster.invocations(&names), before, "nothing was touched");

    // Anywhere: the other machine has it.
    cluster.start("etc.service", "");
    let running = cluster.running("etc.service");
    assert_eq!(running.iter().map(|r| r.host).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(running[0], before["etc.service"][0], "the machine's own");
    let rows = cluster.ok(&["list-units", "--no-legend"]);
    assert!(
        rows.contains(&cluster.host(1).machine_id().unwrap()),
        "{rows}"
    );
    cluster.ok(&["destroy", "etc.service"]);
    assert_eq!(cluster.running("etc.service"), before["etc.service"]);

    // The name becomes free: noticed without being asked again.
    let pinned = cluster.file("run.service", &sleeper(&format!("MachineID={id}")));
    let out = cluster.fleetctl(&["start", "--block-attempts=1", &pinned]);
    assert_eq!(out.code, 1, "{}", told(&out));
    host.run(&["systemctl", "stop", "run.service"]).unwrap();
    host.run(&["rm", "/run/systemd/system/run.service"])
        .unwrap();
    host.run(&["systemctl", "daemon-reload"]).unwrap();
    assert_eq!(cluster.wait_for_place("run.service", FAILOVER), 0);
}
