//! The types of API v1, which is the original's: field for field, byte for byte.
//!
//! Keys stand in alphabetical order (the order of the fields below), and empty fields are
//! omitted. What clients send is read by [`crate::body`], which takes keys in any case.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// Base path of all v1 resources.
pub const BASE: &str = "/fleet/v1";

/// A second base path for the same.
pub const ALIAS: &str = "/v1-alpha";

/// A machine that is present.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Its whole id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its metadata, overrides applied.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Its address.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
}

/// A page of machines, sorted by id.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MachinePage {
    /// The machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// Given when there is a next page.
    #[serde(rename = "nextPageToken", skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
}

/// One line of a unit file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitOption {
    /// What stands before the `=`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The section, without brackets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub section: String,
    /// What follows the `=`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// A unit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// `inactive`, `loaded`, `launched`; empty for a global unit.
    #[serde(rename = "currentState", skip_serializing_if = "String::is_empty")]
    pub current_state: String,
    /// `inactive`, `loaded`, `launched`.
    #[serde(rename = "desiredState", skip_serializing_if = "String::is_empty")]
    pub desired_state: String,
    /// The machine it is placed on.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its unit file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<UnitOption>,
}

/// A page of units, in byte order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitPage {
    /// Given when there is a next page.
    #[serde(rename = "nextPageToken", skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The units.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
}

/// A unit on one machine, as systemd sees it there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitState {
    /// Hash of the text it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// The machine.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// The unit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// systemd's ActiveState.
    #[serde(
        rename = "systemdActiveState",
        skip_serializing_if = "String::is_empty"
    )]
    pub active: String,
    /// systemd's LoadState.
    #[serde(rename = "systemdLoadState", skip_serializing_if = "String::is_empty")]
    pub load: String,
    /// systemd's SubState.
    #[serde(rename = "systemdSubState", skip_serializing_if = "String::is_empty")]
    pub sub: String,
}

/// A page of states, sorted by unit, then machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitStatePage {
    /// Given when there is a next page.
    #[serde(rename = "nextPageToken", skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The states.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<UnitState>,
}

/// One operation of `PATCH /machines`. It is written in the form that the original reads,
/// `"value":{"value":"z1"}`; fleetd reads `"value":"z1"`, too, which is what JSON Patch means.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataOp {
    /// `add`, `replace` (the same) or `remove`.
    pub op: String,
    /// `/<machine id>/metadata/<key>`; `remove` also takes `/<machine id>/overrides/<key>`, which
    /// brings the machine's own value back.
    pub path: String,
    /// For add and replace.
    pub value: String,
}

impl Serialize for MetadataOp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut op = serializer.serialize_struct("MetadataOp", 3)?;
        op.serialize_field("op", &self.op)?;
        op.serialize_field("path", &self.path)?;
        if !self.value.is_empty() {
            op.serialize_field("value", &BTreeMap::from([("value", &self.value)]))?;
        }
        op.end()
    }
}

/// JSON as the original writes it: compact, no trailing newline, and with `<`, `>`, `&` and the
/// line separators of Unicode escaped.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    to_json_sized(value, 0)
}

/// As [`to_json`], of about so many bytes.
pub fn to_json_sized<T: Serialize>(value: &T, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, HtmlSafe);
    value
        .serialize(&mut serializer)
        .expect("our types have string keys only, and a Vec takes all bytes");
    bytes
}

struct HtmlSafe;

/// The first byte of the line separators of Unicode, and of others.
const LINE_SEPARATORS: u8 = 0xe2;

impl Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Nearly all texts: byte by byte, for a listing has thousands of them.
        let is_special = |byte: u8| matches!(byte, b'<' | b'>' | b'&' | LINE_SEPARATORS);
        if !fragment.bytes().any(is_special) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let special = special.chars().next().unwrap_or_default();
            write!(writer, "\\u{:04x}", u32::from(special))?;
            rest = &rest[at + special.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Backspace => writer.write_all(b"\\u0008"),
            CharEscape::FormFeed => writer.write_all(b"\\u000c"),
            escape => CompactFormatter.write_char_escape(writer, escape),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json<T: Serialize>(value: &T) -> String {
        String::from_utf8(to_json(value)).unwrap()
    }

    #[test]
    fn entities_are_the_originals_samples() {
        let machine = Machine {
            id: "63d22e369175433883a37d92cc53f36c".into(),
            metadata: BTreeMap::from([("hostname".into(), "h1".into())]),
            primary_ip: "172.30.1.2".into(),
        };
        let page = MachinePage {
            machines: vec![machine],
            next_page_token: String::new(),
        };
        assert_eq!(
            json(&page),
            r#"{"machines":[{"id":"63d22e369175433883a37d92cc53f36c","metadata":{"hostname":"h1"},"primaryIP":"172.30.1.2"}]}"#
        );
        let unit = Unit {
            current_state: "launched".into(),
            desired_state: "launched".into(),
            machine_id: "ffc6".into(),
            name: "b@1.service".into(),
            options: vec![UnitOption {
                name: "Description".into(),
                section: "Unit".into(),
                value: "bulk %i".into(),
            }],
        };
        let page = UnitPage {
            next_page_token: "ZAACAA==".into(),
            units: vec![unit],
        };
        assert_eq!(
            json(&page),
            r#"{"nextPageToken":"ZAACAA==","units":[{"currentState":"launched","desiredState":"launched","machineID":"ffc6","name":"b@1.service","options":[{"name":"Description","section":"Unit","value":"bulk %i"}]}]}"#
        );
        let state = UnitState {
            hash: "953d".into(),
            machine_id: "6a97".into(),
            name: "g.service".into(),
            active: "active".into(),
            load: "loaded".into(),
            sub: "running".into(),
        };
        assert_eq!(
            json(&state),
            r#"{"hash":"953d","machineID":"6a97","name":"g.service","systemdActiveState":"active","systemdLoadState":"loaded","systemdSubState":"running"}"#
        );
    }

    #[test]
    fn empty_fields_are_omitted() {
        assert_eq!(json(&MachinePage::default()), "{}");
        assert_eq!(json(&UnitPage::default()), "{}");
        assert_eq!(json(&UnitStatePage::default()), "{}");
        assert_eq!(json(&Unit::default()), "{}");
        assert_eq!(json(&Machine::default()), "{}");
    }

    #[test]
    fn text_is_escaped_as_the_original_escapes_it() {
        let option = UnitOption {
            value: "<a> & \"b\" \u{2028}\n\u{1}\u{8}\u{c}é".into(),
            ..UnitOption::default()
        };
        assert_eq!(
            json(&option),
            r#"{"value":"\u003ca\u003e \u0026 \"b\" \u2028\n\u0001\u0008\u000cé"}"#
        );
    }

    #[test]
    fn a_metadata_op_has_the_form_that_the_original_reads() {
        let op = MetadataOp {
            op: "add".into(),
            path: "/m/metadata/zone".into(),
            value: "z1".into(),
        };
        assert_eq!(
            json(&op),
            r#"{"op":"add","path":"/m/metadata/zone","value":{"value":"z1"}}"#
        );
    }
}
