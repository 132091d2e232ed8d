//! What would end a refusal: the cure for each reason that a machine is given not to run a unit.
//!
//! Reasons are stored as words, and a fleetctl may be newer than the fleetd that wrote them: what is
//! not known has no cure here, and stands for itself.

use crate::schedule::STRAY_THERE;

/// What somebody can do about a refusal of `unit`, as `PlacementRecord` holds it; None: its words
/// say it themselves, or nothing can be done but wait.
#[must_use]
pub fn cure(unit: &str, refusal: &str) -> Option<String> {
    let after = |prefix: &str| refusal.strip_prefix(prefix);
    let is_stopping = refusal.ends_with(STILL_STOPPING);
    if is_stopping {
        return Some(format!(
            "wait until its machine has stopped the unit in the way: fleetctl why {}",
            in_the_way(refusal)?
        ));
    }
    if let Some(status) = after("the machine is ") {
        return Some(match status {
            "cordoned" | "being drained" => {
                "fleetctl uncordon MACHINE lets it take units again".to_owned()
            }
            _ => "bring the machine back: fleetctl list-machines --all names it, and fleetctl why \
                  MACHINE says more"
                .to_owned(),
        });
    }
    if let Some(id) = after("MachineID ") {
        return Some(format!(
            "have machine {id} join, or change MachineID= and hand the unit in with --replace"
        ));
    }
    if let Some(pairs) = after("MachineMetadata ") {
        return Some(format!(
            "give a machine {pairs} (metadata= in its fleet.conf), or change MachineMetadata= and \
             hand the unit in with --replace"
        ));
    }
    if let Some(peer) = after("MachineOf ") {
        return Some(match peer.strip_suffix(" is not placed") {
            Some(peer) => format!("fleetctl start {peer}, or see fleetctl why {peer}"),
            None => {
                let peer = peer.strip_suffix(" is on another machine").unwrap_or(peer);
                format!("make room for {unit} where {peer} is: fleetctl why {peer} says where")
            }
        });
    }
    if refusal.starts_with("Conflicts with ") || refusal.ends_with(" conflicts with it") {
        return Some(format!(
            "stop {}, add a machine, or take Conflicts= out of the unit file",
            in_the_way(refusal)?
        ));
    }
    if refusal.starts_with("Replaces ") || refusal.ends_with(" replaces it there") {
        return Some(format!("stop {}, or add a machine", in_the_way(refusal)?));
    }
    if refusal.starts_with("the machine refused it: ") {
        return Some(format!(
            "mend what the machine says, then fleetctl start {unit} has it tried again at once"
        ));
    }
    if refusal == STRAY_THERE {
        return Some(
            "wait until that machine has stopped it; if it does not believe this store, \
             fleetctl doctor names it and the cure"
                .to_owned(),
        );
    }
    if refusal.starts_with("it failed there: ") {
        return Some(format!(
            "see fleetctl journal {unit}; fleetctl start {unit} has it tried again at once"
        ));
    }
    if refusal.starts_with("a record of the machine cannot be read") {
        return Some("fleetctl doctor names the damaged record".to_owned());
    }
    if refusal.starts_with("systemd cannot be reached") {
        return Some("see systemctl status and the journal of fleet.service there".to_owned());
    }
    if refusal.ends_with("has not surely stopped yet") {
        return Some(
            "have that machine come back, or wait: its lease ends what may run there, and \
             fleetctl list-machines --all names it"
                .to_owned(),
        );
    }
    if let Some(follower) = refusal.strip_suffix(", which follows it, cannot come along") {
        return Some(format!("see fleetctl why {follower}"));
    }
    None
}

/// Behind a unit that is only in the way until it has stopped.
const STILL_STOPPING: &str = " (still stopping)";

