//! What every store does, run over each of them. A store that is simulated must pass this too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::memory::MemoryStore;
use super::{
    Compare, Entry, Error, Event, LeaseId, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Range, Revision,
    Snapshot, Store, Txn, Watch, WatchBatch,
};
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::server::Server;

/// Long enough for any answer on a busy computer; waiting ends as soon as there is one.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

macro_rules! conformance {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test] async fn $name() {
                super::$name(super::MemoryStore::new()).await;
            })*
        }
        mod embedded {
            $(#[tokio::test] async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(super::EmbeddedStore::open(dir.path().join("store.redb")).unwrap()).await;
            })*
        }
        mod etcd {
            $(#[tokio::test] async fn $name() {
                let server = super::Server::start().await;
                super::$name(server.store("/_coreos.com/fleet/")).await;
            })*
        }
    };
}

conformance! {
    a_key_has_the_revisions_of_its_life,
    each_compare_holds_when_it_is_true_and_only_then,
    a_conflict_writes_nothing,
    a_transaction_that_changes_nothing_makes_no_revision,
    a_range_is_cut_by_prefix_start_and_limit,
    the_past_is_read_as_it_was,
    single_keys_are_read_at_one_revision,
    a_large_range_is_read_whole,
    a_watch_sees_what_happens_below_its_prefix,
    a_watch_begins_where_a_snapshot_ended_while_others_write,
    a_watch_of_a_revision_that_never_was_wants_a_new_snapshot,
    what_is_compacted_is_said_to_be,
    a_lease_that_is_kept_alive_stays_and_takes_its_keys_along_when_it_ends,
    a_revoked_lease_takes_its_keys_along,
    a_key_leaves_its_lease_when_it_is_put_without,
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

/// All events of the next batches, until there are as many as expected.
async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(next(watch).await.unwrap().events);
    }
    events
}

