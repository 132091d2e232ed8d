//! What a request needs, and whether its caller may have it.
//!
//! [`needs`] is the one table from resources and methods to verbs: it is asked before a body is read,
//! and has no default for resources, so that a new one does not compile without a line here. Where
//! what is done depends on the body (which units, which machines), the table allows whoever may do it
//! to some of them, and the handler asks for each with [`Permit::check`].

use std::sync::{Arc, Mutex, PoisonError};

use fleet_api::v2::{UnitWish, Whoami};
use fleet_core::name::UnitName;
use fleet_core::records::{DesiredState, UnitRecord};
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::UnitFile;
use hyper::Method;

use super::failure::Failure;
use super::path::{Route, V1, V2};
use crate::access::denials::Denial;
use crate::access::{BEHALF_HEADER, Caller, Decision, Object, Policy, Trust, Verb};

/// What a request needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Needs<'a> {
    /// It tells nothing that is not in the documentation.
    Nothing,
    /// One of these, on something.
    OneOf(&'static [Verb], On<'a>),
}

/// What a request is about, as far as its path tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On<'a> {
    Cluster,
    Unit(&'a str),
    /// The handler asks for each unit.
    Units,
    /// The handler asks for each machine.
    Machines,
}

/// Wishing something of a unit; which of them, is known when the unit is.
const WISH: &[Verb] = &[
    Verb::UnitSubmit,
    Verb::UnitStart,
    Verb::UnitStop,
    Verb::UnitDestroy,
];

/// Of a batch whoever has a role hears unit by unit what he may not.
const BATCH: &[Verb] = &[
    Verb::UnitRead,
    Verb::UnitSubmit,
    Verb::UnitStart,
    Verb::UnitStop,
    Verb::UnitDestroy,
];

/// The table.
pub(crate) fn needs<'a>(route: &'a Route, method: &Method) -> Needs<'a> {
    use Needs::{Nothing, OneOf};
    let is = |known: Method| *method == known;
    let (verbs, on): (&'static [Verb], On<'a>) = match route {
        Route::Unclean(_) | Route::BadEscape(_) | Route::Base | Route::NoV2 | Route::Nothing => {
            return Nothing;
        }
        // The page shows what its reader may ask the API for.
        Route::Page(_) => return Nothing,
        Route::V1(V1::Discovery) | Route::V2(V2::OpenApi | V2::Join) => return Nothing,
        // Everybody may know who he is.
        Route::V2(V2::Whoami) => return Nothing,
        Route::Metrics => (&[Verb::MetricsRead], On::Cluster),
        Route::V1(V1::Machines) if is(Method::GET) => (&[Verb::MachineRead], On::Machines),
        Route::V1(V1::Machines) if is(Method::PATCH) => (&[Verb::MachineMetadata], On::Machines),
        Route::V1(V1::Units | V1::States) if is(Method::GET) => (&[Verb::UnitRead], On::Units),
        Route::V1(V1::Unit(name) | V1::State(name)) if is(Method::GET) => {
            (&[Verb::UnitRead], On::Unit(name))
        }
        Route::V1(V1::Unit(name)) if is(Method::PUT) => (WISH, On::Unit(name)),
        Route::V1(V1::Unit(name)) if is(Method::DELETE) => (&[Verb::UnitDestroy], On::Unit(name)),
        Route::V2(V2::Units) if is(Method::GET) => (&[Verb::UnitRead], On::Units),
        Route::V2(V2::Units) if is(Method::POST) => (BATCH, On::Units),
        Route::V2(V2::Unit(name)) if is(Method::GET) => (&[Verb::UnitRead], On::Unit(name)),
        Route::V2(V2::UnitStatus(name) | V2::UnitOnMachine(_, name)) if is(Method::GET) => {
            (&[Verb::UnitRead], On::Unit(name))
        }
        Route::V2(V2::Journal) if is(Method::GET) => (&[Verb::JournalRead], On::Units),
        Route::V2(V2::Wait) if is(Method::POST) => (&[Verb::UnitRead], On::Units),
        Route::V2(V2::Machines | V2::Machine(_) | V2::UnitsOfMachine(_)) if is(Method::GET) => {
            (&[Verb::MachineRead], On::Machines)
        }
        Route::V2(V2::Machine(_)) if is(Method::POST) => (&[Verb::MachineDrain], On::Machines),
        Route::V2(V2::Cluster) if is(Method::GET) => (&[Verb::ClusterRead], On::Cluster),
        Route::V2(V2::WatchUnits) if is(Method::GET) => (&[Verb::UnitRead], On::Units),
        Route::V2(V2::Events) if is(Method::GET) => (&[Verb::EventRead], On::Units),
        Route::V2(V2::Thaw) if is(Method::POST) => (&[Verb::ClusterThaw], On::Cluster),
        Route::V2(V2::AcceptStore) if is(Method::POST) => {
            (&[Verb::ClusterAcceptStore], On::Cluster)
        }
        Route::V2(V2::JoinTokens) if is(Method::POST) => (&[Verb::CertificateIssue], On::Cluster),
        Route::V2(V2::Certificates) if is(Method::POST) => (&[Verb::CertificateRenew], On::Cluster),
        Route::V2(V2::Revocations) if is(Method::GET) => (&[Verb::ClusterRead], On::Cluster),
        Route::V2(V2::Revocations) if is(Method::POST) => (&[Verb::CertificateRevoke], On::Cluster),
        // A method that the resource does not know: what it will mean one day, nobody knows.
        Route::V1(V1::Machines | V1::Units | V1::Unit(_) | V1::States | V1::State(_))
        | Route::V2(
            V2::Machines
            | V2::Machine(_)
            | V2::UnitsOfMachine(_)
            | V2::Units
            | V2::Unit(_)
            | V2::UnitStatus(_)
            | V2::UnitOnMachine(..)
            | V2::Journal
            | V2::Wait
            | V2::Cluster
            | V2::Events
            | V2::WatchUnits
            | V2::Thaw
            | V2::AcceptStore
            | V2::JoinTokens
            | V2::Certificates
            | V2::Revocations,
        ) => (&[Verb::Other], On::Cluster),
    };
    OneOf(verbs, on)
}

