//! Join tokens that were used here. The store says so for all machines; this is so that an emptied
//! store does not make a used token good again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fleet_pki::files;
use tracing::warn;

/// Its file, below the state directory.
const FILE: &str = "used-tokens";

/// More joins within a token's longest life are none of people; then the store alone remembers.
const MAX_USED: usize = 10_000;

/// Tokens, and when they end.
pub(crate) struct Used {
    tokens: Mutex<BTreeMap<String, u64>>,
    file: Option<PathBuf>,
}

impl Used {
    /// What was known before, from the file in this directory; None: nothing is kept.
    pub(super) fn open(state: Option<&Path>) -> Used {
        let file = state.map(|state| state.join(FILE));
        let text = file.as_ref().map(std::fs::read_to_string);
        let text = text.and_then(Result::ok).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        let tokens = pairs
            .filter_map(|(id, until)| Some((id.to_owned(), until.parse().ok()?)))
            .take(MAX_USED);
        Used {
            tokens: Mutex::new(tokens.collect()),
            file,
        }
    }

    /// Whether it was used.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// It is used now; it ends by itself at `until_ms`.
    pub(crate) fn note(&self, id: &str, until_ms: u64, now_ms: u64) {
        let text = {
            let mut tokens = self.lock();
            tokens.retain(|_, until_ms| *until_ms > now_ms);
            if tokens.len() < MAX_USED {
                tokens.insert(id.to_owned(), until_ms);
            }
            let lines = tokens.iter();
            lines
                .map(|(id, until_ms)| format!("{id} {until_ms}\n"))
                .collect::<String>()
        };
        let Some(file) = &self.file else { return };
        let written = file
            .parent()
            .map_or(Ok(()), files::directory)
            .and_then(|()| files::replace(file, &text));
        if let Err(error) = written {
            warn!(%error, "that a token was used could not be written down: the store remembers it");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
