//! Following units to machines: a watch of `states/`, which tells where something of them is new.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;

use crate::api::Api;
use crate::store::keys::{self, Key};
use crate::store::{Event, Range, Revision, Watch};

/// Before the store is watched anew.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Follows units to machines.
pub(super) struct Moves {
    state: Api,
    prefix: String,
    revision: Revision,
    watch: Option<Watch>,
}

impl Moves {
    /// What comes after a revision, below a prefix of `states/`.
    pub(super) fn after(state: Api, prefix: String, revision: Revision) -> Moves {
        Moves {
            state,
            prefix,
            revision,
            watch: None,
        }
    }

    /// Units and machines where something of them is new. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Vec<(String, String)> {
        loop {
            if self.watch.is_none() {
                match self.state.store.watch(&self.prefix, self.revision).await {
                    Ok(watch) => self.watch = Some(watch),
                    Err(_) => {
                        sleep(WATCH_PAUSE).await;
                        if let Some(pairs) = self.read().await {
                            return pairs;
                        }
                        continue;
                    }
                }
            }
            let Some(watch) = &mut self.watch else {
                continue;
            };
            match watch.next().await {
                Some(Ok(batch)) => {
                    self.revision = batch.revision;
                    let keys = batch.events.iter().filter_map(|event| match event {
                        Event::Put(entry) => Some(entry.key.as_str()),
                        Event::Delete { .. } => None,
                    });
                    let pairs = pairs(keys);
                    if !pairs.is_empty() {
                        return pairs;
                    }
                }
                _ => {
                    self.watch = None;
                    sleep(WATCH_PAUSE).await;
                }
            }
        }
    }

    /// All of them, when the store no longer knows what came after a revision.
    async fn read(&mut self) -> Option<Vec<(String, String)>> {
        let range = Range {
            prefix: self.prefix.clone(),
            ..Range::default()
        };
        let snapshot = self.state.store.read(range).await.ok()?;
        self.revision = snapshot.revision;
        Some(pairs(
            snapshot.entries.iter().map(|entry| entry.key.as_str()),
        ))
    }
}

/// Units and machines of keys of `states/`.
fn pairs<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let pairs = keys.filter_map(|key| match keys::parse(key) {
        Key::State(unit, machine) => Some((unit.to_owned(), machine.to_owned())),
        _ => None,
    });
    pairs.collect()
}
