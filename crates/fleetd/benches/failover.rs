//! How long it takes until the units of a machine that is gone are active elsewhere, with the
//! default configuration: from the moment at which its power (or its cable) is cut until systemd
//! says on the other machines that they are active. `make bench-failover` runs it.
//!
//! A machine that leads, and one that does not, in turns; three machines, one durable etcd. All
//! clocks are the computer's own monotonic one.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::PathBuf;
use std::time::Duration;

use fleet_sandbox::{Host, Loss, Sandbox, built_beside, wait_for};

/// Losses of each kind, unless FLEET_BENCH_ROUNDS says otherwise.
const ROUNDS: usize = 20;
const MACHINES: usize = 3;
/// Of each round: the machine that will go gets one of them at least.
const UNITS: usize = 3;
/// Generous: the computer is shared, and what takes too long is to be seen in the table.
const BOUND: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
enum Blow {
    Power,
    Cable(Option<Loss>),
}

fn main() {
    let rounds = std::env::var("FLEET_BENCH_ROUNDS").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let binaries = std::env::var_os("FLEET_BIN_DIR").map_or_else(
        || built_beside(&std::env::current_exe().expect("a running program has a path")),
        PathBuf::from,
    );
    let sandbox = Sandbox::builder()
        .hosts(MACHINES)
        .bin_dir(&binaries)
        .up()
        .and_then(|sandbox| sandbox.wait_for_fleetd(BOUND).map(|()| sandbox))
        .expect("the sandbox comes up");
    println!("until the last unit is active elsewhere, s      min  median     p90     max");
    let mut round = 0;
    for (what, blow, leads) in [
        (
            "power cut of a machine that does not lead",
            Blow::Power,
            false,
        ),
        ("power cut of the leader", Blow::Power, true),
        ("cable out", Blow::Cable(None), false),
        (
            "cable silent, half-open",
            Blow::Cable(Some(Loss::Both)),
            false,
        ),
        ("nothing reaches it", Blow::Cable(Some(Loss::To)), false),
        (
            "nothing from it arrives",
            Blow::Cable(Some(Loss::From)),
            false,
        ),
    ] {
        let share = match blow {
            Blow::Power => rounds,
            Blow::Cable(_) => rounds.div_ceil(4),
        };
        let mut took: Vec<f64> = (0..share)
            .map(|_| {
                round += 1;
                lose(&sandbox, blow, leads, round)
            })
            .collect();
        took.sort_by(f64::total_cmp);
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        println!(
            "{what:44} {:6.2}  {:6.2}  {:6.2}  {:6.2}  ({share})",
            took[0],
            at(50),
            at(90),
            at(100)
        );
    }
}

/// One loss; seconds until all units of the machine are active on others.
fn lose(sandbox: &Sandbox, blow: Blow, leads: bool, round: usize) -> f64 {
    let units: Vec<String> = (0..UNITS)
        .map(|n| format!("r{round}-{n}.service"))
        .collect();
    let asked = sandbox.host(0);
    for unit in &units {
        let text = "[Service]\nExecStart=/bin/sleep infinity\n";
        asked
            .write_file(format!("/units/{unit}"), text)
            .expect("the host's tree is writable");
        asked
            .run(&["fleetctl", "start", &format!("/units/{unit}")])
            .expect("it starts");
    }
    let leader = leader(sandbox);
    let victim = (0..MACHINES)
        .rev()
        .find(|host| (*host == leader) == leads)
        .unwrap_or(leader);
    let host = sandbox.host(victim);
    let moving: Vec<&String> = units
        .iter()
        .filter(|unit| active_at(&host, unit).is_some())
        .collect();
    let began = clock();
    match blow {
        Blow::Power => host.kill(),
        Blow::Cable(None) => host.cut(),
        Blow::Cable(Some(loss)) => host.lose(loss),
    }
    .expect("it can be cut");
    let others = (0..MACHINES).filter(|other| *other != victim);
    let others: Vec<Host> = others.map(|other| sandbox.host(other)).collect();
    let last = wait_for("the units to be active elsewhere", BOUND, || {
        let found = moving
            .iter()
            .map(|unit| others.iter().find_map(|host| active_at(host, unit)));
        found
            .collect::<Option<Vec<f64>>>()
            .map(|times| times.into_iter().fold(began, f64::max))
            .ok_or("not yet")
    });
    let took = last.expect("they move") - began;
    match blow {
        Blow::Power => host.boot(),
        Blow::Cable(_) => host.heal(),
    }
    .expect("it comes back");
    wait_for("all machines to be there", BOUND, || {
        let out = host.exec(&["fleetctl", "list-machines", "--no-legend"]);
        match out {
            Ok(out) if out.stdout.lines().count() == MACHINES => Ok(()),
            Ok(out) => Err(out.stdout + &out.stderr),
            Err(error) => Err(error.to_string()),
        }
    })
    .expect("it comes back");
    // The next one finds the machines as this one did.
    let destroy: Vec<&str> = ["fleetctl", "destroy"]
        .into_iter()
        .chain(units.iter().map(String::as_str))
        .collect();
    sandbox.host(0).run(&destroy).expect("they go");
    took
}

/// When the unit became active there, in seconds of the monotonic clock; None: it is not.
fn active_at(host: &Host, unit: &str) -> Option<f64> {
    let out = host
        .exec(&[
            "systemctl",
            "show",
            "-p",
            "ActiveState",
            "-p",
            "ActiveEnterTimestampMonotonic",
            unit,
        ])
        .ok()?;
    let value = |key: &str| out.stdout.lines().find_map(|line| line.strip_prefix(key));
    if value("ActiveState=")? != "active" {
        return None;
    }
    let us: f64 = value("ActiveEnterTimestampMonotonic=")?.parse().ok()?;
    Some(us / 1e6)
}

fn clock() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
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
