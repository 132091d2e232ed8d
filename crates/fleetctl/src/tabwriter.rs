//! Tables in two shapes: aligned with tabs, byte for byte as the original prints them, and
//! aligned with blanks.
//!
//! A table is written as its rows come: its columns are as wide as the first [`SAMPLE_ROWS`] rows need,
//! so that the first rows of a hundred thousand are there at once.

/// Terminals put a tab stop at every eighth column.
const TAB_WIDTH: usize = 8;

/// Tables with up to so many rows are aligned as a whole. A cell that comes later and is longer than its
/// column moves the rest of its own row.
const SAMPLE_ROWS: usize = 5_000;

/// What fills columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filling {
    /// Tabs. Each column is as wide as its longest cell and one more, rounded up to a multiple of
    /// eight; the last one is not filled. Widths count characters.
    Tabs,
    /// Blanks: each column is as wide as its longest cell, and a gutter of so many blanks follows.
    /// Columns beyond the list have its last gutter; the last column is not filled.
    Blanks(&'static [usize]),
}

/// A table that is being written.
pub(crate) struct Table {
    filling: Filling,
    /// Of the cells seen so far.
    widths: Vec<usize>,
    /// The rows that wait for the widths: their cells, one behind the other.
    cells: String,
    /// Where each of those ends, and whether its row ends there.
    ends: Vec<(usize, bool)>,
    n_rows: usize,
    /// What can be printed.
    text: String,
}

impl Table {
    pub(crate) fn new(filling: Filling) -> Table {
        Table {
            filling,
            widths: Vec::new(),
            cells: String::new(),
            ends: Vec::new(),
            n_rows: 0,
            text: String::new(),
        }
    }

    /// A row.
    pub(crate) fn row<'c>(&mut self, cells: impl IntoIterator<Item = &'c str>) {
        let first = self.ends.len();
        for (column_idx, cell) in cells.into_iter().enumerate() {
            if self.n_rows < SAMPLE_ROWS {
                if column_idx == self.widths.len() {
                    self.widths.push(0);
                }
                self.widths[column_idx] = self.widths[column_idx].max(width_of(cell));
            }
            self.cells.push_str(cell);
            self.ends.push((self.cells.len(), false));
        }
        match self.ends[first..].last_mut() {
            Some((_, is_last)) => *is_last = true,
            None => return,
        }
        self.n_rows += 1;
        if self.n_rows >= SAMPLE_ROWS {
            self.align();
        }
    }

    /// What can be printed by now.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// The rest.
    pub(crate) fn finish(mut self) -> String {
        self.align();
        self.text
    }

    /// Writes the rows that wait.
    fn align(&mut self) {
        let (mut begin, mut column_idx) = (0, 0);
        for &(end, is_last) in &self.ends {
            let cell = &self.cells[begin..end];
            self.text.push_str(cell);
            begin = end;
            if is_last {
                self.text.push('\n');
                column_idx = 0;
                continue;
            }
            let width = self.widths.get(column_idx).copied().unwrap_or(0);
            let (filler, n) = self.filling.behind(column_idx, width, width_of(cell));
            self.text.extend(std::iter::repeat_n(filler, n));
            column_idx += 1;
        }
        self.cells.clear();
        self.ends.clear();
    }
}

impl Filling {
    /// What follows a cell in a column, and how often.
    fn behind(self, column_idx: usize, width: usize, cell: usize) -> (char, usize) {
        match self {
            Filling::Tabs => {
                let width = (width + 1).next_multiple_of(TAB_WIDTH);
                let missing = width.saturating_sub(cell);
                ('\t', missing.div_ceil(TAB_WIDTH).max(1))
            }
            Filling::Blanks(gutters) => {
                let gutter = gutters.get(column_idx).or(gutters.last()).unwrap_or(&1);
                let missing = (width + gutter).saturating_sub(cell);
                (' ', missing.max(1))
            }
        }
    }
}

/// In characters.
fn width_of(cell: &str) -> usize {
    match cell.is_ascii() {
        true => cell.len(),
        false => cell.chars().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(filling: Filling, text: &str) -> String {
        let mut table = Table::new(filling);
        text.lines().for_each(|line| table.row(line.split('|')));
        table.finish()
    }

    fn with_tabs(text: &str) -> String {
        table(Filling::Tabs, text)
    }

    #[test]
    fn tabs_as_the_original() {
        let text = with_tabs(
            "UNIT|LOAD|ACTIVE|SUB|MACHINE|HASH\n\
             bad.service|loaded|failed|failed|63d22e36.../172.30.1.2|1fa41b0\n\
             nocmd.service|bad-setting|inactive|dead|63d22e36.../172.30.1.2|fb2d4cc\n\
             once.service|loaded|inactive|dead|6a97c281.../172.30.1.3|b563664",
        );
        assert_eq!(
            text,
            "UNIT\t\tLOAD\t\tACTIVE\t\tSUB\tMACHINE\t\t\tHASH\n\
             bad.service\tloaded\t\tfailed\t\tfailed\t63d22e36.../172.30.1.2\t1fa41b0\n\
             nocmd.service\tbad-setting\tinactive\tdead\t63d22e36.../172.30.1.2\tfb2d4cc\n\
             once.service\tloaded\t\tinactive\tdead\t6a97c281.../172.30.1.3\tb563664\n"
        );
    }

    #[test]
    fn without_rows_only_the_header() {
        assert_eq!(
            with_tabs("UNIT|MACHINE|ACTIVE|SUB"),
            "UNIT\tMACHINE\tACTIVE\tSUB\n"
        );
        assert_eq!(with_tabs(""), "");
    }

    #[test]
    fn a_cell_of_seven_fills_its_column_and_one_of_eight_does_not() {
        assert_eq!(with_tabs("1234567|x\na|y"), "1234567\tx\na\ty\n");
        assert_eq!(with_tabs("12345678|x\na|y"), "12345678\tx\na\t\ty\n");
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(with_tabs("ééééééé|x\na|y"), "ééééééé\tx\na\ty\n");
        assert_eq!(table(Filling::Blanks(&[2]), "éé|x\na|y"), "éé  x\na   y\n");
    }

    #[test]
    fn gutters_of_blanks() {
        assert_eq!(
            table(Filling::Blanks(&[3, 1]), "A|B|C\nlonger|b|c"),
            "A        B C\nlonger   b c\n"
        );
    }

    /// The first rows do not wait for the last one, and a cell that is too long by then moves its own
    /// row and no other.
    #[test]
    fn columns_are_as_wide_as_the_first_rows_need() {
        for (filling, aligned, moved) in [
            (Filling::Tabs, "ab\tc\n", "abcdefgh\tc\n"),
            (Filling::Blanks(&[2]), "ab   c\n", "abcdefgh c\n"),
        ] {
            let mut table = Table::new(filling);
            table.row(["abc", "x"]);
            for _ in 2..SAMPLE_ROWS {
                table.row(["ab", "c"]);
                assert_eq!(table.take(), "", "widths may change");
            }
            table.row(["ab", "c"]);
            assert_eq!(table.take().lines().count(), SAMPLE_ROWS);
            table.row(["ab", "c"]);
            assert_eq!(table.take(), aligned);
            table.row(["abcdefgh", "c"]);
            assert_eq!(table.take(), moved);
            table.row(["ab", "c"]);
            assert_eq!(table.finish(), aligned);
        }
    }
}
