//! Times as people read them. Machines stand in different time zones, so that they are in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

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
