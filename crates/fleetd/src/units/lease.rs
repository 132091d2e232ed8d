//! The lease of this machine's exclusive units, which systemd itself enforces.
//!
//! ```text
//! fleet-lease.target            reached while the lease lives; exclusive units are stopped with it
//! fleet-lease@DEADLINE.timer    elapses at that time, a timer that systemd makes up
//! fleet-lease@DEADLINE.service  started by it, ends the target (Conflicts=)
//! ```
//!
//! Each acknowledged keepalive makes another timer, with a later time, and takes away the one before.
//! The time is absolute: however long fleetd or its message is delayed, the timer elapses when this
//! machine's presence may end, counted from the sending of the keepalive. When fleetd is killed,
//! stands still or cannot reach its store, the last timer stays, and does its work. It counts in
//! CLOCK_MONOTONIC, as systemd's timers do: a computer that was suspended stops its units later.
//!
//! A unit that was stopped with the lease is remembered as stopped by fleet, so that it is started
//! again if it is still wanted here; one that ended before is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::agent::Phase;
use fleet_core::name::UnitName;
use zbus::OwnedObjectPath;

use super::dbus::{CallError, Manager, Row, UNIT, unit_object};
use super::files::LEASE_TARGET;
use super::state::Entry;
use super::systemd::Driver;
use crate::clock;

/// The pattern of all timers.
const TIMERS: &str = "fleet-lease@*.timer";

/// systemd is given that long to start or stop what is its own matter alone.
const JOB_TIMEOUT: Duration = Duration::from_secs(5);

/// The two files, by their names below systemd's directory of this boot.
const FILES: [(&str, &str); 2] = [
    (
        LEASE_TARGET,
        "# Written by fleet: see Exclusive= in fleet.unit(5).\n\
         [Unit]\nDescription=This machine is present in its fleet\n",
    ),
    (
        "fleet-lease@.service",
        "# Written by fleet: see Exclusive= in fleet.unit(5).\n\
         [Unit]\nDescription=End of this machine's lease\nDefaultDependencies=no\n\
         Conflicts=fleet-lease.target\n\
         [Service]\nType=oneshot\nExecStart=/bin/true\n",
    ),
];

/// Whether fleet needs a name for itself.
pub(crate) fn is_lease_unit(unit: &UnitName) -> bool {
    unit.as_str() == LEASE_TARGET || unit.prefix() == "fleet-lease" && unit.as_str().contains('@')
}

/// What is known of the lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The newest end that was given, in time since boot.
    until: Mutex<Option<Duration>>,
    /// The end was set since this fleetd began.
    is_set: AtomicBool,
    /// No unit here is exclusive, and nothing of the lease is left in systemd: what is new is told.
    at_rest: AtomicBool,
    /// Held by whoever changes it in systemd.
    held: tokio::sync::Mutex<Held>,
}

/// What stands in systemd.
#[derive(Debug, Default)]
struct Held {
    /// The timer that counts, and its end in time since boot. None: not known.
    timer: Option<(UnitName, Duration)>,
    /// When a timer that counted before has ended the target, or may have.
    ended_at: Option<Duration>,
    /// Timers that are still to be taken away. None: not known.
    older: Option<Vec<String>>,
}

impl Held {
    /// The target stands. What ended so long ago would have taken it along by now, had it not been
    /// taken away just before: it has ended nothing.
    fn target_stands(&mut self, now: Duration) {
        self.ended_at = self.ended_at.filter(|at| *at + JOB_TIMEOUT > now);
    }
}

impl Lease {
    /// The end of the lease was set by this fleetd.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    fn until(&self) -> Option<Duration> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// The machine's presence is certain until then.
    pub(crate) fn lease_until(&self, until: Duration) {
        let mut known = self
            .lease
            .until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(until);
        drop(known);
        // Looking through all units twice a second would be most of what an idle machine does.
        if !self.lease.at_rest.load(Ordering::SeqCst) {
            self.shared.lease.notify_one();
        }
    }

