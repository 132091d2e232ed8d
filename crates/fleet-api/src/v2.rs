//! The types of API v2, for what v1 cannot say: batches, waiting, where and why.
//!
//! Base path `/fleet/v2`. Clients fall back to v1 when it answers 404 (an original fleetd).
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `POST /units` | [`BatchRequest`] | [`BatchAnswer`] |
//! | `GET /units?after=NAME&revision=R&limit=N` | – | [`UnitListing`] |
//! | the same with `&fields=A,B` | – | lines of [`RowPage`], until one says no `more` |
//! | `GET /units/{name}` | – | [`UnitView`] |
//! | `GET /units/{name}/status?lines=N` | – | [`UnitStatus`]: what the systemds of its machines say now |
//! | `GET /journal?unit=GLOB&machine=ID&lines=N&since=US&after=CURSOR&follow=true&fields=true` | – | lines of [`JournalLine`] |
//! | `POST /wait` | [`WaitRequest`] | lines of [`Progress`] as they happen, until all are final |
//! | `GET /machines` | – | [`MachineListing`] |
//! | `GET /machines/{id}` | – | [`MachineView`] |
//! | `POST /machines/{id}` | [`MachineChange`] | [`MachineView`] |
//! | `GET /machines/{id}/units` | – | [`MachineUnitListing`] |
//! | `GET /machines/{id}/units/{name}?lines=N` | – | [`UnitOnMachine`]: what its systemd says now |
//! | `GET /cluster?check=true` | – | [`ClusterView`] |
//! | `GET /events?unit=GLOB&machine=ID&since=MS&after=R&before=R&limit=N` | – | [`EventListing`] |
//! | `GET /events?follow=true&unit=GLOB&machine=ID&after=R` | – | lines of [`EventLine`] as they happen |
//! | `GET /watch/units?fields=…&revision=R` | – | lines of [`UnitChanges`]: all units, then what changes |
//! | `POST /thaw` | – | [`MachineListing`]: those that are given up |
//! | `POST /accept-store` | – | – |
//! | `POST /join-tokens` | [`JoinTokenRequest`] | [`JoinToken`] |
//! | `POST /join`, over TLS without a certificate, as [`JOIN_PROTOCOL`] | [`CertificateRequest`] | [`CertificateAnswer`] |
//! | `POST /certificates` | [`CertificateRequest`] | [`CertificateAnswer`]: the next one of a machine that shows its own |
//! | `GET /revocations` | – | [`RevocationListing`] |
//! | `POST /revocations` | [`RevokeRequest`] | – |
//! | `GET /whoami?verb=VERB&unit=NAME&machine=ID` | – | [`Whoami`] |
//! | `GET /openapi.json` | – | [`crate::openapi::DOCUMENT`] |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

mod access;
mod certificates;
mod journal;
mod rows;
mod status;

pub use access::Whoami;
pub use certificates::{
    CertificateAnswer, CertificateRequest, JOIN_PROTOCOL, JoinToken, JoinTokenRequest,
    MAX_TOKEN_TTL_S, ROLE_MACHINE, RevocationListing, RevocationView, RevokeRequest, TOKEN_TTL_S,
};
pub use journal::{
    JOURNAL_HEARTBEAT, JournalCursor, JournalEntry, JournalLine, MAX_JOURNAL_LINES,
    MAX_JOURNAL_MACHINES, MAX_JOURNAL_UNITS,
};
pub use status::{MAX_STATUS_LINES, SystemdView, UnitOnMachine, UnitStatus};

pub use rows::{ROW_FIELDS, RowPage, StateRow, UnitChanges, UnitRow, Word};

/// Base path of all v2 resources.
pub const BASE: &str = "/fleet/v2";

/// Most units in one batch; clients split larger ones.
pub const MAX_BATCH: usize = 1_000;

/// Most units in one page of a listing.
pub const MAX_PAGE: usize = 5_000;

/// Most events in one listing, but for those of one revision, which are not divided.
pub const MAX_EVENTS: usize = 1_000;

/// Most units in one wait.
pub const MAX_WAIT: usize = 10_000;

/// A wait that has nothing to say sends an empty line so often, so that either side notices
/// when the other is gone.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Wishes for many units. A unit is atomic, the batch is not: each unit has its own answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchRequest {
    /// Chosen by the client; a repeated request with the same id changes nothing twice.
    pub request_id: String,
    /// How unknown `[X-Fleet]` keys are taken: empty (warn; a near miss is an error), `strict`, `allow`.
    pub unknown_keys: String,
    /// The wishes, done in this order.
    pub units: Vec<UnitWish>,
}

