//! The journal of units on this machine: what journalctl is asked for.

use std::process::Stdio;

use fleet_api::v2::JournalEntry;
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use tokio::process::Command;

/// Which lines of this machine's journal are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JournalQuery {
    /// Of these units.
    pub units: Vec<UnitName>,
    /// At most so many of the newest; None: all.
    pub lines: Option<usize>,
    /// From this time on, in microseconds since 1970.
    pub since_us: Option<u64>,
    /// After this cursor.
    pub after: Option<String>,
    /// And what comes.
    pub follow: bool,
    /// With all fields.
    pub all_fields: bool,
}

/// The journalctl that prints them, an object of JSON a line. It is filtered there: nothing else is read
/// or sent. It ends with whoever holds it.
pub(crate) fn journalctl(query: &JournalQuery, machine: &MachineId, user: bool) -> Command {
    let mut command = Command::new("journalctl");
    // Without `--all` long fields would be left out.
    command.args(["--quiet", "--no-pager", "--all", "--output=json"]);
    if !query.all_fields {
        let fields = JournalEntry::FIELDS.join(",");
        command.arg(format!("--output-fields={fields}"));
    }
    for unit in &query.units {
        let flag = if user { "--user-unit" } else { "--unit" };
        command.arg(format!("{flag}={unit}"));
    }
    match query.lines {
        Some(lines) => command.arg(format!("--lines={lines}")),
        None => command.arg("--lines=all"),
    };
    if let Some(cursor) = &query.after {
        command.arg(format!("--after-cursor={cursor}"));
    } else if let Some(since) = query.since_us {
        let (seconds, micros) = (since / 1_000_000, since % 1_000_000);
        command.arg(format!("--since=@{seconds}.{micros:06}"));
    }
    if query.follow {
        // `--follow` alone would leave out what was before this boot; and within a container fleetd's own
        // sandbox shows another boot than the journal's. Merged are the journals of other machines, too, if some
        // are kept here.
        command.args(["--follow", "--merge"]);
        command.arg(format!("_MACHINE_ID={machine}"));
    }
    as_child(&mut command);
    command
}

/// Its output is read, and its end is that of whoever reads it.
pub(crate) fn as_child(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_said_to_journalctl() {
        let words = |query: &JournalQuery, user| {
            let command = journalctl(query, &MachineId::new("m1"), user);
            let words = command.as_std().get_args();
            let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
            words[4..].join(" ")
        };
        let units = ["a.service", "b@1.service"].map(|name| UnitName::parse(name).unwrap());
        let query = JournalQuery {
            units: units.to_vec(),
            lines: Some(10),
            since_us: Some(1_700_000_000_000_012),
            all_fields: true,
            ..JournalQuery::default()
        };
        assert_eq!(
            words(&query, false),
            "--unit=a.service --unit=b@1.service --lines=10 --since=@1700000000.000012"
        );
        let query = JournalQuery {
            lines: None,
            after: Some("s=a;i=1".to_owned()),
            follow: true,
            ..query
        };
        // Whoever goes on after a line has no use for a time.
        assert_eq!(
            words(&query, true),
            "--user-unit=a.service --user-unit=b@1.service --lines=all --after-cursor=s=a;i=1 --follow --merge _MACHINE_ID=m1"
        );
        let query = JournalQuery {
            all_fields: false,
            ..query
        };
        assert!(words(&query, false).starts_with("--output-fields=MESSAGE,PRIORITY,"));
    }
}
