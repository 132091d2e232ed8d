//! The sandbox's own promises, on real hosts. Needs root and the programs that the sandbox
//! needs; takes seconds. Each test has sandboxes of its own and takes them down, also when it
//! panics.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_sandbox::{Host, Loss, Member, Record, Sandbox, Scope, down, load, wait_for};

/// Generous: fifty hosts may boot beside us on two cores.
const BOUND: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet-sandbox");

/// A name that no other run of this test has.
fn name(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

/// Everything of the record that still exists, in words.
fn left_of(record: &Record) -> Vec<String> {
    let mut paths = vec![
        record.directory.clone(),
        Path::new(fleet_sandbox::RUN_DIRECTORY).join(&record.name),
        Path::new("/sys/class/net").join(&record.bridge),
    ];
    let mut scopes: Vec<&Scope> = record.etcd.iter().map(|m| &m.scope).collect();
    for member in &record.etcd {
        paths.push(Path::new("/sys/class/net").join(&member.cable));
        paths.push(Path::new("/run/netns").join(&member.netns));
    }
    for host in &record.hosts {
        paths.push(Path::new("/sys/class/net").join(&host.cable));
        paths.push(Path::new("/run/netns").join(&host.netns));
        paths.push(Path::new("/run/systemd/nspawn/propagate").join(&host.name));
        scopes.push(&host.scope);
    }
    for scope in scopes {
        if let Scope::Cgroups(directories) = scope {
            paths.extend(directories.iter().cloned());
            paths.extend(
                directories
                    .iter()
                    .filter_map(|d| d.parent().map(Path::to_owned)),
            );
        }
    }
    let mut left: Vec<String> = paths
        .iter()
        .filter(|p| p.exists())
        .map(|p| p.display().to_string())
        .collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&record.name))
            .map(|line| format!("mount {line}")),
    );
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // Not the test itself, nor whoever looks at it.
        if line.contains("nspawn") && line.contains(&record.name)
            || line.contains(&*record.directory.to_string_lossy())
        {
            left.push(format!("process {:?} {line}", process.file_name()));
        }
    }
    left
}

fn reaches(host: &Host, address: &str) -> Result<(), String> {
    let script = format!("timeout 1 bash -c '</dev/tcp/{address}/2379'");
    let output = host
        .exec(&["sh", "-c", &script])
        .map_err(|e| e.to_string())?;
    if output.success() {
        Ok(())
    } else {
        Err(format!("{address} cannot be reached: {}", output.stderr))
    }
}

#[test]
fn hosts_are_machines_of_their_own() {
    let sandbox = Sandbox::builder()
        .name(name("own"))
        .hosts(3)
        .metadata(0, "region=us-west")
        .up()
        .unwrap();
    let record = sandbox.record().unwrap();
    let mut boot_ids = Vec::new();
    for host in sandbox.hosts() {
        assert_eq!(
            host.run(&["cat", "/etc/machine-id"]).unwrap(),
            host.machine_id().unwrap()
        );
        assert_eq!(host.run(&["hostname"]).unwrap(), host.name());
        assert!(
            host.run(&["ip", "-brief", "address"])
                .unwrap()
                .contains(&host.address().unwrap().to_string())
        );
        assert_eq!(host.run(&["cat", "/proc/1/comm"]).unwrap(), "systemd");
        host.wait_until(BOUND, &["systemctl", "is-system-running"])
            .unwrap();
        host.run(&["busctl", "status", "org.freedesktop.systemd1"])
            .unwrap();
        assert!(
            host.exec(&["touch", "/usr/x"])
                .unwrap()
                .stderr
                .contains("Read-only")
        );
        assert_eq!(host.run(&["awk", "BEGIN { print 6 * 7 }"]).unwrap(), "42");
        boot_ids.push(
            host.run(&["cat", "/proc/sys/kernel/random/boot_id"])
                .unwrap(),
        );
        for member in &record.etcd {
            reaches(&host, &member.address.to_string()).unwrap();
        }
        for other in &record.hosts {
            host.run(&["getent", "hosts", &other.name]).unwrap();
        }
    }
    boot_ids.sort();
    boot_ids.dedup();
    assert_eq!(boot_ids.len(), 3);
    // A unit of one host is not a unit of another.
    let unit = "[Service]\nExecStart=/bin/sleep 1d\n";
    sandbox
        .host(0)
        .write_file("/etc/systemd/system/x.service", unit)
        .unwrap();
    sandbox
        .host(0)
        .run(&["systemctl", "start", "x.service"])
        .unwrap();
    assert_eq!(
        sandbox
            .host(0)
            .run(&["systemctl", "is-active", "x.service"])
            .unwrap(),
        "active"
    );
    assert_eq!(
        sandbox
            .host(1)
            .exec(&["systemctl", "is-active", "x.service"])
            .unwrap()
            .stdout,
        "inactive\n"
    );
    sandbox.down().unwrap();
    assert_eq!(left_of(&record), [""; 0]);
}

