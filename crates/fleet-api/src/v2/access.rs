//! Who asks, and what that one may do.

use serde::{Deserialize, Serialize};

/// Who asks, and what that one may do on the machine that is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Whoami {
    /// As in events and wishes: `uid 1000`, an address, `cert alice`.
    pub who: String,
    /// The roles that it has.
    pub roles: Vec<String>,
    /// What it may do to some units or machines at least.
    pub verbs: Vec<String>,
    /// Where a verb is asked about: whether it may be done to what is asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// Why not, and which role would allow it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
