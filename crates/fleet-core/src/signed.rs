//! Signed unit files: what is signed, and where the signature stands. Who signs and who verifies is
//! not decided here.
//!
//! A signature stands in the unit file itself, so that it goes wherever the file goes:
//!
//! ```text
//! [X-Fleet]
//! Signature=ed25519:<the key's id>:<128 hexadecimal digits>
//! ```
//!
//! It covers the unit's name and all of the file but the signatures. The signature of a template
//! covers its instances: their file is the template's.

use std::fmt;

use crate::name::UnitName;
use crate::requirements::SECTION;
use crate::unit_file::{UnitFile, UnitOption};

/// The key of `[X-Fleet]` that signatures stand in.
pub const SIGNATURE: &str = "Signature";

/// What is signed is told apart from whatever else the key may sign.
const CONTEXT: &str = "fleet unit 1";

/// The only kind of signature.
const KIND: &str = "ed25519";

/// Hexadecimal digits of a key's id: the beginning of the key.
const ID_DIGITS: usize = 16;

/// More signatures of one file help nobody.
pub const MAX_SIGNATURES: usize = 8;

/// What stands in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// The id of the key that made it.
    pub key: String,
    /// The signature.
    pub bytes: [u8; 64],
}

/// A key that signatures are verified with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PublicKey(pub [u8; 32]);

/// What stands where a signature or a key should, and is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// A signature.
    #[error(
        "its Signature= is none: it is ed25519:<16 hexadecimal digits>:<128 of them>, as fleetctl \
         sign writes it"
    )]
    Signature,
    /// Too many.
    #[error("it has more than {MAX_SIGNATURES} signatures")]
    TooMany,
    /// A public key.
    #[error(
        "it is no public key: write \"ed25519 <64 hexadecimal digits>\", as fleetctl keygen does"
    )]
    PublicKey,
}

/// The text that is signed: the name, and the serial form without signatures.
pub fn message(name: &str, file: &UnitFile) -> String {
    format!("{CONTEXT}\n{name}\n{}", without_signatures(file).to_text())
}

/// The names under which a file of this unit may be signed: its own, and its template's.
pub fn names(name: &UnitName) -> Vec<String> {
    let template = name.template().filter(|template| template != name);
    std::iter::once(name.to_string())
        .chain(template.map(|template| template.to_string()))
        .collect()
}

/// The file without its signatures.
pub fn without_signatures(file: &UnitFile) -> UnitFile {
    let options = file.options().iter().filter(|option| !is_signature(option));
    UnitFile::from_options(options.cloned().collect())
}

/// The signatures of a file.
///
/// # Errors
/// One is none. It is not passed over: what stands there is covered by no signature, and systemd reads
/// the file by rules of its own.
pub fn signatures(file: &UnitFile) -> Result<Vec<Signature>, Malformed> {
    let found = file.options().iter().filter(|option| is_signature(option));
    let signatures = found
        .map(|option| Signature::parse(&option.value).ok_or(Malformed::Signature))
        .collect::<Result<Vec<_>, _>>()?;
    match signatures.len() > MAX_SIGNATURES {
        true => Err(Malformed::TooMany),
        false => Ok(signatures),
    }
}

/// The file with this signature instead of another one by the same key.
pub fn with_signature(file: &UnitFile, signature: &Signature) -> UnitFile {
    let is_replaced = |option: &UnitOption| {
        is_signature(option)
            && Signature::parse(&option.value).is_none_or(|old| old.key == signature.key)
    };
    let kept = file.options().iter().filter(|option| !is_replaced(option));
    let added = UnitOption::new(SECTION, SIGNATURE, signature.to_string());
    UnitFile::from_options(kept.cloned().chain([added]).collect())
}

fn is_signature(option: &UnitOption) -> bool {
    option.section == SECTION && option.name == SIGNATURE
}

impl Signature {
    fn parse(value: &str) -> Option<Signature> {
        let mut parts = value.split(':');
        let (kind, key, bytes) = (parts.next()?, parts.next()?, parts.next()?);
        let is_id = key.len() == ID_DIGITS && key.bytes().all(is_digit);
        let is_whole = parts.next().is_none() && kind == KIND && is_id;
        is_whole.then(|| {
            Some(Signature {
                key: key.to_owned(),
                bytes: from_hex(bytes)?.try_into().ok()?,
            })
        })?
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND}:{}:{}", self.key, to_hex(&self.bytes))
    }
}

impl PublicKey {
    /// Its id, which signatures name.
    pub fn id(&self) -> String {
        let mut id = to_hex(&self.0);
        id.truncate(ID_DIGITS);
        id
    }

