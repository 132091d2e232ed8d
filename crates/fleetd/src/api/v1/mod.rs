//! API v1, as spec'd by the original: every status, body and check in its order.

use std::sync::atomic::Ordering;

use hyper::Method;

use super::Api;
use super::boundaries::{Boundary, Place};
use super::failure::Failure;
use super::path::V1;
use super::request::{Answer, Call, RequestBody};
use crate::store::Revision;
use fleet_api::paging::PageToken;

mod machines;
mod states;
mod units;

pub(crate) async fn serve(
    state: &Api,
    call: &Call,
    body: &mut RequestBody,
    resource: V1,
) -> Answer {
    match (resource, call.method.clone()) {
        (V1::Machines, Method::GET) => machines::list(state, call).await,
        (V1::Machines, Method::PATCH) => machines::patch(state, call, body).await,
        (V1::Machines, _) => not_allowed("GET and PATCH"),
        (V1::Units, Method::GET) => units::list(state, call).await,
        (V1::Unit(name), Method::GET) => units::get(state, &name).await,
        (V1::Unit(name), Method::PUT) => units::put(state, call, body, &name).await,
        (V1::Unit(name), Method::DELETE) => units::delete(state, call, &name).await,
        (V1::Unit(_), _) => not_allowed("GET, PUT and DELETE"),
        (V1::States, Method::GET) => states::list(state, call).await,
        (V1::State(name), Method::GET) => states::get(state, &name).await,
        (V1::Units | V1::States | V1::State(_), _) => not_allowed("GET"),
        (V1::Discovery, _) => Err(Failure::new(404, "")),
    }
}

fn not_allowed(methods: &str) -> Answer {
    let message = format!("only {methods} supported against this resource");
    Err(Failure::new(405, message))
}

/// Which page is asked for: the first without a token.
fn page_token(state: &Api, call: &Call) -> Result<PageToken, Failure> {
    let first = PageToken {
        limit: state.token_limit.load(Ordering::Relaxed),
        page: 1,
    };
    let mut tokens = call.parameters("nextPageToken");
    let Some(token) = tokens.next() else {
        return Ok(first);
    };
    if tokens.next().is_some() {
        return Err(Failure::bad_request("too many values for page token"));
    }
    PageToken::parse(token, state.token_limit.load(Ordering::Relaxed))
        .map_err(|error| Failure::bad_request(error.to_string()))
}

/// A page that is asked for, and where it begins.
struct Page {
    token: PageToken,
    place: Place,
    boundary: Option<Boundary>,
}

impl Page {
    /// The page of a listing that a request asks for.
    fn of(state: &Api, call: &Call, listing: String) -> Result<Page, Failure> {
        let token = page_token(state, call)?;
        let place = Place {
            client: call.permit.client(),
            listing,
            page: token.page,
        };
        let boundary = match token.page {
            1 => None,
            _ => state.boundaries.get(&place),
        };
        Ok(Page {
            token,
            place,
            boundary,
        })
    }

    fn limit(&self) -> usize {
        usize::from(self.token.limit)
    }

    /// The item after which it begins.
    fn after(&self) -> Option<&str> {
        self.boundary
            .as_ref()
            .map(|boundary| boundary.after.as_str())
    }

    /// So many items come before it, unless [`Page::after`] says where it begins.
    fn skip(&self) -> usize {
        match self.boundary {
            Some(_) => 0,
            None => self.limit() * usize::from(self.token.page - 1),
        }
    }

    /// The revision at which it is to be read: that of the pages before.
    fn revision(&self) -> Option<Revision> {
        self.boundary.as_ref()?.revision
    }

    /// Its history is compacted: it is read as it is now, from where the page before has ended.
    /// False if it has none.
    fn forget_history(&mut self) -> bool {
        let revision = self
            .boundary
            .as_mut()
            .map(|boundary| boundary.revision.take());
        revision.flatten().is_some()
    }

    /// The token of the next page if there is one, which begins after `last`.
    fn next(&self, state: &Api, last: Option<&str>, more: bool, revision: Revision) -> String {
        let Some(next) = self.token.next().filter(|_| more) else {
            return String::new();
        };
        if let Some(last) = last {
            let place = Place {
                page: next.page,
                ..self.place.clone()
            };
            state.boundaries.set(place, last, revision);
        }
        next.encode()
    }
}
