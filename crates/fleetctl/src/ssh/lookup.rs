//! Which machine is meant, and which commands a unit means there. Nothing is asked or run here.

use fleet_api::v2::{MachineView, UnitView};

use crate::error::CommandError;
use crate::report::{legend, short_id};

/// Most machines that a hint names.
const MAX_NAMED: usize = 5;

/// What `fleetctl ssh` was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// `--machine`: the beginning of an id.
    Machine(String),
    /// `--unit`: as typed.
    Unit(String),
    /// An argument that may be either.
    Either(String),
}

impl Wanted {
    /// Flags and arguments: who is meant, and the command.
    ///
    /// # Errors
    /// Both flags, or nothing at all.
    pub(crate) fn read(
        machine: Option<String>,
        unit: Option<String>,
        mut args: Vec<String>,
    ) -> Result<(Wanted, Vec<String>), CommandError> {
        let given = |flag: Option<String>| flag.filter(|text| !text.is_empty());
        let wanted = match (given(machine), given(unit)) {
            (Some(_), Some(_)) => {
                return Err(CommandError::new(
                    "Both machine and unit flags provided, please specify only one.",
                ));
            }
            (Some(machine), None) => Wanted::Machine(machine),
            (None, Some(unit)) => Wanted::Unit(unit),
            (None, None) if args.is_empty() || args[0].is_empty() => {
                return Err(unable("one machine or unit must be provided"));
            }
            (None, None) => Wanted::Either(args.remove(0)),
        };
        Ok((wanted, args))
    }

    /// The unit to look for, as typed.
    pub(crate) fn unit(&self) -> Option<&str> {
        match self {
            Wanted::Machine(_) => None,
            Wanted::Unit(unit) | Wanted::Either(unit) => Some(unit),
        }
    }

    /// The address of the machine. `unit` is what the cluster knows under [`Self::unit`].
    ///
    /// # Errors
    /// None is meant, or several, or its address is not known.
    pub(crate) fn address<'m>(
        &self,
        machines: &'m [MachineView],
        unit: Option<&UnitView>,
    ) -> Result<&'m str, CommandError> {
        let machine = match self {
            Wanted::Machine(prefix) => one_machine(machines, prefix)?,
            Wanted::Unit(_) => {
                let unit = unit.ok_or_else(|| unable("unit does not exist"))?;
                if unit.global {
                    return Err(with_hint(
                        unable("global units unsupported"),
                        global_hint(unit),
                    ));
                }
                machine_of(machines, unit).ok_or_else(|| nowhere(unit))?
            }
            Wanted::Either(text) => either(machines, unit, text)?,
        };
        match machine.primary_ip.as_str() {
            "" => Err(no_address().hint(format!("machine {} has told no address", machine.id))),
            address => Ok(address),
        }
    }
}

/// Where a command about units runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Its machine.
    pub(crate) id: String,
    /// Its address, mostly not empty.
    pub(crate) address: String,
}

impl Place {
    /// For people.
    pub(crate) fn legend(&self) -> String {
        legend(&self.id, &self.address, false)
    }
}

/// A part of `fleetctl status`.
#[derive(Debug)]
pub(crate) enum Step {
    /// `systemctl status` of these units at one place; with the heading, if there is one.
    Show {
        place: Place,
        units: Vec<String>,
        heading: Option<String>,
    },
    /// A unit that has no status anywhere.
    Refuse(CommandError),
}

/// What `fleetctl status` does, in the order of the units. Neighbours at one place are shown by
/// one command.
pub(crate) fn status(units: &[UnitView], machines: &[MachineView]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for unit in units {
        if unit.global {
            steps.extend(status_everywhere(unit, machines));
            continue;
        }
        match loaded_at(unit, machines, "loaded") {
            Err(error) => steps.push(Step::Refuse(error)),
            Ok(place) => match steps.last_mut() {
                Some(Step::Show {
                    place: last,
                    units,
                    heading: None,
                }) if *last == place => units.push(unit.name.clone()),
                _ => steps.push(Step::Show {
                    place,
                    units: vec![unit.name.clone()],
                    heading: None,
                }),
            },
        }
    }
    steps
}

/// Where `fleetctl journal` finds a unit's lines.
///
/// # Errors
/// It is global, or nowhere.
pub(crate) fn journal(unit: &UnitView, machines: &[MachineView]) -> Result<Place, CommandError> {
    if unit.global {
        let error = CommandError::new(format!(
            "Unable to retrieve journal of global unit {}.",
            unit.name
        ));
        let one = unit.states.first().map(|state| short_id(&state.machine_id));
        return Err(with_hint(
            error,
            one.map(|id| {
                format!(
                    "take one machine at a time: fleetctl ssh {} -- journalctl --unit {}",
                    id.trim_end_matches('.'),
                    unit.name
                )
            }),
        ));
    }
    loaded_at(unit, machines, "running")
}

