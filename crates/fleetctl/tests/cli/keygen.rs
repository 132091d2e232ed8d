use std::os::unix::fs::PermissionsExt;

use crate::session::Session;

#[test]
fn a_key_is_made_and_never_written_over() {
    let mut session = Session::new();
    session.run("fleetctl keygen ops.key");
    let seen = session.seen();
    let id = seen
        .split("Key ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    assert_eq!(
        seen,
        format!(
            "$ fleetctl keygen ops.key
Key {id} made.
2> ops.key is secret: keep it off the machines. Copy ops.key.pub to /etc/fleet/trusted-keys on each of them.
"
        )
    );
    let path = |name: &str| session.path().join(name);
    let secret = std::fs::metadata(path("ops.key")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    let public = std::fs::read_to_string(path("ops.key.pub")).unwrap();
    assert!(public.starts_with(&format!("ed25519 {id}")), "{public}");
    let before = std::fs::read(path("ops.key")).unwrap();
    session
        .run("fleetctl keygen ops.key")
        .run("fleetctl keygen nowhere/ops.key")
        .shows(
            "
$ fleetctl keygen ops.key
2> Error making a key: ops.key.pub is there already, and a key is never written over: take another name
rc=1
$ fleetctl keygen nowhere/ops.key
2> Error making a key: unable to write nowhere/ops.key: No such file or directory (os error 2)
rc=1
",
        );
    assert_eq!(
        std::fs::read(session.path().join("ops.key")).unwrap(),
        before
    );
}
