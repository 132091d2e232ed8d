//! Times as people read them. Machines stand in different time zones, so that they are in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use fleet_api::v2::JournalEntry;

use crate::report::visible;

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// Days from 0000-03-01, the first day of the calendar's cycle, to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;
/// The calendar repeats itself after so many days: 400 years.
const CYCLE_DAYS: u64 = 146_097;

/// `2026-11-28 11:20:03 UTC (4 min ago)`, of milliseconds since 1970.
pub(crate) fn since(ms: u64) -> String {
    format!("{} ({})", utc(ms), ago(now_ms().saturating_sub(ms)))
}

/// `2026-11-28 11:20:03 UTC`
pub(crate) fn utc(ms: u64) -> String {
    let (year, month, day) = date(ms / MS_PER_DAY);
    let seconds = ms % MS_PER_DAY / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A line of a journal as `journalctl -o short` has it, in UTC; of several lines of text the later ones
/// stand below the first.
pub(crate) fn journal_line(entry: &JournalEntry) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let ms = entry.at_us / 1_000;
    let (_, month, day) = date(ms / MS_PER_DAY);
    let month = usize::try_from(month).unwrap_or(1);
    let month = MONTHS.get(month.saturating_sub(1)).unwrap_or(&"");
    let seconds = ms % MS_PER_DAY / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut head = format!("{month} {day:02} {hour:02}:{minute:02}:{second:02}");
    if !entry.host.is_empty() {
        head.push_str(&format!(" {}", visible(&entry.host)));
    }
    if !entry.identifier.is_empty() {
        head.push_str(&format!(" {}", visible(&entry.identifier)));
    }
    if !entry.pid.is_empty() {
        head.push_str(&format!("[{}]", visible(&entry.pid)));
    }
    head.push_str(": ");
    let indent = head.chars().count();
    let mut lines = entry.message.lines();
    let mut text = format!("{head}{}\n", shown_text(lines.next().unwrap_or_default()));
    for line in lines {
        text.push_str(&format!("{:indent$}{}\n", "", shown_text(line)));
    }
    text
}

/// A line of somebody's text as it may be shown; tabs are no danger.
pub(crate) fn shown_text(line: &str) -> String {
    let parts: Vec<_> = line.split('\t').map(visible).collect();
    parts.join("\t")
}

/// The milliseconds of `30s`, `10m`, `2h`, `3d`; None for anything else.
pub(crate) fn while_of(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds * 1000)
}

/// Milliseconds since 1970 of `2026-11-28`, `2026-11-28 11:20` or `2026-11-28 11:20:03`, in UTC; a `T`
/// may stand in the middle and `UTC` or `Z` at the end. None for anything else.
pub(crate) fn time_of(text: &str) -> Option<u64> {
    let text = text
        .trim_end_matches("UTC")
        .trim_end_matches('Z')
        .trim_end();
    let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    let numbers = |text: &str, between: char| -> Option<Vec<u64>> {
        let parts = text.split(between);
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        parts
            .map(|part| part.parse().ok().filter(|_| is_number(part)))
            .collect()
    };
    let [year, month, day] = numbers(day, '-')?[..] else {
        return None;
    };
    let (hour, minute, second) = match numbers(time, ':')?[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 || !(1970..=9999).contains(&year) {
        return None;
    }
    // The inverse of `date`: days of the years before, which begin in March, and of the months.
    let from_march = (month.checked_sub(1)? + 10) % 12;
    let year_from_march = if month > 2 { year } else { year - 1 };
    let of_years =
        365 * year_from_march + year_from_march / 4 - year_from_march / 100 + year_from_march / 400;
    let days = of_years + (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let days = days.checked_sub(DAYS_BEFORE_1970)?;
    // 31 April is no day.
    (date(days) == (year, month, day))
        .then_some(days * MS_PER_DAY + (hour * 3600 + minute * 60 + second) * 1000)
}

/// How long ago, in its largest unit: `4 min ago`. A clock that is behind another one's makes it
/// `just now`.
fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => "just now".to_owned(),
        1..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Year, month and day of a day since 1970, by the rules of the Gregorian calendar: a year that
/// begins in March has its leap day at its end.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let day_of_cycle = days % CYCLE_DAYS;
    let leap_days = day_of_cycle / 1460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let before_year = 365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100;
    let day_of_year = day_of_cycle - before_year;
    // Months from March on have 31, 30, 31, 30, 31 days, and again: 153 for five.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = days / CYCLE_DAYS * 400 + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where fleetctl reads the wall clock, to show it to people"
)]
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_date_shows() {
        // As `date -u -d @SECONDS` has them.
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (1_735_689_600, "2025-01-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1000 + 999), shown);
        }
    }

    #[test]
    fn times_are_read_as_they_are_shown() {
        for seconds in [0, 951_782_399, 951_868_800, 1_709_164_800, 4_107_542_400] {
            assert_eq!(time_of(&utc(seconds * 1000)), Some(seconds * 1000));
        }
        for (text, seconds) in [
            ("2024-02-29", 1_709_164_800),
            ("2024-02-29 00:01", 1_709_164_860),
            ("2024-02-29T00:01:02Z", 1_709_164_862),
        ] {
            assert_eq!(time_of(text), Some(seconds * 1000), "{text}");
        }
        for text in [
            "",
            "2024",
            "2024-2",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "2024-01-01 24:00",
            "2024-01-01 1",
            "1969-12-31",
            "2024-01-+1",
            "é",
        ] {
            assert_eq!(time_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_line_of_a_journal() {
        let entry = JournalEntry {
            at_us: 951_782_399_123_456,
            host: "one".into(),
            identifier: "sh".into(),
            pid: "42".into(),
            message: "a\tb\u{1b}[31m\nc".into(),
            ..JournalEntry::default()
        };
        let indent = " ".repeat("Feb 28 23:59:59 one sh[42]: ".len());
        assert_eq!(
            journal_line(&entry),
            format!("Feb 28 23:59:59 one sh[42]: a\tb\\u{{1b}}[31m\n{indent}c\n")
        );
        let bare = JournalEntry {
            at_us: 0,
            message: String::new(),
            ..JournalEntry::default()
        };
        assert_eq!(journal_line(&bare), "Jan 01 00:00:00: \n");
    }

    #[test]
    fn a_while_is_read() {
        for (text, ms) in [
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("2h", Some(7_200_000)),
            ("3d", Some(259_200_000)),
            ("", None),
            ("m", None),
            ("10", None),
            ("-1m", None),
            ("10é", None),
            ("99999999999999999d", None),
        ] {
            assert_eq!(while_of(text), ms, "{text}");
        }
    }

    #[test]
    fn a_while_ago_in_its_largest_unit() {
        for (seconds, shown) in [
            (0, "just now"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (3600, "1 h ago"),
            (172_799, "47 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(ago(seconds * 1000 + 999), shown);
        }
    }
}
