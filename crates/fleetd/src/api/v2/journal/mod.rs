//! `GET /fleet/v2/journal`: the lines of units' journals, merged over all machines that have them.
//!
//! Each machine runs journalctl for its own part, filtered there, as long as somebody reads; nothing is
//! stored. Which machines have the units is in `states/`, and following a unit when it moves is a watch
//! of them. A machine that was read stays so while somebody follows: what a unit says when it leaves is
//! not missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use fleet_api::v2::{
    JOURNAL_HEARTBEAT, JournalCursor, JournalEntry, JournalLine, MAX_JOURNAL_LINES,
    MAX_JOURNAL_MACHINES, MAX_JOURNAL_UNITS,
};
use fleet_core::glob::Glob;
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::sleep;

use super::number;
use crate::access::{Object, Verb};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::here::is_passed_on;
use crate::api::permit::Permit;
use crate::api::read::Reading;
use crate::api::request::{Answer, Call, Reply};
use crate::clock;
use crate::shutdown::{Shutdown, stopped};
use crate::store::keys::{self, Key};
use crate::store::{Range, Revision};
use crate::task;
use crate::units::JournalQuery;

mod lines;
mod merge;
mod moves;
mod source;

pub(crate) use lines::Lines;
use merge::Merge;
use moves::Moves;
use source::{Piece, Source, Trouble};

/// What a reader has not taken yet: so many pieces, of about so many bytes each.
const MAX_WAITING: usize = 16;
const PIECE_BYTES: usize = 32 << 10;

/// What machines have sent and nobody has looked at: so many lines.
const MAX_ARRIVED: usize = 256;

pub(super) async fn get(state: &Api, call: &Call) -> Answer {
    let wanted = Wanted::of(call)?;
    let here = state.here()?;
    // In turn for as long as the others read: a refusal at once says more than a silence.
    let room = state.journal_readers.clone().try_acquire_owned();
    let room = room.map_err(|_| {
        Failure::new(
            503,
            "too many read journals here already: try again later, or elsewhere",
        )
    })?;
    if is_passed_on(call) {
        let machine = wanted
            .machine
            .clone()
            .unwrap_or_else(|| here.machine.to_string());
        here.check_hop(call, &machine)?;
        return own(state, wanted, room);
    }
    let found = Found::read(state, &wanted).await?;
    let (lines, taken) = mpsc::channel(MAX_WAITING);
    let (arrivals, arrived) = mpsc::channel(MAX_ARRIVED);
    let began_us = clock::unix_ms() * 1_000;
    let since_us = wanted.since_us.unwrap_or(began_us);
    let mut pump = Pump {
        state: state.clone(),
        lines,
        piece: Vec::new(),
        cursor: wanted.after.clone().unwrap_or(JournalCursor {
            since_us,
            machines: BTreeMap::new(),
        }),
        merge: Merge::new(wanted.lines, clock::monotonic()),
        wanted,
        sources: BTreeMap::new(),
        arrivals,
        troubles: BTreeMap::new(),
        began_us,
        shutdown: state.shutdown.clone(),
        _room: room,
    };
    for (unit, machine) in &found.pairs {
        pump.read_from(unit, machine, true)?;
    }
    // Whoever is cut off at once knows from where to go on, too.
    pump.tell_cursor();
    for why in &found.nowhere {
        pump.say(&JournalLine {
            note: why.clone(),
            ..JournalLine::default()
        });
    }
    task::spawn(pump.run(arrived, found.revision));
    Ok(answer(taken))
}

fn answer(taken: mpsc::Receiver<Bytes>) -> Reply {
    let body = stream::unfold(taken, |mut taken| async {
        let piece = taken.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), taken))
    });
    Reply::text("application/x-ndjson", Body::from_stream(body))
}

/// Which lines are wanted.
struct Wanted {
    names: Vec<String>,
    globs: Vec<Glob>,
    machine: Option<String>,
    lines: Option<usize>,
    since_us: Option<u64>,
    after: Option<JournalCursor>,
    follow: bool,
    fields: bool,
    /// Who asks, and what he may read.
    permit: Arc<Permit>,
}

