//! `POST /fleet/v2/units`: wishes for many units.
//!
//! Wishes are written in groups, each one transaction, in the order of the request; the next
//! group is read while one is written. When others have changed a unit of a group meanwhile,
//! the group's units are written one by one. A few units that look new are not read at all: their
//! transaction sees itself whether they are. A unit is atomic, the batch is not: each unit has
//! its answer, and a batch that is sent again under its id changes nothing twice.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use fleet_api::MAX_REQUEST_ID_BYTES;
use fleet_api::v2::{BatchAnswer, BatchRequest, MAX_BATCH, UnitWish, WishAnswer};
use fleet_core::name::UnitName;
use fleet_core::records::{DesiredState, MachineId, UnitRecord};
use fleet_core::unit_file::UnitFile;
use fleet_core::validate::UnknownKeys;

use super::Api;
use super::failure::Failure;
use super::permit::Permit;
use super::request::{Answer, Call, MAX_V2_BODY, Reply, RequestBody};
use super::wish::{Author, Candidate, Stored, check_template, told, update};
use crate::events::{self, Event};
use crate::store::{self, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Revision, Txn, keys};

/// A machine's id has 32 digits; those of an original cluster are not checked for their form.
const MAX_MACHINE_ID_BYTES: usize = 64;

/// So many wishes are one transaction, with room for what it tells.
const MAX_GROUP: usize = MAX_TXN_OPS - events::MAX_PUTS;

/// Compares and framing of one write, beside its key (which is there twice) and its value.
const BYTES_PER_WRITE: usize = 64;

pub(crate) async fn submit(state: &Api, call: &Call, body: &mut RequestBody) -> Answer {
    let request: BatchRequest = super::v2::json(&body.read(MAX_V2_BODY).await?)?;
    let batch = Batch::prepare(request, call)?;
    let answer = batch.run(state, &call.permit).await?;
    Ok(Reply::json(&answer))
}

/// The wishes that can be done.
struct Batch {
    wishes: Vec<Prepared>,
    /// One for each wish of the request; filled in as they are done.
    answers: Vec<WishAnswer>,
}

/// A wish that is understood.
struct Prepared {
    answer_idx: usize,
    name: UnitName,
    file: Option<Candidate>,
    desired: Option<DesiredState>,
    replace: bool,
    restart: bool,
    prefer: Option<MachineId>,
    author: Author,
}

/// What becomes of a wish.
struct Done {
    outcome: &'static str,
    differs: bool,
    warnings: Vec<String>,
}

impl Batch {
    fn prepare(request: BatchRequest, call: &Call) -> Result<Batch, Failure> {
        if request.units.len() > MAX_BATCH {
            return Err(Failure::new(
                413,
                format!(
                    "a batch of {} units is too large (max {MAX_BATCH}): send several",
                    request.units.len()
                ),
            ));
        }
        let unknown = match request.unknown_keys.as_str() {
            "" => UnknownKeys::Default,
            "strict" => UnknownKeys::Strict,
            "allow" => UnknownKeys::Allow,
            word => {
                return Err(Failure::bad_request(format!(
                    "invalid unknownKeys {word:?}: use \"strict\", \"allow\" or nothing"
                )));
            }
        };
        let id = match request.request_id.as_str() {
            "" => call.request_id.as_str(),
            id if id.len() > MAX_REQUEST_ID_BYTES || id.contains('#') => {
                return Err(Failure::bad_request(format!(
                    "invalid requestId: use at most {MAX_REQUEST_ID_BYTES} bytes without \"#\""
                )));
            }
            id => id,
        };
        let mut n_seen: HashMap<String, usize> = HashMap::new();
        let mut batch = Batch {
            wishes: Vec::with_capacity(request.units.len()),
            answers: Vec::with_capacity(request.units.len()),
        };
        for (answer_idx, wish) in request.units.into_iter().enumerate() {
            batch.answers.push(WishAnswer {
                name: wish.name.clone(),
                ..WishAnswer::default()
            });
            let n_before = n_seen.entry(wish.name.clone()).or_default();
            // A second wish for the same unit must not be taken for the first one repeated.
            let request_id = match *n_before {
                0 => id.to_owned(),
                n => format!("{id}#{n}"),
            };
            *n_before += 1;
            if let Err(failure) = call.permit.check_any_wish(&wish) {
                batch.fail(answer_idx, &failure);
                continue;
            }
            let author = Author {
                request_id,
                changed_by: call.permit.who(),
            };
            match Prepared::new(wish, answer_idx, author, unknown) {
                Ok(prepared) => batch.wishes.push(prepared),
                Err(failure) => batch.fail(answer_idx, &failure),
            }
        }
        Ok(batch)
    }

