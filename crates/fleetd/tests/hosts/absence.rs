//! Absence is not a command: whatever becomes of the store, nothing that runs fine is stopped, the
//! trouble is named, and everything else goes on.

use std::path::PathBuf;

use fleet_sandbox::{Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};
use crate::kept::Way;

/// Below which fleet's keys are.
const PREFIX: &str = "/_coreos.com/fleet/";

const HELD: &str = "the store is not the one that this machine's units came from";

/// The key of a unit's assignment, by the place where it runs.
fn assignment(cluster: &Cluster, unit: &str) -> String {
    let host = cluster.place(unit);
    let id = cluster.host(host).machine_id().unwrap();
    format!("assignments/{id}/{unit}")
}

fn etcdctl(cluster: &Cluster, args: &[&str]) -> String {
    cluster.sandbox.etcd(0).etcdctl(args).unwrap()
}

fn value(cluster: &Cluster, key: &str) -> String {
    let key = format!("{PREFIX}{key}");
    etcdctl(cluster, &["get", "--print-value-only", &key])
}

/// How many lines with all these words fleetd has logged, on all hosts.
fn n_said(cluster: &Cluster, words: &[&str]) -> usize {
    let hosts = 0..cluster.sandbox.hosts().len();
    hosts.map(|host| cluster.n_said(host, words)).sum()
}

/// Waits until some host's journal has a line with all these words, beyond the first `seen` ones.
#[track_caller]
fn wait_until_said(cluster: &Cluster, words: &[&str], seen: usize) {
    wait_for(&format!("a line with {words:?}"), FAILOVER, || {
        match n_said(cluster, words) > seen {
            true => Ok(()),
            false => Err(format!("{seen} as before")),
        }
    })
    .unwrap();
}

