//! The records that the roles of fleet leave for each other, as plain values.
//!
//! Each record lives under one key of the store and has exactly one writing role (see
//! ARCHITECTURE.md, "Keys"). This module gives their meaning; how they are spelled as JSON is
//! the matter of fleetd's `store/codec.rs` alone.
//!
//! Times named `…_ms` are milliseconds since the Unix epoch, for people; nothing is decided by
//! comparing them. What decides is [`Decision`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::hash::UnitHash;

/// The id of a machine: the contents of its `/etc/machine-id`, 32 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(Arc<str>);

impl MachineId {
    /// Takes any non-empty text: ids of an original cluster are not checked for their form.
    pub fn new(id: &str) -> Self {
        MachineId(Arc::from(id))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight characters, as listings show them: `148a18ff`.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for MachineId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Which decision a record carries out: the version of the wish, then the number of the
/// placement decision. The order of the fields is the rule: a newer wish wins over a newer
/// placement of an older wish.
///
/// `generation` is the store revision at which `units/<name>` last changed. `seq` is greater
/// than the seq of every earlier decision on the same unit, also after the unit was destroyed
/// and created anew: the engine uses the newest store revision that it has seen, plus one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Decision {
    /// Mod-revision of the wish.
    pub generation: u64,
    /// Number of the placement decision.
    pub seq: u64,
}

impl fmt::Display for Decision {
    /// `generation.seq`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.seq)
    }
}

/// What the user asked of a unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DesiredState {
    /// Known to the cluster, on no machine.
    Inactive,
    /// Placed and known to systemd, not started by fleet.
    Loaded,
    /// Placed and started.
    Launched,
    /// Gone for its user; kept as a tombstone until every machine has confirmed the stop.
    Destroyed,
}

impl DesiredState {
    /// The word of the API: `inactive`, `loaded`, `launched`; `destroyed` is never shown by v1.
    pub fn as_str(self) -> &'static str {
        match self {
            DesiredState::Inactive => "inactive",
            DesiredState::Loaded => "loaded",
            DesiredState::Launched => "launched",
            DesiredState::Destroyed => "destroyed",
        }
    }

    /// The reverse of [`DesiredState::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "inactive" => DesiredState::Inactive,
            "loaded" => DesiredState::Loaded,
            "launched" => DesiredState::Launched,
            "destroyed" => DesiredState::Destroyed,
            _ => return None,
        })
    }
}

/// `units/<name>`, written by the API: the wish. Its generation is the key's mod-revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitRecord {
    /// The unit file in serial form (empty for a tombstone).
    pub text: Arc<str>,
    /// SHA-1 of `text`.
    pub hash: UnitHash,
    /// What the user wants.
    pub desired: DesiredState,
    /// How often a restart was asked for; agents restart the unit when it grows.
    pub restarts: u64,
    /// Where a unit that comes from another cluster ran there: it goes to this machine if it may
    /// run there. Any later change of the wish forgets it.
    pub prefer: Option<MachineId>,
    /// Id of the request that made this version, so that a repeated request is recognised.
    pub request_id: String,
    /// Ids of the requests that made the versions before, the newest first: a request that comes
    /// again late, after others have changed the unit, is still recognised.
    pub earlier_requests: Vec<String>,
    /// Of a tombstone: no machine has anything left of the unit. The engine keeps it for a while
    /// under a lease, so that a late request for the unit does not create it anew.
    pub buried: bool,
    /// Who made this version, as far as is known (`uid 0`, a certificate's name).
    pub changed_by: String,
    /// When.
    pub changed_ms: u64,
}

/// Why some machines may not run a unit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Refusal {
    /// The requirement in words that its user wrote: `MachineMetadata region=eu`,
    /// `Conflicts with b.service`, `MachineOf db.service is not placed`.
    pub requirement: String,
    /// How many machines it refused.
    pub machines: u32,
}

/// `placements/<unit>`, written by the engine: where a unit is, or why it is nowhere. For people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacementRecord {
    /// The machine. None while pending, and always none for a global unit.
    pub machine: Option<MachineId>,
    /// The machine that the unit is leaving and whose confirmation is awaited.
    pub leaving: Option<MachineId>,
    /// Which decision this is.
    pub decision: Decision,
    /// Why it is there, or why it is nowhere, in words.
    pub reason: String,
    /// For a pending or global unit: what refused it, the most frequent first.
    pub refusals: Vec<Refusal>,
    /// For a unit that was placed: what kept it from other machines at that time, the most frequent
    /// first.
    pub passed_over: Vec<Refusal>,
    /// How many machines were looked at for `refusals` or `passed_over`.
    pub considered: u32,
    /// For a global unit: on how many machines it is assigned.
    pub assigned: u32,
    /// What its failures have come to, if they are a reason to move it.
    pub failures: Failures,
    /// When this was decided.
    pub since_ms: u64,
}

