//! The daemon is not the unit: fleetd is killed again and again, and gives way to an older one, and
//! below /run there is what the units need for as long as they are there, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_sandbox::{Host, Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, sleeper, told};

/// Kills of each fleetd, one after the other.
const KILLS: usize = 20;

/// What the kills may take: each is followed by RestartSec and a start, on a slow computer.
const ALL_KILLS: Duration = Duration::from_secs(300);

/// Kills fleetd as soon as it is back, or a moment later: it is hit in its first reading, its first
/// answers and its first jobs.
const KILL_LOOP: &str = r#"
n=0
while [ $n -lt KILLS ]; do
  old=$(systemctl show -P MainPID fleet.service)
  kill -9 "$old"
  until pid=$(systemctl show -P MainPID fleet.service) && [ "$pid" != 0 ] && [ "$pid" != "$old" ] &&
      [ "$(systemctl show -P ActiveState fleet.service)" = active ]; do sleep 0.02; done
  sleep 0.$((n % 4 * 2))
  n=$((n + 1))
done
"#;

/// Says of each start and each stop that it has happened.
const COUNTED: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/bin/sh -c 'echo start %i >>/root/done'\nExecStop=/bin/sh -c 'echo stop %i >>/root/done'\n";

/// A field that no fleetd knows yet.
const NEWER: &str = "from_a_newer_fleetd";

/// They run from the beginning to the end.
const LONG: [&str; 4] = [
    "a.service",
    "b.service",
    "everywhere.service",
    "once.service",
];

#[test]
fn kills_in_a_loop_an_older_fleetd_and_units_that_go_leave_exactly_what_runs() {
    // Time enough for a computer that others share; that the shipped times fit is another test.
    let cluster = Cluster::with(Sandbox::builder().hosts(2).fleet_conf("agent_ttl=30s"));
    let id = cluster.host(0).machine_id().unwrap();
    let here = format!("MachineID={id}");
    cluster.start("a.service", &here);
    cluster.start("b.service", "");
    cluster.start("everywhere.service", "Global=true");
    cluster.start("once.service", &format!("{here}\nExclusive=yes"));
    cluster.file("run@.service", &format!("{COUNTED}\n[X-Fleet]\n{here}\n"));
    cluster.ok(&["submit", "/units/run@.service"]);
    let before = cluster.invocations(&LONG);

    let mut here = wishes_while_fleetd_is_killed(&cluster);
    assert_eq!(cluster.invocations(&LONG), before, "after the kills");

    an_older_fleetd_follows(&cluster);
    assert_eq!(cluster.invocations(&LONG), before, "after a downgrade");

    units_go_while_fleetd_is_killed(&cluster);
    assert_eq!(cluster.invocations(&LONG), before, "after others went");

    // What is left is of units that are here, and of each all that it needs.
    here.extend(LONG.map(str::to_owned));
    here.extend(["late.service".to_owned()]);
    if before["b.service"][0].host != 0 {
        here.remove("b.service");
    }
    let host = cluster.host(0);
    for directory in ["/run/fleet/units", "/run/fleet/launched"] {
        assert_eq!(listing(&host, directory), here, "{directory}");
    }
    assert_eq!(
        listing(&host, "/run/fleet/leased"),
        BTreeSet::from(["once.service".to_owned()])
    );
    for unit in &here {
        let link = format!("/run/systemd/system/{unit}");
        let target = host.run(&["readlink", &link]).unwrap();
        assert_eq!(target.trim(), format!("/run/fleet/units/{unit}"));
    }
    let temporary =
        "find /run/fleet /run/systemd/system -name '*.fleet-tmp' -o -path '/run/fleet/*.new'";
    assert_eq!(sh(&host, temporary), "");
}

