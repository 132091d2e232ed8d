//! What the agent says of its units: `states/<unit>/<machine>`, in batches, changes only.
//!
//! One transaction is in flight at a time, each fenced by the machine's presence. When nothing is
//! under way a change goes out at once; when changes come in numbers they are gathered for a
//! moment, which makes one transaction of many.
//!
//! Each of them puts `marks/<machine>` anew, and only where that stands as it was last read or
//! written: so nothing is said to an older copy of the store that has taken its place unseen, and such
//! a copy is known again by its mark, though it may have more revisions by now ([`super::hold`]).
//!
//! And it tells what has happened to its units since they were last spoken of ([`crate::events`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_api::dump;
use fleet_core::name::UnitName;
use fleet_core::records::{MachineId, Reached, StateRecord};
use tokio::time::Instant;

use super::Fence;
use crate::events::{self, Event, Owner, Ring};
use crate::store::codec::Document;
use crate::store::{Compare, Error, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Revision, Store, Txn, keys};

/// Gathered for so long when the last transaction carried more than [`FEW`] keys: measured, 20 ms
/// cut etcd's CPU three- to fivefold and made a thousand starts faster.
const GATHER: Duration = Duration::from_millis(20);

/// A transaction of so many keys is no sign of a storm.
const FEW: usize = 4;

/// Who has said nothing for so long has no storm.
const CALM: Duration = Duration::from_millis(100);

/// In a storm of small transactions a state waits for others for this share of the time that the storm has
/// lasted, which nobody notices who waits for all of them; each transaction wakes the leader and all that
/// wait…
const GATHER_SHARE: u32 = 16;

/// … and so long at most.
const GATHER_TO: Duration = Duration::from_millis(60);

/// A state that will pass (activating) is only said when it lasts longer than this.
pub(super) const PASSING: Duration = Duration::from_millis(250);
/// A failure waits so long for the words of why, which whoever waits for the unit is shown with it.
pub(super) const EXPLAINED_WITHIN: Duration = Duration::from_secs(1);

/// What is to be said of one unit.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pending {
    /// None: nothing any more, the key is removed.
    state: Option<StateRecord>,
    /// Not before then.
    due: Instant,
    /// Only while the assignment is of this revision: that a unit is gone must not be said of one
    /// that the cluster has forgotten meanwhile, as nobody might take it back.
    order: Option<Revision>,
    /// Why the unit is there.
    reason: String,
}

/// Remembers what was said and what is to be said.
pub(crate) struct Publisher {
    store: Arc<dyn Store>,
    machine: MachineId,
    /// What the store has, as far as is known. An unknown outcome makes an entry unknown.
    published: BTreeMap<UnitName, StateRecord>,
    /// What was last known to stand there of units whose entry is unknown: what has happened since is
    /// still to be told.
    untold: BTreeMap<UnitName, StateRecord>,
    /// Where it is told. None until it is known where that goes on.
    ring: Option<Ring>,
    pending: BTreeMap<UnitName, Pending>,
    /// The revision at which the machine's mark stands in the store, if there is one; None: the store is
    /// not believed, and gets none.
    mark: Option<Option<Revision>>,
    /// In the transaction whose outcome is awaited.
    in_flight: BTreeSet<UnitName>,
    /// Keys in the last transaction.
    last_batch: usize,
    last_sent: Option<Instant>,
    /// When the first of the transactions was sent that have followed each other without a pause.
    busy_since: Option<Instant>,
}

/// A transaction ready to be sent.
pub(crate) struct Batch {
    txn: Txn,
    units: Vec<Sent>,
    /// It moves the machine's mark, too.
    marks: bool,
    /// What it tells.
    events: Vec<Event>,
}

/// What a transaction says of one unit.
struct Sent {
    unit: UnitName,
    state: Option<StateRecord>,
    order: Option<Revision>,
    reason: String,
}

impl Batch {
    /// How many keys it writes.
    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether it moves the machine's mark to its own revision.
    pub(crate) fn marks(&self) -> bool {
        self.marks
    }

    /// Sends it.
    pub(crate) async fn send(self, store: Arc<dyn Store>) -> (Batch, Result<Revision, Error>) {
        let sent = store.commit(self.txn.clone()).await;
        (self, sent)
    }
}

