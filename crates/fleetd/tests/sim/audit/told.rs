//! Events: the rings stay within their bounds, and nothing is told but of what the same transaction does.

use std::collections::BTreeSet;

use fleet_core::events::{Event, EventKind, EventsRecord};
use fleetd::store::codec::Document;
use fleetd::store::keys::{self, EventWriter, Key};
use fleetd::store::{Op, Revision, Txn};

use crate::chance::Sim;

/// Slots and bytes of the engine's ring, and of a machine's.
const ENGINE: (u32, usize) = (1_024, 2_048);
const MACHINE: (u32, usize) = (64, 2_048);

/// Looks at one transaction.
pub(super) fn check(sim: &Sim, txn: &Txn, revision: Revision) {
    let keys = txn.ops.iter().map(|op| match op {
        Op::Put { key, .. } | Op::Delete { key } => key.as_str(),
    });
    let keys: BTreeSet<&str> = keys.collect();
    for op in &txn.ops {
        let Op::Put { key, value, .. } = op else {
            continue;
        };
        let Key::Event(writer, slot) = keys::parse(key) else {
            continue;
        };
        let (slots, bytes) = match writer {
            EventWriter::Engine => ENGINE,
            EventWriter::Agent(_) | EventWriter::Api(_) | EventWriter::Denials(_) => MACHINE,
        };
        if slot >= slots || value.len() > bytes {
            let size = value.len();
            sim.fail(format!(
                "{key} of {size} bytes at {revision}: the ring is larger than it may be"
            ));
        }
        let record = match EventsRecord::decode(key, value) {
            Ok(record) => record,
            Err(damage) => {
                sim.fail(format!("at {revision}: {damage}"));
                continue;
            }
        };
        for event in &record.events {
            if !is_done(event, writer, &keys) {
                sim.fail(format!(
                    "{event:?} is told at {revision}, which does no such thing"
                ));
            }
        }
    }
}

/// Whether a transaction that writes these keys does what is told of it.
fn is_done(event: &Event, writer: EventWriter<'_>, keys: &BTreeSet<&str>) -> bool {
    let unit = event.unit.as_ref().map_or("", |unit| unit.as_str());
    let machine = event
        .machine
        .as_ref()
        .map_or("", |machine| machine.as_str());
    match writer {
        EventWriter::Agent(machine) => keys.contains(&*keys::state(unit, machine)),
        EventWriter::Engine if event.kind == EventKind::Leader => true,
        EventWriter::Engine if unit.is_empty() => keys.contains(&*keys::member(machine)),
        EventWriter::Engine => {
            keys.contains(&*keys::placement(unit))
                || keys.contains(&*keys::assignment(machine, unit))
        }
        // What was refused does nothing.
        EventWriter::Denials(_) => event.kind == EventKind::Denied,
        EventWriter::Api(_) if !unit.is_empty() => keys.contains(&*keys::unit(unit)),
        EventWriter::Api(_) if !machine.is_empty() => keys.contains(&*keys::machine_wish(machine)),
        EventWriter::Api(_) => keys.contains(keys::THAW) || keys.contains(keys::ACCEPT_STORE),
    }
}
