//! The values of `[X-Fleet]` keys: specifiers, splitting, and what single values mean.

use std::time::Duration;

use super::SECTION;
use crate::name::UnitName;
use crate::unit_file::UnitFile;

/// The lines of the section, in order.
pub(super) struct Lines<'a> {
    lines: Vec<Line<'a>>,
    pub(super) n_bytes: usize,
}

pub(super) struct Line<'a> {
    key: &'a str,
    /// Whether the value was a list of quoted values.
    pub(super) is_quoted: bool,
    /// At least one.
    pub(super) values: Vec<String>,
}

impl<'a> Lines<'a> {
    pub(super) fn read(file: &'a UnitFile, name: Option<&UnitName>) -> Lines<'a> {
        let mut n_bytes = 0;
        let lines = file
            .options()
            .iter()
            .filter(|option| option.section == SECTION)
            .map(|option| {
                let value = expand(&option.value, name);
                n_bytes += option.name.len() + value.len();
                let (is_quoted, values) = split(&value);
                Line {
                    key: &option.name,
                    is_quoted,
                    values,
                }
            })
            .collect();
        Lines { lines, n_bytes }
    }

    pub(super) fn of(&self, key: &str) -> impl DoubleEndedIterator<Item = &Line<'a>> {
        self.lines.iter().filter(move |line| line.key == key)
    }

    /// The lines of the first key, then those of the second, …
    pub(super) fn of_all(&self, keys: &[&'static str]) -> impl Iterator<Item = &Line<'a>> {
        keys.iter().flat_map(|key| self.of(key))
    }

    pub(super) fn last(&self, key: &str) -> Option<&str> {
        let line = self.of(key).next_back()?;
        line.values.last().map(String::as_str)
    }
}

impl Line<'_> {
    /// The values, but not the empty ones that two blanks between quoted values make.
    pub(super) fn without_gaps(&self) -> impl Iterator<Item = &str> {
        let is_list = self.values.len() > 1;
        self.values
            .iter()
            .map(String::as_str)
            .filter(move |value| !is_list || !value.is_empty())
    }
}

/// Replaces the specifiers as plain text, in the original's order. There is no `%%`.
fn expand(value: &str, name: Option<&UnitName>) -> String {
    match name {
        Some(name) if value.contains('%') => value
            .replace("%n", name.as_str())
            .replace("%N", name.stem())
            .replace("%p", name.prefix())
            .replace("%i", name.instance().unwrap_or_default()),
        _ => value.to_owned(),
    }
}

/// Splits a value that starts and ends with `"` at each space outside quotes; whether it did.
fn split(value: &str) -> (bool, Vec<String>) {
    if !value.starts_with('"') || !value.ends_with('"') {
        return (false, vec![value.to_owned()]);
    }
    let mut values = vec![];
    let mut current = String::new();
    let mut is_inside = false;
    for c in value.chars() {
        match c {
            '"' => is_inside = !is_inside,
            ' ' if !is_inside => values.push(std::mem::take(&mut current)),
            c => current.push(c),
        }
    }
    values.push(current);
    (true, values)
}

/// `key=value` with exactly one `=` and both sides non-empty.
pub(super) fn pair(value: &str) -> Option<(&str, &str)> {
    let (key, value) = value.split_once('=')?;
    (!key.is_empty() && !value.is_empty() && !value.contains('=')).then_some((key, value))
}

/// What the original takes for true; all else is false.
pub(super) fn is_true_to_the_original(value: &str) -> bool {
    ["true", "yes", "1", "on", "t"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

/// systemd's truth values.
pub(super) fn boolean(value: &str) -> Option<bool> {
    let is_one_of = |words: [&str; 6]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    if is_one_of(["1", "yes", "y", "true", "t", "on"]) {
        Some(true)
    } else if is_one_of(["0", "no", "n", "false", "f", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// What `RescheduleOnFailure=yes` means: with the pauses between the moves a unit is tried on other
/// machines for about a minute. What runs nowhere by then needs a person.
pub const DEFAULT_MOVES: u32 = 5;
/// More are a mistake: the pauses make it the better part of a day already.
pub const MAX_MOVES: u32 = 100;

/// How often a unit is moved: a number (`1` is one move), or one of systemd's truth values.
pub(super) fn moves(value: &str) -> Option<u32> {
    match value.parse() {
        Ok(moves) => Some(moves).filter(|moves| *moves <= MAX_MOVES),
        Err(_) => boolean(value).map(|moves| if moves { DEFAULT_MOVES } else { 0 }),
    }
}

/// Longer spans are mistakes, and sums with them must not overflow.
const MAX_TIME_SPAN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A time span as systemd (`1min 30s`, `90`) or Go (`1m30s`, `1.5h`) write it.
pub(super) fn time_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after) = split_where(after.trim_start(), |c| !c.is_alphabetic());
        nanoseconds = nanoseconds.checked_add(times(number, unit_nanoseconds(unit)?)?)?;
        rest = after.trim_start();
    }
    let span = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    (span <= MAX_TIME_SPAN).then_some(span)
}

fn split_where(text: &str, is_end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(is_end).unwrap_or(text.len()))
}

/// A decimal number (`1`, `1.5`, `.5`) times `unit`.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let integer = |digits: &str| match digits {
        "" => Some(0),
        digits => digits.parse::<u64>().ok().map(u128::from),
    };
    // Nine digits of a fraction are enough for nanoseconds of the largest unit we accept.
    let fraction_digits = fraction.get(..9).unwrap_or(fraction);
    let scale = 10_u128.pow(u32::try_from(fraction_digits.len()).ok()?);
    if fraction.contains('.') {
        return None;
    }
    let part = integer(fraction_digits)? * unit / scale;
    integer(whole)?.checked_mul(unit)?.checked_add(part)
}

