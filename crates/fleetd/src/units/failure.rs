//! Why a unit failed: systemd's result and exit status in words, and the last lines of its journal.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use fleet_core::agent::Failure;
use fleet_core::name::{UnitName, UnitType};
use fleet_core::records::StateRecord;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;
use zbus::{OwnedVariant, Variant};

use super::dbus::{Manager, UNIT, unit_object};

/// A journal of some gigabytes answers within this; a failure is told without its log otherwise.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);
/// journald may still be reading what a process wrote just before it died.
const JOURNAL_LAG: Duration = Duration::from_millis(50);
/// More would compete with the units that are being started.
static JOURNAL_READERS: Semaphore = Semaphore::const_new(2);
/// What is read of journalctl's output: ten ordinary lines are a thousand bytes.
const MAX_JOURNAL_READ: u64 = 1024 * 1024;
/// What is looked at of it.
const MAX_JOURNAL_BYTES: usize = 64 * 1024;

/// Asks systemd and the journal.
pub(crate) async fn look_up(
    manager: &Manager,
    unit: &UnitName,
    invocation_id: &str,
    user: bool,
) -> Failure {
    Failure {
        why: reason(manager, unit).await,
        log: journal(invocation_id, user).await,
    }
}

/// The words for a start job that did not end with `done`.
pub(crate) fn job_result(result: &str) -> String {
    let words = match result {
        "dependency" => "a unit that it requires could not be started",
        "timeout" => "it did not start in time",
        "failed" => "the start failed",
        "canceled" => "the start was cancelled by another request to systemd",
        "assert" => "an assertion of its unit file does not hold",
        "unsupported" => "units of this type are not supported on this machine",
        "collected" => "systemd dropped the unit before it was started",
        "once" => "it may be started only once",
        _ => "the start did not succeed",
    };
    format!("{result}: {words}")
}

/// The words for a start that systemd has not even begun with: what the unit would trigger is
/// not there, or its journal says more.
pub(crate) async fn not_begun(manager: &Manager, unit: &UnitName) -> String {
    let path = unit_object(unit.as_str());
    let triggers = manager.property::<Vec<String>>(&path, UNIT, "Triggers");
    let triggers = triggers.await.unwrap_or_default();
    let rows = match manager.list_by_names(&triggers).await {
        Ok((rows, _)) => rows,
        Err(_) => Vec::new(),
    };
    let missing = rows.into_iter().find(|row| row.load != "loaded");
    match missing {
        Some(row) => format!(
            "it needs {}, which this machine's systemd has not loaded ({})",
            row.name, row.load
        ),
        None => format!("{}; the machine's journal says why", job_result("failed")),
    }
}

async fn reason(manager: &Manager, unit: &UnitName) -> String {
    let Some(interface) = interface(unit) else {
        return "failed".to_owned();
    };
    match manager
        .properties(&unit_object(unit.as_str()), &interface)
        .await
    {
        Ok(properties) => in_words(&properties),
        Err(error) => format!("failed; the reason cannot be had: {error}"),
    }
}

/// The interface that only units of this type have, if it says more of how they end.
pub(crate) fn interface(unit: &UnitName) -> Option<String> {
    let interface = match unit.unit_type() {
        UnitType::Service => "Service",
        UnitType::Socket => "Socket",
        UnitType::Mount => "Mount",
        UnitType::Automount => "Automount",
        UnitType::Swap => "Swap",
        UnitType::Path => "Path",
        UnitType::Timer => "Timer",
        UnitType::Scope => "Scope",
        _ => return None,
    };
    Some(format!("org.freedesktop.systemd1.{interface}"))
}

