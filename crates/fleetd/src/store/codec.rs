//! Stored documents: records as JSON bytes and back. Together with fleet-api the only place
//! that knows JSON.

use super::Error;

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