/// What the failures of a unit with `RescheduleOnFailure=` have come to. It stands with the
/// placement, so that a new leader goes on counting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    /// How often it was moved because it had failed, since its wish last changed or since it
    /// last ran well for long.
    pub moves: u32,
    /// Where it failed before it was moved, the newest last; at most
    /// [`Failures::MAX_FAILED_ON`].
    pub failed_on: Vec<MachineId>,
    /// It has failed, and is moved at this time if it has not recovered; 0: no move is due.
    pub next_ms: u64,
    /// It has failed and stays where it is: it has been moved often enough, or has nowhere to go.
    pub stays: bool,
}

impl Failures {
    /// These are tried after all others; an older failure may well be over.
    pub const MAX_FAILED_ON: usize = 8;
}

/// What an assignment orders.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Order {
    /// Stop the unit, remove its file, and report it gone.
    Gone,
    /// Have the file in place; the unit is not started, and is stopped if fleet had started it.
    Loaded,
    /// Have the file in place and the unit started.
    Launched,
}

impl Order {
    /// `gone`, `loaded`, `launched`.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Gone => "gone",
            Order::Loaded => "loaded",
            Order::Launched => "launched",
        }
    }

    /// The reverse of [`Order::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "gone" => Order::Gone,
            "loaded" => Order::Loaded,
            "launched" => Order::Launched,
            _ => return None,
        })
    }
}

/// `assignments/<machine>/<unit>`, written by the engine in the same transaction as the
/// placement: all that the machine's agent needs to know, in one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssignmentRecord {
    /// The unit file in serial form (empty when the order is `Gone`).
    pub text: Arc<str>,
    /// SHA-1 of the unit's text.
    pub hash: UnitHash,
    /// Which decision this carries out.
    pub decision: Decision,
    /// What to do.
    pub order: Order,
    /// Copied from the wish.
    pub restarts: u64,
    /// Why, in words.
    pub reason: String,
}

impl MachineRecord {
    /// What `trouble` says while fleetd is being stopped in order: presence that ends after it
    /// makes the machine unsupervised, not lost, and moves nothing.
    pub const STOPPED_IN_ORDER: &str = "fleetd was stopped in order";
    /// What `trouble` says while the machine itself goes down, and its units with it: they start
    /// elsewhere at once.
    pub const SHUTTING_DOWN: &str = "the machine is shutting down";

    /// The end of this presence is meant.
    pub fn says_farewell(&self) -> bool {
        self.is_stopped_in_order() || self.is_shutting_down()
    }

    /// Only fleetd ends; what runs on the machine goes on.
    pub fn is_stopped_in_order(&self) -> bool {
        self.trouble.as_deref() == Some(MachineRecord::STOPPED_IN_ORDER)
    }

    /// The machine itself goes down.
    pub fn is_shutting_down(&self) -> bool {
        self.trouble.as_deref() == Some(MachineRecord::SHUTTING_DOWN)
    }
}

/// `machines/<id>`, written by that machine's agent under its lease: presence. The key's
/// create-revision is the machine's *epoch*, the fence of everything that the agent writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MachineRecord {
    /// The kernel's boot id: a new one means that nothing of before runs any more.
    pub boot_id: String,
    /// The address that clients and other machines may use; empty if none is known.
    pub public_ip: String,
    /// Where other machines reach the API of its fleetd: `10.0.0.7:49153`, or `:49153` for that port of
    /// `public_ip`. Empty: nowhere, or its fleetd is one that does not say.
    pub api: String,
    /// Metadata of the configuration (overrides are in [`MachineWish`]).
    pub metadata: BTreeMap<String, String>,
    /// fleetd's version.
    pub version: String,
    /// Highest version of the stored documents that this machine reads.
    pub format: u32,
    /// Never becomes leader (`disable_engine`).
    pub disable_engine: bool,
    /// Why the machine can take no new unit at present (`systemd cannot be reached: …`).
    pub trouble: Option<String>,
    /// Why the machine does not believe this store, though it takes new units. For people, and a
    /// sign that what it runs is not to be stopped on the word of this store.
    pub remark: Option<String>,
}

/// What the cluster thinks of a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MemberStatus {
    /// Its lease lives.
    Present,
    /// Its lease has just gone; nothing has moved yet.
    Suspect,
    /// Given up; its units move.
    Lost,
    /// fleetd was stopped in order; the units still run and stay placed there.
    Unsupervised,
    /// Forgotten on request.
    Retired,
}

impl MemberStatus {
    /// The word in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberStatus::Present => "present",
            MemberStatus::Suspect => "suspect",
            MemberStatus::Lost => "lost",
            MemberStatus::Unsupervised => "unsupervised",
            MemberStatus::Retired => "retired",
        }
    }

    /// The reverse of [`MemberStatus::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "present" => MemberStatus::Present,
            "suspect" => MemberStatus::Suspect,
            "lost" => MemberStatus::Lost,
            "unsupervised" => MemberStatus::Unsupervised,
            "retired" => MemberStatus::Retired,
            _ => return None,
        })
    }
}