#[test]
fn commands_inside_have_streams_exit_codes_and_a_bound() {
    let sandbox = Sandbox::builder().name(name("exec")).etcd(0).up().unwrap();
    let host = sandbox.host(0);
    let output = host
        .exec(&["sh", "-c", "echo out; echo err >&2; exit 7"])
        .unwrap();
    assert_eq!(
        (output.code, &*output.stdout, &*output.stderr),
        (7, "out\n", "err\n")
    );
    let big = vec![b'x'; 1 << 20];
    let output = host.exec_with(&["cat"], Some(&big), BOUND).unwrap();
    assert_eq!(output.stdout.len(), big.len());
    assert_eq!(host.exec(&["sh", "-c", "kill -9 $$"]).unwrap().code, 137);
    assert_eq!(host.exec(&["no-such-program"]).unwrap().code, 127);
    let late = host
        .exec_with(&["sleep", "1d"], None, Duration::from_millis(100))
        .unwrap_err()
        .to_string();
    assert!(
        late.contains("sleep 1d") && late.contains("it still runs"),
        "{late}"
    );
    // A host that shuts down stops what runs in it first, and nsenter stops with its command.
    let stopped = "kill -STOP $$; echo went on";
    assert_eq!(host.run(&["sh", "-c", stopped]).unwrap(), "went on");
    // It is in the host's cgroup and environment, not in ours.
    assert!(
        host.run(&["cat", "/proc/self/cgroup"])
            .unwrap()
            .ends_with("0::/sandbox-exec")
    );
    let environment = host.run(&["env"]).unwrap();
    assert!(
        environment.contains("PATH=/opt/fleet/bin:") && !environment.contains("CARGO"),
        "{environment}"
    );
}

#[test]
fn files_are_read_and_written_as_the_host_sees_them() {
    let sandbox = Sandbox::builder().name(name("files")).etcd(0).up().unwrap();
    let host = sandbox.host(0);
    host.write_file("/run/a/b/c", "volatile").unwrap();
    assert_eq!(host.run(&["cat", "/run/a/b/c"]).unwrap(), "volatile");
    // /var/run is a link to /run: the host's, not the computer's.
    host.write_file("/var/run/through-a-link", "x").unwrap();
    assert_eq!(host.run(&["cat", "/run/through-a-link"]).unwrap(), "x");
    assert!(!Path::new("/run/through-a-link").exists());
    host.install(Path::new("/bin/true"), "/opt/fleet/bin/yes-sir")
        .unwrap();
    host.run(&["yes-sir"]).unwrap();
    host.kill().unwrap();
    host.write_file("/etc/while-off", "on disk").unwrap();
    assert_eq!(host.read_file("/etc/while-off").unwrap(), b"on disk");
    let off = host.exec(&["true"]).unwrap_err().to_string();
    assert_eq!(
        off,
        format!(
            "host {0} is off: `fleet-sandbox boot {0}` boots it",
            host.name()
        )
    );
    host.boot().unwrap();
    assert_eq!(host.run(&["cat", "/etc/while-off"]).unwrap(), "on disk");
}

