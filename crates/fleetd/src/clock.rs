//! The one place that reads a clock, or asks the kernel for chance.

#[cfg(not(fleet_sim))]
use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[cfg(fleet_sim)]
pub use crate::sim::{boottime, boottime as monotonic, unix_ms, uuid};

/// Milliseconds since the Unix epoch, for records that people read. It may jump.
#[cfg(not(fleet_sim))]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Time since the machine booted, suspension included. It never jumps; the fence of leases
/// counts in it.
#[cfg(not(fleet_sim))]
pub fn boottime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Time since the machine booted, without suspension: the clock by which systemd's timers run.
#[cfg(not(fleet_sim))]
pub fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// A random id in the form of a UUID, each time another one.
#[cfg(not(fleet_sim))]
pub fn uuid() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(id.trim().to_owned())
}