/// `exit-code: main process exited, status 1/FAILURE`
pub(crate) fn in_words(properties: &HashMap<String, OwnedVariant>) -> String {
    let number = |name: &str| match properties.get(name).map(|value| &**value) {
        Some(Variant::I32(number)) => Some(*number),
        _ => None,
    };
    let result = match properties.get("Result").map(|value| &**value) {
        Some(Variant::Str(result)) => result.as_str(),
        _ => "failed",
    };
    let words = match result {
        "exit-code" | "signal" | "core-dump" => {
            let control = control_exit(properties);
            let main = number("ExecMainCode").zip(number("ExecMainStatus"));
            let (process, exit) = match (main, control) {
                // A start command that failed leaves the main process untouched.
                (Some((code, status)), control)
                    if code != 0 && (status != 0 || control.is_none()) =>
                {
                    ("main process", Some((code, status)))
                }
                (_, control) => ("control process", control),
            };
            match exit {
                Some((code, status)) => format!("{process} {}", exit_in_words(code, status)),
                None => "a process failed".to_owned(),
            }
        }
        "timeout" => "a step took longer than its timeout".to_owned(),
        "watchdog" => "the watchdog was not fed in time".to_owned(),
        "start-limit-hit" => "started too often in a short time".to_owned(),
        "resources" => "systemd could not set it up".to_owned(),
        "protocol" => "it did not keep to its Type='s protocol".to_owned(),
        "oom-kill" => "killed for want of memory".to_owned(),
        "exec-condition" => "its ExecCondition= does not hold".to_owned(),
        "service-start-limit-hit" | "unit-start-limit-hit" => {
            "its service was started too often in a short time".to_owned()
        }
        _ => return result.to_owned(),
    };
    format!("{result}: {words}")
}

/// The exit of the last command of ExecStartPre=, ExecStart=, … that failed.
fn control_exit(properties: &HashMap<String, OwnedVariant>) -> Option<(i32, i32)> {
    let lists = [
        "ExecStartPost",
        "ExecStartPre",
        "ExecStop",
        "ExecStart",
        "ExecCondition",
    ];
    for list in lists {
        let Some(Variant::Array(commands)) = properties.get(list).map(|value| &**value) else {
            continue;
        };
        for command in commands.iter() {
            let Variant::Structure(fields) = command else {
                continue;
            };
            // (path, argv, ignore, start ×2, exit ×2, pid, code, status)
            if let (Some(Variant::I32(code)), Some(Variant::I32(status))) =
                (fields.fields().get(8), fields.fields().get(9))
                && *code != 0
                && *status != 0
            {
                return Some((*code, *status));
            }
        }
    }
    None
}

/// `code` is waitid's: 1 exited, 2 killed, 3 dumped.
fn exit_in_words(code: i32, status: i32) -> String {
    match code {
        1 => format!("exited, status {status}{}", exit_name(status)),
        2 => format!("killed, signal {}", signal_name(status)),
        3 => format!("dumped core, signal {}", signal_name(status)),
        _ => format!("ended, code {code}, status {status}"),
    }
}

/// The names that systemd gives to exit statuses.
fn exit_name(status: i32) -> &'static str {
    match status {
        0 => "/SUCCESS",
        1 => "/FAILURE",
        2 => "/INVALIDARGUMENT",
        3 => "/NOTIMPLEMENTED",
        4 => "/NOPERMISSION",
        5 => "/NOTINSTALLED",
        6 => "/NOTCONFIGURED",
        7 => "/NOTRUNNING",
        200 => "/CHDIR",
        202 => "/FDS",
        203 => "/EXEC",
        208 => "/STDIN",
        209 => "/STDOUT",
        214 => "/SETSCHEDULER",
        216 => "/GROUP",
        217 => "/USER",
        218 => "/CAPABILITIES",
        219 => "/CGROUP",
        222 => "/STDERR",
        226 => "/NAMESPACE",
        228 => "/SECCOMP",
        233 => "/RUNTIME_DIRECTORY",
        238 => "/STATE_DIRECTORY",
        239 => "/CACHE_DIRECTORY",
        240 => "/LOGS_DIRECTORY",
        _ => "",
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => return signal.to_string(),
    };
    format!("{signal}/{name}")
}

/// The last lines of an invocation: its processes' and systemd's own about it.
async fn journal(invocation_id: &str, user: bool) -> Vec<String> {
    if invocation_id.is_empty() {
        return Vec::new();
    }
    let about = if user {
        format!("USER_INVOCATION_ID={invocation_id}")
    } else {
        format!("INVOCATION_ID={invocation_id}")
    };
    let of_processes = format!("_SYSTEMD_INVOCATION_ID={invocation_id}");
    read_journal(
        &[&of_processes, "+", &about],
        StateRecord::MAX_LOG_LINES,
        user,
    )
    .await
}

