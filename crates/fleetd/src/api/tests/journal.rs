//! `/fleet/v2/journal`: merged over machines, followed over moves, resumed by cursor; what runs for a
//! reader ends with him.

use fleet_api::client::{JournalStream, JournalWanted};
use fleet_api::v2::{JournalCursor, JournalLine};
use tokio::time::timeout;

use super::machine::{Machines, PATIENCE, until};
use super::*;

fn wanted(units: &[&str]) -> JournalWanted {
    JournalWanted {
        units: units.iter().map(|unit| (*unit).to_owned()).collect(),
        ..JournalWanted::default()
    }
}

async fn next(stream: &mut JournalStream<'_>) -> Option<JournalLine> {
    let next = timeout(PATIENCE, stream.next()).await;
    next.expect("a line comes").unwrap()
}

/// The next lines of journals; what else is said is passed over.
async fn messages(stream: &mut JournalStream<'_>, n: usize) -> Vec<String> {
    let mut messages = Vec::new();
    let read = async {
        while messages.len() < n {
            let line = next(stream).await.expect("it goes on");
            messages.extend(line.entry.map(|entry| entry.message));
        }
    };
    // Heartbeats alone would have it go on for ever.
    let read = timeout(PATIENCE, read).await;
    assert!(read.is_ok(), "only {messages:?}, not {n}");
    messages
}

/// All lines up to the end, what was said beside them, and where to go on.
async fn all(
    machines: &Machines,
    asked: &str,
    wanted: &JournalWanted,
) -> (Vec<String>, Vec<JournalLine>, JournalCursor) {
    let client = machines.client(asked);
    let mut stream = client.journal(wanted).await.unwrap();
    let (mut messages, mut notes) = (Vec::new(), Vec::new());
    let began = tokio::time::Instant::now();
    while let Some(line) = next(&mut stream).await {
        assert!(began.elapsed() < PATIENCE, "no end after {messages:?}");
        if let Some(entry) = line.entry {
            messages.push(entry.message);
            continue;
        }
        if !line.end.is_empty() {
            let cursor = JournalCursor::parse(&line.cursor).unwrap();
            return (messages, notes, cursor);
        }
        if !line.note.is_empty() {
            notes.push(line);
        }
    }
    panic!("it ended early: {messages:?}");
}

#[tokio::test]
async fn lines_of_all_machines_in_the_order_of_time() {
    let machines = Machines::up(&["m1", "m2"]).await;
    machines.unit("web@1.service", &["m1"]).await;
    machines.unit("web@2.service", &["m2"]).await;
    machines.unit("other.service", &["m1"]).await;
    for (machine, at, unit, message) in [
        ("m1", 10, "web@1.service", "a"),
        ("m1", 15, "other.service", "x"),
        ("m2", 20, "web@2.service", "b"),
        ("m1", 30, "web@1.service", "c"),
        ("m2", 40, "web@2.service", "d"),
    ] {
        machines.machine(machine).says(at, unit, message);
    }
    for asked in ["m1", "m2"] {
        let (lines, notes, _) = all(&machines, asked, &wanted(&["web@*"])).await;
        assert_eq!(
            (lines.concat(), notes.len()),
            ("abcd".to_owned(), 0),
            "{asked}"
        );
        let one = all(&machines, asked, &wanted(&["web@2.service"])).await;
        assert_eq!(one.0.concat(), "bd", "{asked}");
        // The newest of all of them, not of each.
        let last = JournalWanted {
            lines: Some(2),
            ..wanted(&["web@*"])
        };
        assert_eq!(
            all(&machines, asked, &last).await.0.concat(),
            "cd",
            "{asked}"
        );
        let since = JournalWanted {
            since_us: Some(20),
            ..wanted(&["web@*"])
        };
        assert_eq!(
            all(&machines, asked, &since).await.0.concat(),
            "bcd",
            "{asked}"
        );
        let of_one = JournalWanted {
            machine: Some("m1".into()),
            ..wanted(&["web@*"])
        };
        assert_eq!(
            all(&machines, asked, &of_one).await.0.concat(),
            "ac",
            "{asked}"
        );
        // What it had before it was elsewhere: nobody else knows.
        let of_one = JournalWanted {
            machine: Some("m1".into()),
            ..wanted(&["web@2.service"])
        };
        assert_eq!(
            all(&machines, asked, &of_one).await.0.concat(),
            "",
            "{asked}"
        );
    }
    let fields = JournalWanted {
        fields: true,
        ..wanted(&["web@2.service"])
    };
    let client = machines.client("m1");
    let mut stream = client.journal(&fields).await.unwrap();
    let entry = loop {
        let line = next(&mut stream).await.unwrap();
        if let Some(entry) = line.entry {
            break entry;
        }
    };
    assert_eq!(
        (&*entry.machine_id, &*entry.unit, &*entry.host),
        ("m2", "web@2.service", "m2")
    );
    assert_eq!(entry.fields.unwrap()["__CURSOR"], "s=m2;i=1");
}

