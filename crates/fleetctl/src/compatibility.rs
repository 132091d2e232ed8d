//! The command line's definition against COMPATIBILITY.md and the sessions: nothing without its
//! row, nothing without its session.

use std::path::{Path, PathBuf};

use clap::{Arg, Command};

use crate::cli::clap_command;

const COMPATIBILITY: &str = include_str!("../../../COMPATIBILITY.md");

/// The rows of our sections, each with its cells.
fn rows() -> Vec<Vec<&'static str>> {
    let sections = COMPATIBILITY.split("\n## ");
    let ours = sections.filter(|section| {
        ["fleetctl\n", "SSH\n", "The store"]
            .iter()
            .any(|title| section.starts_with(title))
    });
    let lines = ours.flat_map(str::lines);
    let rows = lines.filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

/// The flag with its dashes, each of its names.
fn flags(arg: &Arg) -> Vec<String> {
    let longs = arg.get_long_and_visible_aliases().unwrap_or_default();
    let hidden = arg.get_all_aliases().unwrap_or_default();
    let shorts = arg.get_short().map(|short| format!("-{short}"));
    let longs = longs.into_iter().chain(hidden);
    let longs = longs.map(|long| format!("--{long}"));
    shorts.into_iter().chain(longs).collect()
}

fn own_args(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.is_global_set())
}

/// The commands that people use.
fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
}

#[test]
fn every_row_is_filled() {
    let rows = rows();
    assert!(rows.len() > 80, "{}", rows.len());
    for row in rows {
        assert!(row.len() > 1 && !row.contains(&""), "{row:?}");
    }
}

#[test]
fn every_command_has_its_row() {
    let command = clap_command();
    for name in commands(&command).map(Command::get_name) {
        let cell = format!("`{name}`");
        assert!(rows().iter().any(|row| row[0] == cell), "{name} has no row");
    }
}

#[test]
fn every_flag_has_its_row() {
    let command = clap_command();
    let globals = command.get_arguments().filter(|arg| !arg.is_positional());
    for flag in globals.flat_map(flags) {
        let cell = format!("`{flag}`");
        let has_row = rows().iter().any(|row| row[0].contains(&cell));
        assert!(has_row, "{flag} has no row");
    }
    for command in commands(&command) {
        let name = format!("`{}`", command.get_name());
        for flag in own_args(command).flat_map(flags) {
            let cell = format!("`{flag}`");
            let has_row = rows()
                .iter()
                .any(|row| row[0].contains(&cell) && row[1].contains(&name));
            assert!(has_row, "{flag} of {name} has no row");
        }
    }
}

#[test]
fn every_global_flag_has_its_variable() {
    let command = clap_command();
    let globals = command.get_arguments().filter(|arg| arg.is_global_set());
    let with_value = globals.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"));
    let mut n_flags = 0;
    for flag in with_value.flat_map(flags) {
        let name = flag.trim_start_matches('-').to_uppercase();
        let variable = format!("`FLEETCTL_{}`", name.replace('-', "_"));
        let cell = format!("`{flag}`");
        let rows = rows();
        let row = rows.iter().find(|row| row[0].contains(&cell)).unwrap();
        assert!(row[1].contains(&variable), "{flag}: {row:?}");
        n_flags += 1;
    }
    assert!(n_flags > 10);
}

#[test]
fn no_command_is_without_its_sessions() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let runner = std::fs::read_to_string(tests.join("main.rs")).unwrap();
    for name in commands(&clap_command()).map(Command::get_name) {
        let module = name.replace('-', "_");
        let file: PathBuf = tests.join(format!("{module}.rs"));
        let sessions = std::fs::read_to_string(&file).unwrap_or_else(|error| {
            panic!("{name} has no sessions in {}: {error}", file.display())
        });
        assert!(sessions.contains(&format!("fleetctl {name}")), "{name}");
        let line = format!("mod {module};\n");
        assert!(runner.contains(&line), "{name} is not run");
    }
}