#[test]
fn a_power_cut_leaves_the_disk_and_nothing_else() {
    let sandbox = Sandbox::builder()
        .name(name("power"))
        .hosts(2)
        .up()
        .unwrap();
    let host = sandbox.host(0);
    let (id, address) = (host.machine_id().unwrap(), host.address().unwrap());
    let boot_id = host
        .run(&["cat", "/proc/sys/kernel/random/boot_id"])
        .unwrap();
    host.write_file("/etc/kept", "1").unwrap();
    host.write_file("/var/lib/kept", "1").unwrap();
    host.write_file("/run/gone", "1").unwrap();
    host.write_file(
        "/etc/systemd/system/x.service",
        "[Service]\nExecStart=/bin/sleep 1d\n",
    )
    .unwrap();
    host.run(&["systemctl", "start", "x.service"]).unwrap();
    host.run(&["logger", "before the power cut"]).unwrap();
    // The journal takes it when it comes to it; a power cut before that loses it, as anywhere.
    let on_disk = "journalctl -q -D /var/log/journal --grep='before the power cut'";
    host.wait_until(BOUND, &["sh", "-c", on_disk]).unwrap();

    host.kill().unwrap();
    assert!(!host.is_on().unwrap());
    let record = host.record().unwrap();
    if let Scope::Cgroups(directories) = &record.scope {
        assert!(
            directories.iter().all(|d| !d.exists()),
            "processes or cgroups of the host are left"
        );
    }
    assert!(sandbox.host(1).is_on().unwrap());
    assert!(
        host.journal(&["--boot=-0"])
            .unwrap()
            .contains("before the power cut")
    );

    host.boot().unwrap();
    assert_eq!(host.run(&["cat", "/etc/machine-id"]).unwrap(), id);
    assert!(
        host.run(&["ip", "-brief", "address"])
            .unwrap()
            .contains(&address.to_string())
    );
    assert_ne!(
        host.run(&["cat", "/proc/sys/kernel/random/boot_id"])
            .unwrap(),
        boot_id
    );
    host.run(&[
        "test",
        "-e",
        "/etc/kept",
        "-a",
        "-e",
        "/var/lib/kept",
        "-a",
        "!",
        "-e",
        "/run/gone",
    ])
    .unwrap();
    assert_eq!(
        host.exec(&["systemctl", "is-active", "x.service"])
            .unwrap()
            .stdout,
        "inactive\n"
    );
    reaches(
        &host,
        &sandbox.record().unwrap().etcd[0].address.to_string(),
    )
    .unwrap();
    assert!(host.boot().unwrap_err().to_string().contains("is on"));
}

#[test]
fn a_host_may_reboot_and_switch_itself_off() {
    let sandbox = Sandbox::builder()
        .name(name("reboot"))
        .etcd(0)
        .up()
        .unwrap();
    let host = sandbox.host(0);
    let boot_id = host
        .run(&["cat", "/proc/sys/kernel/random/boot_id"])
        .unwrap();
    host.exec(&["systemctl", "reboot"]).unwrap();
    wait_for("another boot", BOUND, || {
        match host.run(&["cat", "/proc/sys/kernel/random/boot_id"]) {
            Ok(id) if id != boot_id => Ok(()),
            Ok(id) => Err(id),
            Err(e) => Err(e.to_string()),
        }
    })
    .unwrap();
    host.wait_until(BOUND, &["systemctl", "is-system-running"])
        .unwrap();
    host.exec(&["systemctl", "poweroff"]).unwrap();
    wait_for("power off", BOUND, || {
        if host.is_on().unwrap() {
            Err("on")
        } else {
            Ok(())
        }
    })
    .unwrap();
    host.boot().unwrap();
    host.run(&["systemctl", "is-active", "basic.target"])
        .unwrap();
}

#[test]
fn a_cut_cable_cuts_off_etcd_until_it_is_healed() {
    let sandbox = Sandbox::builder()
        .name(name("cable"))
        .hosts(2)
        .up()
        .unwrap();
    let (cut, other) = (sandbox.host(0), sandbox.host(1));
    let etcd = sandbox.record().unwrap().etcd[0].address.to_string();
    reaches(&cut, &etcd).unwrap();
    cut.cut().unwrap();
    assert!(reaches(&cut, &etcd).is_err());
    reaches(&other, &etcd).unwrap();
    assert_eq!(
        cut.run(&["systemctl", "is-active", "basic.target"])
            .unwrap(),
        "active"
    );
    // The cable stays cut over a power cut.
    cut.kill().unwrap();
    cut.boot().unwrap();
    assert!(reaches(&cut, &etcd).is_err());
    cut.heal().unwrap();
    wait_for("etcd behind the healed cable", BOUND, || {
        reaches(&cut, &etcd)
    })
    .unwrap();
}

