//! Units as rows: of each only what a table shows, in pages that follow one another in one answer.
//!
//! They are made to be read in place: texts borrow from the answer.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{StateView, UnitView};

/// What `fields` may ask for besides the name, which is always there.
pub const ROW_FIELDS: [&str; 7] = [
    "hash",
    "desiredState",
    "currentState",
    "description",
    "global",
    "machineID",
    "states",
];

/// One line of an answer with `fields`: units in byte order of their names. The next line goes on
/// behind the last of them while `more` is said; when the answer ends before that, `after` its name
/// at `revision` goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RowPage<'a> {
    /// The store's revision at which all pages hold.
    pub revision: u64,
    /// The units.
    #[serde(borrow)]
    pub units: Vec<UnitRow<'a>>,
    /// More follow.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Records that were left out of it, since they cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One line of watching units: first all of them, in byte order of their names, then each that changes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitChanges<'a> {
    /// Everything up to here has been said: watching goes on after it. 0 while the listing is not
    /// complete: then it begins anew.
    pub revision: u64,
    /// Units as they are at present.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitRow<'a>>,
    /// Units that there are no more.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Cow<'a, str>>,
    /// This is a part of all units, with which watching begins; the last one has a revision.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub listing: bool,
    /// Records that were left out of it, since they cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why this is the last line, and what to do; left out: it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end: String,
}

/// What was asked for of a unit; see [`UnitView`] for what it means.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitRow<'a> {
    /// The unit.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Hash of its unit file.
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub hash: Cow<'a, str>,
    /// `inactive`, `loaded`, `launched`.
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub desired_state: Cow<'a, str>,
    /// `inactive`, `loaded`, `launched`, as v1 has it; None for a global unit.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub current_state: Option<Word<'a>>,
    /// Description of its unit file.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub description: Option<Word<'a>>,
    /// Runs on every machine that qualifies.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// The machine it is placed on.
    #[serde(borrow, skip_serializing_if = "Option::is_none", rename = "machineID")]
    pub machine_id: Option<Word<'a>>,
    /// How it is, a machine each; `gone` ones are left out.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateRow<'a>>,
}

/// A unit on one machine, as that machine reports it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateRow<'a> {
    /// The machine's id.
    #[serde(borrow, rename = "machineID")]
    pub machine_id: Cow<'a, str>,
    /// systemd's LoadState.
    #[serde(borrow)]
    pub load: Cow<'a, str>,
    /// systemd's ActiveState.
    #[serde(borrow)]
    pub active: Cow<'a, str>,
    /// systemd's SubState.
    #[serde(borrow)]
    pub sub: Cow<'a, str>,
    /// Hash of the text it runs, where it is not the unit's and hashes were asked for.
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub hash: Cow<'a, str>,
    /// The unit's Description, where it is not the unit file's and descriptions were asked for.
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub description: Cow<'a, str>,
    /// The machine is not present: this is its last report.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// Text that borrows also inside of an option.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Word<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'a> Word<'a> {
    /// A text that stands elsewhere.
    pub fn of(text: &'a str) -> Word<'a> {
        Word(Cow::Borrowed(text))
    }
}

impl std::ops::Deref for Word<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> UnitRow<'a> {
    /// What a state says it runs.
    pub fn hash_of<'s>(&'s self, state: &'s StateRow<'_>) -> &'s str {
        match &*state.hash {
            "" => &self.hash,
            hash => hash,
        }
    }

    /// What systemd calls it there; what its file says if systemd was not asked.
    pub fn description_of<'s>(&'s self, state: &'s StateRow<'_>) -> &'s str {
        match &*state.description {
            "" => self.description.as_deref().unwrap_or_default(),
            description => description,
        }
    }
}

impl<'a> From<&'a UnitView> for UnitRow<'a> {
    fn from(unit: &'a UnitView) -> UnitRow<'a> {
        UnitRow {
            name: (&*unit.name).into(),
            hash: (&*unit.hash).into(),
            desired_state: (&*unit.desired_state).into(),
            current_state: unit.current_state.as_deref().map(Word::of),
            description: unit.description.as_deref().map(Word::of),
            global: unit.global,
            machine_id: unit.machine_id.as_deref().map(Word::of),
            states: unit.states.iter().map(StateRow::from).collect(),
        }
    }
}

impl<'a> From<&'a StateView> for StateRow<'a> {
    fn from(state: &'a StateView) -> StateRow<'a> {
        StateRow {
            machine_id: (&*state.machine_id).into(),
            load: (&*state.load).into(),
            active: (&*state.active).into(),
            sub: (&*state.sub).into(),
            hash: (&*state.hash).into(),
            description: (&*state.description).into(),
            stale: state.stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An older fleetd knows no `fields`, and answers with one page of all that it knows.
    #[test]
    fn a_page_of_views_is_read_as_one_of_rows() {
        let view = UnitView {
            name: "a.service".into(),
            generation: 7,
            hash: "da39".into(),
            desired_state: "launched".into(),
            current_state: Some("launched".into()),
            description: Some("\"A\"".into()),
            machine_id: Some("m1".into()),
            reason: "least loaded".into(),
            states: vec![StateView {
                machine_id: "m1".into(),
                load: "loaded".into(),
                hash: "da39".into(),
                invocation_id: "17".into(),
                stale: true,
                log: vec!["x".into()],
                ..StateView::default()
            }],
            ..UnitView::default()
        };
        let listing = super::super::UnitListing {
            revision: 3,
            units: vec![view.clone()],
            more: true,
        };
        let text = crate::v1::to_json(&listing);
        let page: RowPage<'_> = serde_json::from_slice(&text).unwrap();
        assert_eq!(page.units, [UnitRow::from(&view)]);
        assert_eq!((page.revision, page.more), (3, true));
        let name = &page.units[0].name;
        assert!(matches!(name, Cow::Borrowed(_)), "nothing is copied");
        let machine = page.units[0].machine_id.as_ref().unwrap();
        assert!(matches!(machine.0, Cow::Borrowed(_)), "nothing is copied");
    }
}
