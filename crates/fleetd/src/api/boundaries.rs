//! Where the pages of v1's listings begin.
//!
//! v1 asks for pages by number. Whoever has read page 3 asks for page 4 next; remembering the
//! last item of page 3, and the revision at which it was read, makes a client's listing one
//! snapshot: nothing is missed or doubled when others come and go meanwhile, and pages 1 to 3
//! are not read again. The memory is bounded, short, and only ever a short cut.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Revision;

/// Clients ask for the next page at once; what is older is not theirs.
const MAX_AGE: Duration = Duration::from_secs(10);

/// 4096 pages, each for its client and for anybody: beyond that, pages are counted from the
/// first.
const MAX_BOUNDARIES: usize = 8_192;

/// Which page of which listing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    /// Who lists. A client that opens a connection for each page may not be known again.
    pub(crate) client: String,
    /// What is listed, filters included.
    pub(crate) listing: String,
    pub(crate) page: u16,
}

/// Where a page begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Boundary {
    /// The last item of the page before.
    pub(crate) after: String,
    /// The point at which that page was read. None: it was another client's.
    pub(crate) revision: Option<Revision>,
}

/// The boundaries of pages that are asked for next.
#[derive(Default)]
pub(crate) struct Boundaries {
    known: Mutex<BTreeMap<Place, (Boundary, Instant)>>,
}

impl Boundaries {
    /// Where the page begins: for this client, else where it last began for anybody.
    pub(crate) fn get(&self, place: &Place) -> Option<Boundary> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |place: &Place| {
            let (boundary, since) = known.get(place)?;
            (since.elapsed() < MAX_AGE).then(|| boundary.clone())
        };
        fresh(place).or_else(|| fresh(&place.for_anybody()))
    }

    /// Remembers where a page begins.
    pub(crate) fn set(&self, place: Place, after: &str, revision: Revision) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + 2 > MAX_BOUNDARIES {
            known.retain(|_, (_, since)| since.elapsed() < MAX_AGE);
            if known.len() + 2 > MAX_BOUNDARIES {
                return;
            }
        }
        let now = Instant::now();
        let boundary = |revision| Boundary {
            after: after.to_owned(),
            revision,
        };
        known.insert(place.for_anybody(), (boundary(None), now));
        if !place.client.is_empty() {
            known.insert(place, (boundary(Some(revision)), now));
        }
    }
}

impl Place {
    fn for_anybody(&self) -> Place {
        Place {
            client: String::new(),
            ..self.clone()
        }
    }
}
