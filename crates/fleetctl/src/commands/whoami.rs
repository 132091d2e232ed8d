//! `fleetctl whoami`

use fleet_api::client::Error;
use fleet_core::name::with_default_type;

use crate::commands::{Context, Outcome};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::machines::original;

/// Say who fleetd takes you for, and what you may do
///
/// With --may it says whether you may do one thing: to the unit or machine that is named, or to the
/// cluster as a whole. The status is 1 if not. The verbs are in fleet.access(5).
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ask about this verb, such as unit:start
    #[arg(long, value_name = "VERB")]
    may: Option<String>,

    /// The unit, or a machine's whole id
    #[arg(value_name = "OBJECT")]
    object: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context<'_>) -> Outcome {
    let verb = args.may.as_deref();
    if verb.is_none() && args.object.is_some() {
        let text = "what may be done to a unit or machine is asked with --may VERB";
        return Err(CommandError::usage(text));
    }
    let is_of_machine = verb.is_some_and(|verb| verb.starts_with("machine:"));
    let (unit, machine) = match args.object {
        Some(id) if is_of_machine => (None, Some(id)),
        object => (object.map(|name| with_default_type(&name)), None),
    };
    let asked = context
        .fleet
        .client
        .whoami(verb, unit.as_deref(), machine.as_deref());
    let answer = match asked.await {
        Ok(answer) => answer,
        Err(Error::NoV2) => return Err(original()),
        Err(error) => return Err(CommandError::api("Error asking who you are", &error)),
    };
    // A fleetd in somebody's own process does not know.
    let who = match answer.who.as_str() {
        "" => "somebody",
        who => who,
    };
    let Some(allowed) = answer.allowed else {
        context.ui.line(who);
        context.ui.line(&format!("roles: {}", words(&answer.roles)));
        context.ui.line(&format!("may:   {}", words(&answer.verbs)));
        return Ok(Exit::Success);
    };
    if !allowed {
        return Err(CommandError::new(answer.reason));
    }
    let verb = verb.unwrap_or_default();
    let object = unit.or(machine).unwrap_or_else(|| "the cluster".to_owned());
    let text = format!("{who} may {verb} {object}");
    context.ui.line(&text);
    Ok(Exit::Success)
}

fn words(words: &[String]) -> String {
    match words {
        [] => "none".to_owned(),
        words => words.join(" "),
    }
}
