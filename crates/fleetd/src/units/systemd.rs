//! systemd in earnest: keeps a connection, follows its signals, and hands tasks to `work`.
//!
//! When the connection goes (systemd re-executed itself, the bus died), the manager reports
//! trouble, connects again with back-off, and looks at everything anew before it goes on.
//! Nothing that runs is touched by that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleet_api::v2::SystemdView;
use fleet_core::agent::{Observed, Phase, Task};
use fleet_core::body::BodyHash;
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use futures_util::future::OptionFuture;
use tokio::process::Command;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::ticks::Ticks;

use super::connection::{self, Transport};
use super::dbus::{CallError, Manager};
use super::files::{UnitFiles, has_install, is_exclusive, is_simple};
use super::lease::Lease;
use super::logind::Goodbye;
use super::signals;
use super::state::Shared;
use super::{Changes, JournalQuery, UnitManager, inspect, journal};

/// Connecting again is tried after this, then twice as long each time…
const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
/// … up to this: a systemd that has re-executed itself is back within a fraction of a second.
const LAST_BACK_OFF: Duration = Duration::from_secs(1);
/// A systemd that re-executes itself is away for a moment; what lasts longer is told.
const LASTING: Duration = Duration::from_secs(1);
/// Names in one listing: about half a megabyte of request at most.
const NAMES_PER_LISTING: usize = 2_000;
/// Jobs in flight. systemd reaps no process while it has jobs to run, and on a bus it needs a
/// match rule for each of 512; it is as fast with eight as with a thousand.
const MAX_JOBS: usize = 100;
/// Further jobs that take long (a stop within its timeout, a start that waits for readiness).
/// They are not run but waited for, and must not keep others from their turn.
const MAX_SLOW_JOBS: usize = 300;

/// Whoever asks how a unit is wants an answer now. systemd answers nobody while it reloads.
const ASK_WITHIN: Duration = Duration::from_secs(3);

/// How often it is looked whether somebody has taken files away; that costs two questions to the
/// kernel.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(2);

/// Where things are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemdConfig {
    /// How systemd is reached.
    pub transport: Transport,
    /// Where unit files are written.
    pub units_directory: PathBuf,
    /// What ends with the boot: launch records are kept in `launched/` below it.
    pub run_directory: PathBuf,
    /// Where systemd finds links to the unit files.
    pub link_directory: PathBuf,
    /// A user's own systemd.
    pub user: bool,
    /// The kernel's boot id.
    pub boot_id: String,
}

impl SystemdConfig {
    /// As fleetd is configured. A user's own systemd is found by `$XDG_RUNTIME_DIR`.
    pub fn from_config(config: &Config) -> Self {
        let (units, run) = (&config.units_directory, &config.run_directory);
        let boot_id = crate::agent::boot_id();
        if config.systemd_user {
            let runtime = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default();
            SystemdConfig::user(Path::new(&runtime), units, run, &boot_id)
        } else {
            SystemdConfig::system(units, run, &boot_id)
        }
    }

    /// The machine's systemd.
    pub fn system(units_directory: &Path, run_directory: &Path, boot_id: &str) -> Self {
        SystemdConfig {
            transport: Transport::System(PathBuf::from("/run/systemd/private")),
            units_directory: units_directory.to_owned(),
            run_directory: run_directory.to_owned(),
            link_directory: PathBuf::from("/run/systemd/system"),
            user: false,
            boot_id: boot_id.to_owned(),
        }
    }

    /// The systemd of the user whose `$XDG_RUNTIME_DIR` this is.
    pub fn user(
        runtime_directory: &Path,
        units_directory: &Path,
        run_directory: &Path,
        boot_id: &str,
    ) -> Self {
        SystemdConfig {
            transport: Transport::Private(runtime_directory.join("systemd/private")),
            units_directory: units_directory.to_owned(),
            run_directory: run_directory.to_owned(),
            link_directory: runtime_directory.join("systemd/user"),
            user: true,
            boot_id: boot_id.to_owned(),
        }
    }
}

