//! `init`, `join-token`, `join`, `revoke` against fleetd's own API over TLS.

use std::sync::Arc;

use fleet_core::records::MachineId;
use fleetd::api::{self, ApiState};
use fleetd::listen::{self, Door, Listener};
use fleetd::pki::{Files, Pki};
use fleetd::store::memory::MemoryStore;

use crate::init::{MACHINE, init};
use crate::session::Session;

/// A fleetd that serves over TLS at 127.0.0.1:PORT, and on `DIR/tls.sock`, with what `fleetctl init`
/// has made. It ends with the test's process.
pub(crate) fn cluster() -> Session {
    let mut session = Session::new();
    init(&mut session);
    session.seen();
    let dir = session.path().to_owned();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    let unix = std::os::unix::net::UnixListener::bind(dir.join("tls.sock")).unwrap();
    unix.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let pki = Pki::new(MachineId::new(MACHINE), Some(&dir));
            let file = |name: &str| dir.join("pki").join(name);
            let files = Files {
                certificate: file("machine.pem"),
                key: file("machine.key"),
                ca: file("ca.pem"),
                ca_key: file("ca.key"),
                are_named: true,
            };
            pki.load(&files).unwrap();
            let state = ApiState::new(MemoryStore::new(), 100, "1.0.0").with_pki(Arc::clone(&pki));
            let door = Door {
                pki,
                newcomers: api::newcomers(state.clone()),
                ..Door::default()
            };
            let listeners = vec![
                Listener::Tcp(tokio::net::TcpListener::from_std(tcp).unwrap()),
                Listener::Unix(tokio::net::UnixListener::from_std(unix).unwrap()),
            ];
            let (_stop, shutdown) = tokio::sync::watch::channel(false);
            listen::serve(listeners, api::router(state), door, shutdown).await;
        });
    });
    session.name("PORT", &port);
    let local = format!("--endpoint=unix://{}/tls.sock", session.path().display());
    session.name("LOCAL", &local);
    session
}

/// The token in what `fleetctl join-token` has printed.
pub(crate) fn token(session: &mut Session) -> String {
    let seen = session.seen();
    let token = seen.split("fleetctl join fleet1-").nth(1).expect(&seen);
    format!("fleet1-{}", token.split(' ').next().unwrap())
}

const LIST: &str = "list-units --no-legend";

#[test]
fn a_user_joins_and_is_found_by_what_was_put_down() {
    let mut session = cluster();
    let https = "--endpoint=https://127.0.0.1:PORT";
    // Who has been made by init is found where nothing else is.
    session
        .run(&format!(
            "fleetctl {https} --ca-file=DIR/pki/ca.pem --cert-file=DIR/pki/user.pem --key-file=DIR/pki/user.key {LIST}"
        ))
        .run(&format!("HOME=DIR/home XDG_CONFIG_HOME= fleetctl {https} --ca-file=DIR/pki/ca.pem {LIST}"))
        .shows(
            "
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=DIR/pki/ca.pem --cert-file=DIR/pki/user.pem --key-file=DIR/pki/user.key list-units --no-legend
$ HOME=DIR/home XDG_CONFIG_HOME= fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=DIR/pki/ca.pem list-units --no-legend
2> fleetd at https://127.0.0.1:PORT wants a certificate of ours (CertificateRequired)
2> hint: give --cert-file=FILE and --key-file=FILE, signed by a CA that fleetd trusts
rc=1
",
        );
    session.run("fleetctl LOCAL join-token --role=operator --user=alice");
    let token = token(&mut session);
    session.name("TOKEN", &token);
    session.run("HOME=DIR/home XDG_CONFIG_HOME= fleetctl join TOKEN https://127.0.0.1:PORT");
    let seen = session.seen();
    assert!(
        seen.contains("2> Joined as user:alice, until TIME UTC"),
        "{seen}"
    );
    assert!(seen.contains(": DIR/home/.config/fleet/user.pem"), "{seen}");
    session
        .run(&format!(
            "HOME=DIR/home XDG_CONFIG_HOME= fleetctl {https} {LIST}"
        ))
        .run("HOME=DIR/home XDG_CONFIG_HOME= fleetctl --endpoint=https://127.0.0.1:PORT join-token")
        .run("HOME=DIR/again XDG_CONFIG_HOME= fleetctl join TOKEN https://127.0.0.1:PORT")
        .shows(
            "
$ HOME=DIR/home XDG_CONFIG_HOME= fleetctl --endpoint=https://127.0.0.1:PORT list-units --no-legend
$ HOME=DIR/home XDG_CONFIG_HOME= fleetctl --endpoint=https://127.0.0.1:PORT join-token
2> cert alice may not certificate:issue the cluster: it has role operator; role admin would allow it
rc=1
$ HOME=DIR/again XDG_CONFIG_HOME= fleetctl join TOKEN https://127.0.0.1:PORT
2> this join token was used already: each lets in once, make another one with `fleetctl join-token`
rc=1
",
        );
}

