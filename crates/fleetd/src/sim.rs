//! What the simulator puts in the place of the computer: its clocks, its chance, the small files
//! below /run, and a look at the leader's cluster after each plan. One simulation runs on one
//! thread. Compiled only for the simulator (`--cfg fleet_sim`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_core::check::{Violation, check};
use fleet_core::cluster::{Cluster, Settings};
use fleet_core::plan::{Now, Subject};
use tokio::time::Instant;

use crate::engine::Intake;
use crate::store::{Error, Range, Store};

/// The wall clock at the beginning of each simulation: 2026-01-01.
const BEGINNING_MS: u64 = 1_767_225_600_000;

thread_local! {
    static BEGINNING: Cell<Option<Instant>> = const { Cell::new(None) };
    static SKEW_MS: Cell<i64> = const { Cell::new(0) };
    static IDS: Cell<u64> = const { Cell::new(0) };
    static FILES: RefCell<BTreeMap<PathBuf, String>> = const { RefCell::new(BTreeMap::new()) };
    static VIOLATIONS: RefCell<Vec<Violation>> = const { RefCell::new(Vec::new()) };
    static PLANS: Cell<u64> = const { Cell::new(0) };
}

/// Begins a simulation on this thread; to be called in its runtime, whose clock is paused.
pub fn begin() {
    BEGINNING.set(Some(Instant::now()));
    SKEW_MS.set(0);
    IDS.set(0);
    PLANS.set(0);
    FILES.take();
    VIOLATIONS.take();
}

/// Lets the wall clock jump: from now on it is so far off.
pub fn set_skew_ms(skew: i64) {
    SKEW_MS.set(skew);
}

/// Removes all files of a machine: it has lost its power.
pub fn remove_files_below(directory: &Path) {
    FILES.with_borrow_mut(|files| files.retain(|path, _| !path.starts_with(directory)));
}

/// What the leader's planner has left out of order since the last call.
pub fn take_violations() -> Vec<Violation> {
    VIOLATIONS.take()
}

/// How many plans were made and checked.
pub fn n_plans() -> u64 {
    PLANS.get()
}

/// Time since the beginning, which stands for the boot.
pub fn boottime() -> Duration {
    let now = Instant::now();
    now - BEGINNING.get().unwrap_or(now)
}

/// The wall clock.
pub fn unix_ms() -> u64 {
    let since = u64::try_from(boottime().as_millis()).unwrap_or(u64::MAX);
    (BEGINNING_MS + since).saturating_add_signed(SKEW_MS.get())
}

/// As random as the number of ids before it.
///
/// # Errors
/// Never; a computer's may.
pub fn uuid() -> io::Result<String> {
    IDS.set(IDS.get() + 1);
    Ok(format!("00000000-0000-4000-8000-{:012x}", IDS.get()))
}

pub(crate) fn text_of_file(path: &Path) -> io::Result<String> {
    FILES.with_borrow(|files| {
        files
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    })
}

#[expect(clippy::unnecessary_wraps, reason = "as a real file's")]
pub(crate) fn replace_file(path: &Path, text: String) -> io::Result<()> {
    FILES.with_borrow_mut(|files| files.insert(path.to_owned(), text));
    Ok(())
}

/// A plan was made.
pub(crate) fn planned(cluster: &Cluster) {
    PLANS.set(PLANS.get() + 1);
    VIOLATIONS.with_borrow_mut(|found| found.extend(check(cluster)));
}

/// What a leader that read the store now would change, and what is out of order in it.
///
/// # Errors
/// The store cannot be read.
pub async fn replan(store: &dyn Store) -> Result<Vec<String>, Error> {
    let snapshot = store.read(Range::default()).await?;
    let mut cluster = Cluster::new(Settings::default());
    let mut intake = Intake::default();
    cluster.observe(snapshot.revision);
    for entry in &snapshot.entries {
        if let Some(fact) = intake.entry(entry) {
            cluster.apply(fact);
        }
    }
    let now = Now {
        monotonic_ms: 0,
        unix_ms: unix_ms(),
    };
    let plan = cluster.plan(now);
    let changes = plan.changes.iter().map(|change| match &change.subject {
        Subject::Unit(unit) => format!("{unit} would change: {}", change.reason),
        Subject::Machine(id) => format!("{id} would change: {}", change.reason),
    });
    let violations = check(&cluster);
    Ok(changes
        .chain(violations.iter().map(ToString::to_string))
        .collect())
}
