use proptest::prelude::*;

use super::*;

/// What reading `input` gives, in one line: the options, or the error.
fn read(input: &str) -> String {
    match UnitFile::parse(input) {
        Ok(file) => file
            .options()
            .iter()
            .map(|o| format!("{}/{}={:?}", o.section, o.name, o.value))
            .collect::<Vec<_>>()
            .join(" "),
        Err(e) => {
            assert!(e.to_string().starts_with(&e.message()));
            e.to_string()
        }
    }
}

#[track_caller]
fn check(input: &str, options: &str, serial_form: &str) {
    assert_eq!(read(input), options);
    let file = UnitFile::parse(input).unwrap();
    assert_eq!(file.to_text(), serial_form);
    assert_eq!(file.to_string(), serial_form);
}

#[test]
fn the_grammar_s_cases() {
    check("", "", "");
    check("Foo=bar\n", "", "");
    check("garbage [Unit]\nA=b\n", "Unit/A=\"b\"", "[Unit]\nA=b\n");
    check(
        "# c\n; d\n[Unit]\n# e\nA=b # not comment\n;f\nB=c\n",
        "Unit/A=\"b # not comment\" Unit/B=\"c\"",
        "[Unit]\nA=b # not comment\nB=c\n",
    );
    check(
        "[Unit]\n# c \\\nA=b\nB=c\n",
        "Unit/B=\"c\"",
        "[Unit]\nB=c\n",
    );
    check(
        "[Service]\nExecStart=/bin/a \\\n  b \\\n c\nX=y\n",
        r#"Service/ExecStart="/bin/a \\\n  b \\\n c" Service/X="y""#,
        "[Service]\nExecStart=/bin/a \\\n  b \\\n c\nX=y\n",
    );
    check(
        "[Service]\nExecStart=/bin/a \\",
        r#"Service/ExecStart="/bin/a \\""#,
        "[Service]\nExecStart=/bin/a \\\n",
    );
    check(
        "[Service]\nExecStart=/bin/a \\\n\nB=c\n",
        r#"Service/ExecStart="/bin/a \\\n" Service/B="c""#,
        "[Service]\nExecStart=/bin/a \\\n\nB=c\n",
    );
    check(
        "[Unit]\r\nA=b\r\nB=c\r\n",
        "Unit/A=\"b\" Unit/B=\"c\"",
        "[Unit]\nA=b\nB=c\n",
    );
    check(
        "[Unit]\n  A  =   b c   \n\t B\t=\tc\t\n",
        "Unit/A=\"b c\" Unit/B=\"c\"",
        "[Unit]\nA=b c\nB=c\n",
    );
    check(
        "[Unit]\nA=1\n[Service]\nX=1\n[Unit]\nB=2\n",
        "Unit/A=\"1\" Service/X=\"1\" Unit/B=\"2\"",
        "[Unit]\nA=1\nB=2\n\n[Service]\nX=1\n",
    );
    check(
        "[Unit]\n[Service]\nA=b\n",
        "Service/A=\"b\"",
        "[Service]\nA=b\n",
    );
    check("[Unit]\n=b\n", "Unit/=\"b\"", "[Unit]\n=b\n");
}