/// `members/<id>`, written by the engine, without a lease: the lasting record of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberRecord {
    /// present, suspect, lost, …
    pub status: MemberStatus,
    /// Since when it has this status.
    pub since_ms: u64,
    /// When it first joined.
    pub first_seen_ms: u64,
    /// Its last known address.
    pub public_ip: String,
    /// Its last known metadata (of the configuration).
    pub metadata: BTreeMap<String, String>,
    /// Why it has this status, in words.
    pub reason: String,
    /// New units come here last.
    pub avoided: Option<Avoided>,
}

/// Too many units have failed on a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Avoided {
    /// In words.
    pub why: String,
    /// The store revision at which that was decided: a unit that was sent there later and runs
    /// well ends it.
    pub revision: u64,
    /// [`MachineWish::opened`] of that time: any other value ends it.
    pub opened: u64,
}

impl MemberRecord {
    /// The reason while a machine is still there that has said that its fleetd is being stopped: who
    /// leads when it is gone knows then that it was meant.
    pub const LEAVES: &str = "fleetd is being stopped there in order";

    /// How the reason begins while a machine is not given up because too many others are away.
    pub const FROZEN: &str = "too many machines vanished at once";

    /// How the reason ends while a machine is away that did not believe this store: it may have run
    /// what this store does not know of.
    pub const DOUBTED: &str = "; it did not believe this store";

    /// It did not believe this store when it was seen last.
    pub fn doubted(&self) -> bool {
        self.reason.ends_with(MemberRecord::DOUBTED)
    }

    /// It is away for long enough, and not given up because too many others are away.
    pub fn is_frozen(&self) -> bool {
        self.status == MemberStatus::Suspect && self.reason.starts_with(MemberRecord::FROZEN)
    }
}

/// `machine-wishes/<id>`, written by the API: what users ask of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MachineWish {
    /// Metadata set at run time; an empty value hides the key of the configuration.
    pub metadata: BTreeMap<String, String>,
    /// Take no new units.
    pub cordon: bool,
    /// Move all units off.
    pub drain: bool,
    /// So many units, with those that follow them, leave at once; 0: as many as is usual.
    pub max_parallel: u32,
    /// How often somebody has said that the machine is to be trusted again, while it was avoided.
    pub opened: u64,
}

impl MachineWish {
    /// The metadata that counts: the machine's own, overlaid by the wish. An empty override
    /// removes the key.
    pub fn merged(&self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut merged = own.clone();
        for (key, value) in &self.metadata {
            if value.is_empty() {
                merged.remove(key);
            } else {
                merged.insert(key.clone(), value.clone());
            }
        }
        merged
    }
}

/// How far a machine has carried out an assignment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reached {
    /// Stopped, its file removed, nothing of it left. The engine then removes the assignment.
    Gone,
    /// The agent refuses the unit and has left the machine as it was; `StateRecord::why` says why.
    Refused,
    /// Seen and being worked on: a stop, load or start is under way.
    Working,
    /// Loaded, and not started by fleet.
    Loaded,
    /// Started: systemd's job is done, whatever has become of the process since.
    Launched,
}

impl Reached {
    /// The word in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Reached::Gone => "gone",
            Reached::Refused => "refused",
            Reached::Working => "working",
            Reached::Loaded => "loaded",
            Reached::Launched => "launched",
        }
    }

    /// The reverse of [`Reached::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "gone" => Reached::Gone,
            "refused" => Reached::Refused,
            "working" => Reached::Working,
            "loaded" => Reached::Loaded,
            "launched" => Reached::Launched,
            _ => return None,
        })
    }
}

/// `states/<unit>/<machine>`, written by that machine's agent: how the unit is there.
///
/// Written under the machine's lease in this sense: each write compares the create-revision of
/// `machines/<id>`, which exists only while the lease lives. The record itself stays when the
/// lease goes, so that an absent machine's units can be shown, marked stale.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateRecord {
    /// systemd's LoadState: `loaded`, `not-found`, `bad-setting`, …
    pub load: String,
    /// systemd's ActiveState: `active`, `inactive`, `failed`, …
    pub active: String,
    /// systemd's SubState: `running`, `dead`, …
    pub sub: String,
    /// Hash of the text that systemd was given.
    pub hash: UnitHash,
    /// The newest decision that the agent has carried out or is working on.
    pub decision: Decision,
    /// How far it has come with it.
    pub reached: Reached,
    /// systemd's InvocationID in hex; empty while never started.
    pub invocation_id: String,
    /// The unit's Description.
    pub description: String,
    /// Why it was refused, or why it failed (systemd's Result and exit status), in words.
    pub why: Option<String>,
    /// The unit is bound to the machine's lease (`Exclusive=yes`), and may run for so long after the
    /// machine was last seen before its systemd begins to stop it. None: it is not bound.
    pub leased_ms: Option<u64>,
    /// The unit's last lines in the journal, only beside a failure; at most
    /// [`StateRecord::MAX_LOG_LINES`] lines.
    pub log: Vec<String>,
}

impl StateRecord {
    /// As many lines of its journal as `systemctl status` shows.
    pub const MAX_LOG_LINES: usize = 10;
    /// Longer lines are cut: a state record stays small.
    pub const MAX_LOG_LINE_BYTES: usize = 256;
}
