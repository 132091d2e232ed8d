//! The rings of events: where what was decided and what happened is kept for a while.
//!
//! Each writer (the leader's engine, each machine's agent and API) has a ring of its own below
//! `events/`, of a fixed number of slots, each of a bounded size. What a transaction is about is
//! written with it, into the next slots; so an event costs no transaction, is there exactly when its
//! cause is, and nobody waits for anybody. Where a ring begins is seen by its revisions: the slot
//! after the newest one is the next.

pub(crate) use fleet_core::events::Event;
use fleet_core::events::EventsRecord;
use fleet_core::records::MachineId;
use tracing::info;

use crate::clock;
use crate::store::codec::{Document, size_of_event};
use crate::store::keys::{self, EventWriter, Key};
use crate::store::{Entry, Error, Op, Range, Revision, Store};

/// How large a ring is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    /// So many slots.
    pub(crate) slots: u32,
    /// So many bytes in each.
    pub(crate) slot_bytes: usize,
}

/// The engine's: 2 MiB at most. It tells of all units of the cluster: a thousand decisions one by one,
/// or about twenty thousand of storms.
pub(crate) const ENGINE: Size = Size {
    slots: 1_024,
    slot_bytes: 2_048,
};

/// A machine's, its agent's, its API's and that of its refusals each: 128 KiB at most, since there are thousands of them. That
/// is what happened there the last 64 times, or about two thousand units of storms.
pub(crate) const MACHINE: Size = Size {
    slots: 64,
    slot_bytes: 2_048,
};

/// One transaction fills at most so many slots: 125 units with usual names and the same reason fit.
/// Writers leave room for them; with more, a thousand wishes would be more than eight transactions.
pub(crate) const MAX_PUTS: usize = 3;

/// What the slots of one transaction take at most, beside its own writes.
pub(crate) const MAX_BYTES: usize = MAX_PUTS * ENGINE.slot_bytes;

/// Longer reasons are cut: one of them fits a slot with the longest names.
const MAX_WHY_BYTES: usize = 300;

/// Longer names of who did it are cut.
const MAX_BY_BYTES: usize = 64;

/// What a document takes beside its events.
const FRAME_BYTES: usize = 128 + MAX_BY_BYTES;

/// The end of one writer's ring.
#[derive(Debug)]
pub(crate) struct Ring {
    owner: Owner,
    /// The number of the next document.
    next: u64,
}

/// Whose ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Engine,
    Agent(MachineId),
    Api(MachineId),
    Denials(MachineId),
}

impl Owner {
    fn key(&self) -> EventWriter<'_> {
        match self {
            Owner::Engine => EventWriter::Engine,
            Owner::Agent(machine) => EventWriter::Agent(machine.as_str()),
            Owner::Api(machine) => EventWriter::Api(machine.as_str()),
            Owner::Denials(machine) => EventWriter::Denials(machine.as_str()),
        }
    }

    fn size(&self) -> Size {
        match self {
            Owner::Engine => ENGINE,
            Owner::Agent(_) | Owner::Api(_) | Owner::Denials(_) => MACHINE,
        }
    }
}

impl Ring {
    /// The ring as it is in the store.
    pub(crate) async fn read(store: &dyn Store, owner: Owner) -> Result<Ring, Error> {
        let range = Range {
            prefix: keys::events_of(owner.key()),
            ..Range::default()
        };
        let snapshot = store.read(range).await?;
        Ok(Ring::after(owner, &snapshot.entries))
    }

    /// A ring that goes on after these entries. Damage is written over when its turn comes.
    pub(crate) fn after(owner: Owner, entries: &[Entry]) -> Ring {
        let number = |entry: &Entry| {
            let record = EventsRecord::decode(&entry.key, &entry.value).ok()?;
            Some(record.number.saturating_add(1))
        };
        let next = entries.iter().filter_map(number).max().unwrap_or(0);
        Ring { owner, next }
    }

