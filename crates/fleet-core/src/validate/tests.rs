use proptest::prelude::*;

use super::*;

fn section(lines: &str) -> UnitFile {
    UnitFile::parse(format!("[X-Fleet]\n{lines}\n")).unwrap()
}

fn name(text: &str) -> UnitName {
    UnitName::parse(text).unwrap()
}

/// The outcome in one line: the error, or `ok` and the warnings.
fn outcome(result: Result<Vec<Warning>, ValidateError>) -> String {
    match result {
        Ok(warnings) => warnings
            .into_iter()
            .fold("ok".to_owned(), |line, w| format!("{line} | {w}")),
        Err(e) => e.to_string(),
    }
}

#[track_caller]
fn check(lines: &str, expected: &str) {
    let result = validate_unit(None, &section(lines), UnknownKeys::Default);
    assert_eq!(outcome(result), expected, "{lines}");
}

#[track_caller]
fn check_named(unit: &str, lines: &str, expected: &str) {
    let result = validate_unit(Some(&name(unit)), &section(lines), UnknownKeys::Default);
    assert_eq!(outcome(result), expected, "{unit} {lines}");
}

const PEER: &str = "MachineOf=b.service";

#[test]
fn contradictions_have_the_original_s_words() {
    let peer_matches =
        |kind| format!("unresolvable requirements: peer \"b.service\" matches {kind} \"b.*\"");
    check(
        &format!("{PEER}\nConflicts=x b.*"),
        &peer_matches("conflict"),
    );
    check(&format!("Replaces=b.*\n{PEER}"), &peer_matches("replace"));
    for (lines, expected) in [
        (
            "MachineID=m\nMachineOf=b.service",
            "MachineID cannot be used with Peers",
        ),
        (
            "MachineID=m\nConflicts=c.*",
            "MachineID cannot be used with Conflicts",
        ),
        (
            "MachineID=m\nGlobal=true",
            "MachineID cannot be used with Global",
        ),
        (
            "MachineID=m\nReplaces=c.*",
            "MachineID cannot be used with Replaces",
        ),
        (
            "Global=yes\nMachineOf=b.service",
            "Global cannot be used with Peers",
        ),
        (
            "Global=1\nReplaces=c.*",
            "Global cannot be used with Replaces",
        ),
        (
            "Conflicts=c.*\nReplaces=d.*",
            "Conflicts cannot be used with Replaces",
        ),
        // Older spellings count.
        (
            "X-ConditionMachineBootID=m\nX-ConditionMachineOf=b.service",
            "MachineID cannot be used with Peers",
        ),
        (
            "X-ConditionMachineID=m\nX-Conflicts=c",
            "MachineID cannot be used with Conflicts",
        ),
    ] {
        check(lines, expected);
    }
}

#[test]
fn the_first_contradiction_in_order_is_the_error() {
    let all = [
        PEER,
        "MachineID=m",
        "Global=true",
        "Conflicts=b.*",
        "Replaces=b.*",
    ];
    check(
        &all.join("\n"),
        "unresolvable requirements: peer \"b.service\" matches conflict \"b.*\"",
    );
    check(
        "MachineOf=b.service\nMachineOf=c.service\nReplaces=b.*\nConflicts=c.*",
        "unresolvable requirements: peer \"c.service\" matches conflict \"c.*\"",
    );
    check(
        &[
            PEER,
            "MachineID=m",
            "Global=true",
            "Conflicts=c",
            "Replaces=c",
        ]
        .join("\n"),
        "MachineID cannot be used with Peers",
    );
    check(
        &["MachineID=m", "Global=true", "Conflicts=c", "Replaces=c"].join("\n"),
        "MachineID cannot be used with Conflicts",
    );
    check(
        &["MachineID=m", "Global=true", "Replaces=c"].join("\n"),
        "MachineID cannot be used with Global",
    );
    check(
        &[PEER, "Global=true", "Conflicts=c", "Replaces=c"].join("\n"),
        "Global cannot be used with Peers",
    );
    check(
        &["Global=true", "Conflicts=c", "Replaces=c"].join("\n"),
        "Global cannot be used with Replaces",
    );
}

