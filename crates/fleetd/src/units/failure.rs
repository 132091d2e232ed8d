//! Why a unit failed: systemd's result and exit status in words, and the last lines of its journal.

use std::collections::HashMap;

use fleet_core::agent::Failure;
use fleet_core::name::{UnitName, UnitType};
use zbus::{OwnedVariant, Variant};

use super::dbus::{Manager, UNIT, unit_object};
use super::last_words;

/// Asks systemd and the journal.
pub(crate) async fn look_up(
    manager: &Manager,
    unit: &UnitName,
    invocation_id: &str,
    user: bool,
) -> Failure {
    Failure {
        why: reason(manager, unit).await,
        log: last_words::of_invocation(unit, invocation_id, user).await,
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

/// Why systemd cannot load a unit file: what it answers, and what it has just told its journal of
/// the unit, which names the line or the setting.
pub(crate) async fn not_loaded(unit: &UnitName, answer: &str, user: bool) -> String {
    match last_words::of_systemd(unit, user).await {
        Some(line) => format!("{}: {line}", answer.trim_end_matches('.')),
        None => format!("{answer} (systemd-analyze verify says which)"),
    }
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
}
