//! The text of `/metrics`: Prometheus' exposition format 0.0.4.
//!
//! Each part of the daemon counts in atomics of its own and implements [`Source`]; this module
//! knows the format and nothing else.

use std::fmt::Write as _;
use std::sync::Arc;

/// The Content-Type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// A part of the daemon that counts something.
pub trait Source: Send + Sync {
    /// Adds its families to the text.
    fn collect(&self, text: &mut Text);
}

/// How a value behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, from the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Everything that is counted in this process.
#[derive(Clone, Default)]
pub struct Metrics {
    sources: Vec<Arc<dyn Source>>,
}

impl Metrics {
    /// Adds a part.
    pub fn add(&mut self, source: Arc<dyn Source>) {
        self.sources.push(source);
    }

    /// The text as it is now.
    pub fn render(&self) -> String {
        let mut text = Text(String::new());
        for source in &self.sources {
            source.collect(&mut text);
        }
        text.0
    }
}

/// The text under construction.
#[derive(Debug)]
pub struct Text(String);

impl Text {
    /// A family with one value.
    pub fn value(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help, &[(&[], value)]);
    }

    /// A family with a value for each set of labels. Label values are fleet's own words and need
    /// no escaping beyond `"` and `\`.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str, rows: &[(&[(&str, &str)], f64)]) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            self.0.push_str(name);
            for (idx, (label, value)) in labels.iter().enumerate() {
                let open = if idx == 0 { '{' } else { ',' };
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = write!(self.0, "{open}{label}=\"{value}\"");
            }
            if !labels.is_empty() {
                self.0.push('}');
            }
            let _ = writeln!(self.0, " {value}");
        }
    }
}

/// The process itself: what Prometheus' own client libraries tell under these names.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    started_unix_seconds: f64,
}

impl Process {
    /// Of a process that starts now.
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of this century are exact"
    )]
    pub fn starting_now() -> Process {
        Process {
            started_unix_seconds: crate::clock::unix_ms() as f64 / 1000.0,
        }
    }
}

impl Source for Process {
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
    fn collect(&self, text: &mut Text) {
        text.value(
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            self.started_unix_seconds,
        );
        // Fields of proc(5), in pages and clock ticks; what cannot be read is left out.
        if let Ok(statm) = std::fs::read_to_string("/proc/self/statm") {
            let page = rustix::param::page_size() as f64;
            if let Some(pages) = statm.split(' ').nth(1).and_then(|n| n.parse::<f64>().ok()) {
                text.value(
                    "process_resident_memory_bytes",
                    Kind::Gauge,
                    "Resident memory size in bytes.",
                    pages * page,
                );
            }
        }
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            // The command's name may hold blanks; what follows its closing bracket may not.
            let fields: Vec<&str> = stat
                .rsplit(')')
                .next()
                .unwrap_or("")
                .split_whitespace()
                .collect();
            let ticks = |idx: usize| fields.get(idx).and_then(|n| n.parse::<f64>().ok());
            if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
                text.value(
                    "process_cpu_seconds_total",
                    Kind::Counter,
                    "Total user and system CPU time spent in seconds.",
                    (user + system) / rustix::param::clock_ticks_per_second() as f64,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Source for Two {
        fn collect(&self, text: &mut Text) {
            text.value("up", Kind::Gauge, "Whether it is up.", 1.0);
            text.family(
                "tasks_total",
                Kind::Counter,
                "Tasks.",
                &[
                    (&[("type", "start"), ("why", "a \"b\"")], 2.0),
                    (&[("type", "stop")], 0.5),
                ],
            );
        }
    }

    #[test]
    fn the_text_is_prometheus_own() {
        let mut metrics = Metrics::default();
        metrics.add(Arc::new(Two));
        insta::assert_snapshot!(metrics.render(), @r#"
        # HELP up Whether it is up.
        # TYPE up gauge
        up 1
        # HELP tasks_total Tasks.
        # TYPE tasks_total counter
        tasks_total{type="start",why="a \"b\""} 2
        tasks_total{type="stop"} 0.5
        "#);
    }

    #[test]
    fn the_process_tells_its_memory_and_time() {
        let mut metrics = Metrics::default();
        metrics.add(Arc::new(Process::starting_now()));
        let text = metrics.render();
        for name in [
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name} in {text}");
        }
    }
}