impl Wanted {
    fn of(call: &Call) -> Result<Wanted, Failure> {
        let units: Vec<String> = call.parameters("unit").map(str::to_owned).collect();
        if units.is_empty() {
            return Err(Failure::bad_request(
                "no unit is named: give unit=NAME, or a pattern",
            ));
        }
        if units.len() > MAX_JOURNAL_UNITS {
            return Err(too_many_units());
        }
        let (globs, names): (Vec<String>, Vec<String>) = units
            .into_iter()
            .partition(|unit| unit.contains(['*', '?', '[', '\\']));
        let globs: Vec<Glob> = globs.iter().map(|glob| Glob::new(glob)).collect();
        if let Some(glob) = globs.iter().find(|glob| glob.is_malformed()) {
            return Err(Failure::bad_request(format!(
                "invalid unit {:?}: it is no pattern; a [ wants a ]",
                glob.as_str()
            )));
        }
        for name in &names {
            unit_name(name)?;
            call.permit.check(Verb::JournalRead, Object::Unit(name))?;
        }
        let after = call
            .parameter("after")
            .map(JournalCursor::parse)
            .transpose();
        let lines = number(call, "lines")?;
        Ok(Wanted {
            names,
            globs,
            machine: call.parameter("machine").map(str::to_owned),
            lines: lines.map(|lines| {
                usize::try_from(lines)
                    .map_or(MAX_JOURNAL_LINES, |lines| lines.min(MAX_JOURNAL_LINES))
            }),
            since_us: number(call, "since")?,
            after: after.map_err(Failure::bad_request)?,
            follow: flag(call, "follow")?,
            fields: flag(call, "fields")?,
            permit: Arc::clone(&call.permit),
        })
    }

    fn is(&self, unit: &str, machine: &str) -> bool {
        self.machine.as_ref().is_none_or(|wanted| wanted == machine)
            && (self.names.iter().any(|name| name == unit)
                || self.globs.iter().any(|glob| glob.matches(unit))
                    && self.permit.shows(Verb::JournalRead, Object::Unit(unit)))
    }

    /// What the keys of all wanted states begin with.
    fn prefix(&self) -> String {
        if let ([name], []) = (self.names.as_slice(), self.globs.as_slice()) {
            return keys::states_of(name);
        }
        let names = self.names.iter().map(String::as_str);
        let texts = names.chain(self.globs.iter().map(Glob::literal_prefix));
        let common = texts.reduce(|a, b| {
            let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            // Names are ASCII; any other text matches none.
            a.get(..same).unwrap_or_default()
        });
        format!("{}{}", keys::STATES, common.unwrap_or_default())
    }

    /// What a machine is asked for.
    fn query(&self, machine: &str, cursor: &JournalCursor, is_first: bool) -> JournalQuery {
        let after = cursor.machines.get(machine).cloned();
        let goes_on = self.after.is_some() || !is_first;
        JournalQuery {
            units: Vec::new(),
            lines: self.lines.filter(|_| !goes_on),
            since_us: match goes_on {
                true => Some(cursor.since_us),
                false => self.since_us,
            },
            after,
            follow: self.follow,
            all_fields: self.fields,
        }
    }
}

fn unit_name(name: &str) -> Result<UnitName, Failure> {
    UnitName::parse(name)
        .map_err(|error| Failure::bad_request(format!("invalid unit name {name:?}: {error}")))
}

fn flag(call: &Call, name: &str) -> Result<bool, Failure> {
    match call.parameter(name) {
        None | Some("false") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(other) => Err(Failure::bad_request(format!(
            "invalid {name} {other:?}: use true or false"
        ))),
    }
}

fn too_many_units() -> Failure {
    Failure::bad_request(format!(
        "these are more than {MAX_JOURNAL_UNITS} units: name fewer, or a narrower pattern"
    ))
}

/// Who has what is wanted.
struct Found {
    revision: Revision,
    pairs: BTreeSet<(String, String)>,
    /// Of units that are on no machine: why.
    nowhere: Vec<String>,
}

impl Found {
    async fn read(state: &Api, wanted: &Wanted) -> Result<Found, Failure> {
        let mut reading = Reading::new(&*state.store);
        let range = Range {
            prefix: wanted.prefix(),
            ..Range::default()
        };
        let snapshot = state.store.read(range).await?;
        let mut pairs = BTreeSet::new();
        let mut units: BTreeSet<String> = BTreeSet::new();
        for entry in &snapshot.entries {
            if let Key::State(unit, machine) = keys::parse(&entry.key)
                && wanted.is(unit, machine)
            {
                units.insert(unit.to_owned());
                pairs.insert((unit.to_owned(), machine.to_owned()));
            }
        }
        let mut nowhere = Vec::new();
        for name in &wanted.names {
            if let Some(machine) = &wanted.machine {
                pairs.insert((name.clone(), machine.clone()));
            } else if !units.contains(name) {
                if reading.unit(name).await?.is_none() {
                    return Err(Failure::new(404, format!("unit {name} does not exist")));
                }
                let placement = reading.placement(name).await?;
                let reason = placement.map(|placement| placement.reason);
                let reason = reason.filter(|reason| !reason.is_empty());
                nowhere.push(match reason {
                    Some(reason) => format!("{name} is on no machine: {reason}"),
                    None => format!("{name} is on no machine"),
                });
            }
            units.insert(name.clone());
        }
        if units.is_empty() && !wanted.follow {
            return Err(Failure::new(404, "no unit on any machine matches"));
        }
        // Where they were read before, they may have said more before they left.
        for machine in wanted.after.iter().flat_map(|after| after.machines.keys()) {
            if wanted
                .machine
                .as_ref()
                .is_none_or(|wanted| wanted == machine)
            {
                pairs.extend(units.iter().map(|unit| (unit.clone(), machine.clone())));
            }
        }
        Ok(Found {
            revision: snapshot.revision,
            pairs,
            nowhere,
        })
    }
}

