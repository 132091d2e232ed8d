//! Unit files and what stands in them.

use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::requirements::{Requirements, time_span};
use fleet_core::unit_file::{MAX_FILE_BYTES, MAX_LINE_BYTES, UnitFile, UnitOption};
use fleet_core::validate::{UnknownKeys, validate_unit};

/// What is read from a text reads the same from its serial form, whose hash is the unit's.
pub(crate) fn unit_file(data: &[u8]) {
    let file = match UnitFile::parse(data) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error.line <= data.iter().filter(|b| **b == b'\n').count() + 1);
            return;
        }
    };
    assert!(data.len() <= MAX_FILE_BYTES);
    for option in file.options() {
        assert!(!option.name.contains('\n'));
    }
    is_normal(&file);
}

/// A normalized file is its own normal form, and its text says the same.
fn is_normal(file: &UnitFile) {
    let Ok(normal) = file.normalized() else {
        return;
    };
    assert_eq!(normal.normalized().as_ref(), Ok(&normal));
    let text = normal.to_text();
    assert_eq!(UnitFile::parse(&text).as_ref(), Ok(&normal), "{text:?}");
    assert_eq!(normal.hash(), UnitHash::of(text.as_bytes()));
    for line in text.lines() {
        assert!(line.len() <= MAX_LINE_BYTES + 1, "{} bytes", line.len());
    }
}

/// Options as JSON brings them: any text in any field. What is accepted reads back as given.
pub(crate) fn options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut fields = text.split('\0').map(str::to_owned);
    let mut options = Vec::new();
    while let (Some(section), Some(name), Some(value)) =
        (fields.next(), fields.next(), fields.next())
    {
        options.push(UnitOption {
            section,
            name,
            value,
        });
    }
    let file = UnitFile::from_options(options);
    if validate_unit(None, &file, UnknownKeys::Allow).is_ok() {
        let normal = file.normalized().expect("it was valid");
        assert_eq!(normal.options().len(), file.options().len());
        is_normal(&file);
        for unknown in [UnknownKeys::Allow, UnknownKeys::Strict] {
            let again = validate_unit(None, &normal, unknown);
            assert!(again.is_ok() || unknown == UnknownKeys::Strict, "{again:?}");
        }
    }
}

/// A name in the first line, a unit file behind it: its requirements, checked and read.
pub(crate) fn requirements(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, text) = text.split_once('\n').unwrap_or(("", &text));
    let name = UnitName::parse(name).ok();
    let _ = time_span(text);
    let Ok(file) = UnitFile::parse(text) else {
        return;
    };
    for unknown in [
        UnknownKeys::Default,
        UnknownKeys::Strict,
        UnknownKeys::Allow,
    ] {
        match validate_unit(name.as_ref(), &file, unknown) {
            Ok(_) => {
                let (requirements, _) = Requirements::parse(&file, name.as_ref());
                for pattern in requirements.patterns() {
                    pattern.matches("a@1.service");
                }
            }
            Err(error) => assert!(!error.message().is_empty() && !error.to_string().is_empty()),
        }
    }
}
