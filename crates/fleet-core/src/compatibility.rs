//! What the code knows against COMPATIBILITY.md: nothing without its row, no row without its text.

use crate::agent::TaskKind;
use crate::glob::Glob;
use crate::name::{UnitName, UnitType};
use crate::requirements::{known, not_loadable};
use crate::schedule::{No, Stopping};
use crate::unit_file::UnitFile;
use crate::validate::{MAX_REQUIREMENTS_BYTES, UnknownKeys, validate_unit};

const COMPATIBILITY: &str = include_str!("../../../COMPATIBILITY.md");

/// The rows of a section, each with its cells.
fn rows(title: &str) -> Vec<Vec<&'static str>> {
    let section = COMPATIBILITY
        .split("\n## ")
        .find(|section| section.lines().next() == Some(title))
        .unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let rows = rows.filter(|row| !row.starts_with("---"));
    rows.map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

/// Whether a row of the section begins with this, as code.
#[track_caller]
fn has_row(title: &str, first: &str) {
    let cell = format!("`{first}`");
    let found = rows(title).iter().any(|row| row[0] == cell);
    assert!(found, "{cell} has no row in {title}");
}

/// Whether a row of the section quotes this.
#[track_caller]
fn is_quoted(title: &str, text: &str) {
    let quoted = format!("`{text}`");
    let found = rows(title)
        .iter()
        .any(|row| row.iter().any(|cell| cell.contains(&quoted)));
    assert!(found, "{quoted} is not told in {title}");
}

#[test]
fn every_row_is_filled() {
    for (title, at_least) in [
        ("Units", 90),
        ("Scheduling", 45),
        ("The machine (agent)", 35),
    ] {
        let rows = rows(title);
        assert!(rows.len() > at_least, "{title}: {}", rows.len());
        for row in rows {
            // The head of a table of states has no name for its first column.
            let is_head = row == ["", "original", "here"];
            assert!(is_head || row.len() > 1 && !row.contains(&""), "{row:?}");
        }
    }
}

#[test]
fn every_unit_type_has_its_row_which_says_whether_it_has_templates() {
    for unit_type in UnitType::ALL {
        has_row("Units", unit_type.as_str());
        let cell = format!("`{unit_type}`");
        let rows = rows("Units");
        let row = rows.iter().find(|row| row[0] == cell).unwrap();
        let templates = if unit_type.can_be_template() {
            "yes"
        } else {
            "no"
        };
        assert_eq!(row[1], templates, "{unit_type}");
        let is_pending = row[3].contains("as `scope`") || row[3].contains("pending");
        assert_eq!(is_pending, not_loadable(unit_type).is_some(), "{unit_type}");
    }
}

#[test]
fn every_key_and_specifier_of_x_fleet_has_its_row() {
    for key in known() {
        has_row("Units", key);
    }
    for specifier in ["%n", "%N", "%p", "%i"] {
        has_row("Units", specifier);
    }
}

#[test]
fn every_key_of_x_fleet_is_in_the_manual_page() {
    const PAGE: &str = include_str!("../../../contrib/man/fleet.unit.5");
    // A hyphen is written so, lest it be a dash.
    let page = PAGE.replace("\\-", "-");
    for key in known() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(
            page.split(|c| !word(c)).any(|found| found == key),
            "fleet.unit(5) lacks {key}"
        );
    }
}

#[test]
fn every_error_of_names_and_requirements_is_quoted_as_it_is_said() {
    let long = format!("{}.service", "a".repeat(256));
    for name in [
        "",
        &long,
        "a",
        "a.",
        "a.bogus",
        "a@1.mount",
        "a b.service",
        "@a.service",
        ".service",
    ] {
        let error = UnitName::parse(name).unwrap_err();
        is_quoted("Units", &error.to_string());
    }
    let large = format!("Conflicts={}", "a ".repeat(MAX_REQUIREMENTS_BYTES / 2));
    let large = large.replace("a a a a a a a a ", "a a a a a a a \\\n");
    let of = "MachineOf=b.service";
    for lines in [
        format!("{of}\nConflicts=b.*"),
        format!("{of}\nReplaces=b.*"),
        format!("MachineID=m\n{of}"),
        "MachineID=m\nConflicts=c".to_owned(),
        "MachineID=m\nGlobal=true".to_owned(),
        "MachineID=m\nReplaces=c".to_owned(),
        format!("Global=true\n{of}"),
        "Global=true\nReplaces=c".to_owned(),
        "Conflicts=c\nReplaces=d".to_owned(),
        large,
    ] {
        let file = UnitFile::parse(format!("[X-Fleet]\n{lines}\n")).unwrap();
        let error = validate_unit(None, &file, UnknownKeys::Allow).unwrap_err();
        is_quoted("Units", &error.to_string());
    }
    for text in ["[Unit", "[Unit] foo\n", "[Unit]\nFoo\n", "[Unit]\nFoo"] {
        let error = UnitFile::parse(text).unwrap_err();
        is_quoted("Units", &error.message());
    }
}

#[test]
fn every_reason_of_the_scheduler_is_quoted_as_it_is_said() {
    let unit = |name: &str| UnitName::parse(name).unwrap();
    let not_stopping = Stopping(false);
    for no in [
        No::NotLoadable(not_loadable(UnitType::Scope).unwrap()),
        No::Closed("the machine is cordoned".to_owned()),
        No::MachineId("abc".to_owned()),
        No::Metadata("region=eu or region=us".to_owned()),
        No::PeerNowhere("db.service".to_owned()),
        No::PeerElsewhere("db.service".to_owned()),
        No::Conflicts(Glob::new("b*.service"), not_stopping),
        No::ConflictOf(unit("a.service"), not_stopping),
        No::ReplacedBy(unit("a.service")),
        No::ReplacesFixed(unit("old.service")),
        No::RefusedByAgent("…".into()),
    ] {
        is_quoted("Scheduling", &no.to_string());
    }
}

#[test]
fn every_task_of_the_agent_has_its_row() {
    for task in TaskKind::ALL {
        has_row("The machine (agent)", task);
    }
}
