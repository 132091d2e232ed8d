//! What runs inside a host: forks the commands and times them. Prints lines `WHAT NUMBER…`, in ms.

use std::fmt::Write as _;
use std::process::Command;

use crate::timed;

/// The argument that tells the copy inside the host what to measure.
pub(crate) const INSIDE: &str = "--inside-the-host";

/// Starts of each kind: enough for a 99th percentile.
const ROUNDS: usize = 100;
const LISTINGS: usize = 20;
/// Starts around the killing of a leader; `UNDER_WAY` is written after the first few.
const BUSY: usize = 60;
const BEFORE: usize = 5;
const UNDER_WAY: &str = "/units/under-way";
const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

pub(crate) fn run(args: &[String]) {
    std::fs::create_dir_all("/units").expect("the host's tree is writable");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["start-up"] => start_up(),
        ["one"] => one(),
        ["start", tag, n] => {
            let files = files(tag, n);
            files.iter().for_each(|file| write(file));
            tell("took", &[run_command("fleetctl", "start", &files)]);
        }
        ["destroy", tag, n] => {
            tell(
                "took",
                &[run_command("fleetctl", "destroy", &files(tag, n))],
            );
        }
        ["list"] => {
            let times = (0..LISTINGS).map(|_| run_command("fleetctl", "list-units", &[]));
            tell("list", &times.collect::<Vec<_>>());
        }
        ["systemd", tag, n] => {
            let names: Vec<String> = (0..number(n))
                .map(|n| format!("alone-{tag}-{n}.service"))
                .collect();
            names
                .iter()
                .for_each(|name| write(&format!("/run/systemd/system/{name}")));
            tell("start", &[run_command("systemctl", "start", &names)]);
            tell("stop", &[run_command("systemctl", "stop", &names)]);
        }
        ["busy", tag] => busy(tag),
        _ => panic!("unknown: {args:?}"),
    }
}

fn start_up() {
    let (mut fleetctl, mut systemctl) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        systemctl.push(run_command("systemctl", "--version", &[]));
        fleetctl.push(run_command("fleetctl", "--version", &[]));
    }
    tell("systemctl", &systemctl);
    tell("fleetctl", &fleetctl);
}

fn one() {
    let (mut fleet, mut systemd) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let by_fleet = format!("/units/by-fleet-{round}.service");
        let by_systemd = format!("by-systemd-{round}.service");
        write(&by_fleet);
        write(&format!("/run/systemd/system/{by_systemd}"));
        systemd.push(run_command("systemctl", "start", &[by_systemd]));
        fleet.push(run_command("fleetctl", "start", &[by_fleet]));
    }
    tell("systemd", &systemd);
    tell("fleet", &fleet);
    run_command("fleetctl", "destroy", &["by-fleet-*".to_owned()]);
}

fn busy(tag: &str) {
    // A file of the time before would be taken for ours.
    let _ = std::fs::remove_file(UNDER_WAY);
    let mut times = Vec::new();
    for n in 0..BUSY {
        let file = format!("/units/{tag}-{n}.service");
        write(&file);
        times.push(run_command("fleetctl", "start", &[file]));
        if n == BEFORE {
            std::fs::write(UNDER_WAY, "").expect("the host's tree is writable");
        }
    }
    let _ = std::fs::remove_file(UNDER_WAY);
    tell("busy", &times);
    run_command("fleetctl", "destroy", &[format!("{tag}-*")]);
}

fn files(tag: &str, n: &str) -> Vec<String> {
    let file = |n| format!("/units/{tag}-{n}.service");
    (0..number(n)).map(file).collect()
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn write(path: &str) {
    std::fs::write(path, TEXT).expect("the host's tree is writable");
}

/// In ms.
fn run_command(program: &str, verb: &str, args: &[String]) -> f64 {
    let mut command = Command::new(program);
    command.arg(verb).args(args);
    let mut out = None;
    let took = timed(|| out = command.output().ok());
    let out = out.expect("the program exists in the host");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {verb}: {said}");
    took
}

#[expect(clippy::print_stdout, reason = "this is read by the copy outside")]
fn tell(what: &str, times: &[f64]) {
    let mut line = what.to_owned();
    for time in times {
        let _ = write!(line, " {time}");
    }
    println!("{line}");
}
