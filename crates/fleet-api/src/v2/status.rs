//! A unit as its machines' systemds say at this moment.

use serde::{Deserialize, Serialize};

use super::{JournalEntry, UnitView, is_zero_u64};

/// Most lines of its journal that a status has.
pub const MAX_STATUS_LINES: usize = 1_000;

/// A unit as it is at this moment: what is kept of it, and what the systemd of each machine says
/// that has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitStatus {
    /// What is kept, without the text.
    pub unit: UnitView,
    /// The machines that have it, in order of their ids; none: it is nowhere.
    pub machines: Vec<UnitOnMachine>,
}

/// A unit on one machine at this moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitOnMachine {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// Its address; empty if unknown.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    /// `present`, `suspect`, `lost`, `unsupervised`, `retired`.
    pub machine_status: String,
    /// Since when, in milliseconds since 1970.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub machine_since_ms: u64,
    /// What its systemd says; left out: it could not be asked, and `error` says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<SystemdView>,
    /// The unit's last lines in that machine's journal, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<JournalEntry>,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// What can be done about that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// It did not answer at all: it is hardly to be reached by another way.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

/// What a systemd says of a unit. Numbers that it does not keep for a unit are left out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SystemdView {
    /// The unit's Description.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// LoadState.
    pub load: String,
    /// ActiveState.
    pub active: String,
    /// SubState.
    pub sub: String,
    /// Since when it has this state, in milliseconds since 1970.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub since_ms: u64,
    /// How its last run ended, in words; only of one that failed or has ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The unit file that was read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The file has changed since it was read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_reload: bool,
    /// InvocationID.
    #[serde(skip_serializing_if = "String::is_empty", rename = "invocationID")]
    pub invocation_id: String,
    /// The main process.
    #[serde(skip_serializing_if = "is_zero_u64", rename = "mainPID")]
    pub main_pid: u64,
    /// Its command, as the kernel names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub main_command: String,
    /// What the unit itself says of its state.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status_text: String,
    /// How often systemd itself has restarted it.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub restarts: u64,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// At most so many bytes at any time of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// No more bytes than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<u64>,
    /// Processor time in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<u64>,
    /// Its control group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub control_group: String,
}
