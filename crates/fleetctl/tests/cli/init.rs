use std::os::unix::fs::PermissionsExt;

use crate::session::Session;

pub(crate) const MACHINE: &str = "148a18ff6e954cd892dac9de9bb90d5a";

/// `fleetctl init`, for a fleetd at 127.0.0.1.
pub(crate) fn init(session: &mut Session) {
    session.name("MACHINE", MACHINE);
    session.run("fleetctl init --directory=DIR/pki --machine=MACHINE --host=127.0.0.1");
}

#[test]
fn one_command_makes_ca_and_certificates_and_a_second_one_changes_nothing() {
    let mut session = Session::new();
    init(&mut session);
    let seen = session.seen();
    for line in [
        "2> Made the cluster's CA: DIR/pki/ca.pem\n",
        "2> Its key is DIR/pki/ca.key: whoever has it says who belongs to the cluster\n",
        "2> Made this machine's certificate, for ",
        "127.0.0.1",
        "2> Made a certificate for user admin, until TIME UTC: DIR/pki/user.pem\n",
        "2> hint: systemctl reload fleet, with api_listen=0.0.0.0:49153 in fleet.conf",
    ] {
        assert!(seen.contains(line), "{line}\n{seen}");
    }
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(session.path().join("pki"))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, format!("{mode:o}"), std::fs::read(&path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    let modes: Vec<_> = before
        .iter()
        .map(|(name, mode, _)| format!("{name} {mode}"))
        .collect();
    assert_eq!(
        modes,
        [
            "ca.key 600",
            "ca.pem 644",
            "machine.key 600",
            "machine.pem 644",
            "user.key 600",
            "user.pem 644"
        ]
    );
    session
        .run("fleetctl init --directory=DIR/pki --machine=MACHINE --host=other.example")
        .shows(
            "
$ fleetctl init --directory=DIR/pki --machine=MACHINE --host=other.example
2> Nothing to do: the CA and both certificates are in DIR/pki
",
        );
    let files = {
        let mut files: Vec<_> = std::fs::read_dir(session.path().join("pki"))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read(&path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let before: Vec<_> = before
        .into_iter()
        .map(|(name, _, text)| (name, text))
        .collect();
    assert_eq!(files, before, "no file was touched");
}

#[test]
fn what_is_there_by_half_is_not_made_anew() {
    let mut session = Session::new();
    init(&mut session);
    session.seen();
    let file = |name: &str| session.path().join("pki").join(name);
    std::fs::rename(file("ca.key"), file("away.key")).unwrap();
    session
        .run("fleetctl init --directory=DIR/pki --machine=MACHINE")
        .shows(
            "
$ fleetctl init --directory=DIR/pki --machine=MACHINE
2> DIR/pki/ca.pem is there without its key: this machine belongs to a cluster whose CA's key is elsewhere
2> hint: run fleetctl join-token on a machine that has the key
rc=1
",
        );
    let file = |name: &str| session.path().join("pki").join(name);
    std::fs::rename(file("away.key"), file("ca.key")).unwrap();
    std::fs::remove_file(file("ca.pem")).unwrap();
    session
        .run("fleetctl init --directory=DIR/pki --machine=MACHINE")
        .run("fleetctl init --directory=DIR/new --machine=m1")
        .shows(
            "
$ fleetctl init --directory=DIR/pki --machine=MACHINE
2> DIR/pki/ca.key is there without its certificate, DIR/pki/ca.pem
2> hint: put the certificate back; or, if no certificate was ever made with this key, remove it
rc=1
$ fleetctl init --directory=DIR/new --machine=m1
2> \"m1\" is no machine id: 32 hexadecimal digits, as in /etc/machine-id
rc=1
",
        );
    assert!(!session.path().join("new").exists());
}
