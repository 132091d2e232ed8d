//! `fleetctl journal`: journalctl's lines, from where the unit is.

use crate::rig::{Rig, SOON, assert_seen};

pub(crate) fn lines_from_the_units_machine(rig: &Rig) {
    let host = rig.sandbox.host(1);
    let has_spoken = "journalctl -u talker.service | grep -q two";
    host.wait_until(SOON, &["sh", "-c", has_spoken]).unwrap();
    // The user is root there and needs none: this one says that it was asked.
    let sudo = "#!/bin/sh\necho \"sudo $*\" >&2\nexec \"$@\"\n";
    host.write_file("/opt/fleet/bin/sudo", sudo).unwrap();
    host.run(&["chmod", "755", "/opt/fleet/bin/sudo"]).unwrap();
    assert_seen(
        &[
            rig.seen(&["journal", "--ssh", "--output=cat", "--lines=100", "talker"]),
            rig.seen(&[
                "journal", "--ssh", "--sudo", "-n", "1", "-o", "cat", "talker",
            ]),
            rig.seen(&["journal", "--ssh", "--lines=3", "talker"]),
            rig.seen(&["journal", "--ssh", "--output=nonsense", "talker"]),
            rig.seen(&["journal", "--ssh", "everywhere"]),
            rig.seen(&["journal", "--ssh", "idle"]),
            rig.seen(&["journal", "--ssh", "nope"]),
            rig.seen(&["journal", "--ssh", "--ssh-port=1", "talker"]),
        ],
        r#"
$ fleetctl journal --ssh --output=cat --lines=100 talker
Started talker.service - Says two words.
one
two
$ fleetctl journal --ssh --sudo -n 1 -o cat talker
two
2> sudo journalctl --unit talker.service --no-pager -n 1 --output cat
$ fleetctl journal --ssh --lines=3 talker
WHEN HOST2 systemd: Started talker.service - Says two words.
WHEN HOST2 sh: one
WHEN HOST2 sh: two
$ fleetctl journal --ssh --output=nonsense talker
2> Unknown output format 'nonsense'.
rc=1
$ fleetctl journal --ssh everywhere
2> Unable to retrieve journal of global unit everywhere.service.
2> hint: take one machine at a time: fleetctl ssh ID1 -- journalctl --unit everywhere.service
rc=1
$ fleetctl journal --ssh idle
2> Unit idle.service does not appear to be running.
rc=1
$ fleetctl journal --ssh nope
2> Unit nope.service does not exist.
rc=1
$ fleetctl journal --ssh --ssh-port=1 talker
2> Unable to SSH to remote host: ID2.../IP2: Process exited with status 255
rc=255
"#,
    );
}

pub(crate) fn lines_are_followed_as_they_come(rig: &Rig) {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    use rustix::process::{Pid, Signal, kill_process_group};

    let mut following = rig
        .command(&[
            "journal",
            "--ssh",
            "-f",
            "--output=cat",
            "--lines=1",
            "talker",
        ])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    rig.fleetctl(&["start", "talker"]).ok();
    let said = lines.map(Result::unwrap).find(|line| line == "two");
    assert_eq!(said.as_deref(), Some("two"));
    // As a terminal's Ctrl-C: fleetctl and its ssh.
    kill_process_group(Pid::from_child(&following), Signal::INT).unwrap();
    following.wait().unwrap();
}

pub(crate) fn on_this_machine_without_ssh(rig: &Rig) {
    let host = rig.sandbox.host(1);
    let argv = ["fleetctl", "journal", "--ssh", "--output=cat", "talker"];
    let journal = host.exec(&argv).unwrap();
    assert!(journal.success(), "{journal:?}");
    assert!(journal.stdout.contains("two\n"), "{journal:?}");
}

/// Its fleetd serves nobody but its own machine.
pub(crate) fn a_machine_that_fleetd_cannot_ask_is_asked_through_ssh(rig: &Rig) {
    let journal = rig.fleetctl(&["journal", "-o", "cat", "-n", "1", "talker"]);
    assert_eq!(journal.status, 0, "{journal:?}");
    assert_eq!(journal.out, "Stopped talker.service - Says two words.\n");
    assert!(
        journal.err.contains("hint: asked through ssh"),
        "{journal:?}"
    );
    // Of a global unit fleetd reads what it can, and says the rest.
    let journal = rig.fleetctl(&["journal", "-o", "json", "-n", "9", "everywhere"]);
    assert_eq!(journal.status, 1, "{journal:?}");
    assert!(
        journal
            .out
            .contains(&format!("\"FLEET_MACHINE_ID\":\"{}\"", rig.id(0))),
        "{journal:?}"
    );
    let missing = format!("WARNING: machine {} says nowhere", &rig.id(1)[..8]);
    assert!(journal.err.contains(&missing), "{journal:?}");
}
