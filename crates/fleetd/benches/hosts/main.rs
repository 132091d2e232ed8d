//! What fleet adds to systemd, measured on real hosts, with systemd's own time in the same run: the
//! table of goals, each with its yardstick. `make bench` runs it; three machines, one durable etcd.
//!
//! Commands are forked and timed by this program's copy inside the hosts ([`inside`]), so that
//! entering a host is not counted. What is printed as a ratio was measured in the same run, a moment
//! apart; other values hang on how busy the computer is, which is printed, too.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fleet_sandbox::{Host, Sandbox, built_beside, wait_for};

mod inside;
mod table;

use inside::INSIDE;
use table::{Row, Times, ms, print, seconds};

const MACHINES: usize = 3;
/// In one command.
const UNITS: usize = 1_000;
/// Of the batch; the median counts.
const BATCHES: usize = 3;
/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Times the leader is killed while units are being started.
const KILLS: usize = 12;
/// Generous: the computer may be busy, and what takes too long is to be seen in the table.
const BOUND: Duration = Duration::from_secs(120);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == INSIDE) {
        return inside::run(&args[at + 1..]);
    }
    let own = std::env::current_exe().expect("a running program has a path");
    let binaries =
        std::env::var_os("FLEET_BIN_DIR").map_or_else(|| built_beside(&own), PathBuf::from);
    let sandbox = Sandbox::builder()
        .hosts(MACHINES)
        .bin_dir(&binaries)
        .up()
        .and_then(|sandbox| sandbox.wait_for_fleetd(BOUND).map(|()| sandbox))
        .expect("the sandbox comes up");
    for host in sandbox.hosts() {
        host.install(&own, "/opt/bench")
            .expect("the program is copied into the host");
    }
    println!("load of the computer: {}", load());
    let mut rows = vec![memory(&sandbox, "memory of fleetd, idle (largest)", 8.0)];
    start_up(&sandbox, &mut rows);
    one_start(&sandbox, &mut rows);
    batches(&sandbox, &mut rows);
    rows.push(power_cut(&sandbox));
    rows.push(leader_killed(&sandbox));
    println!("load of the computer: {}", load());
    print(&rows);
}

/// A command that asks nobody anything: what each of them costs before it begins.
fn start_up(sandbox: &Sandbox, rows: &mut Vec<Row>) {
    let out = inside(&sandbox.host(0), &["start-up"]);
    let of = |what: &str| Times::parse(&out, what);
    let (systemctl, fleetctl) = (of("systemctl"), of("fleetctl"));
    println!("--version, ms               min     p50     p90     p99     max");
    println!("  systemctl             {systemctl}");
    println!("  fleetctl              {fleetctl}");
    let p50 = fleetctl.at(50);
    rows.push(Row::value("start-up of fleetctl, p50", p50, "ms", 3.0).beside(systemctl.at(50)));
}

/// One unit: 100 times each, in turns.
fn one_start(sandbox: &Sandbox, rows: &mut Vec<Row>) {
    let out = inside(&sandbox.host(0), &["one"]);
    let of = |what: &str| Times::parse(&out, what);
    let (systemd, fleet) = (of("systemd"), of("fleet"));
    println!("start of one unit, ms       min     p50     p90     p99     max");
    println!("  systemctl start       {systemd}");
    println!("  fleetctl start        {fleet}");
    for (percent, goal) in [(50, 1.0), (99, 1.5)] {
        let what = format!("start one unit, p{percent}");
        let (is, yardstick) = (fleet.at(percent), systemd.at(percent));
        rows.push(Row::ratio(&what, is, yardstick, goal));
    }
}

/// A thousand units in one command, listed, left alone, and destroyed; and what systemd takes for
/// the same units, split over the same machines.
fn batches(sandbox: &Sandbox, rows: &mut Vec<Row>) {
    let mut took: [Vec<f64>; 4] = Default::default();
    let mut cpu = Vec::new();
    for round in 0..BATCHES {
        let tag = round.to_string();
        let before = cpu_of_fleetd(sandbox);
        let out = inside(&sandbox.host(0), &["start", &tag, &UNITS.to_string()]);
        took[0].push(seconds(&out, "took"));
        cpu.push((cpu_of_fleetd(sandbox) - before) / UNITS as f64 * 1e3);
        if round + 1 == BATCHES {
            rows.push(memory(
                sandbox,
                "memory of fleetd, a third of 1,000 units on each",
                12.0,
            ));
            let out = inside(&sandbox.host(0), &["list"]);
            let listed = Times::parse(&out, "list").at(50);
            rows.push(Row::value(
                "list-units of 1,000 units, p50",
                listed,
                "ms",
                10.0,
            ));
            idle(sandbox, rows);
        }
        let out = inside(&sandbox.host(0), &["destroy", &tag, &UNITS.to_string()]);
        took[2].push(seconds(&out, "took"));
        let (start, stop) = systemd_alone(sandbox, &tag);
        took[1].push(start);
        took[3].push(stop);
    }
    let [start, systemd_start, destroy, systemd_stop] = took.map(table::median);
    rows.push(Row::ratio(
        "start 1,000 units, one command",
        start * 1e3,
        systemd_start * 1e3,
        1.0,
    ));
    rows.push(Row::ratio(
        "destroy 1,000 units",
        destroy * 1e3,
        systemd_stop * 1e3,
        1.2,
    ));
    rows.push(Row::value(
        "CPU of all fleetd a unit started",
        table::median(cpu),
        "ms",
        0.3,
    ));
}

