//! `POST /fleet/v2/wait`: lines as units come to what their wishes ask for.
//!
//! All waits of a process are fed by one watch of the store ([`hub`]); each one keeps what it
//! knows of its units and says what is new ([`unit`]). Nothing is polled: a wait sleeps until
//! one of its units changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use fleet_api::v2::{HEARTBEAT, MAX_WAIT, MachineRef, Progress, WaitRequest};
use fleet_core::records::{MachineRecord, MemberRecord, MemberStatus};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use super::Api;
use super::failure::Failure;
use super::read::Reading;
use super::request::{Answer, Call, MAX_V2_BODY, Reply, RequestBody};
use crate::access::{Object, Verb};
use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::Document;
use crate::store::keys::{self, Key};
use crate::store::{self, Entry, MAX_TXN_OPS};

mod hub;
mod unit;

pub(crate) use hub::Hub;
use hub::{Changes, Registration};
use unit::Waited;

/// Waits at the same time; each holds what it knows of its units in memory.
const MAX_WAITS: usize = 1_024;

/// Reads under way at once while a wait begins.
const READS_AT_ONCE: usize = 16;

/// Before a wait reads again what it could not read.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Says nothing but that we are there.
const EMPTY_LINE: Bytes = Bytes::from_static(b"\n");

pub(crate) async fn start(state: &Api, call: &Call, body: &mut RequestBody) -> Answer {
    let request: WaitRequest = super::v2::json(&body.read(MAX_V2_BODY).await?)?;
    if request.units.len() > MAX_WAIT {
        return Err(Failure::new(
            413,
            format!(
                "a wait for {} units is too large (max {MAX_WAIT}): send several",
                request.units.len()
            ),
        ));
    }
    if !call.permit.allows_all(Verb::UnitRead) {
        for unit in &request.units {
            call.permit
                .check(Verb::UnitRead, Object::Unit(&unit.name))?;
        }
    }
    if state.waits.n_waiters() >= MAX_WAITS {
        return Err(Failure::new(
            503,
            format!("{MAX_WAITS} requests are waiting already: try again later, or elsewhere"),
        ));
    }
    let wait = Wait::new(state, &request);
    let lines = stream::unfold(wait, |mut wait| async {
        let chunk = wait.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), wait))
    });
    Ok(Reply::text(
        "application/x-ndjson",
        Body::from_stream(lines),
    ))
}

/// One request that waits.
struct Wait {
    state: Api,
    shutdown: Option<Shutdown>,
    registration: Registration,
    /// Those that are not final yet: of the others nothing is kept.
    units: BTreeMap<Arc<str>, Waited>,
    /// Those that may have something to say: nobody looks through thousands for the one that has.
    dirty: BTreeSet<Arc<str>>,
    /// The newest revision seen of each key of theirs.
    seen: BTreeMap<String, store::Revision>,
    /// Machines that are given up, as far as it has been told.
    lost: BTreeSet<String>,
    /// Addresses of machines that were named before.
    addresses: BTreeMap<String, String>,
}

impl Wait {
    fn new(state: &Api, request: &WaitRequest) -> Wait {
        let mut units: BTreeMap<Arc<str>, Waited> = BTreeMap::new();
        for wanted in &request.units {
            let name: Arc<str> = wanted.name.as_str().into();
            units
                .entry(Arc::clone(&name))
                .or_insert_with(|| Waited::new(&name))
                .at_least(wanted.generation);
        }
        Wait {
            registration: state.waits.register(units.keys().cloned()),
            dirty: BTreeSet::new(),
            units,
            seen: BTreeMap::new(),
            lost: BTreeSet::new(),
            addresses: BTreeMap::new(),
            shutdown: state.shutdown.clone(),
            state: Arc::clone(state),
        }
    }

