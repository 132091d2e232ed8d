//! Documents that somebody overwrites with garbage.

use fleetd::store::{Entry, LeaseId, Op, Range, Revision, Store, Txn, keys};

use super::Center;
use crate::chance::lock;

/// A document that somebody has overwritten with garbage.
#[derive(Clone)]
pub(super) struct Damage {
    right: Entry,
    garbage: Vec<u8>,
}

impl Center {
    /// Overwrites one document with garbage; returns its key.
    pub async fn damage(&self) -> Option<String> {
        if self.is_exchanged() {
            return None;
        }
        let data = self.data();
        let mut entries = data.read(Range::default()).await.ok()?.entries;
        // Who leads is told by its key alone, to whoever judges what was written. A store that does
        // not say whose it is is a foreign one.
        let damages = lock(&self.state).damages.clone();
        entries.retain(|entry| {
            let is_name = entry.key == keys::LEADER || entry.key == keys::CLUSTER;
            !is_name && !damages.contains_key(&entry.key)
        });
        if entries.is_empty() {
            return None;
        }
        let right = entries[self.sim.below(entries.len())].clone();
        self.overwrite(right).await
    }

    /// Overwrites this document with garbage, if it is there; returns its key.
    pub async fn damage_key(&self, key: &str) -> Option<String> {
        if self.is_exchanged() || lock(&self.state).damages.contains_key(key) {
            return None;
        }
        let read = self.data().read_keys(&[key.to_owned()]).await;
        let right = read.ok()?.entries.pop()?;
        self.overwrite(right).await
    }

    async fn overwrite(&self, right: Entry) -> Option<String> {
        let half = right.value[..right.value.len() / 2].to_vec();
        let garbage = match self.sim.below(5) {
            0 => Vec::new(),
            1 => b"\xff\xfe\x00garbage".to_vec(),
            2 => b"[]".to_vec(),
            3 => br#"{"v":"one"}"#.to_vec(),
            _ => half,
        };
        self.put(&right.key, &garbage, right.lease).await?;
        let key = right.key.clone();
        let mut state = lock(&self.state);
        state.was_damaged.insert(key.clone());
        let damage = Damage { right, garbage };
        state.damages.entry(key.clone()).or_insert(damage);
        Some(key)
    }

    /// Puts back what stood there, unless somebody has overwritten the garbage.
    pub async fn repair(&self, key: &str) {
        if self.is_exchanged() {
            return;
        }
        let damage = lock(&self.state).damages.get(key).cloned();
        let Some(damage) = damage else {
            return;
        };
        let read = self.data().read_keys(&[key.to_owned()]).await;
        let entry = read.ok().and_then(|mut read| read.entries.pop());
        if entry.is_some_and(|entry| entry.value == damage.garbage) {
            self.sim.note("repaired", format_args!("{key}"));
            let right = damage.right;
            let _ = self.put(key, &right.value, right.lease).await;
            if key == keys::THAW {
                // Put back, it is asked for once more.
                self.audit.thaws();
            }
        }
        lock(&self.state).damages.remove(key);
    }

    /// As [`Center::repair`], of everything.
    pub async fn repair_all(&self) {
        let keys: Vec<String> = lock(&self.state).damages.keys().cloned().collect();
        for key in keys {
            self.repair(&key).await;
        }
    }

    /// Whether some document holds garbage.
    pub fn is_damaged(&self) -> bool {
        !lock(&self.state).damages.is_empty()
    }

    /// Whether a document ever held garbage.
    pub fn was_damaged(&self, key: &str) -> bool {
        lock(&self.state).was_damaged.contains(key)
    }

    async fn put(&self, key: &str, value: &[u8], lease: Option<LeaseId>) -> Option<Revision> {
        let (key, value) = (key.to_owned(), value.to_vec());
        let ops = vec![Op::Put { key, value, lease }];
        let txn = Txn {
            ops,
            ..Txn::default()
        };
        self.data().commit(txn).await.ok()
    }
}
