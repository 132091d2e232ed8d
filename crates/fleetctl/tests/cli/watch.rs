//! `fleetctl list-units --watch`

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::fake::{H1, H2};
use crate::session::{HELLO, Session};

/// Far more than a line takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command that goes on, line by line; killed at the end if it is still there.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn new(session: &Session, command: &str) -> Watching {
        let mut process = session.process(command);
        let mut child = process.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Watching { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Without the time.
    fn row(&self) -> String {
        self.next().get(21..).unwrap_or_default().to_owned()
    }

    fn interrupt(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn rows_come_and_then_each_that_changes_until_ctrl_c() {
    let mut session = Session::with_fleetd();
    session.file("a.service", HELLO).file("b.service", HELLO);
    session.run("fleetctl start a");
    let watching = Watching::new(&session, "fleetctl list-units --watch");
    assert_eq!(
        watching.row(),
        "UNIT              LOAD    ACTIVE    SUB      DESC              MACHINE"
    );
    let row = |unit: &str, rest: &str| format!("{unit}         {rest}");
    let running = format!("loaded  active    running  Hello World       {H1}");
    assert_eq!(watching.row(), row("a.service", &running));
    session.run("fleetctl load b");
    let loaded = format!("loaded  inactive  dead     Hello World       {H1}");
    loop {
        let line = watching.row();
        if line == row("b.service", &loaded) {
            break;
        }
        assert_eq!(
            line,
            row(
                "b.service",
                "-       -         -        -                 -"
            )
        );
    }
    session.run("fleetctl destroy a");
    loop {
        let line = watching.row();
        if line
            == row(
                "a.service",
                "-       gone      -        -                 -",
            )
        {
            break;
        }
        assert!(line.starts_with("a.service"), "{line}");
    }
    assert_eq!(watching.interrupt(), Some(0));
}

#[test]
fn it_goes_on_where_it_was_cut_and_shows_only_what_is_different() {
    let unit = |name: &str, sub: &str| {
        format!(
            r#"{{"name":"{name}","machineID":"{H1}","states":[{{"machineID":"{H1}","load":"loaded","active":"active","sub":"{sub}"}}]}}"#
        )
    };
    let global = |machines: &[&str]| {
        let states: Vec<String> = machines
            .iter()
            .map(|id| {
                format!(r#"{{"machineID":"{id}","load":"loaded","active":"active","sub":"s"}}"#)
            })
            .collect();
        format!(
            r#"{{"name":"g","global":true,"states":[{}]}}"#,
            states.join(",")
        )
    };
    let session = Session::new();
    session.cluster.lock().unwrap().watches = [
        // The listing breaks off: it begins anew.
        Some((
            format!(
                "{{\"revision\":0,\"listing\":true,\"units\":[{}]}}\n",
                unit("a", "one")
            ),
            true,
        )),
        Some((
            format!(
                "{{\"revision\":0,\"listing\":true,\"units\":[{}]}}\n\
                 {{\"revision\":7,\"listing\":true,\"units\":[{},{}]}}\n\
                 {{\"revision\":8,\"units\":[{}],\"end\":\"go on\"}}\n",
                unit("a", "one"),
                unit("b", "one"),
                global(&[H1, H2]),
                unit("b", "two"),
            ),
            true,
        )),
        Some((
            format!("{{\"revision\":9,\"units\":[{}]}}\n", global(&[H2])),
            true,
        )),
        // What came after is forgotten: all of it comes again, and `b` has gone meanwhile.
        None,
        Some((
            format!(
                "{{\"revision\":19,\"listing\":true,\"units\":[{},{}]}}\n",
                unit("a", "three"),
                global(&[H2]),
            ),
            false,
        )),
    ]
    .into();
    let watching = Watching::new(&session, "fleetctl list-units --watch -o json");
    let next = || -> (String, String, bool) {
        let row: serde_json::Value = serde_json::from_str(&watching.next()).unwrap();
        assert!(row["atMs"].as_u64().is_some());
        let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let machine = text("machineID");
        let machine = machine.get(..4).unwrap_or("-");
        let unit = format!("{} {machine}", text("unit"));
        (unit, text("sub"), row["gone"] == true)
    };
    for (unit, sub, gone) in [
        ("a 63d2", "one", false),
        ("b 63d2", "one", false),
        ("g 63d2", "s", false),
        ("g 6a97", "s", false),
        ("b 63d2", "two", false),
        ("g 63d2", "-", true),
        ("a 63d2", "three", false),
        ("b -", "-", true),
    ] {
        assert_eq!(next(), (unit.to_owned(), sub.to_owned(), gone));
    }
    let fields = "fields=description,global,hash,machineID,states";
    let asked: Vec<String> = session.requests();
    let asked: Vec<&String> = asked
        .iter()
        .filter(|text| text.starts_with("fields"))
        .collect();
    let after = |revision: u64| format!("{fields}&revision={revision}");
    assert_eq!(
        asked,
        [
            &fields.to_owned(),
            &fields.to_owned(),
            &after(8),
            &after(9),
            &fields.to_owned(),
        ]
    );
}

#[test]
fn whoever_looks_no_more_ends_it() {
    use std::io::Read;

    let mut session = Session::with_fleetd();
    session.file("a.service", HELLO);
    let mut process = session.process("fleetctl list-units --watch");
    let mut child = process.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    session.run("fleetctl submit a");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_be_watched_is_said() {
    let mut session = Session::with_original();
    session
        .run("fleetctl list-units --watch")
        .run("fleetctl list-units --watch --full")
        .shows(
            "
$ fleetctl list-units --watch
2> This fleetd is an original fleet 1.0, which cannot be watched.
2> hint: list again and again (watch fleetctl list-units), or upgrade fleetd
rc=1
$ fleetctl list-units --watch --full
2> Error: the argument '--watch' cannot be used with '--full'
2> Run 'fleetctl list-units --help' for usage.
rc=2
",
        );
}
