//! What fleetd reads on its machine: configuration, its own files below /run, the journal.

use std::ffi::OsString;

use fleetd::config::load;
use fleetd::config::{ini, values};

/// `fleet.conf`.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut environment = Vec::new();
    match ini::parse(&text) {
        Ok(file) => {
            // What the file says, by a way that needs none: the same keys in the environment.
            for (key, value) in &file.settings {
                let _ = values::metadata(value);
                let _ = values::list(value);
                environment.push((
                    OsString::from(format!("FLEET_{}", key.to_uppercase())),
                    OsString::from(value),
                ));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    loaded([], environment);
}

/// The command line, an argument a line.
pub(crate) fn flags(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // A file would be another input; `config` is for those.
    if text.contains("config") {
        return;
    }
    let args: Vec<OsString> = text.lines().map(OsString::from).collect();
    let environment = [("XDG_RUNTIME_DIR".into(), "/run/user/1".into())];
    loaded(args, environment);
}

fn loaded(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) {
    let args = std::iter::once(OsString::from("fleetd")).chain(args);
    match load::load(args, environment) {
        Ok(loaded) => {
            let shown = loaded.describe();
            assert!(shown.lines().count() >= 10, "{shown}");
            assert!(loaded.config.token_limit > 0);
            assert!(!loaded.config.agent_ttl.is_zero(), "{shown}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Launch records, facts below /run, the journal's lines.
pub(crate) fn files(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(written) = fleetd::fuzz::launch_record(&text) {
        // What was read is written and read again as the same.
        assert_eq!(
            fleetd::fuzz::launch_record(&written).as_ref(),
            Some(&written)
        );
    }
    let log = fleetd::fuzz::journal(data);
    assert!(
        log.len() <= 10 && log.iter().all(|line| line.len() <= 256),
        "{log:?}"
    );
}
