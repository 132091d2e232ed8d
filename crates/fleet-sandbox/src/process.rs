//! Processes by number and start time: a number alone may by now be somebody else's.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that the sandbox started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the computer's boot (`/proc/PID/stat`, field 22).
    pub start: u64,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn find(pid: i32) -> Option<Process> {
        let start = stat(pid)?.start;
        Some(Process { pid, start })
    }

    /// This process itself.
    pub(crate) fn own() -> Option<Process> {
        Process::find(i32::try_from(std::process::id()).ok()?)
    }

    /// True while it runs; a zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|s| s.start == self.start && s.state != 'Z' && s.state != 'X')
    }

    /// Signals it, and nobody else: the pidfd is opened first, the start time compared after.
    /// A process that is gone is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty())
            && self.is_alive()
        {
            // It may have ended between the two lines: then there is nothing to do.
            let _ = pidfd_send_signal(&fd, signal);
        }
    }

    /// True for PID 1 of a namespace one below ours: a host's systemd, and not that of a
    /// container inside the host.
    pub(crate) fn is_init_of_container(&self) -> bool {
        namespaces("self").is_some_and(|own| {
            namespaces(&self.pid.to_string())
                .is_some_and(|pids| pids.len() == own.len() + 1 && pids.ends_with(&[1]))
        })
    }
}

/// A process's number in each namespace that it is in, ours first.
fn namespaces(pid: &str) -> Option<Vec<i32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(
        list.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect(),
    )
}

struct Stat {
    state: char,
    start: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, blanks and parentheses too.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_start_time_is_somebody_else() {
        let me = Process::own().unwrap();
        assert!(me.is_alive());
        let other = Process {
            start: me.start + 1,
            ..me
        };
        assert!(!other.is_alive());
        // Must not reach this test.
        other.signal(Signal::KILL);
    }

    #[test]
    fn a_killed_process_is_not_alive_and_no_container() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::find(child.id().cast_signed()).unwrap();
        assert!(process.is_alive() && !process.is_init_of_container());
        process.signal(Signal::KILL);
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
