//! The certificates of a cluster: its CA, what the CA signs for machines and people, requests to
//! it, and the tokens by which a newcomer may ask.
//!
//! No network, no store and no clock: times are arguments, in milliseconds since the Unix epoch.
//! Whoever serves or asks is in fleetd and fleetctl.

mod ca;
pub mod files;
mod identity;
mod token;

pub use ca::{Ca, Fingerprint, Grant, KeyAndRequest, fingerprint};
pub use identity::{Identity, Subject, check_dns_name, check_machine_id, check_name};
pub use token::{Claims, Token};

/// The role of people who may do everything.
pub const ADMIN: &str = "admin";

/// How long a machine's certificate is valid: a long weekend without any machine that issues, and
/// a half of it left to repair that, since it is renewed when half of it is over.
pub const MACHINE_LIFETIME_MS: u64 = 7 * DAY_MS;

/// How long a person's certificate is valid. People join anew for the next one.
pub const USER_LIFETIME_MS: u64 = 90 * DAY_MS;

/// How long the CA itself is valid.
pub const CA_LIFETIME_MS: u64 = 3_650 * DAY_MS;

/// Clocks of machines may differ by so much: a certificate is valid from so long before it is
/// signed.
pub const CLOCK_SKEW_MS: u64 = 5 * 60 * 1_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Failures, by what is wrong with what was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate, or one that cannot be read.
    #[error("it is no certificate that can be read: {0}")]
    BadCertificate(String),
    /// A certificate that names nobody.
    #[error("the certificate names nobody: it has neither a fleet: URI nor a common name")]
    Nameless,
    /// The CA's key belongs to another certificate.
    #[error("the key is not that of the CA's certificate")]
    OtherKey,
    /// A key that cannot be read.
    #[error("it is no private key that can be read: {0}")]
    BadKey(String),
    /// A request that cannot be read, or is not signed by its own key.
    #[error("the certificate request cannot be used: {0}")]
    BadRequest(String),
    /// A name that cannot stand in a certificate.
    #[error("{0}")]
    BadName(String),
    /// Text that is no token.
    #[error(
        "this is no join token: it begins with \"fleet1-\" and is made by `fleetctl join-token`"
    )]
    NoToken,
    /// A token of another CA, or one that somebody has changed.
    #[error("this join token was not made by this cluster's CA, or it was changed")]
    OtherToken,
    /// Too late.
    #[error("this join token has expired: make another one with `fleetctl join-token`")]
    LateToken,
    /// No random numbers, or no signature.
    #[error("cryptography failed: {0}")]
    Crypto(String),
}

/// So many random bytes.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Crypto("the kernel gives no random numbers".to_owned()))?;
    Ok(bytes)
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
