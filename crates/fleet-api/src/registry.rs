//! The original's registry: how it keeps a cluster in etcd's v2 keys. Only read, to move on from
//! it; nothing here writes.
//!
//! | key below the prefix | value |
//! |---|---|
//! | `job/<unit>/object` | `{"Name":"a.service","UnitHash":[181,6,…]}` |
//! | `job/<unit>/target-state` | `inactive`, `loaded`, `launched`; absent means `inactive` |
//! | `job/<unit>/target` | id of the machine that it is placed on |
//! | `unit/<hash>` | `{"Raw":"…"}`: a unit file that any number of units share |
//! | `machines/<id>/object` | presence: address and metadata of the configuration |
//! | `machines/<id>/metadata/<key>` | metadata set at run time; empty means that the key is hidden |
//!
//! A `job/<unit>` without `object` is left over from a unit that was destroyed, and a machine
//! without one is absent; what was set for it at run time counts all the same.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The original's default prefix of all keys.
pub const DEFAULT_PREFIX: &str = "/_coreos.com/fleet/";

/// Bytes of a hash.
const HASH_BYTES: usize = 20;

/// An answer of etcd's v2 keys API.
#[derive(Debug, Deserialize)]
pub(crate) struct KeysAnswer {
    #[serde(default)]
    pub(crate) node: Node,
}

/// An error of etcd's v2 keys API.
#[derive(Debug, Deserialize)]
pub(crate) struct KeysError {
    #[serde(rename = "errorCode")]
    pub(crate) code: u32,
    #[serde(default)]
    pub(crate) message: String,
}

/// A key with its value, or a directory with what is in it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// The whole key.
    pub key: String,
    /// None of a directory.
    pub value: Option<String>,
    /// What is in a directory.
    pub nodes: Vec<Node>,
}

impl Node {
    /// The last part of its key.
    fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    fn child(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name() == name)
    }

    fn child_value(&self, name: &str) -> Option<&str> {
        self.child(name)?.value.as_deref()
    }
}

/// A cluster as the registry holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// In byte order of their names.
    pub units: Vec<RegistryUnit>,
    /// Names below `job/` that are no units (any more).
    pub left_over: Vec<String>,
    /// In order of their ids.
    pub machines: Vec<RegistryMachine>,
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUnit {
    /// Its name, unchecked.
    pub name: String,
    /// Its unit file and the hash under which it is kept, or which key is damaged and how.
    pub file: Result<RegistryFile, String>,
    /// What the key says, unchecked; `inactive` if it is absent.
    pub target_state: String,
    /// The key of the target state.
    pub target_state_key: String,
    /// The machine that it is placed on.
    pub machine: Option<String>,
}

/// A unit file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryFile {
    /// As stored.
    pub text: String,
    /// 40 hex digits.
    pub hash: String,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryMachine {
    /// Its id.
    pub id: String,
    /// Its address; empty if it is absent or has none.
    pub address: String,
    /// Metadata of its configuration; None if it is absent.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Metadata set at run time; an empty value hides a key of the configuration.
    pub overrides: BTreeMap<String, String>,
    /// Why its presence cannot be read.
    pub damage: Option<String>,
}

/// Reads the three directories; None: there is no such key.
pub fn read(job: Option<&Node>, unit: Option<&Node>, machines: Option<&Node>) -> Registry {
    let files = unit.map_or_else(BTreeMap::new, files);
    let mut registry = Registry::default();
    for node in job.map_or(&[][..], |job| &job.nodes) {
        match node.child("object") {
            Some(object) => registry.units.push(unit_of(node, object, &files)),
            None => registry.left_over.push(node.name().to_owned()),
        }
    }
    let machines = machines.map_or(&[][..], |machines| &machines.nodes);
    registry.machines = machines.iter().map(machine).collect();
    // etcd sorts only when it is asked to, and then by another order.
    registry.units.sort_by(|a, b| a.name.cmp(&b.name));
    registry.left_over.sort();
    registry.machines.sort_by(|a, b| a.id.cmp(&b.id));
    registry
}