#[test]
fn a_cable_loses_frames_one_way_or_both_and_its_link_stays_up() {
    let sandbox = Sandbox::builder().name(name("loss")).hosts(2).up().unwrap();
    let (lossy, other) = (sandbox.host(0), sandbox.host(1));
    let etcd = sandbox.record().unwrap().etcd[0].address.to_string();
    for (loss, to, from) in [
        (Loss::To, false, true),
        (Loss::From, true, false),
        (Loss::Both, false, false),
    ] {
        reaches(&lossy, &etcd).unwrap();
        lossy.lose(loss).unwrap();
        assert!(reaches(&lossy, &etcd).is_err(), "{loss:?}");
        reaches(&other, &etcd).unwrap();
        let link = lossy.run(&["ip", "link", "show", "host0"]).unwrap();
        assert!(link.contains("LOWER_UP"), "{loss:?}: {link}");
        if loss == Loss::Both {
            // Others come and go, and it stays so; over its own power cut as well.
            for host in [&other, &lossy] {
                host.kill().unwrap();
                host.boot().unwrap();
            }
        }
        for (way, arrives) in [((&other, &lossy), to), ((&lossy, &other), from)] {
            match arrives {
                true => wait_for("a frame to arrive", BOUND, || knock(way.0, way.1)).unwrap(),
                false => assert!(knock(way.0, way.1).is_err(), "{loss:?}: nothing arrives"),
            }
        }
        lossy.heal().unwrap();
        wait_for("etcd behind the healed cable", BOUND, || {
            reaches(&lossy, &etcd)
        })
        .unwrap();
    }
}

/// Has one host send datagrams to another; whether any arrives there. Other frames come and go on
/// the bridge: what counts is what came for a port at which nobody listens.
fn knock(from: &Host, to: &Host) -> Result<(), String> {
    let received = || -> u64 {
        let count = "sed -n 's/^Udp: [0-9]* \\([0-9]*\\) .*/\\1/p' /proc/net/snmp";
        to.run(&["sh", "-c", count]).unwrap().parse().unwrap()
    };
    let before = received();
    // Where it is cannot be asked when only one way is open.
    let link = to
        .run(&["ip", "-oneline", "link", "show", "host0"])
        .unwrap();
    let mut words = link.split_whitespace().skip_while(|w| *w != "link/ether");
    let mac = words.nth(1).unwrap();
    let address = to.address().unwrap();
    let script = format!(
        "ip neigh replace {address} lladdr {mac} dev host0 nud permanent && \
         for n in 1 2 3 4 5; do echo > /dev/udp/{address}/9; sleep 0.1; done; \
         ip neigh del {address} dev host0"
    );
    from.exec(&["bash", "-c", &script]).unwrap();
    match received() - before {
        0 => Err("no datagram arrived".to_owned()),
        _ => Ok(()),
    }
}

#[test]
fn etcd_keeps_its_data_and_needs_a_majority() {
    let sandbox = Sandbox::builder().name(name("etcd")).etcd(3).up().unwrap();
    let first = sandbox.etcd(0);
    let before = first.revision().unwrap();
    first.etcdctl(&["put", "a", "1"]).unwrap();
    assert_eq!(first.revision().unwrap(), before + 1);
    assert!(first.metric("etcd_server_has_leader").unwrap() > 0.0);
    sandbox.etcd(1).kill().unwrap();
    assert_eq!(sandbox.etcd(1).process().unwrap(), None);
    // It may have led: the others elect.
    wait_for("a write to two of three", BOUND, || {
        first.etcdctl(&["put", "a", "2"])
    })
    .unwrap();
    sandbox.etcd(2).stop().unwrap();
    // Another key: what becomes of this write is open, it may be accepted later.
    let alone = first.etcdctl(&["--command-timeout=1s", "put", "b", "3"]);
    assert!(alone.is_err(), "one of three members accepted a write");
    sandbox.etcd(1).start().unwrap();
    assert_eq!(
        sandbox
            .etcd(1)
            .etcdctl(&["get", "--print-value-only", "a"])
            .unwrap(),
        "2\n"
    );
    sandbox.etcd(2).start().unwrap();
    first.freeze().unwrap();
    wait_for("a write beside a frozen member", BOUND, || {
        sandbox.etcd(2).etcdctl(&["put", "a", "4"])
    })
    .unwrap();
    first.thaw().unwrap();
    let has = |member: &Member, wanted: &str| match member.etcdctl(&GET_A) {
        Ok(value) if value.trim_end() == wanted => Ok(()),
        Ok(value) => Err(value),
        Err(e) => Err(e.to_string()),
    };
    wait_for("the frozen member to catch up", BOUND, || has(&first, "4")).unwrap();

    // A member whose cable is out knows nothing of what the others agree upon.
    let cut = sandbox.etcd(2);
    cut.cut().unwrap();
    wait_for("a write beside a member that is cut off", BOUND, || {
        first.etcdctl(&["--command-timeout=2s", "put", "a", "5"])
    })
    .unwrap();
    assert!(
        cut.etcdctl(&["--command-timeout=1s", "endpoint", "status"])
            .is_err()
    );
    cut.heal().unwrap();
    wait_for("the healed member to catch up", BOUND, || has(&cut, "5")).unwrap();
}

