//! Roles, who has them, and the decision.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fleet_core::glob::Glob;

use super::verb::{Verb, Verbs};
use super::{Behalf, Caller, MAX_WHO_BYTES};

/// Metadata of a machine.
pub type Metadata = BTreeMap<String, String>;

/// For each key the values of which a machine must have one.
pub type Pins = BTreeMap<String, BTreeSet<String>>;

/// The roles that there always are, the smallest first; the last one is a machine's own.
pub const BUILT_IN: [&str; 4] = ["viewer", "operator", "admin", MACHINE];
const MACHINE: &str = "machine";

const VIEWER: Verbs = Verbs::of(&[
    Verb::UnitRead,
    Verb::JournalRead,
    Verb::MachineRead,
    Verb::ClusterRead,
    Verb::EventRead,
    Verb::MetricsRead,
]);

const OPERATOR: Verbs = VIEWER.with(Verbs::of(&[
    Verb::UnitSubmit,
    Verb::UnitStart,
    Verb::UnitStop,
    Verb::UnitDestroy,
    Verb::MachineDrain,
    Verb::MachineMetadata,
    Verb::ClusterThaw,
]));

/// What a role allows, and on what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Role {
    /// What it allows.
    pub verbs: Verbs,
    /// On units of these names; none: on all.
    pub units: Vec<Glob>,
    /// On machines that have one of the values of each key, and on units that say so; none: on all.
    pub machines: Pins,
}

/// What a verb is done to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object<'a> {
    /// The cluster as a whole: no role that is narrowed to some units or machines covers it.
    Cluster,
    /// What is known of a unit. Where it may run does not count.
    Unit(&'a str),
    /// A unit as it is to be, or has been: with the `MachineMetadata` of its file.
    UnitFor(&'a str, &'a Pins),
    /// A unit on a machine of this metadata.
    UnitOn(&'a str, &'a Metadata),
    /// Some unit: which one is not known yet. Whoever allows it looks again.
    SomeUnit,
    /// A machine.
    Machine(&'a str, &'a Metadata),
    /// Some machine: which one is not known yet. Whoever allows it looks again.
    SomeMachine,
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Cluster => f.write_str("the cluster"),
            Object::Unit(name) | Object::UnitFor(name, _) | Object::UnitOn(name, _) => {
                f.write_str(name)
            }
            Object::SomeUnit => f.write_str("any unit"),
            Object::Machine(id, _) => write!(f, "machine {id}"),
            Object::SomeMachine => f.write_str("any machine"),
        }
    }
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may be done.
    Allowed,
    /// It may not, and why not.
    Refused(String),
}

impl Role {
    fn of(verbs: Verbs) -> Role {
        Role {
            verbs,
            ..Role::default()
        }
    }

    fn is_narrow(&self) -> bool {
        !self.units.is_empty() || !self.machines.is_empty()
    }

    fn allows(&self, verb: Verb, object: Object<'_>) -> bool {
        self.verbs.has(verb) && self.covers(object)
    }

    fn covers(&self, object: Object<'_>) -> bool {
        let names =
            |name: &str| self.units.is_empty() || self.units.iter().any(|glob| glob.matches(name));
        match object {
            Object::Cluster => !self.is_narrow(),
            Object::Unit(name) => names(name),
            Object::UnitFor(name, pins) => names(name) && self.holds(pins),
            Object::UnitOn(name, metadata) => names(name) && self.is_of(metadata),
            Object::Machine(_, metadata) => self.is_of(metadata),
            Object::SomeUnit | Object::SomeMachine => true,
        }
    }

    /// Whether a unit with this `MachineMetadata` can run on no machine but those of the role.
    fn holds(&self, pins: &Pins) -> bool {
        let mut keys = self.machines.iter();
        keys.all(|(key, allowed)| {
            let wanted = pins.get(key);
            wanted.is_some_and(|wanted| !wanted.is_empty() && wanted.is_subset(allowed))
        })
    }

    fn is_of(&self, metadata: &Metadata) -> bool {
        let mut keys = self.machines.iter();
        keys.all(|(key, allowed)| {
            metadata
                .get(key)
                .is_some_and(|value| allowed.contains(value))
        })
    }
}

/// Who has a role.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// A user of this machine.
    Uid(u32),
    /// Whose process has this group.
    Gid(u32),
    /// Whoever comes by the unix socket.
    Local,
    /// Whose certificate has this name.
    Certificate(String),
    /// Whoever comes by plaintext TCP.
    Anonymous,
}

/// Which roles there are, and who has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Nobody has written one: who reaches the socket may do everything.
    is_open: bool,
    /// The user that fleetd runs as, who is root in a user's own fleetd.
    owner: u32,
    roles: BTreeMap<String, Role>,
    grants: BTreeMap<Subject, BTreeSet<String>>,
}

/// The policy when there is none.
impl Default for Policy {
    fn default() -> Policy {
        Policy::open(0)
    }
}

impl Policy {
    /// Nobody but root and `owner` may do anything, besides what certificates say: a policy without
    /// grants, and what holds when a policy cannot be read.
    pub fn closed(owner: u32) -> Policy {
        let built_in = [
            VIEWER,
            OPERATOR,
            Verbs::ALL,
            Verbs::of(&[Verb::CertificateRenew]),
        ];
        let roles = BUILT_IN.iter().zip(built_in);
        Policy {
            is_open: false,
            owner,
            roles: roles
                .map(|(name, verbs)| ((*name).to_owned(), Role::of(verbs)))
                .collect(),
            grants: BTreeMap::new(),
        }
    }

