//! The Debian package, on a machine: installed, upgraded, removed and purged by dpkg there, with a
//! unit that runs through all of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet_sandbox::{Host, Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, binaries, sleeper};
use crate::farewell::with_logind;

/// The most that `systemd-analyze security` may say of fleet.service.
const MAX_EXPOSURE: f64 = 4.0;

/// What a purge must not leave behind is found by its name, here.
const FIND: &str = "find /etc /usr /var /run -xdev -name '*fleet*' | grep -v '^/run/fleet/' | sort";

/// Nobody may start services, as where images are made.
const DENY: &str =
    "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d";

/// The computer itself may be such a place.
const ALLOW: &str = "rm -f /usr/sbin/policy-rc.d";

#[test]
fn the_package_is_installed_upgraded_removed_and_purged_without_touching_a_unit() {
    let (_packages, [first, second]) = packages(["1.0.0", "1.0.1"]);
    let sandbox = Sandbox::builder().hosts(1).etcd(1).installs_packages();
    let cluster = Cluster {
        sandbox: sandbox.up().unwrap(),
    };
    let host = cluster.host(0);
    let before = names(&host);

    // Where policy-rc.d says so nothing is started; at the next boot it would be.
    sh(&host, DENY);
    install(&host, &first);
    for unit in ["fleet.socket", "fleet.service"] {
        assert_eq!(state(&host, "is-active", unit), "inactive", "{unit}");
        assert_eq!(state(&host, "is-enabled", unit), "enabled", "{unit}");
    }
    let servers = cluster.sandbox.etcd_servers().unwrap().join(",");
    let configure = format!("{ALLOW}; echo 'etcd_servers={servers}' >>/etc/fleet/fleet.conf");
    sh(&host, &configure);

    // Whoever asks the socket starts the service.
    sh(&host, "systemctl start fleet.socket");
    assert_eq!(state(&host, "is-active", "fleet.service"), "inactive");
    cluster.wait_until_complete();
    assert_eq!(state(&host, "is-active", "fleet.service"), "active");
    let socket = sh(&host, "stat -c '%a %U %G %F' /run/fleet.sock");
    assert_eq!(socket, "660 root fleet socket");
    assert_eq!(
        sh(&host, "readlink -f /var/run/fleet.sock"),
        "/run/fleet.sock"
    );
    let exposure = exposure(&host);
    assert!(exposure <= MAX_EXPOSURE, "{exposure}");

    // In its sandbox it can do all that it must.
    cluster.start("a.service", "");
    let text =
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no coffee; sleep 0.3; exit 3'\n";
    let failing = cluster.file("failing.service", text);
    let failed = cluster.fleetctl(&["start", &failing]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("no coffee"), "{}", failed.stderr);
    cluster.ok(&["destroy", "failing.service"]);
    let running = cluster.invocations(&["a.service"]);

    // An upgrade is another process with the same presence, and nothing else.
    let pid = main_pid(&host);
    let epoch = epoch(&cluster);
    let opened = sh(
        &host,
        "systemctl show -P ActiveEnterTimestampMonotonic fleet.socket",
    );
    install(&host, &second);
    cluster.wait_until_complete();
    assert_ne!(main_pid(&host), pid);
    assert_eq!(self::epoch(&cluster), epoch, "presence ended for a moment");
    let still = sh(
        &host,
        "systemctl show -P ActiveEnterTimestampMonotonic fleet.socket",
    );
    assert_eq!(still, opened);
    assert_eq!(cluster.invocations(&["a.service"]), running);
    let configured = sh(&host, "tail -n 1 /etc/fleet/fleet.conf");
    assert_eq!(configured, format!("etcd_servers={servers}"));

    // What is stopped by hand stays stopped.
    sh(&host, "systemctl stop fleet.socket fleet.service");
    install(&host, &second);
    assert_eq!(state(&host, "is-active", "fleet.service"), "inactive");
    sh(&host, "systemctl start fleet.service");
    cluster.wait_until_complete();

    // Removed: fleetd and its programs are gone, units and configuration are not.
    let said = dpkg(&host, "--remove fleet");
    assert!(
        said.contains("1 units that fleet started here go on"),
        "{said}"
    );
    assert_eq!(state(&host, "is-active", "fleet.service"), "inactive");
    assert_eq!(
        sh(
            &host,
            "ls /usr/bin/fleet* /run/fleet.sock 2>/dev/null; true"
        ),
        ""
    );
    assert_eq!(sh(&host, "ls /etc/fleet"), "fleet.conf\npki");
    assert_eq!(cluster.invocations(&["a.service"]), running);

    // Purged: nothing is left but the unit that runs.
    dpkg(&host, "--purge fleet");
    let after = names(&host);
    let left: Vec<&String> = after.difference(&before).collect();
    assert_eq!(left, ["/run/fleet"]);
    assert_eq!(
        sh(&host, "getent passwd fleet; getent group fleet; true"),
        ""
    );
    assert_eq!(sh(&host, "find /etc/systemd -lname '*fleet*'"), "");
    assert_eq!(sh(&host, "ls /run/fleet/units"), "a.service");
    assert_eq!(cluster.invocations(&["a.service"]), running);
    sh(&host, "systemctl stop a.service");
}