/// Each option in each of its spellings; the first column is how errors call it.
const SPELLINGS: &[(&str, &[&str])] = &[
    (
        "MachineID",
        &[
            "MachineID=m",
            "X-ConditionMachineID=m",
            "X-ConditionMachineBootID=m",
        ],
    ),
    ("Peers", &[PEER, "X-ConditionMachineOf=b.service"]),
    ("Conflicts", &["Conflicts=c.*", "X-Conflicts=c.*"]),
    ("Replaces", &["Replaces=d.*"]),
    (
        "Global",
        &[
            "Global=true",
            "Global=YES",
            "Global=1",
            "Global=on",
            "Global=t",
        ],
    ),
    (
        "MachineMetadata",
        &["MachineMetadata=a=b", "X-ConditionMachineMetadata=a=b"],
    ),
    ("Global is not meant", &["Global=false", "Global=no"]),
    ("Exclusive", &["Exclusive=yes"]),
    ("LostAfter", &["LostAfter=30s"]),
    ("RescheduleOnFailure", &["RescheduleOnFailure=no"]),
];

/// The pairs that exclude each other: as the original has them, and one of ours.
const EXCLUSIVE_PAIRS: [(&str, &str); 8] = [
    ("MachineID", "Peers"),
    ("MachineID", "Conflicts"),
    ("MachineID", "Global"),
    ("MachineID", "Replaces"),
    ("Global", "Peers"),
    ("Global", "Replaces"),
    ("Conflicts", "Replaces"),
    ("Global", "Exclusive"),
];

#[test]
fn every_pair_of_options_in_every_spelling_is_allowed_or_has_its_error() {
    let mut n_refused = 0;
    for (a, a_lines) in SPELLINGS {
        for (b, b_lines) in SPELLINGS {
            if a == b {
                continue;
            }
            let expected = EXCLUSIVE_PAIRS
                .iter()
                .find(|(x, y)| (x, y) == (a, b) || (x, y) == (b, a))
                .map_or("ok".to_owned(), |(x, y)| {
                    format!("{x} cannot be used with {y}")
                });
            for a_line in *a_lines {
                for b_line in *b_lines {
                    check(&format!("{a_line}\n{b_line}"), &expected);
                    n_refused += usize::from(expected != "ok");
                }
            }
        }
    }
    // Both orders of 3×2 + 3×2 + 3×5 + 3×1 + 5×2 + 5×1 + 2×1 + 5×1 spellings.
    assert_eq!(n_refused, 2 * 52);
}

#[test]
fn a_peer_that_is_to_be_kept_away_is_refused_in_every_spelling() {
    for of in ["MachineOf", "X-ConditionMachineOf"] {
        for (key, kind) in [
            ("Conflicts", "conflict"),
            ("X-Conflicts", "conflict"),
            ("Replaces", "replace"),
        ] {
            for (pattern, is_refused) in [
                ("b.service", true),
                ("b.*", true),
                ("[a-c].service", true),
                ("*", true),
                ("c.*", false),
                ("b", false),
                ("[", false),
            ] {
                let lines = format!("{of}=b.service\n{key}={pattern}");
                let result = validate_unit(None, &section(&lines), UnknownKeys::Default);
                let expected = format!(
                    "unresolvable requirements: peer \"b.service\" matches {kind} {pattern:?}"
                );
                assert_eq!(outcome(result.clone()) == expected, is_refused, "{lines}");
                assert_eq!(result.is_err(), is_refused, "{lines}");
            }
        }
    }
}

#[test]
fn types_that_systemd_loads_from_no_file_are_taken_with_a_warning() {
    let mut n_warned = 0;
    for unit_type in crate::name::UnitType::ALL {
        let unit = name(&format!("a.{unit_type}"));
        let warnings = validate_unit(Some(&unit), &section("Global=no"), UnknownKeys::Strict);
        let warnings = outcome(warnings);
        if unit_type.cure_if_not_loadable().is_none() {
            assert_eq!(warnings, "ok", "{unit}");
            continue;
        }
        let begin = format!("ok | systemd loads no {unit_type} units from files (");
        assert!(warnings.starts_with(&begin), "{warnings}");
        assert!(warnings.contains("(use a "), "the cure: {warnings}");
        n_warned += 1;
    }
    assert_eq!(n_warned, 4);
}

