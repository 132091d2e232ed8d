//! etcd, by its v3 API (3.4 and newer).
//!
//! Keys stand below the cluster's prefix in etcd's v3 keyspace. Nothing here retries a write of
//! which it is not known whether it happened, and nothing waits longer than the request timeout
//! for one request; reads go on to the next endpoint within it. See [`links`] for how an
//! endpoint that died or hangs is left, [`errors`] for what etcd's answers mean, and [`answers`] for
//! those that can mean nothing.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, TxnOp,
};

use super::{
    Compare, Entry, Error, LeaseId, MAX_NEWEST, Op, Range, Revision, Snapshot, Store, Txn, Watch,
    check_keys,
};
use crate::config::Config;
use crate::lease_thread::LeaseThread;
use leases::Keepers;
use links::{Effect, Links, Runtimes};

mod answers;
mod errors;
mod leases;
mod links;
#[cfg(test)]
pub(super) mod server;
#[cfg(test)]
mod tests;
mod tls;
mod watch;

/// How many keys the first page of a read has; the next ones are sized by what it was like. Most
/// reads are done with it, and even large units come in time.
const FIRST_PAGE_KEYS: usize = 1000;

/// About what a page shall have. Each page makes etcd count all that follow (a million keys in
/// pages of 10,000 took ten times as long), so they are as large as can be sent in a fraction of
/// the request timeout.
const PAGE_BYTES: usize = 32 << 20;

/// A page that is too large for a message, or too large to come in time, is asked for again with
/// so much fewer keys, at least [`MIN_PAGE_KEYS`].
const PAGE_SHRINK: usize = 10;

/// Ten of the largest documents are 14 MB, which fits any message.
const MIN_PAGE_KEYS: usize = 10;

/// How often a read begins anew because its revision was compacted while it paged.
const READ_RESTARTS: usize = 3;

/// Where etcd is and how to speak to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdConfig {
    /// URLs: `http://10.0.0.1:2379`, `https://…`. The first that answers is used.
    pub endpoints: Vec<String>,
    /// User; empty: no authentication.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Files for `https` endpoints.
    pub tls: TlsFiles,
    /// All keys stand below this: `/_coreos.com/fleet/`.
    pub prefix: String,
    /// Bound of one request to etcd.
    pub request_timeout: Duration,
}

/// PEM files of TLS.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFiles {
    /// CA that etcd's certificate must come from; none: the CAs that this computer trusts.
    pub ca: Option<PathBuf>,
    /// Certificate of this client.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl EtcdConfig {
    /// The store's part of the configuration.
    pub fn from_config(config: &Config) -> EtcdConfig {
        EtcdConfig {
            endpoints: config.etcd_servers.clone(),
            username: config.etcd_username.clone(),
            password: config.etcd_password.clone(),
            tls: TlsFiles {
                ca: config.etcd_cafile.clone(),
                certificate: config.etcd_certfile.clone(),
                key: config.etcd_keyfile.clone(),
            },
            prefix: config.etcd_key_prefix.clone(),
            request_timeout: config.etcd_request_timeout,
        }
    }
}

impl TlsFiles {
    /// Whether any is named.
    pub fn any(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some() || self.key.is_some()
    }
}

/// The store in etcd.
pub struct EtcdStore {
    prefix: String,
    /// Replaced as a whole when the endpoints, the user or the TLS files change.
    links: RwLock<Arc<Links>>,
    runtimes: Runtimes,
    keepers: Keepers,
}

impl EtcdStore {
    /// Prepares to speak to etcd. It is connected when it is first needed, and again whenever the
    /// connection is lost.
    ///
    /// # Errors
    /// `Refused` for a URL that is none and for TLS files that cannot be read; never because etcd
    /// does not answer.
    pub fn new(config: EtcdConfig) -> Result<Arc<EtcdStore>, Error> {
        EtcdStore::on(Runtimes::default(), config)
    }

    /// As [`EtcdStore::new`], with the connection for keepalives on a thread of its own. All else
    /// stays in the runtime that this is called in, whoever comes first to need a connection.
    ///
    /// # Errors
    /// As [`EtcdStore::new`].
    pub fn with_leases_on(
        leases: &LeaseThread,
        config: EtcdConfig,
    ) -> Result<Arc<EtcdStore>, Error> {
        let main = tokio::runtime::Handle::try_current().ok();
        let lease = leases.handle();
        EtcdStore::on(Runtimes { main, lease }, config)
    }

    fn on(runtimes: Runtimes, config: EtcdConfig) -> Result<Arc<EtcdStore>, Error> {
        Ok(Arc::new(EtcdStore {
            prefix: config.prefix.clone(),
            links: RwLock::new(Links::new(config, runtimes.clone())?),
            runtimes,
            keepers: Keepers::default(),
        }))
    }

