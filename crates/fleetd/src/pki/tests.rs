//! A machine with TLS, and those who come to its door.

use std::path::Path;
use std::time::Duration;

use fleet_api::client::{Client, Endpoint, Error, TcpEndpoint, TlsDial, TlsFiles};
use fleet_api::v1::{Unit, UnitOption};
use fleet_api::v2::{CertificateAnswer, CertificateRequest, JoinTokenRequest, RevokeRequest};
use fleet_core::records::MachineRecord;
use fleet_pki::{Claims, Fingerprint, Grant, KeyAndRequest, Subject, files, fingerprint};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::api::{self, ApiState};
use crate::listen::{self, Door, Listener};
use crate::store::codec::{Document, RevokedRecord, UsedTokenRecord};
use crate::store::memory::MemoryStore;
use crate::store::{Op, Range, Txn, keys};

pub(crate) const MACHINE: &str = "148a18ff6e954cd892dac9de9bb90d5a";
pub(crate) const OTHER: &str = "f00018ff6e954cd892dac9de9bb90d5a";
const HOUR_MS: u64 = 3_600_000;

/// A CA, and what it signs.
pub(crate) struct Authority {
    pub(crate) ca: Ca,
    pub(crate) ca_key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let (ca, ca_key) = Ca::create(clock::unix_ms()).unwrap();
        Authority { ca, ca_key }
    }

    /// Writes `<name>.pem` and `<name>.key`, signed so many milliseconds ago.
    pub(crate) fn sign(&self, dir: &Path, name: &str, subject: &str, ago_ms: u64) {
        let subject = Subject::parse(subject).unwrap();
        let request = KeyAndRequest::new(&subject).unwrap();
        let grant = Grant {
            role: match subject.name() {
                role @ ("admin" | "viewer") => Some(role.to_owned()),
                _ => matches!(subject, Subject::User(_)).then(|| "operator".to_owned()),
            },
            subject,
            names: vec!["127.0.0.1".to_owned()],
            lifetime_ms: HOUR_MS,
        };
        let now_ms = clock::unix_ms() - ago_ms;
        let pem = self.ca.sign(&request.request_pem, &grant, now_ms).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), pem).unwrap();
        let key = dir.join(format!("{name}.key"));
        let _ = std::fs::remove_file(&key);
        files::write_key(&key, &request.key_pem).unwrap();
    }
}

/// A machine that serves over TLS.
pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) pki: Arc<Pki>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) port: u16,
    stop: watch::Sender<bool>,
}