#[test]
fn combinations_that_are_allowed() {
    for lines in [
        "",
        "Global=true\nMachineMetadata=a=b",
        "Global=true\nConflicts=a.*",
        "MachineID=m\nMachineMetadata=a=b",
        "MachineID=m\nGlobal=false",
        "MachineOf=b.service\nMachineMetadata=a=b",
        "MachineOf=b.service\nConflicts=c.*",
        "MachineOf=b.service\nReplaces=c.*",
        "Exclusive=yes\nLostAfter=1min 30s\nRescheduleOnFailure=no",
        "RescheduleOnFailure=yes\nExclusive=yes",
        "RescheduleOnFailure=1\nMachineID=m",
    ] {
        check(lines, "ok");
    }
}

#[test]
fn metadata_that_would_let_a_unit_run_anywhere_is_refused() {
    check("MachineMetadata=a=b c=d", "ok");
    let refused = |value: &str| {
        format!(
            "invalid [X-Fleet] section: MachineMetadata={value} is not key=value with one \"=\" \
             and text on both sides (write one pair per line, or quote each: \
             MachineMetadata=\"a=b\" \"c=d\")"
        )
    };
    for (line, value) in [
        ("MachineMetadata=a=b=c", "\"a=b=c\""),
        ("MachineMetadata=region", "\"region\""),
        ("MachineMetadata=a=", "\"a=\""),
        ("MachineMetadata==b", "\"=b\""),
        ("MachineMetadata=a=b c=d e", "\"a=b c=d e\""),
        ("MachineMetadata=\"a=b c=d\"", "\"a=b c=d\""),
        ("MachineMetadata=\"a=b\"\t\"c=d\"", "\"a=b\\tc=d\""),
        ("MachineMetadata=\"a=b\",\"c=d\"", "\"a=b,c=d\""),
        ("MachineMetadata=\"a=b\" \"c\"", "\"c\""),
        ("X-ConditionMachineMetadata=c", "\"c\""),
    ] {
        check(line, &refused(value));
    }
    // Two blanks between quoted values are a slip of the hand.
    check("MachineMetadata=\"a=b\"  \"c=d\"", "ok");
    // The original's checks come first.
    check(
        "MachineMetadata=c\nMachineID=m\nGlobal=true",
        "MachineID cannot be used with Global",
    );
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    let empty = "is empty: give it a value or remove the line";
    for key in ["MachineID", "MachineOf", "MachineMetadata"] {
        check(
            &format!("{key}="),
            &format!("invalid [X-Fleet] section: {key} {empty}"),
        );
    }
    check(
        "Exclusive=maybe",
        "invalid [X-Fleet] section: Exclusive=\"maybe\" is neither yes nor no",
    );
    check(
        "RescheduleOnFailure=often",
        "invalid [X-Fleet] section: RescheduleOnFailure=\"often\" is neither yes, nor no, nor a \
         number of moves from 0 to 100",
    );
    check(
        "LostAfter=soon",
        "invalid [X-Fleet] section: LostAfter=\"soon\" is not a time span of at most 365 days, \
         such as 30s or 1min 30s",
    );
}

#[test]
fn doubtful_values_are_warnings() {
    check(
        "Global=ture",
        "ok | Global=\"ture\" is read as false (true is one of true, yes, 1, on, t)",
    );
    check(
        "Conflicts=a[ b",
        "ok | Conflicts=\"a[\" matches nothing: the pattern is malformed",
    );
    check(
        "MachineOf=a.service b.service",
        "ok | MachineOf=\"a.service b.service\" is not a unit name, so this unit will never be \
         placed: invalid character ' ' in unit name (write one unit name per line)",
    );
    check(
        "MachineOf=a",
        "ok | MachineOf=\"a\" is not a unit name, so this unit will never be placed: unit name \
         must contain \".\" (write one unit name per line)",
    );
}