    async fn run(mut self, state: &Api, permit: &Permit) -> Result<BatchAnswer, Failure> {
        let groups = self.groups();
        if self.create_unread(state, permit, &groups).await? {
            return Ok(BatchAnswer {
                units: self.answers,
            });
        }
        let mut next = match groups.first() {
            Some(group) => Some(self.read(state, group.clone()).await?),
            None => None,
        };
        for (group_idx, group) in groups.iter().enumerate() {
            let Some(stored) = next.take() else {
                break;
            };
            let txns = self.plan(permit, group.clone(), &stored);
            let following = groups.get(group_idx + 1).cloned();
            let read = async {
                match following {
                    Some(group) => Some(self.read(state, group).await),
                    None => None,
                }
            };
            let write = self.write(state, permit, txns.writes);
            let (written, read) = tokio::join!(write, read);
            for (answer_idx, result) in txns.decided.into_iter().chain(written) {
                self.answer(answer_idx, result);
            }
            match read.transpose() {
                Ok(stored) => next = stored,
                // The store has gone in between: say so of each unit that is left.
                Err(failure) => {
                    let rest: Vec<usize> = self.wishes[group.end..]
                        .iter()
                        .map(|wish| wish.answer_idx)
                        .collect();
                    for answer_idx in rest {
                        self.fail(answer_idx, &failure);
                    }
                }
            }
        }
        Ok(BatchAnswer {
            units: self.answers,
        })
    }

    /// Creates all units without reading them first, if that is one transaction and none of them
    /// is there; whether it was done. Starting a new unit is what people wait for, and this is one
    /// round trip less. A failure is one that a read would have met, too: nothing was written.
    async fn create_unread(
        &mut self,
        state: &Api,
        permit: &Permit,
        groups: &[Range<usize>],
    ) -> Result<bool, Failure> {
        let [group] = groups else {
            return Ok(false);
        };
        if !self.wishes.iter().all(Prepared::may_be_new) {
            return Ok(false);
        }
        let absent = self.wishes.iter().map(|wish| {
            let key = keys::unit(wish.name.as_str());
            Stored::new(key, None)
        });
        let absent: Vec<Stored> = absent.collect();
        let Plan { decided, writes } = self.plan(permit, group.clone(), &absent);
        let Ok([write]) = <[Write; 1]>::try_from(writes) else {
            return Ok(false);
        };
        if !decided.is_empty() {
            return Ok(false);
        }
        let by = self.changed_by();
        let generation = match state.commit(write.txn, by, write.events).await {
            Ok(revision) => revision,
            Err(error @ store::Error::Unavailable(_)) => return Err(error.into()),
            // What is there is read now; what may have been written is known by its request.
            Err(_) => return Ok(false),
        };
        for (wish_idx, done) in write.wishes {
            let answer_idx = self.wishes[wish_idx].answer_idx;
            self.answer(answer_idx, Ok((generation, done)));
        }
        Ok(true)
    }

    /// Who asks: for all of them the same.
    fn changed_by(&self) -> &str {
        let first = self.wishes.first();
        first.map_or("", |wish| wish.author.changed_by.as_str())
    }

    /// Runs of wishes for different units that fit a transaction.
    fn groups(&self) -> Vec<Range<usize>> {
        let mut groups = Vec::new();
        let mut names = HashSet::new();
        let mut start = 0;
        for (idx, wish) in self.wishes.iter().enumerate() {
            if names.len() == MAX_GROUP || names.contains(&wish.name) {
                groups.push(start..idx);
                names.clear();
                start = idx;
            }
            names.insert(&wish.name);
        }
        if start < self.wishes.len() {
            groups.push(start..self.wishes.len());
        }
        groups
    }

    async fn read(&self, state: &Api, group: Range<usize>) -> Result<Vec<Stored>, Failure> {
        let keys: Vec<String> = self.wishes[group]
            .iter()
            .map(|wish| keys::unit(wish.name.as_str()))
            .collect();
        let snapshot = state.store.read_keys(&keys).await?;
        let mut entries: HashMap<String, store::Entry> = snapshot
            .entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        Ok(keys
            .into_iter()
            .map(|key| {
                let entry = entries.remove(&key);
                Stored::new(key, entry)
            })
            .collect())
    }

