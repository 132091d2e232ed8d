//! The machines and units of a large cluster in which requirements are in play.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::{DesiredState, MachineId, UnitRecord};

/// As many instances has each app.
pub(crate) const INSTANCES: usize = 20;
const REGIONS: usize = 8;

/// The id of a machine.
pub(crate) fn machine(n: usize) -> MachineId {
    // Spread as random ids are.
    MachineId::new(&UnitHash::of(&n.to_le_bytes()).to_string()[..32])
}

/// What is told of a machine.
pub(crate) fn metadata(n: usize) -> BTreeMap<String, String> {
    let disk = if n.is_multiple_of(2) { "ssd" } else { "hdd" };
    BTreeMap::from([
        ("region".to_owned(), format!("r{}", n % REGIONS)),
        ("disk".to_owned(), disk.to_owned()),
    ])
}

/// What the unit of this number requires: of a region and a disk, to be apart from its like, to
/// follow another unit, nothing.
pub(crate) fn kind(n: usize) -> usize {
    n / INSTANCES % 4
}

/// One of the units.
pub(crate) fn unit(n: usize) -> (UnitName, UnitRecord) {
    let (app, instance) = (n / INSTANCES, n % INSTANCES);
    let requirements = match kind(n) {
        0 => format!(
            "MachineMetadata=region=r{}\nMachineMetadata=disk=ssd\n",
            app % REGIONS
        ),
        1 => format!("Conflicts=app{app}-*.service\n"),
        2 if instance > 0 => format!("MachineOf=app{app}-0.service\n"),
        _ => String::new(),
    };
    let text = format!("[Service]\nExecStart=/usr/bin/app {app}\n[X-Fleet]\n{requirements}");
    let record = UnitRecord {
        hash: UnitHash::of(text.as_bytes()),
        text: Arc::from(text),
        desired: DesiredState::Launched,
        restarts: 0,
        prefer: None,
        request_id: String::new(),
        earlier_requests: Vec::new(),
        buried: false,
        changed_by: String::new(),
        changed_ms: 0,
    };
    let name = UnitName::parse(&format!("app{app}-{instance}.service"))
        .expect("the benchmark's names are names");
    (name, record)
}
