//! A machine's way to etcd: it loses, delays, reorders, and may be cut in either direction.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::{
    Error, LeaseId, Op, Range, Revision, Snapshot, Store, Txn, Watch, WatchBatch, keys,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Center, Feed};
use crate::audit::Writer;
use crate::chance::lock;
use crate::life::Life;

/// As fleetd's default for etcd.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// A watch over a dead connection is noticed by then.
const WATCH_DEADLINE: Duration = Duration::from_secs(2);

/// The cable of one machine.
#[derive(Default)]
pub struct Cable {
    state: Mutex<Cut>,
    changed: Notify,
}

/// Which directions are cut.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cut {
    pub requests: bool,
    pub answers: bool,
}

impl Cut {
    pub const ALL: Cut = Cut {
        requests: true,
        answers: true,
    };
}

impl Cable {
    pub fn set(&self, cut: Cut) {
        *lock(&self.state) = cut;
        self.changed.notify_waiters();
    }

    fn cut(&self) -> Cut {
        *lock(&self.state)
    }
}

/// A machine's way to etcd, of one process.
pub struct Link {
    pub center: Arc<Center>,
    pub machine: String,
    pub cable: Arc<Cable>,
    pub life: Arc<Life>,
}

type Request<T> = Box<dyn FnOnce(Arc<Center>) -> BoxFuture<'static, Result<T, Error>> + Send>;

impl Link {
    async fn call<T: Send + 'static>(
        &self,
        is_write: bool,
        request: Request<T>,
    ) -> Result<T, Error> {
        self.life.point().await;
        let (mut tell, told) = oneshot::channel();
        let center = Arc::clone(&self.center);
        let cable = Arc::clone(&self.cable);
        let restores = center.n_restores();
        // What was sent is on its way, whatever becomes of the sender.
        tokio::spawn(async move {
            let (weather, is_down) = {
                let state = lock(&center.state);
                (state.weather, state.is_down)
            };
            if is_down && !cable.cut().answers {
                let _ = tell.send(Err(Error::Unavailable("connection refused".to_owned())));
                return;
            }
            let delay = center.delay(weather);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if cable.cut().requests || center.loses(weather) || lock(&center.state).is_down {
                return tell.closed().await;
            }
            // What was sent to an etcd that was restored meanwhile has died with its connection.
            if restores != center.n_restores() {
                return tell.closed().await;
            }
            let answer = request(Arc::clone(&center)).await;
            let delay = center.delay(weather);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if cable.cut().answers || center.loses(weather) {
                if is_write && answer.is_ok() {
                    center
                        .sim
                        .note("lost-answer", format_args!("after a write"));
                }
                return tell.closed().await;
            }
            // Whoever asked may have gone.
            let _ = tell.send(answer);
        });
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, told).await {
            Ok(Ok(answer)) => answer,
            _ if is_write => Err(Error::OutcomeUnknown("no answer in time".to_owned())),
            _ => Err(Error::Unavailable("no answer in time".to_owned())),
        };
        self.life.point().await;
        answer
    }
}

