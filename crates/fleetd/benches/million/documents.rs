//! What a unit has in the store, without anybody who has put it there.

use std::sync::Arc;

use fleet_core::hash::UnitHash;
use fleet_core::records::{
    AssignmentRecord, Decision, DesiredState, Failures, MachineId, Order, PlacementRecord, Reached,
    StateRecord, UnitRecord,
};
use fleetd::store::Document;
use fleetd::store::keys;

/// As many machines as a large cluster has.
pub(crate) const MACHINES: usize = 5000;

/// The machine that a unit is on.
pub(crate) fn machine_of(n: usize) -> MachineId {
    MachineId::new(&format!("{:032x}", n % MACHINES))
}

/// The keys and documents of one unit, about as a real one has them.
pub(crate) fn documents(n: usize, all_keys: bool) -> Vec<(String, Vec<u8>)> {
    let name = format!("web-frontend-{n:07}.service");
    let text: Arc<str> = format!(
        "[Unit]\nDescription=Web frontend {n}\nAfter=network-online.target\n\n[Service]\n\
         ExecStart=/usr/bin/web --instance {n} --listen 0.0.0.0:8080 --config /etc/web/config.toml\n\
         Restart=always\nRestartSec=2\n\n[X-Fleet]\nMachineMetadata=region=eu\n"
    )
    .into();
    let hash = UnitHash::of(text.as_bytes());
    let (generation, seq) = (n as u64 + 1, n as u64 + 2);
    let decision = Decision { generation, seq };
    let machine = machine_of(n);
    let wish = UnitRecord {
        text: Arc::clone(&text),
        hash,
        desired: DesiredState::Launched,
        restarts: 0,
        prefer: None,
        request_id: format!("{n:016x}"),
        earlier_requests: Vec::new(),
        buried: false,
        changed_by: "uid 0".to_owned(),
        changed_ms: 1_700_000_000_000 + generation,
    };
    let mut documents = vec![(keys::unit(&name), wish.encode())];
    if all_keys {
        let placement = PlacementRecord {
            failures: Failures::default(),
            machine: Some(machine.clone()),
            leaving: None,
            decision,
            reason: "fewest units".to_owned(),
            refusals: vec![],
            passed_over: Vec::new(),
            considered: 0,
            assigned: 0,
            since_ms: 1_700_000_000_000 + generation,
        };
        let assignment = AssignmentRecord {
            text,
            hash,
            decision,
            order: Order::Launched,
            restarts: 0,
            reason: "fewest units".to_owned(),
        };
        let state = StateRecord {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            sub: "running".to_owned(),
            hash,
            decision,
            reached: Reached::Launched,
            invocation_id: format!("{:032x}", n * 7 + 1),
            description: format!("Web frontend {n}"),
            why: None,
            leased_ms: None,
            log: vec![],
        };
        documents.push((keys::placement(&name), placement.encode()));
        documents.push((
            keys::assignment(machine.as_str(), &name),
            assignment.encode(),
        ));
        documents.push((keys::state(&name, machine.as_str()), state.encode()));
    }
    documents
}