#[test]
fn as_the_user_fleet_units_are_managed_over_the_system_bus() {
    let (_packages, [package]) = packages(["1.0.0"]);
    let sandbox = Sandbox::builder().hosts(1).etcd(0).installs_packages();
    let cluster = Cluster {
        sandbox: sandbox.up().unwrap(),
    };
    let host = cluster.host(0);
    // polkitd's package would do this.
    let polkitd = "systemd-sysusers polkitd.conf; mkdir -p /etc/polkit-1/rules.d /usr/share/polkit-1/rules.d; \
        chown polkitd /usr/share/polkit-1/rules.d /etc/polkit-1/rules.d; systemctl reload dbus";
    sh(&host, polkitd);
    sh(&host, ALLOW);
    install(&host, &package);
    cluster.wait_until_complete();
    cluster.start("root.service", "");
    let running = cluster.invocations(&["root.service"]);

    // As fleetd(8) tells it.
    let lines = "mkdir -p /etc/systemd/system/fleet.service.d; \
        ln -s /usr/share/fleet/run-as-fleet.conf /etc/systemd/system/fleet.service.d/; \
        systemctl daemon-reload && systemctl restart fleet.service";
    sh(&host, lines);
    cluster.wait_until_complete();
    let process = format!("/proc/{}", main_pid(&host));
    assert_eq!(
        sh(&host, &format!("stat -c '%U %G' {process}")),
        "fleet fleet"
    );
    let uid = sh(&host, "id -u fleet");
    let capabilities = sh(&host, &format!("grep CapBnd {process}/status"));
    assert_eq!(capabilities, "CapBnd:\t0000000000000000");
    assert!(exposure(&host) <= MAX_EXPOSURE);

    assert_eq!(cluster.invocations(&["root.service"]), running);
    cluster.start("a.service", "");
    assert_eq!(cluster.place("a.service"), 0);
    let text = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no tea; sleep 0.3; exit 3'\n[Install]\nWantedBy=multi-user.target\n";
    let failing = cluster.file("failing.service", text);
    let failed = cluster.fleetctl(&["start", &failing]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("no tea"), "{}", failed.stderr);
    cluster.ok(&["stop", "a.service"]);
    assert_eq!(cluster.running("a.service"), []);
    cluster.ok(&["start", "a.service"]);
    // It may hold up a shutdown, so that units leave before the machine goes down.
    with_logind(&host);
    let inhibitors = sh(&host, "systemd-inhibit --list --no-legend");
    let held = inhibitors
        .lines()
        .any(|line| line.contains("fleet") && line.contains("shutdown") && line.contains(&uid));
    assert!(held, "{inhibitors}");
    // Replaced while it runs: systemd must be made to read it again.
    let changed = sleeper("").replace("Sleeper", "Changed");
    let file = cluster.file("a.service", &changed);
    cluster.ok(&["stop", "a.service"]);
    cluster.ok(&["start", "--replace", &file]);
    let description = sh(&host, "systemctl show -P Description a.service");
    assert_eq!(description, "Changed");

    // Without the rule systemd refuses, and the user is told why and what to do.
    sh(
        &host,
        "mv /usr/share/polkit-1/rules.d/50-fleet.rules /root/; systemctl restart polkit.service",
    );
    let forbidden = cluster.file("forbidden.service", &sleeper(""));
    let refused = cluster.fleetctl(&["start", &forbidden]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("50-fleet.rules"),
        "{}",
        refused.stderr
    );
    sh(
        &host,
        "mv /root/50-fleet.rules /usr/share/polkit-1/rules.d/; systemctl restart polkit.service",
    );
    cluster.ok(&["start", "forbidden.service"]);
    cluster.ok(&["destroy", "forbidden.service"]);

    // And back.
    let running = cluster.invocations(&["root.service", "a.service"]);
    let back = "rm /etc/systemd/system/fleet.service.d/run-as-fleet.conf; \
        systemctl daemon-reload && systemctl restart fleet.service";
    sh(&host, back);
    cluster.wait_until_complete();
    assert_eq!(cluster.invocations(&["root.service", "a.service"]), running);
    cluster.ok(&["destroy", "a.service", "root.service", "failing.service"]);
    assert_eq!(cluster.running("a.service"), []);
}

