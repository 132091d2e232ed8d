//! Events as rows. Those that come later keep to the columns of those before, as far as they fit.

use fleet_api::v2::{EventView, MachineView};

use super::{MachineId, by_cell, ids, machine_cell};
use crate::report::visible;
use crate::when;

const HEADER: [&str; 6] = ["TIME (UTC)", "EVENT", "UNIT", "MACHINE", "BY", "WHY"];

/// Blanks between columns.
const GUTTER: usize = 2;

/// Nobody's name is cut, but a longer one moves only its own row.
const MAX_WIDTH: usize = 40;

/// What a cell shows when there is nothing to show.
const NOTHING: &str = "-";

/// The columns, and the machines by which who did it is known.
pub(super) struct Table {
    widths: [usize; HEADER.len()],
    machines: Vec<MachineId>,
    is_begun: bool,
}

impl Table {
    pub(super) fn new(machines: &[MachineView]) -> Table {
        Table {
            widths: [19, 8, 16, 11, 8, 0],
            machines: ids(machines),
            is_begun: false,
        }
    }

    /// All of them, with a header.
    pub(super) fn of(&mut self, events: &[EventView]) -> String {
        let rows: Vec<_> = events.iter().map(|event| self.cells(event)).collect();
        for row in &rows {
            self.widen(row);
        }
        let mut text = self.header();
        for row in &rows {
            text.push_str(&self.line(row));
        }
        text
    }

    /// One more.
    pub(super) fn row(&mut self, event: &EventView) -> String {
        let cells = self.cells(event);
        self.widen(&cells);
        self.line(&cells)
    }

    fn header(&mut self) -> String {
        match std::mem::replace(&mut self.is_begun, true) {
            true => String::new(),
            false => self.line(&HEADER.map(str::to_owned)),
        }
    }

    fn cells(&self, event: &EventView) -> [String; HEADER.len()] {
        let time = when::utc(event.at_ms);
        [
            time.trim_end_matches(" UTC").to_owned(),
            event.kind.clone(),
            event.unit.clone().unwrap_or_default(),
            machine_cell(event),
            by_cell(event, &self.machines),
            event.reason.clone(),
        ]
        .map(|cell| match cell.is_empty() {
            true => NOTHING.to_owned(),
            false => visible(&cell).into_owned(),
        })
    }

    fn widen(&mut self, cells: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = cell.chars().count().min(MAX_WIDTH).max(*width);
        }
    }

    fn line(&self, cells: &[String; HEADER.len()]) -> String {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(self.widths) {
            line.push_str(cell);
            let missing = (width + GUTTER).saturating_sub(cell.chars().count());
            line.extend(std::iter::repeat_n(' ', missing.max(1)));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}