/// The unit or pattern that a refusal names.
fn in_the_way(refusal: &str) -> Option<&str> {
    let words = refusal.strip_suffix(STILL_STOPPING).unwrap_or(refusal);
    let named = ["Conflicts with ", "Replaces "];
    let begins = named.iter().find_map(|prefix| words.strip_prefix(prefix));
    match begins {
        Some(rest) => rest.split(',').next(),
        None => words.split(' ').next(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::glob::Glob;
    use crate::name::UnitName;
    use crate::records::MachineId;
    use crate::schedule::{No, Stopping};

    #[test]
    fn each_refusal_that_somebody_can_end_has_its_cure() {
        let unit = |name: &str| UnitName::parse(name).unwrap();
        let (stays, stops) = (Stopping(false), Stopping(true));
        for (no, expected) in [
            (
                No::Closed("the machine is cordoned".into()),
                "fleetctl uncordon",
            ),
            (
                No::Closed("the machine is being drained".into()),
                "fleetctl uncordon",
            ),
            (
                No::Closed("the machine is lost".into()),
                "bring the machine back",
            ),
            (
                No::Closed("systemd cannot be reached: no bus".into()),
                "see systemctl status",
            ),
            (
                No::Closed("a record of the machine cannot be read (Presence)".into()),
                "fleetctl doctor",
            ),
            (
                No::MayStillRun(MachineId::new("63d22e369175433883a37d92cc53f36c")),
                "have that machine come back, or wait",
            ),
            (No::MachineId("abc".into()), "have machine abc join"),
            (
                No::Metadata("region=eu or region=us".into()),
                "give a machine region=eu or region=us (metadata=",
            ),
            (
                No::PeerNowhere("db.service".into()),
                "fleetctl start db.service",
            ),
            (
                No::PeerElsewhere("db.service".into()),
                "make room for a.service where db.service is",
            ),
            (
                No::Conflicts(Glob::new("b*.service"), stays),
                "stop b*.service, add",
            ),
            (
                No::Conflicts(Glob::new("b.service"), stops),
                "wait until its machine has stopped the unit in the way: fleetctl why b.service",
            ),
            (
                No::ConflictOf(unit("b.service"), stays),
                "stop b.service, add",
            ),
            (No::ConflictOf(unit("b.service"), stops), "wait until"),
            (No::ReplacedBy(unit("b.service")), "stop b.service, or"),
            (No::ReplacesFixed(unit("b.service")), "stop b.service, or"),
            (No::StrayThere, "wait until that machine has stopped it"),
            (
                No::RefusedByAgent(Arc::from("no")),
                "mend what the machine says",
            ),
            (
                No::FailedThere(Arc::from("exit code 1")),
                "see fleetctl journal a.service",
            ),
            (
                No::Follower(unit("b.service")),
                "see fleetctl why b.service",
            ),
        ] {
            assert!(can_be_ended(&no), "{no:?}");
            let words = no.to_string();
            let cure = cure("a.service", &words).unwrap_or_default();
            assert!(cure.starts_with(expected), "{words}: {cure:?}");
        }
    }

    /// Whoever adds a refusal says here whether somebody can end it, and its cure above.
    fn can_be_ended(no: &No) -> bool {
        match no {
            // Its words say what to do.
            No::NotLoadable(_) | No::InDoubt(_) => false,
            No::Closed(_)
            | No::MayStillRun(_)
            | No::MachineId(_)
            | No::Metadata(_)
            | No::PeerNowhere(_)
            | No::PeerElsewhere(_)
            | No::Conflicts(..)
            | No::ConflictOf(..)
            | No::ReplacesFixed(_)
            | No::ReplacedBy(_)
            | No::StrayThere
            | No::RefusedByAgent(_)
            | No::FailedThere(_)
            | No::Follower(_) => true,
        }
    }

    #[test]
    fn what_says_its_cure_itself_or_is_not_known_has_none() {
        let id = MachineId::new("63d22e369175433883a37d92cc53f36c");
        let doubt = No::InDoubt(id).to_string();
        assert!(doubt.contains("fleetctl accept-store"), "{doubt}");
        for words in [&doubt, "", "something that a later fleetd says"] {
            assert_eq!(cure("a.service", words), None, "{words}");
        }
    }
}
