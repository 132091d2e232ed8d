//! From rows to the lines of an answer.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Bytes;
use fleet_api::v2::{ROW_FIELDS, RowPage, StateRow, UnitRow, Word};
use fleet_core::records::{DesiredState, MemberStatus};

use super::super::failure::Failure;
use super::super::read::came_to;
use super::table::{Presence, Row, Wish};
use crate::store::Revision;

/// About what a unit takes in an answer.
const ROW_BYTES: usize = 256;

/// What is asked for of each unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Fields {
    hash: bool,
    desired_state: bool,
    current_state: bool,
    description: bool,
    global: bool,
    machine_id: bool,
    states: bool,
}

/// Some units that follow one another.
pub(super) struct Part<'a> {
    pub(super) revision: Revision,
    pub(super) rows: &'a [Arc<Row>],
    pub(super) more: bool,
    pub(super) warnings: Vec<String>,
}

impl Fields {
    /// From a comma list.
    pub(super) fn parse(list: &str) -> Result<Fields, Failure> {
        let mut fields = Fields::default();
        for name in list.split(',').filter(|name| !name.is_empty()) {
            *match name {
                "hash" => &mut fields.hash,
                "desiredState" => &mut fields.desired_state,
                "currentState" => &mut fields.current_state,
                "description" => &mut fields.description,
                "global" => &mut fields.global,
                "machineID" => &mut fields.machine_id,
                "states" => &mut fields.states,
                // It is always there.
                "name" => continue,
                _ => {
                    let known = ROW_FIELDS.join(", ");
                    return Err(Failure::bad_request(format!(
                        "no such field {name:?}: use some of {known}"
                    )));
                }
            } = true;
        }
        Ok(fields)
    }

    /// All of them.
    pub(super) fn all() -> Fields {
        Fields {
            hash: true,
            desired_state: true,
            current_state: true,
            description: true,
            global: true,
            machine_id: true,
            states: true,
        }
    }

    /// A line: a [`RowPage`].
    pub(super) fn line(&self, presence: &Presence, part: Part<'_>) -> Bytes {
        let rows = part.rows.iter();
        let units = rows.filter_map(|row| Some(self.row(presence, row, row.wish.as_ref()?)));
        let page = RowPage {
            revision: part.revision,
            units: units.collect(),
            more: part.more,
            warnings: part.warnings,
        };
        let size = ROW_BYTES * (part.rows.len() + 1);
        let mut line = fleet_api::v1::to_json_sized(&page, size);
        line.push(b'\n');
        line.into()
    }

    pub(super) fn row<'a>(&self, presence: &Presence, row: &'a Row, wish: &'a Wish) -> UnitRow<'a> {
        let description = wish.description.as_deref();
        let states = row
            .states
            .iter()
            .filter(|_| self.states)
            .map(|state| StateRow {
                machine_id: (&*state.machine).into(),
                load: (&*state.load).into(),
                active: (&*state.active).into(),
                sub: (&*state.sub).into(),
                hash: match self.hash && state.hash != wish.hash {
                    true => state.hash.to_string().into(),
                    false => Cow::default(),
                },
                description: match self.description && Some(&*state.description) != description {
                    true => (&*state.description).into(),
                    false => Cow::default(),
                },
                stale: presence.status(&state.machine) != MemberStatus::Present,
            });
        let states = states.collect();
        let machine = row.placement.as_ref().and_then(|at| at.machine.as_deref());
        let current = (self.current_state && !wish.global)
            .then(|| Word::of(current_state(presence, row).as_str()));
        UnitRow {
            name: (&*row.name).into(),
            hash: match self.hash {
                true => wish.hash.to_string().into(),
                false => Cow::default(),
            },
            desired_state: match self.desired_state {
                true => wish.desired.as_str().into(),
                false => Cow::default(),
            },
            current_state: current,
            description: description.filter(|_| self.description).map(Word::of),
            global: self.global && wish.global,
            machine_id: machine.filter(|_| self.machine_id).map(Word::of),
            states,
        }
    }
}

/// v1's current state of a unit that is not global.
fn current_state(presence: &Presence, row: &Row) -> DesiredState {
    let placement = row.placement.as_ref();
    let machine = placement.and_then(|at| at.machine.as_deref());
    // A machine that is given up will not confirm that the unit has left it.
    let has_left = |id: &str| {
        let status = presence.status(id);
        matches!(status, MemberStatus::Lost | MemberStatus::Retired)
    };
    let leaving = placement.and_then(|at| at.leaving.as_deref());
    let home = machine.or(leaving.filter(|id| !has_left(id)));
    let there = row.states.iter().find(|s| Some(&*s.machine) == home);
    there.map_or(DesiredState::Inactive, |state| {
        came_to(state.reached, &state.load, &state.active)
    })
}
