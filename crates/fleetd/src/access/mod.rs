//! Who asks, and what they may do: callers, roles, and the one decision over them.
//!
//! What callers may do is written in files on each machine ([`load`]), never in the store: whoever
//! has the store, or empties it, may do no more by that. Without a file everything is as it was
//! without roles: the socket's file mode and the loopback decide, and a certificate may do what the
//! roles in it say. Root on the unix socket may always do everything, so that no file locks an
//! operator out.
//!
//! The decision is pure ([`Policy::decide`]): a policy, a caller, a verb and an object give
//! "allowed", or "refused" with what would allow it. It knows no names of users: they are looked up
//! when the files are read.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use fleet_core::records::MachineId;

pub(crate) mod denials;
pub mod load;
pub mod policy;
pub mod trust;
mod verb;

#[cfg(test)]
mod tests;

pub use policy::{Decision, Object, Policy};
pub use trust::Trust;
pub use verb::{Verb, Verbs};

/// The header with which a machine asks on behalf of its own caller, see [`Behalf`].
pub const BEHALF_HEADER: &str = "x-fleet-on-behalf-of";

/// A machine names so many roles of its caller at most; nobody is granted more than a few.
const MAX_ROLES: usize = 32;

/// Longer names of callers are cut when they are told, and not believed: they stand in wishes and events.
pub(crate) const MAX_WHO_BYTES: usize = 128;

/// Who asks. In the extensions of each request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A process on this machine, by the kernel's word.
    Unix {
        /// Its user.
        uid: u32,
        /// Its group; further ones are looked up when the policy is read.
        gid: u32,
        /// Its process.
        pid: Option<i32>,
    },
    /// Plaintext TCP: somebody on this machine, or anybody where `api_insecure` is set.
    Anonymous(SocketAddr),
    /// Somebody with a certificate of the cluster.
    Certificate(Arc<Identity>, SocketAddr),
    /// A machine, by its certificate, for itself.
    Machine(MachineId, SocketAddr),
    /// Somebody for whom a machine asks.
    Behalf(Arc<Behalf>),
}

/// What a verified certificate says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Its common name.
    pub name: String,
    /// The roles that it was issued with; their meaning is this machine's.
    pub roles: Vec<String>,
}

/// A caller of another machine, which that machine vouches for. Roles are told by their names: what
/// they mean is decided where they are used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Behalf {
    /// Who, in the other machine's words.
    pub who: String,
    /// The roles that the other machine knows of.
    pub roles: Vec<String>,
    /// Which machine; None: somebody without a certificate says so, who may do everything anyway.
    pub machine: Option<MachineId>,
}

impl Caller {
    /// What tells it from other clients of the same user or address: its process, its port.
    pub fn client(&self) -> String {
        match self {
            Caller::Unix { pid: None, .. } => String::new(),
            Caller::Unix { pid: Some(pid), .. } => format!("pid {pid}"),
            Caller::Anonymous(address)
            | Caller::Certificate(_, address)
            | Caller::Machine(_, address) => address.to_string(),
            Caller::Behalf(behalf) => behalf.who.clone(),
        }
    }

    /// The caller that a machine asks for, by its header. None: the header says nothing that is
    /// understood.
    pub fn behalf_of(machine: Option<MachineId>, header: &str) -> Option<Caller> {
        let (roles, who) = header.split_once(';')?;
        let roles: Vec<String> = roles
            .strip_prefix("roles=")?
            .split(',')
            .filter(|role| !role.is_empty())
            .map(str::to_owned)
            .collect();
        let who = who.trim().strip_prefix("who=")?.to_owned();
        let is_sound = roles.len() <= MAX_ROLES && (1..=MAX_WHO_BYTES).contains(&who.len());
        is_sound.then(|| {
            Caller::Behalf(Arc::new(Behalf {
                who,
                roles,
                machine,
            }))
        })
    }
}

/// Who did it, in events and wishes.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Unix { uid, .. } => write!(f, "uid {uid}"),
            Caller::Anonymous(address) => write!(f, "{}", address.ip()),
            Caller::Certificate(identity, _) => write!(f, "cert {}", identity.name),
            Caller::Machine(id, _) => write!(f, "machine {id}"),
            Caller::Behalf(behalf) => match &behalf.machine {
                Some(machine) => write!(f, "{} on {machine}", behalf.who),
                None => f.write_str(&behalf.who),
            },
        }
    }
}

/// The policy that holds; a reload exchanges it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Access(Arc<RwLock<Arc<Policy>>>);

impl Access {
    /// With this policy.
    pub fn new(policy: Policy) -> Access {
        Access(Arc::new(RwLock::new(Arc::new(policy))))
    }

    /// The policy that holds now.
    pub fn policy(&self) -> Arc<Policy> {
        let policy = self.0.read();
        Arc::clone(&policy.unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests that come from now on are under this policy.
    pub fn set(&self, policy: Policy) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(policy);
    }
}
