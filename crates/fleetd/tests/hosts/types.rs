//! Every type of unit that systemd loads from a file goes its way on a real systemd.

use fleet_sandbox::{Host, Sandbox, wait_for};

use crate::cluster::{Cluster, SOON, sleeper, told};

/// File, contents, and what systemd says when it is started.
const UNITS: [(&str, &str, &str); 8] = [
    (
        "s.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
        "running",
    ),
    (
        "k.socket",
        "[Socket]\nListenStream=/run/k.sock\n",
        "listening",
    ),
    (
        "t.timer",
        "[Timer]\nOnActiveSec=1h\nUnit=k.service\n",
        "waiting",
    ),
    (
        "p.path",
        "[Path]\nPathExists=/never\nUnit=k.service\n",
        "waiting",
    ),
    (
        "mnt-data.mount",
        "[Mount]\nWhat=tmpfs\nWhere=/mnt/data\nType=tmpfs\n",
        "mounted",
    ),
    (
        "mnt-auto.automount",
        "[Automount]\nWhere=/mnt/auto\n",
        "waiting",
    ),
    ("q.target", "[Unit]\nDescription=q\n", "active"),
    ("z.slice", "[Unit]\nDescription=z\n", "active"),
];

/// Everything of fleet's, and of systemd's for it, on the host.
fn left(host: &Host, unit: &str) -> String {
    let files = "find /run/fleet/units /run/fleet/launched /run/systemd/system -mindepth 1";
    let loaded = format!("systemctl list-units --all --plain --no-legend {unit}");
    host.run(&["sh", "-c", &format!("{files} -name '{unit}*'; {loaded}")])
        .unwrap()
}

/// The agent forgets a unit when the cluster has, which destroy does not wait for.
fn nothing_is_left(host: &Host, unit: &str) {
    wait_for(
        &format!("nothing of {unit} to be left"),
        SOON,
        || match left(host, unit) {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        },
    )
    .unwrap();
}

#[test]
fn every_type_that_systemd_loads_goes_its_way_and_leaves_nothing() {
    let cluster = Cluster::with(Sandbox::builder().hosts(1).etcd(0));
    let host = cluster.host(0);
    cluster.file("k.service", &sleeper(""));
    cluster.file(
        "mnt-auto.mount",
        "[Mount]\nWhat=tmpfs\nWhere=/mnt/auto\nType=tmpfs\n",
    );
    cluster.ok(&["load", "/units/k.service", "/units/mnt-auto.mount"]);
    for (unit, text, sub) in UNITS {
        let path = cluster.file(unit, text);
        cluster.ok(&["submit", &path]);
        assert_eq!(left(&host, unit), "", "{unit} is submitted only");
        cluster.ok(&["start", unit]);
        let show = |property: &str| {
            let argv = ["systemctl", "show", "--value", "-p", property, unit];
            host.run(&argv).unwrap().trim().to_owned()
        };
        assert_eq!(
            (show("ActiveState").as_str(), show("SubState").as_str()),
            ("active", sub)
        );
        let rows = cluster.ok(&["list-units", "--no-legend", "--fields=unit,load,active,sub"]);
        let words = |row: &str| row.split_whitespace().collect::<Vec<_>>().join(" ");
        let row = format!("{unit} loaded active {sub}");
        assert!(
            rows.lines().any(|listed| words(listed) == row),
            "{unit}: {rows}"
        );

        cluster.ok(&["stop", unit]);
        assert_eq!(show("ActiveState"), "inactive", "{unit}");
        assert_eq!(show("LoadState"), "loaded", "{unit}");
        let files = cluster.ok(&["list-unit-files", "--no-legend", "--fields=unit,state"]);
        let row = format!("{unit} loaded");
        assert!(
            files.lines().any(|listed| words(listed) == row),
            "{unit}: {files}"
        );

        cluster.ok(&["start", unit]);
        assert_eq!(show("ActiveState"), "active", "{unit}");
        cluster.ok(&["destroy", unit]);
        nothing_is_left(&host, unit);
    }
    cluster.ok(&["destroy", "k.service", "mnt-auto.mount"]);
    for unit in ["k.service", "mnt-auto.mount"] {
        nothing_is_left(&host, unit);
    }
    assert_eq!(cluster.ok(&["list-unit-files", "--no-legend"]), "");
    assert!(
        !host
            .run(&["cat", "/proc/mounts"])
            .unwrap()
            .contains("/mnt/")
    );
}

#[test]
fn what_no_systemd_or_not_this_one_can_run_is_told_with_the_reason() {
    let cluster = Cluster::with(Sandbox::builder().hosts(1).etcd(0));
    let host = cluster.host(0);
    for (unit, text, why) in [
        // A container has no swap space, and its systemd no units of it.
        (
            "swapfile.swap",
            "[Swap]\nWhat=/swapfile\n",
            "units of this type are not supported on this machine",
        ),
        (
            "bad.service",
            "[Service]\nType=simple\n",
            "has a bad unit file setting: bad.service: Service has no ExecStart=",
        ),
        (
            "a.scope",
            "[Unit]\nDescription=a\n",
            "(use a service or a slice)",
        ),
        (
            "a.device",
            "[Unit]\nDescription=a\n",
            "(use a service that depends on the device)",
        ),
        ("a.snapshot", "[Unit]\nDescription=a\n", "(use a target)"),
        (
            "a.busname",
            "[Unit]\nDescription=a\n",
            "(use a service with BusName=)",
        ),
    ] {
        let path = cluster.file(unit, text);
        let out = cluster.fleetctl(&["start", "--block-attempts=1", &path]);
        assert_eq!(out.code, 1, "{unit}: {}", told(&out));
        assert!(out.stderr.contains(why), "{unit}: {}", told(&out));
        cluster.ok(&["destroy", unit]);
        nothing_is_left(&host, unit);
    }
}
