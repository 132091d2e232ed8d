//! The store: where the truth of a cluster is kept.
//!
//! One flat keyspace with revisions, guarded transactions, watches and leases, in etcd's terms.
//! Two implementations serve for real: `etcd` for clusters and `embedded` for one machine; one
//! conformance suite holds for both. Keys given to this trait are relative to the cluster's
//! prefix and are spelled by [`keys`] alone; values are written and read by [`codec`] alone.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub mod choice;
pub mod codec;
#[cfg(any(test, fleet_sim))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
pub mod conformance;
pub mod embedded;
pub mod etcd;
pub mod keys;
pub mod measured;
pub mod memory;
mod model;

pub use codec::{AskedRecord, ClusterRecord, Document, LeaderRecord};

/// A point in the store's history. Every transaction that writes makes the next one.
pub type Revision = u64;

/// A time-bound claim; keys put under it go when it ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeaseId(pub i64);

/// One key and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Relative to the cluster's prefix.
    pub key: String,
    /// The document.
    pub value: Vec<u8>,
    /// When the key came to be; a delete and a new put give a new one.
    pub create_revision: Revision,
    /// When it last changed.
    pub mod_revision: Revision,
    /// The lease it lives under.
    pub lease: Option<LeaseId>,
}

/// A range of the store at one revision, in byte order of the keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The point at which everything in it held. A watch from here misses nothing.
    pub revision: Revision,
    /// The entries.
    pub entries: Vec<Entry>,
    /// More entries follow after the last one (only when a limit was given).
    pub more: bool,
}

/// What to read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// All keys that start with this.
    pub prefix: String,
    /// Only keys after this one, which need not exist.
    pub after: Option<String>,
    /// Only keys before this one, which need not exist.
    pub until: Option<String>,
    /// At most so many entries; None reads all (the implementation pages underneath).
    pub limit: Option<usize>,
    /// Read at this past revision; None reads the newest.
    pub revision: Option<Revision>,
    /// Only entries that changed before this revision, the newest first instead of in the order of
    /// their keys, and never more than [`MAX_NEWEST`].
    pub changed_before: Option<Revision>,
}

/// A guard of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key last changed at this revision.
    ModRevision(String, Revision),
    /// The key came to be at this revision: the fence of leaders and machines.
    CreateRevision(String, Revision),
    /// The key lives under this lease. Revisions are small numbers, which another store may have
    /// by chance; its leases have other ids.
    Lease(String, LeaseId),
}

/// A write of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Create or replace.
    Put {
        /// The key.
        key: String,
        /// The document.
        value: Vec<u8>,
        /// The lease it shall live under.
        lease: Option<LeaseId>,
    },
    /// Remove; no error when it does not exist.
    Delete {
        /// The key.
        key: String,
    },
}

/// All compares hold and all ops are done at one revision, or nothing is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// The guards.
    pub compares: Vec<Compare>,
    /// The writes; at most [`MAX_TXN_OPS`]. A key may stand here once.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Refuses what no store takes, in the same words for all of them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |why: String| Err(Error::Refused(why));
        let count = self.ops.len().max(self.compares.len());
        if count > MAX_TXN_OPS {
            return refused(format!(
                "{count} operations in one transaction, at most {MAX_TXN_OPS} are possible: split it"
            ));
        }
        let (mut bytes, mut seen) = (0, HashSet::new());
        for op in &self.ops {
            let (key, size) = match op {
                Op::Put { key, value, .. } => (key, value.len()),
                Op::Delete { key } => (key, 0),
            };
            bytes += key.len() + size;
            if key.is_empty() {
                return refused("a key is empty".to_owned());
            }
            if !seen.insert(key) {
                return refused(format!("{key} stands twice in one transaction"));
            }
        }
        if bytes > MAX_TXN_BYTES {
            return refused(format!(
                "{bytes} bytes in one transaction, at most {MAX_TXN_BYTES} are possible: split it"
            ));
        }
        Ok(())
    }
}

/// Refuses more keys than one read may name.
pub(crate) fn check_keys(keys: &[String]) -> Result<(), Error> {
    if keys.len() > MAX_TXN_OPS {
        return Err(Error::Refused(format!(
            "{} keys in one read, at most {MAX_TXN_OPS} are possible: split it",
            keys.len()
        )));
    }
    Ok(())
}

