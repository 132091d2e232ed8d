//! Keys of hosts: asked for, stored, refused.

use std::fs;
use std::process::Command;

use crate::rig::{BARE_PORT, Rig, new_host_key, ran};

fn answering(rig: &Rig, answer: &str, args: &[&str]) -> Command {
    let mut command = rig.command(args);
    command.env("SSH_ANSWER", answer);
    command
}

pub(crate) fn an_unknown_key_that_is_declined(rig: &Rig) {
    let ran = ran(&mut answering(rig, "no", &["list-machines"]));
    assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(
        ran.err.starts_with(
            "Unable to initialize client: failed initializing SSH client: \
             Host key verification failed.\nhint: "
        ),
        "{ran:?}"
    );
    let question = fs::read_to_string(rig.path("questions")).unwrap();
    let address = rig.address(0);
    assert!(
        question.contains(&format!("authenticity of host '{address}")),
        "{question}"
    );
    assert_eq!(rig.known_hosts(), "");
}

pub(crate) fn without_checks_nothing_is_stored(rig: &Rig) {
    let _ = fs::remove_file(rig.path("questions"));
    let ran = rig.fleetctl(&["--strict-host-key-checking=false", "list-machines"]);
    assert_eq!(ran.err, "", "no word of a stored key");
    assert!(ran.ok().contains(&rig.id(1)));
    assert!(!rig.path("questions").exists(), "a question was asked");
    assert_eq!(rig.known_hosts(), "");
}

pub(crate) fn an_unknown_key_that_is_accepted(rig: &Rig) {
    let accepted = ran(&mut answering(rig, "yes", &["list-machines"]));
    assert!(
        accepted.err.contains("Warning: Permanently added"),
        "{accepted:?}"
    );
    assert!(accepted.ok().contains(&rig.id(1)));
    let directory = rig.path(".fleetctl").metadata().unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    assert!(rig.known_hosts().starts_with(&rig.address(0)));
    // No question any more: it would be answered no.
    let again = rig.fleetctl(&["list-machines"]);
    assert_eq!((again.status, again.err.as_str()), (0, ""), "{again:?}");
    // The other machine's key, through the tunnel.
    let other = ran(&mut answering(rig, "yes", &["ssh", &rig.id(1), "true"]));
    assert_eq!(other.status, 0, "{other:?}");
}

pub(crate) fn another_port_has_its_own_line(rig: &Rig) {
    let known = rig.known_hosts();
    // ssh takes a host's key at its usual port for right at others, too: it must not know it.
    fs::write(rig.path(".fleetctl/known_hosts"), "").unwrap();
    let bare = format!("--tunnel={}:{BARE_PORT}", rig.address(0));
    // What it is asked for does not work there: only the login counts.
    let ran = ran(&mut answering(rig, "yes", &[&bare, "list-machines"]));
    assert!(ran.err.contains("fleetctl: command not found"), "{ran:?}");
    let line = format!("[{}]:{BARE_PORT} ", rig.address(0));
    assert!(rig.known_hosts().contains(&line), "{}", rig.known_hosts());
    fs::write(rig.path(".fleetctl/known_hosts"), known).unwrap();
}

pub(crate) fn hashed_hosts_are_known(rig: &Rig) {
    let known = rig.known_hosts();
    let file = rig.path(".fleetctl/known_hosts");
    let hash = ["-q", "-H", "-f", file.to_str().unwrap()];
    let hashed = Command::new("ssh-keygen").args(hash).output().unwrap();
    assert!(hashed.status.success(), "{hashed:?}");
    assert!(rig.known_hosts().starts_with("|1|"));
    // A question would be answered no.
    rig.fleetctl(&["list-machines"]).ok();
    fs::write(file, known).unwrap();
}

pub(crate) fn a_key_that_has_changed(rig: &Rig) {
    let known = rig.known_hosts();
    new_host_key(&rig.sandbox.host(0));
    let changed = ran(&mut answering(rig, "yes", &["list-machines"]));
    assert_eq!(changed.status, 1, "{changed:?}");
    for part in [
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        &rig.path(".fleetctl/known_hosts").display().to_string(),
        "Host key verification failed.\nhint: ",
        "ssh-keygen -R",
    ] {
        assert!(changed.err.contains(part), "{part}: {}", changed.err);
    }
    assert_eq!(rig.known_hosts(), known);
    let unchecked = rig.fleetctl(&["--strict-host-key-checking=false", "list-machines"]);
    assert_eq!((unchecked.status, unchecked.err.as_str()), (0, ""));
    assert_eq!(rig.known_hosts(), known);
    // Forgotten and accepted anew, as the hint says.
    let others: Vec<&str> = known
        .lines()
        .filter(|line| !line.starts_with(&format!("{} ", rig.address(0))))
        .collect();
    fs::write(rig.path(".fleetctl/known_hosts"), others.join("\n") + "\n").unwrap();
    let accepted = ran(&mut answering(rig, "yes", &["list-machines"]));
    assert_eq!(accepted.status, 0, "{accepted:?}");
}
