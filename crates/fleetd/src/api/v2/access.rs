//! `GET /fleet/v2/access`: who asks, and what that one may do. Whoever shows buttons asks this first; each
//! request is decided upon for itself all the same.

use fleet_api::v2::AccessView;

use crate::access::{Object, Verb};
use crate::api::request::{Call, Reply};

pub(super) fn get(call: &Call) -> Reply {
    let unit = call.parameter("unit");
    let verbs = Verb::ALL.iter().filter(|verb| {
        let object = match (verb.is_of_units(), unit) {
            (true, Some(name)) => Object::Unit(name),
            (true, None) => Object::SomeUnit,
            (false, _) if verb.is_of_machines() => Object::SomeMachine,
            (false, _) => Object::Cluster,
        };
        **verb != Verb::Other && call.permit.shows(**verb, object)
    });
    Reply::json(&AccessView {
        who: call.permit.who(),
        verbs: verbs.map(ToString::to_string).collect(),
    })
}