const GET_A: [&str; 3] = ["get", "--print-value-only", "a"];

#[test]
fn etcd_is_restored_from_a_snapshot() {
    let sandbox = Sandbox::builder()
        .name(name("restore"))
        .etcd(3)
        .up()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let first = sandbox.etcd(0);
    first.etcdctl(&["put", "a", "old"]).unwrap();
    sandbox.save_etcd(&file).unwrap();
    let then = first.revision().unwrap();
    for value in ["new", "newer"] {
        first.etcdctl(&["put", "a", value]).unwrap();
    }
    // Whatever state the members are in.
    sandbox.etcd(1).freeze().unwrap();
    sandbox.etcd(2).kill().unwrap();
    sandbox.restore_etcd(&file).unwrap();
    for member in sandbox.members() {
        assert_eq!(member.etcdctl(&GET_A).unwrap(), "old\n");
        assert_eq!(member.revision().unwrap(), then);
    }
    first.etcdctl(&["put", "a", "after"]).unwrap();
}

#[test]
fn two_sandboxes_live_side_by_side() {
    let first = Sandbox::builder().name(name("side-a")).up().unwrap();
    let second = Sandbox::builder().name(name("side-b")).up().unwrap();
    let (a, b) = (first.record().unwrap(), second.record().unwrap());
    assert_ne!(a.subnet, b.subnet);
    assert_ne!(
        first.host(0).machine_id().unwrap(),
        second.host(0).machine_id().unwrap()
    );
    first.etcd(0).etcdctl(&["put", "whose", "first"]).unwrap();
    assert_eq!(second.etcd(0).etcdctl(&["get", "whose"]).unwrap(), "");
    let in_use = Sandbox::builder()
        .name(first.name())
        .up()
        .unwrap_err()
        .to_string();
    assert!(
        in_use.contains("exists (up)") && in_use.contains("fleet-sandbox down --name"),
        "{in_use}"
    );
    first.down().unwrap();
    assert_eq!(left_of(&a), [""; 0]);
    second
        .host(0)
        .run(&["systemctl", "is-active", "basic.target"])
        .unwrap();
    reaches(&second.host(0), &b.etcd[0].address.to_string()).unwrap();
    down(second.name()).unwrap();
    down(second.name()).unwrap();
    assert_eq!(left_of(&b), [""; 0]);
}

