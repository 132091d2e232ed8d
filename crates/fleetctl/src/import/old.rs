//! An old cluster: read from an original's registry in etcd, or from the API of any fleetd, and
//! checked as this fleet checks what people hand in.

use fleet_api::client::{Client, Error, RegistryError};
use fleet_api::registry::{Registry, RegistryMachine, RegistryUnit};
use fleet_api::v1::{Machine, Unit};
use fleet_core::name::UnitName;
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::UnitFile;
use fleet_core::validate::{UnknownKeys, validate_unit};

use super::{Contents, Metadata, Old, OldMachine, OldUnit, Origin};
use crate::fleet::options_of;
use crate::report::Goal;

/// So many left-over names are named.
const MAX_NAMED: usize = 5;

/// Reads an original's registry; of several etcds the first that answers is asked.
///
/// # Errors
/// What the last of them said.
pub(crate) async fn from_etcd(
    clients: &[Client],
    prefix: &str,
    unknown: UnknownKeys,
    skipped: &mut Vec<String>,
) -> Result<Old, RegistryError> {
    let mut last = RegistryError::NoKeys;
    for client in clients {
        match client.registry(prefix).await {
            Ok(registry) => return Ok(of_registry(&registry, unknown)),
            // Another member may answer.
            Err(error @ RegistryError::Request(_)) => {
                skipped.push(format!("{}: {error}", client.endpoint()));
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Reads a cluster by API v1, which every fleetd speaks.
///
/// # Errors
/// Those of the requests.
pub(crate) async fn from_fleet(client: &Client, unknown: UnknownKeys) -> Result<Old, Error> {
    let units = client.units().await?;
    let machines = client.machines().await?;
    Ok(of_api(&units, &machines, unknown))
}

fn of_registry(registry: &Registry, unknown: UnknownKeys) -> Old {
    let units = registry.units.iter();
    let units = units.map(|unit| OldUnit {
        name: unit.name.clone(),
        contents: of_registry_unit(unit, unknown),
        machine: unit.machine.clone(),
    });
    let mut remarks = Vec::new();
    if !registry.left_over.is_empty() {
        let named = registry.left_over.iter().take(MAX_NAMED);
        let named: Vec<&str> = named.map(String::as_str).collect();
        let more = match registry.left_over.len() - named.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        remarks.push(format!(
            "Passed over what is left of destroyed units: {}{more}",
            named.join(", ")
        ));
    }
    Old {
        units: units.collect(),
        machines: registry.machines.iter().map(of_registry_machine).collect(),
        remarks,
    }
}

fn of_registry_unit(unit: &RegistryUnit, unknown: UnknownKeys) -> Result<Contents, String> {
    let file = unit.file.as_ref().map_err(Clone::clone)?;
    let desired = goal(&unit.target_state).ok_or_else(|| {
        format!(
            "its target state {:?} is none of inactive, loaded and launched: \
             set {} to one of them with etcdctl",
            unit.target_state, unit.target_state_key
        )
    })?;
    let parsed = UnitFile::parse(&file.text).map_err(|error| error.to_string())?;
    let mut contents = checked(&unit.name, &parsed, desired, unknown)?;
    let hash = contents.file.hash();
    if hash.to_string() != file.hash {
        contents.remarks.push(format!(
            "its hash was {}: it is restarted where it runs",
            file.hash.get(..7).unwrap_or(&file.hash)
        ));
    }
    Ok(contents)
}

fn of_registry_machine(machine: &RegistryMachine) -> OldMachine {
    let set = machine.overrides.iter().map(|(key, value)| Metadata {
        key: key.clone(),
        value: value.clone(),
        origin: Origin::Set,
    });
    let configured = machine.metadata.iter().flatten();
    let configured = configured
        .filter(|(key, _)| !machine.overrides.contains_key(*key))
        .map(|(key, value)| Metadata {
            key: key.clone(),
            value: value.clone(),
            origin: Origin::Conf,
        });
    let mut metadata: Vec<Metadata> = set.chain(configured).collect();
    metadata.sort_by(|a, b| a.key.cmp(&b.key));
    OldMachine {
        id: machine.id.clone(),
        metadata,
        fault: machine.damage.clone(),
    }
}

fn of_api(units: &[Unit], machines: &[Machine], unknown: UnknownKeys) -> Old {
    let mut units: Vec<OldUnit> = units
        .iter()
        .map(|unit| OldUnit {
            name: unit.name.clone(),
            contents: of_api_unit(unit, unknown),
            machine: Some(unit.machine_id.clone()).filter(|id| !id.is_empty()),
        })
        .collect();
    units.sort_by(|a, b| a.name.cmp(&b.name));
    let machines = machines.iter().map(|machine| OldMachine {
        id: machine.id.clone(),
        metadata: machine
            .metadata
            .iter()
            .map(|(key, value)| Metadata {
                key: key.clone(),
                value: value.clone(),
                origin: Origin::Unknown,
            })
            .collect(),
        fault: None,
    });
    Old {
        units,
        machines: machines.collect(),
        remarks: Vec::new(),
    }
}

fn of_api_unit(unit: &Unit, unknown: UnknownKeys) -> Result<Contents, String> {
    let desired = match unit.desired_state.as_str() {
        "" => Goal::Inactive,
        word => goal(word).ok_or_else(|| {
            format!("its desired state {word:?} is none of inactive, loaded and launched")
        })?,
    };
    let file = UnitFile::from_options(options_of(unit));
    checked(&unit.name, &file, desired, unknown)
}

/// As fleetd checks what is handed in, so that a dry run says what fleetd would.
fn checked(
    name: &str,
    file: &UnitFile,
    desired: Goal,
    unknown: UnknownKeys,
) -> Result<Contents, String> {
    let name = UnitName::parse(name).map_err(|error| error.to_string())?;
    if file.options().is_empty() {
        return Err("its unit file is empty".to_owned());
    }
    let warnings = validate_unit(Some(&name), file, unknown).map_err(|error| error.message())?;
    let mut remarks: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let mut goal = desired;
    if name.is_template() && desired != Goal::Inactive {
        remarks.push(format!("a template cannot be {}", desired.as_str()));
        goal = Goal::Inactive;
    }
    let file = file.normalized().map_err(|error| error.to_string())?;
    Ok(Contents {
        global: Requirements::parse(&file, Some(&name)).0.global,
        file,
        desired: goal,
        remarks,
    })
}

fn goal(word: &str) -> Option<Goal> {
    [Goal::Inactive, Goal::Loaded, Goal::Launched]
        .into_iter()
        .find(|goal| goal.as_str() == word)
}
