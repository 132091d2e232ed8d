//! A fleetd behind TLS, with certificates of a CA of its own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::session::Session;

fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(done.status.success(), "openssl {arguments}: {done:?}");
}

/// `ca.pem`, `other.pem` (nobody's CA); `server`, `elsewhere`, `client`: `.pem` and `.key` each.
fn make_certificates(dir: &Path) {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for ca in ["ca", "other"] {
        openssl(
            dir,
            &format!("req -x509 {KEY} -keyout {ca}.key -out {ca}.pem -days 2 -subj /CN={ca}"),
        );
    }
    for (name, usage, address) in [
        ("server", "serverAuth", "127.0.0.1"),
        ("elsewhere", "serverAuth", "127.0.0.9"),
        ("client", "clientAuth", "127.0.0.1"),
    ] {
        let extensions = format!(
            "basicConstraints=CA:FALSE\nsubjectAltName=IP:{address}\nextendedKeyUsage={usage}\n"
        );
        std::fs::write(dir.join(format!("{name}.ext")), extensions).unwrap();
        openssl(
            dir,
            &format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
                 -out {name}.pem -days 2 -extfile {name}.ext"
            ),
        );
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(path).unwrap();
    all.map(Result::unwrap).collect()
}

fn acceptor(dir: &Path, certificate: &str, wants_client: bool) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = if wants_client {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&dir.join("ca.pem")));
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{certificate}.key"))).unwrap();
    let chain = certificates(&dir.join(format!("{certificate}.pem")));
    TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()))
}

/// A TCP port, with TLS or without, in front of the session's fleetd. It ends with the test's
/// process.
fn serve(dir: &Path, tls: Option<TlsAcceptor>) -> String {
    let socket = dir.join("fleet.sock");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut fleetd = UnixStream::connect(&socket).await.unwrap();
                let tls = tls.clone();
                // Whoever does not trust the other side goes away.
                tokio::spawn(async move {
                    match tls {
                        None => tokio::io::copy_bidirectional(&mut stream, &mut fleetd).await,
                        Some(tls) => {
                            let mut stream = tls.accept(stream).await?;
                            tokio::io::copy_bidirectional(&mut stream, &mut fleetd).await
                        }
                    }
                });
            }
        });
    });
    port.to_string()
}

fn session(certificate: &str, wants_client: bool) -> Session {
    let mut session = Session::new();
    make_certificates(session.path());
    let tls = acceptor(session.path(), certificate, wants_client);
    let port = serve(session.path(), Some(tls));
    session.name("PORT", &port);
    session
}

const MACHINES: &str = "list-machines --fields=ip --no-legend";

#[test]
fn fleetd_is_verified_by_the_ca_that_is_named() {
    let mut session = session("server", false);
    session
        .run(&format!(
            "fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem {MACHINES}"
        ))
        .run(&format!(
            "FLEETCTL_CA_FILE=ca.pem fleetctl --endpoint=https://127.0.0.1:PORT {MACHINES}"
        ))
        .run(&format!(
            "fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=other.pem {MACHINES}"
        ))
        .shows(
            "
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem list-machines --fields=ip --no-legend
172.30.1.2
172.30.1.3
$ FLEETCTL_CA_FILE=ca.pem fleetctl --endpoint=https://127.0.0.1:PORT list-machines --fields=ip --no-legend
172.30.1.2
172.30.1.3
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=other.pem list-machines --fields=ip --no-legend
2> fleetd at https://127.0.0.1:PORT is not trusted: its certificate is signed by no CA in other.pem
2> hint: name the file of the CA that signed it: --ca-file=FILE or FLEETCTL_CA_FILE
rc=1
",
        );
}

#[test]
fn without_a_ca_file_those_count_that_the_computer_trusts() {
    let mut session = session("server", false);
    session.run(&format!(
        "fleetctl --endpoint=https://127.0.0.1:PORT {MACHINES}"
    ));
    let seen = session.seen();
    let system = "is not trusted: its certificate is signed by no CA in /etc/";
    let none = "this computer has no list of CAs that it trusts";
    assert!(seen.contains(system) || seen.contains(none), "{seen}");
    assert!(seen.ends_with("rc=1\n"), "{seen}");
    assert!(session.requests().is_empty());
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let mut session = session("elsewhere", false);
    session
        .run(&format!(
            "fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem {MACHINES}"
        ))
        .shows(
            "
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem list-machines --fields=ip --no-legend
2> fleetd at https://127.0.0.1:PORT is not trusted: its certificate is for another name than 127.0.0.1
2> hint: write the endpoint with a name or address that is in the certificate
rc=1
",
        );
}