impl Publisher {
    pub(crate) fn new(store: Arc<dyn Store>, machine: MachineId) -> Publisher {
        Publisher {
            store,
            machine,
            published: BTreeMap::new(),
            untold: BTreeMap::new(),
            ring: None,
            pending: BTreeMap::new(),
            mark: None,
            in_flight: BTreeSet::new(),
            last_batch: 0,
            last_sent: None,
            busy_since: None,
        }
    }

    /// Learns what the store has of these units, so that what is there is not said again. What was
    /// to be said is forgotten: it is planned anew.
    pub(crate) async fn learn(&mut self, units: Vec<UnitName>) -> Result<(), Error> {
        self.published.clear();
        self.untold.clear();
        self.pending.clear();
        self.in_flight.clear();
        let owner = Owner::Agent(self.machine.clone());
        self.ring = Some(Ring::read(&*self.store, owner).await?);
        for chunk in units.chunks(MAX_TXN_OPS) {
            let keys: Vec<String> = chunk
                .iter()
                .map(|unit| keys::state(unit.as_str(), self.machine.as_str()))
                .collect();
            for entry in self.store.read_keys(&keys).await?.entries {
                let keys::Key::State(unit, _) = keys::parse(&entry.key) else {
                    continue;
                };
                // A damaged state of our own is simply said anew.
                if let (Ok(unit), Ok(state)) = (
                    UnitName::parse(unit),
                    StateRecord::decode(&entry.key, &entry.value),
                ) {
                    self.published.insert(unit, state);
                }
            }
        }
        Ok(())
    }

    /// Where the machine's mark stands in the store from which was read, if it is believed.
    pub(crate) fn mark_from(&mut self, mark: Option<Option<Revision>>) {
        self.mark = mark;
    }

    /// What was last said of a unit and, as far as is known, stands in the store.
    pub(crate) fn published(&self, unit: &UnitName) -> Option<&StateRecord> {
        self.published.get(unit)
    }

    /// Whether it is not known what stands in the store of a unit: something is on its way there.
    pub(crate) fn is_in_flight(&self, unit: &UnitName) -> bool {
        self.in_flight.contains(unit)
    }

    /// Says how a unit is, if that lasts for so long.
    /// `order`: the revision of the assignment that is answered, and `reason`: why it was given.
    pub(crate) fn say(
        &mut self,
        unit: &UnitName,
        state: StateRecord,
        lasts: Duration,
        order: Option<Revision>,
        reason: &str,
    ) {
        // What is on its way there may say otherwise.
        if self.published.get(unit) == Some(&state) && !self.is_in_flight(unit) {
            self.pending.remove(unit);
            return;
        }
        let order = order.filter(|_| state.reached == Reached::Gone);
        let due = Instant::now() + lasts;
        match self.pending.get_mut(unit) {
            // What has waited keeps its place: a unit that flaps for ever is still heard of.
            Some(pending) => {
                pending.due = pending.due.min(due);
                pending.state = Some(state);
                pending.order = order;
                reason.clone_into(&mut pending.reason);
            }
            None => {
                self.pending.insert(
                    unit.clone(),
                    Pending {
                        state: Some(state),
                        due,
                        order,
                        reason: reason.to_owned(),
                    },
                );
            }
        }
    }

    /// Removes what was said of a unit.
    pub(crate) fn remove(&mut self, unit: &UnitName) {
        if self.published.contains_key(unit) || self.pending.contains_key(unit) {
            self.pending.insert(
                unit.clone(),
                Pending {
                    state: None,
                    due: Instant::now(),
                    order: None,
                    reason: String::new(),
                },
            );
        }
    }

    /// What was said and what is to be said, for people.
    pub(crate) fn dump(&self) -> dump::Publisher {
        let state = |unit: &UnitName, state: &StateRecord| dump::UnitState {
            load_state: state.load.clone(),
            active_state: state.active.clone(),
            sub_state: state.sub.clone(),
            machine_id: self.machine.as_str().to_owned(),
            unit_hash: state.hash.to_string(),
            unit_name: unit.to_string(),
        };
        let pending = self.pending.iter();
        dump::Publisher {
            cache: self
                .published
                .iter()
                .map(|(unit, said)| (unit.to_string(), state(unit, said)))
                .collect(),
            to_publish: pending
                .map(|(unit, pending)| {
                    let to_say = pending.state.as_ref();
                    (unit.to_string(), to_say.map(|to_say| state(unit, to_say)))
                })
                .collect(),
        }
    }

