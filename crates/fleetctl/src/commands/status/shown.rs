//! How a unit is, as `systemctl status` shows it, with fleet's own lines.

use fleet_api::v2::{SystemdView, UnitOnMachine, UnitView};

use crate::report::{legend, visible};
use crate::when;

/// Labels end here.
const LABEL_WIDTH: usize = 11;

/// A unit on a machine.
pub(super) fn on(unit: &UnitView, on: &UnitOnMachine) -> String {
    let mut text = Block::default();
    let systemd = on.systemd.as_ref();
    let active = systemd.map_or("", |systemd| &systemd.active);
    let description = systemd.map(|systemd| systemd.description.as_str());
    text.title(unit, active, description);
    let machine = legend(&on.machine_id, &on.primary_ip, false);
    let reported = unit.states.iter();
    let mut reported = reported.filter(|state| state.machine_id == on.machine_id);
    let state = reported.next();
    match systemd {
        Some(systemd) => {
            text.row("Loaded", loaded(systemd));
            text.row("Active", is_active(systemd));
            text.row("Machine", machine);
        }
        None => {
            let known = state.map(|state| {
                let (active, sub) = (visible(&state.active), visible(&state.sub));
                format!("{active} ({sub}) when it was last reported")
            });
            text.row(
                "Active",
                known.unwrap_or_else(|| "never reported".to_owned()),
            );
            let since = match on.machine_since_ms {
                0 => String::new(),
                ms => format!(" since {}", when::since(ms)),
            };
            text.row(
                "Machine",
                format!("{machine}, {}{since}", on.machine_status),
            );
        }
    }
    if let Some(why) = state.and_then(|state| state.why.as_deref()) {
        text.row("Why", visible(why).into_owned());
    }
    text.wish(unit);
    if let Some(systemd) = systemd {
        text.processes(systemd);
    }
    if !on.lines.is_empty() {
        text.0.push('\n');
        for line in &on.lines {
            text.0.push_str(&when::journal_line(line));
        }
    }
    text.0
}

/// A unit that is on no machine.
pub(super) fn nowhere(unit: &UnitView) -> String {
    let mut text = Block::default();
    text.title(unit, "", None);
    text.row("Active", "inactive: it is on no machine".to_owned());
    text.wish(unit);
    text.0
}

#[derive(Default)]
struct Block(String);

impl Block {
    fn title(&mut self, unit: &UnitView, active: &str, description: Option<&str>) {
        // As systemctl's: filled while it runs, a cross when it failed.
        let mark = match active {
            "active" | "reloading" | "activating" => '●',
            "failed" => '×',
            _ => '○',
        };
        let described = unit.description.as_deref().or(description);
        let described = described.filter(|text| !text.is_empty() && *text != unit.name);
        let name = &unit.name;
        match described {
            Some(text) => self
                .0
                .push_str(&format!("{mark} {name} - {}\n", visible(text))),
            None => self.0.push_str(&format!("{mark} {name}\n")),
        }
    }

    fn row(&mut self, label: &str, text: String) {
        self.0.push_str(&format!("{label:>LABEL_WIDTH$}: {text}\n"));
    }

    /// What is wished of it, and why it is where it is.
    fn wish(&mut self, unit: &UnitView) {
        let mut wish = unit.desired_state.clone();
        if unit.changed_ms > 0 {
            wish.push_str(&format!(" since {}", when::since(unit.changed_ms)));
        }
        if !unit.changed_by.is_empty() {
            wish.push_str(&format!(", by {}", visible(&unit.changed_by)));
        }
        self.row("Wish", wish);
        if !unit.reason.is_empty() {
            let since = match unit.since_ms {
                0 => String::new(),
                ms => format!("since {}: ", when::since(ms)),
            };
            let is_placed = unit.machine_id.is_some() || unit.global;
            let label = if is_placed { "Placed" } else { "Pending" };
            self.row(label, format!("{since}{}", visible(&unit.reason)));
        }
        let hash = unit.hash.get(..7).unwrap_or(&unit.hash);
        self.row("Revision", format!("{} (hash {hash})", unit.generation));
    }