    /// Nobody has written a policy. `owner`: who fleetd runs as.
    pub fn open(owner: u32) -> Policy {
        Policy {
            is_open: true,
            ..Policy::closed(owner)
        }
    }

    /// Adds a role. Those that are built in stay as they are: false.
    pub(super) fn add_role(&mut self, name: &str, role: Role) -> bool {
        if BUILT_IN.contains(&name) {
            return false;
        }
        self.roles.insert(name.to_owned(), role);
        true
    }

    /// Gives somebody a role.
    pub(super) fn grant(&mut self, subject: Subject, role: &str) {
        let roles = self.grants.entry(subject).or_default();
        roles.insert(role.to_owned());
    }

    /// Whether there is a role of this name.
    pub fn knows(&self, role: &str) -> bool {
        self.roles.contains_key(role)
    }

    /// Whether nobody has written a policy.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// How many roles were written, and how many grants.
    pub fn counts(&self) -> (usize, usize) {
        let n_grants = self.grants.values().map(BTreeSet::len).sum();
        (self.roles.len() - BUILT_IN.len(), n_grants)
    }

    /// Whether somebody may do something. `caller`: None is somebody of whom nothing is known.
    pub fn decide(&self, caller: Option<&Caller>, verb: Verb, object: Object<'_>) -> Decision {
        if self.may_everything(caller) {
            return Decision::Allowed;
        }
        let roles = self.roles_of(caller);
        let mut known = roles.iter().filter_map(|name| self.roles.get(*name));
        if known.any(|role| role.allows(verb, object)) {
            return Decision::Allowed;
        }
        let who = caller.map_or("somebody unknown".to_owned(), ToString::to_string);
        let has = match &roles.into_iter().collect::<Vec<_>>()[..] {
            [] => "no role".to_owned(),
            [role] => format!("role {role}"),
            roles => format!("roles {}", roles.join(", ")),
        };
        let cure = match self.would_allow(verb, object) {
            Some(role) => format!("role {role} would allow it"),
            None => "role admin would allow it".to_owned(),
        };
        Decision::Refused(format!(
            "{who} may not {verb} {object}: it has {has}; {cure}"
        ))
    }

    /// [`Policy::decide`] in one bit.
    pub fn allows(&self, caller: Option<&Caller>, verb: Verb, object: Object<'_>) -> bool {
        self.may_everything(caller) || {
            let roles = self.roles_of(caller);
            let mut known = roles.iter().filter_map(|name| self.roles.get(*name));
            known.any(|role| role.allows(verb, object))
        }
    }

    /// Whether somebody may do something to everything, so that nothing needs to be looked at one by
    /// one.
    pub fn allows_all(&self, caller: Option<&Caller>, verb: Verb) -> bool {
        self.allows(caller, verb, Object::Cluster)
    }

    /// The roles that somebody has, by name; those that only a certificate, or another machine, knows
    /// are among them.
    pub fn roles_of<'a>(&'a self, caller: Option<&'a Caller>) -> BTreeSet<&'a str> {
        if self.may_everything(caller) {
            return BTreeSet::from(["admin"]);
        }
        let of = |subject: &Subject| {
            let roles = self.grants.get(subject);
            roles.into_iter().flatten().map(String::as_str)
        };
        match caller {
            None => BTreeSet::new(),
            Some(Caller::Unix { uid, gid, .. }) => of(&Subject::Uid(*uid))
                .chain(of(&Subject::Gid(*gid)))
                .chain(of(&Subject::Local))
                .collect(),
            Some(Caller::Anonymous(_)) => of(&Subject::Anonymous).collect(),
            Some(Caller::Certificate(identity, _)) => {
                let told = identity.roles.iter().map(String::as_str);
                // A machine's own role is not lent to others.
                told.filter(|role| *role != MACHINE)
                    .chain(of(&Subject::Certificate(identity.name.clone())))
                    .collect()
            }
            Some(Caller::Machine(..)) => BTreeSet::from([MACHINE]),
            Some(Caller::Behalf(behalf)) => {
                let Behalf { roles, .. } = &**behalf;
                let told = roles.iter().map(String::as_str);
                told.filter(|role| *role != MACHINE).collect()
            }
        }
    }

    /// How a caller of this machine is told to another one, as [`super::BEHALF_HEADER`].
    pub fn behalf_header(&self, caller: &Caller) -> String {
        let roles: Vec<&str> = self.roles_of(Some(caller)).into_iter().collect();
        // Names in certificates are others' words.
        let mut who = caller
            .to_string()
            .replace(|c: char| !matches!(c, ' '..='~'), "?");
        who.truncate(MAX_WHO_BYTES);
        format!("roles={}; who={who}", roles.join(","))
    }

    /// Root on the unix socket, always; without a policy whoever comes without a certificate.
    fn may_everything(&self, caller: Option<&Caller>) -> bool {
        match caller {
            Some(Caller::Unix { uid, .. }) => self.is_open || *uid == 0 || *uid == self.owner,
            Some(Caller::Anonymous(_)) | None => self.is_open,
            Some(Caller::Certificate(..) | Caller::Machine(..) | Caller::Behalf(_)) => false,
        }
    }

    /// The smallest role that would allow it: a built-in one, else one that was written.
    fn would_allow(&self, verb: Verb, object: Object<'_>) -> Option<&str> {
        let built_in = BUILT_IN.iter().copied();
        let written = self.roles.keys().map(String::as_str);
        built_in.chain(written).find(|name| {
            let role = self.roles.get(*name);
            role.is_some_and(|role| role.allows(verb, object))
        })
    }
}
