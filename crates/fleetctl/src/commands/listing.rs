//! What the listings share: their flags, the columns that can be asked for, the two shapes.
//!
//! Without `--fields` and `--full` a listing is aligned with blanks and shows whole machine ids;
//! with either of them it is the original's 1.0 table, byte for byte.

use std::collections::BTreeMap;

use clap::Args;
use fleet_api::v2::MachineView;
use serde::Serialize;

use crate::commands::Outcome;
use crate::commands::flags::{Format, OutputFlags};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::report::legend;
use crate::tabwriter::{Filling, Table};
use crate::ui::Ui;

/// Status of a machine that answers.
pub(crate) const PRESENT: &str = "present";

/// Status of a machine that has been given up.
pub(crate) const LOST: &str = "lost";

/// What a cell shows when there is nothing to show.
const NOTHING: &str = "-";

/// Flags of all listings.
#[derive(Args, Debug)]
pub(crate) struct ListFlags {
    /// Show ids and hashes in full, in the original's table
    #[arg(long, short = 'l', alias = "l")]
    pub(crate) full: bool,

    /// Leave out the header
    #[arg(long)]
    pub(crate) no_legend: bool,

    /// Which columns to show, in the original's table
    #[arg(long, value_name = "A,B,C")]
    pub(crate) fields: Option<String>,

    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

impl ListFlags {
    pub(crate) fn is_json(&self) -> bool {
        self.output.output == Format::Json
    }

    /// The fields of the original's table; None: ours is wanted.
    pub(crate) fn original<'t, Row>(
        &self,
        table: &'t [Field<Row>],
        default: &str,
    ) -> Result<Option<Vec<&'t Field<Row>>>, CommandError> {
        match &self.fields {
            Some(fields) => choose(table, fields).map(Some),
            None if self.full => choose(table, default).map(Some),
            None => Ok(None),
        }
    }
}

/// The same columns of the same table, for rows that live shorter.
pub(crate) fn same<'t, Row, Other>(
    table: &'t [Field<Row>],
    fields: &[&Field<Other>],
) -> Vec<&'t Field<Row>> {
    let of = |name: &str| table.iter().find(|field| field.name == name);
    fields.iter().filter_map(|field| of(field.name)).collect()
}

/// A column of the original's table.
pub(crate) struct Field<Row> {
    pub(crate) name: &'static str,
    /// The cell; empty: a dash. The flag is `--full`.
    pub(crate) cell: fn(&Row, bool) -> String,
}

fn choose<'t, Row>(
    table: &'t [Field<Row>],
    names: &str,
) -> Result<Vec<&'t Field<Row>>, CommandError> {
    if names.is_empty() {
        return Err(CommandError::new("Must define output format").hint(known_fields(table)));
    }
    let field = |name: &str| {
        table
            .iter()
            .find(|field| field.name == name)
            .ok_or_else(|| {
                CommandError::new(format!("Invalid key in output format: \"{name}\""))
                    .hint(known_fields(table))
            })
    };
    names.split(',').map(field).collect()
}

fn known_fields<Row>(table: &[Field<Row>]) -> String {
    let names: Vec<&str> = table.iter().map(|field| field.name).collect();
    format!("the fields are {}", names.join(","))
}

/// A table that is printed as its rows come.
pub(crate) struct Printing<'a> {
    ui: &'a Ui,
    table: Table,
    has_begun: bool,
}