    /// Goes on with other endpoints, another user, other or renewed TLS files, another timeout;
    /// the prefix stays. Requests under way end where they are; watches end, so that whoever
    /// holds one watches anew; leases are kept alive over the new connection.
    ///
    /// # Errors
    /// As [`EtcdStore::new`]; then everything stays as it was.
    pub fn reconfigure(&self, config: EtcdConfig) -> Result<(), Error> {
        let fresh = Links::new(config, self.runtimes.clone())?;
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *links, fresh);
        drop(links);
        old.abandon();
        Ok(())
    }

    fn links(&self) -> Arc<Links> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&links)
    }

    fn full(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// One page: what etcd answers for `[start, end)`.
    async fn page(
        &self,
        links: &Links,
        start: &[u8],
        end: &[u8],
        limit: usize,
        at: Option<Revision>,
    ) -> Result<GetResponse, Error> {
        let mut options = GetOptions::new().with_range(end).with_limit(number(limit));
        if let Some(revision) = at {
            options = options.with_revision(number(revision));
        }
        // That a large page is slow says nothing against the endpoint.
        let effect = match limit > FIRST_PAGE_KEYS {
            true => Effect::BulkRead,
            false => Effect::Read,
        };
        let answer = links.main().call(effect, |link| {
            let options = options.clone();
            async move {
                let answer = link.kv().get(start, Some(options)).await?;
                answers::page(answer, start, end, limit)
            }
        });
        answer
            .await
            .map_err(|error| errors::with_revision(error, at))
    }

    /// The newest entries of a range that changed before a revision.
    async fn newest(&self, range: &Range, before: Revision) -> Result<Snapshot, Error> {
        let start = self.full(&range.prefix);
        let end = after_prefix(start.clone());
        let limit = range.limit.unwrap_or(MAX_NEWEST).min(MAX_NEWEST);
        let mut options = GetOptions::new()
            .with_range(end.clone())
            .with_sort(SortTarget::Mod, SortOrder::Descend)
            // etcd would take 0 for "all".
            .with_limit(number(limit.max(1)))
            .with_max_mod_revision(number(before.saturating_sub(1).max(1)));
        if let Some(revision) = range.revision {
            options = options.with_revision(number(revision));
        }
        let links = self.links();
        let answer = links.main().call(Effect::BulkRead, |link| {
            let options = options.clone();
            let (start, end) = (&start, &end);
            async move {
                let answer = link.kv().get(&**start, Some(options)).await?;
                answers::newest(answer, start, end, limit.max(1))
            }
        });
        let answer = answer.await;
        let mut page = answer.map_err(|error| errors::with_revision(error, range.revision))?;
        let newest = page
            .header()
            .map_or(0, |header| revision(header.revision()));
        let more = page.more();
        let kvs = page.take_kvs().into_iter();
        let entries = kvs.filter_map(|kv| entry(&self.prefix, kv));
        Ok(Snapshot {
            revision: range.revision.unwrap_or(newest),
            entries: entries
                .filter(|entry| entry.mod_revision < before)
                .take(limit)
                .collect(),
            more,
        })
    }

    async fn read_once(&self, range: &Range) -> Result<Snapshot, Error> {
        if let Some(before) = range.changed_before {
            return self.newest(range, before).await;
        }
        // One read stays with one etcd.
        let links = self.links();
        let below = self.full(&range.prefix);
        let mut start = match &range.after {
            // The first key after it.
            Some(after) if *after >= range.prefix => [&self.full(after)[..], b"\0"].concat(),
            _ => below.clone(),
        };
        let end = match &range.until {
            Some(until) if until.starts_with(&range.prefix) => self.full(until),
            // Nothing is before it.
            Some(until) if *until < range.prefix => below,
            _ => after_prefix(below),
        };
        let limit = range.limit.unwrap_or(usize::MAX);
        let (mut page_keys, mut most_keys) = (FIRST_PAGE_KEYS, usize::MAX);
        let mut at = range.revision;
        let mut snapshot = Snapshot::default();
        loop {
            let wanted = page_keys.min(limit - snapshot.entries.len());
            // Nobody asks for nothing; etcd would take 0 for "all".
            let asked = wanted.max(1);
            let mut page = match self.page(&links, &start, &end, asked, at).await {
                Ok(page) => page,
                Err(error) => {
                    let least = match errors::is_late(&error) {
                        true => FIRST_PAGE_KEYS,
                        false if errors::is_too_large(&error) => MIN_PAGE_KEYS,
                        false => return Err(error),
                    };
                    if page_keys <= least {
                        return Err(error);
                    }
                    page_keys = (page_keys / PAGE_SHRINK).max(least);
                    most_keys = page_keys;
                    continue;
                }
            };
            let newest = page
                .header()
                .map_or(0, |header| revision(header.revision()));
            let revision = *at.get_or_insert(newest);
            snapshot.revision = revision;
            let kvs = page.take_kvs();
            snapshot.more = page.more() || (wanted == 0 && !kvs.is_empty());
            if let Some(last) = kvs.last() {
                start = [last.key(), b"\0"].concat();
                let bytes: usize = kvs.iter().map(|kv| kv.key().len() + kv.value().len()).sum();
                let fitting = PAGE_BYTES / (bytes / kvs.len()).max(1);
                page_keys = fitting.max(MIN_PAGE_KEYS).min(most_keys);
            }
            let entries = kvs
                .into_iter()
                .take(wanted)
                .filter_map(|kv| entry(&self.prefix, kv));
            snapshot.entries.extend(entries);
            if !snapshot.more || snapshot.entries.len() >= limit {
                return Ok(snapshot);
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        let mut restarts = 0;
        loop {
            match self.read_once(&range).await {
                // The newest was asked for, and while it was paged, it became too old.
                Err(Error::Compacted(_))
                    if range.revision.is_none() && restarts < READ_RESTARTS =>
                {
                    restarts += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        check_keys(keys)?;
        let asked: Vec<Vec<u8>> = keys.iter().map(|key| self.full(key)).collect();
        let gets: Vec<_> = asked
            .iter()
            .map(|key| TxnOp::get(key.clone(), None))
            .collect();
        let answer = self
            .links()
            .main()
            .call(Effect::Read, |link| {
                let txn = etcd_client::Txn::new().and_then(gets.clone());
                let asked = &asked;
                async move { answers::keys(link.kv().txn(txn).await?, asked) }
            })
            .await?;
        let (revision, kvs) = answer;
        let entries = kvs.into_iter().filter_map(|kv| entry(&self.prefix, kv));
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|a, b| a.key == b.key);
        Ok(Snapshot {
            revision,
            entries,
            more: false,
        })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let (_, watch) = watch::open(self, prefix, Some(after)).await?;
        Ok(watch)
    }

    async fn watch_from_now(&self, prefix: &str) -> Result<(Revision, Watch), Error> {
        watch::open(self, prefix, None).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        txn.check()?;
        let compares = txn.compares.iter().map(|compare| match compare {
            Compare::Absent(key) => {
                etcd_client::Compare::create_revision(self.full(key), CompareOp::Equal, 0)
            }
            Compare::ModRevision(key, is) => {
                etcd_client::Compare::mod_revision(self.full(key), CompareOp::Equal, number(*is))
            }
            Compare::CreateRevision(key, is) => {
                etcd_client::Compare::create_revision(self.full(key), CompareOp::Equal, number(*is))
            }
            Compare::Lease(key, is) => {
                etcd_client::Compare::lease(self.full(key), CompareOp::Equal, is.0)
            }
        });
        let compares: Vec<_> = compares.collect();
        let ops = txn.ops.into_iter().map(|op| match op {
            Op::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(self.full(&key), value, options)
            }
            Op::Delete { key } => TxnOp::delete(self.full(&key), None),
        });
        let ops: Vec<_> = ops.collect();
        let mut request = Some(etcd_client::Txn::new().when(compares).and_then(ops));
        let answer = self
            .links()
            .main()
            .call(Effect::Write, |link| {
                // A write is tried once, so that its values need not be copied.
                let txn = request.take().unwrap_or_default();
                async move { answers::commit(&link.kv().txn(txn).await?) }
            })
            .await?;
        answer.ok_or(Error::Conflict)
    }

    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        // etcd counts whole seconds. A lease too many ends by itself, so a grant may be repeated.
        let seconds = number(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1);
        let answer = self
            .links()
            .main()
            .call(Effect::Repeatable, |link| async move {
                answers::grant(&link.client().lease_client().grant(seconds, None).await?)
            })
            .await?;
        Ok(answer)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.keepers.keep_alive(self.links().lease(), lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.keepers.forget(lease);
        let answer = self
            .links()
            .main()
            .call(Effect::Repeatable, |link| async move {
                link.client().lease_client().revoke(lease.0).await
            })
            .await;
        match answer {
            Ok(_) | Err(Error::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let answer = self
            .links()
            .main()
            .call(Effect::Repeatable, |link| async move {
                link.kv().compact(number(revision), None).await
            })
            .await;
        match answer {
            Ok(_) | Err(Error::Compacted(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn describe(&self) -> String {
        format!("etcd {}", self.links().endpoints())
    }
}

/// The entry of a key-value pair below the prefix. Keys that are no text were not written by
/// any fleetd and cannot be named to anybody.
fn entry(prefix: &str, kv: KeyValue) -> Option<Entry> {
    let (create, modified, lease) = (kv.create_revision(), kv.mod_revision(), kv.lease());
    let (key, value) = kv.into_key_value();
    let mut key = String::from_utf8(key).ok()?;
    if !key.starts_with(prefix) {
        return None;
    }
    key.drain(..prefix.len());
    Some(Entry {
        key,
        value,
        create_revision: revision(create),
        mod_revision: revision(modified),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

/// The end of the range of all keys that start with `prefix`.
fn after_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            return prefix;
        }
    }
    // etcd's word for "to the last key".
    vec![0]
}

/// etcd's numbers are signed and never negative.
fn revision(number: i64) -> Revision {
    number.unsigned_abs()
}

fn number(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
