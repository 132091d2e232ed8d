//! Who belongs to the cluster: tokens to join with, certificates, revocations.

use serde::{Deserialize, Serialize};

/// What a newcomer without a certificate names in its TLS hello (ALPN) to be let in to
/// `POST /join`, and to nothing else.
pub const JOIN_PROTOCOL: &[u8] = b"fleet-join/1";

/// The role of machines, in tokens and policies.
pub const ROLE_MACHINE: &str = "machine";

/// How long a join token may be used, in seconds, unless somebody says otherwise: an hour to get to
/// the other computer.
pub const TOKEN_TTL_S: u64 = 3_600;

/// The longest time: what is handed out for longer is forgotten, and found.
pub const MAX_TOKEN_TTL_S: u64 = 7 * 24 * 3_600;

/// Somebody is to be let in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinTokenRequest {
    /// [`ROLE_MACHINE`], or the role of a user.
    pub role: String,
    /// The user's name; of a machine, its id if only that one may join.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Host names and addresses under which a machine is reached besides the one it joins from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// How long it may be used; 0: [`TOKEN_TTL_S`].
    #[serde(skip_serializing_if = "is_zero")]
    pub ttl_s: u64,
}

/// A token. Whoever has it may join once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinToken {
    /// As it is shown to the machine that lets in.
    pub token: String,
    /// Until when, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Where it may be shown (`https://…`), as far as is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// A certificate is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateRequest {
    /// A token, to join; empty: another certificate for whoever shows one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// The id of a machine that joins.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// PKCS #10 (PEM). Of it the key counts, and that it is signed by it.
    pub request: String,
}

/// A certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateAnswer {
    /// PEM.
    pub certificate: String,
    /// The CAs to believe (PEM).
    pub ca: String,
    /// Whose it is: `machine:<id>` or `user:<name>`.
    pub subject: String,
    /// Until when, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Somebody is not to be believed any more.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevokeRequest {
    /// `user:<name>`, `machine:<id>` or `serial:<hex>`.
    pub name: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// All that are not believed any more.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevocationListing {
    /// In byte order of their names.
    pub revocations: Vec<RevocationView>,
}

/// Certificates that are not believed any more.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevocationView {
    /// Whose: `user:<name>`, `machine:<id>` or `serial:<hex>`.
    pub name: String,
    /// Those that were issued until then, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who said so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
