//! Events as rows.

use fleet_api::v2::{EventView, MachineView};

use super::{MachineId, by_cell, ids, machine_cell};
use crate::columns::Columns;
use crate::when;

const HEADER: [&str; 6] = ["TIME (UTC)", "EVENT", "UNIT", "MACHINE", "BY", "WHY"];

/// The columns, and the machines by which who did it is known.
pub(super) struct Table {
    columns: Columns<{ HEADER.len() }>,
    machines: Vec<MachineId>,
    is_begun: bool,
}

impl Table {
    pub(super) fn new(machines: &[MachineView]) -> Table {
        Table {
            columns: Columns::new([19, 8, 16, 11, 8, 0]),
            machines: ids(machines),
            is_begun: false,
        }
    }

    /// All of them, with a header.
    pub(super) fn of(&mut self, events: &[EventView]) -> String {
        let rows: Vec<_> = events.iter().map(|event| self.cells(event)).collect();
        for row in &rows {
            self.columns.widen(row);
        }
        let mut text = self.header();
        for row in &rows {
            text.push_str(&self.columns.line(row));
        }
        text
    }

    /// One more.
    pub(super) fn row(&mut self, event: &EventView) -> String {
        let cells = self.cells(event);
        self.columns.widen(&cells);
        self.columns.line(&cells)
    }

    fn header(&mut self) -> String {
        match std::mem::replace(&mut self.is_begun, true) {
            true => String::new(),
            false => self.columns.line(&HEADER.map(str::to_owned)),
        }
    }

    fn cells(&self, event: &EventView) -> [String; HEADER.len()] {
        let time = when::utc(event.at_ms);
        Columns::cells([
            time.trim_end_matches(" UTC").to_owned(),
            event.kind.clone(),
            event.unit.clone().unwrap_or_default(),
            machine_cell(event),
            by_cell(event, &self.machines),
            event.reason.clone(),
        ])
    }
}