    /// The writes that tell of these events; none for none. At most [`MAX_PUTS`], and [`MAX_BYTES`].
    pub(crate) fn puts(&mut self, by: &str, events: Vec<Event>) -> Vec<Op> {
        let size = self.owner.size();
        let room = size.slot_bytes - FRAME_BYTES;
        let at_ms = clock::unix_ms();
        let by = &by[..by.floor_char_boundary(MAX_BY_BYTES)];
        let mut parts: Vec<EventsRecord> = Vec::new();
        let (mut left, mut n_told) = (0, 0);
        let n_events = events.len();
        for event in events {
            let event = cut(event, room);
            let before = parts.last().and_then(|part| part.events.last());
            let mut bytes = size_of_event(&event, before);
            if left < bytes {
                if parts.len() == MAX_PUTS {
                    break;
                }
                parts.push(EventsRecord {
                    number: self.next + parts.len() as u64,
                    at_ms,
                    by: by.to_owned(),
                    first: n_told,
                    ..EventsRecord::default()
                });
                left = room;
                bytes = size_of_event(&event, None);
            }
            left -= bytes;
            n_told += 1;
            if let Some(part) = parts.last_mut() {
                part.events.push(event);
            }
        }
        if let Some(last) = parts.last_mut() {
            last.left_out = u32::try_from(n_events).unwrap_or(u32::MAX) - n_told;
        }
        self.next += parts.len() as u64;
        let puts = parts.iter().map(|part| Op::Put {
            key: keys::event(self.owner.key(), slot(part.number, size)),
            value: part.encode(),
            lease: None,
        });
        puts.collect()
    }
}

fn slot(number: u64, size: Size) -> u32 {
    u32::try_from(number % u64::from(size.slots)).unwrap_or(0)
}

/// An event that fits a slot.
fn cut(mut event: Event, room: usize) -> Event {
    let end = event.why.floor_char_boundary(MAX_WHY_BYTES);
    event.why.truncate(end);
    if size_of_event(&event, None) > room {
        event.why.clear();
    }
    event
}

/// The events of a document, with what its key says: what a machine tells is about itself.
pub(crate) fn of_entry(entry: &Entry) -> Result<EventsRecord, Error> {
    let mut record = EventsRecord::decode(&entry.key, &entry.value)?;
    if let Key::Event(EventWriter::Agent(machine), _) = keys::parse(&entry.key) {
        machine.clone_into(&mut record.by);
        for event in &mut record.events {
            event.machine.get_or_insert_with(|| MachineId::new(machine));
        }
    }
    Ok(record)
}