#[test]
fn unknown_keys_by_mode() {
    let bogus = "unrecognized requirement in [X-Fleet] section: \"Bogus\"";
    let boot_id = "unrecognized requirement in [X-Fleet] section: \"MachineBootID\" \
                   (did you mean \"MachineID\"?)";
    let near = "unrecognized requirement in [X-Fleet] section: \"MachineMetaData\" \
                (did you mean \"MachineMetadata\"?)";
    let run = "the unit would run without it";
    for (lines, mode, expected) in [
        (
            "Bogus=1\nBogus=2",
            UnknownKeys::Default,
            format!("ok | {bogus}"),
        ),
        ("Bogus=1", UnknownKeys::Allow, format!("ok | {bogus}")),
        ("Bogus=1", UnknownKeys::Strict, format!("{bogus}; {run}")),
        (
            "MachineBootID=1",
            UnknownKeys::Default,
            format!("ok | {boot_id}"),
        ),
        (
            "MachineMetaData=a=b",
            UnknownKeys::Default,
            format!("{near}; {run}"),
        ),
        (
            "MachineMetaData=a=b",
            UnknownKeys::Strict,
            format!("{near}; {run}"),
        ),
        (
            "MachineMetaData=a=b",
            UnknownKeys::Allow,
            format!("ok | {near}"),
        ),
        // The first one that is refused is named, not the first one.
        (
            "Bogus=1\nMachineMetaData=a=b",
            UnknownKeys::Default,
            format!("{near}; {run}"),
        ),
    ] {
        let result = validate_unit(None, &section(lines), mode);
        assert_eq!(outcome(result), expected, "{lines} {mode:?}");
    }
    // Values are looked at before keys.
    check(
        "MachineMetaData=a=b\nExclusive=maybe",
        "invalid [X-Fleet] section: Exclusive=\"maybe\" is neither yes nor no",
    );
}

#[test]
fn a_section_that_is_almost_ours_is_refused() {
    for almost in ["X-fleet", "x-fleet", "XFleet", "X_Fleet", " X-Fleet "] {
        let file = UnitFile::parse(format!("[{almost}]\nGlobal=true\n")).unwrap();
        assert_eq!(
            outcome(validate_unit(None, &file, UnknownKeys::Default)),
            format!(
                "section [{almost}] means nothing: did you mean [X-Fleet]?; the unit would run \
                 without what it says"
            )
        );
        assert_eq!(
            outcome(validate_unit(None, &file, UnknownKeys::Allow)),
            format!("ok | section [{almost}] means nothing: did you mean [X-Fleet]?")
        );
    }
    let other = UnitFile::parse("[X-Other]\nGlobal=true\n").unwrap();
    assert_eq!(
        outcome(validate_unit(None, &other, UnknownKeys::Strict)),
        "ok"
    );
}

#[test]
fn specifiers_are_replaced_when_the_name_is_known() {
    let lines = "MachineOf=b@%i.service\nConflicts=b@1.*";
    check(lines, "ok");
    check_named("a@2.service", lines, "ok");
    check_named(
        "a@1.service",
        lines,
        "unresolvable requirements: peer \"b@1.service\" matches conflict \"b@1.*\"",
    );
    // A plain unit has no instance: its metadata would be ignored and it would run anywhere.
    let lines = "MachineMetadata=region=%i";
    check(lines, "ok");
    check_named("a@eu.service", lines, "ok");
    check_named("a@.service", lines, "ok");
    check_named(
        "a.service",
        lines,
        "invalid [X-Fleet] section: MachineMetadata=\"region=\" is not key=value with one \"=\" \
         and text on both sides (write one pair per line, or quote each: \
         MachineMetadata=\"a=b\" \"c=d\")",
    );
}

const BACKSLASH: &str = "the value must not end in \"\\\", or the next option becomes part of it \
                         (to continue a line, its \"\\\" must be the last character; CRLF files \
                         have another one)";

#[test]
fn a_file_whose_continuation_is_broken_is_refused() {
    for text in ["[U]\r\nA=b \\\r\n--c=d\r\n", "[U]\nA=b \\ \nB=c\n"] {
        let file = UnitFile::parse(text).unwrap();
        assert_eq!(file.options().len(), 2);
        assert_eq!(
            outcome(validate_unit(None, &file, UnknownKeys::Default)),
            format!("option \"A\" in section \"U\" cannot be written to a unit file: {BACKSLASH}")
        );
    }
    // Nothing follows that could be lost.
    for text in ["[U]\nA=b \\", "[U]\nA=b \\ \n[V]\nB=c\n"] {
        let file = UnitFile::parse(text).unwrap();
        assert_eq!(
            outcome(validate_unit(None, &file, UnknownKeys::Default)),
            "ok"
        );
    }
}

