use proptest::prelude::*;

use super::*;

fn message(text: &str) -> String {
    match UnitName::parse(text) {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            "ok".to_owned()
        }
        Err(e) => e.to_string(),
    }
}

#[test]
fn names_are_checked_in_the_original_s_order() {
    for (text, expected) in [
        ("", "unit name cannot be empty"),
        ("foo", "unit name must contain \".\""),
        ("foo.", "unit name cannot end in \".\""),
        ("@.", "unit name cannot end in \".\""),
        ("foo.bogus", "invalid unit type: \"bogus\""),
        ("f oo.bogus", "invalid unit type: \"bogus\""),
        ("foo.Service", "invalid unit type: \"Service\""),
        ("foo@.mount", "invalid unit type for template: \"mount\""),
        ("f oo@1.mount", "invalid unit type for template: \"mount\""),
        ("a b.service", "invalid character ' ' in unit name"),
        ("é.service", "invalid character 'é' in unit name"),
        ("a/b.service", "invalid character '/' in unit name"),
        ("a\n.service", "invalid character '\\n' in unit name"),
        ("a\0.service", "invalid character '\\x00' in unit name"),
        ("a'.service", "invalid character '\\'' in unit name"),
        ("@ .service", "invalid character ' ' in unit name"),
        ("@.service", "unit name cannot start in \"@\""),
        ("@a.service", "unit name cannot start in \"@\""),
        (".service", "unit name needs characters before \".service\""),
        ("a@b@c.service", "ok"),
        ("a\\b.service", "ok"),
        ("a.b.service", "ok"),
        ("..service", "ok"),
        ("foo.snapshot", "ok"),
        ("aZ09:-_.\\@x.service", "ok"),
    ] {
        assert_eq!(message(text), expected, "{text:?}");
    }
}

#[test]
fn length_is_counted_in_bytes_and_may_be_255() {
    let of_length = |n: usize| format!("{}.service", "a".repeat(n - ".service".len()));
    let too_long = "unit name exceeds maximum length (255)";
    assert_eq!(message(&of_length(255)), "ok");
    assert_eq!(message(&of_length(256)), too_long);
    // The length is checked before the dot and the characters.
    assert_eq!(message(&"é".repeat(128)), too_long);
}

#[test]
fn every_type_has_names_and_five_have_templates() {
    for unit_type in UnitType::ALL {
        let name = UnitName::parse(&format!("a.{unit_type}")).unwrap();
        assert_eq!(name.unit_type(), unit_type);
        let template = UnitName::parse(&format!("a@.{unit_type}"));
        assert_eq!(template.is_ok(), unit_type.can_be_template());
    }
    let templates: Vec<&str> = UnitType::ALL
        .into_iter()
        .filter(|t| t.can_be_template())
        .map(UnitType::as_str)
        .collect();
    assert_eq!(templates, ["path", "service", "socket", "target", "timer"]);
}

#[test]
fn parts_of_a_name() {
    for (text, stem, prefix, template, instance) in [
        ("foo.service", "foo", "foo", None, None),
        ("foo@.service", "foo@", "foo", Some("foo@.service"), None),
        (
            "foo@1.service",
            "foo@1",
            "foo",
            Some("foo@.service"),
            Some("1"),
        ),
        (
            "a@b@c.service",
            "a@b@c",
            "a",
            Some("a@.service"),
            Some("b@c"),
        ),
        ("a@b.c.timer", "a@b.c", "a", Some("a@.timer"), Some("b.c")),
    ] {
        let name = UnitName::parse(text).unwrap();
        assert_eq!(name.stem(), stem);
        assert_eq!(name.prefix(), prefix);
        assert_eq!(name.template().as_ref().map(UnitName::as_str), template);
        assert_eq!(name.instance(), instance);
        assert_eq!(name.is_instance(), instance.is_some());
        assert_eq!(name.is_template(), template == Some(text));
    }
}

#[test]
fn fleetctl_arguments_get_a_type() {
    for (arg, name) in [
        ("hello", "hello.service"),
        ("foo.bar", "foo.bar.service"),
        ("q.target", "q.target"),
        ("z.slice", "z.slice"),
        ("hello.service", "hello.service"),
        ("foo@1", "foo@1.service"),
        ("./examples/hello.socket", "hello.socket"),
        ("/abs/dir.d/hello", "hello.service"),
        ("dir/", "dir.service"),
        ("service", "service.service"),
        ("", ".service"),
        ("/", ".service"),
    ] {
        assert_eq!(with_default_type(arg), name, "{arg:?}");
    }
}

#[test]
fn names_are_looked_up_by_text() {
    let name = UnitName::parse("b.service").unwrap();
    let names = std::collections::BTreeSet::from([name.clone()]);
    assert!(names.contains("b.service"));
    let names = std::collections::HashSet::from([name.clone()]);
    assert!(names.contains("b.service"));
    assert_eq!(format!("{name} {name:?}"), "b.service \"b.service\"");
    assert_eq!(format!("{name:12}|"), "b.service   |");
}

fn likely_name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z@.:\\\\é ]{0,6}\\.(service|mount|target|bogus|)",
    ]
}

proptest! {
    #[test]
    fn any_text_gives_a_name_or_an_error(text in likely_name()) {
        let Ok(name) = UnitName::parse(&text) else { return Ok(()) };
        // Rebuilding an accepted name from its parts gives the name.
        let middle = match (name.is_template(), name.instance()) {
            (true, None) => "@".to_owned(),
            (false, Some(instance)) => format!("@{instance}"),
            (false, None) => String::new(),
            (true, Some(_)) => panic!("{name} is both template and instance"),
        };
        let rebuilt = format!("{}{middle}.{}", name.prefix(), name.unit_type());
        prop_assert_eq!(&rebuilt, &text);
        prop_assert_eq!(format!("{}.{}", name.stem(), name.unit_type()), text);
        if let Some(template) = name.template() {
            prop_assert!(template.is_template());
            prop_assert_eq!(UnitName::parse(template.as_str()), Ok(template));
        }
    }

    #[test]
    fn the_default_type_makes_a_known_type(arg in likely_name()) {
        let name = with_default_type(&arg);
        let suffix = name.rsplit_once('.').map_or("", |(_, s)| s);
        prop_assert!(UnitType::from_suffix(suffix).is_some());
        prop_assert_eq!(with_default_type(&name), name);
    }
}
