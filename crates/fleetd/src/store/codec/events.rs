//! The document of events. A transaction of a storm tells of a hundred units, so that what is the
//! same for the next one stands once.

use std::borrow::Cow;

use fleet_core::events::{Event, EventKind, EventsRecord};
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use serde::{Deserialize, Serialize};

use super::documents::{FRAME_BYTES, Word, is_zero, is_zero_u32, machine_of, machine_word, shape};
use super::{FORMAT, Shape, document, read, write, write_over};

/// What an event takes beside its fields, and each of them beside its text: `{},` and `"from":"",`.
const EVENT_BYTES: usize = 3;
const FIELD_BYTES: usize = 10;

shape! {
    EventsDoc<'a> for EventsRecord {
        n: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        at: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        by: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        first: u32,
        #[serde(default, skip_serializing_if = "is_zero_u32")]
        left: u32,
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<EventDoc<'a>>,
    }
    of(record) {
        n: record.number,
        at: record.at_ms,
        by: (&*record.by).into(),
        first: record.first,
        left: record.left_out,
        events: event_docs(&record.events)
    }
    text { record.events.iter().map(|event| size_of_event(event, None)).sum::<usize>() }
    record(doc) {
        Ok(EventsRecord {
            number: doc.n,
            at_ms: doc.at,
            by: doc.by.into_owned(),
            first: doc.first,
            events: events_of(doc.events)?,
            left_out: doc.left,
        })
    }
}

/// One event: `is` what, `of` which unit, `on` and `from` which machines, and `why`. Where `is` or `why`
/// is left out, it is the same as before.
#[derive(Serialize, Deserialize)]
pub(super) struct EventDoc<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    is: Option<Word<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    of: Option<Word<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    on: Option<Word<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    from: Option<Word<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    why: Option<Word<'a>>,
}

/// How many bytes an event takes in its document at most, behind that one.
pub(crate) fn size_of_event(event: &Event, before: Option<&Event>) -> usize {
    let is_same_kind = before.is_some_and(|before| before.kind == event.kind);
    let is_same_why = before.is_some_and(|before| before.why == event.why);
    let fields = [
        (!is_same_kind).then_some(event.kind.as_str()),
        event.unit.as_ref().map(UnitName::as_str),
        event.machine.as_ref().map(MachineId::as_str),
        event.from.as_ref().map(MachineId::as_str),
        (!is_same_why).then_some(event.why.as_str()),
    ];
    let fields = fields.into_iter().flatten();
    EVENT_BYTES
        + fields
            .map(|text| escaped(text) + FIELD_BYTES)
            .sum::<usize>()
}

/// How long a text is in JSON.
fn escaped(text: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(more).sum::<usize>()
}

fn event_docs(events: &[Event]) -> Vec<EventDoc<'_>> {
    // As nothing was before the first one, it says what it is.
    let (mut kind_before, mut why_before) = (None, "");
    let docs = events.iter().map(|event| {
        let kind = Some(event.kind.as_str());
        let is = kind.filter(|_| kind != kind_before);
        let why = (event.why != why_before).then(|| Word((&*event.why).into()));
        (kind_before, why_before) = (kind, &event.why);
        EventDoc {
            is: is.map(|word| Word(word.into())),
            of: event.unit.as_ref().map(|unit| Word(unit.as_str().into())),
            on: event.machine.as_ref().map(machine_word),
            from: event.from.as_ref().map(machine_word),
            why,
        }
    });
    docs.collect()
}

fn events_of(docs: Vec<EventDoc<'_>>) -> Result<Vec<Event>, String> {
    let mut kind = None;
    let mut why = String::new();
    let mut events = Vec::with_capacity(docs.len());
    for doc in docs {
        if let Some(word) = doc.is {
            kind = Some(EventKind::parse(&word.0));
        }
        if let Some(word) = doc.why {
            why = word.0.into_owned();
        }
        let unit = doc.of.map(|name| UnitName::parse(&name.0)).transpose();
        events.push(Event {
            kind: kind
                .clone()
                .ok_or("the first event does not say what it `is`")?,
            unit: unit.map_err(|error| format!("`of`: {error}"))?,
            machine: machine_of("on", doc.on)?,
            from: machine_of("from", doc.from)?,
            why: why.clone(),
        });
    }
    Ok(events)
}
