//! Distributions, and the table of goals.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::time::Duration;

/// In order, in ms.
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn of(mut times: Vec<f64>) -> Times {
        times.sort_by(f64::total_cmp);
        Times(times)
    }

    /// From the line that begins with `what`.
    pub(crate) fn parse(out: &str, what: &str) -> Times {
        let line = out.lines().find_map(|line| line.strip_prefix(what));
        let line = line.unwrap_or_else(|| panic!("no {what} in {out}"));
        let times = line
            .split_whitespace()
            .map(|n| n.parse().expect("a number"));
        Times::of(times.collect())
    }

    /// So many in a hundred took no longer.
    pub(crate) fn at(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent| self.at(percent);
        let (min, p50, p90, p99, max) = (self.0[0], at(50), at(90), at(99), at(100));
        write!(f, "{min:7.1} {p50:7.1} {p90:7.1} {p99:7.1} {max:7.1}")
    }
}

/// One goal.
pub(crate) struct Row {
    what: String,
    measured: String,
    yardstick: String,
    goal: String,
    is_met: bool,
}

impl Row {
    /// Against what systemd took, both in ms.
    pub(crate) fn ratio(what: &str, is: f64, systemd: f64, goal: f64) -> Row {
        Row {
            what: what.to_owned(),
            measured: format!("{is:.1} ms"),
            yardstick: format!("{systemd:.1} ms, x {:.2}", is / systemd),
            goal: format!("x {goal:.2}"),
            is_met: is <= goal * systemd,
        }
    }

    pub(crate) fn value(what: &str, is: f64, unit: &str, goal: f64) -> Row {
        Row {
            what: what.to_owned(),
            measured: format!("{is:.2} {unit}"),
            yardstick: String::new(),
            goal: format!("{goal} {unit}"),
            is_met: is <= goal,
        }
    }
}

impl Row {
    /// What systemd's own took, in ms, which is no part of the goal.
    pub(crate) fn beside(mut self, systemd: f64) -> Row {
        self.yardstick = format!("{systemd:.1} ms");
        self
    }
}

pub(crate) fn print(rows: &[Row]) {
    println!("| what | measured | systemd in the same run | goal | |");
    println!("|---|---|---|---|---|");
    for row in rows {
        let word = if row.is_met { "met" } else { "missed" };
        let Row {
            what,
            measured,
            yardstick,
            goal,
            ..
        } = row;
        println!("| {what} | {measured} | {yardstick} | {goal} | {word} |");
    }
}

/// The one number of a line, given in ms.
pub(crate) fn seconds(out: &str, what: &str) -> f64 {
    Times::parse(out, what).at(100) / 1e3
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn median(times: Vec<f64>) -> f64 {
    Times::of(times).at(50)
}
