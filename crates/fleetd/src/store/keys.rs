//! How keys are spelled. No other module may do it.
//!
//! Keys are relative to the cluster's prefix (`etcd_key_prefix`). Neither unit names nor machine
//! ids contain a `/`, so the parts of a key are unambiguous.

use std::fmt;

/// Who the cluster is: a random id, written once.
pub const CLUSTER: &str = "cluster";
/// Who leads; its create-revision is the engine's fence.
pub const LEADER: &str = "leader";
/// The last time that somebody asked to end a freeze.
pub const THAW: &str = "thaw";
/// The last time that somebody said that machines shall believe this store.
pub const ACCEPT_STORE: &str = "accept-store";
/// Wishes.
pub const UNITS: &str = "units/";
/// Where units are, for people.
pub const PLACEMENTS: &str = "placements/";
/// What machines must run, for agents.
pub const ASSIGNMENTS: &str = "assignments/";
/// Presence, under the machines' leases.
pub const MACHINES: &str = "machines/";
/// The lasting records of machines.
pub const MEMBERS: &str = "members/";
/// What users ask of machines.
pub const MACHINE_WISHES: &str = "machine-wishes/";
/// How units are, as their machines report.
pub const STATES: &str = "states/";
/// How far each machine's own writes have come, so that it knows an older copy of the store.
pub const MARKS: &str = "marks/";
/// Whose certificates are not believed any more.
pub const REVOKED: &str = "revoked/";
/// Join tokens that have been used, until they end.
pub const USED_TOKENS: &str = "used-tokens/";
/// Machines that have certificates, and until when.
pub const CERTIFIED: &str = "certified/";
/// Machines that issue certificates.
pub const ISSUERS: &str = "issuers/";
/// What was decided and what happened, a ring for each writer.
pub const EVENTS: &str = "events/";
/// No key is between the events and this, and all of theirs are before it.
pub const AFTER_EVENTS: &str = "events0";

/// `units/<unit>`
pub fn unit(unit: &str) -> String {
    format!("{UNITS}{unit}")
}

/// `placements/<unit>`
pub fn placement(unit: &str) -> String {
    format!("{PLACEMENTS}{unit}")
}

/// `assignments/<machine>/<unit>`
pub fn assignment(machine: &str, unit: &str) -> String {
    format!("{ASSIGNMENTS}{machine}/{unit}")
}

/// `assignments/<machine>/`, the prefix that an agent watches.
pub fn assignments_of(machine: &str) -> String {
    format!("{ASSIGNMENTS}{machine}/")
}

/// `machines/<id>`
pub fn machine(id: &str) -> String {
    format!("{MACHINES}{id}")
}

/// `members/<id>`
pub fn member(id: &str) -> String {
    format!("{MEMBERS}{id}")
}

/// `machine-wishes/<id>`
pub fn machine_wish(id: &str) -> String {
    format!("{MACHINE_WISHES}{id}")
}

/// `states/<unit>/<machine>`
pub fn state(unit: &str, machine: &str) -> String {
    format!("{STATES}{unit}/{machine}")
}

/// `states/<unit>/`
pub fn states_of(unit: &str) -> String {
    format!("{STATES}{unit}/")
}

/// `marks/<id>`
pub fn mark(id: &str) -> String {
    format!("{MARKS}{id}")
}

/// `revoked/<name>`
pub fn revoked(name: &str) -> String {
    format!("{REVOKED}{name}")
}

/// `used-tokens/<id>`
pub fn used_token(id: &str) -> String {
    format!("{USED_TOKENS}{id}")
}

/// `certified/<id>`
pub fn certified(id: &str) -> String {
    format!("{CERTIFIED}{id}")
}

/// `issuers/<id>`
pub fn issuer(id: &str) -> String {
    format!("{ISSUERS}{id}")
}

/// Who writes a ring of events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EventWriter<'a> {
    /// Whoever leads.
    Engine,
    /// The agent of this machine.
    Agent(&'a str),
    /// The API of this machine.
    Api(&'a str),
    /// The API of this machine, of what it has refused.
    Denials(&'a str),
}

impl<'a> EventWriter<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        match text.split_once('-') {
            None if text == "engine" => Some(EventWriter::Engine),
            Some(("agent", machine)) => Some(EventWriter::Agent(machine)),
            Some(("api", machine)) => Some(EventWriter::Api(machine)),
            Some(("denials", machine)) => Some(EventWriter::Denials(machine)),
            _ => None,
        }
    }
}

impl fmt::Display for EventWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventWriter::Engine => f.write_str("engine"),
            EventWriter::Agent(machine) => write!(f, "agent-{machine}"),
            EventWriter::Api(machine) => write!(f, "api-{machine}"),
            EventWriter::Denials(machine) => write!(f, "denials-{machine}"),
        }
    }
}

/// `events/<writer>/<slot>`
pub fn event(writer: EventWriter<'_>, slot: u32) -> String {
    format!("{EVENTS}{writer}/{slot:04}")
}

