//! `GET /fleet/v2/events`: what was decided and what happened, and what happens from now on.
//!
//! Events are read from the rings that their writers keep ([`crate::events`]), the newest documents
//! first, whoever wrote them: the store's revisions put them in one order. Following is a watch of the
//! rings, which goes on after any revision that the store still knows of.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use fleet_api::v2::{BASE, EventLine, EventListing, EventView, HEARTBEAT, MAX_EVENTS};
use fleet_core::glob::Glob;
use futures_util::StreamExt;
use tokio::time::sleep;

use super::number;
use crate::access::{Object, Verb};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::follow::{Lines, STOPPED, Stop, too_slow};
use crate::api::permit::Permit;
use crate::api::request::{Answer, Call, Reply};
use crate::events::of_entry;
use crate::store::{self, Entry, Event, MAX_NEWEST, Range, Revision, Watch, keys};

/// So many events are listed when nobody says how many.
const USUAL_LIMIT: usize = 100;

/// One request looks at so many documents at most; then it says how to go on. A filter that fits
/// hardly anything would have it look at all rings of a large cluster.
const MAX_LOOKED_AT: usize = 20_000;

/// A piece of about so many bytes is sent at once.
const PIECE_BYTES: usize = 64 << 10;

pub(super) async fn get(state: &Api, call: &Call) -> Answer {
    let follows = match call.parameter("follow") {
        None | Some("false") => false,
        Some("" | "true") => true,
        Some(other) => {
            return Err(Failure::bad_request(format!(
                "invalid follow {other:?}: use true or false"
            )));
        }
    };
    let wanted = Wanted::of(call)?;
    match follows {
        true => follow(state, wanted).await,
        false => list(state, call, &wanted).await,
    }
}

/// Which events are wanted.
struct Wanted {
    unit: Option<Glob>,
    machine: Option<String>,
    since_ms: u64,
    after: Option<Revision>,
    /// Who is told; None: somebody who is told everything.
    permit: Option<Arc<Permit>>,
}

impl Wanted {
    fn of(call: &Call) -> Result<Wanted, Failure> {
        let unit = call.parameter("unit").map(Glob::new);
        if let Some(glob) = unit.as_ref().filter(|glob| glob.is_malformed()) {
            return Err(Failure::bad_request(format!(
                "invalid unit {:?}: it is no pattern; a [ wants a ]",
                glob.as_str()
            )));
        }
        Ok(Wanted {
            unit,
            machine: call.parameter("machine").map(str::to_owned),
            since_ms: number(call, "since")?.unwrap_or(0),
            after: number(call, "after")?,
            permit: (!call.permit.allows_all(Verb::EventRead)).then(|| Arc::clone(&call.permit)),
        })
    }

    fn is(&self, event: &EventView) -> bool {
        let is_unit = self.unit.as_ref().is_none_or(|glob| {
            let unit = event.unit.as_deref();
            unit.is_some_and(|unit| glob.matches(unit))
        });
        let is_machine = self.machine.as_ref().is_none_or(|machine| {
            let machines = [&event.machine_id, &event.from_id];
            machines.into_iter().flatten().any(|id| id == machine)
        });
        let is_shown = self.permit.as_ref().is_none_or(|permit| {
            let unit = event.unit.as_deref();
            unit.is_some_and(|unit| permit.shows(Verb::EventRead, Object::Unit(unit)))
        });
        is_shown && is_unit && is_machine && event.at_ms >= self.since_ms
    }
}

async fn list(state: &Api, call: &Call, wanted: &Wanted) -> Answer {
    let limit = number(call, "limit")?.map_or(USUAL_LIMIT, |limit| {
        let limit = usize::try_from(limit).unwrap_or(MAX_EVENTS);
        limit.clamp(1, MAX_EVENTS)
    });
    let after = wanted.after.unwrap_or(0);
    let mut before = number(call, "before")?.unwrap_or(Revision::MAX);
    let mut at = None;
    let mut warnings = Vec::new();
    // The newest first.
    let mut found: Vec<EventView> = Vec::new();
    let mut n_looked_at = 0;
    let more = loop {
        let range = Range {
            prefix: keys::EVENTS.to_owned(),
            changed_before: Some(before),
            limit: Some(MAX_NEWEST.min(limit.max(USUAL_LIMIT))),
            revision: at,
            ..Range::default()
        };
        let snapshot = state.store.read(range).await?;
        at = Some(snapshot.revision);
        let mut entries = snapshot.entries;
        if snapshot.more {
            without_a_part(&mut entries);
        }
        n_looked_at += entries.len();
        let mut is_over = false;
        for same in entries.chunk_by(|a, b| a.mod_revision == b.mod_revision) {
            let Some(revision) = same.first().map(|entry| entry.mod_revision) else {
                continue;
            };
            is_over = revision <= after || found.len() >= limit;
            if is_over {
                break;
            }
            let mut events = Vec::new();
            for entry in same {
                match views(entry) {
                    Ok(views) => events.extend(views),
                    Err(error) => warnings.push(error.to_string()),
                }
            }
            events.retain(|event| wanted.is(event));
            events.sort_by_key(|event| std::cmp::Reverse(event.index));
            found.extend(events);
            before = revision;
        }
        let is_too_old = |entry: &Entry| {
            let record = of_entry(entry);
            record.is_ok_and(|record| record.at_ms < wanted.since_ms)
        };
        if is_over {
            break found.len() >= limit;
        }
        // Clocks differ a little, not by a whole page.
        if !snapshot.more || entries.iter().all(is_too_old) {
            break false;
        }
        if n_looked_at >= MAX_LOOKED_AT {
            break true;
        }
    };
    found.reverse();
    let listing = EventListing {
        revision: at.unwrap_or(0),
        events: found,
        more,
        before: if before == Revision::MAX { 0 } else { before },
    };
    Ok(Reply::json(&listing).with_warnings(warnings))
}