/// The error of a watch, whether it comes when it is opened or as its first word.
async fn watch_error(store: &dyn Store, after: Revision) -> Error {
    match store.watch("", after).await {
        Err(error) => error,
        Ok(mut watch) => next(&mut watch).await.expect_err("the watch goes on"),
    }
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
    for (compare, holds) in [
        (Compare::Absent("b".to_owned()), true),
        (Compare::Absent(key()), false),
        (Compare::ModRevision(key(), changed), true),
        (Compare::ModRevision(key(), created), false),
        (Compare::ModRevision("b".to_owned(), created), false),
        (Compare::CreateRevision(key(), created), true),
        (Compare::CreateRevision(key(), changed), false),
        (Compare::CreateRevision("b".to_owned(), created), false),
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
    let all = store.read(Range::default()).await.unwrap();
    assert_eq!(all.entries.len(), keys.len());
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

async fn a_watch_sees_what_happens_below_its_prefix(store: Arc<dyn Store>) {
    let start = store.commit(txn([op("u/a", "0")])).await.unwrap();
    let mut past = store.watch("u/", 0).await.unwrap();
    let mut now = store.watch("u/", start).await.unwrap();
    let put = store
        .commit(txn([op("v", "1"), op("u/a", "1")]))
        .await
        .unwrap();
    store.commit(txn([op("v", "2")])).await.unwrap();
    let gone = store
        .commit(txn([delete("u/a"), delete("u/no")]))
        .await
        .unwrap();
    let entry = |value: &str, mod_revision| {
        let key = "u/a".to_owned();
        let value = value.into();
        Event::Put(Entry {
            key,
            value,
            create_revision: start,
            mod_revision,
            lease: None,
        })
    };
    let removed = Event::Delete {
        key: "u/a".to_owned(),
        revision: gone,
    };
    assert_eq!(
        events(&mut now, 2).await,
        [entry("1", put), removed.clone()]
    );
    assert_eq!(
        events(&mut past, 3).await,
        [entry("0", start), entry("1", put), removed]
    );
    drop(past);
    store.commit(txn([op("u/b", "1")])).await.unwrap();
    assert_eq!(events(&mut now, 1).await.len(), 1);
}

/// Each transaction changes three keys, so that a split revision would be seen.
async fn a_watch_begins_where_a_snapshot_ended_while_others_write(store: Arc<dyn Store>) {
    const WRITES: u64 = 600;
    const WATCHES: usize = 20;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 0..WRITES {
                let key = format!("u/{}", n % 7);
                let last = match n % 5 {
                    0 => delete("u/last"),
                    _ => op("u/last", n.to_string()),
                };
                store
                    .commit(txn([
                        op(&key, n.to_string()),
                        op("u/n", n.to_string()),
                        last,
                    ]))
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
            store.commit(txn([op("u/end", "")])).await.unwrap()
        }
    });
    let mut watches = tokio::task::JoinSet::new();
    for _ in 0..WATCHES {
        let snapshot = store.read(range("u/")).await.unwrap();
        let mut watch = store.watch("u/", snapshot.revision).await.unwrap();
        let reader = Arc::clone(&store);
        watches.spawn(async move {
            let mut seen = snapshot.revision;
            let mut state: BTreeMap<_, _> = snapshot
                .entries
                .into_iter()
                .map(|e| (e.key, e.value))
                .collect();
            while !state.contains_key("u/end") {
                let batch = next(&mut watch).await.unwrap();
                let mut revisions = BTreeMap::<_, BTreeSet<_>>::new();
                for event in batch.events {
                    let (key, revision, value) = match event {
                        Event::Put(entry) => (entry.key, entry.mod_revision, Some(entry.value)),
                        Event::Delete { key, revision } => (key, revision, None),
                    };
                    assert!(
                        revision > seen,
                        "{revision} again, or out of order, after {seen}"
                    );
                    assert!(revision <= batch.revision);
                    let fresh = revisions.entry(revision).or_default().insert(key.clone());
                    assert!(fresh, "{key} twice at {revision}");
                    match value {
                        Some(value) => state.insert(key, value),
                        None => state.remove(&key),
                    };
                }
                for (revision, keys) in revisions {
                    // A delete of nothing is no event.
                    let whole = keys.contains("u/end")
                        || keys.len() == 3
                        || (keys.len() == 2 && !keys.contains("u/last"));
                    assert!(whole, "revision {revision} was split: {keys:?}");
                    assert_eq!(revision, seen + 1, "a gap");
                    seen = revision;
                }
                assert!(batch.revision >= seen);
            }
            let end = reader.read(range("u/")).await.unwrap();
            let end: BTreeMap<_, _> = end.entries.into_iter().map(|e| (e.key, e.value)).collect();
            assert_eq!(state, end);
        });
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    while let Some(watch) = watches.join_next().await {
        watch.unwrap();
    }
}

async fn a_watch_of_a_revision_that_never_was_wants_a_new_snapshot(store: Arc<dyn Store>) {
    let revision = store.commit(txn([op("a", "1")])).await.unwrap();
    let error = watch_error(&*store, revision + 1000).await;
    assert!(matches!(error, Error::Compacted(_)), "{error}");
}

async fn what_is_compacted_is_said_to_be(store: Arc<dyn Store>) {
    let at = |revision| Range {
        revision: Some(revision),
        ..Range::default()
    };
    let first = store
        .commit(txn([op("a", "1"), op("b", "1")]))
        .await
        .unwrap();
    let second = store
        .commit(txn([op("a", "2"), delete("b")]))
        .await
        .unwrap();
    let third = store.commit(txn([op("a", "3")])).await.unwrap();
    store.compact(second).await.unwrap();
    store.compact(second).await.unwrap();
    store.compact(first).await.unwrap();
    assert!(matches!(
        store.compact(third + 1).await,
        Err(Error::Refused(_))
    ));
    let error = store.read(at(first)).await.unwrap_err();
    assert!(matches!(error, Error::Compacted(_)), "{error}");
    assert_eq!(pairs(&store.read(at(second)).await.unwrap()), [("a", "2")]);
    assert_eq!(
        pairs(&store.read(Range::default()).await.unwrap()),
        [("a", "3")]
    );
    // The removal of b is no longer kept: a watch from before must not miss it in silence.
    let error = watch_error(&*store, first).await;
    assert!(matches!(error, Error::Compacted(_)), "{error}");
    let mut watch = store.watch("", second).await.unwrap();
    let batch = next(&mut watch).await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (third, 1));
    // A watch that is running and has seen everything is not disturbed.
    store.compact(third).await.unwrap();
    store.commit(txn([op("a", "4")])).await.unwrap();
    assert_eq!(events(&mut watch, 1).await.len(), 1);
}