/// Unit files by their hash.
fn files(unit: &Node) -> BTreeMap<&str, &Node> {
    unit.nodes.iter().map(|node| (node.name(), node)).collect()
}

fn unit_of(node: &Node, object: &Node, files: &BTreeMap<&str, &Node>) -> RegistryUnit {
    RegistryUnit {
        name: node.name().to_owned(),
        file: file_of(object, files),
        target_state: node
            .child_value("target-state")
            .unwrap_or("inactive")
            .to_owned(),
        target_state_key: format!("{}/target-state", node.key),
        machine: node
            .child_value("target")
            .filter(|id| !id.is_empty())
            .map(str::to_owned),
    }
}

fn file_of(object: &Node, files: &BTreeMap<&str, &Node>) -> Result<RegistryFile, String> {
    #[derive(Deserialize)]
    struct Object {
        #[serde(rename = "UnitHash")]
        hash: Vec<u8>,
    }
    #[derive(Deserialize)]
    struct File {
        #[serde(rename = "Raw")]
        raw: String,
    }
    let damaged = |key: &str, why: String| format!("{key} is damaged: {why}");
    let text = object.value.as_deref().unwrap_or_default();
    let object_of: Object =
        serde_json::from_str(text).map_err(|error| damaged(&object.key, error.to_string()))?;
    if object_of.hash.len() != HASH_BYTES {
        let why = format!("its UnitHash has {} bytes", object_of.hash.len());
        return Err(damaged(&object.key, why));
    }
    let hash: String = object_of.hash.iter().map(|b| format!("{b:02x}")).collect();
    let file = files
        .get(hash.as_str())
        .ok_or_else(|| format!("its unit file is missing: there is no unit/{hash}"))?;
    let text = file.value.as_deref().unwrap_or_default();
    let raw: File =
        serde_json::from_str(text).map_err(|error| damaged(&file.key, error.to_string()))?;
    Ok(RegistryFile {
        text: raw.raw,
        hash,
    })
}

