//! Keepalives: one stream for each lease, kept open between the calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{Instant, timeout_at};

use super::answers;
use super::errors::Fault;
use super::links::{Effect, Line, Link};
use crate::store::{Error, LeaseId};

/// The open streams. One that is in use is taken out: when its caller gives up in between, the
/// stream is closed, because the answer still in it must not be taken for the next one's.
#[derive(Default)]
pub(super) struct Keepers {
    idle: Mutex<HashMap<LeaseId, Keeper>>,
}

struct Keeper {
    link: Arc<Link>,
    requests: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Keepers {
    /// Renews a lease once.
    pub(super) async fn keep_alive(
        &self,
        line: Line<'_>,
        lease: LeaseId,
    ) -> Result<Duration, Error> {
        let deadline = Instant::now() + line.timeout();
        let mut idle = self.idle().remove(&lease);
        loop {
            let reused = idle.is_some();
            let link = match &idle {
                Some(keeper) => Arc::clone(&keeper.link),
                None => line.link(deadline).await?,
            };
            // A renewal may be done twice.
            let until = line.until(Effect::Repeatable, deadline);
            let renewal = async {
                tokio::select! {
                    renewed = renew(idle.take(), Arc::clone(&link), lease) => Some(renewed),
                    () = link.was_cut() => None,
                }
            };
            let error = match timeout_at(until, renewal).await {
                Ok(Some(Ok((keeper, ttl)))) => {
                    if ttl.is_zero() {
                        return Err(Error::LeaseGone);
                    }
                    self.idle().insert(lease, keeper);
                    return Ok(ttl);
                }
                // An old stream may have ended with its connection: a new one says more.
                Ok(Some(Err(_))) | Ok(None) if reused => continue,
                Ok(Some(Err(error))) => match line.judge(&link, &error) {
                    (Fault::Answer, error) => return Err(error),
                    (_, error) => error,
                },
                Ok(None) | Err(_) => line.give_up(&link),
            };
            if until >= deadline {
                return Err(error);
            }
        }
    }

    /// Closes the stream of a lease that is not wanted any more.
    pub(super) fn forget(&self, lease: LeaseId) {
        self.idle().remove(&lease);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<LeaseId, Keeper>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends one renewal and waits for its answer; a time of zero says that the lease has ended.
async fn renew(
    keeper: Option<Keeper>,
    link: Arc<Link>,
    lease: LeaseId,
) -> Result<(Keeper, Duration), etcd_client::Error> {
    let mut keeper = match keeper {
        Some(keeper) => keeper,
        None => {
            let (requests, answers) = link.client().lease_client().keep_alive(lease.0).await?;
            Keeper {
                link,
                requests,
                answers,
            }
        }
    };
    // Opening a stream renews too, but its answer's time is not handed out by the client.
    keeper.requests.keep_alive().await?;
    match keeper.answers.message().await? {
        Some(answer) => Ok((keeper, answers::renewal(&answer, lease)?)),
        None => Err(etcd_client::Error::LeaseKeepAliveError(
            "the stream has ended".to_owned(),
        )),
    }
}

/// The longest time that etcd grants. A longer one could not be added to any clock.
const MAX_TTL: Duration = Duration::from_secs(9_000_000_000);

/// etcd's times are whole seconds; a lease that has ended has none.
pub(super) fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0)).min(MAX_TTL)
}
