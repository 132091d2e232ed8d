//! Moving on from another cluster: what it holds, and what is to be done about each of it here.
//! Nothing is asked or sent in this file, and nothing is ever written to the old cluster.
//!
//! - [`old`]: an old cluster, read from an original's etcd or from a fleetd's API, becomes [`Old`].
//! - here: [`plan`] compares it with the new cluster.

use std::collections::BTreeMap;

use fleet_api::v1::MetadataOp;
use fleet_api::v2::{MachineView, UnitView, UnitWish};
use fleet_core::unit_file::UnitFile;

use crate::commands::listing::PRESENT;
use crate::report::{Goal, short_id};

pub(crate) mod old;

/// An old cluster.
#[derive(Debug, Default)]
pub(crate) struct Old {
    /// In byte order of their names.
    pub(crate) units: Vec<OldUnit>,
    /// In order of their ids.
    pub(crate) machines: Vec<OldMachine>,
    /// What else is to be said about it.
    pub(crate) remarks: Vec<String>,
}

/// A unit of an old cluster.
#[derive(Debug)]
pub(crate) struct OldUnit {
    pub(crate) name: String,
    /// Checked as fleetd checks it; or why it cannot be brought over.
    pub(crate) contents: Result<Contents, String>,
    /// Where it is placed.
    pub(crate) machine: Option<String>,
}

/// What there is to bring over of a unit.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) file: UnitFile,
    pub(crate) desired: Goal,
    /// It runs on every machine that qualifies.
    pub(crate) global: bool,
    /// What its user should know.
    pub(crate) remarks: Vec<String>,
}

/// A machine of an old cluster.
#[derive(Debug)]
pub(crate) struct OldMachine {
    pub(crate) id: String,
    /// In order of the keys.
    pub(crate) metadata: Vec<Metadata>,
    /// Why something of it cannot be brought over.
    pub(crate) fault: Option<String>,
}

/// One key of a machine's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) key: String,
    /// Empty: it hides the key of the configuration.
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Where metadata comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Set at run time, and kept by the cluster.
    Set,
    /// The machine's own fleet.conf.
    Conf,
    /// One of both: the API does not say.
    Unknown,
}

impl Origin {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Origin::Set => "set",
            Origin::Conf => "fleet.conf",
            Origin::Unknown => "unknown",
        }
    }
}

/// What the user allows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    /// What is here already may be changed.
    pub(crate) replace: bool,
    /// Metadata of configurations is set, too.
    pub(crate) all_metadata: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) units: Vec<UnitStep>,
    pub(crate) machines: Vec<MachineStep>,
}

/// What is to be done about a unit.
#[derive(Debug)]
pub(crate) struct UnitStep {
    pub(crate) name: String,
    /// Short; empty if there are no contents.
    pub(crate) hash: String,
    pub(crate) desired: &'static str,
    /// The machine that it stays on.
    pub(crate) machine: Option<String>,
    pub(crate) action: Action,
    /// Why it is not done, or what to know about it.
    pub(crate) why: String,
    /// None: nothing is asked of fleetd.
    pub(crate) wish: Option<UnitWish>,
}

/// What is to be done about a key of a machine's metadata.
#[derive(Debug)]
pub(crate) struct MachineStep {
    pub(crate) machine: String,
    pub(crate) metadata: Metadata,
    pub(crate) action: Action,
    pub(crate) why: String,
    /// None: nothing is asked of fleetd.
    pub(crate) op: Option<MetadataOp>,
}

/// The kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is not here yet.
    Create,
    /// It is here with other contents, which may be replaced.
    Replace,
    /// It is here with another desired state, which may be changed; metadata is set.
    Set,
    /// It is here already.
    Same,
    /// It is the user's to do.
    Leave,
    /// It is not brought over.
    Refuse,
}

impl Action {
    /// Before it is done.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Replace => "replace",
            Action::Set => "set",
            Action::Same => "same",
            Action::Leave => "leave",
            Action::Refuse => "refuse",
        }
    }

    /// When it is done.
    pub(crate) fn done(self) -> &'static str {
        match self {
            Action::Create => "created",
            Action::Replace => "replaced",
            Action::Set => "set",
            Action::Same => "same",
            Action::Leave => "left",
            Action::Refuse => "refused",
        }
    }
}

/// Compares an old cluster with this one: its units by name, and its machines.
pub(crate) fn plan(
    old: &Old,
    units: &BTreeMap<String, UnitView>,
    machines: &[MachineView],
    rules: Rules,
) -> Plan {
    let steps = old.units.iter();
    let steps = steps.map(|unit| unit_step(unit, units.get(&unit.name), machines, rules));
    let mut plan = Plan {
        units: steps.collect(),
        machines: Vec::new(),
    };
    for machine in &old.machines {
        let here = machines.iter().find(|here| here.id == machine.id);
        let steps = machine.metadata.iter();
        plan.machines
            .extend(steps.map(|metadata| machine_step(&machine.id, metadata, here, rules)));
        plan.machines
            .extend(machine.fault.iter().map(|why| unreadable(&machine.id, why)));
    }
    plan
}