/// Why systemd cannot load a unit file: what it answers, and what it has just told its journal of
/// the unit, which names the line or the setting.
pub(crate) async fn not_loaded(unit: &UnitName, answer: &str, user: bool) -> String {
    let field = if user { "USER_UNIT" } else { "UNIT" };
    let lines = read_journal(&[&format!("{field}={unit}")], 1, user).await;
    match lines.first() {
        Some(line) => format!("{}: {line}", answer.trim_end_matches('.')),
        None => format!("{answer} (systemd-analyze verify says which)"),
    }
}

async fn read_journal(matches: &[&str], n_lines: usize, user: bool) -> Vec<String> {
    let Ok(_reader) = JOURNAL_READERS.acquire().await else {
        return Vec::new();
    };
    tokio::time::sleep(JOURNAL_LAG).await;
    let mut command = tokio::process::Command::new("journalctl");
    if user {
        command.arg("--user");
    }
    command
        .args(["--quiet", "--no-pager", "-o", "cat", "-n"])
        .arg(n_lines.to_string())
        .args(matches)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let read = async {
        let mut child = command.spawn().ok()?;
        let output = read_bounded(child.stdout.take()?).await.ok()?;
        // One that is not done yet has more to say than anybody reads: it is killed.
        Some(last_lines(&output))
    };
    // No journal is no trouble: the reason is told without it.
    let lines = tokio::time::timeout(JOURNAL_TIMEOUT, read).await;
    lines.ok().flatten().unwrap_or_default()
}

/// Lines may be as long as a program likes.
async fn read_bounded(from: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut output = Vec::new();
    from.take(MAX_JOURNAL_READ).read_to_end(&mut output).await?;
    Ok(output)
}

pub(crate) fn last_lines(output: &[u8]) -> Vec<String> {
    let from = output.len().saturating_sub(MAX_JOURNAL_BYTES);
    let text = String::from_utf8_lossy(&output[from..]);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(StateRecord::MAX_LOG_LINES);
    lines[from..].iter().map(|line| cut(line)).collect()
}

fn cut(line: &str) -> String {
    let mut end = line.len().min(StateRecord::MAX_LOG_LINE_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(result: &'static str, code: i32, status: i32) -> HashMap<String, OwnedVariant> {
        HashMap::from([
            (
                "Result".to_owned(),
                OwnedVariant::try_from(Variant::from(result)).unwrap(),
            ),
            ("ExecMainCode".to_owned(), OwnedVariant::from(code)),
            ("ExecMainStatus".to_owned(), OwnedVariant::from(status)),
        ])
    }

    #[test]
    fn results_are_told_in_words() {
        for (result, code, status, words) in [
            (
                "exit-code",
                1,
                1,
                "exit-code: main process exited, status 1/FAILURE",
            ),
            (
                "exit-code",
                1,
                203,
                "exit-code: main process exited, status 203/EXEC",
            ),
            (
                "exit-code",
                1,
                42,
                "exit-code: main process exited, status 42",
            ),
            ("signal", 2, 9, "signal: main process killed, signal 9/KILL"),
            (
                "core-dump",
                3,
                11,
                "core-dump: main process dumped core, signal 11/SEGV",
            ),
            (
                "timeout",
                0,
                0,
                "timeout: a step took longer than its timeout",
            ),
            ("new-word", 0, 0, "new-word"),
        ] {
            assert_eq!(in_words(&properties(result, code, status)), words);
        }
    }

    #[tokio::test]
    async fn a_journal_without_end_is_read_up_to_a_bound() {
        let output = read_bounded(tokio::io::repeat(b'x')).await.unwrap();
        assert_eq!(output.len() as u64, MAX_JOURNAL_READ);
        assert_eq!(
            last_lines(&output)[0].len(),
            StateRecord::MAX_LOG_LINE_BYTES
        );
    }

    #[test]
    fn a_log_is_cut_to_its_last_lines_and_long_lines_are_cut() {
        let long = "é".repeat(400);
        let text = (0..30).map(|n| format!("{n}\n")).collect::<String>() + &long + "\n";
        let lines = last_lines(text.as_bytes());
        assert_eq!(lines.len(), StateRecord::MAX_LOG_LINES);
        assert_eq!(lines[0], "21");
        assert_eq!(lines[9].len(), StateRecord::MAX_LOG_LINE_BYTES);
    }
}
