//! What the engine has decided, in the log: in the words by which the original's users look for it.

use fleet_core::plan::{Change, Subject, Write};
use fleet_core::records::Order;
use tracing::info;

/// Says what was decided, and why.
pub(super) fn decided(change: &Change) {
    let reason = &change.reason;
    let unit = match &change.subject {
        Subject::Machine(machine) => return info!(%machine, reason, "Machine({machine})"),
        Subject::Unit(unit) => unit,
    };
    let mut is_said = false;
    for write in &change.writes {
        let Write::Assignment(machine, _, Some(assignment)) = write else {
            continue;
        };
        is_said = true;
        let order = assignment.order.as_str();
        match assignment.order {
            Order::Loaded | Order::Launched => {
                info!(%unit, %machine, order, reason, "Scheduled Unit({unit}) to Machine({machine})");
            }
            Order::Gone => {
                info!(%unit, %machine, reason, "Unscheduled Job({unit}) from Machine({machine})");
            }
        }
    }
    if !is_said {
        info!(%unit, reason, "Unit({unit})");
    }
}