/// A wish for one unit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitWish {
    /// The unit.
    pub name: String,
    /// Its unit file; None: as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// An existing unit with other contents is replaced; otherwise it is kept and the answer
    /// says `differs`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// `inactive`, `loaded`, `launched`, `destroyed`; None: kept (`inactive` for a new unit).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<String>,
    /// Restart the unit if it runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// A new unit goes to the machine of this id, where it runs already, if it may run there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer: Option<String>,
}

/// What became of each wish, in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAnswer {
    /// One for each wish.
    pub units: Vec<WishAnswer>,
}

/// What became of one wish.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WishAnswer {
    /// The unit.
    pub name: String,
    /// `created`, `replaced`, `changed` (only the wish), `unchanged`, `error`.
    pub outcome: String,
    /// The generation that the unit has now: what to wait for.
    pub generation: u64,
    /// The unit existed with other contents and was kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
    /// HTTP status that v1 would have answered with; only for `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The thing, the reason and the cure; only for `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is odd about the unit file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Which units to wait for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitRequest {
    /// The units, each with the generation that must be reached.
    pub units: Vec<WaitFor>,
}

/// One unit to wait for. What is waited for is what its wish says at that generation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitFor {
    /// The unit.
    pub name: String,
    /// At least this generation.
    pub generation: u64,
}

/// One line of a wait's answer: how far a unit has come. For a global unit one line a machine
/// and a final one for the unit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// The unit.
    pub name: String,
    /// `submitted`, `pending` (no machine may run it), `placed`, `working`, and the final ones:
    /// `inactive`, `loaded`, `launched`, `failed`, `refused`, `destroyed`.
    pub phase: String,
    /// Nothing more will be said of this unit.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The machine it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineRef>,
    /// Why, in words: the placement's reason, or why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// While pending: which requirement refused how many machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalView>,
    /// Machines looked at for `refusals`.
    #[serde(skip_serializing_if = "is_zero")]
    pub considered: u32,
    /// systemd's view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateView>,
}

/// A machine and its address.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineRef {
    /// Its whole id.
    pub id: String,
    /// Its address; empty if unknown.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
}

/// A requirement and how many machines it refused.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RefusalView {
    /// In words.
    pub requirement: String,
    /// How many.
    pub machines: u32,
}

/// A unit on one machine, as that machine reports it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateView {
    /// The machine's id.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// systemd's LoadState.
    pub load: String,
    /// systemd's ActiveState.
    pub active: String,
    /// systemd's SubState.
    pub sub: String,
    /// Hash of the text it runs.
    pub hash: String,
    /// The unit's Description.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `gone`, `refused`, `working`, `loaded`, `launched`.
    pub reached: String,
    /// systemd's InvocationID.
    #[serde(skip_serializing_if = "String::is_empty", rename = "invocationID")]
    pub invocation_id: String,
    /// The machine is not present: this is its last report.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// Why it failed or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its last lines in the journal, beside a failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// All that is known of one unit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitView {
    /// The unit.
    pub name: String,
    /// Version of its wish.
    pub generation: u64,
    /// Hash of its unit file.
    pub hash: String,
    /// `inactive`, `loaded`, `launched`.
    pub desired_state: String,
    /// `inactive`, `loaded`, `launched`, as v1 has it; None for a global unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_state: Option<String>,
    /// Description of its unit file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Runs on every machine that qualifies.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// The machine it is placed on.
    #[serde(skip_serializing_if = "Option::is_none", rename = "machineID")]
    pub machine_id: Option<String>,
    /// The machine that it is leaving, and whose word that it has stopped is awaited.
    #[serde(skip_serializing_if = "Option::is_none", rename = "leavingID")]
    pub leaving_id: Option<String>,
    /// Why it is there, or nowhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When that was decided, in milliseconds since 1970; only in the answer for a single unit.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub since_ms: u64,
    /// While pending: which requirement refused how many machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalView>,
    /// Of a unit that is placed: which requirement had refused how many machines then; only in the
    /// answer for a single unit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<RefusalView>,
    /// Machines looked at for `refusals` or `passedOver`.
    #[serde(skip_serializing_if = "is_zero")]
    pub considered: u32,
    /// Who made this version of its wish, as far as is known; only in the answer for a single unit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub changed_by: String,
    /// When, in milliseconds since 1970; only in the answer for a single unit.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub changed_ms: u64,
    /// How it is, a machine each; `gone` ones are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateView>,
    /// The unit file in serial form; only in the answer for a single unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The cluster as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterView {
    /// Its random id, made once; empty: no fleetd has made it yet.
    pub id: String,
    /// The store's revision that this is of.
    pub revision: u64,
    /// Who leads; left out: nobody does at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderView>,
    /// Records that cannot be read; only with `check=true`, and no more than 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamageView>,
}