async fn under(store: &dyn Store, lease: LeaseId, keys: &[&str]) -> Result<Revision, Error> {
    let put = |key: &&str| Op::Put {
        key: (*key).to_owned(),
        value: vec![],
        lease: Some(lease),
    };
    store
        .commit(txn(keys.iter().map(put).collect::<Vec<_>>()))
        .await
}

/// The keys that a revision removed, all in one batch.
fn removed(batch: &WatchBatch) -> Vec<&str> {
    let keys = batch.events.iter().map(|event| match event {
        Event::Delete { key, revision } if *revision == batch.revision => key.as_str(),
        other => panic!("{other:?} at {}", batch.revision),
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    keys
}

async fn a_lease_that_is_kept_alive_stays_and_takes_its_keys_along_when_it_ends(
    store: Arc<dyn Store>,
) {
    let (lease, ttl) = store.grant(Duration::from_secs(1)).await.unwrap();
    assert!(ttl >= Duration::from_secs(1) && ttl < PATIENCE, "{ttl:?}");
    let revision = under(&*store, lease, &["m/a", "m/b"]).await.unwrap();
    let entries = store.read(Range::default()).await.unwrap().entries;
    assert!(entries.iter().all(|entry| entry.lease == Some(lease)));
    let mut watch = store.watch("m/", revision).await.unwrap();
    // Longer than the lease lasts; it ends only when nobody renews it any more.
    let renewed_until = tokio::time::Instant::now() + 2 * ttl;
    while tokio::time::Instant::now() < renewed_until {
        assert_eq!(store.keep_alive(lease).await.unwrap(), ttl);
        let ended = tokio::time::timeout(ttl / 5, watch.next()).await;
        assert!(
            ended.is_err(),
            "the lease ended while it was renewed: {ended:?}"
        );
    }
    let batch = next(&mut watch).await.unwrap();
    assert_eq!(removed(&batch), ["m/a", "m/b"]);
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(Error::LeaseGone)
    ));
    let error = under(&*store, lease, &["m/a"]).await.unwrap_err();
    assert!(matches!(error, Error::LeaseGone), "{error}");
    assert!(
        store
            .read(Range::default())
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert!(matches!(
        store.keep_alive(LeaseId(4711)).await,
        Err(Error::LeaseGone)
    ));
}

async fn a_revoked_lease_takes_its_keys_along(store: Arc<dyn Store>) {
    let (lease, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    let (other, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    assert_ne!(lease, other);
    under(&*store, lease, &["a", "b"]).await.unwrap();
    let revision = under(&*store, other, &["c"]).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    let mut watch = store.watch("", revision).await.unwrap();
    store.revoke(lease).await.unwrap();
    let batch = next(&mut watch).await.unwrap();
    assert_eq!(
        (batch.revision, removed(&batch)),
        (revision + 1, vec!["a", "b"])
    );
    store.revoke(lease).await.unwrap();
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(Error::LeaseGone)
    ));
    assert_eq!(store.read(Range::default()).await.unwrap().entries.len(), 1);
}

async fn a_key_leaves_its_lease_when_it_is_put_without(store: Arc<dyn Store>) {
    let (lease, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    let (other, _) = store.grant(Duration::from_secs(60)).await.unwrap();
    under(&*store, lease, &["a", "b", "c"]).await.unwrap();
    store.commit(txn([op("a", "stays")])).await.unwrap();
    under(&*store, other, &["b"]).await.unwrap();
    store.revoke(lease).await.unwrap();
    let left = store.read(Range::default()).await.unwrap();
    let leases: Vec<_> = left
        .entries
        .iter()
        .map(|e| (e.key.as_str(), e.lease))
        .collect();
    assert_eq!(leases, [("a", None), ("b", Some(other))]);
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