impl Machine {
    pub(crate) async fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        std::fs::write(dir.path().join("ca.pem"), authority.ca.bundle_pem()).unwrap();
        files::write_key(&dir.path().join("ca.key"), &authority.ca_key).unwrap();
        authority.sign(dir.path(), "machine", &format!("machine:{MACHINE}"), 0);
        let pki = Pki::new(MachineId::new(MACHINE), Some(dir.path()));
        pki.load(&files_in(dir.path())).unwrap();
        let store = MemoryStore::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, shutdown) = watch::channel(false);
        let state = ApiState::new(Arc::clone(&store) as _, 100, "0")
            .on(MachineId::new(MACHINE))
            .with_pki(Arc::clone(&pki));
        let door = Door {
            pki: Arc::clone(&pki),
            newcomers: api::newcomers(state.clone()),
            ..Door::default()
        };
        let listeners = vec![Listener::Tcp(listener)];
        let serving = listen::serve(listeners, api::router(state), door, shutdown.clone());
        tokio::spawn(serving);
        tokio::spawn(run(Arc::clone(&pki), Arc::clone(&store) as _, shutdown));
        Machine {
            dir,
            authority,
            pki,
            store,
            port,
            stop,
        }
    }

    /// It says in the store that it issues certificates, and where it is.
    pub(crate) async fn announced(&self) {
        let record = MachineRecord {
            api: format!("127.0.0.1:{}", self.port),
            ..MachineRecord::default()
        };
        let (_, mut watch) = self.store.watch_from_now(keys::ISSUERS).await.unwrap();
        let put = Op::Put {
            key: keys::machine(MACHINE),
            value: record.encode(),
            lease: None,
        };
        let txn = Txn {
            ops: vec![put],
            ..Txn::default()
        };
        self.store.commit(txn).await.unwrap();
        let said = keys::issuer(MACHINE);
        if self
            .store
            .read_keys(&[said])
            .await
            .unwrap()
            .entries
            .is_empty()
        {
            let heard = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
            heard.expect("it says so").unwrap().unwrap();
        }
    }

    /// Another machine, with a certificate that was signed so long ago.
    pub(crate) fn other(&self, ago_ms: u64) -> Arc<Pki> {
        let dir = self.dir.path().join("other");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(self.dir.path().join("ca.pem"), dir.join("ca.pem")).unwrap();
        let subject = format!("machine:{OTHER}");
        self.authority.sign(&dir, "machine", &subject, ago_ms);
        let other = Pki::new(MachineId::new(OTHER), Some(&dir));
        other.load(&files_in(&dir)).unwrap();
        other
    }

    /// A client without a certificate, who knows the CA by this fingerprint.
    fn newcomer(&self, ca: Fingerprint) -> Client {
        let to = endpoint(self.port);
        let is_ca = Arc::new(move |der: &[u8]| fingerprint(der) == ca);
        let dial = TlsDial::pinned(&to, is_ca).unwrap();
        Client::with_dial(Endpoint::Tcp(to), Arc::new(dial))
    }

    /// Somebody who shows a token.
    async fn join(&self, token: &str, subject: &str) -> Result<CertificateAnswer, String> {
        let subject = Subject::parse(subject).unwrap();
        let wanted = CertificateRequest {
            token: token.to_owned(),
            machine: match &subject {
                Subject::Machine(id) => id.clone(),
                Subject::User(_) => String::new(),
            },
            request: KeyAndRequest::new(&subject).unwrap().request_pem,
        };
        let newcomer = self.newcomer(*self.authority.ca.fingerprint());
        newcomer.join(&wanted).await.map_err(words)
    }

    /// Signs a certificate of this subject, and gives a client that shows it.
    pub(crate) fn client(&self, subject: &str) -> Client {
        self.authority.sign(self.dir.path(), "client", subject, 0);
        self.client_of("client")
    }

    /// A client with the certificate of this name, or none.
    fn client_of(&self, name: &str) -> Client {
        let file = |suffix: &str| {
            (!name.is_empty()).then(|| self.dir.path().join(format!("{name}{suffix}")))
        };
        let to = endpoint(self.port);
        let files = TlsFiles {
            ca: Some(self.dir.path().join("ca.pem")),
            certificate: file(".pem"),
            key: file(".key"),
        };
        let dial = TlsDial::over_tcp(&to, &files).unwrap();
        Client::with_dial(Endpoint::Tcp(to), Arc::new(dial))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn endpoint(port: u16) -> TcpEndpoint {
    TcpEndpoint {
        host: "127.0.0.1".to_owned(),
        port,
        base: String::new(),
        tls: true,
    }
}

fn files_in(dir: &Path) -> Files {
    Files {
        certificate: dir.join("machine.pem"),
        key: dir.join("machine.key"),
        ca: dir.join("ca.pem"),
        ca_key: dir.join("ca.key"),
        are_named: true,
    }
}

/// What a failed request says.
fn words(error: Error) -> String {
    match error {
        Error::NoWay(no_way) => no_way.message,
        other => other.to_string(),
    }
}

async fn refused(client: &Client) -> String {
    words(client.machines().await.unwrap_err())
}

async fn revoke(store: &MemoryStore, name: &str) {
    let record = RevokedRecord {
        at_ms: clock::unix_ms(),
        by: String::new(),
        why: String::new(),
    };
    let put = Op::Put {
        key: keys::revoked(name),
        value: record.encode(),
        lease: None,
    };
    let txn = Txn {
        ops: vec![put],
        ..Txn::default()
    };
    store.commit(txn).await.unwrap();
}

#[tokio::test]
async fn a_member_gets_in_and_is_known_by_name() {
    let machine = Machine::new().await;
    let alice = machine.client("user:alice");
    let unit = Unit {
        desired_state: "inactive".to_owned(),
        options: vec![UnitOption {
            section: "Service".to_owned(),
            name: "ExecStart".to_owned(),
            value: "/bin/true".to_owned(),
        }],
        ..Unit::default()
    };
    alice.put_unit("a.service", &unit).await.unwrap();
    let view = alice.unit_view("a.service").await.unwrap().unwrap();
    assert_eq!(view.changed_by, "cert alice");
    // Plaintext on loopback is served beside it, as ever.
    let mut plain = TcpStream::connect(("127.0.0.1", machine.port))
        .await
        .unwrap();
    let request = b"GET /fleet/v1/machines HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn who_has_no_certificate_of_the_cluster_is_refused() {
    let machine = Machine::new().await;
    let dir = machine.dir.path();
    let nobody = refused(&machine.client_of("")).await;
    assert!(nobody.contains("wants a certificate of ours"), "{nobody}");
    let name = "user:alice";
    Authority::new().sign(dir, "stranger", name, 0);
    let stranger = refused(&machine.client_of("stranger")).await;
    assert!(
        stranger.contains("does not accept our certificate"),
        "{stranger}"
    );
    machine.authority.sign(dir, "late", name, 2 * HOUR_MS);
    let late = refused(&machine.client_of("late")).await;
    assert!(late.contains("it has expired"), "{late}");
}

#[tokio::test]
async fn a_revocation_cuts_connections_and_is_not_undone_by_an_emptied_store() {
    let machine = Machine::new().await;
    let (alice, bob) = (machine.client("user:alice"), machine.client("user:bob"));
    machine
        .authority
        .sign(machine.dir.path(), "alice", "user:alice", 0);
    alice.machines().await.unwrap();
    // A connection on which nothing more is asked.
    let open = TlsDial::over_tcp(
        &endpoint(machine.port),
        &TlsFiles {
            ca: Some(machine.dir.path().join("ca.pem")),
            certificate: Some(machine.dir.path().join("alice.pem")),
            key: Some(machine.dir.path().join("alice.key")),
        },
    );
    let mut open = fleet_api::client::Dial::dial(&open.unwrap()).await.unwrap();
    open.write_all(b"GET /fleet/v1/machines HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    assert_eq!(open.read(&mut byte).await.unwrap(), 1, "it is served");
    revoke(&machine.store, "user:alice").await;
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(60), open.read_to_end(&mut rest));
    // An end without a goodbye is an error of TLS.
    let _ = cut.await.expect("the connection ends");
    let alice = machine.client_of("alice");
    let message = refused(&alice).await;
    assert!(message.contains("it was revoked"), "{message}");
    bob.machines().await.unwrap();

    // Gone from the store, and fleetd started again: nobody is let in by that.
    let txn = Txn {
        ops: vec![Op::Delete {
            key: keys::revoked("user:alice"),
        }],
        ..Txn::default()
    };
    machine.store.commit(txn).await.unwrap();
    let again = Pki::new(MachineId::new(MACHINE), Some(machine.dir.path()));
    let pem = std::fs::read_to_string(machine.dir.path().join("alice.pem")).unwrap();
    let shown = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let identity = Identity::read(&shown).unwrap();
    assert!(again.revoked().has(&identity));
    let message = refused(&alice).await;
    assert!(message.contains("it was revoked"), "{message}");
}

#[tokio::test]
async fn a_machine_calls_another_one_by_its_id_and_nobody_else_answers_for_it() {
    let machine = Machine::new().await;
    let dir = machine.dir.path().join("other");
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(machine.dir.path().join("ca.pem"), dir.join("ca.pem")).unwrap();
    machine
        .authority
        .sign(&dir, "machine", &format!("machine:{OTHER}"), 0);
    let other = Pki::new(MachineId::new(OTHER), Some(&dir));
    let at = endpoint(machine.port);
    let to = |pki: &Pki, id: &str| {
        let way = pki.to(&MachineId::new(id), &at);
        Client::with_dial(Endpoint::Tcp(at.clone()), way)
    };
    other.load(&files_in(&dir)).unwrap();
    // For itself a machine may see nothing; that it is told so says that it is known.
    let message = refused(&to(&other, MACHINE)).await;
    assert!(
        message.contains(&format!("machine {OTHER} may not")),
        "{message}"
    );
    let message = refused(&to(&other, OTHER)).await;
    assert!(message.contains("is for another name"), "{message}");
    // A machine that was revoked is called no more, and does not get in.
    other
        .revoked()
        .note([(format!("machine:{MACHINE}"), clock::unix_ms())]);
    let message = refused(&to(&other, MACHINE)).await;
    assert!(message.contains("was revoked"), "{message}");
    let third = Pki::new(MachineId::new(OTHER), None);
    third.load(&files_in(&dir)).unwrap();
    revoke(&machine.store, &format!("machine:{OTHER}")).await;
    let mut heard = machine.pki.revoked().subscribe();
    let revoked = heard.wait_for(|all| all.of(&format!("machine:{OTHER}")).is_some());
    drop(revoked.await.unwrap());
    let message = refused(&to(&third, MACHINE)).await;
    assert!(message.contains("it was revoked"), "{message}");
}

#[tokio::test]
async fn another_certificate_is_for_new_connections_and_open_ones_go_on() {
    let machine = Machine::new().await;
    let dir = machine.dir.path();
    let alice = machine.client("user:alice");
    alice.machines().await.unwrap();
    let before = machine.pki.material().unwrap().identity().serial.clone();
    machine
        .authority
        .sign(dir, "machine", &format!("machine:{MACHINE}"), 0);
    machine.pki.load_again().unwrap();
    let after = machine.pki.material().unwrap().identity().serial.clone();
    assert_ne!(before, after);
    alice.machines().await.unwrap();
    machine.client_of("client").machines().await.unwrap();

    // What cannot be used changes nothing.
    std::fs::write(dir.join("machine.pem"), "half").unwrap();
    let problem = machine.pki.load_again().unwrap_err().to_string();
    assert!(
        problem.contains("machine.pem holds no certificate"),
        "{problem}"
    );
    assert_eq!(machine.pki.material().unwrap().identity().serial, after);
    machine
        .authority
        .sign(dir, "machine", &format!("machine:{OTHER}"), 0);
    let problem = machine.pki.load_again().unwrap_err().to_string();
    assert!(
        problem.contains(&format!("is for machine:{OTHER}")),
        "{problem}"
    );
    machine.authority.sign(dir, "other", "user:a", 0);
    std::fs::copy(dir.join("other.pem"), dir.join("machine.pem")).unwrap();
    let problem = machine.pki.load_again().unwrap_err().to_string();
    assert!(problem.contains("do not fit together"), "{problem}");
    machine.client_of("client").machines().await.unwrap();
}

#[tokio::test]
async fn there_is_no_tls_without_files_and_a_named_one_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::off();
    let unnamed = Files {
        are_named: false,
        ..files_in(dir.path())
    };
    pki.load(&unnamed).unwrap();
    assert!(!pki.has_tls());
    let problem = pki.load(&files_in(dir.path())).unwrap_err().to_string();
    assert!(problem.contains("failed to read"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_bounded_in_time_and_number() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let machine = Machine::new().await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    client.write_all(&[0x16]).await.unwrap();
    let error = admit(&machine.pki, stream).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    let all = u32::try_from(MAX_HANDSHAKES).unwrap();
    let _all = machine.pki.handshakes.acquire_many(all).await.unwrap();
    let _client = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let error = admit(&machine.pki, stream).await.err().unwrap();
    assert!(error.to_string().contains("too many handshakes"), "{error}");
}

fn machine_token() -> JoinTokenRequest {
    JoinTokenRequest {
        role: "machine".to_owned(),
        hosts: vec!["127.0.0.1".to_owned(), "node2.example".to_owned()],
        ..JoinTokenRequest::default()
    }
}

#[tokio::test]
async fn a_token_lets_in_once_and_a_replay_is_refused() {
    let machine = Machine::new().await;
    let admin = machine.client("user:admin");
    let token = admin.join_token(&machine_token()).await.unwrap().token;
    let name = format!("machine:{OTHER}");
    let joined = machine.join(&token, &name).await.unwrap();
    assert_eq!(joined.subject, name);
    assert_eq!(joined.ca, machine.authority.ca.bundle_pem());
    let der = CertificateDer::from_pem_slice(joined.certificate.as_bytes()).unwrap();
    let identity = Identity::read(&der).unwrap();
    assert_eq!(identity.names, [OTHER, "127.0.0.1", "node2.example"]);
    assert_eq!(identity.roles, [""; 0]);

    let again = machine.join(&token, &name).await.unwrap_err();
    assert!(again.contains("was used already"), "{again}");
    // Nor is it good again when the store has lost its memory, or fleetd was started anew.
    let all = machine.store.read(Range::default()).await.unwrap();
    let ops = all.entries.iter().map(|entry| Op::Delete {
        key: entry.key.clone(),
    });
    let txn = Txn {
        ops: ops.collect(),
        ..Txn::default()
    };
    machine.store.commit(txn).await.unwrap();
    let again = machine.join(&token, &name).await.unwrap_err();
    assert!(again.contains("was used already"), "{again}");
    let started_anew = Pki::new(MachineId::new(MACHINE), Some(machine.dir.path()));
    let id = fleet_pki::Token::parse(&token).unwrap().id;
    assert!(started_anew.used().has(&id));
}

/// Two machines with the CA's key share nothing but the store.
#[tokio::test]
async fn a_token_that_was_used_elsewhere_is_refused() {
    let machine = Machine::new().await;
    let admin = machine.client("user:admin");
    let token = admin.join_token(&machine_token()).await.unwrap().token;
    let id = fleet_pki::Token::parse(&token).unwrap().id;
    let record = UsedTokenRecord {
        at_ms: 1,
        subject: "machine:x".to_owned(),
    };
    let put = Op::Put {
        key: keys::used_token(&id),
        value: record.encode(),
        lease: None,
    };
    let txn = Txn {
        ops: vec![put],
        ..Txn::default()
    };
    machine.store.commit(txn).await.unwrap();
    let refused = machine.join(&token, &format!("machine:{OTHER}")).await;
    assert!(refused.unwrap_err().contains("was used already"));
}

#[tokio::test]
async fn tokens_that_are_late_changed_or_of_another_cluster_let_nobody_in() {
    let machine = Machine::new().await;
    let name = format!("machine:{OTHER}");
    let claims = |expires_ms| Claims {
        subject: None,
        role: None,
        names: Vec::new(),
        expires_ms,
    };
    let now_ms = clock::unix_ms();
    let late = machine.authority.ca.token(claims(now_ms - 1)).unwrap();
    let said = machine.join(&late.to_string(), &name).await.unwrap_err();
    assert!(said.contains("has expired"), "{said}");
    let stranger = Authority::new();
    let forged = stranger.ca.token(claims(now_ms + HOUR_MS)).unwrap();
    let said = machine.join(&forged.to_string(), &name).await.unwrap_err();
    assert!(said.contains("was not made by this cluster's CA"), "{said}");
    let said = machine.join("fleet1-00", &name).await.unwrap_err();
    assert!(said.contains("this is no join token"), "{said}");
    // A fleetd of another cluster gets to see no token.
    let newcomer = machine.newcomer(*stranger.ca.fingerprint());
    let wanted = CertificateRequest::default();
    let said = words(newcomer.join(&wanted).await.unwrap_err());
    assert!(said.contains("is not trusted"), "{said}");
    // And without a token there is nothing.
    let newcomer = machine.newcomer(*machine.authority.ca.fingerprint());
    let nothing = refused(&newcomer).await;
    assert!(
        nothing.contains("without a certificate of the cluster"),
        "{nothing}"
    );
    assert!(
        machine
            .store
            .read(Range::default())
            .await
            .unwrap()
            .entries
            .iter()
            .all(|entry| !entry.key.starts_with(keys::CERTIFIED))
    );
}

/// A token for whatever machine comes makes nobody a machine that there is.
#[tokio::test]
async fn nobody_becomes_a_machine_that_has_a_certificate() {
    let machine = Machine::new().await;
    let admin = machine.client("user:admin");
    let name = format!("machine:{OTHER}");
    let token = async |id: &str| {
        let wanted = JoinTokenRequest {
            name: id.to_owned(),
            ..machine_token()
        };
        admin.join_token(&wanted).await.unwrap().token
    };
    machine.join(&token("").await, &name).await.unwrap();
    let second = token("").await;
    let refused = machine.join(&second, &name).await.unwrap_err();
    assert!(refused.contains("has a certificate already"), "{refused}");
    // It was not used up by that.
    machine
        .join(&second, "machine:00000000000000000000000000000001")
        .await
        .unwrap();
    let bound = token(OTHER).await;
    let refused = machine
        .join(&bound, "machine:00000000000000000000000000000002")
        .await
        .unwrap_err();
    assert!(refused.contains("is for machine"), "{refused}");
    machine.join(&bound, &name).await.unwrap();
}

#[tokio::test]
async fn only_an_admin_lets_in_and_revokes() {
    let machine = Machine::new().await;
    let viewer = machine.client("user:viewer");
    let refused = words(viewer.join_token(&machine_token()).await.unwrap_err());
    assert!(refused.contains("may not certificate:issue"), "{refused}");
    let revocation = RevokeRequest {
        name: "user:carol".to_owned(),
        why: "has left".to_owned(),
    };
    let refused = words(viewer.revoke(&revocation).await.unwrap_err());
    assert!(refused.contains("may not certificate:revoke"), "{refused}");

    let admin = machine.client("user:admin");
    let carol = JoinTokenRequest {
        role: "operator".to_owned(),
        name: "carol".to_owned(),
        ..JoinTokenRequest::default()
    };
    let token = admin.join_token(&carol).await.unwrap().token;
    let joined = machine.join(&token, "user:carol").await.unwrap();
    let der = CertificateDer::from_pem_slice(joined.certificate.as_bytes()).unwrap();
    assert_eq!(Identity::read(&der).unwrap().roles, ["operator"]);
    let token = admin.join_token(&carol).await.unwrap().token;
    admin.revoke(&revocation).await.unwrap();
    let listed = admin.revocations().await.unwrap().revocations;
    assert_eq!(
        (listed[0].name.as_str(), listed[0].by.as_str()),
        ("user:carol", "cert admin")
    );
    assert_eq!(listed[0].why, "has left");
    assert!(machine.pki.revoked().has(&Identity::read(&der).unwrap()));
    // A certificate of this moment would be taken for one of before.
    let refused = machine.join(&token, "user:carol").await.unwrap_err();
    assert!(refused.contains("was revoked a moment ago"), "{refused}");
    for name in ["", "carol", "user:", "user:a/b", "serial:xyz", "machine:"] {
        let wanted = RevokeRequest {
            name: name.to_owned(),
            ..RevokeRequest::default()
        };
        let refused = words(admin.revoke(&wanted).await.unwrap_err());
        assert!(refused.contains("cannot be revoked"), "{name}: {refused}");
    }
    for wanted in [
        JoinTokenRequest::default(),
        JoinTokenRequest {
            name: String::new(),
            ..carol.clone()
        },
        JoinTokenRequest {
            ttl_s: u64::MAX,
            ..carol.clone()
        },
        JoinTokenRequest {
            hosts: vec!["*".to_owned()],
            ..machine_token()
        },
    ] {
        let refused = admin.join_token(&wanted).await.unwrap_err();
        assert!(
            matches!(refused, Error::Answer { code: 400, .. }),
            "{refused}"
        );
    }
}

/// Whoever reads all of the store has neither a key nor a token that is still good.
#[tokio::test]
async fn a_stolen_store_gives_nobody_a_certificate() {
    let machine = Machine::new().await;
    let admin = machine.client("user:admin");
    let used = admin.join_token(&machine_token()).await.unwrap().token;
    let unused = admin.join_token(&machine_token()).await.unwrap().token;
    machine
        .join(&used, &format!("machine:{OTHER}"))
        .await
        .unwrap();
    admin
        .revoke(&RevokeRequest {
            name: "user:bob".to_owned(),
            ..RevokeRequest::default()
        })
        .await
        .unwrap();
    let all = machine.store.read(Range::default()).await.unwrap();
    assert!(
        all.entries
            .iter()
            .any(|entry| entry.key.starts_with(keys::USED_TOKENS))
    );
    for entry in &all.entries {
        let value = String::from_utf8_lossy(&entry.value);
        for secret in ["PRIVATE KEY", &used[7..71], &unused[7..71]] {
            assert!(!value.contains(secret), "{}", entry.key);
        }
    }
}

#[tokio::test]
async fn a_machine_without_the_cas_key_says_who_has_it() {
    let machine = Machine::new().await;
    machine.announced().await;
    std::fs::remove_file(machine.dir.path().join("ca.key")).unwrap();
    machine.pki.load_again().unwrap();
    let admin = machine.client("user:admin");
    let refused = words(admin.join_token(&machine_token()).await.unwrap_err());
    assert!(
        refused.contains(&format!(
            "does not have the key of the cluster's CA: ask one that has: {MACHINE}"
        )),
        "{refused}"
    );
    let wanted = CertificateRequest::default();
    let refused = words(admin.renew(&wanted).await.unwrap_err());
    assert!(
        refused.contains("only a machine that shows its certificate"),
        "{refused}"
    );
}
