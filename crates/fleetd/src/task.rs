//! How fleetd's own tasks come to life, and how one that takes long lets the others work.
//!
//! All of fleetd but its leases is done by one worker thread: with two of them each message woke the
//! other one, which cost more than they could do side by side (BENCHMARKS.md, "One start"). So nothing
//! may keep the worker for long. What must, since it grows with the cluster, says so beforehand.

use tokio::runtime::{Handle, RuntimeFlavor};

// The simulator stops and kills tasks with their process.
#[cfg(fleet_sim)]
pub(crate) use crate::sim::spawn;
#[cfg(not(fleet_sim))]
pub(crate) use tokio::spawn;

/// Work on more pieces than this (a unit decided upon, a document read: some 10 to 30 µs each) takes
/// longer than another thread takes to come to life.
pub(crate) const LONG: usize = 256;

/// Does some work on so many pieces. If they are more than [`LONG`], another thread takes over all other
/// tasks meanwhile.
pub(crate) fn maybe_long<T>(n_pieces: usize, work: impl FnOnce() -> T) -> T {
    // On the one thread of the simulator, and of most tests, there is nobody to hand over to.
    let can_hand_over = || {
        Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
    };
    match n_pieces > LONG && can_hand_over() {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A plan for a whole cluster holds up neither the agent nor the API.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_one_worker_goes_on_while_a_task_takes_long() {
        let (say, said) = mpsc::channel();
        let long = tokio::spawn(async move {
            // It lasts until another task has had its turn.
            maybe_long(LONG + 1, || said.recv_timeout(Duration::from_secs(60)))
        });
        let other = tokio::spawn(async move { say.send("another task") });
        assert_eq!(long.await.unwrap(), Ok("another task"));
        other.await.unwrap().unwrap();
    }

    /// Where there is but one thread it is done there.
    #[tokio::test]
    async fn a_runtime_of_one_thread_does_it_itself() {
        let here = std::thread::current().id();
        assert_eq!(maybe_long(LONG + 1, || std::thread::current().id()), here);
    }
}
