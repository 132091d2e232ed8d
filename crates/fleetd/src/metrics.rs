//! The text of `/metrics`: Prometheus' exposition format 0.0.4.
//!
//! Each part of the daemon counts in atomics of its own and implements [`Source`]; this module
//! knows the format and nothing else.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// Names and values of one row's labels.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Upper bounds of a [`Histogram`]'s buckets, in seconds: from half a millisecond, a fast answer of
/// the store, doubling to four seconds, beyond every timeout.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096,
];

/// How long something takes.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Those within each bound, and those beyond all.
    counts: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// It has taken so long once more.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        self.counts[bucket.unwrap_or(BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
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

    /// `name type` of every family, for tests that hold the documents against the code.
    #[cfg(test)]
    pub(crate) fn families(&self) -> Vec<String> {
        let text = self.render();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(str::to_owned).collect()
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
    pub fn family(&mut self, name: &str, kind: Kind, help: &str, rows: &[(Labels<'_>, f64)]) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
        for (labels, value) in rows {
            self.line(name, labels, *value);
        }
    }

    /// A family of histograms, one for each set of labels.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn histograms(&mut self, name: &str, help: &str, rows: &[(Labels<'_>, &Histogram)]) {
        self.head(name, "histogram", help);
        for (labels, histogram) in rows {
            let mut count = 0;
            for (idx, bucket) in histogram.counts.iter().enumerate() {
                count += bucket.load(Ordering::Relaxed);
                let bound = BUCKETS.get(idx).map_or("+Inf".to_owned(), f64::to_string);
                let labels = [labels, &[("le", bound.as_str())][..]].concat();
                self.line(&format!("{name}_bucket"), &labels, count as f64);
            }
            let micros = histogram.micros.load(Ordering::Relaxed);
            self.line(&format!("{name}_sum"), labels, micros as f64 / 1e6);
            self.line(&format!("{name}_count"), labels, count as f64);
        }
    }

    /// A family of summaries without quantiles: sum and count for each set of labels.
    pub fn summaries(&mut self, name: &str, help: &str, rows: &[(Labels<'_>, f64, f64)]) {
        self.head(name, "summary", help);
        for (labels, sum, count) in rows {
            self.line(&format!("{name}_sum"), labels, *sum);
            self.line(&format!("{name}_count"), labels, *count);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: Labels<'_>, value: f64) {
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
            let pages: Vec<f64> = statm.split(' ').filter_map(|n| n.parse().ok()).collect();
            if let [all, resident, ..] = pages[..] {
                text.value(
                    "process_virtual_memory_bytes",
                    Kind::Gauge,
                    "Virtual memory size in bytes.",
                    all * page,
                );
                text.value(
                    "process_resident_memory_bytes",
                    Kind::Gauge,
                    "Resident memory size in bytes.",
                    resident * page,
                );
            }
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            text.value(
                "process_open_fds",
                Kind::Gauge,
                "Number of open file descriptors.",
                open.count() as f64,
            );
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        if let Some(limit) = limit.current {
            text.value(
                "process_max_fds",
                Kind::Gauge,
                "Maximum number of open file descriptors.",
                limit as f64,
            );
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
            let reads = Histogram::default();
            for micros in [400, 1_000, 1_001, 9_000_000] {
                reads.observe(Duration::from_micros(micros));
            }
            text.histograms("read_seconds", "Reads.", &[(&[("of", "keys")], &reads)]);
            text.summaries("size_bytes", "Sizes.", &[(&[("of", "x")], 12.0, 3.0)]);
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
        # HELP read_seconds Reads.
        # TYPE read_seconds histogram
        read_seconds_bucket{of="keys",le="0.0005"} 1
        read_seconds_bucket{of="keys",le="0.001"} 2
        read_seconds_bucket{of="keys",le="0.002"} 3
        read_seconds_bucket{of="keys",le="0.004"} 3
        read_seconds_bucket{of="keys",le="0.008"} 3
        read_seconds_bucket{of="keys",le="0.016"} 3
        read_seconds_bucket{of="keys",le="0.032"} 3
        read_seconds_bucket{of="keys",le="0.064"} 3
        read_seconds_bucket{of="keys",le="0.128"} 3
        read_seconds_bucket{of="keys",le="0.256"} 3
        read_seconds_bucket{of="keys",le="0.512"} 3
        read_seconds_bucket{of="keys",le="1.024"} 3
        read_seconds_bucket{of="keys",le="2.048"} 3
        read_seconds_bucket{of="keys",le="4.096"} 3
        read_seconds_bucket{of="keys",le="+Inf"} 4
        read_seconds_sum{of="keys"} 9.002401
        read_seconds_count{of="keys"} 4
        # HELP size_bytes Sizes.
        # TYPE size_bytes summary
        size_bytes_sum{of="x"} 12
        size_bytes_count{of="x"} 3
        "#);
    }

    #[test]
    fn the_process_tells_its_memory_and_time() {
        let mut metrics = Metrics::default();
        metrics.add(Arc::new(Process::starting_now()));
        let text = metrics.render();
        for name in [
            "process_start_time_seconds",
            "process_virtual_memory_bytes",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_cpu_seconds_total",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name} in {text}");
        }
    }
}
