//! The seam to whatever runs units: systemd in earnest, a scripted fake in tests.
//!
//! A manager knows what is on this machine ([`UnitManager::observe`]), carries out tasks in the
//! background ([`UnitManager::apply`]) and says when something has changed
//! ([`UnitManager::changed`]). What is to be done is decided by `fleet_core::agent`; a manager
//! decides nothing but how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use fleet_api::v2::SystemdView;
use fleet_core::agent::{Observed, Task};
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use tokio::process::Command;
use tokio::sync::watch;

mod connection;
mod dbus;
mod failure;
mod files;
pub(crate) mod fuzz;
mod inspect;
mod journal;
mod last_words;
mod lease;
mod load;
mod logind;
mod noise;
mod private_socket;
mod properties;
mod signals;
mod start;
mod state;
pub mod systemd;
mod work;

pub(crate) use files::is_exclusive;
pub use journal::JournalQuery;
#[cfg(test)]
pub(crate) use journal::as_child;
pub use systemd::{Systemd, SystemdConfig};

/// What has changed since it was last asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// These units have changed; look at them again.
    pub units: BTreeSet<UnitName>,
    /// Whether systemd can be reached has changed; look at everything again.
    pub everything: bool,
}

/// Runs units. All methods but [`UnitManager::changed`] return at once and do no I/O.
#[async_trait]
pub trait UnitManager: Send + Sync + 'static {
    /// What is on this machine of one unit.
    fn observe(&self, unit: &UnitName) -> Observed;

    /// Every unit of fleet's on this machine.
    fn observe_all(&self) -> BTreeMap<UnitName, Observed>;

    /// Whether it is certain that no unit of fleet's is on this machine. Where one looked in vain,
    /// nobody knows what there is.
    fn holds_nothing(&self) -> bool {
        self.observe_all().is_empty()
    }

    /// Whether the directories of fleet's units have been read, so that all that is here is known.
    fn knows_what_is_here(&self) -> bool {
        true
    }

    /// Begins tasks; those of one unit are done in the given order. Until they are done the unit
    /// is observed as `working`, and afterwards as changed. A failure is found in
    /// `Observed::refused` or `Observed::attempt`. A `Stop` may be given while a start is in
    /// flight and overtakes it; otherwise a unit that is `working` takes no task.
    fn apply(&self, tasks: Vec<Task>);

    /// Why systemd cannot be reached at present; None when all is well. While it cannot, nothing
    /// observed is certain.
    fn trouble(&self) -> Option<String>;

    /// Whether the machine itself is going down, and all units with it.
    async fn is_shutting_down(&self) -> bool;

    /// Until then (time since boot) this machine's presence is certain. Exclusive units are bound to
    /// that: whatever becomes of fleetd, they are stopped then, unless a later time was given. By
    /// itself a manager knows no exclusive units.
    fn lease_until(&self, _until: Duration) {}

    /// fleetd ends, and the cluster leaves the units here until then: exclusive units are kept so
    /// long. Returns whether that could be done.
    async fn lease_for_absence(&self, _until: Duration) -> bool {
        false
    }

    /// For how long a shutdown of the machine waits that was announced; None: there is none. Nobody
    /// announces any where there is no logind.
    fn shutdown(&self) -> watch::Receiver<Option<Duration>> {
        watch::Sender::default().subscribe()
    }

    /// What was announced need wait no longer.
    fn let_shutdown_go_on(&self) {}

    /// What systemd says of a unit at this moment, also of one that is not fleet's; for people.
    ///
    /// # Errors
    /// Why it cannot be asked, in words.
    async fn inspect(&self, unit: &UnitName) -> Result<SystemdView, String> {
        Err(format!("nobody here can say how {unit} is"))
    }

    /// What prints lines of the journal of this `machine`: JSON objects, one a line. Not yet running; it ends
    /// with whoever holds it.
    fn journal(&self, query: &JournalQuery, machine: &MachineId) -> Command {
        journal::journalctl(query, machine, false)
    }

    /// Waits until something has changed. One caller; it may be dropped at any time.
    async fn changed(&self) -> Changes;
}
