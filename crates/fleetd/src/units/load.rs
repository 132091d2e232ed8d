//! Puts unit files in place, by the batch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fleet_core::agent::LaunchRecord;
use fleet_core::body::BodyHash;
use fleet_core::name::UnitName;
use fleet_core::requirements::not_loadable;

use super::dbus::{CallError, Manager};
use super::failure;
use super::files::{has_install, is_exclusive, is_simple, why_not_bound};
use super::lease::is_lease_unit;
use super::state::Entry;
use super::systemd::Driver;
use super::work::{InMemory, in_memory};

/// One file to write.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) unit: UnitName,
    pub(crate) id: u64,
    pub(crate) record: LaunchRecord,
    pub(crate) text: Arc<str>,
}

impl Driver {
    /// Writes the files of a batch, enables what wants it, and reloads systemd once if it must.
    /// Units of `starting` are started next by the caller; the tasks of the others end here.
    pub(crate) async fn load(
        self: &Arc<Self>,
        manager: &Manager,
        loads: Vec<Load>,
        starting: &BTreeSet<UnitName>,
    ) {
        if loads.is_empty() {
            return;
        }
        let n_reloads = *self.reloads.lock().await;
        let names = names_of(&loads);
        let before = match in_memory(manager, names).await {
            Ok(before) => before,
            Err(error) => return self.all_failed(&loads, &error),
        };
        // Half of them are not there, and this is asked for each unit.
        let mut unit_path = self.unit_path();
        unit_path.retain(|directory| Path::new(directory).exists());
        let mut accepted = Vec::with_capacity(loads.len());
        for load in loads {
            let known = before.get(load.unit.as_str());
            let why_not = why_not_bound(&load.text);
            match why_not.or_else(|| self.why_not(&load.unit, &unit_path, known)) {
                Some(why) => self.refuse_untouched(&load, why),
                None => accepted.push(load),
            }
        }
        let let_go = self.disable_changed(manager, &accepted).await;
        let mut written = Vec::with_capacity(accepted.len());
        for load in accepted {
            // A start remembers its intent next, over whatever is there.
            let remember = !starting.contains(&load.unit);
            if let Err(error) = self.write(&load, remember) {
                self.attempt_failed(&load.unit, load.id, &load.record, &error.to_string());
            } else {
                written.push(load);
            }
        }
        if let Err(error) = self.files.touch_links() {
            tracing::debug!(%error, "time of the directory not set");
        }
        let mut needs_reload = match self.is_stale(manager, &written, &before).await {
            Ok(stale) => stale,
            Err(error) => return self.all_failed(&written, &error),
        };
        let (written, pulled_in) = self.enable(manager, written).await;
        needs_reload |= pulled_in | let_go;
        if needs_reload && let Err(error) = self.reload_since(manager, n_reloads).await {
            return self.all_failed(&written, &error);
        }
        let (_, only_loaded): (Vec<Load>, Vec<Load>) = written
            .into_iter()
            .partition(|load| starting.contains(&load.unit));
        self.check_loaded(manager, only_loaded).await;
    }

    /// Why this machine cannot take a unit of this name.
    fn why_not(
        &self,
        unit: &UnitName,
        unit_path: &[String],
        known: Option<&InMemory>,
    ) -> Option<String> {
        if let Some(path) = self.files.clash(unit, unit_path) {
            return Some(format!(
                "this machine has a {unit} of its own: {}",
                path.display()
            ));
        }
        if let Some(known) = known.filter(|known| known.load != "not-found")
            && let Some(origin) = self.origin(unit, &known.fragment)
        {
            return Some(format!("this machine has a {unit} of its own: {origin}"));
        }
        if is_lease_unit(unit) {
            return Some(format!("{unit} is a name that fleet uses itself"));
        }
        not_loadable(unit.unit_type())
    }