#[test]
fn a_panic_takes_the_sandbox_down() {
    let sandbox = Sandbox::builder().name(name("panic")).etcd(0).up().unwrap();
    let record = sandbox.record().unwrap();
    let panicked = std::thread::spawn(move || {
        let _sandbox = sandbox;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(left_of(&record), [""; 0]);
}

/// What `up` has reached when it is killed.
type Moment = (&'static str, fn(&Record) -> bool);

#[test]
fn nothing_is_left_of_an_up_that_was_killed_halfway() {
    let moments: [Moment; 5] = [
        ("everything is written down", |_| true),
        ("the bridge is there", |r| {
            Path::new("/sys/class/net").join(&r.bridge).exists()
        }),
        ("a host has its namespace", |r| {
            r.hosts
                .iter()
                .any(|h| Path::new("/run/netns").join(&h.netns).exists())
        }),
        ("a host has its cgroups", |r| {
            r.hosts
                .iter()
                .any(|h| matches!(&h.scope, Scope::Cgroups(d) if d.iter().all(|d| d.exists())))
        }),
        ("a host's systemd runs", |r| {
            r.hosts.iter().any(|h| h.leader.is_some())
        }),
    ];
    for (index, (moment, reached)) in moments.into_iter().enumerate() {
        let name = name(&format!("half{index}"));
        let mut up = Command::new(PROGRAM)
            .args(["up", "--no-fleetd", "--hosts", "3", "--name", &name])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let seen = wait_for(moment, BOUND, || match load(&name) {
            Ok(record) if reached(&record) => Ok(record),
            Ok(_) => Err("not yet".to_owned()),
            Err(e) => Err(e.to_string()),
        });
        up.kill().unwrap();
        up.wait().unwrap();
        down(&name).unwrap();
        let record = seen.unwrap();
        assert_eq!(left_of(&record), [""; 0], "killed when {moment}");
    }
}

/// Stands in for fleetd: says READY and starts a child, as fleetd never would.
const STAND_IN: &str = "#!/bin/sh\ncat /etc/fleet/fleet.conf >/run/fleet/conf\nsleep 4711 &\n\
    exec perl -MSocket -e 'socket(S, PF_UNIX, SOCK_DGRAM, 0) or die $!; \
    send(S, \"READY=1\", 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!; exec qw(sleep 4712)'\n";

#[test]
fn fleetd_is_started_restarted_and_is_not_its_units() {
    let built = tempfile::tempdir().unwrap();
    for (program, text) in [
        ("fleetd", STAND_IN),
        ("fleetctl", "#!/bin/sh\necho I am fleetctl\n"),
    ] {
        let path: PathBuf = built.path().join(program);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let sandbox = Sandbox::builder()
        .name(name("fleet"))
        .bin_dir(built.path())
        .metadata(0, "region=us-west,disk=ssd")
        .fleet_conf("agent_ttl=5s")
        .up()
        .unwrap();
    sandbox.wait_for_fleetd(BOUND).unwrap();
    let host = sandbox.host(0);
    assert_eq!(host.run(&["fleetctl"]).unwrap(), "I am fleetctl");
    let servers = sandbox.etcd_servers().unwrap().join(",");
    assert_eq!(
        host.run(&["cat", "/run/fleet/conf"]).unwrap(),
        format!(
            "public_ip=\"{}\"\netcd_servers=\"{servers}\"\nmetadata=\"region=us-west,disk=ssd\"\nagent_ttl=5s",
            host.address().unwrap()
        )
    );
    assert_eq!(
        host.run(&["stat", "-c", "%a %G", "/run/fleet.sock"])
            .unwrap(),
        "660 fleet"
    );
    let pid = host
        .run(&["systemctl", "show", "-P", "MainPID", "fleet.service"])
        .unwrap();
    host.run(&["kill", "-9", &pid]).unwrap();
    host.wait_until(BOUND, &["sh", "-c", &format!("p=$(systemctl show -P MainPID fleet.service); echo $p; [ $p != 0 ] && [ $p != {pid} ] && systemctl is-active fleet.service")])
        .unwrap();
    host.run(&["systemctl", "stop", "fleet.service"]).unwrap();
    host.run(&["pgrep", "-f", "sleep 4711"]).unwrap();
    host.run(&["test", "-e", "/run/fleet/conf"]).unwrap();
    // A new binary in one host changes no other and not where it came from.
    host.install(Path::new("/bin/true"), "/opt/fleet/bin/fleetctl")
        .unwrap();
    assert_eq!(host.run(&["fleetctl"]).unwrap(), "");
    assert!(
        fs::read_to_string(built.path().join("fleetctl"))
            .unwrap()
            .contains("I am fleetctl")
    );
}

#[test]
fn the_command_line_passes_exit_codes_and_names_cures() {
    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let name = name("cli");
    let (code, stdout, stderr) = run(&[
        "up",
        "--name",
        &name,
        "--hosts",
        "1",
        "--etcd",
        "0",
        "--no-fleetd",
        "--metadata",
        "a=b",
    ]);
    let record = load(&name).unwrap();
    let host = format!("{name}-1");
    let exec = run(&["exec", &host, "--", "sh", "-c", "echo inside; exit 3"]);
    let (_, json, _) = run(&["list", "-o", "json"]);
    let again = run(&["up", "--name", &name, "--no-fleetd"]);
    let nobody = run(&["exec", "nobody", "--", "true"]);
    run(&["kill", &host]);
    let (_, off, _) = run(&["list"]);
    let gone = run(&["down", "--name", &name]);
    // Only now: nothing above may leave the sandbox behind.
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.starts_with("HOST") && stdout.contains(&host) && stdout.contains("a=b"),
        "{stdout}"
    );
    assert_eq!((exec.0, &*exec.1), (Some(3), "inside\n"), "{}", exec.2);
    let listed: Vec<Record> = serde_json::from_str(&json).unwrap();
    assert!(
        listed
            .iter()
            .any(|r| r.name == name && r.up && r.hosts[0].leader.is_some())
    );
    assert!(
        again.0 == Some(1) && again.2.contains("choose another name"),
        "{}",
        again.2
    );
    assert!(
        nobody.0 == Some(1) && nobody.2.contains("no host named nobody"),
        "{}",
        nobody.2
    );
    assert!(
        off.lines().any(|l| l.contains(&host) && l.contains("off")),
        "{off}"
    );
    assert_eq!(gone.0, Some(0), "{}", gone.2);
    assert_eq!(left_of(&record), [""; 0]);
}
