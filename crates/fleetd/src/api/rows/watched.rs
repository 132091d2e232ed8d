//! `GET /fleet/v2/watch/units`: all units as rows, and from then on each row that changes.
//!
//! All that watch share the kept listing and its one watch of the store. What each of them needs is how far
//! it has come: a line says how the units are that changed since the line before, however often they did.
//! So whoever is slow gets fewer lines and holds up nobody, and nothing waits for it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Bytes;
use fleet_api::v2::{BASE, HEARTBEAT, UnitChanges};
use tokio::time::sleep;

use super::kept::{Changes, Watching};
use super::page::Fields;
use super::reader::Reader;
use super::table::Row;
use super::{LINE_UNITS, MAX_WARNINGS};
use crate::access::{Object, Verb};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::follow::{Lines, STOPPED, Stop, too_slow};
use crate::api::permit::Permit;
use crate::api::request::{Answer, Call};
use crate::store::{Range, Revision, keys};

/// What was just read may be gone again, when the store's watch breaks: it is tried so often.
const MAX_ATTEMPTS: usize = 3;

pub(crate) async fn watch(state: &Api, call: &Call, revision: Option<Revision>) -> Answer {
    let fields = match call.parameter("fields") {
        Some(fields) => Fields::parse(fields)?,
        None => Fields::all(),
    };
    let follower = state.followers.enter()?;
    let begun = begin(state, revision).await?;
    let mut pump = Pump {
        fields,
        permit: (!call.permit.allows_all(Verb::UnitRead)).then(|| Arc::clone(&call.permit)),
        revision: revision.unwrap_or(0),
        told: BTreeSet::new(),
        n_warned: 0,
    };
    Ok(follower.reply(state, |lines, stop| async move {
        let end = pump.run(begun, &lines, stop).await;
        text(&UnitChanges {
            revision: pump.revision,
            end,
            ..UnitChanges::default()
        })
    }))
}

/// Where watching begins.
struct Begun {
    watching: Watching,
    first: Changes,
    /// The first is all units.
    is_listing: bool,
}

async fn begin(state: &Api, revision: Option<Revision>) -> Result<Begun, Failure> {
    if let Some(revision) = revision {
        refuse_what_is_to_come(state, revision).await?;
    }
    let kept = &state.kept;
    for _ in 0..MAX_ATTEMPTS {
        // What is kept is of this store, and up to date, or it is not kept.
        kept.whole(None).await?;
        if let Some(begun) = kept
            .watch()
            .and_then(|watching| take_up(watching, revision))
        {
            return Ok(begun);
        }
        let Some(permit) = kept.permit_to_watch().await else {
            break;
        };
        // Somebody else may have read it meanwhile.
        let watching = kept.watch();
        let begun = watching.and_then(|watching| take_up(watching, revision));
        if let Some(begun) = begun {
            return Ok(begun);
        }
        let read = Reader::whole(state, permit, revision);
        let read = read.await.map_err(|failure| forgotten(failure, revision))?;
        let Some((table, at, permit)) = read else {
            return Err(Failure::new(
                503,
                format!(
                    "there are too many units to watch all of them: list them (GET {BASE}/units), \
                     or follow what happens (GET {BASE}/events?follow=true)"
                ),
            ));
        };
        let begun = match kept.watch() {
            // It began later than what is wanted, and others watch it.
            Some(watching) => watching
                .changes_since(&table)
                .map(|first| (watching, first)),
            None => {
                let watching = kept.keep_watching(permit, table, at);
                let first = match revision {
                    Some(revision) => watching.changes(revision),
                    None => watching.all(),
                };
                first.map(|first| (watching, first))
            }
        };
        if let Some((watching, first)) = begun {
            return Ok(Begun {
                watching,
                first,
                is_listing: revision.is_none(),
            });
        }
    }
    Err(Failure::unavailable(
        "the watch of the store breaks again and again",
    ))
}

/// Goes on from what is kept, if it knows enough.
fn take_up(watching: Watching, revision: Option<Revision>) -> Option<Begun> {
    let first = match revision {
        Some(revision) => watching.changes(revision)?,
        None => watching.all()?,
    };
    Some(Begun {
        watching,
        first,
        is_listing: revision.is_none(),
    })
}

