//! Watches and compaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{conformance, delete, next, op, pairs, range, txn};
use crate::store::{Entry, Error, Event, Range, Revision, Store, Watch};

conformance! {
    a_watch_sees_what_happens_below_its_prefix,
    a_watch_from_now_sees_what_comes_after_its_revision,
    a_watch_begins_where_a_snapshot_ended_while_others_write,
    a_watch_of_a_revision_that_never_was_wants_a_new_snapshot,
    what_is_compacted_is_said_to_be,
}

/// All events of the next batches, until there are as many as expected.
pub(super) async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
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

/// Its revision is that of a snapshot: whoever reads later sees what was before it.
async fn a_watch_from_now_sees_what_comes_after_its_revision(store: Arc<dyn Store>) {
    let before = store.commit(txn([op("u/a", "0")])).await.unwrap();
    let (now, mut watch) = store.watch_from_now("u/").await.unwrap();
    assert_eq!(now, before);
    store.commit(txn([op("v", "1")])).await.unwrap();
    let put = store.commit(txn([op("u/a", "1")])).await.unwrap();
    let events = events(&mut watch, 1).await;
    assert!(
        matches!(&events[..], [Event::Put(entry)] if entry.mod_revision == put),
        "{events:?}"
    );
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