#[test]
fn options_must_be_readable_from_the_serial_form() {
    let options = |options: &[(&str, &str, &str)]| {
        UnitFile::from_options(
            options
                .iter()
                .map(|(section, name, value)| UnitOption::new(*section, *name, *value))
                .collect(),
        )
    };
    let unwritable = |name: &str, cure: &str| {
        format!("option \"{name}\" in section \"U\" cannot be written to a unit file: {cure}")
    };
    let long = "x".repeat(2046);
    for (given, expected) in [
        (
            vec![("U", "A", long.as_str())],
            "line too long (max 2048 bytes) (line 2)".to_owned(),
        ),
        (
            vec![("U", "A", "b\nc")],
            "unexpected newline encountered while parsing option name (line 3)".to_owned(),
        ),
        (vec![("U", "A", " b "), ("U", "B", "c \\")], "ok".to_owned()),
        (
            vec![("U", "A", "b \\\n c"), ("V", "B", "")],
            "ok".to_owned(),
        ),
        (
            vec![("U", "A", "b\nB=c")],
            unwritable(
                "A",
                "in the value, a line break must follow a \"\\\", and blank lines are not allowed",
            ),
        ),
        (
            vec![("U", "A", "b \\"), ("U", "B", "c")],
            unwritable("A", BACKSLASH),
        ),
        (
            vec![("U", "A=b", "c")],
            unwritable("A=b", "the name must not contain \"=\" or line breaks"),
        ),
        (
            vec![("U", "#A", "b")],
            unwritable("#A", "the name must not start in \"#\", \";\" or \"[\""),
        ),
        (
            vec![("U", "B", "1"), ("U", "A", "b\n# more")],
            unwritable(
                "A",
                "in the value, a line break must follow a \"\\\", and blank lines are not allowed",
            ),
        ),
        (
            vec![("U]", "A", "b")],
            "found garbage after section name : [93] (line 1)".to_owned(),
        ),
    ] {
        let result = validate_unit(None, &options(&given), UnknownKeys::Default);
        assert_eq!(outcome(result), expected, "{given:?}");
    }
    let error = validate_unit(None, &options(&[("U", "A", &long)]), UnknownKeys::Default);
    assert_eq!(
        error.unwrap_err().message(),
        "line too long (max 2048 bytes)"
    );
}

#[test]
fn the_requirements_size_is_bounded_with_specifiers_replaced() {
    let line = format!("Conflicts={}", "%n ".repeat(600));
    check(&[line.as_str(); 4].join("\n"), "ok");
    check_named(
        &format!("{}.service", "a".repeat(100)),
        &line,
        "[X-Fleet] section too large (max 16384 bytes)",
    );
}

fn likely_text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "X-Fleet",
            "U",
            "A",
            "Global",
            "true",
            "\n",
            "\r",
            "\\",
            "\\\n",
            "=",
            " ",
            "[U]\n",
            "#",
            "]",
            "B=c",
            "é",
            "\n\n",
            "MachineOf",
            "*",
        ]),
        0..5,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    /// What is accepted keeps its meaning: every option is read back, and the hash is stable.
    #[test]
    fn accepted_options_are_all_stored(
        options in prop::collection::vec(
            (prop::sample::select(vec!["X-Fleet", "U", "V"]), likely_text(), likely_text()),
            0..5,
        ),
    ) {
        let given = UnitFile::from_options(
            options
                .into_iter()
                .map(|(section, name, value)| UnitOption::new(section, name, value))
                .collect(),
        );
        if validate_unit(None, &given, UnknownKeys::Default).is_err() {
            return Ok(());
        }
        let stored = given.normalized().unwrap();
        prop_assert_eq!(stored.options().len(), given.options().len());
        for (stored, given) in stored.options().iter().zip(given.grouped()) {
            prop_assert_eq!(&stored.section, &given.section);
            prop_assert_eq!(&stored.name, given.name.trim());
            prop_assert_eq!(stored.value.trim(), given.value.trim());
        }
        prop_assert_eq!(&UnitFile::parse(stored.to_text()).unwrap(), &stored);
    }
}