/// The same number of units by systemctl, on all machines at once: the slowest counts.
fn systemd_alone(sandbox: &Sandbox, tag: &str) -> (f64, f64) {
    let share = UNITS.div_ceil(MACHINES).to_string();
    let both = |(start, stop): (f64, f64), out: String| {
        (
            start.max(seconds(&out, "start")),
            stop.max(seconds(&out, "stop")),
        )
    };
    std::thread::scope(|scope| {
        let share = &share;
        let running: Vec<_> = sandbox
            .hosts()
            .into_iter()
            .map(|host| scope.spawn(move || inside(&host, &["systemd", tag, share])))
            .collect();
        let outs = running
            .into_iter()
            .map(|host| host.join().expect("it runs"));
        outs.fold((0.0, 0.0), both)
    })
}

/// What a thousand units cost while nothing happens.
fn idle(sandbox: &Sandbox, rows: &mut Vec<Row>) {
    let etcd = sandbox.etcd(0);
    let count = || {
        let ranges = etcd.metric("etcd_mvcc_range_total");
        let ranges = ranges.or_else(|_| etcd.metric("etcd_debugging_mvcc_range_total"));
        let revision = etcd.revision().expect("etcd answers");
        (revision as f64, ranges.expect("etcd counts its reads"))
    };
    // What the last command set going is over.
    let_pass(Duration::from_secs(2));
    let (before, (revision, reads)) = (threads_of_fleetd(sandbox), count());
    let_pass(IDLE);
    let (revision_after, reads_after) = count();
    // A thread that has ended meanwhile has had nothing to do.
    let worked = |(thread, cpu): (String, f64)| cpu - before.get(&thread).unwrap_or(&0.0);
    let cpu: f64 = threads_of_fleetd(sandbox).into_iter().map(worked).sum();
    let cpu = cpu / IDLE.as_secs_f64() / MACHINES as f64;
    // Our own look at the revision is one of the reads.
    let reads = (reads_after - reads - 1.0).max(0.0);
    rows.push(Row::value(
        "idle, 20 s: writes to the store",
        revision_after - revision,
        "",
        0.0,
    ));
    rows.push(Row::value("idle, 20 s: reads of the store", reads, "", 0.0));
    rows.push(Row::value("idle: CPU a machine", cpu * 100.0, "%", 0.05));
}

#[expect(
    clippy::disallowed_methods,
    reason = "that nothing happens meanwhile is what is measured"
)]
fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// A machine without power: until all of its units are told to be active elsewhere.
fn power_cut(sandbox: &Sandbox) -> Row {
    let (leader, asked) = (leader(sandbox), 0);
    let victim = (1..MACHINES)
        .find(|host| *host != leader)
        .expect("there are three");
    inside(&sandbox.host(asked), &["start", "lost", "30"]);
    let id = sandbox.host(victim).machine_id().expect("it has one");
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    let began = Instant::now();
    sandbox.host(victim).kill().expect("its power is cut");
    wait_for("all units to be active elsewhere", BOUND, || {
        let out = sandbox
            .host(asked)
            .exec(&["fleetctl", "list-units", "--no-legend"]);
        let out = out.map_err(|error| error.to_string())?.stdout;
        let rows = out.lines().filter(|row| row.contains("lost-"));
        let well = rows.filter(|row| !row.contains(&id) && row.contains(" active "));
        match well.count() {
            30 => Ok(()),
            n => Err(format!("{n} of 30")),
        }
    })
    .expect("they move");
    let took = began.elapsed().as_secs_f64();
    sandbox.host(victim).boot().expect("it boots");
    sandbox.wait_for_fleetd(BOUND).expect("it is back");
    inside(&sandbox.host(asked), &["destroy", "lost", "30"]);
    Row::value(
        "power cut until all units are active elsewhere",
        took,
        "s",
        5.0,
    )
}

