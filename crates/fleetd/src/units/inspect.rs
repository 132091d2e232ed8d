//! What systemd says of a unit at this moment, for people: `systemctl status`.

use std::collections::HashMap;

use fleet_api::v2::SystemdView;
use fleet_core::name::UnitName;
use zbus::{OwnedVariant, Variant};

use super::dbus::{CallError, Manager, UNIT, hex, unit_object};
use super::failure;

/// What systemd writes for a number that it does not keep, or that has no bound.
const NOTHING: u64 = u64::MAX;

/// Asks systemd. Costs two of its calls, and reads one small file.
pub(crate) async fn inspect(manager: &Manager, unit: &UnitName) -> Result<SystemdView, CallError> {
    let path = unit_object(unit.as_str());
    let general = manager.properties(&path, UNIT).await?;
    let special = match failure::interface(unit) {
        Some(interface) => manager.properties(&path, &interface).await?,
        None => HashMap::new(),
    };
    let mut view = view(&Properties(&general), &Properties(&special));
    if has_ended_badly(&view.active) {
        view.result = failure::in_words(&special);
    }
    if view.main_pid > 0 {
        // It may have gone meanwhile.
        let name = tokio::fs::read_to_string(format!("/proc/{}/comm", view.main_pid)).await;
        view.main_command = name.unwrap_or_default().trim_end().to_owned();
    }
    Ok(view)
}

/// Of a unit that runs, how it ended before says nothing.
fn has_ended_badly(active: &str) -> bool {
    matches!(active, "failed" | "inactive")
}

fn view(general: &Properties<'_>, special: &Properties<'_>) -> SystemdView {
    let number = |name| special.number(name).filter(|number| *number != NOTHING);
    SystemdView {
        description: general.text("Description"),
        load: general.text("LoadState"),
        active: general.text("ActiveState"),
        sub: general.text("SubState"),
        since_ms: general.number("StateChangeTimestamp").unwrap_or(0) / 1_000,
        result: String::new(),
        file: general.text("FragmentPath"),
        needs_reload: general.is_true("NeedDaemonReload"),
        invocation_id: general.bytes("InvocationID").map(hex).unwrap_or_default(),
        main_pid: special.number("MainPID").unwrap_or(0),
        main_command: String::new(),
        status_text: special.text("StatusText"),
        restarts: special.number("NRestarts").unwrap_or(0),
        tasks: number("TasksCurrent"),
        tasks_max: number("TasksMax"),
        memory: number("MemoryCurrent"),
        memory_peak: number("MemoryPeak"),
        memory_max: number("MemoryMax"),
        cpu_ns: number("CPUUsageNSec"),
        control_group: special.text("ControlGroup"),
    }
}

struct Properties<'a>(&'a HashMap<String, OwnedVariant>);

impl Properties<'_> {
    fn value(&self, name: &str) -> Option<&Variant<'_>> {
        self.0.get(name).map(|value| &**value)
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Some(Variant::Str(text)) => text.as_str().to_owned(),
            _ => String::new(),
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Variant::U64(number)) => Some(*number),
            Some(Variant::U32(number)) => Some(u64::from(*number)),
            _ => None,
        }
    }

    fn is_true(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Variant::Bool(true)))
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let Some(Variant::Array(values)) = self.value(name) else {
            return None;
        };
        let bytes = values.iter().map(|value| match value {
            Variant::U8(byte) => Some(*byte),
            _ => None,
        });
        bytes.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(pairs: Vec<(&str, Variant<'static>)>) -> HashMap<String, OwnedVariant> {
        let owned = |value| OwnedVariant::try_from(value).unwrap();
        let pairs = pairs.into_iter();
        pairs
            .map(|(name, value)| (name.to_owned(), owned(value)))
            .collect()
    }

    #[test]
    fn properties_are_taken_as_they_are_and_what_is_not_kept_is_left_out() {
        let general = owned(vec![
            ("Description", Variant::from("Hello")),
            ("LoadState", Variant::from("loaded")),
            ("ActiveState", Variant::from("active")),
            ("SubState", Variant::from("running")),
            (
                "StateChangeTimestamp",
                Variant::from(1_700_000_000_123_456_u64),
            ),
            ("NeedDaemonReload", Variant::from(true)),
            ("InvocationID", Variant::from(vec![0x1a_u8, 0xff])),
        ]);
        let special = owned(vec![
            ("MainPID", Variant::from(42_u32)),
            ("MemoryCurrent", Variant::from(1_024_u64)),
            ("MemoryMax", Variant::from(u64::MAX)),
            ("TasksCurrent", Variant::from(3_u64)),
        ]);
        let view = view(&Properties(&general), &Properties(&special));
        assert_eq!(
            (&*view.description, &*view.active, &*view.sub),
            ("Hello", "active", "running")
        );
        assert_eq!(
            (view.since_ms, view.needs_reload),
            (1_700_000_000_123, true)
        );
        assert_eq!((&*view.invocation_id, view.main_pid), ("1aff", 42));
        assert_eq!((view.memory, view.memory_max), (Some(1_024), None));
        assert_eq!((view.tasks, view.cpu_ns, view.restarts), (Some(3), None, 0));
    }
}