fn status_everywhere(unit: &UnitView, machines: &[MachineView]) -> Vec<Step> {
    if unit.states.is_empty() {
        return vec![Step::Refuse(not_there(unit, "loaded"))];
    }
    let steps = unit.states.iter().map(|state| {
        let place = place(machines, &state.machine_id);
        let heading = Some(format!("{} on {}:", unit.name, place.legend()));
        Step::Show {
            place,
            units: vec![unit.name.clone()],
            heading,
        }
    });
    steps.collect()
}

/// `as_what` is the original's word for what the unit ought to be.
fn loaded_at(
    unit: &UnitView,
    machines: &[MachineView],
    as_what: &str,
) -> Result<Place, CommandError> {
    let is_inactive = unit.current_state.as_deref() == Some("inactive");
    match &unit.machine_id {
        Some(id) if !is_inactive => Ok(place(machines, id)),
        _ => Err(not_there(unit, as_what)),
    }
}

fn place(machines: &[MachineView], id: &str) -> Place {
    let machine = machines.iter().find(|machine| machine.id == id);
    Place {
        id: id.to_owned(),
        address: machine.map_or_else(String::new, |machine| machine.primary_ip.clone()),
    }
}

/// A unit that has no status.
pub(crate) fn not_loaded(unit: &UnitView) -> CommandError {
    not_there(unit, "loaded")
}

/// A unit that has no journal.
pub(crate) fn not_running(unit: &UnitView) -> CommandError {
    not_there(unit, "running")
}

fn not_there(unit: &UnitView, as_what: &str) -> CommandError {
    let error = CommandError::new(format!(
        "Unit {} does not appear to be {as_what}.",
        unit.name
    ));
    match unit.reason.as_str() {
        "" => error,
        reason => error.hint(format!("{}: {reason}", unit.name)),
    }
}

fn one_machine<'m>(
    machines: &'m [MachineView],
    prefix: &str,
) -> Result<&'m MachineView, CommandError> {
    match with_prefix(machines, prefix).as_slice() {
        [] => Err(unable("machine does not exist")
            .hint("fleetctl list-machines shows the ids; any beginning of one will do")),
        [machine] => Ok(machine),
        several => Err(unable("found more than one machine").hint(named(several))),
    }
}

fn either<'m>(
    machines: &'m [MachineView],
    unit: Option<&UnitView>,
    text: &str,
) -> Result<&'m MachineView, CommandError> {
    let matching = with_prefix(machines, text);
    let of_unit = unit
        .filter(|unit| !unit.global)
        .and_then(|unit| machine_of(machines, unit));
    match (matching.as_slice(), of_unit) {
        ([_], Some(_)) => Err(unable(&format!(
            "ambiguous argument, both machine and unit found for `{text}`.\n\
             Please use flag `--machine` or `--unit` to say which one is meant"
        ))),
        ([machine], None) => Ok(machine),
        (_, Some(machine)) => Ok(machine),
        (several, None) => {
            let error = unable("could not find matching unit or machine");
            let hint = match unit {
                Some(unit) if unit.global => global_hint(unit),
                Some(unit) => nowhere_hint(unit),
                None if several.is_empty() => {
                    Some("fleetctl list-machines and list-units show what there is".to_owned())
                }
                None => Some(named(several)),
            };
            Err(with_hint(error, hint))
        }
    }
}

fn with_prefix<'m>(machines: &'m [MachineView], prefix: &str) -> Vec<&'m MachineView> {
    let exact = machines.iter().find(|machine| machine.id == prefix);
    match exact {
        Some(machine) => vec![machine],
        None => machines
            .iter()
            .filter(|machine| machine.id.starts_with(prefix))
            .collect(),
    }
}

fn machine_of<'m>(machines: &'m [MachineView], unit: &UnitView) -> Option<&'m MachineView> {
    let id = unit.machine_id.as_deref()?;
    machines.iter().find(|machine| machine.id == id)
}

fn nowhere(unit: &UnitView) -> CommandError {
    with_hint(no_address(), nowhere_hint(unit))
}

fn nowhere_hint(unit: &UnitView) -> Option<String> {
    Some(match unit.reason.as_str() {
        "" => format!("{} is on no machine that answers", unit.name),
        reason => format!("{} is on no machine that answers: {reason}", unit.name),
    })
}

fn global_hint(unit: &UnitView) -> Option<String> {
    let ids = unit.states.iter().take(MAX_NAMED);
    let ids: Vec<String> = ids.map(|state| short_id(&state.machine_id)).collect();
    (!ids.is_empty()).then(|| format!("{} is on {}; name one", unit.name, ids.join(", ")))
}

fn named(machines: &[&MachineView]) -> String {
    let shown = machines.iter().take(MAX_NAMED);
    let shown: Vec<&str> = shown.map(|machine| machine.id.as_str()).collect();
    let more = match machines.len() - shown.len() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("it is the beginning of {}{more}", shown.join(", "))
}

fn no_address() -> CommandError {
    CommandError::new("Could not determine address of machine.")
}

fn unable(why: &str) -> CommandError {
    CommandError::new(format!("Unable to proceed: {why}"))
}

fn with_hint(error: CommandError, hint: Option<String>) -> CommandError {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests;