#[test]
fn a_fleetd_that_wants_a_certificate_gets_ours() {
    let mut session = session("server", true);
    let https = "--endpoint=https://127.0.0.1:PORT --ca-file=ca.pem";
    session
        .run(&format!("fleetctl {https} --cert-file=client.pem --key-file=client.key {MACHINES}"))
        .run(&format!("fleetctl {https} --etcd-certfile=client.pem --etcd-keyfile=client.key {MACHINES}"))
        .run(&format!("fleetctl {https} {MACHINES}"))
        .run(&format!("fleetctl {https} --cert-file=server.pem --key-file=server.key {MACHINES}"))
        .shows(
            "
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem --cert-file=client.pem --key-file=client.key list-machines --fields=ip --no-legend
172.30.1.2
172.30.1.3
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem --etcd-certfile=client.pem --etcd-keyfile=client.key list-machines --fields=ip --no-legend
172.30.1.2
172.30.1.3
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem list-machines --fields=ip --no-legend
2> fleetd at https://127.0.0.1:PORT wants a certificate of ours (CertificateRequired)
2> hint: give --cert-file=FILE and --key-file=FILE, signed by a CA that fleetd trusts
rc=1
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem --cert-file=server.pem --key-file=server.key list-machines --fields=ip --no-legend
2> fleetd at https://127.0.0.1:PORT does not accept our certificate (UnsupportedCertificate)
2> hint: it must be signed by a CA that fleetd trusts, and be meant for clients: look at --cert-file
rc=1
",
        );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let mut session = Session::new();
    make_certificates(session.path());
    session.file("odd.pem", "nothing\n");
    session.name("TO", "--endpoint=https://127.0.0.1:1");
    session
        .run("fleetctl TO --ca-file=no.pem list-units")
        .run("fleetctl TO --ca-file=odd.pem list-units")
        .run("fleetctl TO --ca-file=ca.pem --cert-file=client.pem list-units")
        .run("fleetctl TO --ca-file=ca.pem --key-file=client.key list-units")
        .run("fleetctl TO --ca-file=ca.pem --cert-file=client.pem --key-file=client.pem list-units")
        .run("fleetctl TO --ca-file=ca.pem --cert-file=client.pem --key-file=ca.key list-units")
        .run("fleetctl --ca-file=no.pem list-units --no-legend")
        .shows(
            "
$ fleetctl TO --ca-file=no.pem list-units
2> Unable to initialize client: open no.pem: no such file or directory
2> hint: TLS takes its files from --ca-file, --cert-file and --key-file, or from FLEETCTL_CA_FILE, FLEETCTL_CERT_FILE and FLEETCTL_KEY_FILE
rc=1
$ fleetctl TO --ca-file=odd.pem list-units
2> Unable to initialize client: odd.pem holds no certificate in PEM form
2> hint: TLS takes its files from --ca-file, --cert-file and --key-file, or from FLEETCTL_CA_FILE, FLEETCTL_CERT_FILE and FLEETCTL_KEY_FILE
rc=1
$ fleetctl TO --ca-file=ca.pem --cert-file=client.pem list-units
2> Unable to initialize client: our certificate is given without the key
2> hint: --cert-file and --key-file go together
rc=1
$ fleetctl TO --ca-file=ca.pem --key-file=client.key list-units
2> Unable to initialize client: our key is given without the certificate
2> hint: --cert-file and --key-file go together
rc=1
$ fleetctl TO --ca-file=ca.pem --cert-file=client.pem --key-file=client.pem list-units
2> Unable to initialize client: client.pem holds no private key in PEM form
2> hint: TLS takes its files from --ca-file, --cert-file and --key-file, or from FLEETCTL_CA_FILE, FLEETCTL_CERT_FILE and FLEETCTL_KEY_FILE
rc=1
$ fleetctl TO --ca-file=ca.pem --cert-file=client.pem --key-file=ca.key list-units
2> Unable to initialize client: client.pem and ca.key do not fit together: keys may not be consistent: KeyMismatch
2> hint: TLS takes its files from --ca-file, --cert-file and --key-file, or from FLEETCTL_CA_FILE, FLEETCTL_CERT_FILE and FLEETCTL_KEY_FILE
rc=1
$ fleetctl --ca-file=no.pem list-units --no-legend
",
        );
}

#[test]
fn what_speaks_no_tls_says_so() {
    let mut session = Session::new();
    make_certificates(session.path());
    let port = serve(session.path(), None);
    session.name("PORT", &port);
    session
        .run(&format!("fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem {MACHINES}"))
        .run(&format!("fleetctl --endpoint=http://127.0.0.1:PORT --ca-file=ca.pem {MACHINES}"))
        .shows(
            "
$ fleetctl --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem list-machines --fields=ip --no-legend
2> what listens at 127.0.0.1:PORT speaks no TLS
2> hint: is http://127.0.0.1:PORT meant?
rc=1
$ fleetctl --endpoint=http://127.0.0.1:PORT --ca-file=ca.pem list-machines --fields=ip --no-legend
172.30.1.2
172.30.1.3
2> WARNING: http://127.0.0.1:PORT is asked without TLS, and its files are not used: write https:// for it
",
        );
}

/// An ssh that is a script: `-W host:port` is a TCP connection.
const SSH: &str = "#!/bin/bash
while [ \"$1\" != -- ]; do
    case $1 in
    -W) to=$2 ;;
    LocalCommand=echo) echo ;;
    esac
    shift
done
echo through $2 >> tunnels
exec 3<>/dev/tcp/${to%:*}/${to#*:}
cat <&3 &
exec cat >&3
";

#[test]
fn tls_goes_through_a_tunnel() {
    use std::os::unix::fs::PermissionsExt;
    let mut session = session("server", true);
    session.file("ssh", SSH);
    let ssh = session.path().join("ssh");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let files = "--ca-file=ca.pem --cert-file=client.pem --key-file=client.key";
    session
        .run(&format!("FLEETCTL_SSH=DIR/ssh FLEETCTL_KNOWN_HOSTS_FILE=DIR/known PATH=/usr/bin:/bin fleetctl --tunnel=gate --endpoint=https://127.0.0.1:PORT {files} {MACHINES}"))
        .shows(
            "
$ FLEETCTL_SSH=DIR/ssh FLEETCTL_KNOWN_HOSTS_FILE=DIR/known PATH=/usr/bin:/bin fleetctl --tunnel=gate --endpoint=https://127.0.0.1:PORT --ca-file=ca.pem --cert-file=client.pem --key-file=client.key list-machines --fields=ip --no-legend
172.30.1.2
172.30.1.3
",
        );
    let tunnels = std::fs::read_to_string(session.path().join("tunnels")).unwrap();
    assert_eq!(tunnels, "through gate\n");
}
