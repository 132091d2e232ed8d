//! `fleetctl status`: systemctl's words, from where the units are.

use crate::rig::{Rig, assert_seen};

/// A unit on the second machine, one on both, one that is nowhere.
pub(crate) fn start_units(rig: &Rig) {
    let write = |name: &str, text: &str| {
        let path = rig.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let talker = write(
        "talker.service",
        &format!(
            "[Unit]\nDescription=Says two words\n\n[Service]\n\
             ExecStart=/bin/sh -c 'until [ -e /run/speak ]; do sleep 0.02; done; \
             echo one; echo two; exec sleep 1d'\n\
             [X-Fleet]\nMachineID={}\n",
            rig.id(1)
        ),
    );
    let everywhere = write(
        "everywhere.service",
        "[Service]\nExecStart=/bin/sleep 1d\n[X-Fleet]\nGlobal=true\n",
    );
    rig.fleetctl(&["start", &talker, &everywhere]).ok();
    // Only now: what systemd says of the start comes first in the journal.
    rig.sandbox.host(1).run(&["touch", "/run/speak"]).unwrap();
    let idle = write("idle.service", "[Service]\nExecStart=/bin/sleep 1d\n");
    rig.fleetctl(&["submit", &idle]).ok();
}

pub(crate) fn systemctls_words_from_every_machine(rig: &Rig) {
    let host = rig.sandbox.host(1);
    assert_seen(
        &[
            rig.seen(&["status", "--ssh", "talker"]),
            rig.seen(&["status", "--ssh", "everywhere", "nope", "idle", "talker"]),
        ],
        r#"
$ fleetctl status --ssh talker
● talker.service - Says two words
     Loaded: loaded (/run/systemd/system/talker.service; linked-runtime; preset: enabled)
     Active: active (running) since WHEN

WHEN HOST2 systemd: Started talker.service - Says two words.
WHEN HOST2 sh: one
WHEN HOST2 sh: two
$ fleetctl status --ssh everywhere nope idle talker
everywhere.service on ID1.../IP1:
● everywhere.service
     Loaded: loaded (/run/systemd/system/everywhere.service; linked-runtime; preset: enabled)
     Active: active (running) since WHEN

WHEN HOST1 systemd: Started everywhere.service.

everywhere.service on ID2.../IP2:
● everywhere.service
     Loaded: loaded (/run/systemd/system/everywhere.service; linked-runtime; preset: enabled)
     Active: active (running) since WHEN

WHEN HOST2 systemd: Started everywhere.service.

● talker.service - Says two words
     Loaded: loaded (/run/systemd/system/talker.service; linked-runtime; preset: enabled)
     Active: active (running) since WHEN

WHEN HOST2 systemd: Started talker.service - Says two words.
WHEN HOST2 sh: one
WHEN HOST2 sh: two
2> Unit nope.service does not exist.
2> Unit idle.service does not appear to be loaded.
rc=1
"#,
    );
    // systemctl's own status is ours.
    host.run(&["systemctl", "stop", "talker.service"]).unwrap();
    let stopped = rig.fleetctl(&["status", "--ssh", "talker"]);
    assert_eq!(stopped.status, 3, "{stopped:?}");
    assert_seen(
        &[rig.seen(&["status", "--ssh", "--ssh-port=1", "talker"])],
        r#"
$ fleetctl status --ssh --ssh-port=1 talker
2> Unable to SSH to remote host: ID2.../IP2: Process exited with status 255
rc=255
"#,
    );
}

pub(crate) fn on_this_machine_without_ssh(rig: &Rig) {
    let host = rig.sandbox.host(1);
    let status = host
        .exec(&["fleetctl", "status", "--ssh", "everywhere"])
        .unwrap();
    // The other one's ssh has no key here: that machine's share fails, ours is shown.
    assert_eq!(status.code, 255, "{status:?}");
    let own = format!("everywhere.service on {}.../", &rig.id(1)[..8]);
    assert!(status.stdout.contains(&own), "{status:?}");
    assert_eq!(status.stdout.matches("● everywhere.service").count(), 1);
}

/// Their fleetds serve nobody but this machine.
pub(crate) fn machines_that_fleetd_cannot_ask_are_asked_through_ssh(rig: &Rig) {
    let status = rig.fleetctl(&["status", "-n", "1", "everywhere"]);
    assert_eq!(status.status, 0, "{status:?}");
    let own = format!("Machine: {}.../{}", &rig.id(0)[..8], rig.address(0));
    assert_eq!(status.out.matches(&own).count(), 1, "{status:?}");
    let other = format!(
        "everywhere.service on {}.../{}:\n",
        &rig.id(1)[..8],
        rig.address(1)
    );
    assert!(status.out.contains(&other), "{status:?}");
    assert!(status.err.contains("hint: asked through ssh"), "{status:?}");
    assert!(status.err.contains("api_listen="), "{status:?}");
}
