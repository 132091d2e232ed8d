//! Who may do what, by the users of real machines; and what may run, whatever the store says.

use fleet_sandbox::{Output, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};
use crate::daemon::{conf, reload};

const POLICY: &str = "[Role web]\nAllow=*:read unit:start unit:stop\nUnits=web-*\n\n\
    [Grant web]\nTo=group:web\n[Grant viewer]\nTo=user:victor\n";

const ALICE: u32 = 4001;
const VICTOR: u32 = 4002;
const STRANGER: u32 = 4003;

/// fleetctl as one of the users of the first host.
fn fleetctl_as(cluster: &Cluster, uid: u32, args: &[&str]) -> Output {
    let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    let user = ["setpriv", &reuid, &regid, "--clear-groups", "fleetctl"];
    let argv = [&user, args].concat();
    cluster.host(0).exec(&argv).unwrap()
}

#[track_caller]
fn allowed(cluster: &Cluster, uid: u32, args: &[&str]) -> String {
    let out = fleetctl_as(cluster, uid, args);
    assert!(out.success(), "{uid} {args:?}: {}", told(&out));
    out.stdout
}

#[track_caller]
fn refused(cluster: &Cluster, uid: u32, args: &[&str], why: &str) {
    let out = fleetctl_as(cluster, uid, args);
    let is_told = out.stderr.contains(why) && out.stderr.contains("would allow it");
    assert!(!out.success() && is_told, "{uid} {args:?}: {}", told(&out));
}

fn append(cluster: &Cluster, path: &str, line: &str) {
    let text = cluster.host(0).read_file(path).unwrap();
    let text = String::from_utf8(text).unwrap() + line;
    cluster.host(0).write_file(path, text).unwrap();
}

#[test]
fn users_have_their_roles_and_a_tampered_store_runs_nothing() {
    let cluster = Cluster::up(2);
    cluster.start("web-1.service", "");
    cluster.start("db.service", "");
    let evil = sleeper("").replace("sleep infinity", "sleep 86400");
    let path = cluster.file("evil.service", &evil);
    cluster.ok(&["submit", &path]);
    let before = cluster.invocations(&["web-1.service", "db.service"]);

    users_have_their_roles(&cluster);
    a_tampered_store_runs_nothing(&cluster);

    assert_eq!(
        cluster.invocations(&["web-1.service", "db.service"]),
        before
    );
}

fn users_have_their_roles(cluster: &Cluster) {
    let users =
        format!("alice:x:{ALICE}:{ALICE}::/:/bin/sh\nvictor:x:{VICTOR}:{VICTOR}::/:/bin/sh\n");
    append(cluster, "/etc/passwd", &users);
    append(cluster, "/etc/group", "web:x:4100:alice\n");
    let host = cluster.host(0);
    host.run(&["chmod", "0666", "/run/fleet.sock"]).unwrap();
    // Whoever reaches the socket may do everything until somebody writes who may what.
    allowed(cluster, STRANGER, &["list-units"]);
    host.write_file("/etc/fleet/access.d/roles.conf", POLICY)
        .unwrap();
    host.run(&["systemctl", "reload", "fleet.service"]).unwrap();
    wait_for("the policy to be read", SOON, || {
        let out = fleetctl_as(cluster, STRANGER, &["list-units"]);
        match out.success() {
            true => Err(told(&out)),
            false => Ok(()),
        }
    })
    .unwrap();

    refused(
        cluster,
        STRANGER,
        &["list-units"],
        "uid 4003 may not unit:read",
    );
    let all = allowed(cluster, VICTOR, &["list-units"]);
    assert!(
        all.contains("db.service") && all.contains("web-1.service"),
        "{all}"
    );
    let some = allowed(cluster, ALICE, &["list-units"]);
    assert!(
        !some.contains("db.service") && some.contains("web-1.service"),
        "{some}"
    );
    refused(
        cluster,
        VICTOR,
        &["destroy", "db.service"],
        "uid 4002 may not unit:destroy db.service",
    );
    refused(
        cluster,
        ALICE,
        &["destroy", "web-1.service"],
        "uid 4001 may not unit:destroy",
    );
    allowed(cluster, ALICE, &["start", "--no-block", "web-1.service"]);
    // The other machine has no policy, and root here may do everything as ever.
    cluster.ok(&["list-units"]);

    let by = "F_BY=uid 4002";
    wait_for("the refusal in the journal", SOON, || {
        let found = cluster
            .host(0)
            .journal(&["-o", "cat", by, "F_VERB=unit:destroy"]);
        match found.unwrap_or_default() {
            text if text.contains("a request was denied") => Ok(()),
            text => Err(text),
        }
    })
    .unwrap();
    wait_for("the refusals among the events", FAILOVER, || {
        let events = cluster.ok(&["events", "--unit", "db.service"]);
        let is_there =
            events.contains("denied") && events.contains("uid 4002 may not unit:destroy");
        is_there.then_some(()).ok_or(events)
    })
    .unwrap();
}

fn a_tampered_store_runs_nothing(cluster: &Cluster) {
    cluster.ok(&["keygen", "/root/ops.key"]);
    let key = cluster.host(0).read_file("/root/ops.key.pub").unwrap();
    for host in 0..2 {
        let keys = "/etc/fleet/trusted-keys/ops.pub";
        cluster.host(host).write_file(keys, &key).unwrap();
        let conf = conf(cluster, host) + "\nrequire_signed_units=true\n";
        reload(cluster, host, &conf);
    }
    let path = cluster.file("signed.service", &sleeper(""));
    let unsigned = cluster.fleetctl(&["start", &path]);
    let is_told = unsigned.stderr.contains("it is not signed");
    assert!(!unsigned.success() && is_told, "{}", told(&unsigned));
    cluster.ok(&["sign", "--key", "/root/ops.key", &path]);
    cluster.ok(&["start", &path]);
    cluster.place("signed.service");
    let signed = cluster.invocations(&["signed.service"]);

    // Somebody has etcd: he wants what was handed in before signatures were demanded, and other
    // contents for what runs.
    let etcd = cluster.sandbox.etcd(0);
    let key = |unit: &str| format!("/_coreos.com/fleet/units/{unit}");
    let wish = |unit: &str| -> serde_json::Value {
        let wish = etcd.etcdctl(&["get", "--print-value-only", &key(unit)]);
        serde_json::from_str(&wish.unwrap()).unwrap()
    };
    let put = |unit: &str, wish: &serde_json::Value| {
        etcd.etcdctl(&["put", &key(unit), &wish.to_string()])
            .unwrap();
    };
    let mut evil = wish("evil.service");
    evil["desired"] = "launched".into();
    put("evil.service", &evil);
    let mut tampered = wish("signed.service");
    for field in ["text", "hash"] {
        tampered[field] = evil[field].clone();
    }
    put("signed.service", &tampered);
    for unit in ["evil.service", "signed.service"] {
        wait_for(&format!("{unit} to be refused aloud"), FAILOVER, || {
            let why = cluster.ok(&["why", unit]);
            why.contains("require_signed_units")
                .then_some(())
                .ok_or(why)
        })
        .unwrap();
    }
    assert_eq!(cluster.running("evil.service"), []);
    assert_eq!(cluster.invocations(&["signed.service"]), signed);
    // What root stops is stopped, signed or not.
    cluster.ok(&["destroy", "evil.service", "signed.service"]);
    assert_eq!(cluster.running("signed.service"), []);
}
