//! Where destroyed units rest: their tombstones stay for a while under leases, with the ids of the
//! requests that were carried out. A request that was repeated, or a write that was held up on its
//! way, would otherwise create the unit anew when it arrives after the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::intake::Tombstones;
use crate::store::{Error, LeaseId, Store};

/// Tombstones rest at least so long. A repeated request comes within seconds; twice the time that
/// any client waits for an answer is far more.
const REST: Duration = Duration::from_secs(120);

/// Burials of so much time share a lease, so that destroying units one by one needs few of them.
const SHARED_FOR: Duration = Duration::from_secs(10);

/// At most so many tombstones share a lease: all of them are removed at one revision, and an event
/// stream carries that in one message.
const MAX_SHARING: usize = 1_000;

/// The leases under which tombstones rest.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    lease: LeaseId,
    since: Instant,
    n_sharing: usize,
}

impl Graves {
    /// Leases for the burials of a plan: each serves [`MAX_SHARING`] of them.
    pub(crate) async fn dig(
        &mut self,
        store: &Arc<dyn Store>,
        n_burials: usize,
    ) -> Result<Vec<LeaseId>, Error> {
        if n_burials == 0 {
            return Ok(Vec::new());
        }
        if let Some(current) = &mut self.current
            && current.since.elapsed() < SHARED_FOR
            && current.n_sharing + n_burials <= MAX_SHARING
        {
            current.n_sharing += n_burials;
            return Ok(vec![current.lease]);
        }
        let mut leases = Vec::new();
        for first in (0..n_burials).step_by(MAX_SHARING) {
            let since = Instant::now();
            let (lease, _) = store.grant(REST + SHARED_FOR).await?;
            leases.push(lease);
            self.current = Some(Current {
                lease,
                since,
                n_sharing: MAX_SHARING.min(n_burials - first),
            });
        }
        Ok(leases)
    }
}

/// What the transactions of one plan need to bury units.
pub(crate) struct Burial<'a> {
    tombstones: &'a Tombstones,
    leases: Vec<LeaseId>,
    n_buried: usize,
}

impl<'a> Burial<'a> {
    /// With the leases that were dug for this plan.
    pub(crate) fn new(tombstones: &'a Tombstones, leases: Vec<LeaseId>) -> Burial<'a> {
        Burial {
            tombstones,
            leases,
            n_buried: 0,
        }
    }

    /// The tombstones as their users have left them.
    pub(crate) fn tombstones(&self) -> &'a Tombstones {
        self.tombstones
    }

    /// The lease for the next unit.
    pub(crate) fn next_lease(&mut self) -> Option<LeaseId> {
        let lease = self.leases.get(self.n_buried / MAX_SHARING).copied();
        self.n_buried += 1;
        lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn burials_share_leases_for_a_while_and_not_too_many_of_them_one() {
        let store: Arc<dyn Store> = MemoryStore::new();
        let mut graves = Graves::default();
        assert_eq!(graves.dig(&store, 0).await.unwrap(), []);
        let first = graves.dig(&store, 1).await.unwrap();
        assert_eq!(first.len(), 1);
        assert_eq!(graves.dig(&store, MAX_SHARING - 1).await.unwrap(), first);
        let full = graves.dig(&store, 1).await.unwrap();
        assert_ne!(full, first);
        tokio::time::advance(SHARED_FOR).await;
        let later = graves.dig(&store, 1).await.unwrap();
        assert_ne!(later, full);
        let many = graves.dig(&store, 2 * MAX_SHARING + 1).await.unwrap();
        assert_eq!(many.len(), 3);
        let none = Tombstones::new();
        let mut burial = Burial::new(&none, many.clone());
        let used: Vec<_> = (0..=2 * MAX_SHARING)
            .map(|_| burial.next_lease().unwrap())
            .collect();
        let sharing = |lease| used.iter().filter(|used| **used == lease).count();
        assert_eq!(
            many.iter().map(|lease| sharing(*lease)).collect::<Vec<_>>(),
            [MAX_SHARING, MAX_SHARING, 1]
        );
        // The last of many goes on to be shared.
        assert_eq!(graves.dig(&store, 1).await.unwrap(), many[2..]);
    }
}
