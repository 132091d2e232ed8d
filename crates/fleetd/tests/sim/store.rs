//! etcd and the network to it: the store's model in memory, which every machine reaches over a
//! link of its own that loses, delays, reorders and cuts.

mod damage;
mod exchange;
mod link;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetd::store::memory::MemoryStore;
use fleetd::store::{Error, Event, Range, Revision, Store, WatchBatch};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::audit::Audit;
use crate::chance::{Sim, lock};
use crate::scenario::Graces;
use damage::Damage;
pub use link::{Cable, Cut, Link};

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

impl State {
    fn stop_pump(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
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