/// systemd's SystemState once `shutdown.target` is on its way: poweroff, reboot, halt, kexec.
const STOPPING: &str = "stopping";

/// Runs units with systemd. Dropping it leaves all units as they are.
#[derive(Debug)]
pub struct Systemd {
    driver: Arc<Driver>,
    goodbye: Arc<Goodbye>,
    /// Aborted when this is dropped.
    _tasks: JoinSet<()>,
}

impl Systemd {
    /// Reads what is there and begins to connect. What goes wrong is told as
    /// [`UnitManager::trouble`] and tried again.
    pub fn new(config: SystemdConfig) -> Arc<Self> {
        let files = UnitFiles {
            units: config.units_directory.clone(),
            links: config.link_directory.clone(),
            records: config.run_directory.join("launched"),
            leased: config.run_directory.join("leased"),
            boot_id: config.boot_id.clone(),
        };
        let shared = Arc::new(Shared::default());
        let driver = Arc::new(Driver {
            shared,
            files,
            user: config.user,
            unit_path: Mutex::default(),
            slots: Arc::new(Semaphore::new(MAX_JOBS)),
            slow_slots: Arc::new(Semaphore::new(MAX_SLOW_JOBS)),
            reloads: tokio::sync::Mutex::new(0),
            lease: Lease::default(),
        });
        let scanned = driver.scan();
        let goodbye = Goodbye::new();
        let mut tasks = JoinSet::new();
        if matches!(config.transport, Transport::System(_)) {
            tasks.spawn(Arc::clone(&goodbye).follow());
        }
        tasks.spawn(Arc::clone(&driver).keep_connected(config.transport, scanned));
        tasks.spawn(Arc::clone(&driver).work());
        tasks.spawn(Arc::clone(&driver).watch_files());
        tasks.spawn(Arc::clone(&driver).keep_lease());
        Arc::new(Systemd {
            driver,
            goodbye,
            _tasks: tasks,
        })
    }
}

#[async_trait]
impl UnitManager for Systemd {
    fn observe(&self, unit: &UnitName) -> Observed {
        let state = self.driver.shared.lock();
        let entry = state.units.get(unit);
        entry.map_or_else(Observed::default, |entry| entry.observed.clone())
    }

    fn observe_all(&self) -> BTreeMap<UnitName, Observed> {
        let state = self.driver.shared.lock();
        let units = state.units.iter();
        units
            .map(|(unit, entry)| (unit.clone(), entry.observed.clone()))
            .collect()
    }

    fn holds_nothing(&self) -> bool {
        let state = self.driver.shared.lock();
        state.scanned && state.units.is_empty()
    }

    fn knows_what_is_here(&self) -> bool {
        self.driver.shared.lock().scanned
    }

    fn apply(&self, tasks: Vec<Task>) {
        if !tasks.is_empty() {
            self.driver.shared.queue(tasks);
        }
    }

    fn trouble(&self) -> Option<String> {
        self.driver.shared.lock().trouble.clone()
    }

    async fn is_shutting_down(&self) -> bool {
        let manager = self.driver.shared.lock().manager.clone();
        match manager {
            Some(manager) => manager
                .system_state()
                .await
                .is_ok_and(|state| state == STOPPING),
            None => false,
        }
    }