fn machine(node: &Node) -> RegistryMachine {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Object {
        #[serde(rename = "PublicIP")]
        address: String,
        // Go writes null for an empty map.
        #[serde(rename = "Metadata")]
        metadata: Option<BTreeMap<String, String>>,
    }
    let mut machine = RegistryMachine {
        id: node.name().to_owned(),
        ..RegistryMachine::default()
    };
    if let Some(text) = node.child_value("object") {
        match serde_json::from_str::<Object>(text) {
            Ok(object) => {
                machine.address = object.address;
                machine.metadata = Some(object.metadata.unwrap_or_default());
            }
            Err(error) => {
                machine.damage = Some(format!("{}/object is damaged: {error}", node.key));
            }
        }
    }
    for entry in node.child("metadata").map_or(&[][..], |dir| &dir.nodes) {
        let value = entry.value.clone().unwrap_or_default();
        machine.overrides.insert(entry.name().to_owned(), value);
    }
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Node {
        serde_json::from_str::<KeysAnswer>(json).unwrap().node
    }

    const HASH: &str = "0102030405060708090a0b0c0d0e0f1011121314";

    fn job(inner: &str) -> Node {
        tree(&format!(
            r#"{{"action":"get","node":{{"key":"/p/job","dir":true,"nodes":[{{"key":"/p/job/a.service","dir":true,"nodes":[{inner}]}}]}}}}"#
        ))
    }

    fn object(value: &str) -> String {
        let value = serde_json::to_string(value).unwrap();
        format!(r#"{{"key":"/p/job/a.service/object","value":{value}}}"#)
    }

    const GOOD: &str =
        r#"{"Name":"a.service","UnitHash":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]}"#;

    fn unit(raw: &str) -> Node {
        let raw = serde_json::to_string(raw).unwrap();
        tree(&format!(
            r#"{{"node":{{"key":"/p/unit","dir":true,"nodes":[{{"key":"/p/unit/{HASH}","value":{raw}}}]}}}}"#
        ))
    }

    #[track_caller]
    fn fault(object_value: &str, raw: &str) -> String {
        let registry = read(Some(&job(&object(object_value))), Some(&unit(raw)), None);
        registry.units[0].file.clone().unwrap_err()
    }

    #[test]
    fn a_unit_and_what_is_left_of_one() {
        let target = r#"{"key":"/p/job/a.service/target","value":"m1"},{"key":"/p/job/a.service/target-state","value":"launched"}"#;
        let whole = job(&format!("{},{target}", object(GOOD)));
        let registry = read(Some(&whole), Some(&unit(r#"{"Raw":"[A]\nb=c\n"}"#)), None);
        assert_eq!(
            registry.units,
            [RegistryUnit {
                name: "a.service".into(),
                file: Ok(RegistryFile {
                    text: "[A]\nb=c\n".into(),
                    hash: HASH.into()
                }),
                target_state: "launched".into(),
                target_state_key: "/p/job/a.service/target-state".into(),
                machine: Some("m1".into()),
            }]
        );
        let registry = read(Some(&job(target)), None, None);
        assert_eq!(
            (registry.units.len(), registry.left_over),
            (0, vec!["a.service".to_owned()])
        );
        let registry = read(Some(&job(&object(GOOD))), None, None);
        assert_eq!(registry.units[0].target_state, "inactive");
    }

    #[test]
    fn damage_is_named_by_its_key() {
        assert_eq!(
            fault(r#"{"UnitHash":[1]}"#, "{}"),
            "/p/job/a.service/object is damaged: its UnitHash has 1 bytes"
        );
        assert!(fault("{", "{}").starts_with("/p/job/a.service/object is damaged: EOF"));
        assert!(
            fault(GOOD, r#"{"raw":1}"#)
                .starts_with(&format!("/p/unit/{HASH} is damaged: missing field `Raw`"))
        );
        let registry = read(Some(&job(&object(GOOD))), None, None);
        assert_eq!(
            registry.units[0].file.clone().unwrap_err(),
            format!("its unit file is missing: there is no unit/{HASH}")
        );
    }

    #[test]
    fn machines_present_absent_and_damaged() {
        let machines = tree(
            r#"{"node":{"key":"/p/machines","dir":true,"nodes":[
              {"key":"/p/machines/m2","dir":true,"nodes":[{"key":"/p/machines/m2/metadata","dir":true,"nodes":[
                {"key":"/p/machines/m2/metadata/zone","value":"z1"},{"key":"/p/machines/m2/metadata/rack","value":""}]}]},
              {"key":"/p/machines/m1","dir":true,"nodes":[{"key":"/p/machines/m1/object",
                "value":"{\"ID\":\"m1\",\"PublicIP\":\"10.0.0.1\",\"Metadata\":null,\"Version\":\"v1.0.0\"}"}]},
              {"key":"/p/machines/m3","dir":true,"nodes":[{"key":"/p/machines/m3/object","value":"x"}]}]}}"#,
        );
        let machines = read(None, None, Some(&machines)).machines;
        assert_eq!(machines[0].address, "10.0.0.1");
        assert_eq!(machines[0].metadata, Some(BTreeMap::new()));
        assert_eq!(machines[1].metadata, None);
        let overrides = [
            ("rack".to_owned(), String::new()),
            ("zone".to_owned(), "z1".to_owned()),
        ];
        assert_eq!(machines[1].overrides, BTreeMap::from(overrides));
        let damage = machines[2].damage.clone().unwrap();
        assert!(
            damage.starts_with("/p/machines/m3/object is damaged: "),
            "{damage}"
        );
    }
}
