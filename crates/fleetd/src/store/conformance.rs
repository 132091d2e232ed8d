//! What every store does, run over each of them. A store that is simulated must pass this too.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::{
    Compare, Entry, Error, Event, LeaseId, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Range, Snapshot, Store,
    Txn, Watch, WatchBatch,
};

/// Long enough for any answer on a busy computer; waiting ends as soon as there is one.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

mod leases;
mod watches;

/// A test by its name.
#[cfg(fleet_sim)]
pub type Test = (&'static str, futures_util::future::BoxFuture<'static, ()>);

/// The whole suite, for a store that is simulated.
#[cfg(fleet_sim)]
pub fn suite(store: &dyn Fn() -> Arc<dyn Store>) -> Vec<Test> {
    let parts = [part(store), leases::part(store), watches::part(store)];
    parts.into_iter().flatten().collect()
}

macro_rules! conformance {
    ($($name:ident,)*) => {
        /// The tests of this part, each with a store of its own.
        #[cfg(fleet_sim)]
        pub(super) fn part(store: &dyn Fn() -> std::sync::Arc<dyn crate::store::Store>) -> Vec<crate::store::conformance::Test> {
            vec![$((stringify!($name), Box::pin($name(store())) as _),)*]
        }
        #[cfg(test)]
        mod memory {
            $(#[tokio::test] async fn $name() {
                super::$name(crate::store::memory::MemoryStore::new()).await;
            })*
        }
        #[cfg(test)]
        mod embedded {
            $(#[tokio::test] async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(crate::store::embedded::EmbeddedStore::open(dir.path().join("store.redb")).unwrap()).await;
            })*
        }
        #[cfg(test)]
        mod etcd {
            $(#[tokio::test] async fn $name() {
                let server = crate::store::etcd::server::Server::start().await;
                super::$name(server.store("/_coreos.com/fleet/")).await;
            })*
        }
    };
}

use conformance;
use watches::events;

conformance! {
    a_key_has_the_revisions_of_its_life,
    each_compare_holds_when_it_is_true_and_only_then,
    a_conflict_writes_nothing,
    a_transaction_that_changes_nothing_makes_no_revision,
    a_range_is_cut_by_prefix_start_and_limit,
    the_newest_are_read_first,
    the_past_is_read_as_it_was,
    single_keys_are_read_at_one_revision,
    a_large_range_is_read_whole,
    limits_are_refused_before_anything_is_written,
    a_large_value_comes_back,
    of_many_claims_one_wins,
}

pub(super) fn op(key: &str, value: impl Into<Vec<u8>>) -> Op {
    Op::Put {
        key: key.to_owned(),
        value: value.into(),
        lease: None,
    }
}

fn delete(key: &str) -> Op {
    Op::Delete {
        key: key.to_owned(),
    }
}

pub(super) fn txn(ops: impl Into<Vec<Op>>) -> Txn {
    Txn {
        compares: vec![],
        ops: ops.into(),
    }
}

fn range(prefix: &str) -> Range {
    Range {
        prefix: prefix.to_owned(),
        ..Range::default()
    }
}

fn pairs(snapshot: &Snapshot) -> Vec<(&str, &str)> {
    let text = |entry| std::str::from_utf8(entry).unwrap();
    snapshot
        .entries
        .iter()
        .map(|e| (e.key.as_str(), text(&e.value)))
        .collect()
}

pub(super) async fn next(watch: &mut Watch) -> Result<WatchBatch, Error> {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("nothing came from the watch")
        .expect("the watch has ended without an error")
}

async fn a_key_has_the_revisions_of_its_life(store: Arc<dyn Store>) {
    let empty = store.read(Range::default()).await.unwrap();
    assert_eq!((empty.entries.len(), empty.more), (0, false));
    let first = store
        .commit(txn([op("a", "1"), op("b", "1")]))
        .await
        .unwrap();
    assert!(first > empty.revision);
    let second = store.commit(txn([op("a", "2")])).await.unwrap();
    assert_eq!(second, first + 1);
    let all = store.read(Range::default()).await.unwrap();
    let entry = |key: &str, value: &str, create_revision, mod_revision| Entry {
        key: key.to_owned(),
        value: value.into(),
        create_revision,
        mod_revision,
        lease: None,
    };
    assert_eq!(all.revision, second);
    assert_eq!(
        all.entries,
        [
            entry("a", "2", first, second),
            entry("b", "1", first, first)
        ]
    );
    store.commit(txn([delete("a")])).await.unwrap();
    let again = store.commit(txn([op("a", "3")])).await.unwrap();
    let all = store.read(range("a")).await.unwrap();
    assert_eq!(all.entries, [entry("a", "3", again, again)]);
}

