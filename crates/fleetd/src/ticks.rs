//! A clock of the kernel's.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ticks in regular intervals. It may tick more often than the runtime's own clock, which counts in
/// milliseconds and wakes its thread twice for one time that is more than 64 of them away.
pub(crate) struct Ticks(AsyncFd<OwnedFd>);

impl Ticks {
    /// None where there is no such clock: then the runtime's has to do.
    pub(crate) fn every(interval: Duration) -> Option<Ticks> {
        let clock = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        );
        let clock = clock.ok()?;
        let interval = Timespec::try_from(interval).ok()?;
        let every = Itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        timerfd_settime(&clock, TimerfdTimerFlags::empty(), &every).ok()?;
        #[expect(
            deprecated,
            reason = "sound for a descriptor that is owned; the other one is unsafe"
        )]
        let clock = AsyncFd::with_interest(clock, Interest::READABLE);
        clock.ok().map(Ticks)
    }

    /// Waits for the next tick. Returns how many there were since the last: more than one when nobody
    /// has looked.
    pub(crate) async fn next(&mut self) -> std::io::Result<u64> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut n_ticks = [0; 8];
            let read = ready.try_io(|clock| Ok(rustix::io::read(clock, &mut n_ticks)?));
            if let Ok(read) = read {
                // All ticks are taken: nobody need ask again before the next one.
                ready.clear_ready();
                return read.map(|_| u64::from_ne_bytes(n_ticks));
            }
        }
    }
}
