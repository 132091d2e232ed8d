//! `GET /fleet/v2/whoami`: who asks, and whether that one may do something. Nothing is done, and a "no"
//! is no refusal that is told.

use fleet_api::v2::Whoami;
use fleet_core::name::UnitName;
use fleet_core::requirements::Requirements;

use super::machines::Members;
use crate::access::{Decision, Object, Verb};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::read::Reading;
use crate::api::request::{Answer, Call, Reply};
use crate::store::keys;

pub(super) async fn get(state: &Api, call: &Call) -> Answer {
    let mut answer = call.permit.whoami();
    if let Some(word) = call.parameter("verb") {
        let verb = Verb::parse(word).ok_or_else(|| {
            let known: Vec<&str> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
            Failure::bad_request(format!(
                "no such verb {word:?}: use one of {}",
                known.join(", ")
            ))
        })?;
        let decision = decide(state, call, verb).await?;
        answer.allowed = Some(decision == Decision::Allowed);
        if let Decision::Refused(why) = decision {
            answer.reason = why;
        }
    }
    Ok(Reply::json::<Whoami>(&answer))
}

async fn decide(state: &Api, call: &Call, verb: Verb) -> Result<Decision, Failure> {
    let mut reading = Reading::new(&*state.store);
    if let Some(id) = call.parameter("machine") {
        let members = Members::read(&mut reading, None).await?;
        let wish = reading.key(keys::machine_wish(id)).await?;
        let wish = wish.and_then(|entry| reading.decode(&entry));
        let metadata = members.view(id, wish.as_ref()).metadata;
        return Ok(call.permit.decide(verb, Object::Machine(id, &metadata)));
    }
    let Some(name) = call.parameter("unit") else {
        return Ok(call.permit.decide(verb, Object::Cluster));
    };
    let changes = matches!(
        verb,
        Verb::UnitSubmit | Verb::UnitStart | Verb::UnitStop | Verb::UnitDestroy
    );
    // What changes a unit depends on where it may run.
    let unit = match changes {
        true => reading.unit(name).await?,
        false => None,
    };
    let pins = unit.map(|unit| {
        let name = UnitName::parse(name).ok();
        Requirements::parse(&unit.file, name.as_ref()).0.metadata
    });
    let object = match &pins {
        Some(pins) => Object::UnitFor(name, pins),
        None => Object::Unit(name),
    };
    Ok(call.permit.decide(verb, object))
}
