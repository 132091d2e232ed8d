use std::os::unix::fs::PermissionsExt;

use fleet_core::signed;
use fleet_core::unit_file::UnitFile;

use crate::session::{HELLO, Session};

/// A session with a key, and its id.
fn with_key(mut session: Session) -> (Session, String) {
    session.run("fleetctl keygen k");
    let seen = session.seen();
    let id = seen
        .split("Key ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    (session, id.to_owned())
}

fn signed_by(text: &str) -> Vec<String> {
    let file = UnitFile::parse(text).unwrap();
    let signatures = signed::signatures(&file).unwrap();
    signatures
        .into_iter()
        .map(|signature| signature.key)
        .collect()
}

#[test]
fn a_file_gets_one_line_and_keeps_all_others() {
    let (mut session, id) = with_key(Session::new());
    let labelled = "# the web\n[Service]\nExecStart=/bin/a \\\n  b\n\n[X-Fleet]\nGlobal=yes\n";
    session
        .file("hello.service", HELLO)
        .file("web@.service", labelled);
    session.name("ID", &id);
    session
        .run("fleetctl sign --key k hello web@.service")
        .run("fleetctl sign --key k hello.service nothing")
        .run("fleetctl sign --key k")
        .run("fleetctl sign --key k.pub hello")
        .shows(
            "
$ fleetctl sign --key k hello web@.service
Signed hello.service by key ID
Signed web@.service by key ID
$ fleetctl sign --key k hello.service nothing
Signed hello.service by key ID
2> Error signing nothing.service: No such file or directory (os error 2)
rc=1
$ fleetctl sign --key k
2> No units given
$ fleetctl sign --key k.pub hello
2> unable to use key k.pub: others can read it (chmod 600)
rc=1
",
        );
    let read = |name: &str| std::fs::read_to_string(session.path().join(name)).unwrap();
    for (name, text) in [("hello.service", HELLO), ("web@.service", labelled)] {
        let signed = read(name);
        assert_eq!(signed_by(&signed), [id.as_str()], "{signed}");
        let kept: Vec<&str> = signed
            .lines()
            .filter(|line| !line.starts_with("Signature="))
            .collect();
        let kept = kept.join("\n") + "\n";
        assert!(kept.starts_with(text), "{kept}");
    }
    let key = session.path().join("k");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    session.run("fleetctl sign --key k hello").shows(
        "
$ fleetctl sign --key k hello
2> unable to use key k: others can read it (chmod 600)
rc=1
",
    );
}

/// The signature travels in the unit file, so that any fleetd takes it, an original one, too.
#[test]
fn what_is_handed_in_with_a_key_is_signed() {
    for original in [false, true] {
        let session = match original {
            true => Session::with_original(),
            false => Session::with_fleetd(),
        };
        let (mut session, id) = with_key(session);
        session.file("hello.service", HELLO);
        session.file("web@.service", HELLO);
        session.run("fleetctl submit --sign-key k hello.service web@1.service");
        session.seen();
        session
            .run("fleetctl cat hello.service")
            .run("fleetctl cat web@1.service");
        let seen = session.seen();
        let texts: Vec<&str> = seen.split("$ fleetctl cat ").skip(1).collect();
        for (text, name) in texts.iter().zip(["hello.service", "web@.service"]) {
            let (_, text) = text.split_once('\n').unwrap();
            assert_eq!(signed_by(text), [id.as_str()], "{text}");
            // Signing is the same each time: there is nothing to replace.
            let unsigned = UnitFile::parse(HELLO).unwrap();
            let message = signed::message(name, &UnitFile::parse(text).unwrap());
            assert_eq!(message, signed::message(name, &unsigned));
        }
        session
            .run("fleetctl submit --sign-key nothing hello.service")
            .shows(
                "
$ fleetctl submit --sign-key nothing hello.service
2> unable to use key nothing: No such file or directory (os error 2)
rc=1
",
            );
    }
}