/// Says in the journal what is committed.
pub(crate) fn log(event: &Event, by: &str, revision: Revision) {
    let Event {
        kind,
        unit,
        machine,
        from,
        why,
    } = event;
    let kind = kind.as_str();
    let (unit, machine, from) = (
        unit.as_ref().map(tracing::field::display),
        machine.as_ref().map(tracing::field::display),
        from.as_ref().map(tracing::field::display),
    );
    info!(
        kind,
        unit,
        machine,
        from,
        reason = why,
        by,
        revision,
        "event"
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet_core::events::EventKind;
    use fleet_core::name::UnitName;

    use super::*;

    fn started(unit: &str, why: &str) -> Event {
        Event {
            kind: EventKind::Started,
            unit: Some(UnitName::parse(unit).unwrap()),
            machine: None,
            from: None,
            why: why.to_owned(),
        }
    }

    fn agent() -> Owner {
        Owner::Agent(MachineId::new("148a18ff6e954cd892dac9de9bb90d5a"))
    }

    /// The slots as the store has them: each op at a revision of its own.
    #[derive(Default)]
    struct Slots(BTreeMap<String, Entry>, Revision);

    impl Slots {
        fn take(&mut self, ops: Vec<Op>) {
            for op in ops {
                let Op::Put { key, value, .. } = op else {
                    panic!("{op:?}")
                };
                self.1 += 1;
                let entry = Entry {
                    key: key.clone(),
                    value,
                    create_revision: self.1,
                    mod_revision: self.1,
                    lease: None,
                };
                self.0.insert(key, entry);
            }
        }

        fn entries(&self) -> Vec<Entry> {
            self.0.values().cloned().collect()
        }

        /// The units that are told of, in order.
        fn told(&self) -> Vec<String> {
            let mut entries = self.entries();
            entries.sort_by_key(|entry| entry.mod_revision);
            let records = entries.iter().map(|entry| of_entry(entry).unwrap());
            let units = records.flat_map(|record| record.events);
            units.map(|event| event.unit.unwrap().to_string()).collect()
        }
    }

    #[test]
    fn a_ring_keeps_the_newest_and_no_more_than_its_size_also_over_restarts() {
        let mut slots = Slots::default();
        let mut ring = Ring::after(agent(), &[]);
        let n_told = 3 * MACHINE.slots + 7;
        for n in 0..n_told {
            if n % 50 == 49 {
                ring = Ring::after(agent(), &slots.entries());
            }
            slots.take(ring.puts("", vec![started(&format!("u{n}.service"), "")]));
        }
        let newest = (n_told - MACHINE.slots..n_told).map(|n| format!("u{n}.service"));
        assert_eq!(slots.told(), newest.collect::<Vec<_>>());
        assert_eq!(slots.0.len(), MACHINE.slots as usize);
    }

    #[test]
    fn a_storm_is_told_whole_in_few_slots() {
        let mut slots = Slots::default();
        let mut ring = Ring::after(agent(), &[]);
        let units: Vec<String> = (0..125)
            .map(|n| format!("web-frontend@{n}.service"))
            .collect();
        let why = "148a18ff is lost; fewest units (20) of the machines that may run it";
        let events = units.iter().map(|unit| started(unit, why));
        let ops = ring.puts("", events.collect());
        assert!(ops.len() <= MAX_PUTS, "{}", ops.len());
        slots.take(ops);
        assert_eq!(slots.told(), units);
        for entry in slots.entries() {
            assert!(
                entry.value.len() <= MACHINE.slot_bytes,
                "{}",
                entry.value.len()
            );
        }
        // Their places in the transaction go on from slot to slot.
        let mut next = 0;
        for entry in slots.entries() {
            let record = of_entry(&entry).unwrap();
            assert_eq!(record.first, next);
            next += u32::try_from(record.events.len()).unwrap();
        }
    }

    #[test]
    fn no_event_is_larger_than_a_slot_and_what_has_no_room_is_counted() {
        let name = format!("{}.service", "\\".repeat(240));
        let why = "\"\u{1}é".repeat(200);
        for owner in [agent(), Owner::Engine] {
            let size = owner.size();
            let mut ring = Ring::after(owner, &[]);
            let event = Event {
                machine: Some(MachineId::new(&"m".repeat(64))),
                from: Some(MachineId::new(&"n".repeat(64))),
                ..started(&name, &why)
            };
            let ops = ring.puts(&"b".repeat(100), vec![event; 60]);
            assert_eq!(ops.len(), MAX_PUTS);
            let mut n_told = 0;
            let mut left_out = 0;
            for op in &ops {
                let Op::Put { key, value, .. } = op else {
                    panic!("{op:?}")
                };
                assert!(value.len() <= size.slot_bytes, "{}", value.len());
                let record = EventsRecord::decode(key, value).unwrap();
                n_told += record.events.len();
                left_out += record.left_out as usize;
            }
            assert!(n_told > 0);
            assert_eq!(n_told + left_out, 60);
        }
    }

    #[test]
    fn nothing_to_tell_is_no_write_and_damage_is_written_over() {
        let mut slots = Slots::default();
        let mut ring = Ring::after(agent(), &[]);
        assert_eq!(ring.puts("", Vec::new()), []);
        for unit in ["a.service", "b.service"] {
            slots.take(ring.puts("", vec![started(unit, "")]));
        }
        let mut entries = slots.entries();
        entries[1].value = b"{damage".to_vec();
        let mut ring = Ring::after(agent(), &entries);
        slots.take(ring.puts("", vec![started("c.service", "")]));
        assert_eq!(slots.told(), ["a.service", "c.service"]);
    }
}
