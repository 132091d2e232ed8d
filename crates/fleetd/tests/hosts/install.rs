//! `make install` and the manual pages, on this computer, into a directory.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use fleetd::config::keys::KEYS;

use crate::cluster::binaries;
use crate::package::repository;

fn make(arguments: &[&str], directory: &Path) -> Output {
    let output = Command::new("make")
        .current_dir(repository())
        .arg("--silent")
        .args(arguments)
        .arg(format!("DESTDIR={}", directory.display()))
        // This make is not the one that may have started the tests.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "make {arguments:?}: {told}");
    output
}

/// Installs into a directory.
fn installed(more: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let bin = format!("BIN={}", binaries().display());
    make(&[&["install", &bin], more].concat(), directory.path());
    directory
}

/// Files below a directory, by their paths in it.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let below = path.strip_prefix(directory).unwrap();
                found.insert(below.display().to_string());
            }
        }
    }
    found
}

#[test]
fn make_install_puts_files_where_they_are_looked_for_and_uninstall_removes_them() {
    let tree = installed(&[]);
    let mut expected: BTreeSet<String> = [
        "etc/fleet/fleet.conf",
        "etc/polkit-1/rules.d/50-fleet.rules",
        "usr/local/bin/fleetctl",
        "usr/local/bin/fleetd",
        "usr/local/lib/systemd/system/fleet.service",
        "usr/local/lib/systemd/system/fleet.socket",
        "usr/local/lib/sysusers.d/fleet.conf",
        "usr/local/lib/tmpfiles.d/fleet.conf",
        "usr/local/share/bash-completion/completions/fleetctl",
        "usr/local/share/fish/vendor_completions.d/fleetctl.fish",
        "usr/local/share/fleet/run-as-fleet.conf",
        "usr/local/share/zsh/site-functions/_fleetctl",
    ]
    .map(str::to_owned)
    .into();
    expected.extend(pages().iter().map(|page| {
        let section = page.rsplit('.').next().unwrap();
        format!("usr/local/share/man/man{section}/{page}")
    }));
    assert_eq!(files(tree.path()), expected);
    let service = tree
        .path()
        .join("usr/local/lib/systemd/system/fleet.service");
    let service = std::fs::read_to_string(service).unwrap();
    assert!(service.contains("\nExecStart=/usr/local/bin/fleetd\n"));

    // What somebody configured stays, at a second install and when all else goes.
    let conf = tree.path().join("etc/fleet/fleet.conf");
    std::fs::write(&conf, "metadata=mine=yes\n").unwrap();
    let bin = format!("BIN={}", binaries().display());
    make(&["install", &bin], tree.path());
    let told = make(&["uninstall"], tree.path());
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("fleet.conf was changed and stays"), "{told}");
    assert_eq!(
        std::fs::read_to_string(&conf).unwrap(),
        "metadata=mine=yes\n"
    );
    assert_eq!(
        files(tree.path()),
        ["etc/fleet/fleet.conf".to_owned()].into()
    );

    let untouched = installed(&["PREFIX=/usr"]);
    let rule = "usr/share/polkit-1/rules.d/50-fleet.rules";
    assert!(untouched.path().join(rule).exists());
    make(&["uninstall", "PREFIX=/usr"], untouched.path());
    assert_eq!(files(untouched.path()), BTreeSet::new());
}

/// The pages that there are to be: one for each command that is shown, and the others.
fn pages() -> BTreeSet<String> {
    let help = Command::new(binaries().join("fleetctl")).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    // Deeper lines go on in the description.
    let names = commands.filter_map(|line| {
        let line = line
            .strip_prefix("  ")
            .filter(|line| !line.starts_with(' '))?;
        line.split_whitespace().next()
    });
    let mut pages: BTreeSet<String> = names.map(|name| format!("fleetctl-{name}.1")).collect();
    assert!(pages.contains("fleetctl-start.1"), "{help}");
    let others = [
        "fleetctl.1",
        "fleet.access.5",
        "fleet.conf.5",
        "fleet.unit.5",
        "fleet.7",
        "fleetd.8",
    ];
    pages.extend(others.map(str::to_owned));
    pages
}

#[test]
fn manual_pages_are_well_formed_and_know_every_key() {
    let directory = tempfile::tempdir().unwrap();
    let written = Command::new("scripts/man.sh")
        .current_dir(repository())
        .args([&binaries(), directory.path()])
        .output()
        .unwrap();
    assert!(written.status.success(), "{written:?}");
    assert_eq!(files(directory.path()), pages());
    let mut lint = Command::new("mandoc");
    lint.args(["-T", "lint", "-W", "warning"]);
    lint.args(pages().iter().map(|page| directory.path().join(page)));
    let output = lint.output().expect("mandoc is there: make packages");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.is_empty(), "{told}");

    // As it is read.
    let shown = |page: &str| {
        let mut mandoc = Command::new("mandoc");
        let output = mandoc
            .args(["-T", "ascii"])
            .arg(directory.path().join(page));
        let text = String::from_utf8(output.output().unwrap().stdout).unwrap();
        // Bold is each letter, a backspace, and the letter again.
        let mut plain = String::new();
        for letter in text.chars() {
            match letter {
                '\u{8}' => drop(plain.pop()),
                letter => plain.push(letter),
            }
        }
        plain
    };
    let conf = shown("fleet.conf.5");
    for key in KEYS {
        let (name, help) = (key.name, key.help);
        assert!(
            conf.contains(&format!("\n       {name}=")),
            "{name}: {conf}"
        );
        let begin: Vec<&str> = help.split_whitespace().take(3).collect();
        assert!(conf.contains(&begin.join(" ")), "{help}: {conf}");
    }
    let start = shown("fleetctl-start.1");
    assert!(start.contains("--block-attempts=N"), "{start}");
    assert!(!conf.contains('@') && !shown("fleetd.8").contains("@VERSION@"));
}
