//! How the values of the configuration are written, each as the original reads it.

use std::collections::BTreeMap;
use std::time::Duration;

/// Go's `time.ParseDuration`: `300ms`, `1m30s`, `2h45m`; `0` needs no unit. Errors are in Go's
/// words, which people know. Negative times have no meaning here and are refused.
pub fn go_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text.starts_with('-') {
        return Err(format!("a negative time ({text:?})"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(is_number).unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(format!("time: missing unit in duration {text:?}")),
                unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// Go's `strconv.ParseInt` with base 0, as its `flag` reads whole numbers: `10`, `0x1F`, `0b1`,
/// `0o17`, `017`.
pub fn go_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // Another sign would be taken by the standard library.
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some(_) if lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let number = i64::from_str_radix(digits, base).ok()?;
    Some(if negative { -number } else { number })
}

/// Seconds as a decimal number, as `etcd_request_timeout` has it.
pub fn float_seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// Go's `strconv.ParseBool`.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A comma list; blanks, quotes and brackets around it or any item are stripped, so that
/// `["http://a:2379", "http://b:2379"]` works. The brackets of an IPv6 address stay.
pub fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(bare)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

fn bare(mut item: &str) -> &str {
    loop {
        let trimmed = item.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
        let count = |bracket| trimmed.matches(bracket).count();
        let (opened, closed) = (count('['), count(']'));
        // A bracket without its partner, or a pair around everything, is the list's.
        let rest = match (trimmed.strip_prefix('['), trimmed.strip_suffix(']')) {
            (Some(rest), _) if opened > closed => rest,
            (_, Some(rest)) if closed > opened => rest,
            (Some(rest), Some(_)) => rest.strip_suffix(']').unwrap_or(rest),
            _ => return trimmed,
        };
        item = rest;
    }
}

/// The items of a metadata list that are no `key=value`.
pub fn metadata_oddities(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .filter(|item| {
            item.split_once('=')
                .is_none_or(|(key, _)| key.trim().is_empty())
        })
        .map(|item| format!("{item:?}"))
        .collect()
}

/// `k=v,k=v`; blanks around the comma and the first `=` are stripped, items without `=` are
/// passed over, the last one of a key wins.
pub fn metadata(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|item| item.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_in_go() {
        for (text, ms) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("0", 0),
        ] {
            assert_eq!(go_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, why) in [
            ("", "time: invalid duration \"\""),
            ("bogus", "time: invalid duration \"bogus\""),
            ("30", "time: missing unit in duration \"30\""),
            ("s", "time: invalid duration \"s\""),
            ("-1s", "a negative time (\"-1s\")"),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("1..5s", "time: invalid duration \"1..5s\""),
        ] {
            assert_eq!(go_duration(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn whole_numbers_and_bools_as_in_go() {
        for (text, number) in [("0", 0), ("10", 10), ("-3", -3), ("+3", 3)] {
            assert_eq!(go_int(text), Some(number), "{text}");
        }
        for (text, number) in [("0x1F", 31), ("0b101", 5), ("0o17", 15), ("017", 15)] {
            assert_eq!(go_int(text), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            "1.5",
            "--1",
            "0x",
            "0x-1",
            "08",
            "loud",
            "99999999999999999999",
        ] {
            assert_eq!(go_int(text), None, "{text}");
        }
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(go_bool(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(go_bool(text), Some(false), "{text}");
        }
        for text in ["", "yes", "no", "on", "tRUE", " true"] {
            assert_eq!(go_bool(text), None, "{text}");
        }
        assert_eq!(float_seconds("1.5"), Some(Duration::from_millis(1_500)));
        for text in ["", "-1", "inf", "NaN", "1s"] {
            assert_eq!(float_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn lists_with_and_without_brackets() {
        let two = ["http://a:2379", "http://b:2379"];
        assert_eq!(list("http://a:2379,http://b:2379"), two);
        assert_eq!(list("[\"http://a:2379\", \"http://b:2379\"]"), two);
        assert_eq!(list("['http://a:2379'],\"http://b:2379\","), two);
        assert_eq!(list("[http://a:2379]"), ["http://a:2379"]);
        assert!(list(" ").is_empty() && list("[]").is_empty());
    }

    #[test]
    fn an_ipv6_address_keeps_its_own_brackets() {
        let two = ["http://[::1]", "[::1]:49153"];
        assert_eq!(list("http://[::1], [::1]:49153"), two);
        assert_eq!(list("[\"http://[::1]\", \"[::1]:49153\"]"), two);
        assert_eq!(list("[[::1]:49153]"), ["[::1]:49153"]);
        assert_eq!(list("[[::1]:49153,http://[::1]]"), [two[1], two[0]]);
    }

    #[test]
    fn metadata_keeps_the_last_and_drops_what_is_no_pair() {
        let got = metadata("region=us-west, disk = ssd ,x,a=b=c,region=eu");
        let got: Vec<_> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(got, ["a=b=c", "disk=ssd", "region=eu"]);
        assert_eq!(metadata_oddities("a=b, x ,,=y,c=d"), ["\"x\"", "\"=y\""]);
    }
}
