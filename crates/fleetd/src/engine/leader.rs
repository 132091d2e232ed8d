//! What the leader does: reads the cluster once, follows it, plans what changed, writes.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::cluster::{Cluster, Settings};
use fleet_core::events::EventKind;
use fleet_core::plan::{Change, Now, Write};
use fleet_core::records::{MachineId, MemberRecord};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::commit::{Telling, Window, commit};
use super::compact::Compactor;
use super::graves::{Burial, Graves};
use super::intake::Intake;
use super::leadership::{Leadership, raise};
use super::old_rings::{KEPT_FOR, OldRings};
use super::{EngineConfig, EngineMetrics};
use crate::backoff::Backoff;
use crate::clock;
use crate::events::{self, Owner, Ring};
use crate::reload;
use crate::store::codec::{AskedRecord, ClusterRecord, Document, FORMAT};
use crate::store::keys::{EventWriter, Key};
use crate::store::{
    Compare, Entry, Error, Event, Op, Range, Revision, Store, Txn, Watch, WatchBatch, keys,
};
use crate::task;

/// Batches that are waiting are taken in together, up to so many, before planning: one plan for
/// a storm instead of many.
const MAX_BATCHES_PER_PLAN: usize = 1_024;

/// The safety tick looks at everything; in larger clusters that would be work without a cause.
const SAFETY_TICK_MAX_UNITS: usize = 10_000;

/// Leads until leadership is lost. The caller ends it when the lease is.
pub(crate) async fn lead(
    store: &Arc<dyn Store>,
    config: &watch::Receiver<EngineConfig>,
    metrics: &EngineMetrics,
    leadership: &Leadership,
) {
    let mut backoff = Backoff::new();
    loop {
        let problem = match Leader::read(store, config, metrics, leadership).await {
            Ok((leader, watch)) => {
                backoff = Backoff::new();
                leader.follow(watch).await
            }
            Err(problem) => problem,
        };
        match problem {
            Error::Conflict if !leadership.still_holds().await => return,
            Error::OutcomeUnknown(_) if fleet_core::planted!("what is late is written") => {}
            // What was sent may arrive yet, after the cluster was read and decided upon anew, and
            // would put an old decision over a new one: only another fence keeps it out.
            Error::OutcomeUnknown(_) => {
                warn!(%problem, "leadership is given back, so that nothing late is written");
                metrics.failed();
                return;
            }
            Error::NoSpace(_) => error!(%problem, "the store is full: nothing can be decided"),
            _ => warn!(%problem, "the cluster is read anew"),
        }
        metrics.failed();
        backoff.pause().await;
    }
}

/// What a leader has written comes back over its watch within this time, or the watch is no good.
const CATCH_UP: Duration = Duration::from_secs(5);

/// What the watch tells at once.
type Told = Vec<Result<WatchBatch, Error>>;

struct Leader<'a> {
    store: &'a Arc<dyn Store>,
    config: watch::Receiver<EngineConfig>,
    metrics: &'a EngineMetrics,
    leadership: &'a Leadership,
    cluster: Cluster,
    intake: Intake,
    compactor: Compactor,
    graves: Graves,
    window: Window,
    ring: Ring,
    old_rings: OldRings,
    /// Whose cluster it is; None while the document that says so cannot be read.
    name: Option<ClusterRecord>,
    started: Instant,
}

impl<'a> Leader<'a> {
    /// Reads everything at one revision and watches from there.
    async fn read(
        store: &'a Arc<dyn Store>,
        config: &watch::Receiver<EngineConfig>,
        metrics: &'a EngineMetrics,
        leadership: &'a Leadership,
    ) -> Result<(Leader<'a>, Watch), Error> {
        let mut config = config.clone();
        let now = config.borrow_and_update().clone();
        let name = name_cluster(store, leadership, now.version).await?;
        let Read {
            revision,
            ring,
            parts,
        } = read(&**store).await?;
        let mut cluster = Cluster::new(settings(&now));
        let mut intake = Intake::default();
        cluster.observe(revision);
        task::maybe_long(parts.iter().map(Vec::len).sum(), || {
            for entry in parts.iter().flatten() {
                if let Some(fact) = intake.entry(entry) {
                    cluster.apply(fact);
                }
            }
        });
        let [_, others] = &parts;
        for id in thawed(others) {
            info!(machine = %id, "it is given up: somebody said so before this machine led");
            cluster.thaw_machine(&id);
        }
        let watch = store.watch("", revision).await?;
        info!(
            revision,
            keys = parts.iter().map(Vec::len).sum::<usize>(),
            units = cluster.unit_count(),
            "cluster read"
        );
        let leader = Leader {
            store,
            config,
            metrics,
            leadership,
            cluster,
            intake,
            compactor: Compactor::default(),
            graves: Graves::default(),
            window: Window::default(),
            ring,
            old_rings: OldRings::default(),
            name,
            started: Instant::now(),
        };
        Ok((leader, watch))
    }

