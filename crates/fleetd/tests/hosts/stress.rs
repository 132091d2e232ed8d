//! What a machine suffers without being dead moves nothing: clocks that jump, a journal whose disk
//! has stalled, too little processor time.

use std::path::Path;
use std::process::Command;

use fleet_sandbox::{Host, wait_for};

use crate::cluster::{Cluster, FAILOVER, sleeper, told};

const UNITS: [&str; 3] = ["u@1.service", "u@2.service", "u@3.service"];

/// So many renewals of all machines' leases, two a second each, are more time than it takes to give
/// one up.
const RENEWALS: f64 = 70.0;

/// Puts the wall clock of one process where a file says (seconds from the real one): hosts share
/// the computer's clock, which is not ours to set.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    int file = open("/run/clock-offset", O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *page = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) offset = page;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, id, time);
    if (!failed && id == CLOCK_REALTIME && offset) time->tv_sec += *offset;
    return failed;
}
"#;

#[test]
fn clocks_that_jump_a_stalled_journal_and_a_starved_machine_move_nothing() {
    let cluster = Cluster::up(3);
    for host in cluster.sandbox.hosts() {
        wear_the_shim(&host);
    }
    cluster.wait_until_complete();
    cluster.file("u@.service", &sleeper(""));
    cluster.ok(&["submit", "/units/u@.service"]);
    cluster.ok(&["start", "u@1", "u@2", "u@3"]);
    let before = cluster.invocations(&UNITS);

    // An hour in both directions, on all machines at once, the leader among them; and back.
    for hours in [[1, -1, 1], [-1, 1, -1], [0, 0, 0]] {
        let members = members(&cluster);
        for (host, hours) in cluster.sandbox.hosts().iter().zip(hours) {
            set_clock(host, hours * 3600);
        }
        for (host, hours) in hours.into_iter().enumerate() {
            let ahead = seconds_ahead(&cluster, host, &format!("asked-{host}.service"));
            assert!(
                (ahead - hours * 3600).abs() < 600,
                "{ahead} s, not {hours} h"
            );
        }
        let unit = format!("after{}.service", hours[0]);
        cluster.start(&unit, "");
        cluster.wait_for_renewals(RENEWALS);
        assert_eq!(cluster.invocations(&UNITS), before);
        assert_eq!(self::members(&cluster), members, "nobody was missed");
    }

    a_grace_is_no_matter_of_the_wall_clock(&cluster);
    assert_eq!(cluster.invocations(&UNITS), before);

    // Whoever runs u@1 has a journal that takes nothing any more.
    let host = cluster.host(before["u@1.service"][0].host);
    let members = members(&cluster);
    let journald = [
        "systemctl",
        "kill",
        "-s",
        "STOP",
        "systemd-journald.service",
    ];
    host.run(&journald).unwrap();
    // Until its queue is full: whoever writes then would wait.
    let fill = "n=0; while [ $n -lt 5000 ] && echo MESSAGE=full | timeout 1 logger --journald; \
                do n=$((n+1)); done; echo $n";
    let filled = host.run(&["sh", "-c", fill]).unwrap();
    assert_ne!(filled.trim(), "5000", "the queue has no end");
    // Things happen there that fleetd has much to say about.
    let id = host.machine_id().unwrap();
    let n_units = 20;
    let names: Vec<String> = (0..n_units).map(|n| format!("said@{n}.service")).collect();
    cluster.file("said@.service", &sleeper(&format!("MachineID={id}")));
    cluster.ok(&["submit", "/units/said@.service"]);
    let start: Vec<&str> = ["start", "--no-block"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    cluster.ok(&start);
    cluster.wait_for_renewals(RENEWALS);
    assert_eq!(cluster.invocations(&UNITS), before);
    assert_eq!(self::members(&cluster), members, "nobody was missed");
    let journald = [
        "systemctl",
        "kill",
        "-s",
        "CONT",
        "systemd-journald.service",
    ];
    host.run(&journald).unwrap();
    wait_for("what was asked for to run", FAILOVER, || {
        let out = host.exec(&[&["systemctl", "is-active"][..], &start[2..]].concat());
        let out = out.unwrap();
        match out.stdout.lines().filter(|line| *line == "active").count() {
            n if n == n_units => Ok(()),
            _ => Err(out.stdout),
        }
    })
    .unwrap();

    // A fifth of a processor for all of it, and three loops that take what they can get.
    let hog = "for n in 1 2 3; do systemd-run --unit=hog-$n sh -c 'while :; do :; done'; done";
    host.run(&["sh", "-c", hog]).unwrap();
    host.limit_cpu(Some(20)).unwrap();
    cluster.wait_for_renewals(RENEWALS);
    let hogs = ["hog-1", "hog-2", "hog-3"];
    let active = host.exec(&[&["systemctl", "is-active"][..], &hogs].concat());
    assert!(active.unwrap().success(), "nobody was in the way");
    host.limit_cpu(None).unwrap();
    host.run(&[&["systemctl", "stop"][..], &hogs].concat())
        .unwrap();
    assert_eq!(cluster.invocations(&UNITS), before);
    cluster.wait_until_complete();
    // Suspect for a moment, perhaps; the reason would still say that it was lost.
    let members = self::members(&cluster);
    assert!(!members.contains("lost"), "{members}");
}

/// Whose fleetd is away in order is borne for ten minutes, and an hour of the others' clocks is none of
/// them.
fn a_grace_is_no_matter_of_the_wall_clock(cluster: &Cluster) {
    let away = cluster.host(2);
    let (id, service) = (away.machine_id().unwrap(), "fleet.service");
    away.run(&["systemctl", "stop", service]).unwrap();
    let is_borne = || {
        let out = cluster.fleetctl(&["list-machines"]);
        match out.stderr.contains(&format!("{id} (unsupervised)")) {
            true => Ok(()),
            false => Err(told(&out)),
        }
    };
    wait_for("its absence to be borne", FAILOVER, is_borne).unwrap();
    for host in [0, 1] {
        set_clock(&cluster.host(host), 3600);
    }
    // Something for the leader to think about, and time to do it.
    cluster.start("meanwhile.service", "");
    cluster.wait_for_renewals(RENEWALS / 3.0);
    is_borne().unwrap();
    for host in [0, 1] {
        set_clock(&cluster.host(host), 0);
    }
    away.run(&["systemctl", "start", service]).unwrap();
    cluster.wait_until_complete();
}

/// Compiles the shim, once for each host, and has fleetd run with it.
fn wear_the_shim(host: &Host) {
    let dir = tempfile::tempdir().unwrap();
    let (source, object) = (dir.path().join("clock.c"), dir.path().join("clock.so"));
    std::fs::write(&source, SHIM).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&object, &source])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    host.install(Path::new(&object), "/opt/clock.so").unwrap();
    set_clock(host, 0);
    let drop_in = "[Service]\nEnvironment=LD_PRELOAD=/opt/clock.so\n";
    host.write_file("/run/systemd/system/fleet.service.d/clock.conf", drop_in)
        .unwrap();
    host.run(&["systemctl", "daemon-reload"]).unwrap();
    host.run(&["systemctl", "restart", "fleet.service"])
        .unwrap();
}

