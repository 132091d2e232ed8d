//! Documents: those of the store, and those of an original cluster.

use std::fmt::Debug;

use fleet_core::records::{
    AssignmentRecord, MachineRecord, MachineWish, MemberRecord, PlacementRecord, StateRecord,
    UnitRecord,
};
use fleetd::store::{AskedRecord, ClusterRecord, Document, Error, LeaderRecord};

/// The first byte says which document, the rest is it. What is read is written and read as the
/// same, also over the old bytes, whose unknown fields stay; what is damaged names its key.
pub(crate) fn documents(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    match which % 10 {
        0 => document::<UnitRecord>(bytes),
        1 => document::<PlacementRecord>(bytes),
        2 => document::<AssignmentRecord>(bytes),
        3 => document::<MachineRecord>(bytes),
        4 => document::<MemberRecord>(bytes),
        5 => document::<MachineWish>(bytes),
        6 => document::<StateRecord>(bytes),
        7 => document::<LeaderRecord>(bytes),
        8 => document::<ClusterRecord>(bytes),
        _ => document::<AskedRecord>(bytes),
    }
}

fn document<T: Document + PartialEq + Debug>(bytes: &[u8]) {
    const KEY: &str = "units/a.service";
    let record = match T::decode(KEY, bytes) {
        Ok(record) => record,
        Err(error) => {
            let Error::Damaged { key, why } = &error else {
                panic!("damage is damage: {error}");
            };
            assert!(key == KEY && !why.is_empty());
            return;
        }
    };
    let written = record.encode();
    assert_eq!(T::decode(KEY, &written).as_ref().ok(), Some(&record));
    let over = record.encode_over(bytes);
    assert_eq!(
        T::decode(KEY, &over).as_ref().ok(),
        Some(&record),
        "{over:?}"
    );
    // Fields that are not known are kept once, however often the document is replaced.
    assert_eq!(record.encode_over(&over), over);
}

/// An answer of etcd's v2 keys API, read as each directory of the original's registry.
pub(crate) fn registry(data: &[u8]) {
    let Ok(node) = serde_json::from_slice::<fleet_api::registry::Node>(data) else {
        return;
    };
    let parts: Vec<_> = node.nodes.iter().map(Some).collect();
    let part = |idx: usize| parts.get(idx).copied().flatten();
    let registry = fleet_api::registry::read(part(0), part(1), part(2));
    assert!(registry.units.is_sorted_by(|a, b| a.name <= b.name));
    for unit in &registry.units {
        match &unit.file {
            Ok(file) => {
                assert_eq!(file.hash.len(), 40);
                super::units::unit_file(file.text.as_bytes());
            }
            Err(why) => assert!(!why.is_empty()),
        }
    }
}