/// The journal of this machine alone, for another one's fleetd.
fn own(state: &Api, wanted: Wanted, room: OwnedSemaphorePermit) -> Answer {
    let here = state.here()?;
    let names = wanted.names.iter().map(|name| unit_name(name));
    let names: BTreeSet<UnitName> = names.collect::<Result<_, _>>()?;
    let cursor = wanted.after.clone().unwrap_or_default();
    let query = JournalQuery {
        since_us: wanted.since_us,
        ..wanted.query(here.machine.as_str(), &cursor, true)
    };
    let (keep_units, units) = watch::channel(names);
    let (out, mut arrived) = mpsc::channel(MAX_ARRIVED);
    let (lines, taken) = mpsc::channel(MAX_WAITING);
    let source = Source {
        machine: here.machine.clone(),
        units,
        query,
        behalf: None,
        began_us: clock::unix_ms() * 1_000,
        out,
    };
    task::spawn(source.run(state.clone()));
    let mut shutdown = state.shutdown.clone();
    task::spawn(async move {
        let _until_the_end = (keep_units, room);
        loop {
            let line = tokio::select! {
                () = lines.closed() => return,
                () = stop(&mut shutdown) => return,
                piece = arrived.recv() => match piece {
                    None => return,
                    Some((_, Piece::Entry(entry))) => JournalLine {
                        entry: Some(*entry),
                        ..JournalLine::default()
                    },
                    Some((_, Piece::Lull)) => JournalLine {
                        lull: true,
                        ..JournalLine::default()
                    },
                    Some((_, Piece::Ended(None))) => return,
                    Some((_, Piece::Ended(Some(trouble)))) => {
                        let end = JournalLine {
                            end: trouble.why,
                            ..JournalLine::default()
                        };
                        let _ = lines.send(text(&end).into()).await;
                        return;
                    }
                },
                () = sleep(JOURNAL_HEARTBEAT) => {
                    if lines.send(Bytes::from_static(b"\n")).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            if lines.send(text(&line).into()).await.is_err() {
                return;
            }
        }
    });
    Ok(answer(taken))
}

/// Carries lines from machines to a reader.
struct Pump {
    state: Api,
    lines: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    wanted: Wanted,
    /// What has been said.
    cursor: JournalCursor,
    merge: Merge,
    /// The units of each machine that is read.
    sources: BTreeMap<String, watch::Sender<BTreeSet<UnitName>>>,
    arrivals: mpsc::Sender<(MachineId, Piece)>,
    /// What was last said of machines from which nothing comes.
    troubles: BTreeMap<MachineId, Trouble>,
    began_us: u64,
    shutdown: Option<Shutdown>,
    _room: OwnedSemaphorePermit,
}

/// Nobody reads any more.
struct Gone;

/// What happened.
enum News {
    Arrived(MachineId, Piece),
    Moved(Vec<(String, String)>),
    Time,
    Silence,
    Stop,
    Gone,
}

impl Pump {
    /// Reads the unit's lines from that machine, too.
    fn read_from(&mut self, unit: &str, machine: &str, is_first: bool) -> Result<(), Failure> {
        let unit = unit_name(unit)?;
        if let Some(units) = self.sources.get(machine) {
            if !units.borrow().contains(&unit) {
                if units.borrow().len() >= MAX_JOURNAL_UNITS {
                    return Err(too_many_units());
                }
                units.send_modify(|units| {
                    units.insert(unit);
                });
            }
            return Ok(());
        }
        if self.sources.len() >= MAX_JOURNAL_MACHINES {
            return Err(Failure::bad_request(format!(
                "these units are on more than {MAX_JOURNAL_MACHINES} machines: name fewer, or one \
                 machine (machine=ID)"
            )));
        }
        let (keep_units, units) = watch::channel(BTreeSet::from([unit]));
        self.sources.insert(machine.to_owned(), keep_units);
        self.merge.begin(machine);
        let source = Source {
            machine: MachineId::new(machine),
            units,
            query: self.wanted.query(machine, &self.cursor, is_first),
            behalf: self.wanted.permit.behalf(),
            began_us: self.began_us,
            out: self.arrivals.clone(),
        };
        task::spawn(source.run(self.state.clone()));
        Ok(())
    }

    async fn run(mut self, mut arrived: mpsc::Receiver<(MachineId, Piece)>, from: Revision) {
        let mut shutdown = self.shutdown.take();
        let mut moves = Moves::after(self.state.clone(), self.wanted.prefix(), from);
        loop {
            let now = clock::monotonic();
            while let Some(entry) = self.merge.pop(now) {
                self.carry(entry);
                if self.piece.len() >= PIECE_BYTES && self.flush().await.is_err() {
                    return;
                }
            }
            if !self.piece.is_empty() && self.flush().await.is_err() {
                return;
            }
            if !self.wanted.follow && self.merge.is_over() {
                let _ = self.end("").await;
                return;
            }
            let next = self.merge.goes_at().map(|at| at.saturating_sub(now));
            let news = tokio::select! {
                biased;
                () = self.lines.closed() => News::Gone,
                () = stop(&mut shutdown) => News::Stop,
                piece = arrived.recv() => match piece {
                    Some((machine, piece)) => News::Arrived(machine, piece),
                    None => News::Gone,
                },
                moved = moves.next(), if self.wanted.follow => News::Moved(moved),
                () = sleep(next.unwrap_or(JOURNAL_HEARTBEAT)), if next.is_some() => News::Time,
                () = sleep(JOURNAL_HEARTBEAT) => News::Silence,
            };
            match news {
                News::Gone => return,
                News::Stop => {
                    let _ = self
                        .end("fleetd is being stopped: read on at another")
                        .await;
                    return;
                }
                News::Time => {}
                News::Arrived(machine, piece) => {
                    self.arrived(&machine, piece);
                    // What has come together is put in order together.
                    while let Ok((machine, piece)) = arrived.try_recv() {
                        self.arrived(&machine, piece);
                    }
                }
                News::Moved(pairs) => {
                    for (unit, machine) in pairs {
                        if self.wanted.is(&unit, &machine)
                            && let Err(failure) = self.read_from(&unit, &machine, false)
                        {
                            self.say(&JournalLine {
                                note: failure.full_message(),
                                ..JournalLine::default()
                            });
                        }
                    }
                }
                News::Silence => self.tell_cursor(),
            }
        }
    }

    fn arrived(&mut self, machine: &MachineId, piece: Piece) {
        match piece {
            Piece::Entry(entry) => {
                self.answers_again(machine);
                for dropped in self.merge.push(*entry, clock::monotonic()) {
                    self.cursor.note(&dropped);
                }
            }
            Piece::Lull => {
                self.answers_again(machine);
                self.merge.quiet(machine.as_str());
            }
            Piece::Ended(trouble) => {
                self.merge.end(machine.as_str());
                let Some(trouble) = trouble else { return };
                if self.troubles.get(machine) == Some(&trouble) {
                    return;
                }
                self.say(&JournalLine {
                    note: trouble.why.clone(),
                    hint: trouble.hint.clone(),
                    silent: trouble.is_silent,
                    missing_id: machine.to_string(),
                    ..JournalLine::default()
                });
                self.troubles.insert(machine.clone(), trouble);
            }
        }
    }

    fn answers_again(&mut self, machine: &MachineId) {
        if self.troubles.remove(machine).is_some() {
            self.say(&JournalLine {
                note: format!("machine {} answers again", machine.short()),
                ..JournalLine::default()
            });
        }
    }

    fn carry(&mut self, entry: JournalEntry) {
        self.cursor.note(&entry);
        self.say(&JournalLine {
            entry: Some(entry),
            ..JournalLine::default()
        });
    }

    fn tell_cursor(&mut self) {
        let line = JournalLine {
            cursor: self.cursor.to_string(),
            ..JournalLine::default()
        };
        self.say(&line);
    }

    fn say(&mut self, line: &JournalLine) {
        self.piece.extend_from_slice(&text(line));
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        let piece = std::mem::take(&mut self.piece);
        // Whoever reads slowly is waited for: the journals wait, too.
        self.lines.send(piece.into()).await.map_err(|_| Gone)
    }

    async fn end(&mut self, why: &str) -> Result<(), Gone> {
        let line = JournalLine {
            cursor: self.cursor.to_string(),
            end: match why {
                "" => END.to_owned(),
                why => why.to_owned(),
            },
            ..JournalLine::default()
        };
        self.say(&line);
        self.flush().await
    }
}

/// What the last line says when all has been said.
const END: &str = "that is all";

/// Returns when fleetd stops.
async fn stop(shutdown: &mut Option<Shutdown>) {
    match shutdown {
        Some(shutdown) => stopped(shutdown).await,
        None => std::future::pending().await,
    }
}

/// One JSON object a line.
fn text(line: &JournalLine) -> Vec<u8> {
    let mut text = fleet_api::v1::to_json(line);
    text.push(b'\n');
    text
}