#[test]
fn a_machine_joins_with_its_own_key() {
    let mut session = cluster();
    session.name("OTHER", "f00018ff6e954cd892dac9de9bb90d5a");
    session.run("fleetctl LOCAL join-token --host=node2.example");
    let token = token(&mut session);
    session.name("TOKEN", &token);
    session.run("fleetctl join TOKEN https://127.0.0.1:PORT --directory=DIR/node2 --machine=OTHER");
    let seen = session.seen();
    assert!(
        seen.contains("2> Joined as machine:OTHER, until TIME UTC"),
        "{seen}"
    );
    let read = |name: &str| std::fs::read(session.path().join(name)).unwrap();
    assert_eq!(read("node2/ca.pem"), read("pki/ca.pem"));
    let key = String::from_utf8(read("node2/machine.key")).unwrap();
    assert!(key.contains("PRIVATE KEY"), "{key}");
    let id = MachineId::new("f00018ff6e954cd892dac9de9bb90d5a");
    let file = |name: &str| session.path().join("node2").join(name);
    let files = Files {
        certificate: file("machine.pem"),
        key: file("machine.key"),
        ca: file("ca.pem"),
        ca_key: file("ca.key"),
        are_named: true,
    };
    Pki::new(id, None).load(&files).unwrap();
}

#[test]
fn who_is_not_what_the_token_says_gets_to_see_no_token() {
    let mut session = cluster();
    session.run("fleetctl LOCAL join-token");
    let token = token(&mut session);
    // Another CA's fingerprint, in a token that is otherwise the same.
    let at = "fleet1-".len() + 64;
    let mut other = token.clone();
    let digit = if token.as_bytes()[at] == b'0' {
        "1"
    } else {
        "0"
    };
    other.replace_range(at..=at, digit);
    session.name("TOKEN", &token);
    session.name("OTHER_CA", &other);
    session.name("OTHER", "f00018ff6e954cd892dac9de9bb90d5a");
    session
        .run("fleetctl join OTHER_CA https://127.0.0.1:PORT --directory=DIR/a --machine=OTHER")
        .run("fleetctl join TOKEN http://127.0.0.1:PORT --directory=DIR/a --machine=OTHER")
        .run("fleetctl join fleet1-00 https://127.0.0.1:PORT --directory=DIR/a --machine=OTHER")
        .run("fleetctl join OTHER_CA https://127.0.0.1:PORT --directory=DIR/pki --machine=MACHINE")
        .shows(
            "
$ fleetctl join OTHER_CA https://127.0.0.1:PORT --directory=DIR/a --machine=OTHER
2> fleetd at https://127.0.0.1:PORT is not trusted: it is not of the cluster that made the token
2> hint: is the endpoint right? A machine without the CA's key lets nobody in, either
rc=1
$ fleetctl join TOKEN http://127.0.0.1:PORT --directory=DIR/a --machine=OTHER
2> \"http://127.0.0.1:PORT\" is no endpoint to join through
2> hint: write it as https://host:port
rc=2
$ fleetctl join fleet1-00 https://127.0.0.1:PORT --directory=DIR/a --machine=OTHER
2> this is no join token: it begins with \"fleet1-\" and is made by `fleetctl join-token`
rc=1
$ fleetctl join OTHER_CA https://127.0.0.1:PORT --directory=DIR/pki --machine=MACHINE
2> DIR/pki/ca.pem is another cluster's CA than that of the token
2> hint: who is to leave that cluster for this one removes the files there first
rc=1
",
        );
}
