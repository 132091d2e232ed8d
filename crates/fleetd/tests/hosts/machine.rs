//! What fleet does on one machine, seen by its systemd.

use fleet_sandbox::{Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

#[test]
fn files_links_and_states_on_a_machine_are_those_of_the_original() {
    let cluster = Cluster::with(Sandbox::builder().hosts(1).etcd(0));
    let host = cluster.host(0);
    let sh = |script: &str| host.run(&["sh", "-c", script]).unwrap().trim().to_owned();
    // A fleetd whose own files nobody may read: those of units are everybody's all the same.
    let umask = "/etc/systemd/system/fleet.service.d/umask.conf";
    host.write_file(umask, "[Service]\nUMask=0077\n").unwrap();
    sh("rm -r /run/fleet/units && systemctl daemon-reload && systemctl restart fleet.service");
    cluster.wait_until_complete();
    let installed = sleeper("") + "\n[Install]\nWantedBy=multi-user.target\n";
    cluster.file("inst.service", &installed);
    cluster.file("s@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/s@.service"]);
    cluster.ok(&["start", "/units/inst.service", "s@1"]);
    cluster.ok(&["load", "s@2"]);

    assert_eq!(
        sh("stat -c '%A %U %G' /run/fleet/units/s@1.service"),
        "-rw-r--r-- root root"
    );
    assert_eq!(
        sh("stat -c '%A %U %G' /run/fleet/units"),
        "drwxr-xr-x root root"
    );
    assert_eq!(
        sh("readlink /run/systemd/system/s@1.service"),
        "/run/fleet/units/s@1.service"
    );
    let wanted = "/run/systemd/system/multi-user.target.wants/inst.service";
    assert_eq!(
        sh(&format!("readlink {wanted}")),
        "/run/fleet/units/inst.service"
    );
    assert_eq!(sh("systemctl is-enabled inst.service"), "enabled-runtime");
    // systemctl ends with 1 for a unit that is not enabled.
    assert_eq!(
        sh("systemctl is-enabled s@1.service || true"),
        "linked-runtime"
    );
    assert_eq!(
        sh("systemctl show --value -p ActiveState s@2.service"),
        "inactive"
    );

    // Finished, failed, stopped by hand: launched all the same, and not started again.
    cluster.file(
        "once.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    );
    cluster.file("bad.service", "[Service]\nExecStart=/bin/false\n");
    cluster.ok(&["start", "/units/once.service"]);
    let out = cluster.fleetctl(&["start", "/units/bad.service"]);
    assert_eq!(out.code, 1, "{}", told(&out));
    sh("systemctl stop s@1.service");
    let expect_states = |expected: &str| {
        wait_for("the states", SOON, || {
            let fields = "--fields=unit,active,sub";
            let listed = cluster.ok(&["list-units", "--no-legend", fields]);
            let words = |row: &str| row.split_whitespace().collect::<Vec<_>>().join(" ");
            let listed: Vec<String> = listed.lines().map(words).collect();
            if listed.join("\n") == expected {
                Ok(())
            } else {
                Err(listed.join("\n"))
            }
        })
        .unwrap();
    };
    expect_states(
        "bad.service failed failed\n\
         inst.service active running\n\
         once.service inactive dead\n\
         s@1.service inactive dead\n\
         s@2.service inactive dead",
    );
    let files = cluster.ok(&[
        "list-unit-files",
        "--no-legend",
        "--fields=unit,dstate,state",
    ]);
    for unit in ["bad.service", "once.service", "s@1.service", "inst.service"] {
        let row = files
            .lines()
            .find(|row| row.starts_with(unit))
            .unwrap_or("");
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, [unit, "launched", "launched"], "{files}");
    }

    // The bus is restarted; a file and a link are taken away.
    let before = cluster.invocations(&["inst.service"]);
    sh("systemctl restart dbus.service");
    cluster.start("after.service", "");
    cluster.place("after.service");
    sh("rm /run/fleet/units/inst.service");
    wait_for("the file to be put back", SOON, || {
        let there = host
            .exec(&["test", "-e", "/run/fleet/units/inst.service"])
            .unwrap();
        if there.success() {
            Ok(())
        } else {
            Err("it is not there")
        }
    })
    .unwrap();
    assert_eq!(cluster.invocations(&["inst.service"]), before);
    cluster.ok(&["destroy", "after.service", "once.service"]);

    // A unit that takes its time to stop is shown until it is gone, also when it is destroyed.
    let slow = sleeper("").replace(
        "ExecStart=/bin/sleep infinity",
        "ExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c 'until [ -e /run/gate ]; do sleep 0.1; done'",
    );
    cluster.file("slow.service", &slow);
    cluster.ok(&["start", "/units/slow.service"]);
    cluster.curl(&["-sf", "-X", "DELETE"], "units/slow.service");
    let code = ["-s", "-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(cluster.curl(&code, "units/slow.service"), "404");
    let wait_for_state = |expected: &str| {
        wait_for(&format!("a state with {expected:?}"), SOON, || {
            let state = cluster.curl(&["-s"], "state?unitName=slow.service");
            if state.contains(expected) {
                Ok(())
            } else {
                Err(state)
            }
        })
        .unwrap();
    };
    wait_for_state("\"systemdActiveState\":\"deactivating\"");
    sh("touch /run/gate");
    wait_for_state("{}");
    assert_eq!(
        sh("systemctl show --value -p LoadState slow.service"),
        "not-found"
    );

    // After a power cut what is wanted is loaded, and started.
    host.kill().unwrap();
    host.boot().unwrap();
    cluster.wait_until_complete();
    cluster.wait_for_place("inst.service", FAILOVER);
    cluster.wait_for_place("s@1.service", FAILOVER);
    expect_states(
        "bad.service failed failed\n\
         inst.service active running\n\
         s@1.service active running\n\
         s@2.service inactive dead",
    );
    assert_eq!(sh("systemctl is-enabled inst.service"), "enabled-runtime");
    assert_eq!(
        sh("systemctl is-enabled s@2.service || true"),
        "linked-runtime"
    );

    // Unloaded: neither file nor link is left.
    cluster.ok(&[
        "unload",
        "inst.service",
        "s@1.service",
        "s@2.service",
        "bad.service",
    ]);
    let left = sh("find /run/fleet/units /run/systemd/system -type f -o -type l");
    assert_eq!(left, "");
}

#[test]
fn without_systemds_private_socket_the_bus_will_do_and_may_be_restarted() {
    let cluster = Cluster::with(Sandbox::builder().hosts(1).etcd(0));
    let host = cluster.host(0);
    let sh = |script: &str| host.run(&["sh", "-c", script]).unwrap().trim().to_owned();
    sh("rm /run/systemd/private && systemctl restart fleet.service");
    cluster.wait_until_complete();
    cluster.start("a.service", "");
    let before = cluster.invocations(&["a.service"]);
    assert_eq!(cluster.place("a.service"), 0);

    // systemctl is thrown off the bus, too.
    sh("systemctl restart dbus.service 2>/dev/null || true");
    // What happens from now on is heard of over the new connection.
    cluster.start("b.service", "");
    cluster.place("b.service");
    assert_eq!(cluster.invocations(&["a.service"]), before);
    sh("systemctl stop a.service");
    wait_for("the stop to be seen", SOON, || {
        let listed = cluster.ok(&["list-units", "--no-legend", "--fields=unit,active"]);
        let row = listed.lines().find(|row| row.starts_with("a.service"));
        if row.is_some_and(|row| row.ends_with("inactive")) {
            Ok(())
        } else {
            Err(listed)
        }
    })
    .unwrap();
    cluster.ok(&["destroy", "a.service", "b.service"]);
}