/// In place: fleetd looks at the very file.
fn set_clock(host: &Host, seconds: i64) {
    let bytes: String = seconds
        .to_le_bytes()
        .iter()
        .map(|byte| format!("\\{byte:03o}"))
        .collect();
    let script = format!("printf '{bytes}' | dd of=/run/clock-offset conv=notrunc status=none");
    host.run(&["sh", "-c", &script]).unwrap();
}

/// How far fleetd's wall clock is ahead, by the time that it notes beside a wish.
fn seconds_ahead(cluster: &Cluster, host: usize, unit: &str) -> i64 {
    let path = format!("/units/{unit}");
    cluster.host(host).write_file(&path, sleeper("")).unwrap();
    for command in [["submit", path.as_str()], ["load", unit], ["unload", unit]] {
        let out = cluster.fleetctl_on(host, &command);
        assert!(out.success(), "{}", told(&out));
    }
    let key = format!("/_coreos.com/fleet/units/{unit}");
    let get = ["get", "--print-value-only", key.as_str()];
    let record = cluster.sandbox.etcd(0).etcdctl(&get).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let noted = record["changed"].as_i64().unwrap() / 1000;
    let now = cluster.host(host).run(&["date", "+%s"]).unwrap();
    noted - now.parse::<i64>().unwrap()
}

/// What the leader thinks of each machine, and since when: it is written when it changes.
fn members(cluster: &Cluster) -> String {
    let get = ["get", "--prefix", "/_coreos.com/fleet/members/"];
    cluster.sandbox.etcd(0).etcdctl(&get).unwrap()
}