fn unit_step(
    unit: &OldUnit,
    here: Option<&UnitView>,
    machines: &[MachineView],
    rules: Rules,
) -> UnitStep {
    let contents = match &unit.contents {
        Ok(contents) => contents,
        Err(why) => {
            return UnitStep {
                name: unit.name.clone(),
                hash: String::new(),
                desired: "",
                machine: None,
                action: Action::Refuse,
                why: why.clone(),
                wish: None,
            };
        }
    };
    let hash = contents.file.hash();
    let desired = contents.desired.as_str();
    let mut remarks = contents.remarks.clone();
    let action = match here {
        None => Action::Create,
        Some(here) if here.hash != hash.to_string() => match rules.replace {
            true => Action::Replace,
            false => {
                let other = here.hash.get(..7).unwrap_or(&here.hash);
                remarks = vec![format!(
                    "there is one with other contents here ({other}, {}); --replace replaces it",
                    here.desired_state
                )];
                Action::Refuse
            }
        },
        Some(here) if here.desired_state != desired => {
            let state = &here.desired_state;
            remarks = vec![match rules.replace {
                true => format!("it was {state} here"),
                false => format!("it is {state} here and stays so; --replace changes that"),
            }];
            match rules.replace {
                true => Action::Set,
                false => Action::Same,
            }
        }
        Some(_) => {
            remarks.clear();
            Action::Same
        }
    };
    let mut machine = None;
    // Whatever else may run there, a new unit runs there already.
    if let (Action::Create, Some(id)) = (action, &unit.machine)
        && contents.desired != Goal::Inactive
        && !contents.global
    {
        if machines
            .iter()
            .any(|here| here.id == *id && here.status == PRESENT)
        {
            machine = Some(id.clone());
        } else {
            remarks.push(format!(
                "it is on {} there, which is not present here: it is placed anew",
                short_id(id)
            ));
        }
    }
    let is_to_do = matches!(action, Action::Create | Action::Replace | Action::Set);
    UnitStep {
        name: unit.name.clone(),
        hash: hash.short(),
        desired,
        machine: machine.clone(),
        action,
        why: remarks.join("; "),
        wish: is_to_do.then(|| UnitWish {
            name: unit.name.clone(),
            text: Some(contents.file.to_text()),
            replace: action == Action::Replace,
            desired_state: Some(desired.to_owned()),
            prefer: machine,
            ..UnitWish::default()
        }),
    }
}

fn machine_step(
    id: &str,
    metadata: &Metadata,
    here: Option<&MachineView>,
    rules: Rules,
) -> MachineStep {
    let value = here.and_then(|here| here.metadata.get(&metadata.key));
    let is_hidden = metadata.value.is_empty();
    // What this cluster does not know yet may be hidden all the same.
    let is_same = match value {
        Some(value) => *value == metadata.value,
        None => is_hidden && here.is_some(),
    };
    let (action, why) = match metadata.origin {
        _ if is_same => (Action::Same, String::new()),
        Origin::Conf if !rules.all_metadata => (
            Action::Leave,
            "put it into that machine's fleet.conf, or set it with --static-metadata".to_owned(),
        ),
        Origin::Unknown if !rules.all_metadata => (
            Action::Leave,
            "the API does not say whether it is set or configured: put it into that machine's \
             fleet.conf, or set it with --static-metadata"
                .to_owned(),
        ),
        _ => match value {
            Some(value) => (Action::Set, format!("it is {value} here")),
            None => (Action::Set, String::new()),
        },
    };
    let op = (action == Action::Set).then(|| MetadataOp {
        op: if is_hidden { "remove" } else { "add" }.to_owned(),
        path: format!("/{id}/metadata/{}", metadata.key),
        value: metadata.value.clone(),
    });
    MachineStep {
        machine: id.to_owned(),
        metadata: metadata.clone(),
        action,
        why,
        op,
    }
}

/// A machine's configured metadata cannot be shown.
fn unreadable(id: &str, why: &str) -> MachineStep {
    MachineStep {
        machine: id.to_owned(),
        metadata: Metadata {
            key: String::new(),
            value: String::new(),
            origin: Origin::Conf,
        },
        action: Action::Leave,
        why: why.to_owned(),
        op: None,
    }
}

impl Plan {
    /// Some step is of this kind.
    pub(crate) fn has(&self, action: Action) -> bool {
        let units = self.units.iter().map(|step| step.action);
        let machines = self.machines.iter().map(|step| step.action);
        units.chain(machines).any(|kind| kind == action)
    }
}
