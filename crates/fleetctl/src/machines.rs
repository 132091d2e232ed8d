//! Machines as they are named on the command line: by whole id or any beginning of it, as
//! listings show it (`63d22e36...`) too.

use fleet_api::client::Error;
use fleet_api::v2::{MachineChange, MachineView};

use crate::error::CommandError;
use crate::fleet::Fleet;
use crate::report::{Report, legend};

/// Most machines that a hint names.
const MAX_NAMED: usize = 5;

/// `63d22e36.../172.30.1.2`
pub(crate) fn shown(machine: &MachineView) -> String {
    legend(&machine.id, &machine.primary_ip, false)
}

/// The machines that are meant, each once; who is not found is told.
///
/// # Errors
/// No machine is named, or the machines cannot be listed.
pub(crate) async fn named(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    names: &[String],
) -> Result<Vec<MachineView>, CommandError> {
    if names.is_empty() {
        return Err(CommandError::new("No machine is named.")
            .hint("fleetctl list-machines shows the ids; any beginning of one will do"));
    }
    let known = fleet.machines().await.map_err(failed)?;
    let mut named: Vec<MachineView> = Vec::new();
    for name in names {
        match find(&known, name) {
            Ok(machine) if named.iter().any(|named| named.id == machine.id) => {}
            Ok(machine) => named.push(machine.clone()),
            Err(error) => {
                report.failed_machine(name, &error.message);
                error.hints.iter().for_each(|hint| report.ui.hint(hint));
            }
        }
    }
    Ok(named)
}

/// Asks something of a machine and tells the outcome. True: it was taken.
///
/// # Errors
/// fleetd cannot do that for any machine.
pub(crate) async fn change(
    fleet: &Fleet<'_>,
    report: &Report<'_>,
    machine: &MachineView,
    change: &MachineChange,
    outcome: &str,
) -> Result<bool, CommandError> {
    match fleet.change_machine(&machine.id, change).await {
        Ok(machine) => {
            let words = format!("Machine {} {outcome}", shown(&machine));
            report.machine("", outcome, &machine, &words);
            Ok(true)
        }
        Err(Error::NoV2) => Err(original()),
        Err(error) => {
            let what = format!("Error changing machine {}", machine.id);
            let error = CommandError::api(&what, &error);
            report.failed_machine(&machine.id, &error.message);
            report.hint_once(&error.hints);
            Ok(false)
        }
    }
}

/// The one machine that is meant.
pub(crate) fn find<'m>(
    machines: &'m [MachineView],
    name: &str,
) -> Result<&'m MachineView, CommandError> {
    let prefix = name.strip_suffix("...").unwrap_or(name);
    if let Some(exact) = machines.iter().find(|machine| machine.id == prefix) {
        return Ok(exact);
    }
    let matching: Vec<&MachineView> = machines
        .iter()
        .filter(|machine| !prefix.is_empty() && machine.id.starts_with(prefix))
        .collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => Err(CommandError::new(format!(
            "Machine {name} not found: no machine's id begins so"
        ))
        .hint("fleetctl list-machines --all shows the ids; any beginning of one will do")),
        several => {
            let ids: Vec<&str> = several
                .iter()
                .take(MAX_NAMED)
                .map(|machine| machine.id.as_str())
                .collect();
            let more = match several.len() - ids.len() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            Err(
                CommandError::new(format!("Machine {name} is not clear: several ids begin so"))
                    .hint(format!("write more of it: {}{more}", ids.join(", "))),
            )
        }
    }
}

fn failed(error: Error) -> CommandError {
    CommandError::api("Error retrieving list of machines", &error)
}

/// An original fleetd knows of no drain.
pub(crate) fn original() -> CommandError {
    CommandError::new("This fleetd is an original fleet 1.0, which knows no such command.")
        .hint("upgrade fleetd there, or stop fleetd on a machine to have its units moved")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_by_any_beginning_of_its_id() {
        let machine = |id: &str| MachineView {
            id: id.into(),
            ..MachineView::default()
        };
        let known = [
            machine("63d22e36"),
            machine("63d22e369175"),
            machine("6a97"),
        ];
        let found = |name: &str| find(&known, name).map(|m| m.id.clone());
        assert_eq!(found("6a").unwrap(), "6a97");
        assert_eq!(found("6a97").unwrap(), "6a97");
        assert_eq!(found("6a...").unwrap(), "6a97");
        // A whole id is meant, though another one begins with it.
        assert_eq!(found("63d22e36").unwrap(), "63d22e36");
        let ambiguous = found("63d").unwrap_err();
        assert_eq!(
            ambiguous.message,
            "Machine 63d is not clear: several ids begin so"
        );
        assert_eq!(
            ambiguous.hints,
            ["write more of it: 63d22e36, 63d22e369175"]
        );
        for name in ["", "...", "d22", "6a98"] {
            assert!(found(name).is_err(), "{name}");
        }
    }
}
