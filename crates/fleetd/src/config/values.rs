//! How the values of the configuration are written, each as the original reads it.

use std::collections::BTreeMap;
use std::time::Duration;

/// Go's `time.ParseDuration`: `300ms`, `1m30s`, `2h45m`; `0` needs no unit. Negative times have
/// no meaning here and are refused.
pub fn go_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
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

/// A comma list; blanks, quotes and surrounding brackets are stripped from every item, so that
/// `["http://a:2379", "http://b:2379"]` works.
pub fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(|item| {
            item.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '[' | ']'))
        })
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
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
            assert_eq!(go_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "bogus", "30", "s", "-1s", "1x", "1..5s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn lists_with_and_without_brackets() {
        let two = ["http://a:2379", "http://b:2379"];
        assert_eq!(list("http://a:2379,http://b:2379"), two);
        assert_eq!(list("[\"http://a:2379\", \"http://b:2379\"]"), two);
        assert!(list(" ").is_empty());
    }

    #[test]
    fn metadata_keeps_the_last_and_drops_what_is_no_pair() {
        let got = metadata("region=us-west, disk = ssd ,x,a=b=c,region=eu");
        let got: Vec<_> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(got, ["a=b=c", "disk=ssd", "region=eu"]);
    }
}