    async fn inspect(&self, unit: &UnitName) -> Result<SystemdView, String> {
        let manager = self.driver.shared.lock().manager.clone();
        let Some(manager) = manager else {
            let why = self.trouble();
            return Err(why.unwrap_or_else(|| "systemd has not been reached yet".to_owned()));
        };
        let asked = timeout(ASK_WITHIN, inspect::inspect(&manager, unit)).await;
        match asked {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "systemd has not answered for {} s",
                ASK_WITHIN.as_secs()
            )),
        }
    }

    fn journal(&self, query: &JournalQuery, machine: &MachineId) -> Command {
        journal::journalctl(query, machine, self.driver.user)
    }

    fn lease_until(&self, until: Duration) {
        self.driver.lease_until(until);
    }

    async fn lease_for_absence(&self, until: Duration) -> bool {
        self.driver.lease_for_absence(until).await
    }

    fn shutdown(&self) -> watch::Receiver<Option<Duration>> {
        self.goodbye.subscribe()
    }

    fn let_shutdown_go_on(&self) {
        self.goodbye.let_go();
    }

    async fn changed(&self) -> Changes {
        let shared = &self.driver.shared;
        loop {
            {
                let mut state = shared.lock();
                if state.everything_changed || !state.changed.is_empty() {
                    return Changes {
                        units: std::mem::take(&mut state.changed),
                        everything: std::mem::take(&mut state.everything_changed),
                    };
                }
            }
            shared.changed.notified().await;
        }
    }
}

/// What the background tasks share.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) files: UnitFiles,
    pub(crate) user: bool,
    /// systemd's own list of directories, read at each connect.
    unit_path: Mutex<Vec<String>>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) slow_slots: Arc<Semaphore>,
    /// How many reloads were done; held while one is under way.
    pub(crate) reloads: tokio::sync::Mutex<u64>,
    /// What exclusive units are bound to.
    pub(crate) lease: Lease,
}

impl Driver {
    /// Reads the files that are there.
    fn scan(&self) -> Result<(), CallError> {
        let found = self.files.scan();
        let found = found.map_err(|error| CallError::Lost(format!("directories: {error}")))?;
        for (unit, found) in found {
            self.shared.update(&unit, |entry| {
                // Without its file nobody knows whether it was enabled: its links are looked for.
                let record = found.record.as_ref();
                entry.install = record.is_some_and(|record| record.phase != Phase::Gone);
                entry.observed.record = found.record;
                entry.observed.unreadable = found.unreadable;
                entry.leased = found.leased;
                // What was started under the lease is bound to it, also when its file is lost.
                entry.observed.is_exclusive = found.leased;
                if let Some((hash, text)) = found.file {
                    entry.observed.file = Some(hash);
                    entry.observed.is_exclusive = is_exclusive(&text);
                    entry.observed.body = Some(BodyHash::of_text(&text));
                    entry.install = has_install(&text);
                    entry.simple = is_simple(&text);
                }
            });
        }
        self.shared.lock().scanned = true;
        Ok(())
    }

    /// Notices unit files and links that were removed by hand.
    async fn watch_files(self: Arc<Self>) {
        let mut seen = self.files.changed_at();
        let mut ticks = Ticks::every(LOOK_AT_FILES_EVERY);
        loop {
            // The runtime's clock would wake us twice for each look.
            let ticked = OptionFuture::from(ticks.as_mut().map(Ticks::next)).await;
            if !matches!(ticked, Some(Ok(_))) {
                ticks = None;
                tokio::time::sleep(LOOK_AT_FILES_EVERY).await;
            }
            let now = self.files.changed_at();
            if now != seen {
                seen = now;
                self.find_missing();
            }
        }
    }

    fn find_missing(&self) {
        let is_missing = |unit: &UnitName, observed: &Observed| {
            // A task in flight is about to change the files itself.
            observed.file.is_some() && observed.working.is_none() && !self.files.is_in_place(unit)
        };
        let here: Vec<(UnitName, Observed)> = {
            let state = self.shared.lock();
            let units = state.units.iter();
            units
                .map(|(unit, entry)| (unit.clone(), entry.observed.clone()))
                .collect()
        };
        for (unit, observed) in here {
            if is_missing(&unit, &observed) {
                tracing::warn!(%unit, "its file or its link was removed by hand");
                self.shared.update(&unit, |entry| {
                    if is_missing(&unit, &entry.observed) {
                        entry.observed.file = None;
                    }
                });
            }
        }
    }