/// So many entries are read at once, the newest first: etcd has to look at the whole range for them,
/// and sends them in one message. Ten of the largest documents fit one; a thousand events do, too.
pub const MAX_NEWEST: usize = 1_000;

/// etcd refuses more operations in one transaction (`--max-txn-ops`, its default).
pub const MAX_TXN_OPS: usize = 128;

/// etcd refuses larger requests (`--max-request-bytes`, 1.5 MiB); some room is left for framing.
pub const MAX_TXN_BYTES: usize = 1_400_000;

/// A watch that broke goes on from where it was if the store has come at most so many revisions further
/// meanwhile; whoever was away for longer reads what it needs and watches from there. etcd reads the
/// events of *all* keys since then for each 512 watches that begin in the past, so that thousands of
/// machines that went on from minutes ago, as after a restart of etcd, would be all that it does. So many
/// are read within milliseconds.
pub(crate) const RESUME_WITHIN: Revision = 1_000;

/// One change seen by a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The key was created or replaced.
    Put(Entry),
    /// The key was removed, by a transaction or because its lease ended.
    Delete {
        /// The key.
        key: String,
        /// The revision of the removal.
        revision: Revision,
    },
}

/// Changes in the order of their revisions; a revision is never split over two batches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WatchBatch {
    /// Everything up to here has been seen.
    pub revision: Revision,
    /// The changes.
    pub events: Vec<Event>,
}

/// A running watch. It ends after its first error; the caller then watches anew from the last
/// revision it has seen, or reads a new snapshot after [`Error::Compacted`]. Dropping it ends it.
pub type Watch = BoxStream<'static, Result<WatchBatch, Error>>;

/// Failures of the store, by what the caller does about them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Back off and try again. Nothing was written.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// A write may or may not have happened: read back before planning again.
    #[error("the outcome of a write is unknown: {0}")]
    OutcomeUnknown(String),
    /// A compare did not hold; nothing was written. Read again and re-plan, or step down when
    /// the compare was the own fence.
    #[error("a newer record is in the store")]
    Conflict,
    /// The asked-for revision is no longer kept: read a new snapshot.
    #[error("the store's history before revision {0} is compacted")]
    Compacted(Revision),
    /// The lease has ended.
    #[error("the lease has ended")]
    LeaseGone,
    /// The store is full; only an operator can help.
    #[error("the store is out of space: {0}")]
    NoSpace(String),
    /// The request can never succeed as it is.
    #[error("the store refused the request: {0}")]
    Refused(String),
    /// A stored document cannot be read. It freezes alone; everything else goes on.
    #[error("the document at {key} is damaged: {why}")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The store. All methods may be called from many tasks at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads a range at one revision.
    async fn read(&self, range: Range) -> Result<Snapshot, Error>;

    /// Reads several single keys at one revision (at most [`MAX_TXN_OPS`]); absent ones are left out.
    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error>;

    /// All changes below a prefix after a revision, with no gap and no repeat. `Compacted` when
    /// they are no longer kept, and when the store is not yet there: then it is another store
    /// than the one that the revision is of, or it was put back to an older state.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error>;

    /// All changes below a prefix from now on, and the revision after which that is. For whoever
    /// reads once it watches: etcd serves a watch that begins in the past up to 100 ms late.
    async fn watch_from_now(&self, prefix: &str) -> Result<(Revision, Watch), Error> {
        let nothing = Range {
            prefix: keys::CLUSTER.to_owned(),
            limit: Some(1),
            ..Range::default()
        };
        let now = self.read(nothing).await?.revision;
        Ok((now, self.watch(prefix, now).await?))
    }

    /// Runs a transaction and returns its revision.
    async fn commit(&self, txn: Txn) -> Result<Revision, Error>;

    /// A new lease. The store may grant a longer time than asked for; the granted one is returned.
    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error>;

    /// Renews a lease once and returns the time it now has. `LeaseGone` when it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error>;

    /// Ends a lease and removes its keys. No error when it has ended before.
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;

    /// Forgets the history before a revision.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Where the store is, for messages: `etcd http://10.0.0.1:2379`, `/var/lib/fleet/store.redb`.
    fn describe(&self) -> String;
}
