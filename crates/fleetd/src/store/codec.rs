//! Stored documents: records as JSON bytes and back. Together with fleet-api the only place
//! that knows JSON.
//!
//! A document is one compact JSON object. `v` is the version of its fields; a reader passes over
//! fields that it does not know, and a writer that replaces a document of a newer fleetd keeps
//! them ([`Document::encode_over`]). Empty fields and the usual values are left out, hashes and
//! invocation ids are base64: a placement or a state without text is at most 150 bytes, because
//! there are millions of them.
//!
//! fleet-core's records stay free of serde: the private structs of `documents` stand between,
//! borrow from the record when writing and from the bytes when reading.

use std::borrow::Cow;

use fleet_core::records::MachineId;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::Error;

mod base64;
mod brief;
mod documents;
mod events;
#[cfg(test)]
mod tests;

pub use brief::{PlacementBrief, StateBrief, UnitBrief};
pub(crate) use events::size_of_event;

/// The version of the documents that this fleetd writes, and the lowest that it reads.
pub const FORMAT: u32 = 1;

/// A record that is kept in the store.
pub trait Document: Sized {
    /// The bytes to store, in the lowest format version that can say it.
    fn encode(&self) -> Vec<u8>;

    /// Reads what [`Document::encode`] of this or any other version wrote; fields that are not
    /// known are passed over. `key` is named in the error.
    fn decode(key: &str, bytes: &[u8]) -> Result<Self, Error>;

    /// As [`Document::encode`], keeping the fields of the old document that this version does not know.
    fn encode_over(&self, old: &[u8]) -> Vec<u8>;
}

/// `leader`, written by the engine that leads, under its lease. The key's create-revision is the
/// fence of everything that the leader writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderRecord {
    /// The machine whose engine leads.
    pub machine: MachineId,
    /// Its version of fleetd.
    pub version: String,
    /// The version of its engine.
    pub engine: u32,
    /// Since when it leads.
    pub since_ms: u64,
}

/// `thaw` and `accept-store`, written by the API: somebody has asked for it; the event counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedRecord {
    /// Who said so, as far as is known.
    pub by: String,
    /// When.
    pub at_ms: u64,
    /// Of `thaw`: the frozen machines that were away then.
    pub machines: Vec<MachineId>,
}

/// `revoked/<name>`, written by the API: the certificates of somebody, or a single one, are not
/// believed any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevokedRecord {
    /// Those that were issued until then.
    pub at_ms: u64,
    /// Who said so, as far as is known.
    pub by: String,
    /// Why, in their words.
    pub why: String,
}

/// `used-tokens/<id>`, written by the API in the moment in which the token is used, under a lease
/// that ends after the token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsedTokenRecord {
    /// When.
    pub at_ms: u64,
    /// Who has got a certificate for it.
    pub subject: String,
}

/// `certified/<id>`, written by the API that has signed a certificate for a machine: nobody else
/// becomes that machine with a token that is for whatever machine comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertifiedRecord {
    /// When it was signed.
    pub at_ms: u64,
    /// Until when it is valid.
    pub until_ms: u64,
}

/// `issuers/<id>`, written by a machine that issues certificates. Where its API is, it says as all
/// machines do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuerRecord {
    /// Since when.
    pub since_ms: u64,
}

/// `cluster`, written once by whoever comes first, and again by an engine that raises its version:
/// which cluster this store holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterRecord {
    /// A random id, so that a store that was exchanged is noticed.
    pub id: String,
    /// Version of the layout of keys; a fleetd that does not know it must not write.
    pub format: u32,
    /// The highest version of an engine that has led here: lower ones do not lead any more.
    pub engine: u32,
}

/// A private serde struct that stands for a record.
trait Shape<'a>: Serialize + Deserialize<'a> {
    /// The record that it stands for.
    type Record;
    /// The names of its fields, `v` included.
    const FIELDS: &'static [&'static str];
    /// How many bytes the document of this record will about need.
    fn size_hint(record: &Self::Record) -> usize;
    /// Borrows from the record.
    fn of(record: &'a Self::Record) -> Self;
    /// The record, or what is wrong with the document.
    fn record(self) -> Result<Self::Record, String>;
    /// The version that the document says.
    fn version(&mut self) -> &mut u32;
}

/// Implements [`Document`] for a record by its [`Shape`].
macro_rules! document {
    ($record:ty, $shape:ident) => {
        impl crate::store::codec::Document for $record {
            fn encode(&self) -> Vec<u8> {
                write(&$shape::of(self), $shape::size_hint(self))
            }

            fn decode(key: &str, bytes: &[u8]) -> Result<Self, crate::store::Error> {
                read::<$shape<'_>>(bytes).map_err(|why| crate::store::Error::Damaged {
                    key: key.to_owned(),
                    why,
                })
            }

            fn encode_over(&self, old: &[u8]) -> Vec<u8> {
                write_over($shape::of(self), $shape::size_hint(self), old)
            }
        }
    };
}
use document;

/// Serializes `shape`; there is nothing in a shape that can fail.
fn write(shape: &impl Serialize, size_hint: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_hint);
    serde_json::to_writer(&mut bytes, shape)
        .expect("plain fields with text keys can be written, and memory does not fail");
    bytes
}

/// Reads a document, and says what is wrong with it.
fn read<'a, S: Shape<'a>>(bytes: &'a [u8]) -> Result<S::Record, String> {
    read_shape::<S>(bytes)?.record()
}

/// Reads the fields of a document, as far as that can be said without their meaning.
fn read_shape<'a, S: Shape<'a>>(bytes: &'a [u8]) -> Result<S, String> {
    match bytes.trim_ascii_start().first() {
        None => return Err("it is empty".to_owned()),
        // serde would take a list for a struct.
        Some(first) if *first != b'{' => return Err("it is not an object".to_owned()),
        Some(_) => {}
    }
    let mut shape: S = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if *shape.version() < FORMAT {
        return Err(format!(
            "its version is {}, which never was",
            shape.version()
        ));
    }
    Ok(shape)
}

/// Serializes `shape` with the unknown fields of `old` after its own.
fn write_over<'a, S: Shape<'a>>(mut shape: S, size_hint: usize, old: &[u8]) -> Vec<u8> {
    let mut foreign = Foreign {
        known: S::FIELDS,
        version: 0,
        fields: Vec::new(),
    };
    // A damaged old document has nothing to keep.
    if foreign.collect(old).is_err() || foreign.fields.is_empty() {
        return write(&shape, size_hint);
    }
    // The document still carries fields of that version.
    let version = shape.version();
    *version = foreign.version.max(*version);
    let mut bytes = write(&shape, size_hint + old.len());
    bytes.pop();
    let tail = write(&foreign, old.len());
    bytes.push(b',');
    bytes.extend_from_slice(tail.get(1..).unwrap_or(b"}"));
    bytes
}

/// The fields of an old document that this version does not know, letter by letter.
struct Foreign<'a> {
    known: &'static [&'static str],
    version: u32,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Foreign<'a> {
    fn collect(&mut self, old: &'a [u8]) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(old);
        json.deserialize_map(self)?;
        json.end()
    }
}

impl<'de> Visitor<'de> for &mut Foreign<'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(BorrowedText(name)) = map.next_key()? {
            if name == "v" {
                self.version = map.next_value()?;
            } else if self.known.contains(&name.as_ref()) {
                map.next_value::<IgnoredAny>()?;
            } else {
                let value = map.next_value()?;
                self.fields.push((name, value));
            }
        }
        Ok(())
    }
}

impl Serialize for Foreign<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Text that borrows where nothing is escaped.
#[derive(serde::Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);
