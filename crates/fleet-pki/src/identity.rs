//! Who a certificate is of.

use std::fmt;
use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{CLOCK_SKEW_MS, Error, hex};

/// How the URI begins that says whose a certificate is.
const SCHEME: &str = "fleet://";

/// Longest name of a person, a role or a host; that of X.509 and of DNS.
const MAX_NAME_BYTES: usize = 64;

/// The first byte of the serial numbers that [`crate::Ca`] gives; six bytes follow that say when.
pub(crate) const SERIAL_MARK: u8 = 0x46;

/// The bytes of such a serial number.
pub(crate) const SERIAL_BYTES: usize = 16;

/// A machine or a person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// The machine with this id.
    Machine(String),
    /// A person, or what works for one.
    User(String),
}

impl Subject {
    /// As [`fmt::Display`] writes it: `machine:<id>` or `user:<name>`.
    pub fn parse(text: &str) -> Option<Subject> {
        match text.split_once(':')? {
            ("machine", id) => Some(Subject::Machine(id.to_owned())),
            ("user", name) => Some(Subject::User(name.to_owned())),
            _ => None,
        }
    }

    /// The bare name.
    pub fn name(&self) -> &str {
        match self {
            Subject::Machine(name) | Subject::User(name) => name,
        }
    }

    /// As it stands in certificates.
    pub(crate) fn uri(&self) -> String {
        match self {
            Subject::Machine(id) => format!("{SCHEME}machine/{id}"),
            Subject::User(name) => format!("{SCHEME}user/{name}"),
        }
    }

    fn from_uri(uri: &str) -> Option<Subject> {
        match uri.strip_prefix(SCHEME)?.split_once('/')? {
            ("machine", id) if is_machine_id(id) => Some(Subject::Machine(id.to_owned())),
            ("user", name) if check_name("user", name).is_ok() => {
                Some(Subject::User(name.to_owned()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Machine(id) => write!(f, "machine:{id}"),
            Subject::User(name) => write!(f, "user:{name}"),
        }
    }
}

/// Whom a certificate speaks of. It says nothing about whether the certificate is to be believed:
/// TLS has verified that before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Whose it is.
    pub subject: Subject,
    /// The roles that it carries (its organizations), in order.
    pub roles: Vec<String>,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// When it was signed; of a certificate that another CA than fleet's made, from when it is valid.
    pub issued_ms: u64,
    /// From when it is valid.
    pub valid_from_ms: u64,
    /// Until when.
    pub expires_ms: u64,
    /// The host names and addresses it is good for, those of a server.
    pub names: Vec<String>,
}

impl Identity {
    /// Reads a certificate (DER). One without a `fleet://` URI is that of the user in its common
    /// name: it comes from a CA of the operator's own.
    ///
    /// # Errors
    /// It cannot be read, or names nobody.
    pub fn read(der: &[u8]) -> Result<Identity, Error> {
        let bad = |why: &dyn fmt::Display| Error::BadCertificate(why.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| bad(&error))?;
        let text =
            |values: &mut dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>>| {
                values
                    .filter_map(|value| value.as_str().ok().map(str::to_owned))
                    .collect::<Vec<String>>()
            };
        let subject = certificate.subject();
        let common = text(&mut subject.iter_common_name());
        let roles = text(&mut subject.iter_organization());
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| bad(&error))?;
        let (mut uris, mut hosts) = (Vec::new(), Vec::new());
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) if uri.starts_with(SCHEME) => uris.push(*uri),
                GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => hosts.extend(address(bytes)),
                _ => {}
            }
        }
        let subject = match (&uris[..], &common[..]) {
            ([uri], _) => Subject::from_uri(uri)
                .ok_or_else(|| bad(&format!("{uri:?} names neither a machine nor a user")))?,
            ([], [name]) => {
                check_name("user", name)?;
                Subject::User(name.clone())
            }
            ([], _) => return Err(Error::Nameless),
            _ => return Err(bad(&"it has several fleet: URIs")),
        };
        let milliseconds = |seconds: i64| u64::try_from(seconds).unwrap_or(0) * 1_000;
        let validity = certificate.validity();
        let valid_from_ms = milliseconds(validity.not_before.timestamp());
        let serial = certificate.raw_serial();
        Ok(Identity {
            subject,
            roles,
            serial: hex(serial),
            issued_ms: issued(serial, valid_from_ms),
            valid_from_ms,
            expires_ms: milliseconds(validity.not_after.timestamp()),
            names: hosts,
        })
    }
}

impl Identity {
    /// The names without a machine's own id, which stands there by itself.
    pub fn hosts(&self) -> Vec<String> {
        let names = self.names.iter();
        names
            .filter(|name| *name != self.subject.name())
            .cloned()
            .collect()
    }
}

/// When a certificate was signed: that is in its serial number if it is one of fleet's.
fn issued(serial: &[u8], valid_from_ms: u64) -> u64 {
    let [SERIAL_MARK, a, b, c, d, e, f, ..] = *serial else {
        return valid_from_ms;
    };
    let ms = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let fits = serial.len() == SERIAL_BYTES
        && (valid_from_ms..=valid_from_ms + CLOCK_SKEW_MS + 1_000).contains(&ms);
    if fits { ms } else { valid_from_ms }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| v6()).ok().map(|ip| ip.to_string())
}

/// machine-id(5): what alone may be a machine's id.
pub(crate) fn is_machine_id(id: &str) -> bool {
    id.len() == 32
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether this may be a machine's id.
///
/// # Errors
/// What it is.
pub fn check_machine_id(id: &str) -> Result<(), Error> {
    match is_machine_id(id) {
        true => Ok(()),
        false => Err(Error::BadName(format!(
            "{id:?} is no machine id: 32 hexadecimal digits, as in /etc/machine-id"
        ))),
    }
}

/// Whether a user (`what` is "user") or a role may be called so.
///
/// # Errors
/// What may be in a name.
pub fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::BadName(format!(
        "{name:?} cannot be the name of a {what}: use 1 to {MAX_NAME_BYTES} letters, digits, and . _ @ -"
    )))
}

/// Whether a machine's certificate may be for this host name or address.
///
/// # Errors
/// Why not.
pub fn check_dns_name(name: &str) -> Result<(), Error> {
    let refused = |why: &str| Err(Error::BadName(format!("{name:?} is no host name: {why}")));
    if name.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if name.is_empty() || name.len() > 253 {
        return refused("it has 1 to 253 characters");
    }
    if name.contains('*') {
        return refused("a machine's certificate is for that machine alone, * would be for many");
    }
    if is_machine_id(name) {
        return refused("a machine's id stands in its certificate by itself, and no other one may");
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fine);
    match name.split('.').all(is_label) {
        true => Ok(()),
        false => refused("use letters, digits, - and dots"),
    }
}
