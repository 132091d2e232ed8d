//! fleet's wire contract: the JSON of API v1 and v2, errors and paging; with the feature
//! `client`, an HTTP client over any byte stream.

pub mod body;
#[cfg(feature = "client")]
pub mod client;
pub mod discovery;
pub mod dump;
pub mod error;
mod go_json;
pub mod openapi;
pub mod paging;
pub mod registry;
pub mod v1;
pub mod v2;

/// Header that names a request in logs and answers. A client may choose it; every error
/// carries it.
pub const REQUEST_ID_HEADER: &str = "X-Request-Id";

/// Header of what one fleetd asks of another on behalf of somebody: the id of the machine that asks. It
/// is answered there, and goes no further.
pub const HOP_HEADER: &str = "X-Fleet-Hop";

/// Longest request id that is taken from a client; others are replaced.
pub const MAX_REQUEST_ID_BYTES: usize = 64;
