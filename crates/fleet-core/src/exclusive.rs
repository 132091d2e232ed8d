//! `[X-Fleet] Exclusive=yes`: what makes it certain that a unit has stopped on a machine that
//! nobody can see.
//!
//! The unit is bound to a lease that systemd itself enforces there. Once the lease has ended, the
//! unit stops within a time that follows from its file ([`stops_within`]); only after that time
//! does the engine start it elsewhere. So a stop that may take for ever, or that leaves processes
//! behind, is refused.

use std::time::Duration;

use crate::requirements::time_span;
use crate::unit_file::UnitFile;

/// fleet writes this `TimeoutStopSec=` for an exclusive unit that has none of its own: systemd's 90
/// s would keep the unit away for minutes when its machine is lost.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// On top of all that is counted: a systemd that is busy or reads its files anew acts late, and
/// clocks of different machines do not run at quite the same speed.
pub const MARGIN: Duration = Duration::from_secs(2);

/// As long as a machine has said nothing of a unit yet, its lease is taken to be this long; it is
/// some times what anybody configures.
pub const UNKNOWN_LEASE: Duration = Duration::from_secs(30);

/// systemd first asks the processes to end (SIGTERM), then ends them (SIGKILL), and gives each
/// of the two its stop timeout.
const PHASES: u32 = 2;

/// The sections whose units have processes, and the keys that set their stop timeout; the last
/// line counts, whichever key it has.
const TIMEOUTS: [(&str, &[&str]); 4] = [
    ("Service", &["TimeoutStopSec", "TimeoutSec"]),
    ("Socket", &["TimeoutSec"]),
    ("Mount", &["TimeoutSec"]),
    ("Swap", &["TimeoutSec"]),
];

/// Commands that run while a unit stops: each has the stop timeout for itself.
const STOP_COMMANDS: [&str; 3] = ["ExecStop", "ExecStopPre", "ExecStopPost"];

/// Why it cannot be known when a unit has stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbounded {
    /// `infinity`, or 0, which systemd reads as that.
    #[error(
        "Exclusive=yes needs a stop that ends, and {key}={value} waits for ever: give a time \
         (30s), or leave the line out (fleet then writes {} s)",
        STOP_TIMEOUT.as_secs()
    )]
    Endless {
        /// The key of the stop timeout.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// Not a time span.
    #[error(
        "Exclusive=yes needs a stop that ends, and {key}={value} is no time: write 30s or 1min 30s"
    )]
    NotATime {
        /// The key of the stop timeout.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// Processes would outlive the stop.
    #[error(
        "Exclusive=yes needs a stop that ends all processes, and {key}={value} leaves some: remove \
         the line"
    )]
    LeavesProcesses {
        /// `KillMode` or `SendSIGKILL`.
        key: &'static str,
        /// What stands there.
        value: String,
    },
}

/// The stop timeouts that hold for an exclusive unit, by section: its own, or [`STOP_TIMEOUT`].
///
/// # Errors
/// See [`Unbounded`].
pub fn stop_timeouts(file: &UnitFile) -> Result<Vec<(&'static str, Duration)>, Unbounded> {
    let mut timeouts = Vec::new();
    for (section, keys) in TIMEOUTS {
        if !file.has_section(section) {
            continue;
        }
        check_processes(file, section)?;
        let own = file.options().iter().rev().find_map(|option| {
            let key = keys.iter().find(|key| **key == option.name)?;
            (option.section == section).then_some((*key, option.value.trim()))
        });
        timeouts.push((
            section,
            match own {
                None => STOP_TIMEOUT,
                Some((key, value)) => read_timeout(key, value)?,
            },
        ));
    }
    Ok(timeouts)
}

/// How long after the end of its lease an exclusive unit may still run: twice its stop timeout,
/// and once more for each command of its stop.
///
/// # Errors
/// See [`Unbounded`].
pub fn stops_within(file: &UnitFile) -> Result<Duration, Unbounded> {
    let mut longest = Duration::ZERO;
    for (section, timeout) in stop_timeouts(file)? {
        let commands = file.options().iter().filter(|option| {
            option.section == section
                && STOP_COMMANDS.contains(&option.name.as_str())
                && !option.value.trim().is_empty()
        });
        let commands = u32::try_from(commands.count()).unwrap_or(u32::MAX);
        // What the commands leave behind is asked, and ended, once more.
        let phases = match commands {
            0 => PHASES,
            n => (2 * PHASES).saturating_add(n),
        };
        longest = longest.max(timeout.saturating_mul(phases));
    }
    Ok(longest)
}

fn read_timeout(key: &'static str, value: &str) -> Result<Duration, Unbounded> {
    if value.eq_ignore_ascii_case("infinity") {
        return Err(Unbounded::Endless {
            key,
            value: value.to_owned(),
        });
    }
    match time_span(value) {
        Some(Duration::ZERO) => Err(Unbounded::Endless {
            key,
            value: value.to_owned(),
        }),
        Some(timeout) => Ok(timeout),
        None => Err(Unbounded::NotATime {
            key,
            value: value.to_owned(),
        }),
    }
}

fn check_processes(file: &UnitFile, section: &str) -> Result<(), Unbounded> {
    let last = |key: &str| {
        let mut options = file.options().iter().rev();
        let option = options.find(|option| option.section == section && option.name == key)?;
        Some(option.value.trim().to_owned())
    };
    for (key, leaves) in [
        ("KillMode", &["process", "none"][..]),
        ("SendSIGKILL", &["no", "n", "false", "f", "off", "0"][..]),
    ] {
        if let Some(value) = last(key)
            && leaves.iter().any(|word| value.eq_ignore_ascii_case(word))
        {
            return Err(Unbounded::LeavesProcesses { key, value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(text: &str) -> Result<u64, String> {
        let file = UnitFile::parse(text).unwrap();
        stops_within(&file)
            .map(|time| time.as_secs())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_stop_takes_as_long_as_its_timeout_and_its_commands_allow() {
        for (text, seconds) in [
            ("[Service]\nExecStart=/a\n", 6),
            ("[Service]\nExecStart=/a\nTimeoutStopSec=1min\n", 120),
            ("[Service]\nTimeoutStopSec=9\nTimeoutSec=5\n", 10),
            ("[Service]\nTimeoutSec=5\nTimeoutStopSec=7\n", 14),
            (
                "[Service]\nTimeoutStopSec=2\nExecStop=/b\nExecStopPost=/c\n",
                12,
            ),
            ("[Service]\nKillMode=mixed\nSendSIGKILL=yes\n", 6),
            ("[Timer]\nOnCalendar=daily\n", 0),
            ("[Socket]\nTimeoutSec=4\n[Service]\nTimeoutStopSec=1\n", 8),
        ] {
            assert_eq!(within(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn a_stop_without_an_end_is_refused_with_the_cure() {
        for (text, says) in [
            ("TimeoutStopSec=infinity", "waits for ever: give a time"),
            ("TimeoutStopSec=0", "waits for ever: give a time"),
            ("TimeoutSec=infinity", "TimeoutSec=infinity waits for ever"),
            ("TimeoutStopSec=soon", "is no time: write 30s"),
            ("TimeoutStopSec=", "is no time: write 30s"),
            ("KillMode=process", "leaves some: remove the line"),
            ("KillMode=none", "leaves some: remove the line"),
            ("SendSIGKILL=no", "leaves some: remove the line"),
        ] {
            let refused = within(&format!("[Service]\nExecStart=/a\n{text}\n"));
            let error = refused.unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