/// Of the last revision of a page there may be more on the next one.
fn without_a_part(entries: &mut Vec<Entry>) {
    let Some(last) = entries.last().map(|entry| entry.mod_revision) else {
        return;
    };
    if entries
        .first()
        .is_some_and(|first| first.mod_revision != last)
    {
        entries.retain(|entry| entry.mod_revision != last);
    }
}

/// The events of a document.
fn views(entry: &Entry) -> Result<Vec<EventView>, store::Error> {
    let record = of_entry(entry)?;
    let view = |index, kind: &str| EventView {
        revision: entry.mod_revision,
        index,
        at_ms: record.at_ms,
        kind: kind.to_owned(),
        by: record.by.clone(),
        ..EventView::default()
    };
    let mut views = Vec::with_capacity(record.events.len());
    for (index, event) in (record.first..).zip(&record.events) {
        views.push(EventView {
            unit: event.unit.as_ref().map(ToString::to_string),
            machine_id: event.machine.as_ref().map(ToString::to_string),
            from_id: event.from.as_ref().map(ToString::to_string),
            reason: event.why.clone(),
            ..view(index, event.kind.as_str())
        });
    }
    if record.left_out > 0 {
        let index = record
            .first
            .saturating_add(u32::try_from(views.len()).unwrap_or(u32::MAX));
        views.push(EventView {
            reason: format!(
                "{} more of the same transaction had no room",
                record.left_out
            ),
            ..view(index, LEFT_OUT)
        });
    }
    Ok(views)
}

/// The kind of what says how many events had no room.
const LEFT_OUT: &str = "left-out";

async fn follow(state: &Api, wanted: Wanted) -> Answer {
    let follower = state.followers.enter()?;
    let opened = match wanted.after {
        Some(after) => state
            .store
            .watch(keys::EVENTS, after)
            .await
            .map(|watch| (after, watch)),
        None => state.store.watch_from_now(keys::EVENTS).await,
    };
    let (after, watch) = opened.map_err(|error| match error {
        store::Error::Compacted(_) | store::Error::Refused(_) => Failure::new(410, missed(&error)),
        error => error.into(),
    })?;
    let mut pump = Pump {
        wanted,
        revision: after,
    };
    Ok(follower.reply(state, |lines, stop| async move {
        let end = pump.run(watch, lines, stop).await;
        let line = EventLine {
            revision: pump.revision,
            end,
            ..EventLine::default()
        };
        text(&line)
    }))
}

/// What to do when the store no longer knows what came after a revision.
fn missed(error: &store::Error) -> String {
    format!("{error}: list what is kept (GET {BASE}/events?after=R), and follow from its revision")
}

/// Carries events from the store to a follower.
struct Pump {
    wanted: Wanted,
    /// All up to here is carried.
    revision: Revision,
}

impl Pump {
    /// Returns why it ended.
    async fn run(&mut self, mut watch: Watch, lines: Lines, mut stop: Stop) -> String {
        // At once, so that whoever follows knows where it begins.
        let mut silence = Duration::ZERO;
        loop {
            let piece = tokio::select! {
                biased;
                () = lines.closed() => return String::new(),
                () = stop.stopped() => return STOPPED.to_owned(),
                batch = watch.next() => match batch {
                    Some(Ok(batch)) => Some(batch),
                    Some(Err(error @ store::Error::Compacted(_))) => return missed(&error),
                    Some(Err(error)) => return format!("{error}: follow on"),
                    None => return "the watch ended: follow on".to_owned(),
                },
                () = sleep(silence) => None,
            };
            silence = HEARTBEAT;
            let carried = match piece {
                Some(batch) => self.carry(&batch.events, batch.revision, &lines).await,
                None => {
                    let line = EventLine {
                        revision: self.revision,
                        ..EventLine::default()
                    };
                    lines.send(text(&line)).await
                }
            };
            if !carried {
                return too_slow();
            }
        }
    }

    /// Whether it was taken.
    async fn carry(&mut self, events: &[Event], revision: Revision, lines: &Lines) -> bool {
        let mut views: Vec<EventView> = Vec::new();
        for event in events {
            let Event::Put(entry) = event else { continue };
            match self::views(entry) {
                Ok(found) => views.extend(found),
                Err(error) => {
                    tracing::warn!(key = entry.key, %error, "damaged events were left out")
                }
            }
        }
        views.retain(|view| self.wanted.is(view));
        views.sort_by_key(|view| (view.revision, view.index));
        let mut piece: Vec<u8> = Vec::new();
        let mut views = views.into_iter().peekable();
        while let Some(view) = views.next() {
            let is_last_of_revision = views
                .peek()
                .is_none_or(|next| next.revision > view.revision);
            let line = EventLine {
                // Whoever goes on from within a revision must not miss the rest of it.
                revision: match is_last_of_revision {
                    true => view.revision,
                    false => view.revision - 1,
                },
                event: Some(view),
                ..EventLine::default()
            };
            let reached = line.revision;
            piece.extend_from_slice(&text(&line));
            if piece.len() >= PIECE_BYTES {
                if !lines.send(std::mem::take(&mut piece).into()).await {
                    return false;
                }
                self.revision = reached;
            }
        }
        if !piece.is_empty() && !lines.send(piece.into()).await {
            return false;
        }
        self.revision = revision;
        true
    }
}

/// One JSON object a line.
fn text(line: &EventLine) -> Bytes {
    let mut text = fleet_api::v1::to_json(line);
    text.push(b'\n');
    text.into()
}