    /// Where a unit in systemd's memory comes from, if it is not fleet's.
    fn origin<'a>(&self, unit: &UnitName, fragment: &'a str) -> Option<&'a str> {
        let path = Path::new(fragment);
        if path == self.files.link(unit) || path == self.files.unit(unit) {
            return None;
        }
        match fragment {
            // A link of ours whose file went away.
            "" if self.files.is_own_link(&self.files.link(unit), unit) => None,
            "" => Some("made by systemd itself"),
            fragment => Some(fragment),
        }
    }

    /// Disables those whose contents change, while systemd still reads the old ones: the links of
    /// `[Install]` options that are no longer there would stay for ever. Also says whether a
    /// unit in memory must learn that it no longer pulls in another one.
    async fn disable_changed(&self, manager: &Manager, loads: &[Load]) -> bool {
        let enabled: Vec<String> = {
            let state = self.shared.lock();
            let changes = |load: &&Load| {
                let entry = state.units.get(&load.unit);
                entry.is_some_and(|e| e.install && e.observed.file != Some(load.record.hash))
            };
            let enabled = loads.iter().filter(changes);
            enabled.map(|load| load.unit.as_str().to_owned()).collect()
        };
        let mut let_go = false;
        for link in self.disable(manager, &enabled).await {
            let_go = let_go || must_learn(manager, &link).await;
        }
        let_go
    }

    fn write(&self, load: &Load, remember: bool) -> std::io::Result<()> {
        self.files.write_unit(&load.unit, &load.text)?;
        if remember {
            self.files.write_record(&load.unit, &load.record)?;
        }
        self.shared.update(&load.unit, |entry| {
            entry.observed.file = Some(load.record.hash);
            entry.observed.is_exclusive = is_exclusive(&load.text);
            entry.observed.is_lease_set = self.lease.is_set();
            entry.observed.body = Some(BodyHash::of_text(&load.text));
            entry.observed.record = Some(load.record.clone());
            entry.install = has_install(&load.text);
            entry.simple = is_simple(&load.text);
        });
        Ok(())
    }

    /// Whether systemd keeps an old text of one of these in memory.
    async fn is_stale(
        &self,
        manager: &Manager,
        written: &[Load],
        before: &BTreeMap<String, InMemory>,
    ) -> Result<bool, CallError> {
        let known = |load: &&Load| before.contains_key(load.unit.as_str());
        let known: Vec<String> = written
            .iter()
            .filter(known)
            .map(|load| load.unit.as_str().to_owned())
            .collect();
        if known.is_empty() {
            return Ok(false);
        }
        let failed: Vec<String> = known
            .iter()
            .filter(|unit| before.get(*unit).is_some_and(|b| b.active == "failed"))
            .cloned()
            .collect();
        // A failed unit stays in memory with its old text until its failure is forgotten.
        self.reset_failed(manager, &failed).await?;
        let now = in_memory(manager, known).await?;
        Ok(now
            .values()
            .any(|now| now.needs_reload || matches!(now.load.as_str(), "bad-setting" | "error")))
    }

    /// Enables those with `[Install]` options for this boot. What systemd will not enable is
    /// refused. Also says whether a unit in memory must learn that it pulls in another one.
    async fn enable(self: &Arc<Self>, manager: &Manager, written: Vec<Load>) -> (Vec<Load>, bool) {
        let mut kept = Vec::with_capacity(written.len());
        let mut pulled_in = false;
        for load in written {
            if !has_install(&load.text) {
                kept.push(load);
                continue;
            }
            let path = self.files.unit(&load.unit);
            match manager.enable(&path.to_string_lossy()).await {
                Ok(Some(links)) => {
                    for link in links {
                        pulled_in = pulled_in || must_learn(manager, &link).await;
                    }
                    kept.push(load);
                }
                Ok(None) => {
                    let why = format!(
                        "Failed to enable systemd unit {}: its [Install] section says nothing to \
                         enable it by (WantedBy=, RequiredBy= or Alias=)",
                        load.unit
                    );
                    self.refuse(manager, &load.unit, load.id, &load.record, why)
                        .await;
                }
                Err(CallError::Transient(why) | CallError::Lost(why)) => {
                    self.attempt_failed(&load.unit, load.id, &load.record, &why);
                }
                Err(error) => {
                    let why = format!("Failed to enable systemd unit {}: {error}", load.unit);
                    self.refuse(manager, &load.unit, load.id, &load.record, why)
                        .await;
                }
            }
        }
        (kept, pulled_in)
    }

    /// Ends the tasks of units that are not started: systemd reads them now and says if it can.
    async fn check_loaded(self: &Arc<Self>, manager: &Manager, loads: Vec<Load>) {
        if loads.is_empty() {
            return;
        }
        let names = names_of(&loads);
        if let Err(error) = self.look_at(manager, &names).await {
            return self.all_failed(&loads, &error);
        }
        for load in loads {
            let state = self
                .shared
                .update(&load.unit, |entry| entry.observed.load.clone());
            if matches!(state.as_str(), "bad-setting" | "error" | "masked") {
                // The journal may take seconds to say why, and the next batch waits for this one.
                let (driver, manager) = (Arc::clone(self), manager.clone());
                tokio::spawn(async move {
                    let answer = format!("systemd cannot load it ({state})");
                    let why = failure::not_loaded(&load.unit, &answer, driver.user).await;
                    driver
                        .refuse(&manager, &load.unit, load.id, &load.record, why)
                        .await;
                });
            } else {
                self.shared
                    .finish(&load.unit, load.id, Entry::attempts_over);
            }
        }
    }

    /// Refuses a name before anything of it was touched.
    fn refuse_untouched(&self, load: &Load, why: String) {
        tracing::warn!(unit = %load.unit, reason = %why, "unit refused");
        self.shared.finish(&load.unit, load.id, |entry| {
            entry.attempts_over();
            entry.observed.refused = Some((load.record.decision, why));
        });
    }

    fn all_failed(&self, loads: &[Load], error: &CallError) {
        // A lost connection has ended all tasks; they are planned anew.
        for load in loads {
            self.attempt_failed(&load.unit, load.id, &load.record, &error.to_string());
        }
    }
}

fn names_of(loads: &[Load]) -> Vec<String> {
    let names = loads.iter().map(|load| load.unit.as_str().to_owned());
    names.collect()
}

/// Whether the unit into whose `.wants/` a link was put is in memory and may yet act on it. A
/// target that is reached does not: it pulls in units only when it is started again.
async fn must_learn(manager: &Manager, link: &str) -> bool {
    let directory = Path::new(link).parent().and_then(Path::file_name);
    let Some(puller) = directory.and_then(|name| {
        let name = name.to_str()?;
        [".wants", ".requires", ".upholds"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
    }) else {
        return false;
    };
    let found = in_memory(manager, vec![puller.to_owned()]).await;
    match found {
        Ok(found) => found
            .get(puller)
            .is_some_and(|found| !(puller.ends_with(".target") && found.active == "active")),
        Err(_) => true,
    }
}
