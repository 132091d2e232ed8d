use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;
use crate::store::{Compare, Entry, Event, Op};

fn put(key: &str, value: &[u8]) -> Txn {
    Txn {
        compares: vec![],
        ops: vec![Op::Put {
            key: key.to_owned(),
            value: value.to_vec(),
            lease: None,
        }],
    }
}

async fn all(store: &EmbeddedStore) -> (Revision, Vec<Entry>) {
    let all = store.read(Range::default()).await.unwrap();
    (all.revision, all.entries)
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_and_revisions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let (lease, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    let under_lease = Op::Put {
        key: "b".to_owned(),
        value: b"2".to_vec(),
        lease: Some(lease),
    };
    store.commit(put("a", b"1")).await.unwrap();
    store.commit(put("a", &[0xff; 100_000])).await.unwrap();
    store
        .commit(Txn {
            compares: vec![],
            ops: vec![under_lease],
        })
        .await
        .unwrap();
    store.commit(put("c", b"3")).await.unwrap();
    let gone = Op::Delete {
        key: "c".to_owned(),
    };
    store
        .commit(Txn {
            compares: vec![],
            ops: vec![gone],
        })
        .await
        .unwrap();
    let before = all(&store).await;
    assert_eq!(before.0, 6);
    drop(store);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(all(&store).await, before);
    assert!(matches!(
        store.watch("", 5).await.err(),
        Some(Error::Compacted(6))
    ));
    let mut watch = store.watch("", 6).await.unwrap();
    assert_eq!(
        store.keep_alive(lease).await.unwrap(),
        Duration::from_secs(60)
    );
    let (second, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    assert!(second > lease, "ids of leases are not used again");
    store.revoke(lease).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(
        batch.events,
        [Event::Delete {
            key: "b".to_owned(),
            revision: 7
        }]
    );
    drop(store);
    let end = tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .unwrap();
    assert!(matches!(end, Some(Err(Error::Unavailable(_)))), "{end:?}");
}

#[tokio::test]
async fn a_lease_has_its_full_time_again_after_a_restart_and_then_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let (lease, _) = store.grant(Duration::from_millis(300)).await.unwrap();
    let op = Op::Put {
        key: "machines/m".to_owned(),
        value: vec![],
        lease: Some(lease),
    };
    let revision = store
        .commit(Txn {
            compares: vec![],
            ops: vec![op],
        })
        .await
        .unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    let mut watch = store.watch("", revision).await.unwrap();
    assert_eq!(all(&store).await.1.len(), 1);
    let batch = watch.next().await.unwrap().unwrap();
    let revision = revision + 1;
    assert_eq!(
        batch.events,
        [Event::Delete {
            key: "machines/m".to_owned(),
            revision
        }]
    );
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(Error::LeaseGone)
    ));
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(
        all(&store).await,
        (revision, vec![]),
        "the end of the lease is durable"
    );
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let first = EmbeddedStore::open(&path).unwrap();
    let error = EmbeddedStore::open(&path).err().unwrap().to_string();
    assert!(
        error.contains("store.redb is in use by another process"),
        "{error}"
    );
    first.commit(put("a", b"1")).await.unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_is_named_with_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |path: &Path| EmbeddedStore::open(path).err().unwrap().to_string();
    let error = fails(&dir.path().join("no/store.redb"));
    assert!(
        error.contains("no/store.redb cannot be opened") && error.contains("make its directory"),
        "{error}"
    );
    let error = fails(dir.path());
    assert!(error.contains("name a file"), "{error}");
    let other = dir.path().join("other.redb");
    let database = redb::Database::create(&other).unwrap();
    let writing = database.begin_write().unwrap();
    let table = redb::TableDefinition::<u64, u64>::new("theirs");
    writing.open_table(table).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = fails(&other);
    assert!(
        error.contains("other.redb holds other tables than fleet's"),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    for n in 0..200 {
        store
            .commit(put(&format!("units/{n}"), &[b'x'; 500]))
            .await
            .unwrap();
    }
    let whole = all(&store).await;
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let text = b"this is no store, but somebody's text".repeat(200);
    let mut refused = 0;
    let places = (0..good.len()).step_by(good.len() / 97);
    let overwritten = places.map(|at| {
        let mut bytes = good.clone();
        bytes[at..]
            .iter_mut()
            .take(64)
            .for_each(|byte| *byte ^= 0x5a);
        bytes
    });
    let cut = [64, 4096, good.len() / 2].map(|length| good[..length].to_vec());
    for bytes in overwritten.chain(cut).chain([text]) {
        std::fs::write(&path, &bytes).unwrap();
        match EmbeddedStore::open(&path) {
            // Pages that hold nothing may be anything.
            Ok(store) => assert_eq!(all(&store).await, whole),
            Err(Error::Refused(why)) => {
                refused += 1;
                assert!(why.contains("store.redb is damaged"), "{why}");
                assert!(why.contains("it was left as it is"), "{why}");
                assert!(
                    std::fs::read(&path).unwrap() == bytes,
                    "the file was changed: {why}"
                );
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(
        refused > 20,
        "only {refused} of the damaged files were noticed"
    );
}

/// A file on a disk that can be full, and whose flush can fail.
#[derive(Debug)]
struct FullDisk(FileBackend, Arc<AtomicBool>);

impl FullDisk {
    fn check(&self) -> std::io::Result<()> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for FullDisk {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.0.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.0.close()
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_when_there_is_space_again_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let full = Arc::new(AtomicBool::new(false));
    let disk = Arc::clone(&full);
    let open: file::Opener = Box::new(move |path, check| {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(redb::StorageError::from)?;
        file::builder(check)
            .create_with_backend(FullDisk(FileBackend::new(file)?, Arc::clone(&disk)))
    });
    let store = EmbeddedStore::run(StoreFile::open_with(&path, open).unwrap(), &path).unwrap();
    store.commit(put("a", b"1")).await.unwrap();
    let before = all(&store).await;
    let mut watch = store.watch("", before.0).await.unwrap();

    full.store(true, Ordering::SeqCst);
    let error = store.commit(put("b", &[0; 500_000])).await.unwrap_err();
    let said = error.to_string();
    assert!(
        matches!(error, Error::NoSpace(_) | Error::OutcomeUnknown(_)),
        "{said}"
    );
    assert!(said.contains("store.redb cannot be written"), "{said}");
    assert!(said.contains("free some space"), "{said}");
    store.commit(put("c", b"1")).await.unwrap_err();
    assert_eq!(all(&store).await, before, "what is not written is not seen");

    full.store(false, Ordering::SeqCst);
    let mut tries = 0;
    let revision = loop {
        match store.commit(put("d", b"1")).await {
            Ok(revision) => break revision,
            Err(error) if tries == 3 => panic!("{error}"),
            Err(_) => tries += 1,
        }
    };
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events.len(), 1, "{batch:?}");
    let after = all(&store).await;
    assert_eq!(after.0, revision);
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(all(&store).await, after, "the file says what was said");
}

/// What the writers of [`acknowledged_writes_survive_a_kill`] are told to write to.
const CHILD: &str = "FLEET_TEST_STORE_TO_FILL";

/// Not a test on its own: the process that is killed.
#[test]
fn child_that_fills_a_store() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(&path).unwrap();
        let writers = (0..8).map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0_u64.. {
                    let ops = ["x", "y"].map(|half| Op::Put {
                        key: format!("{half}/{writer}"),
                        value: n.to_string().into_bytes(),
                        lease: None,
                    });
                    let txn = Txn {
                        compares: vec![],
                        ops: ops.into(),
                    };
                    let revision = store.commit(txn).await.unwrap();
                    // Past the test harness, which captures what `println` says.
                    writeln!(std::io::stderr().lock(), "ack {writer} {n} {revision}").unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    for acknowledgements in [1, 50, 500] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::embedded::tests::child_that_fills_a_store",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut acknowledged = BTreeMap::new();
        let mut newest = 0;
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<_> = line.split(' ').collect();
            if let ["ack", writer, n, revision] = words[..] {
                acknowledged.insert(writer.to_owned(), n.parse::<u64>().unwrap());
                newest = newest.max(revision.parse().unwrap());
                seen += 1;
            }
            if seen == acknowledgements {
                // SIGKILL; what is still in the pipe was acknowledged as well.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(
            seen >= acknowledgements,
            "the child wrote only {seen} times"
        );

        let store = EmbeddedStore::open(&path).unwrap();
        let (revision, entries) = all(&store).await;
        assert!(revision >= newest, "{revision} < {newest}");
        let value = |key: String| {
            let entry = entries.iter().find(|entry| entry.key == key).unwrap();
            String::from_utf8_lossy(&entry.value)
                .parse::<u64>()
                .unwrap()
        };
        for (writer, n) in acknowledged {
            let x = value(format!("x/{writer}"));
            assert!(
                x >= n,
                "writer {writer}: {n} was acknowledged, {x} is there"
            );
            assert_eq!(x, value(format!("y/{writer}")), "a transaction is whole");
        }
        store.commit(put("after", b"1")).await.unwrap();
    }
}

#[tokio::test]
async fn concurrent_writers_share_commits_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path().join("store.redb")).unwrap();
    let writers: Vec<_> = (0..50)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut won = 0;
                for n in 0..20 {
                    store
                        .commit(put(&format!("own/{writer}/{n}"), b""))
                        .await
                        .unwrap();
                    let mut claim = put(&format!("claim/{n}"), b"");
                    claim.compares = vec![Compare::Absent(format!("claim/{n}"))];
                    match store.commit(claim).await {
                        Ok(_) => won += 1,
                        Err(Error::Conflict) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut won = 0;
    for writer in writers {
        won += writer.await.unwrap();
    }
    assert_eq!(won, 20, "each claim has one winner");
    let (revision, entries) = all(&store).await;
    assert_eq!(entries.len(), 50 * 20 + 20);
    assert_eq!(revision, 1 + 50 * 20 + 20);
}