    fn processes(&mut self, systemd: &SystemdView) {
        if systemd.main_pid > 0 {
            let name = match systemd.main_command.as_str() {
                "" => String::new(),
                name => format!(" ({})", visible(name)),
            };
            self.row("Main PID", format!("{}{name}", systemd.main_pid));
        }
        if !systemd.status_text.is_empty() {
            self.row("Status", format!("\"{}\"", visible(&systemd.status_text)));
        }
        if systemd.restarts > 0 {
            self.row("Restarts", format!("{} by systemd", systemd.restarts));
        }
        if let Some(tasks) = systemd.tasks {
            let limit = systemd.tasks_max.map(|limit| format!(" (limit: {limit})"));
            self.row("Tasks", format!("{tasks}{}", limit.unwrap_or_default()));
        }
        if let Some(memory) = systemd.memory {
            let more = [("max", systemd.memory_max), ("peak", systemd.memory_peak)];
            let more = more
                .into_iter()
                .filter_map(|(name, bytes)| Some(format!("{name}: {}", bytes_shown(bytes?))));
            let more: Vec<String> = more.collect();
            let more = match more.is_empty() {
                true => String::new(),
                false => format!(" ({})", more.join(" ")),
            };
            self.row("Memory", format!("{}{more}", bytes_shown(memory)));
        }
        if let Some(ns) = systemd.cpu_ns {
            self.row("CPU", time_shown(ns));
        }
        if !systemd.control_group.is_empty() {
            self.row("CGroup", visible(&systemd.control_group).into_owned());
        }
    }
}

/// `loaded (/run/systemd/system/hello.service)`
fn loaded(systemd: &SystemdView) -> String {
    let mut text = visible(&systemd.load).into_owned();
    if !systemd.file.is_empty() {
        text.push_str(&format!(" ({})", visible(&systemd.file)));
    }
    if systemd.needs_reload {
        text.push_str("; the file has changed since it was read");
    }
    text
}

/// `active (running) since 2026-11-28 11:20:03 UTC (4 min ago)`
fn is_active(systemd: &SystemdView) -> String {
    let mut text = format!("{} ({})", visible(&systemd.active), visible(&systemd.sub));
    if !systemd.result.is_empty() && systemd.result != "success" {
        text.push_str(&format!(", {},", visible(&systemd.result)));
    }
    if systemd.since_ms > 0 {
        text.push_str(&format!(" since {}", when::since(systemd.since_ms)));
    }
    text
}

/// `1.2M`, as systemctl's.
#[expect(
    clippy::cast_precision_loss,
    reason = "one digit behind the point is shown"
)]
fn bytes_shown(bytes: u64) -> String {
    let units = [
        ("T", 1_u64 << 40),
        ("G", 1 << 30),
        ("M", 1 << 20),
        ("K", 1 << 10),
    ];
    match units.into_iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1}{unit}", bytes as f64 / size as f64),
        None => format!("{bytes}B"),
    }
}

/// `12ms`, `3.456s`, `2min 3s`
#[expect(
    clippy::cast_precision_loss,
    reason = "three digits behind the point are shown"
)]
fn time_shown(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0 => format!("{}ms", ns / 1_000_000),
        1..60 => format!("{:.3}s", ns as f64 / 1e9),
        60..3_600 => format!("{}min {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_systemctl_has_them() {
        for (bytes, shown) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_536, "1.5K"),
            (3 << 20, "3.0M"),
            (5 << 30, "5.0G"),
        ] {
            assert_eq!(bytes_shown(bytes), shown);
        }
        for (ns, shown) in [
            (12_345_678, "12ms"),
            (3_456_000_000, "3.456s"),
            (123_000_000_000, "2min 3s"),
            (7_380_000_000_000, "2h 3min"),
        ] {
            assert_eq!(time_shown(ns), shown);
        }
    }
}