#[async_trait]
impl Store for Link {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        // As a leader reads the cluster.
        let is_everything =
            range.prefix.is_empty() && range.after.as_deref() == Some(keys::AFTER_EVENTS);
        let snapshot = self
            .call(
                false,
                Box::new(|center| async move { center.data().read(range).await }.boxed()),
            )
            .await?;
        if is_everything {
            self.center.audit.has_read(&self.machine, &snapshot.entries);
        }
        Ok(snapshot)
    }

    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        let keys = keys.to_owned();
        let snapshot = self
            .call(
                false,
                Box::new(|center| async move { center.data().read_keys(&keys).await }.boxed()),
            )
            .await?;
        for entry in &snapshot.entries {
            if entry.key == keys::mark(&self.machine) {
                let audit = &self.center.audit;
                audit.knows_its_mark(&self.machine, entry.mod_revision);
            }
        }
        Ok(snapshot)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let prefix = prefix.to_owned();
        let (id, feed) = self
            .call(
                false,
                Box::new(move |center| {
                    async move { center.subscribe(&prefix, after).await }.boxed()
                }),
            )
            .await?;
        let running = Running {
            center: Arc::clone(&self.center),
            cable: Arc::clone(&self.cable),
            life: Arc::clone(&self.life),
            machine: self.machine.clone(),
            id,
            feed,
        };
        Ok(stream::unfold(Some(running), |running| async {
            let running = running?;
            let item = running.next().await;
            let rest = item.is_ok().then_some(running);
            Some((item, rest))
        })
        .boxed())
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let machine = self.machine.clone();
        // What it does not know when it sends, it cannot have thought of.
        let knows = self.center.audit.knows(&machine);
        let outcome = self
            .call(
                true,
                Box::new(|center| {
                    async move {
                        let data = center.data();
                        if center.is_exchanged() {
                            // Nobody asks for units there, and nobody looks.
                            let is_wish = |op: &Op| match op {
                                Op::Put { key, .. } | Op::Delete { key } => {
                                    key.starts_with(keys::UNITS)
                                }
                            };
                            if txn.ops.iter().any(is_wish) {
                                return Err(Error::Unavailable("not the right store".to_owned()));
                            }
                            return data.commit(txn).await;
                        }
                        let before = [keys::LEADER.to_owned(), keys::machine(&machine)];
                        let before = data.read_keys(&before).await?;
                        let outcome = data.commit(txn.clone()).await;
                        if let Ok(revision) = outcome {
                            let writer = Writer::of(&machine, &before.entries, knows);
                            center.audit.committed(&writer, &txn, revision);
                        }
                        outcome
                    }
                    .boxed()
                }),
            )
            .await;
        if let Ok(revision) = outcome {
            // Nothing, if the transaction left none.
            let audit = &self.center.audit;
            audit.knows_its_mark(&self.machine, revision);
        }
        outcome
    }

    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        self.call(
            true,
            Box::new(move |center| async move { center.data().grant(ttl).await }.boxed()),
        )
        .await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.call(
            false,
            Box::new(move |center| async move { center.data().keep_alive(lease).await }.boxed()),
        )
        .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.call(
            true,
            Box::new(move |center| async move { center.data().revoke(lease).await }.boxed()),
        )
        .await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.call(
            true,
            Box::new(move |center| async move { center.data().compact(revision).await }.boxed()),
        )
        .await
    }

    fn describe(&self) -> String {
        "a simulated etcd".to_owned()
    }
}

/// A watch as its client sees it.
struct Running {
    center: Arc<Center>,
    cable: Arc<Cable>,
    life: Arc<Life>,
    machine: String,
    id: u64,
    feed: Arc<Feed>,
}

impl Running {
    async fn next(&self) -> Result<WatchBatch, Error> {
        let mut cut_since: Option<Instant> = None;
        loop {
            self.life.point().await;
            let cut = self.cable.cut();
            // Also when only requests are cut the connection is found dead: nothing that is
            // sent is acknowledged.
            if cut.answers || cut.requests {
                let since = *cut_since.get_or_insert_with(Instant::now);
                let deadline = since + WATCH_DEADLINE;
                if Instant::now() >= deadline {
                    lock(&self.center.state).feeds.remove(&self.id);
                    return Err(Error::Unavailable("the connection is dead".to_owned()));
                }
                let _ = tokio::time::timeout_at(deadline, self.cable.changed.notified()).await;
                continue;
            }
            cut_since = None;
            let first = lock(&self.feed.queue).front().map(|(at, _)| *at);
            match first {
                Some(at) if at <= Instant::now() => {
                    let item = lock(&self.feed.queue).pop_front();
                    if let Some((_, item)) = item {
                        if let (Ok(batch), "") = (&item, self.feed.prefix.as_str()) {
                            let audit = &self.center.audit;
                            audit.is_told(&self.machine, &batch.events);
                        }
                        return item;
                    }
                }
                wait => {
                    let wait = async {
                        match wait {
                            Some(at) => tokio::time::sleep_until(at).await,
                            None => self.feed.filled.notified().await,
                        }
                    };
                    let cut = self.cable.changed.notified();
                    futures_util::pin_mut!(wait, cut);
                    futures_util::future::select(wait, cut).await;
                }
            }
        }
    }
}