/// Who asks, under which policy, and which unit files are taken. What is refused is remembered, to be
/// told when the request is answered.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    caller: Option<Caller>,
    policy: Arc<Policy>,
    trust: Arc<Trust>,
    denied: Mutex<Vec<Denial>>,
}

/// So many refusals of one request are told: of a batch of thousands the first ones say it.
const MAX_DENIED: usize = 16;

impl Permit {
    /// For whoever asks: the caller of the connection, or whom that one asks for. The failure is that of
    /// one who may not ask for others.
    pub(crate) fn new(
        caller: Option<Caller>,
        behalf: Option<&hyper::header::HeaderValue>,
        policy: Arc<Policy>,
        trust: Arc<Trust>,
    ) -> (Permit, Result<(), Failure>) {
        let mut permit = Permit {
            caller,
            policy,
            trust,
            denied: Mutex::default(),
        };
        let behalf = behalf.map(|header| permit.on_behalf(header)).transpose();
        let asked = behalf.map(|behalf| {
            if behalf.is_some() {
                permit.caller = behalf;
            }
        });
        (permit, asked)
    }

    /// Whom the caller asks for. Only a machine is believed, and whoever may do everything anyway.
    fn on_behalf(&self, header: &hyper::header::HeaderValue) -> Result<Caller, Failure> {
        let machine = match &self.caller {
            Some(Caller::Machine(id, _)) => Some(id.clone()),
            _ if self.allows_all(Verb::Other) => None,
            _ => {
                let why = format!(
                    "{BEHALF_HEADER} counts only from a machine of this cluster: leave it out"
                );
                return Err(self.refuse(Verb::Other, Object::Cluster, why));
            }
        };
        let text = header.to_str().ok();
        text.and_then(|text| Caller::behalf_of(machine, text))
            .ok_or_else(|| {
                Failure::bad_request(format!(
                    "invalid {BEHALF_HEADER}: write \"roles=ROLE,ROLE; who=NAME\""
                ))
            })
    }