/// The machine whose engine decides.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaderView {
    /// The machine's id.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// fleetd's version there.
    pub version: String,
    /// Since when it leads, in milliseconds since 1970.
    pub since_ms: u64,
}

/// A record of the store that cannot be read. What it is about is left as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DamageView {
    /// Its key below the cluster's prefix.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

/// Some of what was decided and what happened, in that order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventListing {
    /// The store's revision that this is of: following goes on after it.
    pub revision: u64,
    /// The events, the oldest first.
    pub events: Vec<EventView>,
    /// There may be older ones: give `before`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Everything wanted that is kept is here from this revision on.
    pub before: u64,
}

/// One thing that was decided or happened. Its revision and its index are its name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventView {
    /// The store's revision at which it is written down.
    pub revision: u64,
    /// Its place among those of this revision.
    pub index: u32,
    /// When, in milliseconds since 1970, by the clock of whoever wrote it.
    pub at_ms: u64,
    /// `submitted`, `destroyed`, `asked`, `denied`, `placed`, `moved`, `kept`, `pending`, `unplaced`,
    /// `refused`, `started`, `finished`, `stopped`, `failed`, `present`, `suspect`, `lost`,
    /// `unsupervised`, `retired`, `avoided`, `trusted`, `leader`; and `left-out`: more happened at that
    /// revision than there was room for.
    pub kind: String,
    /// The unit that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The machine that it is about, or that the unit is on.
    #[serde(skip_serializing_if = "Option::is_none", rename = "machineID")]
    pub machine_id: Option<String>,
    /// The machine that the unit was on.
    #[serde(skip_serializing_if = "Option::is_none", rename = "fromID")]
    pub from_id: Option<String>,
    /// Why, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Who: `uid 0` or an address for what a user did, the leader's or the unit's machine otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// One line of following events.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventLine {
    /// Everything up to here has been said: following goes on after it.
    pub revision: u64,
    /// What happened; left out: nothing, this line says only how far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<EventView>,
    /// Why this is the last line, and what to do; left out: it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end: String,
}

/// A page of units in byte order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitListing {
    /// The store's revision at which all pages hold: give it for the next page.
    pub revision: u64,
    /// The units.
    pub units: Vec<UnitView>,
    /// More follow: give the last name as `after`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// All machines, absent ones too.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineListing {
    /// In order of their ids.
    pub machines: Vec<MachineView>,
}

/// One machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineView {
    /// Its id.
    pub id: String,
    /// Its address; empty if unknown.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
    /// Its metadata, overrides applied.
    pub metadata: BTreeMap<String, String>,
    /// `present`, `suspect`, `lost`, `unsupervised`, `retired`.
    pub status: String,
    /// Why it has this status, in words; left out while it is present.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when it has this status, in milliseconds since 1970; 0: it is not known yet.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub since_ms: u64,
    /// When it first joined, likewise.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub first_seen_ms: u64,
    /// It would have been given up if fewer others were away; `POST /thaw` gives it up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// What is wrong there: it takes no new units, or does not believe its store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// New units come here last, since many have failed here: why. It ends when a unit runs well
    /// here, or with `cordoned: false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avoided: Option<String>,
    /// It takes no new units, because somebody asked for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// Its units are being moved to other machines, and it takes no new ones.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// So many units, with those that follow them, leave it at once; 0: as many as is usual.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_parallel: u32,
    /// fleetd's version there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// What is to change about a machine; what is left out stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineChange {
    /// Take no new units (`false`: take them again, and before others if it was avoided).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
    /// Move all units to other machines, and take no new ones (`false`: no longer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// So many units, with those that follow them, leave it at once; 0: as many as is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
}

/// The units that a machine has, or is still to stop.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineUnitListing {
    /// In byte order of their names.
    pub units: Vec<MachineUnit>,
}

/// A unit on a machine, and what is to become of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineUnit {
    /// The unit.
    pub name: String,
    /// What the machine is to do: `gone` (stop and forget it), `loaded`, `launched`.
    pub order: String,
    /// The machine that is to have it: another one while it moves; None while it is to have
    /// none, and for a global unit.
    #[serde(skip_serializing_if = "Option::is_none", rename = "machineID")]
    pub machine_id: Option<String>,
    /// Runs on every machine that qualifies.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// Why it is where it is, or why it cannot leave.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// It is to leave and cannot: which requirement refused how many other machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalView>,
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
