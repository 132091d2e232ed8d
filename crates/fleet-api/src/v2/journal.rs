//! The lines of units' journals, from all machines that have them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most of the newest lines that can be asked for by number; all of them are held until they are in order.
pub const MAX_JOURNAL_LINES: usize = 10_000;

/// Most machines in one request: each has a connection and a journalctl for it, and a place in its
/// cursor, which must fit into the head of a request.
pub const MAX_JOURNAL_MACHINES: usize = 200;

/// Most units in one request, which names them all in its head.
pub const MAX_JOURNAL_UNITS: usize = 200;

/// Whoever reads a journal hears of it so often, if only an empty line: so that a reader who has gone is
/// noticed, and what runs for it is ended, and that a machine which has gone is.
pub const JOURNAL_HEARTBEAT: Duration = Duration::from_secs(2);

/// One line of a journal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalEntry {
    /// The machine whose journal has it.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// When that journal took it, in microseconds since 1970, by that machine's clock.
    pub at_us: u64,
    /// The unit that it is of, or about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The machine's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// What the line calls itself: mostly the program.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identifier: String,
    /// The process.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pid: String,
    /// 0 (emergency) to 7 (debug).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The text.
    pub message: String,
    /// Its place in that machine's journal.
    pub cursor: String,
    /// All that the journal has of it; only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Map<String, Value>>,
}

/// One line of the answer to who reads journals.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalLine {
    /// A line of a journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<JournalEntry>,
    /// Everything up to here has been said: reading goes on after it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cursor: String,
    /// Something about a machine, for people: that it does not answer, and why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What can be done about that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// The machine that the note is about, while nothing comes from it.
    #[serde(skip_serializing_if = "String::is_empty", rename = "missingID")]
    pub missing_id: String,
    /// That machine did not answer at all: it is hardly to be reached by another way.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// All that there was has been said; what follows is new.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lull: bool,
    /// Why this is the last line, and what to do; left out: it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end: String,
}

impl JournalEntry {
    /// Reads an object of `journalctl --output=json`. `keep`: with all its fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_journald(line: &[u8], machine_id: &str, keep: bool) -> Result<JournalEntry, String> {
        let fields: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let text = |names: &[&str]| {
            let found = names.iter().find_map(|name| fields.get(*name));
            found.map(text_of).unwrap_or_default()
        };
        let at = text(&["__REALTIME_TIMESTAMP"]);
        let at_us = at.parse();
        Ok(JournalEntry {
            machine_id: machine_id.to_owned(),
            at_us: at_us.map_err(|_| format!("its time {at:?} is no number"))?,
            // What systemd says about a unit names it so; all else is a line of the unit itself.
            unit: text(&[
                "UNIT",
                "USER_UNIT",
                "OBJECT_SYSTEMD_UNIT",
                "COREDUMP_UNIT",
                "_SYSTEMD_USER_UNIT",
                "_SYSTEMD_UNIT",
            ]),
            host: text(&["_HOSTNAME"]),
            identifier: text(&["SYSLOG_IDENTIFIER", "_COMM"]),
            pid: text(&["SYSLOG_PID", "_PID"]),
            priority: text(&["PRIORITY"]).parse().ok(),
            message: text(&["MESSAGE"]),
            cursor: text(&["__CURSOR"]),
            fields: keep.then_some(fields),
        })
    }

    /// The fields that [`JournalEntry::of_journald`] reads, but for those that are always there.
    pub const FIELDS: &[&str] = &[
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "SYSLOG_PID",
        "_COMM",
        "_PID",
        "_HOSTNAME",
        "UNIT",
        "USER_UNIT",
        "OBJECT_SYSTEMD_UNIT",
        "COREDUMP_UNIT",
        "_SYSTEMD_UNIT",
        "_SYSTEMD_USER_UNIT",
    ];
}

/// A field's value: a text, or bytes where it is none; of a field that stands several times the first.
fn text_of(value: &Value) -> String {
    let bytes = |values: &[Value]| {
        let bytes = values.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
        bytes.collect::<Option<Vec<u8>>>()
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => match bytes(values) {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => values.first().map(text_of).unwrap_or_default(),
        },
        _ => String::new(),
    }
}

/// How far journals have been read: reading goes on after it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JournalCursor {
    /// Of machines of which nothing has been read, everything counts from this time on, in microseconds
    /// since 1970.
    pub since_us: u64,
    /// By machine the cursor of the last line that was read.
    pub machines: BTreeMap<String, String>,
}