    /// Plans and writes what is marked, waits for more; returns why it cannot go on.
    async fn follow(mut self, watch: Watch) -> Error {
        // Batches that are ready can be taken together.
        let mut watch = watch.ready_chunks(MAX_BATCHES_PER_PLAN);
        let mut safety = safety_tick(&self.config.borrow());
        loop {
            let revisit = match self.plan().await {
                Ok(revisit) => revisit,
                Err(problem) => return problem,
            };
            self.announce();
            let compact = self.compactor.due();
            tokio::select! {
                batches = watch.next() => {
                    self.metrics.woken();
                    if let Err(problem) = self.hear(batches).await {
                        return problem;
                    }
                }
                () = until(revisit) => {}
                () = reload::changed(&mut self.config) => {
                    let config = self.config.borrow_and_update().clone();
                    self.cluster.reconfigure(settings(&config));
                    safety = safety_tick(&config);
                }
                () = until(compact) => self.compactor.run(self.store),
                () = tokio::time::sleep_until(self.old_rings.due()) => self.remove_old_rings(),
                () = tick(&mut safety) => {
                    if self.cluster.unit_count() <= SAFETY_TICK_MAX_UNITS {
                        self.cluster.mark_all();
                    }
                }
            }
            if revisit.is_some_and(|due| due <= Instant::now())
                && !fleet_core::planted!("who is back is given up")
                && let Err(problem) = self.catch_up(&mut watch).await
            {
                return problem;
            }
        }
    }

    /// Takes in what the watch tells; returns the revision up to which it has told everything.
    async fn hear(&mut self, told: Option<Told>) -> Result<Revision, Error> {
        let told = told.ok_or_else(|| Error::Unavailable("the watch ended".to_owned()))?;
        let mut revision = 0;
        for batch in told {
            let batch = batch?;
            let ours = self.leadership;
            if batch.events.iter().any(|event| ours.is_ended_by(event)) {
                return Err(Error::Conflict);
            }
            task::maybe_long(batch.events.len(), || self.take_in(&batch));
            self.keep_name(&batch).await?;
            revision = batch.revision;
        }
        Ok(revision)
    }

    /// Before time alone gives a machine up, everything is heard that has happened until now: the leader
    /// may have stood still, or its line may be slow, and a machine that was there for a moment and is
    /// away again is not to be given up by the time of its first absence. What is written now comes
    /// over the watch behind all that.
    async fn catch_up(
        &mut self,
        watch: &mut (impl futures_util::Stream<Item = Told> + Unpin),
    ) -> Result<(), Error> {
        let Some((machine, member)) = self.cluster.away() else {
            return Ok(());
        };
        let txn = Txn {
            compares: self.leadership.compares(),
            ops: vec![Op::Put {
                key: keys::member(machine.as_str()),
                value: member.encode(),
                lease: None,
            }],
        };
        let written = self.store.commit(txn).await?;
        let heard = async {
            while self.hear(watch.next().await).await? < written {}
            Ok(())
        };
        let late = |_| Error::Unavailable("the watch is late".to_owned());
        tokio::time::timeout(CATCH_UP, heard).await.map_err(late)?
    }

    fn remove_old_rings(&mut self) {
        let kept_ms = u64::try_from(KEPT_FOR.as_millis()).unwrap_or(u64::MAX);
        let gone = self
            .cluster
            .gone_since(clock::unix_ms().saturating_sub(kept_ms));
        let fence = self.leadership.compares();
        self.old_rings.remove(self.store, fence, gone);
    }

    /// Tells once that this machine leads: after the first plan, which is waited for, and in the
    /// background, since nothing of what is decided waits for it.
    fn announce(&mut self) {
        if !self.leadership.announces() {
            return;
        }
        let machine = self.config.borrow().machine.clone();
        let fence = self.leadership.fence();
        let why = format!("fleetd {}, by leadership {fence}", crate::VERSION);
        let event = events::Event::of_machine(EventKind::Leader, machine.clone(), why);
        let txn = Txn {
            compares: self.leadership.compares(),
            ops: self.ring.puts(machine.as_str(), vec![event.clone()]),
        };
        let store = Arc::clone(self.store);
        task::spawn(async move {
            match store.commit(txn).await {
                Ok(revision) => events::log(&event, machine.as_str(), revision),
                Err(problem) => debug!(%problem, "that this machine leads is not told"),
            }
        });
    }

