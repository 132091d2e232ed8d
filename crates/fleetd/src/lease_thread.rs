//! The thread on which leases are kept alive.
//!
//! A renewal must not wait behind a plan for a whole cluster, and a cluster that is idle does nothing
//! else: on the threads that do the work, each renewal would wake one of them by way of another. So the
//! timers of the leases, and the connection to etcd that is theirs, have a thread to themselves.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::task;

/// Where leases are kept alive. The default is among everything else: tests, and the simulator.
#[derive(Clone, Debug, Default)]
pub struct LeaseThread(Option<Arc<Running>>);

#[derive(Debug)]
struct Running {
    handle: Handle,
    /// The thread ends when nobody has it any more.
    _end: oneshot::Sender<()>,
}

impl LeaseThread {
    /// A thread of its own, until the last copy of this value is gone.
    ///
    /// # Errors
    /// The kernel gives no thread, or no file descriptors for its runtime.
    pub fn start() -> std::io::Result<LeaseThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("fleetd-leases".to_owned())
            .spawn(move || {
                // Nothing is ever sent: it ends when the sender does.
                let _ = runtime.block_on(ended);
                // What still runs has nobody who waits for it.
                runtime.shutdown_background();
            })?;
        Ok(LeaseThread(Some(Arc::new(Running { handle, _end: end }))))
    }

    /// Its runtime; None: there is no such thread.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|running| running.handle.clone())
    }

    /// Runs a task there.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match &self.0 {
            Some(running) => running.handle.spawn(future),
            None => task::spawn(future),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever works on everything else cannot keep a lease from being renewed.
    #[tokio::test]
    async fn a_task_of_the_lease_thread_runs_while_this_thread_is_busy() {
        let thread = LeaseThread::start().unwrap();
        let (say, said) = std::sync::mpsc::channel();
        thread.spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            let name = std::thread::current().name().map(str::to_owned);
            say.send(name).unwrap();
        });
        // This blocks the one thread that the test has.
        let name = said.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(name.unwrap().as_deref(), Some("fleetd-leases"));
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_last_user() {
        let thread = LeaseThread::start().unwrap();
        let task = thread.spawn(std::future::pending::<()>());
        let another = thread.clone();
        drop(thread);
        assert!(!task.is_finished());
        drop(another);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), task).await;
        assert!(ended.expect("it ends").unwrap_err().is_cancelled());
    }
}
