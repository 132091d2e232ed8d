//! What the simulator puts in the place of the computer: its clocks, its chance, the small files
//! below /run, and a look at the leader's cluster after each plan. One simulation runs on one
//! thread. Compiled only for the simulator (`--cfg fleet_sim`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fleet_core::check::{Violation, check};
use fleet_core::cluster::{Cluster, Settings};
use fleet_core::plan::{Now, Subject};
use tokio::task::JoinHandle;
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
    static PROCESS: RefCell<Option<Arc<dyn Process>>> = const { RefCell::new(None) };
}

/// A simulated process: it decides whether its tasks go on.
pub trait Process: Send + Sync {
    /// Whether a task may be polled; one that has to wait is woken when it may.
    fn turn(&self, context: &Context<'_>) -> Turn;
    /// A task has come to its next await.
    fn awaits(&self);
    /// A task has panicked.
    fn panicked(&self, why: &str);
}

/// What a task of a process is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Go on.
    Run,
    /// The process stands still.
    Wait,
    /// The process is dead.
    Over,
}

/// A task of a process. When the process dies, all that it holds is dropped.
pub struct TaskOf<F: Future> {
    process: Arc<dyn Process>,
    future: Option<Pin<Box<F>>>,
}

/// Makes a future a part of a process, and with it everything that it spawns.
pub fn task_of<F: Future>(process: Arc<dyn Process>, future: F) -> TaskOf<F> {
    TaskOf {
        process,
        future: Some(Box::pin(future)),
    }
}

impl<F: Future> Future for TaskOf<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let process = Arc::clone(&self.process);
        match process.turn(context) {
            Turn::Run => {}
            Turn::Wait => return Poll::Pending,
            Turn::Over => {
                self.future = None;
                return Poll::Pending;
            }
        }
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let before = PROCESS.replace(Some(Arc::clone(&process)));
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        PROCESS.set(before);
        let Ok(polled) = polled else {
            process.panicked("a part of fleetd has panicked");
            self.future = None;
            return Poll::Pending;
        };
        process.awaits();
        if process.turn(context) == Turn::Over {
            self.future = None;
            return Poll::Pending;
        }
        polled
    }
}

/// Spawns a task of the process that asks for it.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match PROCESS.with_borrow(Clone::clone) {
        Some(process) => tokio::spawn(task_of(process, future)),
        None => tokio::spawn(future),
    }
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