/// `events/<writer>/`
pub fn events_of(writer: EventWriter<'_>) -> String {
    format!("{EVENTS}{writer}/")
}

/// What a key names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key<'a> {
    /// The cluster's identity.
    Cluster,
    /// The leader.
    Leader,
    /// The end of a freeze.
    Thaw,
    /// This store is to be believed.
    AcceptStore,
    /// A wish: the unit.
    Unit(&'a str),
    /// A placement: the unit.
    Placement(&'a str),
    /// An assignment: machine, unit.
    Assignment(&'a str, &'a str),
    /// Presence: the machine.
    Machine(&'a str),
    /// Membership: the machine.
    Member(&'a str),
    /// A machine's wish: the machine.
    MachineWish(&'a str),
    /// A state: unit, machine.
    State(&'a str, &'a str),
    /// How far a machine's own writes have come: the machine.
    Mark(&'a str),
    /// A revocation: whose certificates.
    Revoked(&'a str),
    /// A join token that was used: which.
    UsedToken(&'a str),
    /// Who has a certificate: the machine.
    Certified(&'a str),
    /// Who issues certificates: the machine.
    Issuer(&'a str),
    /// What a transaction was about: whose, and in which slot.
    Event(EventWriter<'a>, u32),
    /// Something that this version does not know.
    Unknown(&'a str),
}

/// The reverse of the functions above.
pub fn parse(key: &str) -> Key<'_> {
    let Some((role, rest)) = key.split_once('/') else {
        return match key {
            CLUSTER => Key::Cluster,
            LEADER => Key::Leader,
            THAW => Key::Thaw,
            ACCEPT_STORE => Key::AcceptStore,
            _ => Key::Unknown(key),
        };
    };
    match (role, rest.split_once('/')) {
        ("units", None) => Key::Unit(rest),
        ("placements", None) => Key::Placement(rest),
        ("machines", None) => Key::Machine(rest),
        ("members", None) => Key::Member(rest),
        ("marks", None) => Key::Mark(rest),
        ("revoked", None) => Key::Revoked(rest),
        ("used-tokens", None) => Key::UsedToken(rest),
        ("certified", None) => Key::Certified(rest),
        ("issuers", None) => Key::Issuer(rest),
        ("machine-wishes", None) => Key::MachineWish(rest),
        ("assignments", Some((machine, unit))) => Key::Assignment(machine, unit),
        ("states", Some((unit, machine))) => Key::State(unit, machine),
        ("events", Some((writer, slot))) => match (EventWriter::parse(writer), slot.parse()) {
            (Some(writer), Ok(slot)) => Key::Event(writer, slot),
            _ => Key::Unknown(key),
        },
        _ => Key::Unknown(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_end_where_it_is_said() {
        let last = event(EventWriter::Engine, u32::MAX);
        assert!(*EVENTS < *AFTER_EVENTS && *last < *AFTER_EVENTS && *AFTER_EVENTS < *LEADER);
    }

    #[test]
    fn a_key_is_parsed_as_it_was_spelled() {
        for (spelled, key) in [
            (CLUSTER.to_owned(), Key::Cluster),
            (LEADER.to_owned(), Key::Leader),
            (THAW.to_owned(), Key::Thaw),
            (ACCEPT_STORE.to_owned(), Key::AcceptStore),
            (unit("a@1.service"), Key::Unit("a@1.service")),
            (placement("a.service"), Key::Placement("a.service")),
            (
                assignment("m1", "a.service"),
                Key::Assignment("m1", "a.service"),
            ),
            (machine("m1"), Key::Machine("m1")),
            (member("m1"), Key::Member("m1")),
            (machine_wish("m1"), Key::MachineWish("m1")),
            (state("a.service", "m1"), Key::State("a.service", "m1")),
            (mark("m1"), Key::Mark("m1")),
            (revoked("user:a@b"), Key::Revoked("user:a@b")),
            (used_token("46"), Key::UsedToken("46")),
            (certified("m1"), Key::Certified("m1")),
            (issuer("m1"), Key::Issuer("m1")),
            (
                event(EventWriter::Engine, 7),
                Key::Event(EventWriter::Engine, 7),
            ),
            (
                event(EventWriter::Agent("m-1"), 12_345),
                Key::Event(EventWriter::Agent("m-1"), 12_345),
            ),
            (
                event(EventWriter::Api("m1"), 0),
                Key::Event(EventWriter::Api("m1"), 0),
            ),
            (
                event(EventWriter::Denials("m1"), 3),
                Key::Event(EventWriter::Denials("m1"), 3),
            ),
            ("events/other/1".to_owned(), Key::Unknown("events/other/1")),
            (
                "events/engine/x".to_owned(),
                Key::Unknown("events/engine/x"),
            ),
            ("units/a/b".to_owned(), Key::Unknown("units/a/b")),
            ("other".to_owned(), Key::Unknown("other")),
        ] {
            assert_eq!(parse(&spelled), key);
        }
    }
}
