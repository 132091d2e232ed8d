//! The methods of API v1, which an original fleetd has too.

use hyper::Method;

use super::{Call, Client, Error, MAX_ITEMS, escape};
use crate::v1::{BASE, Machine, MachinePage, MetadataOp, Unit, UnitPage, UnitState, UnitStatePage};

/// No listing has more pages: the page number has 16 bits. It ends a server that never stops.
const MAX_PAGES: usize = 65_536;

/// What fleetd made of a PUT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutAnswer {
    /// The unit is new or has new contents; otherwise only its desired state was set.
    pub created: bool,
}

impl Client {
    /// The machines that are present, by id.
    pub async fn machines(&self) -> Result<Vec<Machine>, Error> {
        self.pages("machines", "", |page: MachinePage| {
            (page.machines, page.next_page_token)
        })
        .await
    }

    /// All units, by name.
    pub async fn units(&self) -> Result<Vec<Unit>, Error> {
        self.pages("units", "", |page: UnitPage| {
            (page.units, page.next_page_token)
        })
        .await
    }

    /// One unit; None if it does not exist.
    pub async fn unit(&self, name: &str) -> Result<Option<Unit>, Error> {
        found(self.json(Call::get(unit_path(name))).await)
    }

    /// Creates, replaces or changes a unit. `unit.name` may be left empty.
    pub async fn put_unit(&self, name: &str, unit: &Unit) -> Result<PutAnswer, Error> {
        let call = Call::with_json(Method::PUT, unit_path(name), unit);
        let status = self.status(call).await?;
        Ok(PutAnswer {
            created: status == 201,
        })
    }

    /// Sets the desired state of an existing unit.
    pub async fn set_desired_state(&self, name: &str, desired_state: &str) -> Result<(), Error> {
        let unit = Unit {
            desired_state: desired_state.to_owned(),
            name: name.to_owned(),
            ..Unit::default()
        };
        self.put_unit(name, &unit).await.map(drop)
    }

    /// Destroys a unit.
    pub async fn delete_unit(&self, name: &str) -> Result<(), Error> {
        let call = Call {
            method: Method::DELETE,
            path: unit_path(name),
            body: None,
        };
        self.status(call).await.map(drop)
    }

    /// The states of all units on all machines, by unit, then machine.
    pub async fn states(&self) -> Result<Vec<UnitState>, Error> {
        self.states_where(None, None).await
    }

    /// The states of one unit, or of one machine, or of one unit on one machine.
    pub async fn states_where(
        &self,
        unit: Option<&str>,
        machine_id: Option<&str>,
    ) -> Result<Vec<UnitState>, Error> {
        let mut query = String::new();
        for (key, value) in [("unitName", unit), ("machineID", machine_id)] {
            if let Some(value) = value {
                query.push_str(&format!("&{key}={}", escape(value)));
            }
        }
        self.pages("state", &query, |page: UnitStatePage| {
            (page.states, page.next_page_token)
        })
        .await
    }

    /// The state of a unit on its machine (on one of them for a global unit); None if no
    /// machine has reported any.
    pub async fn state(&self, name: &str) -> Result<Option<UnitState>, Error> {
        let path = format!("{BASE}/state/{}", escape(name));
        found(self.json(Call::get(path)).await)
    }

    /// Changes metadata of machines at run time.
    pub async fn patch_machines(&self, ops: &[MetadataOp]) -> Result<(), Error> {
        let call = Call::with_json(Method::PATCH, format!("{BASE}/machines"), &ops);
        self.status(call).await.map(drop)
    }

    /// All pages of a listing.
    async fn pages<Page: serde::de::DeserializeOwned, Item>(
        &self,
        resource: &str,
        query: &str,
        open: impl Fn(Page) -> (Vec<Item>, String),
    ) -> Result<Vec<Item>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let mut parameters = query.to_owned();
            if !token.is_empty() {
                parameters.push_str(&format!("&nextPageToken={}", escape(&token)));
            }
            let path = match parameters.strip_prefix('&') {
                Some(parameters) => format!("{BASE}/{resource}?{parameters}"),
                None => format!("{BASE}/{resource}"),
            };
            let (items, next) = open(self.json(Call::get(path)).await?);
            all.extend(items);
            if next.is_empty() {
                return Ok(all);
            }
            // A page that leads to itself would be read until memory ends.
            if next == token || all.len() > MAX_ITEMS {
                break;
            }
            token = next;
        }
        Err(self.endless(resource))
    }
}

fn unit_path(name: &str) -> String {
    format!("{BASE}/units/{}", escape(name))
}

/// None for what fleetd says does not exist.
pub(super) fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(thing) => Ok(Some(thing)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
