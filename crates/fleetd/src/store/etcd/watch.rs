//! Watches: one gRPC stream each.
//!
//! etcd never splits a revision over two messages unless fragments are asked for, which they are
//! not: the limit on the size of messages is raised instead.

use std::sync::Arc;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::answers;
use super::errors::{self, Fault};
use super::links::{Effect, Line, Link, Links};
use super::{EtcdStore, number, revision};
use crate::store::{Error, Event, Range, Revision, Store, Watch, WatchBatch};

/// How often a watch is opened anew because etcd no longer takes the token of its connection.
const TOKEN_RETRIES: usize = 1;

/// Opens a watch; see [`Store::watch`] and (without a revision) [`Store::watch_from_now`]. Says after
/// which revision it begins.
pub(super) async fn open(
    store: &EtcdStore,
    prefix: &str,
    after: Option<Revision>,
) -> Result<(Revision, Watch), Error> {
    let links = store.links();
    let line = links.main();
    let deadline = Instant::now() + line.timeout();
    let mut tokens = 0;
    let (link, answers, newest) = loop {
        let link = line.link(deadline).await?;
        let until = line.until(Effect::Read, deadline);
        let error = match timeout_at(until, create(store, &link, prefix, after)).await {
            Ok(Ok(Ok((answers, newest)))) => break (link, answers, newest),
            Ok(Ok(Err(why))) => {
                // etcd says so also when the token has expired.
                if errors::is_stale_token(&why) && tokens < TOKEN_RETRIES {
                    tokens += 1;
                    let _ = link.client().refresh_token().await;
                    continue;
                }
                return Err(refused(line, &why));
            }
            Ok(Err(error)) => match line.judge(&link, &error) {
                (Fault::Answer, error) => return Err(error),
                (_, error) => error,
            },
            Err(_) => line.give_up(&link),
        };
        if until >= deadline {
            return Err(error);
        }
    };
    let after = after.unwrap_or(newest);
    if newest < after {
        // The member may lag; only a read that all members agree on tells.
        let nothing = Range {
            limit: Some(1),
            ..Range::default()
        };
        let newest = store.read(nothing).await?.revision;
        if newest < after {
            return Err(Error::Compacted(newest));
        }
    }
    let running = Running {
        links: Arc::clone(&links),
        link,
        answers,
        prefix: store.prefix.clone(),
        after,
    };
    let batches = stream::unfold(Some(running), |running| async {
        let mut running = running?;
        let batch = running.next().await;
        let rest = batch.is_ok().then_some(running);
        Some((batch, rest))
    });
    Ok((after, batches.boxed()))
}

/// A watch that etcd has taken on and its newest revision, or why it has not.
type Created = Result<(WatchStream, Revision), String>;

async fn create(
    store: &EtcdStore,
    link: &Link,
    prefix: &str,
    after: Option<Revision>,
) -> Result<Created, etcd_client::Error> {
    // From the last revision that was seen, not from the one after it: when a compaction has
    // passed that one, etcd then says so. Its events are left out below. Revision 0 is "now".
    let start = after.map_or(0, |after| number(after.max(1)));
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(start)
        .with_progress_notify();
    let mut answers = link
        .watches()
        .watch(store.full(prefix), Some(options))
        .await?;
    let Some(created) = answers.message().await? else {
        return Ok(Err("the watch ended before it began".to_owned()));
    };
    if created.canceled() {
        return Ok(Err(created.cancel_reason().to_owned()));
    }
    let newest = answers::revision_of(created.header())?;
    Ok(Ok((answers, newest)))
}

fn refused(line: Line<'_>, why: &str) -> Error {
    Error::Unavailable(format!("etcd {}: no watch: {why}", line.endpoints()))
}

/// A running watch.
struct Running {
    links: Arc<Links>,
    link: Arc<Link>,
    answers: WatchStream,
    prefix: String,
    after: Revision,
}

impl Running {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        loop {
            let answer = tokio::select! {
                answer = self.answers.message() => answer,
                () = self.link.was_cut() => {
                    return Err(Error::Unavailable("its etcd endpoint was left".to_owned()));
                }
            };
            let answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => return Err(Error::Unavailable("etcd ended the watch".to_owned())),
                Err(error) => return Err(self.links.main().judge(&self.link, &error).1),
            };
            if answer.canceled() {
                return Err(match answer.compact_revision() {
                    0 => refused(self.links.main(), answer.cancel_reason()),
                    compacted => Error::Compacted(revision(compacted)),
                });
            }
            let batch = self.batch(&answer);
            let batch = batch.map_err(|error| self.links.main().judge(&self.link, &error).1)?;
            if batch.revision > self.after {
                self.after = batch.revision;
                return Ok(batch);
            }
        }
    }

    fn batch(&self, answer: &WatchResponse) -> Result<WatchBatch, etcd_client::Error> {
        let mut revision = self.after;
        let mut events = Vec::with_capacity(answer.events().len());
        for event in answer.events() {
            let (kind, kv, at) = answers::event(event)?;
            if at <= self.after {
                continue;
            }
            revision = revision.max(at);
            let Some(entry) = super::entry(&self.prefix, kv.clone()) else {
                continue;
            };
            events.push(match kind {
                EventType::Put => Event::Put(entry),
                EventType::Delete => Event::Delete {
                    key: entry.key,
                    revision: at,
                },
            });
        }
        if answer.events().is_empty() {
            // A progress report: nothing happened here up to the newest revision.
            revision = answer
                .header()
                .map_or(revision, |header| super::revision(header.revision()));
        }
        Ok(WatchBatch { revision, events })
    }
}
