//! `GET /fleet/v2/units?fields=…`: units as rows, all of them in one answer, a page a line.
//!
//! They come from the store as they are read ([`reader`]), or, when somebody has asked a moment ago,
//! from what was read then and kept true since ([`kept`]). `GET /fleet/v2/watch/units` goes on with what
//! changes ([`watched`]).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};

use super::Api;
use super::failure::Failure;
use super::permit::Permit;
use super::request::{Answer, Call, Reply};
use crate::access::{Object, Verb};
use crate::store::Revision;

mod kept;
mod log;
mod page;
mod reader;
mod table;
mod watched;

pub(crate) use kept::Kept;
use page::{Fields, Part};
use reader::Reader;
use table::{Presence, Row};
pub(crate) use watched::watch;

/// Units in a line: enough that its frame costs nothing beside it, and few enough for a cache.
const LINE_UNITS: usize = 1_000;

/// More warnings with one answer help nobody.
const MAX_WARNINGS: usize = 20;

/// What is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) fields: &'a str,
    pub(crate) after: Option<&'a str>,
    pub(crate) revision: Option<Revision>,
    /// At most so many units in a line.
    pub(crate) limit: usize,
}

pub(crate) async fn list(state: &Api, call: &Call, asked: Asked<'_>) -> Answer {
    let fields = Fields::parse(asked.fields)?;
    let whole = match asked.revision {
        None => state.kept.whole(asked.after).await?,
        Some(_) => None,
    };
    let narrow = !call.permit.allows_all(Verb::UnitRead);
    let permit = narrow.then(|| Arc::clone(&call.permit));
    let mut lines = match whole {
        Some(whole) => Lines {
            fields,
            limit: asked.limit,
            revision: whole.revision,
            rows: whole.rows.into(),
            presence: whole.presence,
            warnings: whole.warnings,
            n_warned: 0,
            is_over: false,
            reader: None,
            permit,
        },
        None => Lines {
            fields,
            limit: asked.limit,
            revision: 0,
            rows: VecDeque::new(),
            presence: Arc::default(),
            warnings: Vec::new(),
            n_warned: 0,
            is_over: false,
            reader: Some(Reader::new(state, asked.after, asked.revision, asked.limit)),
            permit,
        },
    };
    lines.keep_shown();
    // What goes wrong before the first line is an answer of its own.
    let first = lines.next().await?;
    let rest = stream::unfold(Some(lines), |lines| async {
        let mut lines = lines?;
        // A reader that is fast enough would never let anybody else have a turn.
        tokio::task::yield_now().await;
        match lines.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(lines))),
            Ok(None) => None,
            // The answer is cut off; whoever goes on from its last line is told why.
            Err(failure) => Some((Err(io::Error::other(failure.full_message())), None)),
        }
    });
    let first = stream::iter(first.map(Ok::<Bytes, io::Error>));
    let lines = first.chain(rest);
    Ok(Reply::text(
        "application/x-ndjson",
        Body::from_stream(lines),
    ))
}

/// The lines of an answer.
struct Lines {
    fields: Fields,
    limit: usize,
    revision: Revision,
    /// To be sent.
    rows: VecDeque<Arc<Row>>,
    presence: Arc<Presence>,
    warnings: Vec<String>,
    n_warned: usize,
    /// The last line was the last one.
    is_over: bool,
    /// None: all has been read.
    reader: Option<Reader>,
    /// Who is told; None: somebody who is told everything.
    permit: Option<Arc<Permit>>,
}

impl Lines {
    /// None: there is no further one.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while let Some(reader) = self.reader.as_mut().filter(|_| self.rows.is_empty()) {
            let read = reader.next().await?;
            self.revision = read.revision;
            self.rows = read.rows.into();
            self.presence = read.presence;
            self.warnings.extend(read.warnings);
            if !read.more {
                self.reader = None;
            }
            self.keep_shown();
        }
        if self.is_over {
            return Ok(None);
        }
        let n_units = self.rows.len().min(self.limit.min(LINE_UNITS));
        let rows: Vec<Arc<Row>> = self.rows.drain(..n_units).collect();
        let more = !self.rows.is_empty() || self.reader.is_some();
        self.is_over = !more;
        let part = Part {
            revision: self.revision,
            rows: &rows,
            more,
            warnings: self.some_warnings(),
        };
        Ok(Some(self.fields.line(&self.presence, part)))
    }

    /// Leaves out what the caller may not see.
    fn keep_shown(&mut self) {
        if let Some(permit) = &self.permit {
            let is_shown = |row: &Arc<Row>| permit.shows(Verb::UnitRead, Object::Unit(&row.name));
            self.rows.retain(is_shown);
        }
    }

    fn some_warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.truncate(MAX_WARNINGS - self.n_warned);
        self.n_warned += warnings.len();
        warnings
    }
}