    /// When the next batch is to go out; None: nothing is to be said.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = self.pending.values().map(|pending| pending.due).min()?;
        let Some((sent, since)) = self.last_sent.zip(self.busy_since) else {
            return Some(due);
        };
        let mut gather = ((sent - since) / GATHER_SHARE).min(GATHER_TO);
        if self.last_batch > FEW {
            gather = gather.max(GATHER);
        }
        Some(due.max(sent + gather))
    }

    /// Everything that is due, as far as it fits one transaction. It is no longer pending; give
    /// it back with [`Publisher::done`].
    pub(crate) fn batch(&mut self, fence: Fence) -> Option<Batch> {
        let now = Instant::now();
        let mut batch = Batch {
            txn: Txn {
                compares: match fleet_core::planted!("states are written without presence") {
                    true => Vec::new(),
                    false => fence.compares(&self.machine),
                },
                ops: Vec::new(),
            },
            units: Vec::new(),
            marks: self.mark.is_some(),
            events: Vec::new(),
        };
        let key = keys::mark(self.machine.as_str());
        batch.txn.compares.extend(self.mark.map(|mark| match mark {
            Some(revision) => Compare::ModRevision(key.clone(), revision),
            None => Compare::Absent(key.clone()),
        }));
        let mut bytes = 0;
        let due: Vec<UnitName> = self
            .pending
            .iter()
            .filter(|(_, p)| p.due <= now)
            .map(|(unit, _)| unit.clone())
            .collect();
        for unit in due {
            if batch.txn.compares.len() == MAX_TXN_OPS
                || batch.units.len() == MAX_TXN_OPS - 1 - events::MAX_PUTS
                || bytes >= MAX_TXN_BYTES / 2
            {
                break;
            }
            let Some(pending) = self.pending.remove(&unit) else {
                continue;
            };
            let Pending {
                state,
                order,
                reason,
                ..
            } = pending;
            if let Some(order) = order {
                let key = keys::assignment(self.machine.as_str(), unit.as_str());
                batch.txn.compares.push(Compare::ModRevision(key, order));
            }
            let key = keys::state(unit.as_str(), self.machine.as_str());
            batch.txn.ops.push(match &state {
                Some(state) => {
                    let value = state.encode();
                    bytes += key.len() + value.len();
                    Op::Put {
                        key,
                        value,
                        lease: None,
                    }
                }
                None => Op::Delete { key },
            });
            let before = self.published.get(&unit).or(self.untold.get(&unit));
            let event = state
                .as_ref()
                .and_then(|now| fleet_core::events::of_state(&unit, before, now, &reason));
            batch.events.extend(event);
            self.in_flight.insert(unit.clone());
            batch.units.push(Sent {
                unit,
                state,
                order,
                reason,
            });
        }
        if batch.units.is_empty() {
            return None;
        }
        if batch.marks {
            // Behind them, so that the transaction has the name of what it is about.
            batch.txn.ops.push(Op::Put {
                key,
                value: Vec::new(),
                lease: None,
            });
        }
        if let Some(ring) = &mut self.ring {
            batch.txn.ops.extend(ring.puts("", batch.events.clone()));
        }
        self.last_batch = batch.units.len();
        if self.last_sent.is_none_or(|sent| now - sent >= CALM) {
            self.busy_since = Some(now);
        }
        self.last_sent = Some(now);
        Some(batch)
    }

    /// Takes in what became of a batch. What did not arrive is said again, unless something
    /// newer is to be said by now. Returns the units that are gone, or whose key is removed.
    pub(crate) fn done(
        &mut self,
        batch: Batch,
        outcome: &Result<Revision, Error>,
    ) -> Vec<UnitName> {
        let mut gone = Vec::new();
        if let (Ok(revision), true) = (outcome, batch.marks) {
            self.mark = self.mark.map(|_| Some(*revision));
        }
        if let Ok(revision) = outcome {
            let by = self.machine.as_str();
            let events = batch.events.iter();
            events.for_each(|event| events::log(event, by, *revision));
        }
        for sent in batch.units {
            let Sent {
                unit,
                state,
                order,
                reason,
            } = sent;
            self.in_flight.remove(&unit);
            match (outcome, state) {
                (Ok(_), Some(state)) => {
                    if state.reached == Reached::Gone {
                        gone.push(unit.clone());
                    }
                    let pending = self.pending.get(&unit);
                    if pending.is_some_and(|pending| pending.state.as_ref() == Some(&state)) {
                        self.pending.remove(&unit);
                    }
                    self.untold.remove(&unit);
                    self.published.insert(unit, state);
                }
                (Ok(_), None) => {
                    self.untold.remove(&unit);
                    self.published.remove(&unit);
                    gone.push(unit);
                }
                (Err(_), state) => {
                    if let Some(before) = self.published.remove(&unit) {
                        self.untold.insert(unit.clone(), before);
                    }
                    let again = Pending {
                        state,
                        due: Instant::now(),
                        order,
                        reason,
                    };
                    self.pending.entry(unit).or_insert(again);
                }
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::hash::UnitHash;
    use fleet_core::records::{Decision, Reached};

    use super::*;
    use crate::store::Range;
    use crate::store::memory::MemoryStore;

    fn state(sub: &str) -> StateRecord {
        StateRecord {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            sub: sub.to_owned(),
            hash: UnitHash::of(b""),
            decision: Decision::default(),
            reached: Reached::Launched,
            invocation_id: String::new(),
            description: String::new(),
            why: None,
            leased_ms: None,
            log: Vec::new(),
        }
    }

    /// A store in which the machine is present, and what fences it.
    async fn rig() -> (Arc<MemoryStore>, Fence) {
        let store = MemoryStore::new();
        let (lease, _) = store.grant(Duration::from_secs(60)).await.unwrap();
        let presence = Txn {
            ops: vec![Op::Put {
                key: keys::machine("m1"),
                value: Vec::new(),
                lease: Some(lease),
            }],
            ..Txn::default()
        };
        let revision = store.commit(presence).await.unwrap();
        (store, Fence { revision, lease })
    }

    /// What stands in the ring: the revision, the kind, and why.
    async fn told(store: &MemoryStore) -> Vec<(Revision, String)> {
        let range = Range {
            prefix: keys::EVENTS.to_owned(),
            ..Range::default()
        };
        let mut told = Vec::new();
        for entry in store.read(range).await.unwrap().entries {
            for event in events::of_entry(&entry).unwrap().events {
                assert_eq!(event.machine, Some(MachineId::new("m1")));
                let text = format!("{}: {}", event.kind.as_str(), event.why);
                told.push((entry.mod_revision, text));
            }
        }
        told
    }

    fn run(invocation: &str) -> StateRecord {
        StateRecord {
            invocation_id: invocation.to_owned(),
            ..state("running")
        }
    }

    async fn publisher(store: &Arc<MemoryStore>, unit: &UnitName) -> Publisher {
        let mut publisher = Publisher::new(Arc::clone(store) as _, MachineId::new("m1"));
        publisher.learn(vec![unit.clone()]).await.unwrap();
        publisher
    }

    /// An event is there exactly when the state that it is about is.
    #[tokio::test(start_paused = true)]
    async fn what_happens_is_told_with_the_state_and_once_though_it_is_sent_again() {
        let (store, fence) = rig().await;
        let unit = UnitName::parse("a.service").unwrap();
        let key = keys::state("a.service", "m1");
        let mut first = publisher(&store, &unit).await;
        first.say(&unit, run("i1"), Duration::ZERO, None, "m2 is lost");
        // The first time it does not arrive.
        let batch = first.batch(fence).unwrap();
        first.done(batch, &Err(Error::Unavailable("gone".to_owned())));
        assert_eq!(told(&store).await, []);
        let batch = first.batch(fence).unwrap();
        let (batch, outcome) = batch.send(Arc::clone(&store) as _).await;
        first.done(batch, &outcome);
        let stands = store.read_keys(&[key]).await.unwrap();
        let started = (
            stands.entries[0].mod_revision,
            "started: m2 is lost".to_owned(),
        );
        assert_eq!(told(&store).await, std::slice::from_ref(&started));
        // What does not arrive makes nothing of before new: it has started long ago.
        let renamed = StateRecord {
            description: "Other".to_owned(),
            ..run("i1")
        };
        first.say(&unit, renamed.clone(), Duration::ZERO, None, "m2 is lost");
        let batch = first.batch(fence).unwrap();
        first.done(batch, &Err(Error::Unavailable("gone".to_owned())));
        while let Some(batch) = first.batch(fence) {
            let (batch, outcome) = batch.send(Arc::clone(&store) as _).await;
            first.done(batch, &outcome);
        }
        assert_eq!(told(&store).await, std::slice::from_ref(&started));
        // Nor does another fleetd, which goes on in the ring where this one has ended.
        drop(first);
        let mut second = publisher(&store, &unit).await;
        second.say(&unit, run("i1"), Duration::ZERO, None, "m2 is lost");
        second.say(&unit, run("i2"), Duration::ZERO, None, "m2 is lost");
        while let Some(batch) = second.batch(fence) {
            let (batch, outcome) = batch.send(Arc::clone(&store) as _).await;
            second.done(batch, &outcome);
        }
        let told = told(&store).await;
        assert_eq!(told[0], started);
        assert_eq!(told[1].1, "started: it was started there again");
        assert_eq!(told.len(), 2);
    }

    /// What happens while a state is on its way is not lost, and not said twice.
    #[tokio::test(start_paused = true)]
    async fn what_changes_while_a_state_is_on_its_way_is_said_next() {
        let (store, fence) = rig().await;
        let machine = MachineId::new("m1");
        let mut publisher = Publisher::new(Arc::clone(&store) as _, machine);
        let unit = UnitName::parse("a.service").unwrap();
        let key = keys::state("a.service", "m1");
        // (said before it is sent, while it is on its way, what stands there when all is said)
        for (before, meanwhile, writes) in [
            ("running", None, 1),
            ("reload", Some("running"), 2),
            ("reload", Some("reload"), 1),
            ("running", Some("exited"), 2),
        ] {
            publisher.say(&unit, state(before), Duration::ZERO, None, "");
            let mut n_writes = 0;
            while let Some(batch) = publisher.batch(fence) {
                if let (0, Some(meanwhile)) = (n_writes, meanwhile) {
                    publisher.say(&unit, state(meanwhile), Duration::ZERO, None, "");
                }
                let (batch, outcome) = batch.send(Arc::clone(&store) as _).await;
                outcome.as_ref().unwrap();
                publisher.done(batch, &outcome);
                n_writes += 1;
            }
            let there = store.read_keys(std::slice::from_ref(&key)).await.unwrap();
            let there = StateRecord::decode(&key, &there.entries[0].value).unwrap();
            assert_eq!(there.sub, meanwhile.unwrap_or(before));
            assert_eq!(n_writes, writes, "{before}, {meanwhile:?}");
        }
    }

    /// Hundreds of starts are told in few transactions; one alone waits for nobody.
    #[tokio::test(start_paused = true)]
    async fn the_longer_a_storm_lasts_the_more_is_said_at_once() {
        let store = MemoryStore::new();
        let mut publisher = Publisher::new(Arc::clone(&store) as _, MachineId::new("m1"));
        let fence = Fence::default();
        let mut sent = Vec::new();
        // For two seconds, a unit every ten milliseconds.
        for n in 0..200 {
            let unit = UnitName::parse(&format!("u{n}.service")).unwrap();
            publisher.say(&unit, state("running"), Duration::ZERO, None, "");
            let now = Instant::now();
            if publisher.next_due().is_some_and(|due| due <= now) {
                let batch = publisher.batch(fence).unwrap();
                sent.push(batch.len());
                publisher.done(batch, &Ok(1));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(sent.is_sorted(), "{sent:?}");
        // One each ten milliseconds, for sixty.
        assert_eq!((sent[0], sent[sent.len() - 1]), (1, 6), "{sent:?}");

        tokio::time::sleep(CALM).await;
        let unit = UnitName::parse("alone.service").unwrap();
        publisher.say(&unit, state("running"), Duration::ZERO, None, "");
        assert!(
            publisher
                .next_due()
                .is_some_and(|due| due <= Instant::now())
        );
        assert_eq!(
            publisher.batch(fence).map(|batch| batch.len()),
            Some(1 + 200 - sent.iter().sum::<usize>())
        );
    }
}
