//! API v2: what v1 cannot say.

use super::Api;
use super::failure::Failure;
use super::path::V2;
use super::request::{Answer, Call, RequestBody};

pub(crate) async fn serve(
    _state: &Api,
    _call: &Call,
    _body: &mut RequestBody,
    _resource: V2,
) -> Answer {
    Err(Failure::new(404, ""))
}
