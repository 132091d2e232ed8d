//! What the engine has decided, in the log, once it is in the store: in the words by which the
//! original's users look for it, and with the kind of its event.

use fleet_core::plan::{Change, Subject, Write};
use fleet_core::records::{MachineId, Order};
use tracing::info;

use crate::store::Revision;

/// Says what was decided, and why.
pub(super) fn decided(change: &Change, revision: Revision) {
    let reason = &change.reason;
    let kind_at = |machine: Option<&MachineId>| {
        let mut events = change.events.iter();
        let event = events.find(|event| machine.is_none() || event.machine.as_ref() == machine);
        event.map(|event| event.kind.as_str())
    };
    let unit = match &change.subject {
        Subject::Machine(machine) => {
            let kind = kind_at(None);
            return info!(kind, %machine, reason, revision, "Machine({machine})");
        }
        Subject::Unit(unit) => unit,
    };
    let mut is_said = false;
    for write in &change.writes {
        let Write::Assignment(machine, _, Some(assignment)) = write else {
            continue;
        };
        is_said = true;
        let order = assignment.order.as_str();
        let kind = kind_at(Some(machine));
        match assignment.order {
            Order::Loaded | Order::Launched => {
                info!(kind, %unit, %machine, order, reason, revision, "Scheduled Unit({unit}) to Machine({machine})");
            }
            Order::Gone => {
                info!(kind, %unit, %machine, reason, revision, "Unscheduled Job({unit}) from Machine({machine})");
            }
        }
    }
    if !is_said {
        let kind = kind_at(None);
        info!(kind, %unit, reason, revision, "Unit({unit})");
    }
}