#[tokio::test]
async fn reading_goes_on_after_a_cursor_and_says_nothing_twice() {
    let machines = Machines::up(&["m1", "m2"]).await;
    machines.unit("g.service", &["m1", "m2"]).await;
    machines.machine("m1").says(10, "g.service", "a");
    machines.machine("m2").says(20, "g.service", "b");
    machines.machine("m2").says(30, "g.service", "c");
    let last = JournalWanted {
        lines: Some(1),
        ..wanted(&["g.service"])
    };
    let (lines, _, cursor) = all(&machines, "m1", &last).await;
    assert_eq!(lines.concat(), "c");
    machines.machine("m1").says(40, "g.service", "d");
    machines.machine("m2").says(50, "g.service", "e");
    let after = |cursor: &JournalCursor| JournalWanted {
        after: Some(cursor.clone()),
        ..wanted(&["g.service"])
    };
    // At another fleetd, too.
    let (lines, _, cursor) = all(&machines, "m2", &after(&cursor)).await;
    assert_eq!(lines.concat(), "de");
    let (lines, ..) = all(&machines, "m1", &after(&cursor)).await;
    assert_eq!(lines.concat(), "");
}

#[tokio::test]
async fn a_unit_is_followed_when_it_moves_and_new_instances_are_found() {
    let machines = Machines::up(&["m1", "m2", "m3"]).await;
    machines.unit("web@1.service", &["m1"]).await;
    machines.machine("m1").says(10, "web@1.service", "a");
    let client = machines.client("m3");
    let follow = JournalWanted {
        follow: true,
        lines: Some(10),
        ..wanted(&["web@*"])
    };
    let mut stream = client.journal(&follow).await.unwrap();
    assert_eq!(messages(&mut stream, 1).await, ["a"]);
    // Lines of the future, so that they are not before the reader asked.
    let now = crate::clock::unix_ms() * 1_000 + 3_600_000_000;
    machines.machine("m1").says(now, "web@1.service", "b");
    assert_eq!(messages(&mut stream, 1).await, ["b"]);
    // It says something where it goes to before anybody knows that it is there, and where it leaves.
    machines.machine("m2").says(now + 1, "web@1.service", "c");
    machines.unit("web@1.service", &["m2"]).await;
    assert_eq!(messages(&mut stream, 1).await, ["c"]);
    machines
        .machine("m1")
        .says(now + 2, "web@1.service", "stopped");
    assert_eq!(messages(&mut stream, 1).await, ["stopped"]);
    // Another one, on a machine that is read already.
    machines.machine("m2").says(now + 3, "web@2.service", "d");
    machines.unit("web@2.service", &["m2"]).await;
    assert_eq!(messages(&mut stream, 1).await, ["d"]);
    machines.machine("m2").says(now + 4, "web@1.service", "e");
    assert_eq!(messages(&mut stream, 1).await, ["e"]);
    // One that is not wanted starts nothing.
    let before = machines.machine("m3").n_started();
    machines.unit("other.service", &["m3"]).await;
    machines.machine("m1").says(now + 5, "web@1.service", "f");
    assert_eq!(messages(&mut stream, 1).await, ["f"]);
    assert_eq!(machines.machine("m3").n_started(), before);
}