    fn take_in(&mut self, batch: &WatchBatch) {
        self.cluster.observe(batch.revision);
        self.compactor.note(batch.revision);
        for event in &batch.events {
            if let Event::Put(entry) = event
                && is_thaw(entry)
            {
                info!("the machines that are away are given up: somebody said so");
                self.cluster.thaw();
            }
            if let Some(fact) = self.intake.event(event) {
                self.cluster.apply(fact);
            }
        }
    }

    /// Puts the cluster's name back when it is removed or damaged: machines know their store by
    /// it, and would not believe this one any more.
    async fn keep_name(&self, batch: &WatchBatch) -> Result<(), Error> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let mut lost = None;
        for event in &batch.events {
            match event {
                Event::Put(entry) if entry.key == keys::CLUSTER => {
                    let found = ClusterRecord::decode(&entry.key, &entry.value);
                    let compare = Compare::ModRevision(entry.key.clone(), entry.mod_revision);
                    lost = match found {
                        Ok(found) if found.id == name.id => None,
                        Ok(_) => Some(("it has another id".to_owned(), compare)),
                        Err(damage) => Some((damage.to_string(), compare)),
                    };
                }
                Event::Delete { key, .. } if key == keys::CLUSTER => {
                    lost = Some(("it vanished".to_owned(), Compare::Absent(key.clone())));
                }
                _ => {}
            }
        }
        let Some((problem, compare)) = lost else {
            return Ok(());
        };
        error!(
            key = keys::CLUSTER,
            problem, "the document that names this cluster was damaged by somebody: it is put back"
        );
        let mut compares = self.leadership.compares();
        compares.push(compare);
        let txn = Txn {
            compares,
            ops: vec![Op::Put {
                key: keys::CLUSTER.to_owned(),
                value: name.encode(),
                lease: None,
            }],
        };
        self.store.commit(txn).await.map(|_| ())
    }

    /// Plans and writes; returns when to plan again though nothing happens.
    async fn plan(&mut self) -> Result<Option<Instant>, Error> {
        let now = Now {
            monotonic_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            unix_ms: clock::unix_ms(),
        };
        let began = Instant::now();
        let n_units = self.cluster.work_ahead(now.monotonic_ms);
        let plan = task::maybe_long(n_units, || self.cluster.plan(now));
        self.metrics.damaged(self.intake.n_damaged());
        #[cfg(fleet_sim)]
        crate::sim::planned(&self.cluster);
        if !plan.changes.is_empty() {
            self.metrics.changes(&plan.changes);
            let fence = self.leadership.compares();
            let n_burials = plan.changes.iter().map(n_burials).sum();
            let leases = self.graves.dig(self.store, n_burials).await?;
            let mut burial = Burial::new(self.intake.tombstones(), leases);
            let config = self.config.borrow().clone();
            let mut telling = Telling {
                ring: &mut self.ring,
                by: config.machine.as_str(),
            };
            let (store, window) = (self.store, &mut self.window);
            let commit = commit(
                store,
                &fence,
                &plan.changes,
                &mut burial,
                window,
                &mut telling,
            );
            let done = commit.await;
            #[cfg(fleet_sim)]
            let done = match done {
                Err(Error::OutcomeUnknown(_))
                    if fleet_core::planted!("an unknown write is taken for done") =>
                {
                    return Ok(None);
                }
                done => done,
            };
            let done = done.inspect_err(|_| self.metrics.not_written(&plan.changes))?;
            self.metrics.committed(done.transactions);
            self.cluster.observe(done.revision);
        }
        self.metrics.planned(began.elapsed());
        Ok(plan
            .revisit
            .map(|at| self.started + Duration::from_millis(at)))
    }
}

/// The whole cluster at one revision, but for what the machines tell.
struct Read {
    revision: Revision,
    ring: Ring,
    /// The assignments, and everything else.
    parts: [Vec<Entry>; 2],
}

