//! `fleetctl ssh`: commands and shells on machines.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::rig::{Rig, ran};

pub(crate) fn a_command_has_its_output_input_and_status(rig: &Rig) {
    let id = rig.id(1);
    let out = rig.fleetctl(&[
        "ssh",
        &id[..12],
        "--",
        "echo $((6*7)); echo bad >&2; exit 7",
    ]);
    assert_eq!((out.status, out.out.as_str()), (7, "42\n"), "{out:?}");
    assert_eq!(out.err, "bad\n");
    // Joined and not quoted; flags after two dashes are the command's.
    let joined = rig.fleetctl(&[
        "ssh",
        "--machine",
        &id,
        "--",
        "printf",
        "-v",
        "x",
        "a;echo",
        "b",
    ]);
    assert_eq!(joined.ok(), "b\n");
    let hostname = rig.fleetctl(&["ssh", &id, "cat", "/etc/machine-id"]);
    assert_eq!(hostname.ok().trim(), id);
    // Input reaches a shell, whose status is ours.
    let mut shell = rig
        .command(&["ssh", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(b"cat /etc/machine-id; exit 5\n").unwrap();
    drop(input);
    let shell = shell.wait_with_output().unwrap();
    assert_eq!(shell.status.code(), Some(5), "{shell:?}");
    assert_eq!(String::from_utf8(shell.stdout).unwrap().trim(), id);
    assert_eq!(String::from_utf8(shell.stderr).unwrap(), "");
    // ssh's own failure.
    let refused = rig.fleetctl(&["ssh", "--ssh-port=1", &id, "true"]);
    assert_eq!(refused.status, 255);
    assert!(
        refused
            .err
            .contains("Failed running command over SSH: ssh to root@"),
        "{refused:?}"
    );
}

pub(crate) fn a_terminal_is_passed_on(rig: &Rig) {
    // script gives fleetctl a terminal.
    let words = |command: &Command| {
        let program = command.get_program().to_string_lossy().into_owned();
        let args = command.get_args().map(|arg| arg.to_string_lossy());
        std::iter::once(program)
            .chain(args.map(|arg| format!("'{arg}'")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let fleetctl = rig.command(&["ssh", &rig.id(1), "test -t 0 && test -t 1 && echo a tty"]);
    let mut script = Command::new("script");
    script
        .args(["-qec", &words(&fleetctl), "/dev/null"])
        .env_clear()
        .envs(fleetctl.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .stdin(Stdio::null());
    let ran = ran(&mut script);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.contains("a tty"), "{ran:?}");
}

pub(crate) fn the_agent_is_forwarded_when_asked_for(rig: &Rig) {
    let id = rig.id(1);
    for flag in ["-A", "--A", "--forward-agent"] {
        let keys = rig.fleetctl(&["ssh", flag, &id, "ssh-add", "--", "-l"]);
        assert!(keys.ok().contains("fleet-test-key"), "{flag}");
    }
    let without = rig.fleetctl(&["ssh", &id, "ssh-add", "--", "-l"]);
    assert_eq!(without.status, 2, "{without:?}");
}

pub(crate) fn targets_share_the_tunnels_login(rig: &Rig) {
    let logins = [rig.logins(0), rig.logins(1)];
    rig.fleetctl(&["ssh", &rig.id(1), "true"]).ok();
    assert_eq!(
        [rig.logins(0), rig.logins(1)],
        [logins[0] + 1, logins[1] + 1],
        "the target is reached over the connection that the API has"
    );
}
