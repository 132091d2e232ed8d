//! Logs: to the journal with their fields when systemd started us, else as lines on stderr.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// Starts logging. `verbosity` above 0 shows debug lines of fleet's own code.
pub fn init(verbosity: i64) {
    let level = if verbosity > 0 {
        Level::DEBUG
    } else {
        Level::INFO
    };
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("fleetd", level)
        .with_target("fleet_core", level);
    // JOURNAL_STREAM says that stderr is the journal (systemd.exec(5)).
    let journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| tracing_journald::layer().ok())
        .map(|journal| journal.with_syslog_identifier("fleetd".to_owned()));
    let subscriber = Registry::default();
    // A second start in one process (tests) keeps the first.
    let _ = match journal {
        Some(journal) => subscriber.with(journal.with_filter(filter)).try_init(),
        None => subscriber
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false)
                    .with_filter(filter),
            )
            .try_init(),
    };
}