/// Thousands of machines may have told a lot, which decides nothing: it is passed over. What is left is
/// before and behind it.
async fn read(store: &dyn Store) -> Result<Read, Error> {
    let own = Range {
        prefix: keys::events_of(EventWriter::Engine),
        ..Range::default()
    };
    let own = store.read(own).await?;
    let revision = Some(own.revision);
    let before = Range {
        prefix: keys::ASSIGNMENTS.to_owned(),
        revision,
        ..Range::default()
    };
    let behind = Range {
        after: Some(keys::AFTER_EVENTS.to_owned()),
        revision,
        ..Range::default()
    };
    let (before, behind) = tokio::try_join!(store.read(before), store.read(behind))?;
    Ok(Read {
        revision: own.revision,
        ring: Ring::after(Owner::Engine, &own.entries),
        parts: [before.entries, behind.entries],
    })
}

fn n_burials(change: &Change) -> usize {
    let writes = change.writes.iter();
    writes
        .filter(|write| matches!(write, Write::DeleteUnit(..)))
        .count()
}

/// The machines that somebody has said are really gone, since they were recorded as frozen: whoever
/// led then may not have lived to give them up.
fn thawed(entries: &[Entry]) -> Vec<MachineId> {
    let asked = entries.iter().find(|entry| is_thaw(entry));
    let said = asked.and_then(|asked| {
        let record = AskedRecord::decode(&asked.key, &asked.value).ok()?;
        Some((record.machines, asked.mod_revision))
    });
    let Some((machines, said_at)) = said else {
        return Vec::new();
    };
    let frozen = |entry: &Entry| {
        let Key::Member(id) = keys::parse(&entry.key) else {
            return None;
        };
        let id = MachineId::new(id);
        let member = MemberRecord::decode(&entry.key, &entry.value).ok()?;
        let was_meant = entry.mod_revision < said_at && machines.contains(&id);
        (member.is_frozen() && was_meant).then_some(id)
    };
    entries.iter().filter_map(frozen).collect()
}

/// Whether an entry says that somebody has asked for an end of a freeze.
fn is_thaw(entry: &Entry) -> bool {
    if entry.key != keys::THAW || fleet_core::planted!("a thaw is not heard") {
        return false;
    }
    AskedRecord::decode(&entry.key, &entry.value).is_ok()
        || fleet_core::planted!("garbage ends a freeze")
}

fn settings(config: &EngineConfig) -> Settings {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Settings {
        lost_after_ms: ms(config.lost_after),
        unsupervised_grace_ms: ms(config.unsupervised_grace),
        freeze_percent: config.freeze_share,
        freeze_for_ms: ms(config.freeze_for),
        spread_ms: ms(config.spread),
        ..Settings::default()
    }
}

fn safety_tick(config: &EngineConfig) -> Option<tokio::time::Interval> {
    let mut safety = tokio::time::interval(config.safety_tick?);
    safety.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    safety.reset();
    Some(safety)
}

/// Gives the cluster its id, once, and the version of its engine, when it is lower.
async fn name_cluster(
    store: &Arc<dyn Store>,
    leadership: &Leadership,
    version: u32,
) -> Result<Option<ClusterRecord>, Error> {
    let key = keys::CLUSTER.to_owned();
    let read = store.read_keys(std::slice::from_ref(&key)).await?;
    if let Some(entry) = read.entries.first() {
        let mut found = match ClusterRecord::decode(&entry.key, &entry.value) {
            Ok(found) => found,
            // It freezes itself alone.
            Err(problem) => {
                error!(
                    key,
                    %problem,
                    "the document that names this cluster cannot be read: machines whose fleetd \
                     reads it anew hold their units until it is put right"
                );
                return Ok(None);
            }
        };
        let known = found.engine;
        if known < version {
            found.engine = version;
            let (compare, op) = raise(entry, version)?;
            let mut compares = leadership.compares();
            compares.push(compare);
            let txn = Txn {
                compares,
                ops: vec![op],
            };
            store.commit(txn).await?;
            info!(
                from = known,
                to = version,
                "Updated cluster engine version from {known} to {version}"
            );
        }
        return Ok(Some(found));
    }
    let id = clock::uuid()
        .map_err(|err| Error::Unavailable(format!("no random id for the cluster: {err}")))?;
    let record = ClusterRecord {
        id,
        format: FORMAT,
        engine: version,
    };
    let mut compares = leadership.compares();
    compares.push(Compare::Absent(key.clone()));
    let txn = Txn {
        compares,
        ops: vec![Op::Put {
            key,
            value: record.encode(),
            lease: None,
        }],
    };
    let revision: Revision = store.commit(txn).await?;
    info!(cluster = record.id, revision, "a new cluster");
    Ok(Some(record))
}

/// Waits for a point in time; for ever if there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