/// How the text of a cursor begins: it is of this form.
const FORM: &str = "fleet1";

impl JournalCursor {
    /// Notes that a line has been read.
    pub fn note(&mut self, entry: &JournalEntry) {
        match self.machines.get_mut(&entry.machine_id) {
            Some(cursor) => cursor.clone_from(&entry.cursor),
            None => {
                let (id, cursor) = (entry.machine_id.clone(), entry.cursor.clone());
                self.machines.insert(id, cursor);
            }
        }
    }

    /// Reads the text of a cursor.
    ///
    /// # Errors
    /// A text that is none.
    pub fn parse(text: &str) -> Result<JournalCursor, String> {
        let none = || {
            format!("invalid cursor {text:?}: take one that fleetctl journal --show-cursor printed")
        };
        let mut parts = text.split('~');
        if parts.next() != Some(FORM) {
            return Err(none());
        }
        let since_us = parts.next().and_then(|since| since.parse().ok());
        let mut cursor = JournalCursor {
            since_us: since_us.ok_or_else(none)?,
            machines: BTreeMap::new(),
        };
        while let Some(id) = parts.next() {
            let place = parts.next().ok_or_else(none)?;
            let is_plain =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '=' | ',' | '-' | '_');
            if id.is_empty() || place.is_empty() || !place.chars().all(is_plain) {
                return Err(none());
            }
            cursor
                .machines
                .insert(id.to_owned(), place.replace(',', ";"));
        }
        Ok(cursor)
    }
}

impl std::fmt::Display for JournalCursor {
    /// One word, which a shell takes as it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{FORM}~{}", self.since_us)?;
        for (id, cursor) in &self.machines {
            write!(f, "~{id}~{}", cursor.replace(';', ","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_journald_is_read() {
        let line = br#"{"__CURSOR":"s=a;i=1","__REALTIME_TIMESTAMP":"1700000000000001","MESSAGE":"hello",
            "PRIORITY":"6","SYSLOG_IDENTIFIER":"sh","_PID":"42","_HOSTNAME":"one","_SYSTEMD_UNIT":"a.service"}"#;
        let entry = JournalEntry::of_journald(line, "m1", false).unwrap();
        assert_eq!(entry.at_us, 1_700_000_000_000_001);
        assert_eq!(
            (&*entry.unit, &*entry.pid, &*entry.identifier),
            ("a.service", "42", "sh")
        );
        assert_eq!(
            (&*entry.host, entry.priority, &*entry.cursor),
            ("one", Some(6), "s=a;i=1")
        );
        assert_eq!((&*entry.message, entry.fields), ("hello", None));
        // Bytes that are no text, a field that stands twice, one that was too large to be told, and
        // what systemd says about a unit.
        let line = br#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":[104,105,255],"_COMM":["a","b"],"PRIORITY":null,
            "_SYSTEMD_UNIT":"init.scope","UNIT":"b.service"}"#;
        let entry = JournalEntry::of_journald(line, "m1", true).unwrap();
        assert_eq!(
            (&*entry.message, &*entry.identifier, &*entry.unit),
            ("hi\u{fffd}", "a", "b.service")
        );
        assert_eq!((entry.priority, entry.fields.unwrap().len()), (None, 6));
        assert!(JournalEntry::of_journald(b"{}", "m1", false).is_err());
        assert!(JournalEntry::of_journald(b"-- no entries --", "m1", false).is_err());
    }

    #[test]
    fn a_cursor_is_a_word_and_is_read_again() {
        let mut cursor = JournalCursor {
            since_us: 7,
            ..JournalCursor::default()
        };
        for (machine, place) in [("m2", "s=b;i=2;x=9"), ("m1", "s=a;i=1"), ("m2", "s=b;i=3")] {
            cursor.note(&JournalEntry {
                machine_id: machine.into(),
                cursor: place.into(),
                ..JournalEntry::default()
            });
        }
        let text = cursor.to_string();
        assert_eq!(text, "fleet1~7~m1~s=a,i=1~m2~s=b,i=3");
        assert_eq!(JournalCursor::parse(&text), Ok(cursor));
        for text in [
            "",
            "fleet1",
            "fleet1~x",
            "fleet2~7",
            "fleet1~7~m1",
            "fleet1~7~m1~",
            "fleet1~7~m1~a b",
        ] {
            assert!(
                JournalCursor::parse(text)
                    .unwrap_err()
                    .contains("--show-cursor"),
                "{text}"
            );
        }
    }
}
