//! Where the pages of v1's unit listing begin.
//!
//! v1 asks for pages by number. Whoever has read page 3 asks for page 4 next; remembering the
//! last name of page 3 saves reading pages 1 to 3 again, and no unit is missed or doubled when
//! others come and go meanwhile. The memory is bounded, short, and only ever a short cut.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Clients ask for the next page at once; what is older is not theirs.
const MAX_AGE: Duration = Duration::from_secs(10);

/// 4096 pages of 100 units: beyond that, pages are counted from the first.
const MAX_BOUNDARIES: usize = 4_096;

/// The last name of the page before, for pages that are asked for next.
#[derive(Default)]
pub(crate) struct Boundaries {
    after: Mutex<BTreeMap<u16, (String, Instant)>>,
}

impl Boundaries {
    /// The name after which the page begins.
    pub(crate) fn get(&self, page: u16) -> Option<String> {
        let after = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, since) = after.get(&page)?;
        (since.elapsed() < MAX_AGE).then(|| name.clone())
    }

    /// Remembers where a page begins.
    pub(crate) fn set(&self, page: u16, name: &str) {
        let mut after = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        if after.len() >= MAX_BOUNDARIES && !after.contains_key(&page) {
            after.retain(|_, (_, since)| since.elapsed() < MAX_AGE);
            if after.len() >= MAX_BOUNDARIES {
                return;
            }
        }
        after.insert(page, (name.to_owned(), Instant::now()));
    }
}
