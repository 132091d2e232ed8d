//! Rows that come one by one for as long as somebody looks: columns only ever grow, so that later rows
//! keep to those before as far as they fit.

use crate::report::visible;

/// Blanks between columns.
const GUTTER: usize = 2;

/// Nobody's name is cut, but a longer one moves only its own row.
const MAX_WIDTH: usize = 40;

/// What a cell shows when there is nothing to show.
const NOTHING: &str = "-";

/// The widths so far.
pub(crate) struct Columns<const N: usize> {
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    pub(crate) fn new(widths: [usize; N]) -> Columns<N> {
        Columns { widths }
    }

    /// Cells as they are shown.
    pub(crate) fn cells(cells: [String; N]) -> [String; N] {
        cells.map(|cell| match cell.is_empty() {
            true => NOTHING.to_owned(),
            false => visible(&cell).into_owned(),
        })
    }

    /// Makes room for a row.
    pub(crate) fn widen(&mut self, cells: &[String; N]) {
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = cell.chars().count().min(MAX_WIDTH).max(*width);
        }
    }

    /// A row, with its line break.
    pub(crate) fn line(&self, cells: &[String; N]) -> String {
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
