use super::*;

fn parse(lines: &str) -> (Requirements, Vec<String>) {
    parse_named(lines, None)
}

fn parse_named(lines: &str, name: Option<&str>) -> (Requirements, Vec<String>) {
    let file = UnitFile::parse(format!("[X-Fleet]\n{lines}\n")).unwrap();
    let name = name.map(|name| UnitName::parse(name).unwrap());
    let (requirements, warnings) = Requirements::parse(&file, name.as_ref());
    let warnings = warnings.iter().map(Warning::to_string).collect();
    (requirements, warnings)
}

/// The metadata as `key=value|value key=…`.
fn metadata(lines: &str) -> String {
    let (requirements, _) = parse(lines);
    let keys = requirements.metadata.iter().map(|(key, values)| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        format!("{key}={}", values.join("|"))
    });
    keys.collect::<Vec<_>>().join(" ")
}

fn patterns(globs: &[Glob]) -> Vec<&str> {
    globs.iter().map(Glob::as_str).collect()
}

#[test]
fn no_section_means_no_requirements() {
    let file = UnitFile::parse("[Unit]\nMachineID=m\n[x-fleet]\nGlobal=true\n").unwrap();
    let (requirements, warnings) = Requirements::parse(&file, None);
    assert_eq!(requirements, Requirements::default());
    assert_eq!(warnings, [Warning::UnknownSection("x-fleet".to_owned())]);
}

#[test]
fn machine_id_is_the_first_value_of_the_first_spelling() {
    for (lines, id) in [
        ("MachineID=a", "a"),
        ("MachineID=a\nMachineID=b", "a"),
        ("MachineID=\"a\" \"b\"", "a"),
        ("MachineID=a b", "a b"),
        ("X-ConditionMachineID=x\nMachineID=a", "a"),
        ("X-ConditionMachineBootID=y\nX-ConditionMachineID=x", "x"),
        ("X-ConditionMachineBootID=y", "y"),
        ("MachineID=\nX-ConditionMachineID=x", ""),
    ] {
        assert_eq!(parse(lines).0.machine_id.as_deref(), Some(id), "{lines}");
    }
    assert_eq!(parse("machineID=a").0.machine_id, None);
}

#[test]
fn machine_of_takes_all_values_older_spelling_first() {
    let of = |lines| parse(lines).0.machine_of;
    assert_eq!(
        of("MachineOf=a.service\nX-ConditionMachineOf=b.service\nMachineOf=c.service"),
        ["b.service", "a.service", "c.service"]
    );
    assert_eq!(
        of("MachineOf=\"a.service\"  \"b.service\""),
        ["a.service", "b.service"]
    );
    assert_eq!(of("MachineOf=a.service b.service"), ["a.service b.service"]);
    // Nothing has this name, so the unit waits; it must not run anywhere.
    assert_eq!(of("MachineOf="), [""]);
}

#[test]
fn metadata_is_or_within_and_and_between_keys() {
    for (lines, expected) in [
        (
            "MachineMetadata=\"region=us-east-1\" \"diskType=SSD\"\nMachineMetadata=region=us-west-1",
            "diskType=SSD region=us-east-1|us-west-1",
        ),
        (
            "MachineMetadata=a=b\nX-ConditionMachineMetadata=a=c",
            "a=b|c",
        ),
        ("MachineMetadata=a=b c=d", "a=b c=d"),
        ("MachineMetadata=a=b\tc=d  a=e", "a=b|e c=d"),
        // One pair whose value has a blank, as in the original.
        ("MachineMetadata=region=us west", "region=us west"),
        ("MachineMetadata=\"a=b\"  \"c=d\"", "a=b c=d"),
        ("MachineMetadata=\"a b=c d\"", "a b=c d"),
        ("MachineMetadata=a=b=c", ""),
        ("MachineMetadata=\"a=b\" c=d \"e=f\"", "a=b c=d e=f"),
    ] {
        assert_eq!(metadata(lines), expected, "{lines}");
    }
}

#[test]
fn conflicts_are_split_on_whitespace_and_replaces_are_not() {
    let (requirements, warnings) =
        parse("Conflicts=a.* b.*\t\nConflicts=\"c d\" \"e\"\nX-Conflicts=x\nConflicts=");
    assert_eq!(
        patterns(&requirements.conflicts),
        ["x", "a.*", "b.*", "c", "d", "e"]
    );
    assert!(warnings.is_empty());
    let (requirements, _) = parse("Replaces=a b\nReplaces=\"c d\"  e \"f\"");
    assert_eq!(patterns(&requirements.replaces), ["a b", "c d", "e", "f"]);
}

#[test]
fn the_last_global_counts() {
    for (lines, expected) in [
        ("Global=true", true),
        ("Global=false\nGlobal=ON", true),
        ("Global=true\nGlobal=false", false),
        ("Global=\"false\" \"yes\"", true),
        ("Global=true\nGlobal=", false),
        ("Global=y", false),
    ] {
        assert_eq!(parse(lines).0.global, expected, "{lines}");
    }
}

#[test]
fn our_own_keys() {
    let (requirements, warnings) = parse("Exclusive=yes\nLostAfter=1m30s\nRescheduleOnFailure=on");
    assert!(requirements.exclusive);
    assert_eq!(requirements.reschedule_on_failure, DEFAULT_MOVES);
    assert_eq!(requirements.lost_after, Some(Duration::from_secs(90)));
    assert!(warnings.is_empty(), "{warnings:?}");
    let (requirements, warnings) = parse("Global=yes\nRescheduleOnFailure=3");
    assert_eq!(requirements.reschedule_on_failure, 3);
    // Whoever relies on it should know.
    assert_eq!(
        warnings,
        [
            "RescheduleOnFailure has no effect on a global unit: it runs on every machine that \
             qualifies"
        ]
    );
}

#[test]
fn specifiers_are_replaced_by_the_name_s_parts() {
    let lines = "MachineOf=db-%p@%i.service\nConflicts=%p@*.service %N.timer\nReplaces=%n";
    let (requirements, warnings) = parse_named(lines, Some("web@1.service"));
    assert_eq!(requirements.machine_of, ["db-web@1.service"]);
    assert_eq!(
        patterns(&requirements.conflicts),
        ["web@*.service", "web@1.timer"]
    );
    assert_eq!(patterns(&requirements.replaces), ["web@1.service"]);
    assert!(warnings.is_empty());
    assert_eq!(parse(lines).0.machine_of, ["db-%p@%i.service"]);
}

#[test]
fn what_is_left_out_is_a_warning() {
    let (requirements, warnings) =
        parse("Bogus=1\nExclusive=maybe\nLostAfter=x\nMachineMetadata=a\nConflicts=[\nGlobal=no");
    assert_eq!(
        requirements,
        Requirements {
            conflicts: vec![Glob::new("[")],
            ..Requirements::default()
        }
    );
    assert_eq!(
        warnings,
        [
            "unrecognized requirement in [X-Fleet] section: \"Bogus\"",
            "ignored: MachineMetadata=\"a\" is not key=value with one \"=\" and text on both \
             sides (write one pair per line, or quote each: MachineMetadata=\"a=b\" \"c=d\")",
            "ignored: Exclusive=\"maybe\" is neither yes nor no",
            "ignored: LostAfter=\"x\" is not a time span of at most 365 days, such as 30s or \
             1min 30s",
            "Conflicts=\"[\" matches nothing: the pattern is malformed",
        ]
    );
}
