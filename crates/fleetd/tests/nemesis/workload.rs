//! The units of a run, and what each asks of fleet.

use std::time::Duration;

/// A unit: its name, its `[X-Fleet]`, and how its process fares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    x_fleet: &'static str,
    runs: Runs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Runs {
    /// On every machine, until it is stopped.
    Anywhere,
    /// Where [`ALLOWS`] is; elsewhere it fails at once.
    WhereAllowed,
    /// It fails everywhere.
    Nowhere,
}

/// The file without which some units fail on a host.
pub(crate) const ALLOWS: &str = "/etc/only-here";
/// The hosts that have it.
pub(crate) const ALLOWING: [usize; 2] = [3, 4];
/// These have region=west.
pub(crate) const WEST: [usize; 3] = [0, 1, 2];

const fn anywhere(name: &'static str, x_fleet: &'static str) -> Unit {
    let runs = Runs::Anywhere;
    Unit {
        name,
        x_fleet,
        runs,
    }
}

/// Units that run all the time. `s@` is a template with instances.
pub(crate) const STEADY: [Unit; 19] = [
    anywhere("steady1.service", ""),
    anywhere("steady2.service", ""),
    anywhere("steady3.service", ""),
    anywhere("s@1.service", ""),
    anywhere("s@2.service", ""),
    anywhere("everywhere.service", "Global=true"),
    anywhere("lead.service", ""),
    anywhere("follow1.service", "MachineOf=lead.service"),
    anywhere("follow2.service", "MachineOf=follow1.service"),
    anywhere("apart1.service", "Conflicts=apart*.service"),
    anywhere("apart2.service", "Conflicts=apart*.service"),
    anywhere("west.service", "MachineMetadata=region=west"),
    anywhere("once1.service", "Exclusive=yes"),
    anywhere("beside.service", "MachineOf=once1.service"),
    anywhere(
        "once2.service",
        "Exclusive=yes\nMachineMetadata=region=west",
    ),
    anywhere("once3.service", "Exclusive=yes\nConflicts=once1.service"),
    anywhere("patient.service", "LostAfter=40s"),
    Unit {
        name: "picky.service",
        x_fleet: "RescheduleOnFailure=yes",
        runs: Runs::WhereAllowed,
    },
    Unit {
        name: "hopeless.service",
        x_fleet: "RescheduleOnFailure=2",
        runs: Runs::Nowhere,
    },
];

/// Units with a user each.
pub(crate) const BUSY: [Unit; 7] = [
    anywhere("busy1.service", ""),
    anywhere("busy2.service", ""),
    anywhere("busy3.service", "MachineMetadata=region=west"),
    anywhere("busy4.service", "MachineOf=lead.service"),
    anywhere("busy5.service", "Conflicts=apart1.service"),
    anywhere("busyall.service", "Global=true"),
    anywhere("busyonce.service", "Exclusive=yes"),
];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Unit> {
    STEADY.iter().chain(&BUSY)
}

/// The unit of this name.
pub(crate) fn unit(name: &str) -> Option<&'static Unit> {
    all().find(|unit| unit.name == name)
}

impl Unit {
    /// The unit file, in one of two versions.
    pub(crate) fn text(&self, version: usize) -> String {
        let command = match self.runs {
            Runs::Anywhere => "/bin/sleep infinity".to_owned(),
            Runs::WhereAllowed => {
                format!("/bin/sh -c 'test -e {ALLOWS} || exit 7; exec sleep infinity'")
            }
            Runs::Nowhere => "/bin/sh -c 'sleep 0.2; exit 7'".to_owned(),
        };
        let name = self.name;
        let mut text =
            format!("[Unit]\nDescription={name} {version}\n\n[Service]\nExecStart={command}\n");
        if !self.x_fleet.is_empty() {
            text += &format!("\n[X-Fleet]\n{}\n", self.x_fleet);
        }
        text
    }

    fn value(&self, key: &str) -> Option<&'static str> {
        let mut lines = self.x_fleet.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    pub(crate) fn is_global(&self) -> bool {
        self.value("Global").is_some()
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.value("Exclusive").is_some()
    }

    /// Its own grace.
    pub(crate) fn lost_after(&self) -> Option<Duration> {
        let seconds = self.value("LostAfter")?.strip_suffix('s')?;
        Some(Duration::from_secs(seconds.parse().ok()?))
    }

    /// How often it is moved, at most, when it fails.
    pub(crate) fn moves_max(&self) -> Option<usize> {
        match self.value("RescheduleOnFailure")? {
            // So RELIABILITY.md says.
            "yes" => Some(5),
            times => times.parse().ok(),
        }
    }

    /// The unit beside which it is to be.
    pub(crate) fn follows(&self) -> Option<&'static str> {
        self.value("MachineOf")
    }

    /// Whether the two are never to be on one machine.
    pub(crate) fn is_apart(&self, other: &Unit) -> bool {
        let means = |one: &Unit, other: &Unit| match one.value("Conflicts") {
            Some(pattern) => match pattern.split_once('*') {
                Some((begin, end)) => other.name.starts_with(begin) && other.name.ends_with(end),
                None => pattern == other.name,
            },
            None => false,
        };
        self.name != other.name && (means(self, other) || means(other, self))
    }

    /// Whether a host may have it.
    pub(crate) fn may_be_on(&self, host: usize) -> bool {
        self.value("MachineMetadata").is_none() || WEST.contains(&host)
    }

    /// Whether its process fails on a host by itself.
    pub(crate) fn fails_on(&self, host: usize) -> bool {
        match self.runs {
            Runs::Anywhere => false,
            Runs::WhereAllowed => !ALLOWING.contains(&host),
            Runs::Nowhere => true,
        }
    }

    /// Whether it is one of those that fail somewhere.
    pub(crate) fn may_fail(&self) -> bool {
        self.runs != Runs::Anywhere
    }
}

/// Whether there is such a unit, and it runs on every machine.
pub(crate) fn is_global(name: &str) -> bool {
    unit(name).is_some_and(Unit::is_global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_say_what_they_ask_for() {
        let unit = |name| unit(name).unwrap();
        assert!(unit("busyonce.service").is_exclusive() && !unit("lead.service").is_exclusive());
        assert!(is_global("everywhere.service") && !is_global("patient.service"));
        assert_eq!(
            unit("patient.service").lost_after(),
            Some(Duration::from_secs(40))
        );
        assert_eq!(unit("picky.service").moves_max(), Some(5));
        assert_eq!(unit("hopeless.service").moves_max(), Some(2));
        assert_eq!(unit("follow2.service").follows(), Some("follow1.service"));
        let apart = |one, other| unit(one).is_apart(unit(other));
        assert!(apart("apart2.service", "apart1.service"));
        assert!(apart("apart1.service", "busy5.service"));
        assert!(!apart("apart2.service", "busy5.service"));
        assert!(!apart("apart1.service", "apart1.service"));
        assert!(unit("west.service").may_be_on(2) && !unit("west.service").may_be_on(3));
        assert!(unit("picky.service").fails_on(0) && !unit("picky.service").fails_on(4));
    }
}
