//! What comes from outside, thrown at the code that reads it: one function a target, each a
//! property that holds for any bytes. None may panic, hang, or take memory without bound.
//!
//! `make fuzz` runs them guided by coverage (cargo-fuzz, nightly); `make test` replays the corpus
//! and mutations of it on stable (`crates/fleetd/tests/fuzz`, which takes in these files by path).

mod answers;
mod client;
mod dbus;
mod glob;
mod machine;
mod names;
mod server;
mod store;
mod units;

/// A target: its name, which is that of its file in `fuzz_targets/` and of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("unit_file", units::unit_file),
    ("requirements", units::requirements),
    ("options", units::options),
    ("names", names::names),
    ("glob", glob::glob),
    ("config", machine::config),
    ("flags", machine::flags),
    ("machine_files", machine::files),
    ("documents", store::documents),
    ("registry", store::registry),
    ("http", server::http),
    ("api", server::api),
    ("bodies", server::bodies),
    ("dbus", dbus::stream),
    ("dbus_bodies", dbus::bodies),
    ("client", client::client),
    ("answers", answers::answers),
];

/// Runs the target of a name.
///
/// # Panics
/// There is none, or its property does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, body) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    body(data);
}

/// Runs a future with a clock that jumps to the next timer as soon as nothing else is to be done:
/// bounded waits cost nothing, and what waits for ever hangs.
fn run_paused(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system")
        .block_on(work);
}
