//! Tables in two shapes: aligned with tabs, byte for byte as the original prints them, and
//! aligned with blanks.

/// Terminals put a tab stop at every eighth column.
const TAB_WIDTH: usize = 8;

/// Cells separated by tabs. Each column is as wide as its longest cell and one more, rounded up
/// to a multiple of eight, and is filled with tabs; the last one is not filled. Widths count
/// characters.
pub(crate) fn with_tabs(rows: &[Vec<String>]) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    for row in rows {
        for (column_idx, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column_idx + 1 == row.len() {
                break;
            }
            let width = (widths[column_idx] + 1).next_multiple_of(TAB_WIDTH);
            let missing = width - cell.chars().count();
            text.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB_WIDTH)));
        }
        text.push('\n');
    }
    text
}

/// Cells separated by blanks: each column is as wide as its longest cell, and a gutter follows.
/// Columns beyond the list have its last gutter; the last column is not filled.
pub(crate) fn with_blanks(rows: &[Vec<String>], gutters: &[usize]) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    for row in rows {
        for (column_idx, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column_idx + 1 == row.len() {
                break;
            }
            let gutter = gutters.get(column_idx).or(gutters.last()).copied();
            let width = widths[column_idx] + gutter.unwrap_or(1);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        text.push('\n');
    }
    text
}

/// The longest cell of each column.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Vec<String>> {
        text.lines()
            .map(|line| line.split('|').map(str::to_owned).collect())
            .collect()
    }

    #[test]
    fn tabs_as_the_original() {
        let table = rows(
            "UNIT|LOAD|ACTIVE|SUB|MACHINE|HASH\n\
             bad.service|loaded|failed|failed|63d22e36.../172.30.1.2|1fa41b0\n\
             nocmd.service|bad-setting|inactive|dead|63d22e36.../172.30.1.2|fb2d4cc\n\
             once.service|loaded|inactive|dead|6a97c281.../172.30.1.3|b563664",
        );
        assert_eq!(
            with_tabs(&table),
            "UNIT\t\tLOAD\t\tACTIVE\t\tSUB\tMACHINE\t\t\tHASH\n\
             bad.service\tloaded\t\tfailed\t\tfailed\t63d22e36.../172.30.1.2\t1fa41b0\n\
             nocmd.service\tbad-setting\tinactive\tdead\t63d22e36.../172.30.1.2\tfb2d4cc\n\
             once.service\tloaded\t\tinactive\tdead\t6a97c281.../172.30.1.3\tb563664\n"
        );
    }

    #[test]
    fn without_rows_only_the_header() {
        assert_eq!(
            with_tabs(&rows("UNIT|MACHINE|ACTIVE|SUB")),
            "UNIT\tMACHINE\tACTIVE\tSUB\n"
        );
        assert_eq!(with_tabs(&[]), "");
    }

    #[test]
    fn a_cell_of_seven_fills_its_column_and_one_of_eight_does_not() {
        assert_eq!(with_tabs(&rows("1234567|x\na|y")), "1234567\tx\na\ty\n");
        assert_eq!(with_tabs(&rows("12345678|x\na|y")), "12345678\tx\na\t\ty\n");
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(with_tabs(&rows("ééééééé|x\na|y")), "ééééééé\tx\na\ty\n");
        assert_eq!(with_blanks(&rows("éé|x\na|y"), &[2]), "éé  x\na   y\n");
    }

    #[test]
    fn gutters_of_blanks() {
        assert_eq!(
            with_blanks(&rows("A|B|C\nlonger|b|c"), &[3, 1]),
            "A        B C\nlonger   b c\n"
        );
    }
}
