use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::session::{HELLO, Session};

fn session() -> Session {
    let mut session = Session::with_engine();
    session
        .file("a.service", HELLO)
        .file("b.service", HELLO)
        .file(
            "mars.service",
            &format!("{HELLO}\n[X-Fleet]\nMachineMetadata=region=mars\n"),
        );
    session
        .run("fleetctl start a b")
        .run("fleetctl start --block-attempts=1 mars")
        .run("fleetctl drain 6a97")
        .run("fleetctl destroy a")
        .seen();
    session
}

#[test]
fn what_became_of_a_unit_and_of_a_machine() {
    let mut session = session();
    session
        .run("fleetctl events --unit a")
        .run("fleetctl events -u b.service -n 2")
        .run("fleetctl events --unit ma*")
        .run("fleetctl events --machine 6a97 --since 10m")
        .run("fleetctl events --unit nothing")
        .shows(
            "
$ fleetctl events --unit a
TIME (UTC)           EVENT      UNIT              MACHINE        BY           WHY
TIME  submitted  a.service         -              -            a new unit, to be launched
TIME  placed     a.service         63d22e36...    63d22e36...  fewest units (0) of the machines that may run it
TIME  destroyed  a.service         -              -            -
TIME  unplaced   a.service         63d22e36... →  63d22e36...  it was destroyed; 63d22e36 has not yet confirmed its stop
$ fleetctl events -u b.service -n 2
TIME (UTC)           EVENT     UNIT              MACHINE                    BY           WHY
TIME  placed    b.service         6a97c281...                63d22e36...  fewest units (0) of the machines that may run it
TIME  moved     b.service         6a97c281... → 63d22e36...  63d22e36...  6a97c281 is being drained; fewest units (1) of the machines that may run it
$ fleetctl events --unit ma*
TIME (UTC)           EVENT      UNIT              MACHINE      BY           WHY
TIME  submitted  mars.service      -            -            a new unit, to be launched
TIME  pending    mars.service      -            63d22e36...  no machine may run it: MachineMetadata region=mars
$ fleetctl events --machine 6a97 --since 10m
TIME (UTC)           EVENT     UNIT              MACHINE                    BY           WHY
TIME  present   -                 6a97c281...                63d22e36...  it joined
TIME  placed    b.service         6a97c281...                63d22e36...  fewest units (0) of the machines that may run it
TIME  asked     -                 6a97c281...                -            to be drained
TIME  moved     b.service         6a97c281... → 63d22e36...  63d22e36...  6a97c281 is being drained; fewest units (1) of the machines that may run it
$ fleetctl events --unit nothing
2> Nothing of that kind is kept.
",
        );
}

#[test]
fn programs_get_all_of_it_and_mistakes_are_named() {
    let mut session = session();
    session.run("fleetctl events -o json");
    let seen = session.seen();
    let json = seen.strip_prefix("$ fleetctl events -o json\n").unwrap();
    let events: serde_json::Value = serde_json::from_str(&json.replace("MS", "0")).unwrap();
    let kinds = events.as_array().unwrap().iter();
    let kinds: Vec<&str> = kinds.map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in [
        "leader",
        "present",
        "submitted",
        "placed",
        "moved",
        "destroyed",
    ] {
        assert!(kinds.contains(&kind), "{kind} of {kinds:?}");
    }
    session
        .run("fleetctl events --since yesterday")
        .run("fleetctl events --machine 99")
        .run("fleetctl events --unit [")
        .shows(
            "
$ fleetctl events --since yesterday
2> invalid --since \"yesterday\"
2> hint: use 30s, 10m, 2h or 3d, or a time in UTC as 2026-11-28 11:20 or 2026-11-28
rc=1
$ fleetctl events --machine 99
2> Machine 99 not found: no machine's id begins so
2> hint: fleetctl list-machines --all shows the ids; any beginning of one will do
rc=1
$ fleetctl events --unit [
2> googleapi: Error 400: invalid unit \"[\": it is no pattern; a [ wants a ]
rc=1
",
        );
    let mut session = Session::with_original();
    session.run("fleetctl events").shows(
        "
$ fleetctl events
2> This fleetd is an original fleet 1.0, which does not keep what happened.
2> hint: see the machines' journals (journalctl -u fleet), or upgrade fleetd
rc=1
",
    );
}

/// Kills it, if it is still there.
struct Following(std::process::Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_comes_is_shown_as_it_comes_until_ctrl_c() {
    let mut session = Session::with_engine();
    session.file("a.service", HELLO);
    session.run("fleetctl submit a").seen();
    session.requests();
    let mut process = session.process("fleetctl events -f --unit a");
    let process = process.stdout(Stdio::piped()).spawn().unwrap();
    let mut following = Following(process);
    let stdout = BufReader::new(following.0.stdout.take().unwrap());
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    // Without the time.
    let next = || -> String {
        let line = lines.recv_timeout(Duration::from_secs(60)).expect("a line");
        line.get(19..).unwrap_or_default().to_owned()
    };
    assert!(next().starts_with("  EVENT"));
    assert_eq!(
        next(),
        "  submitted  a.service         -            -         a new unit, to be inactive"
    );
    session.run("fleetctl start a").run("fleetctl destroy a");
    for expected in ["submitted", "placed", "destroyed", "unplaced"] {
        let line = next();
        assert!(line.starts_with(&format!("  {expected} ")), "{line}");
    }
    let pid = rustix::process::Pid::from_child(&following.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(following.0.wait().unwrap().code(), Some(0));
}
