//! Leases.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::{PATIENCE, conformance, next, op, txn};
use crate::store::{Error, Event, LeaseId, Op, Range, Revision, Store, WatchBatch};

conformance! {
    a_lease_that_is_kept_alive_stays_and_takes_its_keys_along_when_it_ends,
    a_revoked_lease_takes_its_keys_along,
    a_key_leaves_its_lease_when_it_is_put_without,
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
