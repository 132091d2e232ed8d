//! Follows what systemd says, and looks up what its signals leave out.

use std::sync::Arc;

use fleet_core::name::UnitName;
use futures_util::StreamExt;
use zbus::MessageStream;
use zbus::message::{Sequence, Type};

use super::dbus::{self, CallError, Manager, Row, Signal, UNIT, unit_object};
use super::failure;
use super::systemd::Driver;

/// Questions in flight at once; a bus allows 128 pending answers.
pub(crate) const CALLS_IN_FLIGHT: usize = 64;

/// Takes in all signals until the connection ends. Must always be polled.
pub(crate) async fn read(
    driver: Arc<Driver>,
    manager: Manager,
    mut messages: MessageStream,
    sender: Option<String>,
) {
    while let Some(message) = messages.next().await {
        let Ok(message) = message else {
            return;
        };
        if message.message_type() != Type::Signal {
            continue;
        }
        if let Some(sender) = &sender {
            let header = message.header();
            if header.sender().is_none_or(|from| from.as_str() != sender) {
                continue;
            }
        }
        let Some(signal) = dbus::signal(&message, |path| driver.shared.is_own_path(path)) else {
            continue;
        };
        if let Signal::Reloading(begins) = signal {
            manager.reloading(begins);
        }
        for unit in driver.shared.signal(signal, message.recv_position()) {
            driver.spawn_look_up(&manager, unit);
        }
    }
}

impl Driver {
    /// Asks for the state of these units, loading those that are not in systemd's memory.
    pub(crate) async fn look_at(
        self: &Arc<Self>,
        manager: &Manager,
        names: &[String],
    ) -> Result<(), CallError> {
        let (rows, position) = manager.list_by_names(names).await?;
        let started: Vec<UnitName> = rows
            .iter()
            .filter(|row| row.active != "inactive")
            .filter_map(|row| UnitName::parse(&row.name).ok())
            .collect();
        // The ids first: a failure is looked up by the id of its invocation.
        futures_util::stream::iter(started)
            .for_each_concurrent(CALLS_IN_FLIGHT, |unit| async move {
                self.look_at_invocation(manager, &unit).await;
            })
            .await;
        self.take_rows(manager, rows, position);
        Ok(())
    }

    /// Asks for what systemd's signals leave out of a unit that is being started: whether it could
    /// load it, and its description.
    pub(crate) async fn describe(&self, manager: &Manager, unit: &UnitName) {
        let names = [unit.as_str().to_owned()];
        match manager.list_by_names(&names).await {
            Ok((rows, _)) => {
                if let Some(row) = rows.into_iter().find(|row| row.name == unit.as_str()) {
                    self.shared
                        .update(unit, |entry| entry.take_description(row));
                }
            }
            // It is asked again when the start is done.
            Err(error) => tracing::debug!(%unit, %error, "its description is not known yet"),
        }
    }

    /// The same for a unit that was just started: all is asked at once, since whoever waits for the
    /// start waits for the answers.
    pub(crate) async fn look_at_started(
        self: &Arc<Self>,
        manager: &Manager,
        unit: &UnitName,
    ) -> Result<(), CallError> {
        let names = [unit.as_str().to_owned()];
        let (listed, ()) = tokio::join!(
            manager.list_by_names(&names),
            self.look_at_invocation(manager, unit),
        );
        let (rows, position) = listed?;
        self.take_rows(manager, rows, position);
        Ok(())
    }

    fn take_rows(self: &Arc<Self>, manager: &Manager, rows: Vec<Row>, position: Sequence) {
        let (failed, orphans) = self.shared.lock().take_rows(rows, position);
        self.shared.changed.notify_one();
        for unit in failed {
            self.spawn_look_up(manager, unit);
        }
        for (unit, job) in orphans {
            tokio::spawn(Arc::clone(self).boxed_await_orphan(manager.clone(), unit, job));
        }
    }

    /// Asks for the id of a unit's last invocation. A unit that systemd has dropped has none.
    pub(crate) async fn look_at_invocation(&self, manager: &Manager, unit: &UnitName) {
        let path = unit_object(unit.as_str());
        if let Ok(id) = manager
            .property::<Vec<u8>>(&path, UNIT, "InvocationID")
            .await
            && !id.is_empty()
        {
            self.shared.update(unit, |entry| {
                entry.observed.invocation_id = dbus::hex(id);
            });
        }
    }

    /// Looks up why a unit has failed, in the background; one look-up of a unit at a time, however
    /// often it fails meanwhile: the one that is under way then looks again.
    pub(crate) fn spawn_look_up(self: &Arc<Self>, manager: &Manager, unit: UnitName) {
        let (driver, manager) = (Arc::clone(self), manager.clone());
        let begun = self.shared.update(&unit, |entry| match entry.looking_up {
            Some(_) => None,
            None => {
                entry.looking_up = Some(entry.look_up_id);
                entry.looking_up
            }
        });
        let Some(mine) = begun else {
            return;
        };
        tokio::spawn(async move { while driver.look_up(&manager, &unit, mine).await {} });
    }

    /// One look-up of the turn that began with the look-up `mine`; whether another is wanted.
    async fn look_up(&self, manager: &Manager, unit: &UnitName, mine: u64) -> bool {
        let look_up_id = self.shared.update(unit, |entry| entry.look_up_id);
        self.look_at_invocation(manager, unit).await;
        let id = self.shared.update(unit, |entry| {
            if entry.look_up_id == look_up_id {
                entry.looked_up = Some(entry.observed.invocation_id.clone());
            }
            entry.observed.invocation_id.clone()
        });
        let failure = failure::look_up(manager, unit, &id, self.user).await;
        self.shared.update(unit, |entry| {
            // Another connection has a turn of its own.
            if entry.looking_up != Some(mine) {
                return false;
            }
            // It may have been started again meanwhile.
            let is_newest = entry.look_up_id == look_up_id;
            if entry.observed.failure_pending && is_newest {
                entry.observed.failure = Some(failure);
                entry.observed.failure_pending = false;
            }
            let again = entry.observed.failure_pending;
            entry.looking_up = again.then_some(mine);
            again
        })
    }
}
