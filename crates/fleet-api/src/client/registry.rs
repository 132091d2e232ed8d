//! Reading an original cluster's registry from etcd's v2 keys. Every request is a GET.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Call, Client, Error};
use crate::registry::{self, KeysAnswer, KeysError, Node, Registry};

/// etcd's code for a key that does not exist.
const KEY_NOT_FOUND: u32 = 100;

/// Why a registry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The request failed: another etcd of the cluster may answer.
    #[error("{}", .0.original_form())]
    Request(Error),
    /// etcd says no.
    #[error("etcd says no ({code}): {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its message.
        message: String,
    },
    /// An etcd without its v2 API, or something else.
    #[error("nothing there speaks etcd's v2 keys API")]
    NoKeys,
    /// No cluster was ever kept there.
    #[error("no fleet is kept in etcd under {0}")]
    Empty(String),
}

impl Client {
    /// Every request tells etcd who asks.
    pub fn basic_auth(self, user: &str, password: &str) -> Client {
        Client {
            authorization: Some(format!("Basic {}", base64(format!("{user}:{password}")))),
            ..self
        }
    }

    /// The registry of an original cluster, from the etcd that this client's endpoint is.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn registry(&self, prefix: &str) -> Result<Registry, RegistryError> {
        // A unit's contents are written before the unit, and never deleted: read in this order,
        // no unit lacks its own.
        let job = self.directory(prefix, "job").await?;
        let unit = self.directory(prefix, "unit").await?;
        let machines = self.directory(prefix, "machines").await?;
        if job.is_none() && unit.is_none() && machines.is_none() {
            return Err(RegistryError::Empty(prefix.to_owned()));
        }
        Ok(registry::read(
            job.as_ref(),
            unit.as_ref(),
            machines.as_ref(),
        ))
    }

    /// None: there is no such key.
    async fn directory(&self, prefix: &str, name: &str) -> Result<Option<Node>, RegistryError> {
        // As the whole of etcd has it, not as one member remembers it.
        let path = format!(
            "/v2/keys/{}/{name}?recursive=true&quorum=true",
            escape(prefix.trim_matches('/'))
        );
        match self.json::<KeysAnswer>(Call::get(path)).await {
            Ok(answer) => Ok(Some(answer.node)),
            Err(Error::Answer { code, body, .. }) => match serde_json::from_str(&body) {
                Ok(KeysError { code, .. }) if code == KEY_NOT_FOUND => Ok(None),
                Ok(KeysError { message, .. }) => Err(RegistryError::Refused { code, message }),
                Err(_) if code == 404 => Err(RegistryError::NoKeys),
                Err(_) => Err(RegistryError::Refused {
                    code,
                    message: body.chars().take(MAX_SHOWN).collect(),
                }),
            },
            Err(Error::Protocol { .. } | Error::NoV2) => Err(RegistryError::NoKeys),
            Err(error) => Err(RegistryError::Request(error)),
        }
    }
}

/// So much of an answer that is none of etcd's is shown.
const MAX_SHOWN: usize = 200;

/// A path of keys, its slashes kept.
fn escape(path: &str) -> impl std::fmt::Display + '_ {
    const SET: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'_')
        .remove(b'.');
    utf8_percent_encode(path, SET)
}

/// Standard base64, padded.
fn base64(text: String) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::with_capacity(text.len().div_ceil(3) * 4);
    for chunk in text.as_bytes().chunks(3) {
        let byte = |idx: usize| u32::from(chunk.get(idx).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit_idx in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * digit_idx) & 0x3f) as usize];
            let is_padding = digit_idx > chunk.len();
            encoded.push(if is_padding { '=' } else { char::from(digit) });
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_rfc_4648_has_it() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("root:pässwörd?", "cm9vdDpww6Rzc3fDtnJkPw=="),
        ] {
            assert_eq!(base64(text.to_owned()), encoded);
        }
    }

    #[test]
    fn keys_in_paths() {
        assert_eq!(escape("_coreos.com/fleet").to_string(), "_coreos.com/fleet");
        assert_eq!(escape("a b/c?").to_string(), "a%20b/c%3F");
    }
}