    /// Keeps exclusive units that long, though nobody renews the lease meanwhile.
    pub(crate) async fn lease_for_absence(&self, until: Duration) -> bool {
        let Some(manager) = self.shared.lock().manager.clone() else {
            return false;
        };
        let mut held = self.lease.held.lock().await;
        match self.push(&manager, &mut held, until).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the lease was not prolonged: exclusive units will stop");
                false
            }
        }
    }

    /// Whatever was known of the timers is of a systemd before.
    pub(crate) async fn forget_timers(&self) {
        *self.lease.held.lock().await = Held::default();
    }

    /// Pushes the lease forward while exclusive units run, and takes it away when there is none.
    pub(crate) async fn keep_lease(self: Arc<Self>) {
        loop {
            self.shared.lease.notified().await;
            let Some(manager) = self.shared.lock().manager.clone() else {
                continue; // Looked at when it is there again.
            };
            match self.review_lease(&manager).await {
                Ok(()) | Err(CallError::Lost(_)) => {}
                // The next keepalive brings the next attempt.
                Err(error) => tracing::warn!(%error, "the lease of the exclusive units"),
            }
        }
    }

    async fn review_lease(&self, manager: &Manager) -> Result<(), CallError> {
        // First the lock: a unit that enters the lease meanwhile must be seen.
        let mut held = self.lease.held.lock().await;
        let (any, up, ended) = {
            let state = self.shared.lock();
            let mut exclusive = state
                .units
                .values()
                .filter(|entry| entry.observed.is_exclusive);
            let up = exclusive.clone().any(|entry| !entry.observed.is_down());
            (
                exclusive.next().is_some(),
                up,
                state.units.values().any(Entry::may_have_ended),
            )
        };
        self.lease.at_rest.store(false, Ordering::SeqCst);
        if ended {
            self.look_into_ends(manager, &mut held).await?;
        }
        match self.lease.until() {
            Some(until) if up => self.push(manager, &mut held, until).await,
            _ if !any => {
                self.end_lease(manager, &mut held).await?;
                // An exclusive unit that has come meanwhile has told so, and this runs again.
                self.lease.at_rest.store(!ended, Ordering::SeqCst);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Before an exclusive unit is started: the lease lives, and systemd will end it in time.
    pub(crate) async fn enter_lease(
        &self,
        manager: &Manager,
        unit: &UnitName,
    ) -> Result<(), CallError> {
        let transient = |error: std::io::Error| CallError::Transient(error.to_string());
        let over = || CallError::Transient("this machine's lease has just ended".to_owned());
        let until = self.lease.until().ok_or_else(over)?;
        let mut held = self.lease.held.lock().await;
        self.files.write_lease_files(&FILES).map_err(transient)?;
        self.push(manager, &mut held, until).await?;
        let Some((timer, _)) = held.timer.clone() else {
            return Err(over());
        };
        if !self.lease_stands(manager).await? {
            // What went down with the lease before is known for that from now on.
            self.look_into_ends(manager, &mut held).await?;
            let name = UnitName::parse(LEASE_TARGET)
                .map_err(|error| CallError::Permanent(error.to_string()))?;
            let started = self.lease_job(&name, manager.start_unit(LEASE_TARGET));
            if started.await? != "done" {
                return Err(over());
            }
            held.ended_at = None;
        } else {
            held.target_stands(clock::boottime());
        }
        // A timer that still waits now will find the target.
        let timer = unit_object(timer.as_str());
        let waits: String = manager.property(&timer, UNIT, "SubState").await?;
        if waits != "waiting" {
            return Err(over());
        }
        self.files.remember_leased(unit).map_err(transient)?;
        self.shared.update(unit, |entry| {
            entry.leased = true;
            entry.down_at = None;
        });
        Ok(())
    }

    /// Sees to it that the lease ends then and no earlier. A later end that this fleetd has set stays.
    async fn push(
        &self,
        manager: &Manager,
        held: &mut Held,
        until: Duration,
    ) -> Result<(), CallError> {
        let before = held.timer.as_ref().map(|(_, end)| *end);
        if held.timer.as_ref().is_none_or(|(_, set)| *set < until) {
            let made = self.make_timer(manager, until).await;
            if made.is_err() {
                // It may be there all the same, and would end a lease that is renewed since.
                held.older = None;
            }
            let timer = made?;
            let before = held.timer.replace((timer, until));
            if let (Some(older), Some((before, _))) = (&mut held.older, before) {
                older.push(before.as_str().to_owned());
            }
        }
        let Some((timer, _)) = &held.timer else {
            return Ok(());
        };
        let older = match held.older.take() {
            Some(older) => older,
            // Those of a fleetd before.
            None => {
                let names = manager.names_like(TIMERS).await?.into_iter();
                names.filter(|name| name != timer.as_str()).collect()
            }
        };
        let mut left = Vec::new();
        for name in older {
            match manager.stop_unit(&name).await {
                Ok(_) | Err(CallError::NoSuchUnit(_)) => {}
                Err(error) => {
                    tracing::debug!(timer = name, %error, "a timer of the lease stays for now");
                    left.push(name);
                }
            }
        }
        let all_gone = left.is_empty();
        held.older = Some(left);
        // Whoever stood still may take the place of a timer that has done its work already.
        if let Some(end) = before.filter(|end| *end <= clock::boottime()) {
            held.ended_at.get_or_insert(end);
        }
        if all_gone && !self.lease.is_set.swap(true, Ordering::Relaxed) {
            self.say_that_it_is_set();
        }
        Ok(())
    }

    fn say_that_it_is_set(&self) {
        let exclusive: Vec<UnitName> = {
            let state = self.shared.lock();
            let units = state.units.iter();
            let exclusive = units.filter(|(_, entry)| entry.observed.is_exclusive);
            exclusive.map(|(unit, _)| unit.clone()).collect()
        };
        for unit in exclusive {
            self.shared
                .update(&unit, |entry| entry.observed.is_lease_set = true);
        }
    }

    async fn make_timer(&self, manager: &Manager, until: Duration) -> Result<UnitName, CallError> {
        let over = || CallError::Transient("this machine's lease has just ended".to_owned());
        let left = until.checked_sub(clock::boottime()).ok_or_else(over)?;
        let at = clock::monotonic().saturating_add(left).as_micros();
        let at = u64::try_from(at).map_err(|_| over())?;
        let elapses = at.checked_sub(manager.began_at().await?).ok_or_else(over)?;
        let name = UnitName::parse(&format!("fleet-lease@{at}.timer"))
            .map_err(|error| CallError::Permanent(error.to_string()))?;
        let asked = manager.start_timer(name.as_str(), elapses, "End of this machine's lease");
        match self.lease_job(&name, asked).await?.as_str() {
            "done" => Ok(name),
            other => Err(CallError::Transient(format!(
                "systemd did not start {name}: {other}"
            ))),
        }
    }

    /// Whether the target is reached and stays so. While it waits for the units that are stopped with
    /// it, it is still called active, and has a job.
    async fn lease_stands(&self, manager: &Manager) -> Result<bool, CallError> {
        let (rows, _) = manager.list_by_names(&[LEASE_TARGET.to_owned()]).await?;
        let stands = |row: &Row| row.active == "active" && row.job.is_none();
        Ok(rows.iter().any(stands))
    }

    /// Exclusive units that are down or going down: whoever does so with the lease is taken for stopped
    /// by fleet.
    async fn look_into_ends(&self, manager: &Manager, held: &mut Held) -> Result<(), CallError> {
        let mut ended: Vec<(UnitName, bool, Option<Duration>)> = {
            let state = self.shared.lock();
            let units = state.units.iter();
            let ended = units.filter(|(_, entry)| entry.may_have_ended());
            ended
                .map(|(unit, entry)| (unit.clone(), entry.observed.is_down(), entry.down_at))
                .collect()
        };
        if ended.is_empty() {
            return Ok(());
        }
        let stands = self.lease_stands(manager).await?;
        if stands {
            held.target_stands(clock::boottime());
        }
        // Under a lease that stands it goes down by itself, and is looked into when it is down.
        ended.retain(|(_, is_down, _)| *is_down || !stands);
        for (unit, is_down, down_at) in ended {
            let with_the_lease = match (down_at, &held.timer) {
                (Some(down_at), Some((_, until))) if is_down => {
                    let ended_at = held.ended_at.filter(|_| !stands);
                    ended_at.unwrap_or(*until) <= down_at
                }
                // It is going down, or went down while nobody looked.
                _ => !stands,
            };
            let (record, is_so) = self.shared.update(&unit, |entry| {
                let is_so = entry.may_have_ended();
                entry.leased = false;
                (entry.observed.record.clone(), is_so)
            });
            if let (true, true, Some(mut record)) = (is_so, with_the_lease, record) {
                tracing::warn!(%unit, "the unit was stopped with this machine's lease");
                record.phase = Phase::Stopping;
                if let Err(error) = self.files.write_record(&unit, &record) {
                    tracing::warn!(%unit, %error, "launch record cannot be written");
                }
                self.shared
                    .update(&unit, |entry| entry.observed.record = Some(record));
            }
            if let Err(error) = self.files.forget_leased(&unit) {
                tracing::warn!(%unit, %error, "its file below leased/ cannot be removed");
            }
        }
        Ok(())
    }

    /// No exclusive unit is here any more: nothing of the lease is left.
    async fn end_lease(&self, manager: &Manager, held: &mut Held) -> Result<(), CallError> {
        let nothing = held.timer.is_none() && held.older.as_ref().is_some_and(Vec::is_empty);
        if nothing {
            return Ok(());
        }
        if !self.files.has_lease_files(&FILES) {
            // Remembered, so that a machine without exclusive units does not look again.
            held.older = Some(Vec::new());
            return Ok(());
        }
        for name in manager.names_like(TIMERS).await? {
            match manager.stop_unit(&name).await {
                Ok(_) | Err(CallError::NoSuchUnit(_)) => {}
                Err(error) => return Err(error),
            }
        }
        match manager.stop_unit(LEASE_TARGET).await {
            Ok(_) | Err(CallError::NoSuchUnit(_)) => {}
            Err(error) => return Err(error),
        }
        *held = Held {
            older: Some(Vec::new()),
            ..Held::default()
        };
        let removed = self.files.remove_lease_files(&FILES);
        removed.map_err(|error| CallError::Transient(error.to_string()))
    }

    /// A job of the lease's own units, which waits behind no other.
    async fn lease_job(
        &self,
        unit: &UnitName,
        ask: impl Future<Output = Result<OwnedObjectPath, CallError>>,
    ) -> Result<String, CallError> {
        let wait = self.shared.wait_for_job(unit, None);
        match ask.await {
            Ok(job) => self.shared.job_is(unit, wait.id, job.as_str().to_owned()),
            Err(error) => {
                self.shared.forget_job(unit, wait.id);
                return Err(error);
            }
        }
        match tokio::time::timeout(JOB_TIMEOUT, wait.told).await {
            Ok(told) => told.map_err(|_| CallError::Lost("a job was under way".to_owned())),
            Err(_) => {
                self.shared.forget_job(unit, wait.id);
                Err(CallError::Transient(format!(
                    "systemd did not start {unit} within {} s",
                    JOB_TIMEOUT.as_secs()
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timer that was taken away at the moment at which it was due may have ended the target, or
    /// not. When it did not, that is forgotten; until it is certain it is not.
    #[test]
    fn an_end_that_has_ended_nothing_is_forgotten() {
        let second = Duration::from_secs(1);
        let at = 100 * second;
        let mut held = Held {
            ended_at: Some(at),
            ..Held::default()
        };
        held.target_stands(at + second);
        assert_eq!(held.ended_at, Some(at), "it may be on its way down");
        held.target_stands(at + JOB_TIMEOUT);
        assert_eq!(held.ended_at, None);
    }
}