/// The leader's fleetd is killed while units are started elsewhere, one after the other: each kill
/// has a start that spans it, the slowest.
fn leader_killed(sandbox: &Sandbox) -> Row {
    let mut spans: Vec<f64> = (0..KILLS)
        .map(|kill| {
            let leader = leader(sandbox);
            let asked = sandbox.host((leader + 1) % MACHINES);
            let tag = format!("kill{kill}");
            let starts = std::thread::scope(|scope| {
                let starts = scope.spawn(|| inside(&asked, &["busy", &tag]));
                wait_for("units to be started", BOUND, || {
                    let seen = asked.exec(&["test", "-e", "/units/under-way"]);
                    match seen.is_ok_and(|out| out.success()) {
                        true => Ok(()),
                        false => Err("not yet"),
                    }
                })
                .expect("the starts begin");
                let kill = ["systemctl", "kill", "-s", "KILL", "fleet.service"];
                sandbox.host(leader).run(&kill).expect("it can be killed");
                starts.join().expect("it runs")
            });
            Times::parse(&starts, "busy").at(100)
        })
        .collect();
    spans.sort_by(f64::total_cmp);
    let spans = Times::of(spans);
    println!("leader killed: the start that spans it, ms ({KILLS} kills)");
    println!("                            min     p50     p90     p99     max");
    println!("  fleetctl start        {spans}");
    Row::value(
        "leader killed: a start that spans it, worst",
        spans.at(100) / 1e3,
        "s",
        1.0,
    )
}

/// Runs this program's copy in a host.
fn inside(host: &Host, args: &[&str]) -> String {
    let argv: Vec<&str> = ["/opt/bench", INSIDE].iter().chain(args).copied().collect();
    let out = host
        .exec_with(&argv, None, BOUND * 2)
        .expect("it runs there");
    assert!(out.success(), "{args:?}: {}{}", out.stdout, out.stderr);
    out.stdout
}

/// Processor seconds of all fleetd together, since they began.
fn cpu_of_fleetd(sandbox: &Sandbox) -> f64 {
    let of = |host: Host| {
        let show = "cat /proc/$(systemctl show --value -p MainPID fleet.service)/stat";
        let stat = host.run(&["sh", "-c", show]).expect("fleetd runs");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        // utime and stime, in hundredths of a second.
        let ticks = |field: usize| fields[field].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / 100.0
    };
    sandbox.hosts().into_iter().map(of).sum()
}

/// Processor seconds of each thread of every fleetd, to the nanosecond: an idle one needs a hundredth
/// of a second in twenty.
fn threads_of_fleetd(sandbox: &Sandbox) -> BTreeMap<String, f64> {
    let of = |host: Host| {
        let show =
            "grep -H . /proc/$(systemctl show --value -p MainPID fleet.service)/task/*/schedstat";
        let threads = host.run(&["sh", "-c", show]).expect("fleetd runs");
        let thread = |line: &str| {
            let (path, counted) = line.split_once(':').expect("a file and what it says");
            let ns = counted.split_whitespace().next().unwrap_or_default();
            let seconds = ns.parse::<f64>().expect("a number") / 1e9;
            (format!("{} {path}", host.name()), seconds)
        };
        threads.lines().map(thread).collect::<Vec<_>>()
    };
    sandbox.hosts().into_iter().flat_map(of).collect()
}

/// Resident memory; which part of it are data, and which are pages of the program's file, is printed.
fn memory(sandbox: &Sandbox, what: &str, goal: f64) -> Row {
    let of = |host: Host| {
        let show = "cat /proc/$(systemctl show --value -p MainPID fleet.service)/status";
        let status = host.run(&["sh", "-c", show]).expect("fleetd runs");
        let mb = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kb = line.and_then(|line| line.split_whitespace().next());
            kb.and_then(|kb| kb.parse::<f64>().ok()).expect("a number") / 1024.0
        };
        let (all, data, file) = (mb("VmRSS:"), mb("RssAnon:"), mb("RssFile:"));
        println!("{what}: {all:.1} MB, of which data {data:.1}, the program's file {file:.1}");
        all
    };
    let largest = sandbox.hosts().into_iter().map(of).fold(0.0, f64::max);
    Row::value(what, largest, "MB", goal)
}

/// The host whose fleetd leads.
fn leader(sandbox: &Sandbox) -> usize {
    let ids: Vec<String> = sandbox
        .hosts()
        .iter()
        .map(|host| host.machine_id().expect("it has one"))
        .collect();
    wait_for("a leader", BOUND, || {
        let get = ["get", "--print-value-only", "/_coreos.com/fleet/leader"];
        let value = sandbox
            .etcd(0)
            .etcdctl(&get)
            .map_err(|error| error.to_string())?;
        let found = ids.iter().position(|id| value.contains(id.as_str()));
        found.ok_or(value)
    })
    .expect("somebody leads")
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// For [`inside`], too.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    ms(began.elapsed())
}
