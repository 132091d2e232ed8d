//! API v1, as spec'd by the original: every status, body and check in its order.

use hyper::Method;

use super::Api;
use super::failure::Failure;
use super::path::V1;
use super::request::{Answer, Call, RequestBody};
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
        (V1::Machines, Method::PATCH) => machines::patch(state, body).await,
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
        limit: state.token_limit,
        page: 1,
    };
    let mut tokens = call.parameters("nextPageToken");
    let Some(token) = tokens.next() else {
        return Ok(first);
    };
    if tokens.next().is_some() {
        return Err(Failure::bad_request("too many values for page token"));
    }
    PageToken::parse(token, state.token_limit)
        .map_err(|error| Failure::bad_request(error.to_string()))
}

/// The items of a page, and the token of the next one if items follow.
fn cut<T>(items: impl Iterator<Item = T>, token: PageToken) -> (Vec<T>, String) {
    let limit = usize::from(token.limit);
    let mut items = items.skip(limit * usize::from(token.page - 1));
    let page = items.by_ref().take(limit).collect();
    let next = items.next().and_then(|_| token.next());
    (page, next.map(PageToken::encode).unwrap_or_default())
}
