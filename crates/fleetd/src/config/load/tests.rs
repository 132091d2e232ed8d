use super::*;

fn args(line: &str) -> Vec<OsString> {
    std::iter::once("fleetd")
        .chain(line.split_whitespace())
        .map(OsString::from)
        .collect()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(k, v)| (OsString::from(k), OsString::from(v)))
        .collect()
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.conf");
    std::fs::write(&path, text).unwrap();
    let flag = format!("-config={}", path.display());
    (dir, flag)
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let (_dir, flag) = file("metadata=from=file\nagent_ttl=10s\npublic_ip=10.0.0.1\n");
    let environment = env(&[
        ("FLEET_METADATA", "from=env"),
        ("FLEET_PUBLIC_IP", "10.0.0.2"),
    ]);
    let loaded = load(args(&format!("{flag} --public-ip 10.0.0.3")), environment).unwrap();
    assert_eq!(loaded.config.metadata, values::metadata("from=env"));
    assert_eq!(loaded.config.public_ip.as_deref(), Some("10.0.0.3"));
    assert_eq!(loaded.config.agent_ttl, Duration::from_secs(10));
    assert_eq!(loaded.origins["public_ip"].1, Origin::Flag);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn an_empty_variable_wins_too() {
    let (_dir, flag) = file("metadata=from=file\n");
    let loaded = load(args(&flag), env(&[("FLEET_METADATA", "")])).unwrap();
    assert!(loaded.config.metadata.is_empty());
}

#[test]
fn what_is_unknown_or_no_number_is_passed_over_with_a_warning() {
    let (_dir, flag) =
        file("etcd_server=http://a:2379\nverbosity=loud\nzzz=1\nverify_units=true\n");
    let loaded = load(args(&flag), env(&[])).unwrap();
    let warnings = loaded.warnings.join("\n");
    assert!(warnings.contains("unknown key \"etcd_server\": did you mean \"etcd_servers\"?"));
    assert!(warnings.contains("verbosity=\"loud\": not a number; the default is used"));
    assert!(warnings.contains("unknown key \"zzz\" is ignored"));
    assert!(warnings.contains("Config option verify_units is no longer supported - ignoring"));
    assert_eq!(loaded.config, Config::for_system());
}

#[test]
fn a_wrong_duration_or_store_is_fatal_and_names_the_key() {
    let error = load(args(""), env(&[("FLEET_AGENT_TTL", "bogus")])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment FLEET_AGENT_TTL: agent_ttl=\"bogus\": not a duration: write 500ms, 30s or 1m30s"
    );
    assert!(load(args("--store=mysql"), env(&[])).is_err());
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let error = load(args("-config /nonexist"), env(&[])).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unable to use config file /nonexist: "),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    let error = load(
        args(&format!("--config={}", dir.path().display())),
        env(&[]),
    )
    .unwrap_err();
    assert!(
        error.to_string().ends_with("it is a directory, not a file"),
        "{error}"
    );
    let (_dir, flag) = file("a=1\nnonsense\n");
    let error = load(args(&flag), env(&[])).unwrap_err();
    assert!(
        error.to_string().contains("syntax error at line 2"),
        "{error}"
    );
}

#[test]
fn arguments_and_unknown_flags_are_refused() {
    assert!(matches!(
        load(args("list-units"), env(&[])),
        Err(Error::Argument)
    ));
    assert!(
        matches!(load(args("--bogus"), env(&[])), Err(Error::UnknownFlag(flag)) if flag == "bogus")
    );
    assert_eq!(
        load(args("version"), env(&[])).unwrap().action,
        Action::Version
    );
    assert_eq!(load(args("-h"), env(&[])).unwrap().action, Action::Help);
}

#[test]
fn a_users_daemon_lives_in_the_users_directories() {
    let environment = env(&[
        ("FLEET_SYSTEMD_USER", "true"),
        ("XDG_RUNTIME_DIR", "/run/user/7"),
        ("HOME", "/home/u"),
    ]);
    let config = load(args(""), environment).unwrap().config;
    assert_eq!(config.api_socket, Path::new("/run/user/7/fleet.sock"));
    assert_eq!(
        config.state_directory,
        Path::new("/home/u/.local/state/fleet")
    );
    assert!(matches!(
        load(args(""), env(&[("FLEET_SYSTEMD_USER", "true")])),
        Err(Error::NoRuntimeDirectory)
    ));
}

#[test]
fn every_key_of_the_table_can_be_set() {
    for (key, _) in KEYS {
        assert!(apply_of(key).is_some(), "{key}");
    }
}
