//! What is different on a terminal: colours and questions. `script` is the terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::session::{HELLO, Session};

/// What is seen on the terminal when this is typed, and the status.
fn typed(session: &Session, environment: &str, command: &str, answer: &str) -> (String, i32) {
    let endpoint = format!("unix://{}", session.path().join("fleet.sock").display());
    let fleetctl = env!("CARGO_BIN_EXE_fleetctl");
    let line = format!("{environment} {fleetctl} --endpoint={endpoint} {command}");
    let mut script = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("SHELL", "/bin/sh")
        .current_dir(session.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Dropped: no more is typed.
    let mut keys = script.stdin.take().unwrap();
    keys.write_all(answer.as_bytes()).unwrap();
    drop(keys);
    let output = script.wait_with_output().unwrap();
    let seen = String::from_utf8(output.stdout).unwrap();
    (seen.replace('\r', ""), output.status.code().unwrap())
}

#[test]
fn errors_warnings_and_hints_are_coloured_unless_no_color_is_set() {
    let session = Session::new();
    session.file("hello.service", HELLO).unit(
        "hello.service",
        "[Service]\nExecStart=/bin/a\n",
        "inactive",
    );
    let (seen, status) = typed(&session, "", "submit hello nope", "");
    assert_eq!(status, 1);
    assert_eq!(
        seen,
        "\u{1b}[33mWARNING: Unit hello.service in registry differs from local unit file \
         hello.service. Add --replace to override.\u{1b}[0m\n\
         \u{1b}[31mError creating units: unable to find Unit(nope.service) in Registry or on \
         filesystem\u{1b}[0m\n"
    );
    let (seen, _) = typed(&session, "NO_COLOR=1", "submit hello nope", "");
    assert!(
        !seen.contains('\u{1b}') && seen.starts_with("WARNING: Unit hello"),
        "{seen:?}"
    );
    // What is data has no colour anywhere.
    let (seen, _) = typed(&session, "", "list-units", "");
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
}

#[test]
fn who_waits_long_is_told_what_for() {
    let session = Session::new();
    session.unit("slow.service", HELLO, "inactive");
    let (seen, status) = typed(&session, "NO_COLOR=1", "start --block-attempts=2 slow", "");
    assert!(
        seen.starts_with(
            "Waiting for slow.service (Ctrl-C ends the wait, not the request)\n\
             Error waiting for units: timed out waiting for unit slow.service"
        ),
        "{seen:?}"
    );
    assert_eq!(status, 1);
}

#[test]
fn what_a_pattern_stands_for_is_asked_about() {
    let session = Session::new();
    session
        .unit("web-1.service", HELLO, "launched")
        .unit("web-2.service", HELLO, "launched")
        .unit("db.service", HELLO, "launched");
    let is_there = |name: &str| session.cluster.lock().unwrap().units.contains_key(name);
    let question = "web-1.service web-2.service: destroy 2 units? (yes/no) ";
    for answer in ["no\n", "\n", "yes, why not\n", "\u{4}"] {
        let (seen, status) = typed(&session, "NO_COLOR=1", "destroy 'web-*'", answer);
        assert!(
            seen.contains(question) && seen.ends_with("Nothing was destroyed\n"),
            "{seen:?}"
        );
        assert_eq!(status, 1);
        assert!(is_there("web-1.service"));
    }
    let (seen, status) = typed(&session, "", "destroy 'web-*'", "Yes\n");
    assert!(seen.contains(question), "{seen:?}");
    assert!(
        seen.ends_with("Destroyed web-1.service\nDestroyed web-2.service\n"),
        "{seen:?}"
    );
    assert_eq!(status, 0);
    // Names are meant as they are typed, and --yes is an answer.
    for command in ["stop db", "stop -y 'd*'"] {
        let (seen, status) = typed(&session, "", command, "");
        assert!(!seen.contains("(yes/no)"), "{seen:?}");
        assert_eq!(status, 0, "{seen:?}");
    }
}
