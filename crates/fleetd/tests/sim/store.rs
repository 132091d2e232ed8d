//! etcd and the network to it: the store's model in memory, which every machine reaches over a
//! link of its own that loses, delays, reorders and cuts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::records::{AssignmentRecord, Order};
use fleetd::store::codec::{ClusterRecord, Document};
use fleetd::store::keys::Key;
use fleetd::store::memory::MemoryStore;
use fleetd::store::{
    Entry, Error, Event, LeaseId, Op, Range, Revision, Snapshot, Store, Txn, Watch, WatchBatch,
    keys,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::audit::{Audit, Writer};
use crate::chance::{Sim, lock};
use crate::life::Life;
use crate::scenario::Graces;

/// As fleetd's default for etcd.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// A watch over a dead connection is noticed by then.
const WATCH_DEADLINE: Duration = Duration::from_secs(2);

/// How the network between machines and etcd is at present.
#[derive(Clone, Copy, Default, Debug)]
pub struct Weather {
    /// Of a hundred messages so many are lost.
    pub loss: usize,
    /// Of a hundred messages so many take long, up to twice the request timeout.
    pub slow: usize,
}

/// etcd.
pub struct Center {
    pub sim: Arc<Sim>,
    pub audit: Audit,
    state: Mutex<State>,
}

struct State {
    data: Arc<MemoryStore>,
    /// Nobody answers.
    is_down: bool,
    weather: Weather,
    feeds: BTreeMap<u64, Arc<Feed>>,
    next_feed: u64,
    /// Told to the feeds up to here.
    pumped: Revision,
    pump: Option<tokio::task::JoinHandle<()>>,
    /// The right store, while another one stands in its place, and how far it was pumped.
    right: Option<(Arc<MemoryStore>, Revision)>,
    /// How often it was exchanged or brought back.
    exchanges: u64,
    /// How often an old backup took its place for good.
    restores: u64,
    /// What stood under keys that hold garbage now.
    damages: BTreeMap<String, Damage>,
    /// Keys that ever held garbage.
    was_damaged: BTreeSet<String>,
}

/// A document that somebody has overwritten with garbage.
#[derive(Clone)]
struct Damage {
    right: Entry,
    garbage: Vec<u8>,
}

impl State {
    fn stop_pump(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
    }
}

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

impl Cable {
    pub fn set(&self, cut: Cut) {
        *lock(&self.state) = cut;
        self.changed.notify_waiters();
    }

    fn cut(&self) -> Cut {
        *lock(&self.state)
    }
}

/// A watch as etcd sees it.
struct Feed {
    prefix: String,
    seen: Mutex<Revision>,
    queue: Mutex<VecDeque<(Instant, Result<WatchBatch, Error>)>>,
    filled: Notify,
}

impl Feed {
    fn push(&self, at: Instant, item: Result<WatchBatch, Error>) {
        lock(&self.queue).push_back((at, item));
        self.filled.notify_one();
    }
}

impl Center {
    pub fn new(sim: &Arc<Sim>, graces: Graces) -> Arc<Center> {
        let center = Arc::new(Center {
            sim: Arc::clone(sim),
            audit: Audit::new(sim, graces),
            state: Mutex::new(State {
                data: MemoryStore::new(),
                is_down: false,
                weather: Weather::default(),
                feeds: BTreeMap::new(),
                next_feed: 0,
                pumped: 1,
                pump: None,
                right: None,
                exchanges: 0,
                restores: 0,
                damages: BTreeMap::new(),
                was_damaged: BTreeSet::new(),
            }),
        });
        center.pump();
        center
    }

    pub fn data(&self) -> Arc<MemoryStore> {
        Arc::clone(&lock(&self.state).data)
    }

    pub fn set_weather(&self, weather: Weather) {
        lock(&self.state).weather = weather;
    }

    /// Nobody answers any more, or everybody does again. Watches break.
    pub fn set_down(&self, is_down: bool) {
        lock(&self.state).is_down = is_down;
        if is_down {
            self.break_watches("etcd is away");
        }
    }

    pub fn break_watches(&self, why: &str) {
        let feeds = std::mem::take(&mut lock(&self.state).feeds);
        for feed in feeds.values() {
            feed.push(Instant::now(), Err(Error::Unavailable(why.to_owned())));
        }
    }

    /// Whether another store stands in the place of the right one.
    pub fn is_exchanged(&self) -> bool {
        lock(&self.state).right.is_some()
    }

    /// How often the store was exchanged or brought back.
    pub fn n_exchanges(&self) -> u64 {
        lock(&self.state).exchanges
    }

    /// How often an old backup took its place for good.
    pub fn n_restores(&self) -> u64 {
        lock(&self.state).restores
    }

    /// Ids of leases are random in etcd: two stores have none in common.
    fn other_leases(&self) -> LeaseId {
        let n_exchanges = lock(&self.state).exchanges;
        LeaseId(i64::try_from(n_exchanges + 1).unwrap_or(1) << 32)
    }

    /// A backup of this store.
    pub fn copy(&self) -> Arc<MemoryStore> {
        self.data().copy(self.other_leases())
    }

    /// Puts an empty store in the place of this one.
    pub fn exchange(self: &Arc<Self>) {
        self.exchange_for(MemoryStore::with_leases_from(self.other_leases()));
    }

    /// Puts another cluster's store in the place of this one: it knows the same machines, and
    /// orders them to stop everything.
    pub async fn exchange_for_foreign(self: &Arc<Self>) {
        if self.is_exchanged() {
            return;
        }
        let foreign = self.copy();
        let Ok(snapshot) = foreign.read(Range::default()).await else {
            return;
        };
        for entry in snapshot.entries {
            let key = entry.key.clone();
            let op = match keys::parse(&key) {
                Key::Assignment(..) => AssignmentRecord::decode(&key, &entry.value)
                    .map(|mut record| {
                        record.order = Order::Gone;
                        record.decision.generation += 1_000;
                        record.decision.seq += 1_000;
                        record.encode()
                    })
                    .map(|value| Op::Put {
                        key,
                        value,
                        lease: None,
                    })
                    .ok(),
                Key::Cluster => ClusterRecord::decode(&key, &entry.value)
                    .map(|mut record| {
                        record.id = "another".to_owned();
                        record.encode()
                    })
                    .map(|value| Op::Put {
                        key,
                        value,
                        lease: None,
                    })
                    .ok(),
                Key::Placement(_) => None,
                _ => Some(Op::Delete { key }),
            };
            let ops = op.into_iter().collect();
            let _ = foreign
                .commit(Txn {
                    ops,
                    ..Txn::default()
                })
                .await;
        }
        self.exchange_for(foreign);
    }

    fn exchange_for(self: &Arc<Self>, other: Arc<MemoryStore>) {
        {
            let mut state = lock(&self.state);
            if state.right.is_some() {
                return;
            }
            state.stop_pump();
            let right = std::mem::replace(&mut state.data, other);
            state.right = Some((right, state.pumped));
            state.exchanges += 1;
            state.pumped = 1;
        }
        self.break_watches("etcd was exchanged");
        // It has had a history of its own: other revisions, and other leases.
        let data = self.data();
        for n in 0..300 + self.sim.below(300) {
            let key = "history".to_owned();
            let value = n.to_string().into_bytes();
            let lease = None;
            let ops = vec![Op::Put { key, value, lease }];
            let history = data.commit(Txn {
                ops,
                ..Txn::default()
            });
            let _ = history.now_or_never();
            let _ = data.grant(Duration::from_secs(1)).now_or_never();
        }
        self.pump();
    }

    /// Puts an old backup in the place of this store, for good.
    pub async fn restore(self: &Arc<Self>, backup: &MemoryStore) {
        if self.is_exchanged() {
            return;
        }
        let backup = backup.copy(self.other_leases());
        let Ok(snapshot) = backup.read(Range::default()).await else {
            return;
        };
        self.sim
            .note("restored", format_args!("to @{}", snapshot.revision));
        {
            let mut state = lock(&self.state);
            state.stop_pump();
            state.data = backup;
            state.pumped = snapshot.revision;
            state.exchanges += 1;
            state.restores += 1;
            state.damages.clear();
        }
        self.audit.deceives_all();
        self.audit.restored(&snapshot.entries, snapshot.revision);
        self.break_watches("etcd was restored");
        self.pump();
    }

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

    /// Brings the right store back.
    pub fn bring_back(self: &Arc<Self>) {
        {
            let mut state = lock(&self.state);
            let Some((right, pumped)) = state.right.take() else {
                return;
            };
            state.stop_pump();
            state.data = right;
            state.exchanges += 1;
            // Machines have kept their leases alive in the other one.
            self.audit.deceives_all();
            state.pumped = pumped;
        }
        self.break_watches("etcd was exchanged");
        self.pump();
    }

    /// Carries events from the store to the feeds.
    fn pump(self: &Arc<Self>) {
        let data = self.data();
        let center = Arc::downgrade(self);
        let after = lock(&self.state).pumped;
        let pump = tokio::spawn(async move {
            if let Ok(mut watch) = data.watch("", after).await {
                while let Some(Ok(batch)) = watch.next().await {
                    let Some(center) = center.upgrade() else {
                        return;
                    };
                    if !center.is_exchanged() {
                        center.audit.events(&batch.events);
                    }
                    center.feed(&batch);
                }
            }
            // Compacted before it was told: who watches must read again.
            let Some(center) = center.upgrade() else {
                return;
            };
            if let Ok(newest) = data.read(Range::default()).await {
                lock(&center.state).pumped = newest.revision;
                if !center.is_exchanged() {
                    center.audit.presence(&newest.entries);
                }
            }
            center.break_watches("compacted");
            center.pump();
        });
        lock(&self.state).pump = Some(pump);
    }

    fn feed(&self, batch: &WatchBatch) {
        let (feeds, weather) = {
            let mut state = lock(&self.state);
            state.pumped = batch.revision;
            // Nobody listens any more to a feed that only etcd holds.
            state.feeds.retain(|_, feed| Arc::strong_count(feed) > 1);
            (state.feeds.clone(), state.weather)
        };
        for feed in feeds.values() {
            let mut seen = lock(&feed.seen);
            let is_new = |event: &&Event| {
                let (key, revision) = match event {
                    Event::Put(entry) => (&entry.key, entry.mod_revision),
                    Event::Delete { key, revision } => (key, *revision),
                };
                revision > *seen && key.starts_with(&feed.prefix)
            };
            let events: Vec<Event> = batch.events.iter().filter(is_new).cloned().collect();
            *seen = (*seen).max(batch.revision);
            if events.is_empty() {
                continue;
            }
            let at = Instant::now() + self.delay(weather);
            let revision = batch.revision;
            feed.push(at, Ok(WatchBatch { revision, events }));
        }
    }

    fn delay(&self, weather: Weather) -> Duration {
        if weather.slow > 0 && self.sim.percent(weather.slow) {
            self.sim.note("slow-message", format_args!(""));
            return self.sim.between(5, 2_000);
        }
        match self.sim.below(4) {
            0 => Duration::ZERO,
            ms => Duration::from_millis(ms as u64),
        }
    }

    fn loses(&self, weather: Weather) -> bool {
        let lost = weather.loss > 0 && self.sim.percent(weather.loss);
        if lost {
            self.sim.note("lost-message", format_args!(""));
        }
        lost
    }

    /// A watch on the side of etcd, with what has happened since `after`.
    async fn subscribe(&self, prefix: &str, after: Revision) -> Result<(u64, Arc<Feed>), Error> {
        let data = self.data();
        let mut behind = data.watch(prefix, after).await?;
        let mut queue = VecDeque::new();
        let mut seen = data
            .read(Range {
                limit: Some(1),
                ..Range::default()
            })
            .await?
            .revision;
        while let Some(Some(item)) = behind.next().now_or_never() {
            if let Ok(batch) = &item {
                seen = seen.max(batch.revision);
            }
            queue.push_back((Instant::now(), item));
        }
        let feed = Arc::new(Feed {
            prefix: prefix.to_owned(),
            seen: Mutex::new(seen),
            queue: Mutex::new(queue),
            filled: Notify::new(),
        });
        feed.filled.notify_one();
        let mut state = lock(&self.state);
        let id = state.next_feed;
        state.next_feed += 1;
        state.feeds.insert(id, Arc::clone(&feed));
        Ok((id, feed))
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
        let is_everything = range == Range::default();
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
        self.call(
            false,
            Box::new(|center| async move { center.data().read_keys(&keys).await }.boxed()),
        )
        .await
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
        self.call(
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
        .await
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
