use std::time::Duration;

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
    assert_eq!(
        loaded.unsupported,
        ["Config option verify_units is no longer supported - ignoring"]
    );
    assert_eq!(loaded.config, Config::for_system());
    // Switched off or empty they are nothing to talk about.
    let (_dir, flag) = file("verify_units=false\nauthorized_keys_file=\n");
    let loaded = load(args(&flag), env(&[])).unwrap();
    assert!(loaded.unsupported.is_empty() && loaded.warnings.is_empty());
    let (_dir, flag) =
        file("authorized_keys_file=/x\ndisable_watches=true\nenable_grpc=1\nmetadata=a=b,c\n");
    let loaded = load(args(&flag), env(&[])).unwrap();
    assert_eq!(
        loaded.unsupported,
        ["Config option authorized_keys_file is no longer supported - ignoring"]
    );
    let [metadata, watches, grpc] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings);
    };
    assert!(
        metadata.ends_with("metadata: \"c\" is no key=value and is passed over"),
        "{metadata}"
    );
    assert!(
        watches.contains("disable_watches has no effect: watches stay on"),
        "{watches}"
    );
    assert!(grpc.contains("enable_grpc has no effect"), "{grpc}");
}

#[test]
fn a_wrong_duration_or_store_is_fatal_and_names_the_key() {
    let error = load(args(""), env(&[("FLEET_AGENT_TTL", "bogus")])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Failed creating Server: time: invalid duration \"bogus\" (agent_ttl=\"bogus\", environment FLEET_AGENT_TTL): write 500ms, 30s or 1m30s"
    );
    for (flag, why) in [
        (
            "--store=mysql",
            "no such store: write auto, etcd or embedded (store=\"mysql\", command line)",
        ),
        (
            "--lost-after=0",
            "must be more than 0 (lost_after=\"0\", command line)",
        ),
        (
            "--units-directory=units",
            "not an absolute path (units_directory=\"units\", command line)",
        ),
    ] {
        let error = load(args(flag), env(&[])).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_source_replaces_the_one_before_as_a_whole() {
    // A value that is no good, the empty one included, does not bring the file's back.
    let (_dir, flag) = file("verbosity=3\ndisable_engine=true\nagent_ttl=10s\n");
    let environment = env(&[("FLEET_VERBOSITY", ""), ("FLEET_DISABLE_ENGINE", "yes")]);
    let loaded = load(args(&flag), environment).unwrap();
    assert_eq!(loaded.config.verbosity, 0);
    assert!(!loaded.config.disable_engine);
    assert_eq!(
        loaded.warnings,
        [
            "environment FLEET_VERBOSITY: verbosity=\"\": not a number; the default is used",
            "environment FLEET_DISABLE_ENGINE: disable_engine=\"yes\": neither true nor false; the default is used",
        ]
    );
    // Within the file the last one wins; only capitals are read from the environment.
    let (_dir, flag) = file("public_ip=a\npublic_ip=b\n");
    let loaded = load(
        args(&flag),
        env(&[("FLEET_public_ip", "c"), ("public_ip", "d")]),
    )
    .unwrap();
    assert_eq!(loaded.config.public_ip.as_deref(), Some("b"));
    // An empty duration is as wrong as another.
    let error = load(args(&flag), env(&[("FLEET_AGENT_TTL", "")])).unwrap_err();
    assert!(
        error.to_string().contains("time: invalid duration \"\""),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let error = load(args("-config /nonexist"), env(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Unable to use config file /nonexist: stat /nonexist: no such file or directory"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    let error = load(args(&format!("--config={path}")), env(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Provided config {path} is a directory, not a file")
    );
    let (_dir, flag) = file("a=1\nnonsense\n");
    let error = load(args(&flag), env(&[])).unwrap_err().to_string();
    assert!(error.starts_with("Unable to use config file "), "{error}");
    assert!(
        error.contains("iniparser: syntax error at ':2'."),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.conf");
    std::fs::write(&path, b"metadata=a=\xff\n").unwrap();
    let error = load(args(&format!("-config={}", path.display())), env(&[])).unwrap_err();
    assert!(
        error.to_string().ends_with("it is not UTF-8 text"),
        "{error}"
    );
}

#[test]
fn the_file_that_is_used_is_told_in_the_originals_words() {
    let (_dir, flag) = file("");
    let loaded = load(args(&flag), env(&[])).unwrap();
    let path = flag.strip_prefix("-config=").unwrap();
    assert_eq!(
        loaded.about_file(),
        format!("Using provided config file {path}")
    );
    let default = Loaded {
        file_named: false,
        ..loaded
    };
    assert_eq!(
        default.about_file(),
        format!("Using default config file {path}")
    );
    let none = Loaded {
        file: None,
        ..default
    };
    assert_eq!(
        none.about_file(),
        "No provided or default config file found - proceeding without"
    );
}

#[test]
fn the_command_line_is_read_as_go_reads_it() {
    let refused = |line: &str| load(args(line), env(&[])).unwrap_err().to_string();
    for (line, message) in [
        (
            "list-units",
            "fleetd takes no arguments. Did you mean to invoke fleetctl instead?",
        ),
        (
            "-",
            "fleetd takes no arguments. Did you mean to invoke fleetctl instead?",
        ),
        (
            "-- x",
            "fleetd takes no arguments. Did you mean to invoke fleetctl instead?",
        ),
        ("--bogus", "flag provided but not defined: -bogus"),
        ("-bogus=1", "flag provided but not defined: -bogus"),
        ("-config", "flag needs an argument: -config"),
        ("--metadata", "flag needs an argument: -metadata"),
        ("---config=x", "bad flag syntax: ---config=x"),
        ("--=x", "bad flag syntax: --=x"),
        (
            "-version=maybe",
            "invalid boolean value \"maybe\" for -version: parse error",
        ),
        (
            "--disable-engine=maybe",
            "invalid boolean value \"maybe\" for -disable-engine: parse error",
        ),
    ] {
        assert_eq!(refused(line), message, "{line}");
    }
    let action = |line: &str| load(args(line), env(&[])).unwrap().action;
    for line in [
        "version",
        "-version",
        "--version",
        "--version=true",
        "-config /nonexist -version",
    ] {
        assert_eq!(action(line), Action::Version, "{line}");
    }
    for line in ["-h", "--help", "-help", "--help -version"] {
        assert_eq!(action(line), Action::Help, "{line}");
    }
    for line in ["", "--", "-version=false", "-config=", "--config="] {
        assert_eq!(action(line), Action::Run, "{line:?}");
    }
    assert_eq!(action("--check-config"), Action::CheckConfig);
    // A switch takes no further argument.
    let loaded = load(
        args("--disable-engine --api-insecure=false -public_ip 10.0.0.1"),
        env(&[]),
    );
    let config = loaded.unwrap().config;
    assert!(config.disable_engine && !config.api_insecure);
    assert_eq!(config.public_ip.as_deref(), Some("10.0.0.1"));
}

#[test]
fn check_config_shows_what_holds_and_why_and_no_secret() {
    let (_dir, flag) = file("etcd_password=hunter2\nmetadata=b=2, a=1\n");
    let loaded = load(
        args(&format!("{flag} --agent-ttl 1m30s")),
        env(&[("FLEET_PUBLIC_IP", "::1")]),
    );
    let text = loaded.unwrap().describe();
    let file = flag.strip_prefix("-config=").unwrap();
    for line in [
        &format!("etcd_password=***\t# {file}; "),
        &format!("metadata=a=1,b=2\t# {file}; "),
        "agent_ttl=90s\t# command line; ",
        "public_ip=::1\t# environment FLEET_PUBLIC_IP; ",
        "units_directory=/run/fleet/units\t# default; ",
        "token_limit=100\t# default; ",
    ] {
        assert!(
            text.lines().any(|shown| shown.starts_with(line)),
            "{line}: {text}"
        );
    }
    assert!(!text.contains("hunter2"));
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

/// For each key a value other than its default, how it is shown, and the default.
const VALUES: &[(&str, &str, &str, &str)] = &[
    ("verbosity", "0x2", "2", "0"),
    ("store", "embedded", "embedded", "auto"),
    (
        "etcd_servers",
        "[\"http://a:2379\", 'http://b:2379']",
        "http://a:2379,http://b:2379",
        "",
    ),
    ("etcd_username", "u", "u", ""),
    ("etcd_password", "p", "p", ""),
    ("etcd_keyfile", "/k", "/k", ""),
    ("etcd_certfile", "/c", "/c", ""),
    ("etcd_cafile", "/ca", "/ca", ""),
    ("etcd_key_prefix", "other", "/other/", "/_coreos.com/fleet/"),
    ("etcd_request_timeout", "2.5", "2.5", "1"),
    ("engine_reconcile_interval", "2", "2", "30"),
    ("public_ip", "10.0.0.1", "10.0.0.1", ""),
    ("metadata", "a=1 , b = 2", "a=1,b=2", ""),
    ("agent_ttl", "30s", "30s", "3s"),
    ("lost_after", "1500ms", "1500ms", "1s"),
    ("unsupervised_grace", "1h", "3600s", "600s"),
    ("freeze_share", "50%", "50", "34"),
    ("freeze_for", "90s", "90s", "300s"),
    ("units_directory", "/u/", "/u/", "/run/fleet/units"),
    ("run_directory", "/r", "/r", "/run/fleet"),
    ("state_directory", "/s", "/s", "/var/lib/fleet"),
    ("api_socket", "/x.sock", "/x.sock", "/run/fleet.sock"),
    (
        "api_listen",
        "[::1]:49153,127.0.0.1:1",
        "[::1]:49153,127.0.0.1:1",
        "",
    ),
    ("api_insecure", "T", "true", "false"),
    ("access_directory", "/a", "/a", "/etc/fleet/access.d"),
    ("require_signed_units", "true", "true", "false"),
    ("trusted_keys", "/t", "/t", "/etc/fleet/trusted-keys"),
    (
        "api_certfile",
        "/m.pem",
        "/m.pem",
        "/etc/fleet/pki/machine.pem",
    ),
    (
        "api_keyfile",
        "/m.key",
        "/m.key",
        "/etc/fleet/pki/machine.key",
    ),
    ("api_cafile", "/ca.pem", "/ca.pem", "/etc/fleet/pki/ca.pem"),
    (
        "api_cakeyfile",
        "/ca.key",
        "/ca.key",
        "/etc/fleet/pki/ca.key",
    ),
    ("systemd_user", "1", "true", "false"),
    ("token_limit", "65535", "65535", "100"),
    ("disable_engine", "TRUE", "true", "false"),
    ("disable_safety_ticks", "true", "true", "false"),
    ("disable_watches", "true", "", ""),
    ("enable_grpc", "true", "", ""),
    ("verify_units", "true", "", ""),
    ("authorized_keys_file", "/a", "", ""),
];

#[test]
fn every_key_is_read_from_each_source_and_shown() {
    let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    let tried: Vec<_> = VALUES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(tried, names);
    for (name, value, shown, default) in VALUES {
        let key = keys::find(name).unwrap();
        let show = |loaded: Result<Loaded, Error>| (key.show)(&loaded.unwrap().config);
        let user = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(show(load(args(""), env(&[]))), *default, "{name}");
        let (_dir, flag) = file(&format!("{name} = {value}\n"));
        assert_eq!(
            show(load(args(&flag), env(&[user]))),
            *shown,
            "{name} in the file"
        );
        let variable = format!("FLEET_{}", name.to_uppercase());
        let environment = env(&[user, (&variable, value)]);
        assert_eq!(show(load(args(""), environment)), *shown, "{variable}");
        for flag in [
            format!("--{name}={value}"),
            format!("-{}={value}", name.replace('_', "-")),
        ] {
            let line = [OsString::from("fleetd"), OsString::from(&flag)];
            assert_eq!(show(load(line, env(&[user]))), *shown, "{flag}");
        }
        // What is shown can be read.
        let mut again = Config::for_system();
        if !matches!(*name, "disable_watches" | "enable_grpc" | "verify_units") {
            (key.apply)(&mut again, shown).unwrap();
            assert_eq!((key.show)(&again), *shown, "{name}");
        }
    }
}

#[test]
fn the_sample_file_has_every_key_and_says_what_holds_without_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/fleet.conf.sample");
    let sample = std::fs::read_to_string(&path).unwrap_or_default();
    if sample != keys::sample() {
        let fresh = path.with_extension("sample.new");
        std::fs::write(&fresh, keys::sample()).unwrap();
        panic!(
            "contrib/fleet.conf.sample is not what the keys say: take {}",
            fresh.display()
        );
    }
    // As it is it sets nothing; with every line uncommented it sets what holds anyway.
    let (_dir, flag) = file(&sample);
    let loaded = load(args(&flag), env(&[])).unwrap();
    assert!(loaded.origins.is_empty() && loaded.warnings.is_empty());
    let settings: Vec<_> = sample
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| {
            KEYS.iter()
                .any(|key| line.starts_with(&format!("{}=", key.name)))
        })
        .filter(|line| !line.starts_with("disable_watches") && !line.starts_with("enable_grpc"))
        .filter(|line| !line.starts_with("verify_units"))
        .collect();
    let (_dir, flag) = file(&settings.join("\n"));
    let loaded = load(args(&flag), env(&[])).unwrap();
    assert_eq!(loaded.config, Config::for_system());
    assert_eq!(
        (loaded.origins.len(), loaded.warnings.len()),
        (KEYS.len() - 3, 0)
    );
}

#[test]
fn every_key_has_its_row_in_the_compatibility_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../COMPATIBILITY.md");
    let page = std::fs::read_to_string(path).unwrap();
    let section = page
        .split("\n## ")
        .find(|section| section.starts_with("fleetd\n"))
        .unwrap();
    for key in KEYS {
        let row = section
            .lines()
            .find(|line| line.starts_with(&format!("| `{}`", key.name)))
            .unwrap_or_else(|| panic!("{} has no row", key.name));
        assert!(
            row.split('|')
                .filter(|cell| !cell.is_empty())
                .all(|cell| !cell.trim().is_empty()),
            "{row}"
        );
    }
}
