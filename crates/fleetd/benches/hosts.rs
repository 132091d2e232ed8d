//! How long starting one unit takes on real hosts, beside the yardstick: `systemctl start` of the
//! same unit in the same run. `make bench` runs it.
//!
//! Both commands are forked and timed by one process inside the first host (this program, copied
//! there), so that entering the host is not counted. Three machines, one durable etcd.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fleet_sandbox::{Sandbox, built_beside};

/// Starts of each kind: enough for a 99th percentile.
const ROUNDS: usize = 100;

/// The argument that tells the copy inside the host to measure.
const INSIDE: &str = "--inside-the-host";

fn main() {
    if std::env::args().any(|arg| arg == INSIDE) {
        measure();
    } else {
        outside();
    }
}

/// Boots the machines and runs the copy of this program in the first.
fn outside() {
    let own = std::env::current_exe().expect("a running program has a path");
    let binaries = built_beside(&own);
    let sandbox = Sandbox::builder()
        .hosts(3)
        .bin_dir(&binaries)
        .up()
        .and_then(|sandbox| {
            sandbox
                .wait_for_fleetd(Duration::from_secs(60))
                .map(|()| sandbox)
        })
        .expect("the sandbox comes up");
    let host = sandbox.host(0);
    host.install(&own, "/opt/bench")
        .expect("the program is copied into the host");
    let out = host.run(&["/opt/bench", INSIDE]).expect("it runs there");
    println!("{out}");
}

fn measure() {
    let mut fleet = Vec::new();
    let mut systemd = Vec::new();
    std::fs::create_dir_all("/units").expect("the host's tree is writable");
    for round in 0..ROUNDS {
        let text = "[Service]\nExecStart=/bin/sleep infinity\n";
        let by_fleet = format!("/units/by-fleet-{round}.service");
        let by_systemd = format!("by-systemd-{round}.service");
        write(&by_fleet, text);
        write(&format!("/run/systemd/system/{by_systemd}"), text);
        systemd.push(timed(
            Command::new("systemctl").args(["start", &by_systemd]),
        ));
        fleet.push(timed(Command::new("fleetctl").args(["start", &by_fleet])));
    }
    let (fleet, systemd) = (Times::of(fleet), Times::of(systemd));
    println!(
        "start of one unit, {ROUNDS} each, 3 machines        min     p50     p90     p99     max"
    );
    println!("  systemctl start (yardstick)            {systemd}");
    println!("  fleetctl start                         {fleet}");
    let ratio = |part: usize| fleet.at(part).as_secs_f64() / systemd.at(part).as_secs_f64();
    println!(
        "  fleetctl / systemctl: p50 {:.2} (goal 1.00), p99 {:.2} (goal 1.50)",
        ratio(50),
        ratio(99),
    );
}

fn write(path: &str, text: &str) {
    std::fs::write(Path::new(path), text).expect("the host's tree is writable");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    let out = command.output().expect("the program exists in the host");
    let took = start.elapsed();
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    took
}

/// In order.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    /// So many in a hundred took no longer.
    fn at(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{:6.1}  {:6.1}  {:6.1}  {:6.1}  {:6.1} ms",
            ms(self.0[0]),
            ms(self.at(50)),
            ms(self.at(90)),
            ms(self.at(99)),
            ms(self.at(100)),
        )
    }
}
