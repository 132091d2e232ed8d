//! `start` means started, and says why when it is not.

use crate::cluster::{Cluster, sleeper, told};

#[test]
fn start_returns_after_the_unit_is_active_and_tells_failures() {
    let cluster = Cluster::up(3);

    // Active when it returns, wherever it went; again and again.
    for round in 0..5 {
        let unit = format!("s{round}.service");
        let path = cluster.file(&unit, &sleeper(""));
        let out = cluster.ok(&["start", &path]);
        let host = cluster.place(&unit);
        let id = cluster.host(host).machine_id().unwrap();
        assert!(
            out.contains(&format!("Unit {unit} launched on {}", &id[..8])),
            "the machine is named: {out}"
        );
    }

    // A process that fails at once: why, with its last lines, and exit 1.
    let path = cluster.file(
        "fails.service",
        "[Service]\nExecStart=/bin/sh -c 'echo the disk is on fire; exit 7'\n",
    );
    let out = cluster.fleetctl(&["start", &path]);
    assert_eq!(out.code, 1, "{}", told(&out));
    assert!(out.stderr.contains("the disk is on fire"), "{}", told(&out));
    assert!(
        out.stderr.contains("status=7") || out.stderr.contains("status 7"),
        "{}",
        told(&out)
    );

    last_words_are_waited_for(&cluster);

    // A program that does not exist.
    let path = cluster.file("missing.service", "[Service]\nExecStart=/no/such/program\n");
    let out = cluster.fleetctl(&["start", &path]);
    assert_eq!(out.code, 1, "{}", told(&out));

    // A oneshot that succeeds has started.
    let path = cluster.file(
        "once.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    );
    cluster.ok(&["start", &path]);

    // What no machine may run says which requirement refused how many, and stays wanted.
    let path = cluster.file("mars.service", &sleeper("MachineMetadata=region=mars"));
    let out = cluster.fleetctl(&["start", "--block-attempts=1", &path]);
    assert_eq!(out.code, 1, "{}", told(&out));
    assert!(out.stderr.contains("region=mars"), "{}", told(&out));
    assert!(out.stderr.contains('3'), "{}", told(&out));
    assert_eq!(cluster.running("mars.service"), []);
    let out = cluster.fleetctl(&["start", "--no-block", "mars.service"]);
    assert_eq!(out.code, 0, "{}", told(&out));

    // It starts as soon as a machine qualifies: metadata set at run time counts at once.
    let id = cluster.host(1).machine_id().unwrap();
    let body = format!(
        "[{{\"op\":\"add\",\"path\":\"/{id}/metadata/region\",\"value\":{{\"value\":\"mars\"}}}}]"
    );
    cluster
        .host(0)
        .run(&[
            "curl",
            "-sf",
            "--unix-socket",
            "/run/fleet.sock",
            "-X",
            "PATCH",
            "-d",
            &body,
            "http://fleet/fleet/v1/machines",
        ])
        .unwrap();
    assert_eq!(
        cluster.wait_for_place("mars.service", crate::cluster::SOON),
        1
    );
}

/// journald is behind until systemd has said that the unit failed: what the process wrote is told all
/// the same.
fn last_words_are_waited_for(cluster: &Cluster) {
    let host = cluster.host(0);
    let id = host.machine_id().unwrap();
    let path = cluster.file(
        "late.service",
        &format!(
            "[Service]\nExecStart=/bin/sh -c 'echo the pump is dry; exit 7'\n\
             [X-Fleet]\nMachineID={id}\n"
        ),
    );
    let journald = host
        .run(&["systemctl", "show", "-P", "MainPID", "systemd-journald"])
        .unwrap();
    let journald = journald.trim();
    host.run(&["kill", "-STOP", journald]).unwrap();
    let until_failed = format!(
        "timeout 30 sh -c 'until systemctl is-failed -q late.service; do :; done'; kill -CONT {journald}"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| host.run(&["sh", "-c", &until_failed]).unwrap());
        let out = cluster.fleetctl(&["start", &path]);
        assert_eq!(out.code, 1, "{}", told(&out));
        assert!(out.stderr.contains("the pump is dry"), "{}", told(&out));
    });
}

#[test]
fn stop_unload_and_destroy_return_when_it_is_done() {
    let cluster = Cluster::up(3);
    cluster.start("x.service", "");
    let host = cluster.place("x.service");
    let link = "/run/systemd/system/x.service";
    assert!(
        cluster
            .host(host)
            .exec(&["test", "-e", link])
            .unwrap()
            .success()
    );

    cluster.ok(&["stop", "x"]);
    assert_eq!(cluster.running("x.service"), []);
    assert!(
        cluster
            .host(host)
            .exec(&["test", "-e", link])
            .unwrap()
            .success(),
        "still loaded"
    );

    cluster.ok(&["start", "x"]);
    assert_eq!(
        cluster.place("x.service"),
        host,
        "it stays where it was loaded"
    );

    cluster.ok(&["unload", "x"]);
    assert_eq!(cluster.running("x.service"), []);
    assert!(
        !cluster
            .host(host)
            .exec(&["test", "-e", link])
            .unwrap()
            .success(),
        "unloaded"
    );

    cluster.ok(&["start", "x"]);
    cluster.ok(&["destroy", "x"]);
    assert_eq!(cluster.running("x.service"), []);
    assert_eq!(cluster.ok(&["list-unit-files", "--no-legend"]), "");
    for host in cluster.sandbox.hosts() {
        let left = host.run(&[
            "find",
            "/run/fleet/units",
            "/run/fleet/launched",
            "-type",
            "f",
        ]);
        assert_eq!(
            left.unwrap_or_default(),
            "",
            "nothing is left on {}",
            host.name()
        );
    }

    // Created anew under the same name.
    cluster.start("x.service", "");
    cluster.place("x.service");
}