/// A new unit is started, stopped and destroyed.
#[track_caller]
fn others_go_on(cluster: &Cluster, name: &str) {
    let unit = format!("{name}.service");
    let path = cluster.file(&unit, &sleeper(""));
    // The API answers 503 until its store is back.
    wait_for(&format!("{unit} to start"), FAILOVER, || {
        let out = cluster.fleetctl(&["start", &path]);
        match out.success() {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
    cluster.place(&unit);
    cluster.ok(&["stop", &unit]);
    cluster.ok(&["destroy", &unit]);
    assert_eq!(cluster.running(&unit), []);
}

fn holding(cluster: &Cluster) -> Vec<f64> {
    (0..cluster.sandbox.hosts().len())
        .map(|host| cluster.metric(host, "fleet_agent_holding"))
        .collect()
}

#[track_caller]
fn wait_until_holding(cluster: &Cluster, wanted: f64) {
    wait_for(
        &format!("fleet_agent_holding to be {wanted}"),
        FAILOVER,
        || {
            let found = holding(cluster);
            match found.iter().all(|found| *found == wanted) {
                true => Ok(()),
                false => Err(format!("{found:?}")),
            }
        },
    )
    .unwrap();
}

/// An empty store, then the right one again, then an older copy that is believed in the end, then
/// an empty one that is believed.
#[test]
fn a_store_that_is_empty_or_older_stops_nothing_until_it_is_believed() {
    const UNITS: [&str; 4] = [
        "a.service",
        "b.service",
        "late.service",
        "everywhere.service",
    ];
    let cluster = Cluster::up(2);
    let etcd = cluster.sandbox.etcd(0);
    let data = etcd.record().unwrap().data;
    let beside = |name: &str| PathBuf::from(format!("{}.{name}", data.display()));
    cluster.start("a.service", "");
    cluster.start("everywhere.service", "Global=true");
    // In the copy it is only loaded.
    let path = cluster.file("b.service", &sleeper(""));
    cluster.ok(&["load", &path]);
    let copy = beside("copy");
    cluster.sandbox.save_etcd(&copy).unwrap();
    cluster.ok(&["start", "b.service"]);
    // In the copy it is not at all.
    cluster.start("late.service", "");
    let before = cluster.invocations(&UNITS);
    let home = cluster.place("a.service");
    let id = cluster.host(home).machine_id().unwrap();

    // Wiped.
    etcd.kill().unwrap();
    std::fs::rename(&data, beside("right")).unwrap();
    etcd.start().unwrap();
    wait_until_said(&cluster, &[HELD, "accept-store"], 0);
    wait_until_holding(&cluster, 1.0);
    let listed = cluster.fleetctl(&["list-machines"]);
    assert!(
        listed.stderr.contains("fleetctl accept-store"),
        "{}",
        told(&listed)
    );
    // Somebody there has a unit of the same name, wanted on the machine where ours runs.
    let other = format!(
        "{}\n[X-Fleet]\nMachineID={id}\n",
        sleeper("").replace("Sleeper", "Other")
    );
    let path = cluster.file("a.service", &other);
    cluster.ok(&["start", "--no-block", &path]);
    others_go_on(&cluster, "in-an-empty-store");
    wait_until_said(&cluster, &["a.service", "the store may not be the one"], 0);
    assert_eq!(cluster.invocations(&UNITS), before);

    // The right one.
    etcd.kill().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(beside("right"), &data).unwrap();
    etcd.start().unwrap();
    wait_until_holding(&cluster, 0.0);
    others_go_on(&cluster, "in-the-right-store");
    assert_eq!(cluster.invocations(&UNITS), before);

    // An older copy: what it says of b is older than what was done since.
    cluster.sandbox.restore_etcd(&copy).unwrap();
    wait_until_holding(&cluster, 1.0);
    others_go_on(&cluster, "in-an-older-store");
    assert_eq!(cluster.invocations(&UNITS), before);
    // What a user asks for there counts.
    cluster.ok(&["stop", "a.service"]);
    assert_eq!(cluster.running("a.service"), []);
    cluster.ok(&["accept-store"]);
    wait_until_holding(&cluster, 0.0);
    // Its orders count from now on, although they are older than what was done since; what it does
    // not know is not touched.
    wait_for("b.service to be only loaded", SOON, || {
        match cluster.running("b.service").is_empty() {
            true => Ok(()),
            false => Err("it runs".to_owned()),
        }
    })
    .unwrap();
    others_go_on(&cluster, "in-a-believed-store");
    let kept = ["late.service", "everywhere.service"];
    let untouched = |cluster: &Cluster| {
        let now = cluster.invocations(&kept);
        assert!(
            now.iter().all(|(unit, now)| before[unit] == *now),
            "{now:?}"
        );
    };
    untouched(&cluster);

    // An empty one that is believed: units that are handed in anew are taken over as they run.
    etcdctl(&cluster, &["del", "--prefix", PREFIX]);
    wait_until_holding(&cluster, 1.0);
    untouched(&cluster);
    cluster.ok(&["accept-store"]);
    wait_until_holding(&cluster, 0.0);
    others_go_on(&cluster, "in-an-empty-believed-store");
    untouched(&cluster);
    cluster.ok(&["start", "/units/everywhere.service"]);
    untouched(&cluster);
}

/// A machine is cut off while an older copy takes the store's place and comes further than the machine
/// had seen the right one: it is no right one to the machine all the same.
#[test]
fn an_older_copy_that_has_been_written_on_is_known_by_a_machine_that_was_away() {
    let cluster = Cluster::up(2);
    let etcd = cluster.sandbox.etcd(0);
    let data = etcd.record().unwrap().data;
    let copy = PathBuf::from(format!("{}.copy", data.display()));
    let away = cluster.host(1);
    let there = format!("MachineID={}", away.machine_id().unwrap());
    cluster.start("a.service", &there);
    let path = cluster.file("b.service", &sleeper(&there));
    cluster.ok(&["load", &path]);
    cluster.sandbox.save_etcd(&copy).unwrap();
    cluster.ok(&["start", "b.service"]);
    let before = cluster.invocations(&["a.service", "b.service"]);

    away.cut().unwrap();
    let known = etcd.revision().unwrap();
    cluster.sandbox.restore_etcd(&copy).unwrap();
    while etcd.revision().unwrap() <= known {
        etcdctl(&cluster, &["put", "somebody-else", ""]);
    }
    others_go_on(&cluster, "in-an-older-store");
    cluster.ok(&["unload", "--no-block", "b.service"]);
    away.heal().unwrap();
    wait_for("the machine to doubt the store", FAILOVER, || match cluster
        .metric(1, "fleet_agent_holding")
    {
        1.0 => Ok(()),
        other => Err(format!("fleet_agent_holding {other}")),
    })
    .unwrap();
    wait_until_said(&cluster, &["b.service", "the store may not be the one"], 0);
    let listed = cluster.fleetctl(&["list-machines"]);
    assert!(
        listed.stderr.contains("fleetctl accept-store"),
        "{}",
        told(&listed)
    );
    assert_eq!(cluster.invocations(&["a.service", "b.service"]), before);

    cluster.ok(&["accept-store"]);
    wait_until_holding(&cluster, 0.0);
    wait_for("b.service to stop", SOON, || {
        match cluster.running("b.service").is_empty() {
            true => Ok(()),
            false => Err("it runs".to_owned()),
        }
    })
    .unwrap();
    let kept = cluster.invocations(&["a.service"]);
    assert_eq!(kept["a.service"], before["a.service"]);
}

/// Keys that vanish and documents that cannot be read, of every kind, one after the other.
#[test]
fn a_key_that_vanishes_or_cannot_be_read_freezes_only_what_it_is_about() {
    const UNITS: [&str; 6] = [
        "u@1.service",
        "u@2.service",
        "u@3.service",
        "u@4.service",
        "u@5.service",
        "everywhere.service",
    ];
    let cluster = Cluster::up(2);
    cluster.file("u@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/u@.service"]);
    cluster.ok(&["start", "u@1", "u@2", "u@3", "u@4", "u@5"]);
    cluster.start("everywhere.service", "Global=true");
    let before = cluster.invocations(&UNITS);
    let id = cluster.host(1).machine_id().unwrap();
    let name = value(&cluster, "cluster");

    let assigned = assignment(&cluster, "u@1.service");
    let (machine, member) = (format!("machines/{id}"), format!("members/{id}"));
    for (round, key) in [
        "units/u@2.service",
        &assigned,
        "placements/u@3.service",
        "states/u@4.service/",
        &machine,
        &member,
        "cluster",
        "leader",
    ]
    .into_iter()
    .enumerate()
    {
        etcdctl(&cluster, &["del", "--prefix", &format!("{PREFIX}{key}")]);
        if key.starts_with("units/") || key == "cluster" {
            wait_until_said(&cluster, &[key, "vanished"], 0);
        }
        others_go_on(&cluster, &format!("vanished-{round}"));
        assert_eq!(cluster.invocations(&UNITS), before, "{key}");
    }
    assert_eq!(value(&cluster, "cluster"), name, "its name is put back");
    cluster.wait_until_complete();
    // What has vanished is handed in anew, and goes on as it runs.
    cluster.ok(&["start", "u@2", "u@1"]);
    assert_eq!(cluster.invocations(&UNITS), before);
    wait_until_holding(&cluster, 0.0);

    let assigned = assignment(&cluster, "u@1.service");
    let state = |unit: &str| {
        format!(
            "states/{unit}/{}",
            cluster.host(cluster.place(unit)).machine_id().unwrap()
        )
    };
    let wish = format!("machine-wishes/{id}");
    let keys = [
        "units/u@2.service",
        &assigned,
        "placements/u@3.service",
        &state("u@4.service"),
        &machine,
        &member,
        &wish,
        "cluster",
        "leader",
    ];
    for (round, key) in keys.into_iter().enumerate() {
        let full = format!("{PREFIX}{key}");
        let right = value(&cluster, key);
        let damages = [
            r#"{"v":1,"desired":"laun"#,
            "\u{1}\u{2} no document",
            r#"{"v":99,"desired":7,"at":"x","status":1,"boot":2,"id":3,"machine":4,"is":5,"cordon":6,"order":8}"#,
        ];
        etcdctl(
            &cluster,
            &["put", "--", &full, damages[round % damages.len()]],
        );
        wait_until_said(&cluster, &[key, "damaged"], 0);
        others_go_on(&cluster, &format!("damaged-{round}"));
        assert_eq!(cluster.invocations(&UNITS), before, "{key}");
        if key.starts_with("units/") {
            let listed = cluster.ok(&["list-unit-files"]);
            assert!(listed.contains("u@3.service"), "{listed}");
            let answer = cluster.curl(&["-si"], "units").to_ascii_lowercase();
            assert!(
                answer.contains("warning:") && answer.contains(key),
                "{answer}"
            );
        }
        // Whoever leads keeps these right by themselves.
        if ![&*machine, "cluster", "leader"].contains(&key) {
            // The same with a leader that comes upon it.
            etcdctl(&cluster, &["del", &format!("{PREFIX}leader")]);
            others_go_on(&cluster, &format!("damaged-later-{round}"));
            assert_eq!(cluster.invocations(&UNITS), before, "{key}");
            match right.trim_end() {
                "" => etcdctl(&cluster, &["del", &full]),
                right => etcdctl(&cluster, &["put", "--", &full, right]),
            };
        }
    }
    cluster.wait_until_complete();
    assert_eq!(value(&cluster, "cluster"), name);
    wait_until_holding(&cluster, 0.0);
    cluster.ok(&["start", "u@1", "u@2", "u@3", "u@4", "u@5"]);
    assert_eq!(cluster.invocations(&UNITS), before);
    cluster.ok(&["stop", "u@1", "u@2", "u@3", "u@4"]);
    for unit in &UNITS[..4] {
        assert_eq!(cluster.running(unit), [], "{unit}");
    }
}

/// fleetd was not there while the history that it would have read was forgotten.
#[test]
fn a_history_that_was_compacted_is_read_anew() {
    // It stands still for as long as it takes on a busy computer, and is not given up.
    let conf = "agent_ttl=60s";
    let cluster = Cluster::with(Sandbox::builder().hosts(2).fleet_conf(conf));
    cluster.file("u@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/u@.service"]);
    cluster.ok(&["start", "u@1", "u@2", "u@3", "u@4"]);
    let away = 1;
    let units = ["u@1.service", "u@2.service", "u@3.service", "u@4.service"];
    let (there, here): (Vec<&str>, Vec<&str>) = units
        .into_iter()
        .partition(|unit| cluster.place(unit) == away);
    let before = cluster.invocations(&units);
    let signal = |signal: &str| {
        let argv = [
            "systemctl",
            "kill",
            "--kill-whom=main",
            "-s",
            signal,
            "fleet.service",
        ];
        cluster.host(away).run(&argv).unwrap();
    };
    signal("STOP");
    cluster.ok(&["stop", "--no-block", there[0], here[0]]);
    let etcd = cluster.sandbox.etcd(0);
    etcd.kill().unwrap();
    etcd.start().unwrap();
    others_go_on_here(&cluster, "meanwhile", 0);
    let revision = etcd.revision().unwrap().to_string();
    etcdctl(&cluster, &["compact", &revision]);
    signal("CONT");
    for unit in [there[0], here[0]] {
        wait_for(&format!("{unit} to be stopped"), FAILOVER, || match cluster
            .running(unit)
            .as_slice()
        {
            [] => Ok(()),
            some => Err(format!("{some:?}")),
        })
        .unwrap();
    }
    let now = cluster.invocations(&[there[1], here[1]]);
    assert!(
        now.iter().all(|(unit, now)| before[unit] == *now),
        "{now:?}"
    );
    others_go_on_here(&cluster, "afterwards", away);
}

/// As [`others_go_on`], on one machine.
#[track_caller]
fn others_go_on_here(cluster: &Cluster, name: &str, host: usize) {
    let id = cluster.host(host).machine_id().unwrap();
    let unit = format!("{name}.service");
    let path = cluster.file(&unit, &sleeper(&format!("MachineID={id}")));
    wait_for(&format!("{unit} to start"), FAILOVER, || {
        let out = cluster.fleetctl(&["start", &path]);
        match out.success() {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
    assert_eq!(cluster.place(&unit), host);
}

/// A proxy in front of an etcd that is away: plain HTTP, HTTP/2, or nothing but resets.
#[test]
fn a_proxy_that_answers_503_in_the_place_of_etcd_is_named_and_stops_nothing() {
    const PLAIN: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nConnection: close\r\n\r\nbusy\n";
    // SETTINGS and their acknowledgement, then HEADERS of stream 1: `:status: 503`, and its end.
    const HTTP2: &[u8] = &[
        0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 5, 1, 5, 0, 0, 0, 1, 0x48,
        0x03, b'5', b'0', b'3',
    ];
    const UNITS: [&str; 3] = ["u@1.service", "u@2.service", "everywhere.service"];
    let cluster = Cluster::up(2);
    cluster.file("u@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/u@.service"]);
    cluster.ok(&["start", "u@1", "u@2"]);
    cluster.start("everywhere.service", "Global=true");
    let way = Way::of(&cluster);
    let before = cluster.invocations(&UNITS);
    let etcd = cluster.sandbox.etcd(0);
    let address = way.address;
    for (round, pose) in [Some(PLAIN), Some(HTTP2), None].into_iter().enumerate() {
        let address_said = address.to_string();
        let is_away = ["the store is away", &address_said];
        let seen = n_said(&cluster, &is_away);
        *way.poses.lock().unwrap() = Some(pose);
        etcd.kill().unwrap();
        wait_for("the API to name it", SOON, || {
            let answer = cluster
                .host(0)
                .exec(&[
                    "curl",
                    "-s",
                    "-i",
                    "--unix-socket",
                    "/run/fleet.sock",
                    "http://fleet/fleet/v2/units",
                ])
                .map_err(|error| error.to_string())?;
            let words = ["503", &address.to_string()];
            match words.iter().all(|word| answer.stdout.contains(word)) {
                true => Ok(()),
                false => Err(told(&answer)),
            }
        })
        .unwrap();
        wait_until_said(&cluster, &is_away, seen);
        assert_eq!(cluster.invocations(&UNITS), before);
        *way.poses.lock().unwrap() = None;
        etcd.start().unwrap();
        cluster.wait_until_complete();
        others_go_on(&cluster, &format!("after-{round}"));
        assert_eq!(cluster.invocations(&UNITS), before);
    }
}