async fn each_compare_holds_when_it_is_true_and_only_then(store: Arc<dyn Store>) {
    let created = store.commit(txn([op("a", "1")])).await.unwrap();
    let changed = store.commit(txn([op("a", "2")])).await.unwrap();
    let key = || "a".to_owned();
    let (lease, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    let (other, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    let leased = Op::Put {
        key: "l".to_owned(),
        value: vec![],
        lease: Some(lease),
    };
    store.commit(txn([leased])).await.unwrap();
    for (compare, holds) in [
        (Compare::Absent("b".to_owned()), true),
        (Compare::Absent(key()), false),
        (Compare::ModRevision(key(), changed), true),
        (Compare::ModRevision(key(), created), false),
        (Compare::ModRevision("b".to_owned(), created), false),
        (Compare::CreateRevision(key(), created), true),
        (Compare::CreateRevision(key(), changed), false),
        (Compare::CreateRevision("b".to_owned(), created), false),
        (Compare::Lease("l".to_owned(), lease), true),
        (Compare::Lease("l".to_owned(), other), false),
        (Compare::Lease(key(), lease), false),
        (Compare::Lease("b".to_owned(), lease), false),
    ] {
        let guarded = Txn {
            compares: vec![compare.clone()],
            ops: vec![op("x", "1")],
        };
        match store.commit(guarded).await {
            Ok(_) => assert!(holds, "{compare:?}"),
            Err(Error::Conflict) => assert!(!holds, "{compare:?}"),
            Err(other) => panic!("{compare:?}: {other}"),
        }
    }
    // Only compares: the question whether a fence still holds.
    let fence = |revision| Txn {
        compares: vec![Compare::CreateRevision(key(), revision)],
        ops: vec![],
    };
    store.commit(fence(created)).await.unwrap();
    assert!(matches!(
        store.commit(fence(changed)).await,
        Err(Error::Conflict)
    ));
    // All have to hold.
    let compares = vec![Compare::Absent("b".to_owned()), Compare::Absent(key())];
    let both = Txn {
        compares,
        ops: vec![op("y", "1")],
    };
    assert!(matches!(store.commit(both).await, Err(Error::Conflict)));
}

async fn a_conflict_writes_nothing(store: Arc<dyn Store>) {
    store
        .commit(txn([op("a", "1"), op("b", "1")]))
        .await
        .unwrap();
    let before = store.read(Range::default()).await.unwrap();
    let ops = vec![op("a", "2"), delete("b"), op("c", "2")];
    let conflict = Txn {
        compares: vec![Compare::Absent("a".to_owned())],
        ops,
    };
    assert!(matches!(store.commit(conflict).await, Err(Error::Conflict)));
    assert_eq!(store.read(Range::default()).await.unwrap(), before);
    // An error of one op undoes the others.
    let gone = Op::Put {
        key: "c".to_owned(),
        value: vec![],
        lease: Some(LeaseId(4711)),
    };
    let error = store.commit(txn([op("a", "2"), gone])).await.unwrap_err();
    assert!(matches!(error, Error::LeaseGone), "{error}");
    assert_eq!(store.read(Range::default()).await.unwrap(), before);
}

async fn a_transaction_that_changes_nothing_makes_no_revision(store: Arc<dyn Store>) {
    let revision = store.commit(txn([op("a", "1")])).await.unwrap();
    assert_eq!(store.commit(txn([])).await.unwrap(), revision);
    assert_eq!(store.commit(txn([delete("no")])).await.unwrap(), revision);
    assert_eq!(
        store
            .commit(txn([delete("no"), delete("a")]))
            .await
            .unwrap(),
        revision + 1
    );
}

async fn a_range_is_cut_by_prefix_start_and_limit(store: Arc<dyn Store>) {
    let keys = ["t/z", "u/a", "u/b", "u/c", "u/ü", "u0", "v"];
    store
        .commit(txn(keys.map(|key| op(key, key))))
        .await
        .unwrap();
    for (after, limit, expected, more) in [
        (None, None, &["u/a", "u/b", "u/c", "u/ü"][..], false),
        (None, Some(2), &["u/a", "u/b"], true),
        (None, Some(4), &["u/a", "u/b", "u/c", "u/ü"], false),
        (None, Some(0), &[], true),
        (Some("u/b"), None, &["u/c", "u/ü"], false),
        (Some("u/b"), Some(1), &["u/c"], true),
        (Some("u/bb"), None, &["u/c", "u/ü"], false),
        (Some("a"), Some(1), &["u/a"], true),
        (Some("u/ü"), None, &[], false),
        (Some("w"), Some(0), &[], false),
    ] {
        let asked = Range {
            after: after.map(str::to_owned),
            limit,
            ..range("u/")
        };
        let snapshot = store.read(asked.clone()).await.unwrap();
        let found: Vec<_> = snapshot
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        assert_eq!((&found[..], snapshot.more), (expected, more), "{asked:?}");
    }
    for (after, until, expected) in [
        (None, "u/c", &["u/a", "u/b"][..]),
        (Some("u/a"), "u/bb", &["u/b"]),
        (Some("u/b"), "u/b", &[]),
        (Some("u/c"), "u/b", &[]),
        (Some("u/b"), "u0", &["u/c", "u/ü"]),
        (Some("u/b"), "v", &["u/c", "u/ü"]),
        (None, "u/", &[]),
        (None, "t", &[]),
    ] {
        let asked = Range {
            after: after.map(str::to_owned),
            until: Some(until.to_owned()),
            ..range("u/")
        };
        let snapshot = store.read(asked.clone()).await.unwrap();
        let keys = snapshot.entries.iter().map(|entry| entry.key.as_str());
        assert_eq!(keys.collect::<Vec<_>>(), expected, "{asked:?}");
        assert!(!snapshot.more && snapshot.revision > 0, "{asked:?}");
    }
    let all = store.read(Range::default()).await.unwrap();
    assert_eq!(all.entries.len(), keys.len());
}

async fn the_newest_are_read_first(store: Arc<dyn Store>) {
    let mut revisions = Vec::new();
    for key in ["e/a", "e/b", "e/c", "f", "e/a", "e/d"] {
        revisions.push(store.commit(txn([op(key, "x")])).await.unwrap());
    }
    let newest = revisions[5];
    for (before, limit, expected, more) in [
        (u64::MAX, None, &["e/d", "e/a", "e/c", "e/b"][..], false),
        (newest, None, &["e/a", "e/c", "e/b"], false),
        (newest, Some(2), &["e/a", "e/c"], true),
        (newest, Some(3), &["e/a", "e/c", "e/b"], false),
        (revisions[2], None, &["e/b"], false),
        (revisions[1], None, &[], false),
        (0, None, &[], false),
    ] {
        let asked = Range {
            changed_before: Some(before),
            limit,
            ..range("e/")
        };
        let snapshot = store.read(asked.clone()).await.unwrap();
        let found = snapshot.entries.iter().map(|entry| entry.key.as_str());
        let found: Vec<_> = found.collect();
        assert_eq!((&found[..], snapshot.more), (expected, more), "{asked:?}");
        assert_eq!(snapshot.revision, newest);
    }
    let past = Range {
        changed_before: Some(u64::MAX),
        revision: Some(revisions[3]),
        ..range("e/")
    };
    let past = store.read(past).await.unwrap();
    let found = past.entries.iter().map(|entry| entry.key.as_str());
    assert_eq!(found.collect::<Vec<_>>(), ["e/c", "e/b", "e/a"]);
}

async fn the_past_is_read_as_it_was(store: Arc<dyn Store>) {
    let at = |revision| Range {
        revision: Some(revision),
        ..Range::default()
    };
    let first = store
        .commit(txn([op("a", "1"), op("b", "1")]))
        .await
        .unwrap();
    let second = store
        .commit(txn([op("a", "2"), delete("b"), op("c", "2")]))
        .await
        .unwrap();
    let third = store
        .commit(txn([op("b", "3"), delete("c")]))
        .await
        .unwrap();
    for (revision, expected) in [
        (first, &[("a", "1"), ("b", "1")]),
        (second, &[("a", "2"), ("c", "2")]),
        (third, &[("a", "2"), ("b", "3")]),
    ] {
        let snapshot = store.read(at(revision)).await.unwrap();
        assert_eq!(
            (snapshot.revision, &pairs(&snapshot)[..]),
            (revision, &expected[..])
        );
    }
    let page = Range {
        limit: Some(1),
        ..at(first)
    };
    let page = store.read(page).await.unwrap();
    assert_eq!((pairs(&page), page.more), (vec![("a", "1")], true));
    let error = store.read(at(third + 1)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused(why) if why.contains("not yet reached")),
        "{error}"
    );
}

async fn single_keys_are_read_at_one_revision(store: Arc<dyn Store>) {
    let revision = store
        .commit(txn([op("a", "1"), op("b", "1"), op("c", "1")]))
        .await
        .unwrap();
    let keys = ["c", "no", "a", "c"].map(str::to_owned);
    let snapshot = store.read_keys(&keys).await.unwrap();
    assert_eq!(
        (snapshot.revision, pairs(&snapshot)),
        (revision, vec![("a", "1"), ("c", "1")])
    );
    assert_eq!(store.read_keys(&[]).await.unwrap().revision, revision);
    let many = vec!["a".to_owned(); MAX_TXN_OPS + 1];
    assert!(matches!(
        store.read_keys(&many).await,
        Err(Error::Refused(_))
    ));
}

async fn a_large_range_is_read_whole(store: Arc<dyn Store>) {
    const KEYS: usize = 25_000;
    let keys: Vec<_> = (0..KEYS).map(|n| format!("u/{n:06}")).collect();
    for chunk in keys.chunks(MAX_TXN_OPS) {
        let ops: Vec<_> = chunk.iter().map(|key| op(key, vec![b'x'; 300])).collect();
        store.commit(txn(ops)).await.unwrap();
    }
    let all = store.read(range("u/")).await.unwrap();
    assert!(!all.more);
    assert!(all.entries.iter().map(|entry| &entry.key).eq(&keys));
    let limit = Some(KEYS - 1);
    let most = store
        .read(Range {
            limit,
            ..range("u/")
        })
        .await
        .unwrap();
    assert_eq!((most.entries.len(), most.more), (KEYS - 1, true));
}

async fn limits_are_refused_before_anything_is_written(store: Arc<dyn Store>) {
    let ops = |count: usize| {
        (0..count)
            .map(|n| op(&format!("k/{n}"), ""))
            .collect::<Vec<_>>()
    };
    let compares = (0..=MAX_TXN_OPS)
        .map(|n| Compare::Absent(n.to_string()))
        .collect();
    for (bad, said) in [
        (txn(ops(MAX_TXN_OPS + 1)), "129 operations"),
        (
            Txn {
                compares,
                ops: vec![],
            },
            "129 operations",
        ),
        (txn([op("a", vec![0; MAX_TXN_BYTES])]), "1400001 bytes"),
        (txn([op("a", "1"), op("a", "2")]), "a stands twice"),
        (txn([op("a", "1"), delete("a")]), "a stands twice"),
        (txn([op("", "1")]), "a key is empty"),
    ] {
        match store.commit(bad).await {
            Err(Error::Refused(why)) => {
                assert!(why.contains(said), "{why:?} does not say {said:?}")
            }
            other => panic!("{said}: {other:?}"),
        }
    }
    assert!(
        store
            .read(Range::default())
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    let compares = (0..MAX_TXN_OPS)
        .map(|n| Compare::Absent(n.to_string()))
        .collect();
    store
        .commit(Txn {
            compares,
            ops: ops(MAX_TXN_OPS),
        })
        .await
        .unwrap();
    assert_eq!(
        store.read(Range::default()).await.unwrap().entries.len(),
        MAX_TXN_OPS
    );
}

async fn a_large_value_comes_back(store: Arc<dyn Store>) {
    let value: Vec<u8> = (0..MAX_TXN_BYTES - 100).map(|n| (n % 251) as u8).collect();
    let mut watch = store.watch("", 0).await.unwrap();
    // More than etcd's client takes in one message unless it is told to.
    for n in 0..5 {
        store
            .commit(txn([op(&format!("big/{n}"), value.clone())]))
            .await
            .unwrap();
    }
    let all = store.read(range("big/")).await.unwrap();
    assert_eq!(all.entries.len(), 5);
    assert!(all.entries.iter().all(|entry| entry.value == value));
    let mut behind = store.watch("", 0).await.unwrap();
    for watch in [&mut watch, &mut behind] {
        for event in events(watch, 5).await {
            assert!(matches!(event, Event::Put(entry) if entry.value == value));
        }
    }
}

async fn of_many_claims_one_wins(store: Arc<dyn Store>) {
    const WRITERS: usize = 10;
    const CLAIMS: usize = 20;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut won = 0;
            for n in 0..CLAIMS {
                let compares = vec![Compare::Absent(format!("claim/{n}"))];
                let ops = vec![
                    op(&format!("claim/{n}"), writer.to_string()),
                    op(&format!("won/{n}/{writer}"), ""),
                ];
                match store.commit(Txn { compares, ops }).await {
                    Ok(_) => won += 1,
                    Err(Error::Conflict) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            won
        });
    }
    let mut won = 0;
    while let Some(writer) = writers.join_next().await {
        won += writer.unwrap();
    }
    assert_eq!(won, CLAIMS);
    assert_eq!(
        store.read(range("won/")).await.unwrap().entries.len(),
        CLAIMS
    );
}