/// Packages of these versions, all with the same binaries; they end with the directory.
fn packages<const N: usize>(versions: [&str; N]) -> (tempfile::TempDir, [PathBuf; N]) {
    let directory = tempfile::tempdir().unwrap();
    let make = |version: &str| {
        let output = Command::new("scripts/deb.sh")
            .current_dir(repository())
            .env("BIN", binaries())
            .env("OUT", directory.path())
            .env("VERSION", version)
            // Compressing takes a minute on a busy computer.
            .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    };
    let packages = versions.map(make);
    (directory, packages)
}

pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn install(host: &Host, package: &Path) {
    host.install(package, "/root/fleet.deb").unwrap();
    dpkg(host, "--install /root/fleet.deb");
}

/// Without the triggers of the computer's other packages: manual pages are not indexed here.
#[track_caller]
fn dpkg(host: &Host, what: &str) -> String {
    sh(host, &format!("dpkg --no-triggers {what} 2>&1"))
}

#[track_caller]
fn sh(host: &Host, script: &str) -> String {
    host.run(&["sh", "-c", script]).unwrap()
}

fn names(host: &Host) -> BTreeSet<String> {
    sh(host, FIND).lines().map(str::to_owned).collect()
}

fn state(host: &Host, question: &str, unit: &str) -> String {
    let output = host.exec(&["systemctl", question, unit]).unwrap();
    output.stdout.trim_end().to_owned()
}

fn main_pid(host: &Host) -> String {
    let pid = || match sh(host, "systemctl show -P MainPID fleet.service") {
        pid if pid == "0" => Err("none".to_owned()),
        pid => Ok(pid),
    };
    wait_for("fleetd's process", SOON, pid).unwrap()
}

fn exposure(host: &Host) -> f64 {
    let said = sh(host, "systemd-analyze security --no-pager fleet.service");
    let overall = said.lines().last().unwrap_or_default();
    let number = overall
        .split_whitespace()
        .find_map(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("{overall}"))
}

/// When this machine's presence began: a lease that ended in between would make another.
pub(crate) fn epoch(cluster: &Cluster) -> String {
    let id = cluster.host(0).machine_id().unwrap();
    let key = format!("/_coreos.com/fleet/machines/{id}");
    let servers = cluster.sandbox.etcd_servers().unwrap().join(",");
    let get = || {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &servers, "get", "-w", "json", &key])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        match document["kvs"][0]["create_revision"].as_i64() {
            Some(revision) => Ok(revision.to_string()),
            None => Err(text),
        }
    };
    wait_for("the machine's presence", FAILOVER, get).unwrap()
}
