//! The hash of a unit file: SHA-1 of its serial form, as the original computes it.
//!
//! "The same unit?" means "the same hash" everywhere. The unit's name is not part of it.

use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};

/// SHA-1 of a unit file's serial form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitHash(pub [u8; 20]);

impl UnitHash {
    /// The hash of `text`, which must be a serial form.
    pub fn of(text: &[u8]) -> UnitHash {
        UnitHash(Sha1::digest(text).into())
    }

    /// The first seven hex digits, for people.
    pub fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(SHORT_DIGITS);
        hex
    }
}

/// What the original's listings show of a hash.
const SHORT_DIGITS: usize = 7;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for UnitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A listing has two of them a unit: formatted byte by byte they were a tenth of its time.
        let mut hex = [0; 2 * 20];
        for (digits, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            digits[0] = DIGITS[usize::from(byte >> 4)];
            digits[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&hex).unwrap_or_default())
    }
}

impl fmt::Debug for UnitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a unit hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a unit hash (40 hexadecimal digits): {}", crate::text::Quoted(.0))]
pub struct HashError(pub String);

impl FromStr for UnitHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<UnitHash, HashError> {
        let error = || HashError(text.to_owned());
        let mut bytes = [0; 20];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(error());
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(UnitHash(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let hex = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        let hash = UnitHash::of(b"");
        assert_eq!(hash.to_string(), hex);
        assert_eq!(format!("{hash:?}"), hex);
        assert_eq!(hash.short(), "da39a3e");
        assert_eq!(hex.parse(), Ok(hash));
        assert_eq!(hex.to_uppercase().parse(), Ok(hash));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "da39a3e", "+a39a3ee5e6b4b0d3255bfef95601890afd80709"] {
            assert_eq!(text.parse::<UnitHash>(), Err(HashError(text.to_owned())));
        }
        let long_é = "é".repeat(20);
        assert_eq!(
            long_é.parse::<UnitHash>(),
            Err(HashError(long_é.to_owned()))
        );
    }
}
