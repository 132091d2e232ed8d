//! What fleetd holds in memory, as SIGUSR1 prints it: one line of JSON. The first three members
//! are the original's; the others tell what the original did not have.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Dump {
    /// What this machine is to run.
    #[serde(rename = "Agent")]
    pub agent: Agent,
    /// What it says of its units.
    #[serde(rename = "UnitStatePublisher")]
    pub publisher: Publisher,
    /// Which units it follows.
    #[serde(rename = "UnitStateGenerator")]
    pub generator: Generator,
    /// Its presence in the cluster.
    #[serde(rename = "Presence")]
    pub presence: Presence,
    /// Its engine.
    #[serde(rename = "Engine")]
    pub engine: Engine,
    /// Where the truth is kept.
    #[serde(rename = "Store")]
    pub store: Store,
    /// The configuration in force, by its keys, without secrets.
    #[serde(rename = "Config")]
    pub config: BTreeMap<&'static str, String>,
}

/// What this machine is to run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Agent {
    /// As the original has it.
    #[serde(rename = "Cache")]
    pub cache: AgentCache,
    /// Whether the agent answered; while it is at its work it may be late, and then its part of
    /// the dump is empty.
    #[serde(rename = "Answered")]
    pub answered: bool,
}

/// What this machine is to run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct AgentCache {
    /// `inactive`, `loaded` or `launched`, by unit.
    #[serde(rename = "TargetStates")]
    pub target_states: BTreeMap<String, &'static str>,
}

/// What this machine says of its units.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Publisher {
    /// What the store has.
    #[serde(rename = "Cache")]
    pub cache: BTreeMap<String, UnitState>,
    /// What is still to be said; null: that the unit is gone.
    #[serde(rename = "ToPublish")]
    pub to_publish: BTreeMap<String, Option<UnitState>>,
}

/// A unit, as systemd sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UnitState {
    /// systemd's.
    pub load_state: String,
    /// systemd's.
    pub active_state: String,
    /// systemd's.
    pub sub_state: String,
    /// The machine.
    #[serde(rename = "MachineID")]
    pub machine_id: String,
    /// Of the text that it runs.
    pub unit_hash: String,
    /// The unit.
    pub unit_name: String,
}

/// Which units this machine follows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Generator {
    /// Their names.
    #[serde(rename = "Subscribed")]
    pub subscribed: Vec<String>,
}

/// This machine's presence.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Presence {
    /// The machine.
    #[serde(rename = "MachineID")]
    pub machine_id: String,
    /// Null while it is not registered.
    pub epoch: Option<u64>,
    /// Whether its lease lives for certain, so that it may start units.
    pub certain: bool,
}

/// This machine's engine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Engine {
    /// `leading`, `following`, `candidate`, `disabled` or `too old`.
    pub role: &'static str,
    /// Who leads, as far as it knows.
    pub leader: Option<String>,
    /// The fence of what it writes, while it leads.
    pub fence: Option<u64>,
    /// Its version.
    pub version: u32,
}

/// Where the truth is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Store {
    /// `etcd http://10.0.0.1:2379`, `/var/lib/fleet/store.redb`.
    pub description: String,
}

impl Dump {
    /// One line, with its end.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = crate::v1::to_json(self);
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_members_are_the_originals() {
        let state = UnitState {
            load_state: "loaded".to_owned(),
            active_state: "active".to_owned(),
            sub_state: "running".to_owned(),
            machine_id: "6a97".to_owned(),
            unit_hash: "bb2b".to_owned(),
            unit_name: String::new(),
        };
        let unit = || "s@1.service".to_owned();
        let mut dump = Dump::default();
        dump.agent.cache.target_states.insert(unit(), "launched");
        dump.publisher.cache.insert(unit(), state);
        dump.generator.subscribed.push(unit());
        let line = String::from_utf8(dump.to_line()).unwrap();
        let begins = "{\"Agent\":{\"Cache\":{\"TargetStates\":{\"s@1.service\":\"launched\"}},\"Answered\":false},\
            \"UnitStatePublisher\":{\"Cache\":{\"s@1.service\":{\"LoadState\":\"loaded\",\"ActiveState\":\"active\",\
            \"SubState\":\"running\",\"MachineID\":\"6a97\",\"UnitHash\":\"bb2b\",\"UnitName\":\"\"}},\"ToPublish\":{}},\
            \"UnitStateGenerator\":{\"Subscribed\":[\"s@1.service\"]},\"Presence\":";
        assert!(line.starts_with(begins), "{line}");
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
    }
}