#[tokio::test]
async fn what_runs_for_a_reader_ends_with_him() {
    let machines = Machines::up(&["m1", "m2"]).await;
    machines.unit("g.service", &["m1", "m2"]).await;
    machines.machine("m1").says(10, "g.service", "a");
    machines.machine("m2").says(20, "g.service", "b");
    let client = machines.client("m1");
    let follow = JournalWanted {
        follow: true,
        ..wanted(&["g.service"])
    };
    let mut stream = client.journal(&follow).await.unwrap();
    assert_eq!(messages(&mut stream, 2).await, ["a", "b"]);
    for id in ["m1", "m2"] {
        assert_eq!(machines.machine(id).running().len(), 1, "{id}");
    }
    drop(stream);
    for id in ["m1", "m2"] {
        until("the end of journalctl", || {
            machines.machine(id).running().is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn a_machine_that_does_not_answer_is_said_and_the_others_are_read() {
    let mut machines = Machines::up(&["m1", "m2", "m3"]).await;
    machines.unit("g.service", &["m1", "m2", "m3"]).await;
    machines.machine("m1").says(10, "g.service", "a");
    machines.machine("m3").says(20, "g.service", "b");
    machines.cluster.remove(keys::machine("m2")).await;
    let (lines, notes, cursor) = all(&machines, "m1", &wanted(&["g.service"])).await;
    assert_eq!(lines.concat(), "ab");
    let [note] = notes.as_slice() else {
        panic!("{notes:?}")
    };
    assert_eq!(note.note, "machine m2 is not present");
    assert!(
        note.hint.contains("fleetctl why m2") && note.missing_id == "m2",
        "{note:?}"
    );
    assert!(!cursor.machines.contains_key("m2"));

    // One that goes while it is followed, and comes back.
    let client = machines.client("m1");
    let follow = JournalWanted {
        follow: true,
        after: Some(cursor),
        ..wanted(&["g.service"])
    };
    let mut stream = client.journal(&follow).await.unwrap();
    let now = crate::clock::unix_ms() * 1_000 + 3_600_000_000;
    machines.machine("m3").says(now, "g.service", "c");
    assert_eq!(messages(&mut stream, 1).await, ["c"]);
    machines.stop("m3");
    machines.machine("m3").says(now + 1, "g.service", "d");
    let told = async {
        loop {
            let line = next(&mut stream).await.unwrap();
            if line.missing_id == "m3" {
                return line.note;
            }
        }
    };
    let note = told.await;
    assert!(note.contains("m3"), "{note}");
    machines.machine("m1").says(now + 2, "g.service", "e");
    assert_eq!(messages(&mut stream, 1).await, ["e"]);
    machines.start("m3").await;
    assert_eq!(messages(&mut stream, 1).await, ["d"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let machines = Machines::up(&["m1"]).await;
    assert_eq!(
        machines.cluster.put("idle.service", SLEEP).await.status,
        201
    );
    let client = machines.client("m1");
    for (units, code, message) in [
        (
            &["nope.service"][..],
            404,
            "unit nope.service does not exist",
        ),
        (&["nope*"], 404, "no unit on any machine matches"),
        (&[], 400, "no unit is named"),
        (&["a["], 400, "invalid unit"),
        (&["nonsense"], 400, "invalid unit name"),
    ] {
        let error = client.journal(&wanted(units)).await.err().unwrap();
        assert_eq!(error.code(), Some(code), "{units:?}: {error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    let many: Vec<String> = (0..201).map(|n| format!("a{n}.service")).collect();
    let many = JournalWanted {
        units: many,
        ..JournalWanted::default()
    };
    let error = client.journal(&many).await.err().unwrap();
    assert!(error.to_string().contains("more than 200 units"), "{error}");
    let (lines, notes, _) = all(&machines, "m1", &wanted(&["idle.service"])).await;
    assert!(lines.is_empty());
    assert_eq!(notes[0].note, "idle.service is on no machine");
    for query in [
        "unit=a.service&follow=x",
        "unit=a.service&lines=x",
        "unit=a.service&after=x",
    ] {
        let got = machines
            .cluster
            .get(&format!("/fleet/v2/journal?{query}"))
            .await;
        assert_eq!(got.status, 400, "{query}: {}", got.body);
    }
}

#[tokio::test]
async fn whoever_may_not_read_a_journal_gets_none_of_it_also_from_another_machine() {
    let machines = Machines::up(&["m1", "m2"]).await;
    for unit in ["web-1.service", "db-1.service"] {
        machines.unit(unit, &["m2"]).await;
        machines.machine("m2").says(10, unit, unit);
    }
    let role = "[Role web]\nAllow=journal:read\nUnits=web-*\n[Role look]\nAllow=unit:read\n\
                [Grant web]\nTo=uid:1000\n[Grant look]\nTo=uid:1000\n";
    let mut cluster = Cluster::over(Arc::clone(&machines.cluster.store), 100);
    let manager = Arc::clone(&machines.machines["m1"]);
    let state = ApiState::new(Arc::clone(&cluster.store), 100, "1.2.3");
    let way = Arc::new(crate::peer::Plaintext);
    cluster.state = state
        .under(crate::access::Access::new(super::access::policy(role)))
        .with_units(MachineId::new("m1"), manager, way);
    let alice = crate::access::Caller::Unix {
        uid: 1000,
        gid: 1000,
        pid: None,
    };
    let refused = cluster
        .ask(&alice, "GET", "/fleet/v2/journal?unit=db-1.service", "")
        .await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.contains("journal:read"), "{}", refused.body);
    // Nor are there lines in what this machine says of a unit that it has.
    machines.unit("db-2.service", &["m1"]).await;
    machines.machine("m1").says(10, "db-2.service", "secret");
    let status = cluster
        .ask(&alice, "GET", "/fleet/v2/units/db-2.service/status", "")
        .await;
    assert_eq!(status.status, 200, "{}", status.body);
    assert!(!status.body.contains("secret"), "{}", status.body);
    let everybody = machines.client("m1").unit_status("db-2.service", 9).await;
    let everybody = everybody.unwrap().unwrap();
    assert_eq!(everybody.machines[0].lines[0].message, "secret");
    // She is told to the other machine with the names of her roles, and that one knows no policy.
    let status = cluster
        .ask(&alice, "GET", "/fleet/v2/units/db-1.service/status", "")
        .await;
    let status: fleet_api::v2::UnitStatus = serde_json::from_str(&status.body).unwrap();
    let [on] = status.machines.as_slice() else {
        panic!("{status:?}")
    };
    assert!(on.lines.is_empty(), "{on:?}");
    assert!(on.error.contains("403"), "{on:?}");
}