fn unit_nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" | "nsec" => 1,
        "us" | "µs" | "μs" | "usec" => 1_000,
        "ms" | "msec" => 1_000_000,
        "" | "s" | "sec" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60 * 1_000_000_000,
        "h" | "hr" | "hour" | "hours" => 3600 * 1_000_000_000,
        "d" | "day" | "days" => 24 * 3600 * 1_000_000_000,
        "w" | "week" | "weeks" => 7 * 24 * 3600 * 1_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_split_only_when_quoted_at_both_ends() {
        for (value, expected) in [
            (r#""a=b" "c=d""#, vec!["a=b", "c=d"]),
            (r#""a=b"  "c=d""#, vec!["a=b", "", "c=d"]),
            (r#""a b""#, vec!["a b"]),
            ("\"a=b\"\t\"c=d\"", vec!["a=b\tc=d"]),
            (r#""a=b","c=d""#, vec!["a=b,c=d"]),
            (r#""a=b" c=d "e=f""#, vec!["a=b", "c=d", "e=f"]),
            ("a=b c=d", vec!["a=b c=d"]),
            (r#""a" b"#, vec![r#""a" b"#]),
            ("", vec![""]),
            ("\"", vec![""]),
            ("\"\"", vec![""]),
        ] {
            assert_eq!(split(value).1, expected, "{value}");
        }
    }

    #[test]
    fn specifiers_are_plain_text() {
        let name = UnitName::parse("a@b@c.service").unwrap();
        for (value, expected) in [
            ("%n|%N|%p|%i", "a@b@c.service|a@b@c|a|b@c"),
            ("%%n %x %", "%a@b@c.service %x %"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(value, Some(&name)), expected);
            assert_eq!(expand(value, None), value);
        }
        let plain = UnitName::parse("a.service").unwrap();
        assert_eq!(expand("x%i", Some(&plain)), "x");
    }

    #[test]
    fn time_spans_of_systemd_and_go() {
        let ms = |n| Some(Duration::from_millis(n));
        for (text, expected) in [
            ("30s", ms(30_000)),
            ("30", ms(30_000)),
            (" 1min 30s ", ms(90_000)),
            ("1m30s", ms(90_000)),
            ("1.5h", ms(5_400_000)),
            (".5s", ms(500)),
            ("2 min", ms(120_000)),
            ("250ms", ms(250)),
            ("0", ms(0)),
            ("1.0000000005s", ms(1000)),
            ("365d", Some(MAX_TIME_SPAN)),
            ("366d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615w", None),
            ("", None),
            ("s", None),
            (".", None),
            ("1..5s", None),
            ("1.5.5s", None),
            ("-1s", None),
            ("1x", None),
            ("infinity", None),
            ("1s,2s", None),
        ] {
            assert_eq!(time_span(text), expected, "{text:?}");
        }
    }

    #[test]
    fn truth_values() {
        for value in ["true", "YES", "1", "On", "t"] {
            assert!(is_true_to_the_original(value), "{value}");
        }
        for value in ["", "y", "false", "true ", "2"] {
            assert!(!is_true_to_the_original(value), "{value}");
        }
        assert_eq!(boolean("Y"), Some(true));
        assert_eq!(boolean("off"), Some(false));
        assert_eq!(boolean(""), None);
    }

    #[test]
    fn numbers_of_moves() {
        for (value, expected) in [
            ("yes", Some(DEFAULT_MOVES)),
            ("ON", Some(DEFAULT_MOVES)),
            ("no", Some(0)),
            ("0", Some(0)),
            ("1", Some(1)),
            ("100", Some(MAX_MOVES)),
            ("101", None),
            ("-1", None),
            ("99999999999", None),
            ("1.5", None),
            ("often", None),
            ("", None),
        ] {
            assert_eq!(moves(value), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_span_or_not(text in "([0-9.]{0,25} ?[a-zµ]{0,4} ?){0,4}") {
            prop_assert!(time_span(&text).is_none_or(|span| span <= MAX_TIME_SPAN));
        }

        #[test]
        fn splitting_loses_only_quotes_and_spaces(value in "\"[a\" \t=]{0,12}\"") {
            let (is_quoted, values) = split(&value);
            prop_assert!(is_quoted);
            prop_assert_eq!(values.join(" "), value.replace('"', ""));
        }
    }
}
