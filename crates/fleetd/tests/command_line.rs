//! fleetd's command line: messages, streams and exit statuses, by the real binary.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// The binary's own path, as it stands in its usage.
const FLEETD: &str = env!("CARGO_BIN_EXE_fleetd");

fn fleetd(args: &[&str]) -> Output {
    let mut command = Command::new(FLEETD);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLEET_")) {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

#[track_caller]
fn check(args: &[&str], code: i32, stdout: &str, stderr_begins: &str) -> String {
    let out = fleetd(args);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(String::from_utf8(out.stdout).unwrap(), stdout, "{args:?}");
    assert!(stderr.starts_with(stderr_begins), "{args:?}: {stderr}");
    stderr
}

#[test]
fn the_version_goes_to_stdout() {
    let version = concat!("fleetd version v", env!("CARGO_PKG_VERSION"), "\n");
    for args in [["version"], ["-version"], ["--version"]] {
        assert_eq!(check(&args, 0, version, ""), "");
    }
}

#[test]
fn help_and_refusals_show_the_usage_on_stderr() {
    let usage = format!("Usage of {FLEETD}:\n  -config string\n");
    for args in [["-h"], ["--help"]] {
        let text = check(&args, 0, "", &usage);
        assert!(text.contains("\n  --agent_ttl=VALUE\n"), "{text}");
    }
    let message = "fleetd takes no arguments. Did you mean to invoke fleetctl instead?\n";
    check(&["foo"], 1, "", &format!("{message}{usage}"));
    let message = "flag provided but not defined: -bogus\n";
    check(&["--bogus"], 2, "", &format!("{message}{usage}"));
    let message = "flag needs an argument: -config\n";
    check(&["-config"], 2, "", &format!("{message}{usage}"));
}

#[test]
fn a_configuration_that_cannot_be_used_is_fatal() {
    let message =
        "FATAL Unable to use config file /nonexist: stat /nonexist: no such file or directory\n";
    assert_eq!(check(&["-config", "/nonexist"], 1, "", ""), message);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let message = format!("FATAL Provided config {path} is a directory, not a file\n");
    assert_eq!(check(&[&format!("--config={path}")], 1, "", ""), message);
    let file = dir.path().join("fleet.conf");
    let flag = format!("-config={}", file.display());
    std::fs::write(&file, "\nagent_ttl=bogus\n").unwrap();
    let message =
        "FATAL Failed creating Server: time: invalid duration \"bogus\" (agent_ttl=\"bogus\", ";
    check(&[&flag], 1, "", message);
    std::fs::write(&file, "metadata\n").unwrap();
    let message = format!(
        "FATAL Unable to use config file {}: iniparser: syntax error at ':1'.",
        file.display()
    );
    check(&[&flag], 1, "", &message);
}

#[test]
fn check_config_prints_the_result_and_warns_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.conf");
    std::fs::write(
        &file,
        "metdata=a=b\npublic_ip=10.0.0.1\nverify_units=true\n",
    )
    .unwrap();
    let out = fleetd(&[&format!("-config={}", file.display()), "--check-config"]);
    assert_eq!(out.status.code(), Some(0));
    let stdout = String::from_utf8(out.stdout).unwrap();
    assert!(
        stdout.contains(&format!("public_ip=10.0.0.1\t# {}; ", file.display())),
        "{stdout}"
    );
    let stderr = String::from_utf8(out.stderr).unwrap();
    let path = file.display();
    assert_eq!(
        stderr,
        format!(
            "warning: Config option verify_units is no longer supported - ignoring\n\
             warning: {path}: unknown key \"metdata\": did you mean \"metadata\"?\n"
        )
    );
}

#[test]
fn the_start_is_told_in_the_originals_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.conf");
    // It ends at once: there is no systemd of this user.
    std::fs::write(&file, "systemd_user=true\n").unwrap();
    let out = Command::new(FLEETD)
        .arg(format!("-config={}", file.display()))
        .env("XDG_RUNTIME_DIR", dir.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "INFO Starting fleetd version {version}\n\
         INFO Using provided config file {}\n",
        file.display()
    );
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(stderr.contains("no systemd of this user runs"), "{stderr}");
    assert_eq!(out.status.code(), Some(1));
}