    /// Decides on a group: what is answered without a write, and the transactions.
    fn plan(&self, permit: &Permit, group: Range<usize>, stored: &[Stored]) -> Plan {
        let mut plan = Plan::default();
        let mut write = Write::default();
        let mut n_bytes = 0;
        for (wish_idx, stored) in group.zip(stored) {
            let wish = &self.wishes[wish_idx];
            let (record, done) = match wish.decide(stored) {
                Ok(decided) => decided,
                Err(failure) => {
                    plan.decided.push((wish.answer_idx, Err(failure)));
                    continue;
                }
            };
            let Some(record) = record else {
                let result = Ok((stored.generation(), done));
                plan.decided.push((wish.answer_idx, result));
                continue;
            };
            if let Err(failure) = permit.check_wish(wish.name.as_str(), stored.live(), &record) {
                plan.decided.push((wish.answer_idx, Err(failure)));
                continue;
            }
            let (compare, op) = stored.write(&record);
            let size = size_of(&op);
            if n_bytes + size > MAX_TXN_BYTES - events::MAX_BYTES && !write.wishes.is_empty() {
                plan.writes.push(std::mem::take(&mut write));
                n_bytes = 0;
            }
            n_bytes += size;
            write.txn.compares.push(compare);
            write.txn.ops.push(op);
            write.wishes.push((wish_idx, done));
            write
                .events
                .extend(told(wish.name.as_str(), stored, &record));
        }
        if !write.wishes.is_empty() {
            plan.writes.push(write);
        }
        plan
    }

    async fn write(
        &self,
        state: &Api,
        permit: &Permit,
        writes: Vec<Write>,
    ) -> Vec<(usize, WishResult)> {
        let mut results = Vec::new();
        for write in writes {
            let by = self.changed_by();
            let committed = state.commit(write.txn, by, write.events).await;
            for (wish_idx, done) in write.wishes {
                let wish = &self.wishes[wish_idx];
                let result = match &committed {
                    Ok(revision) => Ok((*revision, done)),
                    Err(store::Error::Conflict | store::Error::OutcomeUnknown(_)) => {
                        let name = wish.name.as_str();
                        update(state, permit, name, |stored| wish.decide(stored)).await
                    }
                    Err(error) => Err(error.clone().into()),
                };
                results.push((wish.answer_idx, result));
            }
        }
        results
    }

    fn answer(&mut self, answer_idx: usize, result: WishResult) {
        match result {
            Ok((generation, done)) => {
                let answer = &mut self.answers[answer_idx];
                answer.outcome = done.outcome.to_owned();
                answer.generation = generation;
                answer.differs = done.differs;
                answer.warnings = done.warnings;
            }
            Err(failure) => self.fail(answer_idx, &failure),
        }
    }

    fn fail(&mut self, answer_idx: usize, failure: &Failure) {
        let answer = &mut self.answers[answer_idx];
        answer.outcome = "error".to_owned();
        answer.code = Some(failure.status);
        answer.error = Some(failure.full_message());
    }
}

/// The generation that a unit has now and what was done, or why not.
type WishResult = Result<(Revision, Done), Failure>;

#[derive(Default)]
struct Plan {
    decided: Vec<(usize, WishResult)>,
    writes: Vec<Write>,
}

/// A transaction and the wishes that it fulfils.
#[derive(Default)]
struct Write {
    txn: Txn,
    wishes: Vec<(usize, Done)>,
    /// What it tells.
    events: Vec<Event>,
}

fn size_of(op: &Op) -> usize {
    match op {
        Op::Put { key, value, .. } => 2 * key.len() + value.len() + BYTES_PER_WRITE,
        Op::Delete { key } => 2 * key.len() + BYTES_PER_WRITE,
    }
}