#[test]
fn details_that_the_hash_depends_on() {
    // Within a continuation nothing is a comment, a section or an option.
    check(
        "[S]\nA=b \\\n# c \\\n[U] \\\nX=y\n",
        r#"S/A="b \\\n# c \\\n[U] \\\nX=y""#,
        "[S]\nA=b \\\n# c \\\n[U] \\\nX=y\n",
    );
    // A comment is continued also past one blank, but not past two, nor in a CRLF file.
    check("[S]\n# c \\ \nA=b\nB=c\n", "S/B=\"c\"", "[S]\nB=c\n");
    check("[S]\n# c \\  \nA=b\n", "S/A=\"b\"", "[S]\nA=b\n");
    check("[S]\r\n# c \\\r\nA=b\r\n", "S/A=\"b\"", "[S]\nA=b\n");
    // Before the first section, a comment hides a section.
    check("# [U]\nA=b\nx # [V]\n", "", "");
    check("\u{feff}[U]\nA=b\n", "U/A=\"b\"", "[U]\nA=b\n");
    // Empty values stay, nothing is merged.
    check(
        "[S]\nA=\nA=1\nA=\nA=  \t\n",
        "S/A=\"\" S/A=\"1\" S/A=\"\" S/A=\"\"",
        "[S]\nA=\nA=1\nA=\nA=\n",
    );
    // Values may contain `=`, quotes, carriage returns.
    check(
        "[S]\nA=b=\"c\"\rd\n",
        r#"S/A="b=\"c\"\rd""#,
        "[S]\nA=b=\"c\"\rd\n",
    );
    // A continuation that ends the file, or leads to a blank line, keeps one line break.
    check("[S]\nA=b \\\n", r#"S/A="b \\\n""#, "[S]\nA=b \\\n\n");
    check(
        "[S]\nA=b \\\n \t\nC=d",
        r#"S/A="b \\\n" S/C="d""#,
        "[S]\nA=b \\\n\nC=d\n",
    );
    check("[S]\nA=\\\n\\", r#"S/A="\\\n\\""#, "[S]\nA=\\\n\\\n");
    // Section names are taken as they are, line breaks included.
    check(
        "[ a\nb [ ] \t\nA=b",
        " a\nb [ /A=\"b\"",
        "[ a\nb [ ]\nA=b\n",
    );
    // Whitespace is Unicode's.
    check(
        "[S]\n\u{a0}A\u{2003}=\u{3000}b\u{85}\n",
        "S/A=\"b\"",
        "[S]\nA=b\n",
    );
}

#[test]
fn errors_name_the_line() {
    for (input, error) in [
        (
            "[Service]\nExecStart=/bin/a \\ \n  b\n",
            "unexpected newline encountered while parsing option name (line 3)",
        ),
        (
            "[Unit] foo\nA=1\n",
            "found garbage after section name : [102 111 111] (line 1)",
        ),
        (
            "[Unit]\n\n[a\nb] x\u{a0}\n",
            "found garbage after section name : [120] (line 4)",
        ),
        ("[Unit\nA=1\n", "unable to find end of section (line 1)"),
        ("\n\n[Unit\nA=1\n", "unable to find end of section (line 3)"),
        (
            "[Unit]\nFoo\nA=b\n",
            "unexpected newline encountered while parsing option name (line 2)",
        ),
        (
            "[Unit]\r\nFoo\r\nA=b\n",
            "unexpected newline encountered while parsing option name (line 2)",
        ),
        ("[Unit]\nFoo", "EOF (line 2)"),
        (
            "[S]\nA=b \\\n  c\n  d\n",
            "unexpected newline encountered while parsing option name (line 4)",
        ),
    ] {
        assert_eq!(read(input), error, "{input:?}");
    }
    let error = UnitFile::parse(b"[U]\nA=b\nB=\xff\n").unwrap_err();
    assert_eq!(error.to_string(), "invalid UTF-8 (line 3)");
}

#[test]
fn every_line_of_more_than_2047_bytes_is_refused() {
    let x = |n| "x".repeat(n);
    let too_long = "line too long (max 2048 bytes)";
    for (input, line) in [
        (format!("[U]\nA={}\n", x(2045)), None),
        (format!("[U]\nA={}\n", x(2046)), Some(2)),
        (format!("[U]\nA={}\r\n", x(2045)), None),
        (format!("[U]\nA={}\r\n", x(2046)), Some(2)),
        (format!("[U]\nA={}", x(2046)), Some(2)),
        (format!("[U]\n#{}\nA=b", x(2046)), None),
        (format!("[U]\n#{}\nA=b", x(2047)), Some(2)),
        (x(2048), Some(1)),
        (
            format!("[U]\nA={}", format!("{}\\\n", x(2000)).repeat(4)),
            None,
        ),
        // Late in what was the original's buffer, where such a line slipped through.
        (
            format!(
                "[U]\n{}A={}\n",
                format!("B={}\n", x(97)).repeat(30),
                x(3000)
            ),
            Some(32),
        ),
    ] {
        let error = UnitFile::parse(&input).err();
        assert_eq!(error.as_ref().map(|e| e.line), line);
        assert!(error.is_none_or(|e| e.message() == too_long));
    }
}

#[test]
fn a_file_has_a_largest_size() {
    let line = "A=b\n";
    let mut text = "[U]\n".to_owned();
    text.push_str(&line.repeat((MAX_FILE_BYTES - text.len()) / line.len()));
    assert_eq!(text.len(), MAX_FILE_BYTES);
    assert_eq!(UnitFile::parse(&text).unwrap().to_text(), text);
    text.push('\n');
    let error = UnitFile::parse(&text).unwrap_err();
    assert_eq!(error.message(), "unit file too large (max 245760 bytes)");
}

#[test]
fn hashes_are_the_original_s() {
    for (input, hash) in [
        (
            "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/bash -c \"while true; do echo \\\"Hello, world\\\"; sleep 1; done\"\n",
            "e55c0aeb44ba0b68004ceb8a200e685194448b45",
        ),
        (
            "[Unit]\nDescription=sleeper %i\n\n[Service]\nExecStart=/bin/sleep infinity\n",
            "bb2be705db36c9c0950c4fc607bfeabc9f8f67ea",
        ),
        (
            "[Unit]\nDescription=PONG\n\n[Service]\nExecStart=/bin/bash -c \"while true; do echo \\\"pong\\\"; sleep 1; done\"\n\n[X-Fleet]\nMachineOf=ping.service\n",
            "667e8dead419d2cce5a664c0ba586ca33217f286",
        ),
        (
            "# a comment\n[Unit]\nA=1\n[Service]\n ExecStart = /bin/a \\\n  b   \n; c\n[Unit]\nB=2\n",
            "be80d80300f2e20cf48cac03f3eaf77f7e288a8d",
        ),
        ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ] {
        let file = UnitFile::parse(input).unwrap();
        assert_eq!(file.hash().to_string(), hash, "{input:?}");
    }
}

#[test]
fn values_are_found_by_section_and_name() {
    let file = UnitFile::parse("[Unit]\nDescription=a\nDescription=b\n[S]\nX=1\nx=2\n").unwrap();
    assert_eq!(file.description(), Some("a"));
    assert_eq!(file.value("Unit", "Description"), Some("b"));
    assert_eq!(
        file.values("Unit", "Description").collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(file.value("S", "X"), Some("1"));
    assert_eq!(file.value("unit", "Description"), None);
    assert!(file.has_section("S"));
    assert!(!file.has_section(INSTALL_SECTION));
    assert_eq!(UnitFile::default().description(), None);
}

#[test]
fn normalizing_gives_what_a_reader_gets() {
    let given = UnitFile::from_options(vec![
        UnitOption::new("S", " A ", "  b \\"),
        UnitOption::new("U", "X", "1"),
    ]);
    let normal = given.normalized().unwrap();
    assert_ne!(normal.hash(), given.hash());
    assert_eq!(
        normal.options(),
        [
            UnitOption::new("S", "A", "b \\\n"),
            UnitOption::new("U", "X", "1"),
        ]
    );
    // Trimming uncovers a backslash, which then continues the value.
    for end in ["\r", " ", "\u{a0}"] {
        let text = format!("[S]\nA=b \\{end}\n");
        let file = UnitFile::parse(text).unwrap();
        assert_eq!(file.options(), [UnitOption::new("S", "A", "b \\")]);
        let given = UnitFile::from_options(vec![UnitOption::new("S", "A", format!("b \\{end}"))]);
        for file in [file, given] {
            let normal = file.normalized().unwrap();
            assert_eq!(normal.options(), [UnitOption::new("S", "A", "b \\\n")]);
        }
    }
    let broken = UnitFile::from_options(vec![UnitOption::new("S", "A", "b\nc")]);
    let error = broken.normalized().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unexpected newline encountered while parsing option name (line 3)"
    );
}

/// Bytes that mean something to the grammar, often.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        &b"[U]\n"[..],
        b"[V]\n",
        b"[\nW \n]",
        b"\n",
        b"\r",
        b"\\\n",
        b"\\",
        b" ",
        b"=",
        b"A=b\n",
        b"B = c \\\n",
        b"# c",
        b";",
        "\u{a0}é".as_bytes(),
        b"\xff",
    ]);
    prop_oneof![
        4 => prop::collection::vec(token, 0..20).prop_map(|tokens| tokens.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn likely_text() -> impl Strategy<Value = String> {
    likely_bytes().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Checks that whoever writes and reads `file` again gets the same options and hash.
fn is_stable(file: &UnitFile) {
    let again = UnitFile::parse(file.to_text()).unwrap();
    assert_eq!(&again, file);
    assert_eq!(again.hash(), file.hash());
    assert_eq!(&file.normalized().unwrap(), file);
}

proptest! {
    #[test]
    fn any_bytes_give_a_file_or_an_error(bytes in likely_bytes()) {
        let lines = 1 + bytes.iter().filter(|&&b| b == b'\n').count();
        match UnitFile::parse(&bytes) {
            // Whatever can be read can be written and read again.
            Ok(file) => is_stable(&file.normalized().unwrap()),
            Err(e) => prop_assert!((1..=lines).contains(&e.line)),
        }
    }

    #[test]
    fn any_options_are_normalized_or_refused(
        options in prop::collection::vec(
            (prop_oneof![Just("U".to_owned()), likely_text()], likely_text(), likely_text()),
            0..4,
        ),
    ) {
        let options = options
            .into_iter()
            .map(|(section, name, value)| UnitOption { section, name, value })
            .collect();
        if let Ok(file) = UnitFile::from_options(options).normalized() {
            is_stable(&file);
        }
    }

    #[test]
    fn ordinary_files_keep_every_option(
        options in prop::collection::vec(
            ("[A-Z][a-z]", "[A-Z][a-zA-Z]{0,5}", "([!-\\[\\]-~]( \\\\\n ?[a-z])?){0,5}"),
            0..8,
        ),
    ) {
        let options: Vec<UnitOption> = options
            .into_iter()
            .map(|(section, name, value)| UnitOption { section, name, value })
            .collect();
        let file = UnitFile::from_options(options);
        let again = UnitFile::parse(file.to_text()).unwrap();
        prop_assert_eq!(again.options(), file.grouped());
    }
}