    async fn keep_connected(
        self: Arc<Self>,
        transport: Transport,
        mut scanned: Result<(), CallError>,
    ) {
        let mut back_off = FIRST_BACK_OFF;
        let mut away_since = Instant::now();
        loop {
            if scanned.is_err() {
                scanned = self.scan();
            }
            let mut was_connected = false;
            let why = match &scanned {
                Ok(()) => self.connection(&transport, &mut was_connected).await,
                Err(error) => error.clone(),
            };
            if was_connected {
                back_off = FIRST_BACK_OFF;
                away_since = Instant::now();
            }
            let lasting = away_since.elapsed() >= LASTING;
            if self.shared.disconnected(&why, lasting) {
                tracing::error!(error = %why, "systemd cannot be reached");
            }
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(LAST_BACK_OFF);
        }
    }

    /// One connection, from its first to its last message; why it ended.
    async fn connection(self: &Arc<Self>, transport: &Transport, reached: &mut bool) -> CallError {
        let listener = Arc::clone(&self.shared) as _;
        let connected = match connection::connect(transport, listener).await {
            Ok(connected) => connected,
            Err(error) => return error,
        };
        let manager = connected.manager;
        // In its own task: if it were not polled while an answer is awaited, the answer would
        // never come.
        let mut reader = JoinSet::new();
        reader.spawn(signals::read(
            Arc::clone(self),
            manager.clone(),
            connected.messages,
            connected.sender,
        ));
        match self.follow(&manager, &mut reader, reached).await {
            Err(error) => error,
            Ok(()) => CallError::Lost("systemd closed the connection".to_owned()),
        }
    }

    /// Looks at everything, now and whenever that is needed, until the connection ends.
    async fn follow(
        self: &Arc<Self>,
        manager: &Manager,
        reader: &mut JoinSet<()>,
        reached: &mut bool,
    ) -> Result<(), CallError> {
        let path = manager.unit_path().await?;
        *self
            .unit_path
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = path;
        self.look_at_everything(manager).await?;
        self.forget_timers().await;
        self.shared.connected(manager);
        self.shared.lease.notify_one();
        *reached = true;
        tracing::info!("systemd reached");
        loop {
            tokio::select! {
                _ = reader.join_next() => return Ok(()),
                () = manager.fell_silent() => {
                    return Err(CallError::Lost("it leaves calls without an answer".to_owned()));
                }
                () = self.shared.resync.notified() => self.look_at_everything(manager).await?,
            }
        }
    }

    /// Asks for the state of every unit that is here.
    async fn look_at_everything(self: &Arc<Self>, manager: &Manager) -> Result<(), CallError> {
        let names: Vec<String> = {
            let state = self.shared.lock();
            let units = state.units.iter();
            // A record without a file: the file may have been taken away while the unit runs.
            let here = units.filter(|(_, entry)| {
                let record = entry.observed.record.as_ref();
                entry.observed.file.is_some()
                    || entry.observed.unreadable.is_some()
                    || !entry.observed.is_down()
                    || record.is_some_and(|record| record.phase != Phase::Gone)
            });
            here.map(|(unit, _)| unit.as_str().to_owned()).collect()
        };
        for names in names.chunks(NAMES_PER_LISTING) {
            self.look_at(manager, names).await?;
        }
        Ok(())
    }

    pub(crate) fn unit_path(&self) -> Vec<String> {
        let path = self.unit_path.lock();
        path.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_not_taken_for_nothing() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        // In the way of the directories.
        std::fs::write(&run, "").unwrap();
        let config = SystemdConfig::user(root.path(), &run.join("units"), &run, "b1");
        let systemd = Systemd::new(config);
        assert!(systemd.observe_all().is_empty());
        assert!(!systemd.holds_nothing(), "nobody knows what there is");

        std::fs::remove_file(&run).unwrap();
        let read = async {
            while !systemd.holds_nothing() {
                tokio::time::sleep(FIRST_BACK_OFF).await;
            }
        };
        let bound = std::time::Duration::from_secs(600);
        tokio::time::timeout(bound, read).await.unwrap();
    }
}