impl<'a> Printing<'a> {
    /// Ours.
    pub(crate) fn ours(
        ui: &'a Ui,
        flags: &ListFlags,
        header: &[&str],
        gutters: &'static [usize],
    ) -> Printing<'a> {
        let header = header.iter().copied();
        Printing::new(ui, flags, header, Filling::Blanks(gutters))
    }

    /// The original's.
    pub(crate) fn original<Row>(
        ui: &'a Ui,
        flags: &ListFlags,
        fields: &[&Field<Row>],
    ) -> Printing<'a> {
        let header: Vec<String> = fields.iter().map(|f| f.name.to_uppercase()).collect();
        let header = header.iter().map(String::as_str);
        Printing::new(ui, flags, header, Filling::Tabs)
    }

    fn new<'h>(
        ui: &'a Ui,
        flags: &ListFlags,
        header: impl Iterator<Item = &'h str>,
        filling: Filling,
    ) -> Printing<'a> {
        let mut table = Table::new(filling);
        if !flags.no_legend {
            table.row(header);
        }
        Printing {
            ui,
            table,
            has_begun: false,
        }
    }

    /// A row; an empty cell shows a dash.
    pub(crate) fn row<'c>(&mut self, cells: impl IntoIterator<Item = &'c str>) {
        let or_dash = |cell: &'c str| if cell.is_empty() { NOTHING } else { cell };
        self.table.row(cells.into_iter().map(or_dash));
    }

    /// A row of the original's table.
    pub(crate) fn fields<Row>(&mut self, fields: &[&Field<Row>], row: &Row, full: bool) {
        let cells: Vec<String> = fields.iter().map(|f| (f.cell)(row, full)).collect();
        self.row(cells.iter().map(String::as_str));
    }

    /// Prints what can be printed by now.
    pub(crate) fn flush(&mut self) {
        let text = self.table.take();
        if !text.is_empty() {
            self.has_begun = true;
            self.ui.data(&text);
        }
    }

    /// Prints the rest. After a failure only of what has begun already: nothing is no table.
    pub(crate) fn finish(self, outcome: Result<(), CommandError>) -> Outcome {
        if outcome.is_ok() || self.has_begun {
            self.ui.data(&self.table.finish());
        }
        outcome.map(|()| Exit::Success)
    }
}

/// A list in JSON that is printed as its items come, as [`to_json`] would print it.
pub(crate) struct JsonList<'a> {
    ui: &'a Ui,
    is_empty: bool,
    failure: Option<CommandError>,
}

impl<'a> JsonList<'a> {
    pub(crate) fn new(ui: &'a Ui) -> JsonList<'a> {
        JsonList {
            ui,
            is_empty: true,
            failure: None,
        }
    }

    /// Some more items.
    pub(crate) fn items<T: Serialize>(&mut self, items: &[T]) {
        if items.is_empty() {
            return;
        }
        match to_json(&items) {
            Ok(text) => {
                let text = text.strip_prefix('[').unwrap_or(&text);
                let text = text.strip_suffix("\n]\n").unwrap_or(text);
                let before = if self.is_empty { "[" } else { "," };
                self.ui.data(&format!("{before}{text}"));
                self.is_empty = false;
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Ends it. After a failure it stays open, so that nobody takes it for whole.
    pub(crate) fn finish(self, outcome: Result<(), CommandError>) -> Outcome {
        outcome?;
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.ui.data(if self.is_empty { "[]\n" } else { "\n]\n" });
        Ok(Exit::Success)
    }
}

/// JSON for programs and people: indented, with a line break at the end.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, CommandError> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(CommandError::new(format!("failed to write JSON: {error}"))),
    }
}

/// Machines by their ids.
pub(crate) struct Machines(BTreeMap<String, MachineView>);

impl Machines {
    pub(crate) fn new(machines: Vec<MachineView>) -> Machines {
        let by_id = machines.into_iter().map(|m| (m.id.clone(), m));
        Machines(by_id.collect())
    }

    /// `63d22e36.../172.30.1.2`; without the address if the machine is not there.
    pub(crate) fn legend(&self, id: &str, full: bool) -> String {
        let machine = self.0.get(id).filter(|m| m.status == PRESENT);
        legend(id, machine.map_or("", |m| &m.primary_ip), full)
    }

    pub(crate) fn is_lost(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|machine| machine.status == LOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Field<u8>] = &[
        Field {
            name: "a",
            cell: |row, _| row.to_string(),
        },
        Field {
            name: "b",
            cell: |_, full| if full { "full".into() } else { String::new() },
        },
    ];

    #[test]
    fn fields_come_in_any_order_and_again() {
        let names = |text| -> Vec<&str> {
            choose(TABLE, text)
                .unwrap()
                .iter()
                .map(|f| f.name)
                .collect()
        };
        assert_eq!(names("b,a,b"), ["b", "a", "b"]);
        let error = |text| choose(TABLE, text).err().unwrap();
        assert_eq!(error("").message, "Must define output format");
        assert_eq!(error("a,,b").message, "Invalid key in output format: \"\"");
        assert_eq!(error("A").message, "Invalid key in output format: \"A\"");
        assert_eq!(error("a, b").hints, ["the fields are a,b"]);
    }
}
