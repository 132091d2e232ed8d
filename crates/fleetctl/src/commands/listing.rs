//! What the listings share: their flags, the columns that can be asked for, the two shapes.
//!
//! Without `--fields` and `--full` a listing is aligned with blanks and shows whole machine ids;
//! with either of them it is the original's 1.0 table, byte for byte.

use std::collections::BTreeMap;

use clap::Args;
use fleet_api::v2::MachineView;
use serde::Serialize;

use crate::commands::flags::{Format, OutputFlags};
use crate::error::CommandError;
use crate::report::legend;
use crate::tabwriter::{with_blanks, with_tabs};
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

/// Prints the original's table.
pub(crate) fn print_original<Row>(
    ui: &Ui,
    flags: &ListFlags,
    fields: &[&Field<Row>],
    rows: &[Row],
) {
    let mut table = Vec::with_capacity(rows.len() + 1);
    if !flags.no_legend {
        table.push(fields.iter().map(|f| f.name.to_uppercase()).collect());
    }
    table.extend(rows.iter().map(|row| {
        let cells = fields.iter().map(|field| (field.cell)(row, flags.full));
        cells.map(or_dash).collect()
    }));
    ui.data(&with_tabs(&table));
}

/// Prints our table.
pub(crate) fn print_ours(
    ui: &Ui,
    flags: &ListFlags,
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    gutters: &[usize],
) {
    let mut table: Vec<Vec<String>> = Vec::new();
    if !flags.no_legend {
        table.push(header.iter().map(|&name| name.to_owned()).collect());
    }
    table.extend(rows.map(|row| row.into_iter().map(or_dash).collect()));
    ui.data(&with_blanks(&table, gutters));
}

fn or_dash(cell: String) -> String {
    match cell.is_empty() {
        true => NOTHING.to_owned(),
        false => cell,
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
