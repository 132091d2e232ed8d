//! What is etcd's alone: endpoints that are absent, die or hang, TLS, users, quotas, prefixes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use tokio::net::TcpListener;

use super::server::{Server, free_ports};
use super::*;
use crate::store::Event;
use crate::store::conformance::{PATIENCE, next, op, txn};

/// For tests that wait until it is over.
const SHORT: Duration = Duration::from_millis(500);

fn config(endpoints: &[&Server]) -> EtcdConfig {
    let urls = endpoints.iter().map(|server| server.url()).collect();
    EtcdConfig {
        endpoints: urls,
        ..endpoints[0].config()
    }
}

async fn bounded<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("it waits without a bound")
}

/// Writes until it succeeds. What is in between must be errors that ask for it.
async fn write_until_done(store: &EtcdStore, key: &str) -> Revision {
    let write = async {
        loop {
            match store.commit(txn([op(key, "1")])).await {
                Ok(revision) => return revision,
                Err(Error::Unavailable(_) | Error::OutcomeUnknown(_)) => {}
                Err(other) => panic!("{other}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(write).await
}

/// Asks again while the store cannot be reached: etcd restarts, or its members elect a leader.
async fn until_available<T, F>(mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    let answer = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    bounded(answer).await
}

/// The error of each operation.
async fn errors_of(store: &EtcdStore) -> [Error; 7] {
    let lease = LeaseId(1);
    [
        bounded(store.read(Range::default())).await.unwrap_err(),
        bounded(store.read_keys(&["a".to_owned()]))
            .await
            .unwrap_err(),
        bounded(store.watch("", 0)).await.err().unwrap(),
        bounded(store.commit(txn([op("a", "1")])))
            .await
            .unwrap_err(),
        bounded(store.grant(PATIENCE)).await.unwrap_err(),
        bounded(store.keep_alive(lease)).await.unwrap_err(),
        bounded(store.revoke(lease)).await.unwrap_err(),
    ]
}

fn at(endpoints: &[String], request_timeout: Duration) -> Arc<EtcdStore> {
    let config = EtcdConfig {
        endpoints: endpoints.to_vec(),
        username: String::new(),
        password: String::new(),
        tls: TlsFiles::default(),
        prefix: "/p/".to_owned(),
        request_timeout,
    };
    EtcdStore::new(config).unwrap()
}

#[tokio::test]
async fn an_absent_etcd_is_unavailable_with_its_name_and_the_reason() {
    let urls = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
    for error in errors_of(&at(&urls, PATIENCE)).await {
        let Error::Unavailable(why) = error else {
            panic!("{error:?}")
        };
        for url in &urls {
            assert!(why.contains(url), "{why}");
        }
        assert!(why.contains("Connection refused"), "{why}");
    }
}

#[tokio::test]
async fn a_computer_that_takes_connections_and_says_nothing_is_unavailable() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let store = at(std::slice::from_ref(&url), SHORT);
    let error = bounded(store.read(Range::default())).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable(why) if why.contains(&url)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_write_that_is_not_answered_has_an_unknown_outcome() {
    let server = Server::start().await;
    let store = EtcdStore::new(EtcdConfig {
        request_timeout: SHORT,
        ..server.config()
    })
    .unwrap();
    write_until_done(&store, "a").await;
    server.freeze(true);
    let write = bounded(store.commit(txn([op("b", "1")])))
        .await
        .unwrap_err();
    // There is no connection any more, and none to be had: nothing is sent.
    let unsent = bounded(store.commit(txn([op("d", "1")])))
        .await
        .unwrap_err();
    server.freeze(false);
    write_until_done(&store, "e").await;
    server.freeze(true);
    let read = bounded(store.read(Range::default())).await.unwrap_err();
    server.freeze(false);
    assert!(
        matches!(&unsent, Error::Unavailable(why) if why.contains("no connection within 500ms")),
        "{unsent:?}"
    );
    assert!(
        matches!(&read, Error::Unavailable(why) if why.contains("no answer within 500ms")),
        "{read:?}"
    );
    assert!(
        matches!(&write, Error::OutcomeUnknown(why) if why.contains(&server.url())),
        "{write:?}"
    );
    write_until_done(&store, "c").await;
}

/// Its pings would find out, after eight seconds.
#[tokio::test]
async fn a_watch_of_an_etcd_that_hangs_ends_with_the_next_request() {
    let server = Server::start().await;
    let store = EtcdStore::new(EtcdConfig {
        request_timeout: SHORT,
        ..server.config()
    })
    .unwrap();
    let (lease, _) = until_available(|| store.grant(Duration::from_secs(60))).await;
    until_available(|| store.keep_alive(lease)).await;
    let before = write_until_done(&store, "a").await;
    let mut watch = until_available(|| store.watch("", before)).await;
    server.freeze(true);
    bounded(store.keep_alive(lease)).await.unwrap_err();
    let end = tokio::time::timeout(Duration::from_secs(3), next(&mut watch)).await;
    server.freeze(false);
    assert!(matches!(end, Ok(Err(Error::Unavailable(_)))), "{end:?}");
    // Nothing is missed.
    write_until_done(&store, "b").await;
    let mut watch = until_available(|| store.watch("", before)).await;
    let seen = bounded(async {
        loop {
            let events = next(&mut watch).await.unwrap().events;
            if let Some(Event::Put(entry)) = events.into_iter().next() {
                return entry.key;
            }
        }
    });
    assert_eq!(seen.await, "b");
}

#[tokio::test]
async fn a_restart_of_etcd_ends_watches_and_nothing_is_missed_or_lost() {
    let mut server = Server::start().await;
    let store = server.store("/p/");
    let start = store.read(Range::default()).await.unwrap().revision;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let mut acknowledged = Vec::new();
            for n in 0_usize.. {
                match store.commit(txn([op(&format!("u/{n}"), "1")])).await {
                    Ok(_) => acknowledged.push(format!("u/{n}")),
                    Err(Error::Unavailable(_) | Error::OutcomeUnknown(_)) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(other) => panic!("{other}"),
                }
                if acknowledged.len() == 1000 {
                    break;
                }
            }
            write_until_done(&store, "u/end").await;
            acknowledged
        }
    });
    let (mut seen, mut keys, mut restarts) = (start, BTreeSet::new(), 0);
    let mut watch = store.watch("u/", start).await.unwrap();
    loop {
        match next(&mut watch).await {
            Ok(batch) => {
                for event in batch.events {
                    let Event::Put(entry) = event else {
                        panic!("{event:?}")
                    };
                    assert!(entry.mod_revision > seen, "a repeat");
                    seen = entry.mod_revision;
                    assert!(keys.insert(entry.key));
                }
            }
            Err(Error::Unavailable(_)) => {
                watch = until_available(|| store.watch("u/", seen)).await;
            }
            Err(other) => panic!("{other}"),
        }
        if keys.len() >= 200 * (restarts + 1) && restarts < 2 {
            server.kill();
            server.run();
            restarts += 1;
        }
        if keys.contains("u/end") {
            break;
        }
    }
    assert_eq!(restarts, 2);
    for key in writer.await.unwrap() {
        assert!(keys.contains(&key), "{key} was acknowledged and never seen");
    }
    let there = store.read(Range::default()).await.unwrap();
    assert!(there.entries.iter().map(|entry| &entry.key).eq(&keys));
}

/// One of three members dies, or hangs with its connections open: everything goes on elsewhere.
async fn one_of_three_fails(freeze: bool) {
    let mut servers = Server::start_cluster::<3>().await;
    let all: Vec<_> = servers.iter().collect();
    let request_timeout = Duration::from_secs(2);
    let store = EtcdStore::new(EtcdConfig {
        request_timeout,
        ..config(&all)
    })
    .unwrap();
    let (lease, _) = store.grant(Duration::from_secs(30)).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    let revision = write_until_done(&store, "before").await;
    let mut watch = store.watch("", revision).await.unwrap();

    match freeze {
        true => servers[0].freeze(true),
        false => servers[0].kill(),
    }
    // The next keepalive is what notices; the watch on the same endpoint is cut by it.
    until_available(|| store.keep_alive(lease)).await;
    let end = next(&mut watch).await;
    assert!(matches!(end, Err(Error::Unavailable(_))), "{end:?}");
    let mut watch = until_available(|| store.watch("", revision)).await;
    let there = until_available(|| store.read(Range::default())).await;
    assert_eq!(there.entries.len(), 1);
    let revision = write_until_done(&store, "after").await;
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    until_available(|| store.keep_alive(lease)).await;
    if freeze {
        servers[0].freeze(false);
    }
}

#[tokio::test]
async fn a_member_that_dies_is_left() {
    one_of_three_fails(false).await;
}

#[tokio::test]
async fn a_member_that_hangs_is_left() {
    one_of_three_fails(true).await;
}

#[tokio::test]
async fn an_endpoint_that_never_answered_is_passed_over() {
    let server = Server::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [port, _] = free_ports();
    let endpoints = vec![
        format!("http://127.0.0.1:{port}"),
        format!("http://{}", silent.local_addr().unwrap()),
        server.url(),
    ];
    let store = EtcdStore::new(EtcdConfig {
        endpoints,
        ..server.config()
    })
    .unwrap();
    store.commit(txn([op("a", "1")])).await.unwrap();
}

#[tokio::test]
async fn another_etcd_at_the_same_address_is_noticed_by_its_watches() {
    let mut server = Server::start().await;
    let store = server.store("/p/");
    for _ in 0..10 {
        store.commit(txn([op("a", "1")])).await.unwrap();
    }
    let seen = store.read(Range::default()).await.unwrap().revision;
    server.kill();
    server.forget();
    server.run();
    let error = bounded(async {
        loop {
            match store.watch("", seen).await {
                Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                other => return other.err(),
            }
        }
    })
    .await;
    assert!(matches!(error, Some(Error::Compacted(1))), "{error:?}");
}

#[tokio::test]
async fn clusters_with_other_prefixes_do_not_see_each_other() {
    let server = Server::start().await;
    let ours = server.store("/a/");
    let others = [
        server.store("/b/"),
        server.store("/a"),
        server.store("/a/b/"),
        server.store("/a0/"),
    ];
    let mut watch = ours.watch("", 0).await.unwrap();
    for other in &others[..2] {
        other.commit(txn([op("0/k", "theirs")])).await.unwrap();
    }
    others[3]
        .commit(txn([op("other", "theirs")]))
        .await
        .unwrap();
    ours.commit(txn([op("k", "ours")])).await.unwrap();
    let batch = next(&mut watch).await.unwrap();
    assert!(
        matches!(&batch.events[..], [Event::Put(entry)] if entry.key == "k" && entry.value == b"ours")
    );
    let all = ours.read(Range::default()).await.unwrap();
    assert_eq!(all.entries.len(), 1, "{all:?}");
    assert!(
        others[2]
            .read(Range::default())
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    // A shorter prefix sees the longer one's keys: they are below it.
    assert_eq!(
        others[1]
            .read(Range::default())
            .await
            .unwrap()
            .entries
            .len(),
        3
    );
}

#[tokio::test]
async fn a_full_etcd_is_out_of_space_with_the_cure() {
    let server = Server::start_with(&["--quota-backend-bytes=4194304"]).await;
    let store = server.store("/p/");
    let mut last = Ok(0);
    for n in 0..200 {
        last = store
            .commit(txn([op(&n.to_string(), vec![0; 500_000])]))
            .await;
        if last.is_err() {
            break;
        }
    }
    let error = last.unwrap_err();
    assert!(
        matches!(&error, Error::NoSpace(why) if why.contains("--quota-backend-bytes")),
        "{error:?}"
    );
    store
        .read(Range {
            limit: Some(1),
            ..Range::default()
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stricter_etcd_refuses_what_is_too_much_for_it() {
    let server = Server::start_with(&["--max-txn-ops=10", "--max-request-bytes=10000"]).await;
    let store = server.store("/p/");
    let many: Vec<_> = (0..11).map(|n| op(&n.to_string(), "")).collect();
    for (bad, said) in [
        (txn(many), "too many operations"),
        (txn([op("a", vec![0; 600_000])]), "too large"),
    ] {
        let error = store.commit(bad).await.unwrap_err();
        assert!(
            matches!(&error, Error::Refused(why) if why.contains(said)),
            "{error:?}"
        );
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A CA with a certificate for a server and one for a client, and a CA that nobody knows.
fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for ca in ["ca", "other"] {
        openssl(
            path,
            &format!("req -x509 {KEY} -keyout {ca}.key -out {ca}.pem -days 2 -subj /CN={ca}"),
        );
    }
    for (name, usage) in [
        ("server", "serverAuth,clientAuth"),
        ("client", "clientAuth"),
    ] {
        let extensions = format!(
            "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n"
        );
        std::fs::write(path.join(format!("{name}.ext")), extensions).unwrap();
        openssl(
            path,
            &format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(
            path,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile {name}.ext"
            ),
        );
    }
    dir
}

#[tokio::test]
async fn tls_verifies_etcd_and_shows_the_own_certificate() {
    let files = certificates();
    let file = |name: &str| Some(files.path().join(name));
    let server = Server::start_tls(files.path()).await;
    let with = |ca: &str, own: bool| {
        let tls = TlsFiles {
            ca: file(ca),
            certificate: file("client.pem").filter(|_| own),
            key: file("client.key").filter(|_| own),
        };
        EtcdStore::new(EtcdConfig {
            tls,
            ..server.config()
        })
        .unwrap()
    };
    let store = with("ca.pem", true);
    let revision = write_until_done(&store, "a").await;
    let mut watch = store.watch("", revision).await.unwrap();
    let revision = store.commit(txn([op("b", "1")])).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    let (lease, _) = store.grant(PATIENCE).await.unwrap();
    store.keep_alive(lease).await.unwrap();

    for (ca, own, said) in [
        ("other.pem", true, "certificate"),
        ("ca.pem", false, "set etcd_certfile"),
    ] {
        let error = bounded(with(ca, own).read(Range::default()))
            .await
            .unwrap_err();
        let Error::Unavailable(why) = &error else {
            panic!("{error:?}")
        };
        assert!(why.contains(said) && why.contains(&server.url()), "{why}");
    }
    // Without a CA of its own the computer's list counts, and this one is not in it.
    let tls = TlsFiles::default();
    let error = match EtcdStore::new(EtcdConfig {
        tls,
        ..server.config()
    }) {
        Ok(store) => bounded(store.read(Range::default())).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(error, Error::Unavailable(_) | Error::Refused(_)),
        "{error}"
    );
}

#[test]
fn bad_urls_and_files_are_said_at_once() {
    let files = certificates();
    let file = |name: &str| Some(files.path().join(name));
    std::fs::write(files.path().join("text"), "no certificate").unwrap();
    let server = EtcdConfig {
        endpoints: vec!["https://127.0.0.1:2379".to_owned()],
        username: String::new(),
        password: String::new(),
        tls: TlsFiles::default(),
        prefix: "/p/".to_owned(),
        request_timeout: SHORT,
    };
    let url = |url: &str| EtcdConfig {
        endpoints: vec![url.to_owned()],
        ..server.clone()
    };
    let tls = |ca, certificate, key| EtcdConfig {
        tls: TlsFiles {
            ca,
            certificate,
            key,
        },
        ..server.clone()
    };
    for (config, said) in [
        (
            EtcdConfig {
                endpoints: vec![],
                ..server.clone()
            },
            "set etcd_servers",
        ),
        (url("ftp://a:2379"), "starts neither with http://"),
        (url("http://"), "is no URL"),
        (url("http://a b:2379"), "is no URL"),
        (url("http://a:2379/v2/keys"), "it has a path"),
        (tls(file("no.pem"), None, None), "etcd_cafile"),
        (tls(file("no.pem"), None, None), "No such file"),
        (
            tls(file("text"), None, None),
            "it holds no CERTIFICATE in PEM form",
        ),
        (
            tls(file("ca.pem"), file("client.pem"), None),
            "etcd_certfile needs etcd_keyfile",
        ),
        (
            tls(file("ca.pem"), None, file("client.key")),
            "etcd_keyfile needs etcd_certfile",
        ),
        (
            tls(file("ca.pem"), file("client.pem"), file("client.pem")),
            "it holds no PRIVATE KEY",
        ),
    ] {
        match EtcdStore::new(config).err() {
            Some(Error::Refused(why)) => {
                assert!(why.contains(said), "{why:?} does not say {said:?}")
            }
            other => panic!("{said}: {other:?}"),
        }
    }
    // The original's configuration may name a host alone, and files that http does not need.
    for fine in ["http://a:2379/", "a:2379", "http://[::1]:2379"] {
        let ca = TlsFiles {
            ca: file("no.pem"),
            ..TlsFiles::default()
        };
        EtcdStore::new(EtcdConfig {
            tls: ca,
            ..url(fine)
        })
        .unwrap();
    }
}

#[tokio::test]
async fn a_user_is_authenticated_and_again_when_etcd_has_forgotten_the_token() {
    let mut server = Server::start().await;
    let as_user = |username: &str, password: &str| {
        let (username, password) = (username.to_owned(), password.to_owned());
        EtcdStore::new(EtcdConfig {
            username,
            password,
            ..server.config()
        })
        .unwrap()
    };
    let store = as_user("root", "secret");
    // Without authentication a user does no harm.
    store.commit(txn([op("a", "1")])).await.unwrap();
    let mut client = etcd_client::Client::connect([server.url()], None)
        .await
        .unwrap();
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("nobody", "secret", None).await.unwrap();
    client.auth_enable().await.unwrap();

    let store = as_user("root", "secret");
    let revision = store.commit(txn([op("a", "2")])).await.unwrap();
    for (user, password, said) in [
        ("root", "wrong", "check etcd_username and etcd_password"),
        ("nobody", "secret", "grant a role"),
        ("", "", "set etcd_username"),
    ] {
        let error = bounded(as_user(user, password).commit(txn([op("a", "3")])))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable(why) if why.contains(said)),
            "{user:?}: {error:?}"
        );
    }
    let (lease, _) = store.grant(PATIENCE).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    let mut watch = store.watch("", revision).await.unwrap();
    store.commit(txn([op("b", "1")])).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().events.len(), 1);

    // etcd keeps tokens in memory: a restart is the end of all of them.
    let fresh = as_user("root", "secret");
    fresh.read(Range::default()).await.unwrap();
    server.kill();
    server.run();
    let mut again = until_available(|| fresh.watch("", revision)).await;
    assert_eq!(next(&mut again).await.unwrap().events.len(), 1);
    write_until_done(&store, "c").await;
    until_available(|| store.keep_alive(lease)).await;
}

#[tokio::test]
async fn other_endpoints_are_taken_at_run_time_and_leases_go_on() {
    let [first, second, _third] = Server::start_cluster().await;
    let store = at(&[first.url()], PATIENCE);
    let (lease, _) = until_available(|| store.grant(Duration::from_secs(60))).await;
    let revision = write_until_done(&store, "a").await;
    until_available(|| store.keep_alive(lease)).await;
    let mut watch = until_available(|| store.watch("", revision)).await;

    // What is wrong changes nothing.
    let bad = EtcdConfig {
        tls: TlsFiles {
            ca: Some("/nonexist".into()),
            ..TlsFiles::default()
        },
        endpoints: vec!["https://127.0.0.1:1".to_owned()],
        ..config(&[&second])
    };
    let error = store.reconfigure(bad).unwrap_err();
    assert!(error.to_string().contains("/nonexist"), "{error}");
    assert_eq!(store.describe(), format!("etcd {}", first.url()));
    let revision = write_until_done(&store, "b").await;
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);

    let prefix = "/p/".to_owned();
    store
        .reconfigure(EtcdConfig {
            prefix,
            ..config(&[&second])
        })
        .unwrap();
    assert_eq!(store.describe(), format!("etcd {}", second.url()));
    // The watch ends, and one from where it was misses nothing.
    assert!(matches!(next(&mut watch).await, Err(Error::Unavailable(_))));
    let mut watch = until_available(|| store.watch("", revision)).await;
    let later = write_until_done(&store, "c").await;
    assert_eq!(next(&mut watch).await.unwrap().revision, later);
    // Nothing is asked of the first any more: it may hang.
    first.freeze(true);
    until_available(|| store.keep_alive(lease)).await;
    first.freeze(false);
}