    /// Who asks, as far as is known.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// Who did it, in events and wishes; empty if nothing is known.
    pub(crate) fn who(&self) -> String {
        self.caller
            .as_ref()
            .map(Caller::to_string)
            .unwrap_or_default()
    }

    /// How another machine is told for whom it is asked; None: nothing is known.
    pub(crate) fn behalf(&self) -> Option<String> {
        let caller = self.caller.as_ref()?;
        Some(self.policy.behalf_header(caller))
    }

    /// The client itself, apart from others of the same user; empty if it is not known.
    pub(crate) fn client(&self) -> String {
        self.caller.as_ref().map(Caller::client).unwrap_or_default()
    }

    /// Whether nothing needs to be asked for one by one.
    pub(crate) fn allows_all(&self, verb: Verb) -> bool {
        self.policy.allows_all(self.caller.as_ref(), verb)
    }

    /// Whether it is shown. That it is not, is not told.
    pub(crate) fn shows(&self, verb: Verb, object: Object<'_>) -> bool {
        self.policy.allows(self.caller.as_ref(), verb, object)
    }

    /// Which units are shown; None: all.
    pub(crate) fn shown_units(&self, verb: Verb) -> Option<impl Fn(&str) -> bool + '_> {
        (!self.allows_all(verb)).then_some(move |name: &str| self.shows(verb, Object::Unit(name)))
    }

    /// Whether it may be done; nothing is remembered.
    pub(crate) fn decide(&self, verb: Verb, object: Object<'_>) -> Decision {
        self.policy.decide(self.caller.as_ref(), verb, object)
    }

    /// Who asks, and what that one may do.
    pub(crate) fn whoami(&self) -> Whoami {
        let caller = self.caller.as_ref();
        let verbs = Verb::ALL.iter().filter(|verb| **verb != Verb::Other);
        // Of a role that is narrowed to some units or machines, too.
        let on_some = |verb: &&Verb| match verb.is_of_cluster() {
            true => self.allows_all(**verb),
            false => self.shows(**verb, Object::SomeUnit),
        };
        let roles = self.policy.roles_of(caller);
        Whoami {
            who: self.who(),
            roles: roles.into_iter().map(str::to_owned).collect(),
            verbs: verbs.filter(on_some).map(ToString::to_string).collect(),
            allowed: None,
            reason: String::new(),
        }
    }

    /// Refuses what the caller may not do, and remembers that.
    pub(crate) fn check(&self, verb: Verb, object: Object<'_>) -> Result<(), Failure> {
        match self.policy.decide(self.caller.as_ref(), verb, object) {
            Decision::Allowed => Ok(()),
            Decision::Refused(why) => Err(self.refuse(verb, object, why)),
        }
    }

    /// Checks a request against the table.
    pub(crate) fn check_request(&self, route: &Route, method: &Method) -> Result<(), Failure> {
        let Needs::OneOf(verbs, on) = needs(route, method) else {
            return Ok(());
        };
        let object = match on {
            On::Cluster => Object::Cluster,
            On::Unit(name) => Object::Unit(name),
            On::Units => Object::SomeUnit,
            On::Machines => Object::SomeMachine,
        };
        match verbs.first() {
            Some(verb) => self.check_one_of(verbs, *verb, object),
            None => Ok(()),
        }
    }

    /// Refuses whoever may do none of these; `said`: which of them was asked for.
    fn check_one_of(&self, verbs: &[Verb], said: Verb, object: Object<'_>) -> Result<(), Failure> {
        match verbs.iter().any(|verb| self.shows(*verb, object)) {
            true => Ok(()),
            false => self.check(said, object),
        }
    }

    /// Refuses a wish for a unit of which the caller may wish nothing at all, before anything is read:
    /// whether there is such a unit is not told.
    pub(crate) fn check_any_wish(&self, wish: &UnitWish) -> Result<(), Failure> {
        let said = match wish.desired_state.as_deref() {
            Some("destroyed") => Verb::UnitDestroy,
            _ if wish.text.is_some() => Verb::UnitSubmit,
            Some("inactive") => Verb::UnitStop,
            _ => Verb::UnitStart,
        };
        self.check_one_of(WISH, said, Object::Unit(&wish.name))
    }

    /// Checks the next version of a unit against the one before.
    pub(crate) fn check_wish(
        &self,
        name: &str,
        before: Option<&UnitRecord>,
        now: &UnitRecord,
    ) -> Result<(), Failure> {
        for verb in verbs_of(before, now) {
            if self.allows_all(verb) {
                continue;
            }
            // Both what was and what will be: nobody makes another's unit his own.
            let texts = before.into_iter().chain([now]).map(|record| &record.text);
            for text in texts.filter(|text| !text.is_empty()) {
                let file = UnitFile::parse(text.as_bytes()).unwrap_or_default();
                let unit = UnitName::parse(name).ok();
                let pins = Requirements::parse(&file, unit.as_ref()).0.metadata;
                self.check(verb, Object::UnitFor(name, &pins))?;
            }
        }
        self.check_trust(name, before, now)
    }

    /// Refuses contents that this machine would not take, when they are handed in or to be started: they
    /// would not run here, and whoever wishes them hears why at once.
    fn check_trust(
        &self,
        name: &str,
        before: Option<&UnitRecord>,
        now: &UnitRecord,
    ) -> Result<(), Failure> {
        let starts = matches!(now.desired, DesiredState::Loaded | DesiredState::Launched);
        let is_new = before.is_none_or(|before| before.hash != now.hash);
        let is_left = now.desired == DesiredState::Destroyed || !starts && !is_new;
        let unit = UnitName::parse(name).ok().filter(|_| !is_left);
        let checked = unit.map_or(Ok(()), |unit| self.trust.check(&unit, &now.text));
        checked.map_err(|why| {
            let verb = match is_new {
                true => Verb::UnitSubmit,
                false => Verb::UnitStart,
            };
            self.refuse(verb, Object::Unit(name), format!("Unit {name}: {why}"))
        })
    }

    /// What was refused since this was last asked.
    pub(crate) fn take_denied(&self) -> Vec<Denial> {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *denied)
    }

    fn refuse(&self, verb: Verb, object: Object<'_>, why: String) -> Failure {
        let (unit, machine) = match object {
            Object::Unit(name) | Object::UnitFor(name, _) | Object::UnitOn(name, _) => {
                (Some(name.to_owned()), None)
            }
            Object::Machine(id, _) => (None, Some(id.to_owned())),
            Object::Cluster | Object::SomeUnit | Object::SomeMachine => (None, None),
        };
        let denial = Denial {
            by: self.who(),
            verb,
            unit,
            machine,
            why: why.clone(),
        };
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < MAX_DENIED && !denied.contains(&denial) {
            denied.push(denial);
        }
        Failure::new(403, why)
    }
}

/// What a new version of a unit does to it.
fn verbs_of(before: Option<&UnitRecord>, now: &UnitRecord) -> Vec<Verb> {
    if now.desired == DesiredState::Destroyed {
        return vec![Verb::UnitDestroy];
    }
    let is_new_text = before.is_none_or(|before| before.hash != now.hash);
    let was = before.map_or(DesiredState::Inactive, |before| before.desired);
    let mut verbs = Vec::new();
    if is_new_text {
        verbs.push(Verb::UnitSubmit);
    }
    match now.desired.cmp(&was) {
        std::cmp::Ordering::Less => verbs.push(Verb::UnitStop),
        std::cmp::Ordering::Greater => verbs.push(Verb::UnitStart),
        // Once more, or a restart.
        std::cmp::Ordering::Equal if !is_new_text => verbs.push(Verb::UnitStart),
        std::cmp::Ordering::Equal => {}
    }
    verbs
}
