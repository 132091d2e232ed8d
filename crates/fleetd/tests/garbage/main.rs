//! A systemd and an etcd that are broken, or something quite different: whatever they say, nothing
//! panics, nothing takes time or memory without bound, and once they are themselves again all goes
//! on. Each conversation is made from a fixed seed. The clock is paused, so that waits of half a
//! minute cost nothing.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells why"
)]

mod asked;
#[path = "../common/chance.rs"]
mod chance;
mod etcd;
mod late;
mod messages;
mod systemd;

use std::sync::mpsc;
use std::time::Duration;

/// Rounds take milliseconds; what takes so long on the slowest machine never ends.
const HANGS_AFTER: Duration = Duration::from_secs(120);
/// Of everything here together, at any time; a tenth of that is usual.
const MAX_MEMORY_KIB: u64 = 512 << 10;

/// Runs a test as fleetd runs: on one thread, and a panic of any task ends the process. What does
/// not tell in time that it is alive is ended as well, since a paused clock ends no busy loop.
fn run<F: Future<Output = ()>>(test: impl FnOnce(mpsc::Sender<String>) -> F) {
    fleetd::panics::end_the_process();
    let (alive, heard) = mpsc::channel::<String>();
    std::thread::spawn(move || {
        let mut last = String::new();
        loop {
            match heard.recv_timeout(HANGS_AFTER) {
                Ok(what) => last = what,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs in {last}"),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test(alive));
    let peak = most_memory();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
}

/// The most that this process ever had in memory, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().split(' ').next().unwrap();
    number.parse().unwrap()
}
