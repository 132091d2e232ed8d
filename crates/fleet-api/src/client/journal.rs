//! Reading journals through fleetd.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;

use super::v2::Lines;
use super::{Call, Client, Error, escape};
use crate::v2::{BASE, JOURNAL_HEARTBEAT, JournalCursor, JournalLine};

/// A journal that says nothing for so long (not even an empty line) is broken.
const SILENCE: Duration = Duration::from_secs(JOURNAL_HEARTBEAT.as_secs() * 5);

/// Which lines are wanted; what is left out wants all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JournalWanted {
    /// Of these units, by name or pattern.
    pub units: Vec<String>,
    /// Of this machine's journal.
    pub machine: Option<String>,
    /// At most so many of the newest.
    pub lines: Option<usize>,
    /// From this time on, in microseconds since 1970.
    pub since_us: Option<u64>,
    /// After those that have been read.
    pub after: Option<JournalCursor>,
    /// And what comes.
    pub follow: bool,
    /// With all fields.
    pub fields: bool,
}

impl JournalWanted {
    fn path(&self) -> String {
        let mut path = format!(
            "{BASE}/journal?follow={}&fields={}",
            self.follow, self.fields
        );
        let mut add = |name: &str, value: String| path.push_str(&format!("&{name}={value}"));
        for unit in &self.units {
            add("unit", escape(unit).to_string());
        }
        if let Some(machine) = &self.machine {
            add("machine", escape(machine).to_string());
        }
        if let Some(lines) = self.lines {
            add("lines", lines.to_string());
        }
        if let Some(since) = self.since_us {
            add("since", since.to_string());
        }
        if let Some(after) = &self.after {
            add("after", escape(&after.to_string()).to_string());
        }
        path
    }
}

impl Client {
    /// The lines of journals. Dropping the stream ends everything that reads for it.
    pub async fn journal(&self, wanted: &JournalWanted) -> Result<JournalStream<'_>, Error> {
        let call = Call::get(wanted.path());
        let answer = self.send(&call).await?;
        let lines = Lines::new(self, call, answer.response.into_body());
        Ok(JournalStream {
            lines: lines.silent_for(SILENCE),
            _connection: answer.connection,
        })
    }
}

/// The lines of journals.
pub struct JournalStream<'a> {
    lines: Lines<'a>,
    /// It ends with the last of whoever may send on it.
    _connection: SendRequest<Full<Bytes>>,
}

impl JournalStream<'_> {
    /// The next line; None when the connection has ended. It has ended early if no line said `end`
    /// before. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<JournalLine>, Error> {
        match self.lines.next().await? {
            Some(line) => self.lines.parse(&line).map(Some),
            None => Ok(None),
        }
    }
}
