//! The thread on which leases are kept alive.
//!
//! A renewal must not wait behind a plan for a whole cluster, and a cluster that is idle does nothing
//! else: on the threads that do the work, each renewal would wake one of them by way of another. So the
//! timers of the leases, and the connection to etcd that is theirs, have a thread to themselves.
//!
//! Whatever is done again and again there is done on one beat, so that the thread wakes up once for all of
//! it, and by a clock of the kernel's, so that it is once and not twice ([`Ticks`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::task;
use crate::ticks::Ticks;

/// Where leases are kept alive. The default is among everything else: tests, and the simulator.
#[derive(Clone, Debug, Default)]
pub struct LeaseThread(Option<Arc<Running>>);

#[derive(Debug)]
struct Running {
    handle: Handle,
    beat: Beat,
    /// The thread ends when nobody has it any more.
    _end: oneshot::Sender<()>,
}

impl LeaseThread {
    /// A thread of its own, until the last copy of this value is gone, with a beat as often as what is
    /// done most often there.
    ///
    /// # Errors
    /// The kernel gives no thread, or no file descriptors for its runtime.
    pub fn start(every: Duration) -> std::io::Result<LeaseThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let (beat, counted) = watch::channel(0);
        handle.spawn(keep_time(every, beat));
        let beat = Beat(Some(Count { every, counted }));
        std::thread::Builder::new()
            .name("fleetd-leases".to_owned())
            .spawn(move || {
                // Nothing is ever sent: it ends when the sender does.
                let _ = runtime.block_on(ended);
                // What still runs has nobody who waits for it.
                runtime.shutdown_background();
            })?;
        let running = Running {
            handle,
            beat,
            _end: end,
        };
        Ok(LeaseThread(Some(Arc::new(running))))
    }

    /// Its runtime; None: there is no such thread.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|running| running.handle.clone())
    }

    /// The thread's beat.
    pub(crate) fn beat(&self) -> Beat {
        self.0
            .as_ref()
            .map_or_else(Beat::default, |running| running.beat.clone())
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

/// What is done again and again on the thread is done on its beat. The default has none: tests, and the
/// simulator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beat(Option<Count>);

#[derive(Clone, Debug)]
struct Count {
    every: Duration,
    /// How many beats there were.
    counted: watch::Receiver<u64>,
}

impl Beat {
    /// Waits about so long and never longer: until a beat on which others are awake, too.
    pub(crate) async fn pause(&self, longest: Duration) {
        let count = self.0.as_ref().filter(|count| count.every <= longest);
        let Some(Count { every, counted }) = count else {
            return sleep(longest).await;
        };
        let n_beats = longest.as_millis() / every.as_millis().max(1);
        let n_beats = u64::try_from(n_beats).unwrap_or(u64::MAX);
        let mut beats = counted.clone();
        let now = *beats.borrow_and_update();
        // Who waits for several wakes up with all others that do.
        let at = (now / n_beats + 1).saturating_mul(n_beats);
        if beats.wait_for(|beat| *beat >= at).await.is_err() {
            // There is no clock.
            sleep(longest).await;
        }
    }
}

/// Counts the beats; ends where the kernel gives no clock.
async fn keep_time(every: Duration, beat: watch::Sender<u64>) {
    let Some(mut ticks) = Ticks::every(every) else {
        return;
    };
    while let Ok(n_ticks) = ticks.next().await {
        beat.send_modify(|beat| *beat += n_ticks);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const BEAT: Duration = Duration::from_millis(100);

    /// Both leases are renewed in one wake-up, and none later than it asked for.
    #[tokio::test]
    async fn who_pauses_longer_wakes_with_who_pauses_shorter() {
        let (count, counted) = watch::channel(3);
        let beat = Beat(Some(Count {
            every: BEAT,
            counted,
        }));
        let mut one = Box::pin(beat.pause(BEAT));
        let mut two = Box::pin(beat.pause(BEAT * 2 + BEAT / 4));
        let mut three = Box::pin(beat.pause(BEAT * 3));
        assert!((&mut one).now_or_never().is_none());
        assert!((&mut two).now_or_never().is_none() && (&mut three).now_or_never().is_none());
        count.send_replace(4);
        assert!((&mut one).now_or_never().is_some() && (&mut two).now_or_never().is_some());
        count.send_replace(5);
        assert!((&mut three).now_or_never().is_none());
        // The process stood still meanwhile.
        count.send_replace(8);
        assert!((&mut three).now_or_never().is_some());
    }

    #[tokio::test]
    async fn the_thread_has_a_beat() {
        let thread = LeaseThread::start(BEAT).unwrap();
        let beat = thread.beat();
        let bound = Duration::from_secs(60);
        let paused = tokio::time::timeout(bound, beat.pause(BEAT)).await;
        paused.expect("it beats");
        assert!(*beat.0.unwrap().counted.borrow() > 0);
    }

    /// What is shorter than a beat, and what has none, waits by itself.
    #[tokio::test(start_paused = true)]
    async fn short_pauses_and_those_without_a_beat_are_as_long_as_asked() {
        let (_count, counted) = watch::channel(0);
        let count = Count {
            every: BEAT,
            counted,
        };
        for (beat, pause) in [(Beat::default(), BEAT * 3), (Beat(Some(count)), BEAT / 2)] {
            let began = tokio::time::Instant::now();
            beat.pause(pause).await;
            assert_eq!(began.elapsed(), pause);
        }
    }

    /// Whoever works on everything else cannot keep a lease from being renewed.
    #[tokio::test]
    async fn a_task_of_the_lease_thread_runs_while_this_thread_is_busy() {
        let thread = LeaseThread::start(BEAT).unwrap();
        let (say, said) = std::sync::mpsc::channel();
        thread.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let name = std::thread::current().name().map(str::to_owned);
            say.send(name).unwrap();
        });
        // This blocks the one thread that the test has.
        let name = said.recv_timeout(Duration::from_secs(60));
        assert_eq!(name.unwrap().as_deref(), Some("fleetd-leases"));
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_last_user() {
        let thread = LeaseThread::start(BEAT).unwrap();
        let task = thread.spawn(std::future::pending::<()>());
        let another = thread.clone();
        drop(thread);
        assert!(!task.is_finished());
        drop(another);
        let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
        assert!(ended.expect("it ends").unwrap_err().is_cancelled());
    }
}