    /// Reads the line of a key's file: the kind, the key, and perhaps a remark.
    ///
    /// # Errors
    /// It is no key.
    pub fn parse(line: &str) -> Result<PublicKey, Malformed> {
        let mut words = line.split_whitespace();
        let is_kind = words.next() == Some(KIND);
        let key = words.next().and_then(from_hex);
        let key = key.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        key.filter(|_| is_kind)
            .map(PublicKey)
            .ok_or(Malformed::PublicKey)
    }
}

/// As [`PublicKey::parse`] reads it.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND} {}", to_hex(&self.0))
    }
}

/// Lower-case digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reverse of [`to_hex`].
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().copied().all(is_digit) {
        return None;
    }
    let value = |digit: u8| match digit {
        b'a'..=b'f' => digit - b'a' + 10,
        digit => digit - b'0',
    };
    let pairs = digits.chunks_exact(2);
    Some(
        pairs
            .map(|pair| value(pair[0]) << 4 | value(pair[1]))
            .collect(),
    )
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "[Service]\nExecStart=/bin/a\n\n[X-Fleet]\nGlobal=yes\n";

    fn file(text: &str) -> UnitFile {
        UnitFile::parse(text).unwrap()
    }

    fn signature(key: &str, byte: u8) -> Signature {
        Signature {
            key: key.repeat(16),
            bytes: [byte; 64],
        }
    }

    #[test]
    fn a_signature_covers_name_and_contents_and_no_signature() {
        let unit = file(UNIT);
        let signed = with_signature(&unit, &signature("a", 1));
        let message_of = |name: &str, file: &UnitFile| message(name, file);
        assert_eq!(
            message_of("a.service", &signed),
            message_of("a.service", &unit)
        );
        assert_eq!(
            message_of("a.service", &unit),
            format!("fleet unit 1\na.service\n{UNIT}")
        );
        assert_ne!(
            message_of("b.service", &unit),
            message_of("a.service", &unit)
        );
        let other = file(&UNIT.replace("yes", "no"));
        assert_ne!(
            message_of("a.service", &other),
            message_of("a.service", &unit)
        );
    }

    #[test]
    fn each_key_signs_once_and_stays_beside_the_others() {
        let mut unit = file("[Service]\nExecStart=/bin/a\n");
        for (key, byte) in [("a", 1), ("b", 2), ("a", 3)] {
            unit = with_signature(&unit, &signature(key, byte));
        }
        let found = signatures(&file(&unit.to_text())).unwrap();
        assert_eq!(found, [signature("b", 2), signature("a", 3)]);
        assert_eq!(
            without_signatures(&unit).to_text(),
            "[Service]\nExecStart=/bin/a\n"
        );
    }

    /// systemd must find nothing in it, whatever its own rules are.
    #[test]
    fn what_is_no_signature_to_the_letter_is_refused() {
        let whole = signature("a", 7).to_string();
        for value in [
            "",
            "x",
            &whole[..whole.len() - 1],
            &format!("{whole}00"),
            &format!("{whole} x"),
            &format!("{whole}:x"),
            &whole.replace("aaaa", "AAAA"),
            &whole.replace("ed25519", "rsa"),
            &format!("{whole}\\\n[Service]\\\nExecStart=/bin/evil"),
        ] {
            let options = vec![UnitOption::new(SECTION, SIGNATURE, value)];
            let file = UnitFile::from_options(options);
            assert_eq!(signatures(&file), Err(Malformed::Signature), "{value:?}");
        }
        let mut many = file(UNIT);
        for key in "0123456789abcdef".chars().take(MAX_SIGNATURES + 1) {
            many = with_signature(&many, &signature(&key.to_string(), 1));
        }
        assert_eq!(signatures(&many), Err(Malformed::TooMany));
        // Another section, or another key, is contents.
        let other = file("[Service]\nSignature=x\n[X-Fleet]\nsignature=y\n");
        assert_eq!(signatures(&other), Ok(Vec::new()));
        assert!(message("a.service", &other).contains("Signature=x"));
    }

    #[test]
    fn keys_are_written_as_they_are_read() {
        let key = PublicKey([0xab; 32]);
        assert_eq!(key.id(), "ab".repeat(8));
        assert_eq!(PublicKey::parse(&format!("{key} alice\n")), Ok(key));
        for bad in ["", "ed25519", "ed25519 abc", "rsa abab", "ed25519 ABAB"] {
            assert_eq!(PublicKey::parse(bad), Err(Malformed::PublicKey), "{bad}");
        }
        assert_eq!(from_hex("0fa"), None);
        assert_eq!(from_hex(&to_hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
    }

    #[test]
    fn an_instance_may_be_signed_as_its_template() {
        let names_of = |name: &str| names(&UnitName::parse(name).unwrap());
        assert_eq!(names_of("web@1.service"), ["web@1.service", "web@.service"]);
        assert_eq!(names_of("web.service"), ["web.service"]);
        assert_eq!(names_of("web@.service"), ["web@.service"]);
    }
}