/// A revision that the store has not come to is of another store.
async fn refuse_what_is_to_come(state: &Api, revision: Revision) -> Result<(), Failure> {
    let nothing = Range {
        prefix: keys::CLUSTER.to_owned(),
        limit: Some(1),
        ..Range::default()
    };
    let now = state.store.read(nothing).await?.revision;
    if revision <= now {
        return Ok(());
    }
    let why = format!("the store is at revision {now}, revision {revision} is of another one");
    Err(Failure::new(410, with_cure(&why)))
}

fn forgotten(failure: Failure, revision: Option<Revision>) -> Failure {
    match (failure.status, revision) {
        (410, Some(revision)) => {
            let why = format!("what came after revision {revision} is forgotten");
            Failure::new(410, with_cure(&why))
        }
        _ => failure,
    }
}

fn with_cure(why: &str) -> String {
    format!("{why}: begin anew (GET {BASE}/watch/units without revision)")
}

/// Carries changes to one that watches.
struct Pump {
    fields: Fields,
    /// Who is told; None: somebody who is told everything.
    permit: Option<Arc<Permit>>,
    /// All up to here is carried; 0: not even the listing.
    revision: Revision,
    /// The damaged records that were told.
    told: BTreeSet<String>,
    n_warned: usize,
}

impl Pump {
    /// Returns why it ended.
    async fn run(&mut self, begun: Begun, lines: &Lines, mut stop: Stop) -> String {
        let Begun {
            mut watching,
            first,
            is_listing,
        } = begun;
        if !self.carry(first, is_listing, lines).await {
            return too_slow();
        }
        loop {
            let has_changed = tokio::select! {
                biased;
                () = lines.closed() => return String::new(),
                () = stop.stopped() => return STOPPED.to_owned(),
                () = watching.changed(self.revision) => true,
                () = sleep(HEARTBEAT) => false,
            };
            let is_taken = match has_changed {
                true => {
                    let Some(changes) = watching.changes(self.revision) else {
                        return "what changes is not known here any more: go on from here"
                            .to_owned();
                    };
                    self.carry(changes, false, lines).await
                }
                false => lines.send(self.sign_of_life()).await,
            };
            if !is_taken {
                return too_slow();
            }
        }
    }

    /// Whether it was taken. A line that tells nothing says how far it has come.
    async fn carry(&mut self, changes: Changes, is_listing: bool, lines: &Lines) -> bool {
        let mut rows = changes.rows;
        if let Some(permit) = &self.permit {
            rows.retain(|(name, _)| permit.shows(Verb::UnitRead, Object::Unit(name)));
        }
        let mut warnings = self.news(changes.damaged);
        let mut parts = rows.chunks(LINE_UNITS).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let is_last = parts.peek().is_none();
            let line = UnitChanges {
                revision: if is_last {
                    changes.revision
                } else {
                    self.revision
                },
                units: part
                    .iter()
                    .filter_map(|(_, row)| {
                        let row: &Row = row.as_deref()?;
                        Some(self.fields.row(&changes.presence, row, row.wish.as_ref()?))
                    })
                    .collect(),
                gone: part
                    .iter()
                    .filter(|(_, row)| row.is_none())
                    .map(|(name, _)| Cow::Borrowed(&**name))
                    .collect(),
                listing: is_listing,
                warnings: std::mem::take(&mut warnings),
                ..UnitChanges::default()
            };
            if !lines.send(text(&line)).await {
                return false;
            }
            if is_last {
                self.revision = changes.revision;
                return true;
            }
        }
    }

    /// The damage that was not told yet.
    fn news(&mut self, damaged: Vec<(String, String)>) -> Vec<String> {
        let mut news = Vec::new();
        for (key, why) in damaged {
            if self.n_warned < MAX_WARNINGS && self.told.insert(key) {
                self.n_warned += 1;
                news.push(why);
            }
        }
        news
    }

    fn sign_of_life(&self) -> Bytes {
        text(&UnitChanges {
            revision: self.revision,
            ..UnitChanges::default()
        })
    }
}

/// One JSON object a line.
fn text(line: &UnitChanges<'_>) -> Bytes {
    let mut text = fleet_api::v1::to_json(line);
    text.push(b'\n');
    text.into()
}
