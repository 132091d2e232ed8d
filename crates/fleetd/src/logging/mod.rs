//! Logs: to the journal with their fields when systemd connected stderr to it, else as lines on
//! stderr, `LEVEL message field=value`, in the original's levels and without times. The message in
//! the journal has the same fields behind it, because `journalctl` shows only that.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

mod journal;
mod said;

use journal::Journal;
use said::Said;

/// Says from which level on is logged.
#[derive(Clone)]
pub struct Verbosity {
    filter: reload::Handle<Targets, Registry>,
}

impl Verbosity {
    /// More than 0 shows debug lines of fleet's own code; 0 hides them again.
    pub fn set(&self, verbosity: i64) {
        // Fails only when there is nothing that logs any more.
        let _ = self.filter.reload(targets(verbosity));
    }
}

/// Starts logging.
pub fn init(verbosity: i64) -> Verbosity {
    let (filter, handle) = reload::Layer::new(targets(verbosity));
    let journal = stderr_is_journal().then(|| Journal::new().ok()).flatten();
    let subscriber = Registry::default();
    // A second start in one process (tests) keeps the first.
    let _ = match journal {
        Some(journal) => subscriber.with(journal.with_filter(filter)).try_init(),
        None => subscriber
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .event_format(Lines)
                    .with_filter(filter),
            )
            .try_init(),
    };
    Verbosity { filter: handle }
}

fn targets(verbosity: i64) -> Targets {
    let level = match verbosity > 0 {
        true => Level::DEBUG,
        false => Level::INFO,
    };
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("fleetd", level)
        .with_target("fleet_core", level)
}

/// JOURNAL_STREAM names the socket of the journal that systemd made stderr to be (systemd.exec(5)).
/// It is inherited: whoever turned stderr elsewhere since wants the lines there.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = rustix::fs::fstat(std::io::stderr().as_fd());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// `LEVEL message field=value`.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = event.metadata().level();
        writeln!(writer, "{level} {}", Said::by(event).line())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Paper {
        type Writer = Paper;

        fn make_writer(&self) -> Paper {
            self.clone()
        }
    }

    #[test]
    fn lines_begin_with_their_level_and_debug_can_be_switched_on_and_off_again() {
        let paper = Paper::default();
        let (filter, handle) = reload::Layer::new(targets(0));
        let verbosity = Verbosity { filter: handle };
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(paper.clone())
            .with_ansi(false)
            .event_format(Lines)
            .with_filter(filter);
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            tracing::info!(version = "v1", n = 2, "Starting fleetd version {}", "v1");
            tracing::debug!("hidden");
            verbosity.set(2);
            tracing::debug!("shown");
            tracing::debug!(target: "zbus", "hidden");
            verbosity.set(0);
            tracing::debug!("hidden");
            tracing::error!("last");
        });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let expected = "INFO Starting fleetd version v1 n=2\nDEBUG shown\nERROR last\n";
        assert_eq!(text, expected);
    }
}
