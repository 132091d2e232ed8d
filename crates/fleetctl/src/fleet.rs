//! What fleetctl asks of a cluster, whatever its fleetd speaks: v2 where there is one, v1 of an
//! original fleetd otherwise. Commands see one shape, that of v2.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Poll;

use fleet_api::client::{Client, Error};
use fleet_api::v2::{
    BatchAnswer, BatchRequest, MAX_PAGE, MachineChange, MachineUnit, MachineView, RowPage,
    UnitListing, UnitRow, UnitView,
};
use fleet_core::glob::Glob;
use fleet_core::unit_file::UnitFile;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ui::Ui;

mod from_v1;

pub(crate) use from_v1::options_of;

/// Up to so many units are asked for one by one; more are picked out of listings.
const MAX_SINGLE_LOOKUPS: usize = 8;

/// Smallest page of a listing: a request costs as much as some hundred units.
const MIN_PAGE: usize = 200;

/// What follows every character that a unit name may have.
const AFTER_ALL_NAME_CHARACTERS: char = '\u{7f}';

/// A cluster, by way of one fleetd.
pub(crate) struct Fleet<'a> {
    pub(crate) client: Client,
    pub(crate) ui: &'a Ui,
    /// Unknown until the first answer.
    speaks_v2: Cell<Option<bool>>,
    /// Ctrl-C, from the first wish on.
    interrupts: RefCell<Option<Signal>>,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(client: Client, ui: &'a Ui) -> Fleet<'a> {
        Fleet {
            client,
            ui,
            speaks_v2: Cell::new(None),
            interrupts: RefCell::new(None),
        }
    }

    /// From now on Ctrl-C does not end the process but is kept until somebody asks for it.
    pub(crate) fn catch_interrupts(&self) {
        let mut interrupts = self.interrupts.borrow_mut();
        if interrupts.is_none() {
            // Without it Ctrl-C ends the process, and the wishes stand, too.
            *interrupts = signal(SignalKind::interrupt()).ok();
        }
    }

    /// Returns when Ctrl-C is pressed, or has been since it is caught.
    pub(crate) async fn interrupted(&self) {
        std::future::poll_fn(|cx| match self.interrupts.borrow_mut().as_mut() {
            Some(interrupts) => interrupts.poll_recv(cx).map(drop),
            None => Poll::Pending,
        })
        .await;
    }

    /// It is known by now that this fleetd has no v2.
    pub(crate) fn speaks_only_v1(&self) -> bool {
        self.speaks_v2.get() == Some(false)
    }

    /// All units, in byte order of their names.
    pub(crate) async fn units(&self) -> Result<Vec<UnitView>, Error> {
        if let Some(units) = self.try_v2(self.client.unit_views()).await? {
            return Ok(units);
        }
        let (units, states) = (self.client.units().await?, self.client.states().await?);
        Ok(from_v1::units(units, states))
    }

    /// All units with these fields alone, in byte order of their names, as they come. From a fleetd
    /// that does not know what fields are, with all of them.
    pub(crate) async fn rows(
        &self,
        fields: &[&str],
        mut each: impl FnMut(&[UnitRow<'_>]),
    ) -> Result<(), Error> {
        let rows = self
            .client
            .unit_rows(fields, |page: &RowPage<'_>| each(&page.units));
        if self.try_v2(rows).await?.is_some() {
            return Ok(());
        }
        let (units, states) = (self.client.units().await?, self.client.states().await?);
        let units = from_v1::units(units, states);
        let rows: Vec<UnitRow<'_>> = units.iter().map(UnitRow::from).collect();
        each(&rows);
        Ok(())
    }

    /// All machines; from an original fleetd only those that are present.
    pub(crate) async fn machines(&self) -> Result<Vec<MachineView>, Error> {
        if let Some(listing) = self.try_v2(self.client.machine_views()).await? {
            return Ok(listing.machines);
        }
        let machines = self.client.machines().await?;
        Ok(machines.into_iter().map(from_v1::machine).collect())
    }

    /// Cordons, drains or opens a machine.
    pub(crate) async fn change_machine(
        &self,
        id: &str,
        change: &MachineChange,
    ) -> Result<MachineView, Error> {
        self.client.change_machine(id, change).await
    }

    /// The units that a machine has, or is still to stop.
    pub(crate) async fn units_of_machine(&self, id: &str) -> Result<Vec<MachineUnit>, Error> {
        Ok(self.client.units_of_machine(id).await?.units)
    }

    /// One unit.
    pub(crate) async fn unit(&self, name: &str) -> Result<Option<UnitView>, Error> {
        if let Some(unit) = self.try_v2(self.client.unit_view(name)).await? {
            return Ok(unit);
        }
        let Some(unit) = self.client.unit(name).await? else {
            return Ok(None);
        };
        let states = self.client.states_where(Some(name), None).await?;
        Ok(from_v1::units(vec![unit], states).pop())
    }

    /// A unit's file.
    pub(crate) async fn unit_file(&self, name: &str) -> Result<Option<UnitFile>, Error> {
        // v1 has it whole, in every fleetd.
        let unit = self.client.unit(name).await?;
        Ok(unit.map(|unit| UnitFile::from_options(options_of(&unit))))
    }

    /// Those of the named units that exist.
    pub(crate) async fn lookup(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, UnitView>, Error> {
        let mut found = BTreeMap::new();
        if names.len() <= MAX_SINGLE_LOOKUPS {
            for name in names {
                if let Some(unit) = self.unit(name).await? {
                    found.insert(name.clone(), unit);
                }
            }
            return Ok(found);
        }
        let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let limit = wanted.len().clamp(MIN_PAGE, MAX_PAGE);
        let mut wanted = wanted.into_iter().peekable();
        let mut revision = None;
        // Each page starts at the next unit that is still wanted, so that whatever lies between
        // two wanted units is passed over.
        while let Some(&next) = wanted.peek() {
            let after = before(next);
            let Some(page) = self.page(Some(&after), revision, limit).await? else {
                return self.lookup_in_v1(names).await;
            };
            revision = Some(page.revision);
            let last = page.units.last().map(|unit| unit.name.clone());
            let mut units: BTreeMap<String, UnitView> = named(page.units);
            while let Some(name) = wanted
                .next_if(|name| !page.more || last.as_deref().is_some_and(|last| *name <= last))
            {
                found.extend(units.remove_entry(name));
            }
            if last.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn lookup_in_v1(&self, names: &[String]) -> Result<BTreeMap<String, UnitView>, Error> {
        let mut all = named(self.units().await?);
        let found = names
            .iter()
            .filter_map(|name| all.remove_entry(name.as_str()));
        Ok(found.collect())
    }

    /// The units whose names match one of the patterns.
    pub(crate) async fn matching(&self, globs: &[Glob]) -> Result<Vec<UnitView>, Error> {
        let is_match = |unit: &UnitView| globs.iter().any(|glob| glob.matches(&unit.name));
        let prefix = globs
            .first()
            .map(|glob| glob.literal_prefix())
            .filter(|prefix| {
                globs
                    .iter()
                    .all(|glob| glob.literal_prefix().starts_with(prefix))
            })
            .unwrap_or_default();
        let mut after = match prefix {
            "" => None,
            prefix => Some(before(prefix)),
        };
        let mut revision = None;
        let mut found = Vec::new();
        loop {
            let Some(page) = self.page(after.as_deref(), revision, MAX_PAGE).await? else {
                let all = self.units().await?;
                return Ok(all.into_iter().filter(is_match).collect());
            };
            let last = page.units.last().map(|unit| unit.name.clone());
            found.extend(page.units.into_iter().filter(is_match));
            let is_past = last
                .as_deref()
                .is_none_or(|last| last > prefix && !last.starts_with(prefix));
            if !page.more || is_past {
                return Ok(found);
            }
            (after, revision) = (last, Some(page.revision));
        }
    }

    /// Units whose names begin so, at most so many of a page.
    pub(crate) async fn beginning_with(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<UnitView>, Error> {
        let after = Some(before(prefix)).filter(|after| !after.is_empty());
        let units = match self.page(after.as_deref(), None, limit).await? {
            Some(page) => page.units,
            None => self.units().await?,
        };
        let begins = |unit: &UnitView| unit.name.starts_with(prefix);
        Ok(units.into_iter().filter(begins).take(limit).collect())
    }

    /// Wishes by v2; None: this fleetd has only v1.
    pub(crate) async fn batch(&self, request: &BatchRequest) -> Result<Option<BatchAnswer>, Error> {
        self.try_v2(self.client.batch(request)).await
    }

    async fn page(
        &self,
        after: Option<&str>,
        revision: Option<u64>,
        limit: usize,
    ) -> Result<Option<UnitListing>, Error> {
        self.try_v2(self.client.unit_page(after, revision, limit))
            .await
    }

    /// None: this fleetd has only v1. Once known it is not asked again.
    async fn try_v2<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        if self.speaks_v2.get() == Some(false) {
            return Ok(None);
        }
        match request.await {
            Err(Error::NoV2) => {
                self.ui.debug("this fleetd has no API v2; going on with v1");
                self.speaks_v2.set(Some(false));
                Ok(None)
            }
            Ok(answer) => {
                self.speaks_v2.set(Some(true));
                Ok(Some(answer))
            }
            Err(error) => Err(error),
        }
    }
}

fn named(units: Vec<UnitView>) -> BTreeMap<String, UnitView> {
    let named = units.into_iter().map(|unit| (unit.name.clone(), unit));
    named.collect()
}

/// A text that sorts right before everything that starts with `prefix`: no valid unit name lies
/// between.
fn before(prefix: &str) -> String {
    let mut text = prefix.to_owned();
    match text.pop() {
        // Unit names are ASCII; any other text is before or after all of them.
        Some(last) if last > '\0' && last.is_ascii() => {
            text.push(char::from(last as u8 - 1));
            text.push(AFTER_ALL_NAME_CHARACTERS);
            text
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_right_before_a_prefix() {
        let before = before("web-1.service");
        assert!(*before < *"web-1.service");
        for earlier in ["web-1.servicd", "web-1.servicdzz", "web-0.service", "a"] {
            assert!(*before > *earlier, "{earlier}");
        }
    }
}