/// Starts, stops and destroys units on the first host while both fleetd are killed: each wish is
/// repeated until it is acknowledged. Gives those that are left there.
fn wishes_while_fleetd_is_killed(cluster: &Cluster) -> BTreeSet<String> {
    let killing = AtomicBool::new(true);
    let kill_loop = KILL_LOOP.replace("KILLS", &KILLS.to_string());
    let (mut left, mut expected) = (BTreeSet::new(), BTreeMap::new());
    std::thread::scope(|scope| {
        let killers: Vec<_> = cluster
            .sandbox
            .hosts()
            .into_iter()
            .map(|host| {
                let script = ["sh", "-ec", &kill_loop].map(str::to_owned);
                scope.spawn(move || host.exec_with(&script, None, ALL_KILLS).unwrap())
            })
            .collect();
        let killing = &killing;
        let wishes = scope.spawn(move || {
            let (mut left, mut expected) = (BTreeSet::new(), BTreeMap::new());
            let mut round = 0;
            // One round more when it is over: the last kill may have hit the last wish.
            let mut last = false;
            while !last {
                last = !killing.load(Ordering::Acquire);
                let [stays, stops, goes] =
                    ["stays", "stops", "goes"].map(|word| format!("run@{word}-{round}.service"));
                insist(cluster, &["start", &stays, &stops, &goes]);
                insist(cluster, &["stop", &stops]);
                insist(cluster, &["destroy", &goes]);
                for (unit, is_stopped) in [(&stays, false), (&stops, true), (&goes, true)] {
                    let instance = &unit["run@".len()..unit.len() - ".service".len()];
                    expected.insert(format!("start {instance}"), 1);
                    if is_stopped {
                        expected.insert(format!("stop {instance}"), 1);
                    }
                }
                left.extend([stays, stops]);
                round += 1;
            }
            (left, expected)
        });
        let killed: Vec<_> = killers
            .into_iter()
            .map(|killer| killer.join().unwrap())
            .collect();
        killing.store(false, Ordering::Release);
        for killed in killed {
            assert!(killed.success(), "{}", told(&killed));
        }
        (left, expected) = wishes.join().unwrap();
    });
    let done = || {
        let mut done = BTreeMap::<String, usize>::new();
        let lines = sh(&cluster.host(0), "cat /root/done");
        for line in lines.lines() {
            *done.entry(line.to_owned()).or_default() += 1;
        }
        done
    };
    assert_eq!(done(), expected, "each wish is carried out once");
    left
}

