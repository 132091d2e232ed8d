//! Every cut is found, also with data in flight: by deadlines of fleetd's own, not by TCP's.

use std::collections::BTreeSet;

use fleet_sandbox::{Host, Loss, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

/// A unit file as large as people have them at most, so that its bytes are on their way for a while.
const LARGE: usize = 60_000;

/// The host that is cut off.
const VICTIM: usize = 2;

/// No request takes longer than this, whatever is cut: some requests of `etcd_request_timeout`
/// (1 s) each, on a computer that others share.
const ANSWERED: &str = "15";

#[derive(Clone, Copy, Debug)]
enum Cut {
    Unplugged,
    Loses(Loss),
}

#[test]
fn every_cut_of_a_machine_is_found_with_data_in_flight_and_what_was_said_counts_once() {
    let cluster = Cluster::up(3);
    cluster.patch(VICTIM, "spot", "victim");
    for cut in [
        Cut::Unplugged,
        Cut::Loses(Loss::Both),
        Cut::Loses(Loss::To),
        Cut::Loses(Loss::From),
    ] {
        let name: String = format!("{cut:?}")
            .chars()
            .filter(char::is_ascii_alphabetic)
            .collect();
        // The victim has the fewest units and gets one of these at least; others are elsewhere.
        let units = [1, 2, 3].map(|n| format!("{name}-{n}.service"));
        for unit in &units {
            cluster.start(unit, "");
        }
        let units = units.each_ref().map(String::as_str);
        let before = cluster.invocations(&units);
        let is_on_victim = |unit: &str| before[unit][0].host == VICTIM;
        assert!(units.iter().any(|unit| is_on_victim(unit)), "{before:?}");
        let streams = Streams::begin(&cluster, name);
        let victim = cluster.host(VICTIM);
        match cut {
            Cut::Unplugged => victim.cut().unwrap(),
            Cut::Loses(loss) => victim.lose(loss).unwrap(),
        }
        // The machine itself finds out, and says so to whoever asks.
        wait_for("503 on the cut machine", FAILOVER, || {
            match answer(&victim) {
                503 => Ok(()),
                code => Err(code),
            }
        })
        .unwrap();
        // The cluster finds out, and goes on without it.
        wait_for("the machine to be lost", FAILOVER, || {
            let out = cluster.fleetctl(&["list-machines"]);
            match out.stderr.contains("(lost)") {
                true => Ok(()),
                false => Err(told(&out)),
            }
        })
        .unwrap();
        for unit in units {
            wait_for(&format!("{unit} to run elsewhere"), FAILOVER, || {
                let running = cluster.running(unit);
                match running.iter().any(|one| one.host != VICTIM) {
                    true => Ok(()),
                    false => Err(format!("{running:?}")),
                }
            })
            .unwrap();
        }
        victim.heal().unwrap();
        cluster.wait_until_complete();
        let acknowledged = streams.end(&cluster);
        for unit in units {
            let host = cluster.wait_for_place(unit, FAILOVER);
            if !is_on_victim(unit) {
                assert_eq!(
                    (host, &cluster.running(unit)),
                    (before[unit][0].host, &before[unit]),
                    "{cut:?}: {unit} was not on the machine, and is not touched"
                );
            }
        }
        acknowledged.are_kept_and_count_once(&cluster, cut);
    }
}

#[test]
fn an_etcd_that_hangs_or_is_cut_off_half_open_is_found_and_found_again() {
    let cluster = Cluster::up(2);
    cluster.start("a.service", "");
    let before = cluster.invocations(&["a.service"]);
    let etcd = cluster.sandbox.etcd(0);
    for hangs in [true, false] {
        const LATE: [&str; 1] = ["the lease was not renewed; trying again"];
        let seen = [0, 1].map(|host| cluster.n_said(host, &LATE));
        match hangs {
            true => etcd.freeze().unwrap(),
            false => etcd.lose(Loss::Both).unwrap(),
        }
        for host in 0..2 {
            let host = cluster.host(host);
            wait_for("503 on every machine", FAILOVER, || match answer(&host) {
                503 => Ok(()),
                code => Err(code),
            })
            .unwrap();
        }
        // Nobody waits for the pings of an idle connection: whoever leads knows that its watch is
        // over as soon as one renewal has had no answer.
        for (host, seen) in seen.into_iter().enumerate() {
            wait_for("fleetd to have noticed", SOON, || {
                match cluster.n_said(host, &LATE) > seen {
                    true => Ok(()),
                    false => Err(format!("{seen} lines as before")),
                }
            })
            .unwrap();
        }
        match hangs {
            true => etcd.thaw().unwrap(),
            false => etcd.heal().unwrap(),
        }
        cluster.wait_until_complete();
        // Both go on by themselves: who is asked, who decides, who carries out.
        for host in 0..2 {
            let unit = format!("after-{hangs}-{host}.service");
            let path = format!("/units/{unit}");
            cluster.host(host).write_file(&path, sleeper("")).unwrap();
            wait_for(&format!("{unit} to be started"), FAILOVER, || {
                let out = cluster.fleetctl_on(host, &["start", &path]);
                match out.success() {
                    true => Ok(()),
                    false => Err(told(&out)),
                }
            })
            .unwrap();
            cluster.place(&unit);
        }
        assert_eq!(cluster.invocations(&["a.service"]), before);
    }
}

/// The status of a request that has to go to etcd; 0 would be none at all.
#[track_caller]
fn answer(host: &Host) -> u16 {
    let url = "http://fleet/fleet/v1/machines";
    let socket = "/run/fleet.sock";
    let argv = [
        "curl",
        "-s",
        "-m",
        ANSWERED,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--unix-socket",
        socket,
        url,
    ];
    let out = host.exec(&argv).unwrap();
    let code = out.stdout.parse().unwrap();
    assert_ne!(code, 0, "no answer within {ANSWERED} s: {}", told(&out));
    code
}

/// What goes to and from the machine all the time while it is cut off: units that are handed in on
/// it, and units that it is to run.
struct Streams {
    name: String,
}

/// What was said to be done, by number.
struct Acknowledged {
    name: String,
    handed_in: BTreeSet<String>,
    started: BTreeSet<String>,
}

impl Streams {
    fn begin(cluster: &Cluster, name: String) -> Streams {
        let padding = format!("\n# {}", "x".repeat(98)).repeat(LARGE / 100);
        for (host, kind, x_fleet, command) in [
            (VICTIM, "out", "", "submit"),
            (0, "in", "MachineMetadata=spot=victim", "start --no-block"),
        ] {
            let host = cluster.host(host);
            host.write_file("/units/large", sleeper(x_fleet) + &padding)
                .unwrap();
            let script = format!(
                "n=0; touch /units/go; while [ -e /units/go ]; do n=$((n+1)); \
                 unit=/units/{kind}-{name}-$n.service; cp /units/large $unit; \
                 fleetctl --request-timeout=5 {command} $unit && echo $n >>/units/{kind}-{name}; done"
            );
            let unit = format!("--unit=stream-{kind}-{name}");
            host.run(&["systemd-run", &unit, "sh", "-c", &script])
                .unwrap();
            wait_for("the stream to flow", FAILOVER, || {
                let done = host.read_file(format!("/units/{kind}-{name}"));
                match done.map(|done| done.len()) {
                    Ok(4..) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .unwrap();
        }
        Streams { name }
    }

    fn end(self, cluster: &Cluster) -> Acknowledged {
        let [handed_in, started] = [(VICTIM, "out"), (0, "in")].map(|(host, kind)| {
            let host = cluster.host(host);
            host.run(&["rm", "-f", "/units/go"]).unwrap();
            let stream = format!("stream-{kind}-{}.service", self.name);
            wait_for("the end of the stream", FAILOVER, || {
                let out = host.exec(&["systemctl", "is-active", &stream]).unwrap();
                match out.stdout.trim() {
                    "active" => Err(out.stdout),
                    _ => Ok(()),
                }
            })
            .unwrap();
            let done = host
                .read_file(format!("/units/{kind}-{}", self.name))
                .unwrap();
            let done = String::from_utf8(done).unwrap();
            done.lines()
                .map(|n| format!("{kind}-{}-{n}.service", self.name))
                .collect()
        });
        Acknowledged {
            name: self.name,
            handed_in,
            started,
        }
    }
}

impl Acknowledged {
    fn are_kept_and_count_once(&self, cluster: &Cluster, cut: Cut) {
        let known: BTreeSet<String> = cluster
            .ok(&["list-unit-files", "--no-legend", "--fields=unit"])
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        let forgotten: Vec<_> = self.handed_in.difference(&known).collect();
        assert!(forgotten.is_empty(), "{cut:?}: {forgotten:?}");
        assert!(!self.started.is_empty());
        wait_for("what was started to run", FAILOVER, || {
            let argv = ["systemctl", "is-active"];
            let units: Vec<&str> = self.started.iter().map(String::as_str).collect();
            let out = cluster.host(VICTIM).exec(&[&argv[..], &units[..]].concat());
            let out = out.unwrap();
            match out.stdout.lines().filter(|line| *line != "active").count() {
                0 => Ok(()),
                _ => Err(out.stdout),
            }
        })
        .unwrap();
        // Each was started once, on the one machine that may run it, however often the order came.
        let pattern = format!("^Started in-{}-", self.name);
        let argv = [
            "journalctl",
            "-b",
            "-o",
            "cat",
            "-t",
            "systemd",
            "--grep",
            &pattern,
        ];
        let log = cluster.host(VICTIM).run(&argv).unwrap();
        let mut seen = BTreeSet::new();
        for line in log.lines() {
            assert!(seen.insert(line), "{cut:?}: twice: {line}");
        }
        // systemd does without a line when the journal is behind: not all need be there.
        assert!(!seen.is_empty(), "{cut:?}: {argv:?} finds nothing");
        // The next cut begins with a machine that has room for it.
        let pattern = format!("in-{}-*", self.name);
        cluster.ok(&["destroy", &pattern]);
    }
}