impl Prepared {
    fn new(
        wish: UnitWish,
        answer_idx: usize,
        author: Author,
        unknown: UnknownKeys,
    ) -> Result<Prepared, Failure> {
        let name =
            UnitName::parse(&wish.name).map_err(|error| Failure::bad_request(error.to_string()))?;
        let desired = match wish.desired_state.as_deref() {
            None => None,
            Some(word) => Some(DesiredState::parse(word).ok_or_else(|| {
                Failure::bad_request(format!(
                    "invalid desiredState {word:?}: use \"inactive\", \"loaded\", \"launched\" or \"destroyed\""
                ))
            })?),
        };
        let prefer = match wish.prefer.as_deref() {
            Some(id) if id.is_empty() || id.len() > MAX_MACHINE_ID_BYTES => {
                return Err(Failure::bad_request(format!(
                    "invalid prefer {id:?}: use a machine's whole id"
                )));
            }
            id => id.map(MachineId::new),
        };
        let file = wish.text.map(|text| match UnitFile::parse(&text) {
            Ok(file) => Candidate::of(&name, &file, unknown),
            Err(error) => Candidate {
                text: None,
                warnings: Err(Failure::bad_request(error.to_string())),
            },
        });
        Ok(Prepared {
            answer_idx,
            name,
            file,
            desired,
            replace: wish.replace,
            restart: wish.restart,
            prefer,
            author,
        })
    }

    /// Such a wish creates its unit if there is none, and would leave the contents of one alone.
    fn may_be_new(&self) -> bool {
        let is_good = |file: &Candidate| file.text.is_some() && file.warnings.is_ok();
        self.file.as_ref().is_some_and(is_good)
            && !self.replace
            && !self.restart
            && self.desired != Some(DesiredState::Destroyed)
    }

    fn decide(&self, stored: &Stored) -> Result<(Option<UnitRecord>, Done), Failure> {
        if stored.is_by(&self.author) {
            let outcome = match stored.is_first_version() {
                true => "created",
                false => "changed",
            };
            return Ok((None, Done::new(outcome)));
        }
        if self.desired == Some(DesiredState::Destroyed) {
            return self.destroy(stored);
        }
        let Some(live) = stored.live() else {
            return self.create(stored);
        };
        let differs = self.file.as_ref().is_some_and(|file| !file.is(live.hash));
        let replacement = self.file.as_ref().filter(|_| differs && self.replace);
        let desired = self.desired.unwrap_or(live.desired);
        let (text, warnings) = match replacement {
            Some(file) => (file.text.as_ref(), file.warnings.clone()?),
            None => (None, Vec::new()),
        };
        check_template(&self.name, desired)?;
        // A start that is asked for again is one; everything else is done already.
        let is_start = self.desired == Some(DesiredState::Launched);
        let is_change = text.is_some() || desired != live.desired || is_start || self.restart;
        let record = is_change.then(|| {
            let record = stored.next(text, desired, &self.author);
            UnitRecord {
                restarts: record.restarts + u64::from(self.restart),
                ..record
            }
        });
        let outcome = match (text.is_some(), is_change) {
            (true, _) => "replaced",
            (false, true) => "changed",
            (false, false) => "unchanged",
        };
        let done = Done {
            differs: differs && text.is_none(),
            warnings,
            ..Done::new(outcome)
        };
        Ok((record, done))
    }

    fn create(&self, stored: &Stored) -> Result<(Option<UnitRecord>, Done), Failure> {
        let Some(file) = &self.file else {
            return Err(match stored.damage() {
                Some(damage) => damage.clone().into(),
                None => Failure::no_unit(),
            });
        };
        let warnings = file.warnings.clone()?;
        let desired = match (self.desired, stored.damage()) {
            (Some(desired), _) => desired,
            // What was wanted of it cannot be read, and it may run.
            (None, Some(damage)) => return Err(damage.clone().into()),
            (None, None) => DesiredState::Inactive,
        };
        check_template(&self.name, desired)?;
        let record = UnitRecord {
            prefer: self.prefer.clone(),
            ..stored.next(file.text.as_ref(), desired, &self.author)
        };
        let done = Done {
            warnings,
            ..Done::new("created")
        };
        Ok((Some(record), done))
    }

    fn destroy(&self, stored: &Stored) -> Result<(Option<UnitRecord>, Done), Failure> {
        if stored.live().is_some() || stored.damage().is_some() {
            let record = stored.tombstone(&self.author);
            return Ok((Some(record), Done::new("changed")));
        }
        if stored.is_absent() {
            return Err(Failure::no_unit());
        }
        // On its way out: whoever asks may wait for that.
        Ok((None, Done::new("unchanged")))
    }
}

impl Done {
    fn new(outcome: &'static str) -> Done {
        Done {
            outcome,
            differs: false,
            warnings: Vec::new(),
        }
    }
}
