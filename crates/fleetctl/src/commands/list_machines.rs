//! `fleetctl list-machines`

use fleet_api::client::Error;
use fleet_api::v2::MachineView;

use crate::commands::listing::{Field, ListFlags, PRESENT, Printing, to_json};
use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::report::short_id;

/// Blanks behind the machine and behind its address.
const GUTTERS: &[usize] = &[5, 3];

/// The original's default.
const DEFAULT_FIELDS: &str = "machine,ip,metadata";

/// So many absent machines are named.
const MAX_NAMED: usize = 10;

const FIELDS: &[Field<MachineView>] = &[
    Field {
        name: "machine",
        cell: |machine, full| match full {
            true => machine.id.clone(),
            false => short_id(&machine.id),
        },
    },
    Field {
        name: "ip",
        cell: |machine, _| machine.primary_ip.clone(),
    },
    Field {
        name: "metadata",
        cell: |machine, _| metadata(machine),
    },
    Field {
        name: "status",
        cell: |machine, _| machine.status.clone(),
    },
    Field {
        name: "version",
        cell: |machine, _| machine.version.clone(),
    },
];

/// List the machines that are present
///
/// Machines that are not present at the moment are named on stderr, and those that are cordoned,
/// being drained, or avoided because many units failed there, too; --all lists all with their status. Fields: machine, ip, metadata, status, version.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    list: ListFlags,

    /// List machines that are not present, too, with a column STATUS
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let flags = &args.list;
    let original = flags.original(FIELDS, DEFAULT_FIELDS)?;
    let mut machines = context.fleet.machines().await.map_err(failed)?;
    if flags.is_json() {
        context.ui.data(&to_json(&machines)?);
        return Ok(Exit::Success);
    }
    let mut absent = Vec::new();
    if !args.all {
        (machines, absent) = machines.into_iter().partition(|m| m.status == PRESENT);
    }
    let table = match original {
        Some(fields) => {
            let mut table = Printing::original(context.ui, flags, &fields);
            for machine in &machines {
                table.fields(&fields, machine, flags.full);
            }
            table
        }
        None => {
            let mut header = vec!["MACHINE", "IP"];
            header.extend(args.all.then_some("STATUS"));
            header.push("METADATA");
            let mut table = Printing::ours(context.ui, flags, &header, GUTTERS);
            for machine in &machines {
                let metadata = metadata(machine);
                let mut row = vec![machine.id.as_str(), &machine.primary_ip];
                row.extend(args.all.then_some(machine.status.as_str()));
                row.push(&metadata);
                table.row(row);
            }
            table
        }
    };
    table.finish(Ok(()))?;
    for machine in machines.iter().filter(|machine| machine.trouble.is_some()) {
        let trouble = machine.trouble.as_deref().unwrap_or_default();
        context
            .ui
            .warning(&format!("machine {}: {trouble}", machine.id));
    }
    tell_avoided(context, &machines);
    let cordoned = |machine: &&MachineView| machine.cordoned && !machine.draining;
    tell_closed(context, "Draining", machines.iter().filter(|m| m.draining));
    tell_closed(context, "Cordoned", machines.iter().filter(cordoned));
    tell_absent(context, &absent);
    Ok(Exit::Success)
}

/// `k=v,k=v`
fn metadata(machine: &MachineView) -> String {
    let pairs = machine
        .metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// `Cordoned: 148a…, 491586…`
fn tell_closed<'m>(
    context: &Context<'_>,
    what: &str,
    machines: impl Iterator<Item = &'m MachineView>,
) {
    let ids: Vec<&str> = machines.map(|machine| machine.id.as_str()).collect();
    if ids.is_empty() {
        return;
    }
    let more = match ids.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let named = ids.get(..MAX_NAMED).unwrap_or(&ids).join(", ");
    context.ui.note(&format!("{what}: {named}{more}"));
}

/// `Avoided: 148a… (3 of the last 5 units failed there within 10 min: a.service, …)`
fn tell_avoided(context: &Context<'_>, machines: &[MachineView]) {
    let avoided: Vec<(&MachineView, &String)> = machines
        .iter()
        .filter_map(|machine| Some((machine, machine.avoided.as_ref()?)))
        .collect();
    for (machine, why) in avoided.iter().take(MAX_NAMED) {
        context.ui.note(&format!("Avoided: {} ({why})", machine.id));
    }
    if let Some(n) = avoided.len().checked_sub(MAX_NAMED).filter(|n| *n > 0) {
        context.ui.note(&format!("Avoided: {n} more"));
    }
    if !avoided.is_empty() {
        context.ui.hint(
            "new units come to them last, until one runs well there or fleetctl uncordon trusts \
             them again",
        );
    }
}

fn tell_absent(context: &Context<'_>, absent: &[MachineView]) {
    // A retired machine is not expected back.
    let absent: Vec<&MachineView> = absent.iter().filter(|m| m.status != "retired").collect();
    if absent.is_empty() {
        return;
    }
    let named = absent.iter().take(MAX_NAMED);
    let named = named.map(|machine| format!("{} ({})", machine.id, machine.status));
    let mut text = format!("Not present: {}", named.collect::<Vec<_>>().join(", "));
    if absent.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", absent.len() - MAX_NAMED));
    }
    context.ui.note(&text);
    if absent.iter().any(|machine| machine.frozen) {
        context.ui.warning(
            "too many machines vanished at once: their units are not moved, since more likely \
             nobody can see them",
        );
        context
            .ui
            .hint("if they are really gone, fleetctl thaw has their units started elsewhere");
    }
}

fn failed(error: Error) -> CommandError {
    let api = CommandError::api("", &error);
    if matches!(error, Error::NoWay(_)) {
        return api;
    }
    let mut message = format!(
        "Error retrieving list of active machines from fleet API ({})",
        api.message
    );
    // Whoever refuses a request (4xx) has said why: then it is not the store.
    if error.code().is_some_and(|code| code >= 500) {
        message.push_str(
            "\nPossible issues:\n  etcd is unhealthy and/or lost quorum\n  \
             connection cannot be established to any etcd servers",
        );
    }
    CommandError { message, ..api }
}