/// Repeats a wish until it is acknowledged. What was carried out and not acknowledged may be asked
/// for again, but what is destroyed is not there any more.
#[track_caller]
fn insist(cluster: &Cluster, wish: &[&str]) {
    wait_for(&format!("{wish:?} to be acknowledged"), FAILOVER, || {
        let out = cluster.fleetctl_on(1, wish);
        let is_gone = || {
            let files = cluster.fleetctl_on(1, &["list-unit-files", "--no-legend"]);
            files.success() && !files.stdout.contains(wish[1])
        };
        match out.success() || wish[0] == "destroy" && is_gone() {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
}

/// What stands in the store and below /run is made to be of a newer fleetd, and then of an older
/// one: neither says anything about the units.
fn an_older_fleetd_follows(cluster: &Cluster) {
    let hosts = cluster.sandbox.hosts();
    let kill = "systemctl kill --kill-whom=main -s KILL fleet.service; systemctl stop fleet.service fleet.socket";
    let start = "systemctl start fleet.socket fleet.service";
    cluster.start("newer.service", "");
    for host in &hosts {
        sh(host, kill);
    }
    let n_documents = add_to_documents(cluster);
    assert!(n_documents > LONG.len(), "{n_documents} documents");
    let newer = format!(
        "cd /run/fleet; for f in launched/* cluster lease; do echo '{NEWER}=yes' >>$f; done; \
         mkdir {NEWER}; echo 7 >{NEWER}/web.service"
    );
    for host in &hosts {
        sh(host, &newer);
        sh(host, start);
    }
    cluster.wait_until_complete();
    cluster.start("late.service", &format!("MachineID={}", machine(cluster)));
    cluster.ok(&["stop", "late.service"]);
    cluster.ok(&["start", "late.service"]);
    // What it writes over a newer document keeps what it does not know.
    cluster.ok(&["unload", "newer.service"]);
    let unit = documents(cluster)
        .into_iter()
        .find(|(key, _)| key.ends_with("units/newer.service"));
    let (_, unit) = unit.unwrap();
    assert!(
        unit.starts_with("{\"v\":9,") && unit.contains(NEWER),
        "{unit}"
    );
    cluster.ok(&["destroy", "newer.service"]);

    // One that did not write down for how long its lease is.
    for host in &hosts {
        sh(host, kill);
        sh(
            host,
            "sed -i /ttl_ms/d /run/fleet/lease; grep -q ^lease= /run/fleet/lease",
        );
    }
    // The same wish is numbered anew.
    let numbered = assigned(cluster, "a.service");
    delete_assignment(cluster, "a.service");
    for host in &hosts {
        sh(host, start);
    }
    cluster.wait_until_complete();
    is_adopted_by_another_number(cluster, "a.service", &numbered);
    cluster.ok(&["stop", "late.service"]);
    cluster.ok(&["start", "late.service"]);
}

/// The number of the decision by which the first host has a unit, if it is assigned there.
fn assigned(cluster: &Cluster, unit: &str) -> Option<serde_json::Value> {
    number(cluster, &format!("assignments/{}/{unit}", machine(cluster)))
}

fn number(cluster: &Cluster, key: &str) -> Option<serde_json::Value> {
    let key = format!("/_coreos.com/fleet/{key}");
    let (_, text) = documents(cluster).into_iter().find(|(k, _)| *k == key)?;
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    Some(document["at"].clone())
}

fn delete_assignment(cluster: &Cluster, unit: &str) {
    let key = format!("/_coreos.com/fleet/assignments/{}/{unit}", machine(cluster));
    let deleted = etcdctl(cluster, &["del", &key]).output().unwrap();
    assert_eq!(deleted.stdout.trim_ascii(), b"1", "{key}");
}

/// The unit is assigned anew to the machine that runs it, which has taken note of that.
#[track_caller]
fn is_adopted_by_another_number(cluster: &Cluster, unit: &str, before: &Option<serde_json::Value>) {
    assert!(before.is_some(), "{unit} is not assigned");
    let state = format!("states/{unit}/{}", machine(cluster));
    wait_for(&format!("{unit} to be adopted"), FAILOVER, || {
        let (ordered, said) = (assigned(cluster, unit), number(cluster, &state));
        match ordered.is_some() && ordered != *before && said == ordered {
            true => Ok(()),
            false => Err(format!("before {before:?}, now {ordered:?}, done {said:?}")),
        }
    })
    .unwrap();
}

fn machine(cluster: &Cluster) -> String {
    cluster.host(0).machine_id().unwrap()
}

fn etcdctl(cluster: &Cluster, args: &[&str]) -> Command {
    let servers = cluster.sandbox.etcd_servers().unwrap().join(",");
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &servers])
        .args(args);
    command
}

/// All documents, by their keys.
fn documents(cluster: &Cluster) -> Vec<(String, String)> {
    let get = ["get", "--prefix", "/_coreos.com/fleet/"];
    let output = etcdctl(cluster, &get).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks(2)
        .filter(|pair| pair.len() == 2 && pair[1].starts_with("{\"v\":"))
        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
        .collect()
}

/// Writes a higher version and a field that is not known into each document; says how many.
fn add_to_documents(cluster: &Cluster) -> usize {
    let documents = documents(cluster);
    for (key, text) in &documents {
        let text = text.replacen(
            "{\"v\":1,",
            &format!("{{\"v\":9,\"{NEWER}\":{{\"n\":[1]}},"),
            1,
        );
        let mut put = etcdctl(cluster, &["put", "--ignore-lease", key]);
        let mut put = put
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        put.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        // A lease that has ended meanwhile took its key along: only that may fail.
        let is_written = put.wait().unwrap().success();
        assert!(
            is_written || key.ends_with("leader") || key.contains("/machines/"),
            "{key}"
        );
    }
    documents.len()
}

/// Units are destroyed, unloaded and moved away while fleetd is killed; of none of them anything is
/// left where it ran.
fn units_go_while_fleetd_is_killed(cluster: &Cluster) {
    let host = cluster.host(0);
    cluster.patch(0, "home", "yes");
    let pinned = format!("MachineID={}", machine(cluster));
    cluster.start("gone-moved.service", "MachineMetadata=home=yes");
    cluster.start("gone-unloaded.service", &pinned);
    cluster.start(
        "gone-exclusive.service",
        &format!("{pinned}\nExclusive=yes"),
    );
    let installed = format!(
        "{}\n[Install]\nWantedBy=multi-user.target\n",
        sleeper(&pinned)
    );
    let installed = cluster.file("gone-installed.service", &installed);
    cluster.ok(&["start", &installed]);
    let left = || {
        let find = "find /run/fleet /run/systemd /etc/systemd -name '*gone-*' | sort; \
             systemctl list-units --all --no-legend --plain 'gone-*'";
        sh(&host, find)
    };
    assert!(left().lines().count() >= 4 * 3, "{}", left());

    cluster.patch(1, "home", "yes");
    cluster.patch(0, "home", "no");
    cluster.ok(&["unload", "--no-block", "gone-unloaded.service"]);
    cluster.ok(&[
        "destroy",
        "--no-block",
        "gone-exclusive.service",
        "gone-installed.service",
    ]);
    let kill_loop = KILL_LOOP.replace("KILLS", "3");
    let killed = host
        .exec_with(&["sh", "-ec", &kill_loop], None, ALL_KILLS)
        .unwrap();
    assert!(killed.success(), "{}", told(&killed));
    wait_for("nothing to be left of what went", FAILOVER, || {
        match left() {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        }
    })
    .unwrap();
    assert_eq!(cluster.place("gone-moved.service"), 1);
}

fn listing(host: &Host, directory: &str) -> BTreeSet<String> {
    let names = host.run(&["ls", "-A", directory]).unwrap();
    names.lines().map(str::to_owned).collect()
}

#[track_caller]
fn sh(host: &Host, script: &str) -> String {
    host.run(&["sh", "-c", script]).unwrap()
}