    /// The next lines; None when all units are final, or fleetd stops.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.units.is_empty() {
            // Naming the machines of the last lines has told something new about them.
            let has_news = !self.dirty.is_empty();
            // Only here may a wait be interrupted: what it has taken is then dealt with.
            let changes = tokio::select! {
                biased;
                () = stop(&mut self.shutdown) => return None,
                () = std::future::ready(()), if has_news => Changes::default(),
                changes = self.registration.changes() => changes,
                () = sleep(HEARTBEAT) => return Some(EMPTY_LINE),
            };
            for (key, change) in changes.by_key {
                self.apply(&key, change.revision, change.value.as_deref());
            }
            if changes.read_anew
                && let Err(error) = self.read().await
            {
                tracing::debug!(%error, "a wait could not read its units");
                self.registration.read_anew();
                sleep(RETRY_PAUSE).await;
                // It shows whoever waits that we are still there.
                return Some(EMPTY_LINE);
            }
            let mut lines = Vec::new();
            for name in std::mem::take(&mut self.dirty) {
                if let Some(unit) = self.units.get_mut(&name).filter(|unit| unit.is_dirty()) {
                    unit.look(&self.lost, &mut lines);
                    if unit.is_final() {
                        self.forget(&name);
                    }
                }
            }
            if !lines.is_empty() {
                self.name_machines(&mut lines).await;
                return Some(text(&lines));
            }
        }
        None
    }

    /// A wait for a thousand units goes on until the last one.
    fn forget(&mut self, name: &Arc<str>) {
        self.units.remove(name);
        self.seen.remove(&keys::unit(name));
        self.seen.remove(&keys::placement(name));
        let states = keys::states_of(name);
        let seen = self.seen.range(states.clone()..);
        let seen = seen.map(|(key, _)| key);
        let seen = seen.take_while(|key| key.starts_with(&states));
        for key in seen.cloned().collect::<Vec<_>>() {
            self.seen.remove(&key);
        }
    }

    /// Reads all that is known of the units that are not final.
    async fn read(&mut self) -> Result<(), store::Error> {
        let store = Arc::clone(&self.state.store);
        let open: Vec<Arc<str>> = self.units.keys().cloned().collect();
        // A unit and its placement are read at one revision.
        let wanted: Vec<Vec<String>> = open
            .chunks(MAX_TXN_OPS / 2)
            .map(|names| {
                let both = |name: &Arc<str>| [keys::unit(name), keys::placement(name)];
                names.iter().flat_map(both).collect()
            })
            .collect();
        self.read_keys(wanted).await?;
        let mut state_keys = Vec::new();
        let mut whole = Vec::new();
        for name in &open {
            match self.units[name].machines() {
                Some(machines) => {
                    state_keys.extend(machines.map(|machine| keys::state(name, machine)));
                }
                None => whole.push(Arc::clone(name)),
            }
        }
        let state_keys = state_keys.chunks(MAX_TXN_OPS).map(<[_]>::to_vec).collect();
        self.read_keys(state_keys).await?;
        let snapshots: Vec<store::Snapshot> = stream::iter(whole.clone())
            .map(|name| {
                let store = Arc::clone(&store);
                async move {
                    let prefix = keys::states_of(&name);
                    Reading::new(&*store).range(&prefix, None).await
                }
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for (name, snapshot) in whole.iter().zip(&snapshots) {
            let before = self.units[name].known_machines();
            for key in before.iter().map(|machine| keys::state(name, machine)) {
                if !snapshot.entries.iter().any(|entry| entry.key == key) {
                    self.apply(&key, snapshot.revision, None);
                }
            }
            for entry in &snapshot.entries {
                self.apply(&entry.key, entry.mod_revision, Some(entry));
            }
        }
        for name in &open {
            if let Some(unit) = self.units.get_mut(name) {
                unit.is_known();
                self.dirty.insert(Arc::clone(name));
            }
        }
        Ok(())
    }

    /// Reads groups of keys; absent ones count as removed.
    async fn read_keys(&mut self, groups: Vec<Vec<String>>) -> Result<(), store::Error> {
        let store = Arc::clone(&self.state.store);
        let snapshots: Vec<(Vec<String>, store::Snapshot)> = stream::iter(groups)
            .map(|keys| {
                let store = Arc::clone(&store);
                async move {
                    let snapshot = store.read_keys(&keys).await?;
                    Ok::<_, store::Error>((keys, snapshot))
                }
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for (keys, snapshot) in snapshots {
            let found: BTreeSet<&str> = snapshot.entries.iter().map(|e| e.key.as_str()).collect();
            for key in keys.iter().filter(|key| !found.contains(key.as_str())) {
                self.apply(key, snapshot.revision, None);
            }
            for entry in &snapshot.entries {
                self.apply(&entry.key, entry.mod_revision, Some(entry));
            }
        }
        Ok(())
    }

    /// Takes in what a key holds at a revision, unless something newer is known.
    fn apply(&mut self, key: &str, revision: store::Revision, entry: Option<&Entry>) {
        let name = match keys::parse(key) {
            Key::Unit(name) | Key::Placement(name) | Key::State(name, _) => Some(name),
            Key::Member(_) => None,
            _ => return,
        };
        if name.is_some_and(|name| !self.units.contains_key(name)) {
            return;
        }
        match self.seen.get_mut(key) {
            Some(seen) if revision <= *seen && *seen > 0 => return,
            Some(seen) => *seen = revision,
            None => {
                self.seen.insert(key.to_owned(), revision);
            }
        }
        let Some(name) = name else {
            return self.note_member(entry);
        };
        if let Some(unit) = self.units.get_mut(name) {
            unit.apply(key, entry);
            if unit.is_dirty() {
                self.dirty.insert(unit.name());
            }
        }
    }

    /// Fills in the addresses of the machines in the lines.
    async fn name_machines(&mut self, lines: &mut [Progress]) {
        let unknown: BTreeSet<String> = lines
            .iter()
            .filter_map(|line| line.machine.as_ref())
            .filter(|machine| !self.addresses.contains_key(&machine.id))
            .map(|machine| machine.id.clone())
            .collect();
        if !unknown.is_empty() {
            let wanted = unknown
                .iter()
                .flat_map(|id| [keys::machine(id), keys::member(id)])
                .collect();
            let reading = Reading::new(&*self.state.store);
            // Without an address the line is as true; it is asked for again for the next one.
            for entry in reading.keys(wanted).await.unwrap_or_default() {
                self.note_address(&entry);
            }
        }
        for machine in lines.iter_mut().filter_map(|line| line.machine.as_mut()) {
            if let Some(address) = self.addresses.get(&machine.id) {
                *machine = MachineRef {
                    primary_ip: address.clone(),
                    ..machine.clone()
                };
            }
        }
    }

    /// Tells the units what the cluster thinks of a machine.
    fn note_member(&mut self, entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        // A record that cannot be read says nothing.
        if let (Key::Member(id), Ok(record)) = (
            keys::parse(&entry.key),
            MemberRecord::decode(&entry.key, &entry.value),
        ) {
            let is_new = match record.status {
                MemberStatus::Lost | MemberStatus::Retired => self.lost.insert(id.to_owned()),
                _ => self.lost.remove(id),
            };
            for unit in self.units.values_mut().filter(|_| is_new) {
                unit.machine_changed(id);
                if unit.is_dirty() {
                    self.dirty.insert(unit.name());
                }
            }
        }
    }

    /// Presence comes before membership in the order of the keys, and counts more.
    fn note_address(&mut self, entry: &Entry) {
        match keys::parse(&entry.key) {
            Key::Machine(id) => {
                if let Ok(record) = MachineRecord::decode(&entry.key, &entry.value) {
                    self.addresses.insert(id.to_owned(), record.public_ip);
                }
            }
            Key::Member(id) => {
                if let Ok(record) = MemberRecord::decode(&entry.key, &entry.value) {
                    self.addresses
                        .entry(id.to_owned())
                        .or_insert(record.public_ip);
                }
                self.note_member(Some(entry));
            }
            _ => {}
        }
    }
}

/// Returns when fleetd stops.
async fn stop(shutdown: &mut Option<Shutdown>) {
    match shutdown {
        Some(shutdown) => stopped(shutdown).await,
        None => std::future::pending().await,
    }
}

/// One JSON object a line.
fn text(lines: &[Progress]) -> Bytes {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(&fleet_api::v1::to_json(line));
        text.push(b'\n');
    }
    text.into()
}
