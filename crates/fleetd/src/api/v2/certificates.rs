//! Who belongs to the cluster: tokens, certificates, revocations.
//!
//! A token is made by the CA's key and by nothing that is in the store, so that whoever can write
//! there gets no certificate; the store remembers only which tokens were used.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::v2::{
    CertificateAnswer, CertificateRequest, JoinToken, JoinTokenRequest, MAX_TOKEN_TTL_S,
    ROLE_MACHINE, RevocationListing, RevocationView, RevokeRequest, TOKEN_TTL_S,
};
use fleet_core::events;
use fleet_core::records::MachineRecord;
use fleet_pki::{
    CLOCK_SKEW_MS, Ca, Claims, Error, Grant, Identity, MACHINE_LIFETIME_MS, Subject, Token,
    USER_LIFETIME_MS,
};
use hyper::StatusCode;

use super::json;
use crate::access::denials::Denial;
use crate::access::{Caller, Verb};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::request::{Answer, Call, Reply, RequestBody};
use crate::clock;
use crate::peer;
use crate::pki::{self, Material};
use crate::store::codec::{CertifiedRecord, Document, RevokedRecord, UsedTokenRecord};
use crate::store::keys::{self, Key};
use crate::store::{self, Compare, Op, Range, Txn};

/// A request for a certificate is a kilobyte, a token with many names a few.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// What a revocation may be reasoned with.
const MAX_WHY_BYTES: usize = 1_024;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Crypto(_) => Failure::new(500, error.to_string()),
            Error::NoToken | Error::OtherToken | Error::LateToken => {
                Failure::new(403, error.to_string())
            }
            error => Failure::bad_request(error.to_string()),
        }
    }
}

/// The CA with its key, if this machine has it.
async fn with_ca(state: &Api) -> Result<Arc<Material>, Failure> {
    let material = state.pki.material();
    if let Some(material) = material.filter(|material| material.ca().is_some()) {
        return Ok(material);
    }
    let others = pki::issuers(&*state.store).await?;
    let others: Vec<String> = others.iter().map(|(id, _)| id.to_string()).collect();
    let cure = match &others[..] {
        [] => "`fleetctl init` makes a CA on the machine where it is run".to_owned(),
        others => format!("ask one that has: {}", others.join(", ")),
    };
    Err(Failure::new(
        409,
        format!("this machine does not have the key of the cluster's CA: {cure}"),
    ))
}

fn ca(material: &Material) -> Result<&Ca, Failure> {
    material.ca().ok_or_else(|| {
        Failure::new(
            409,
            "this machine does not have the key of the cluster's CA",
        )
    })
}

/// Makes a token.
pub(super) async fn join_token(state: &Api, call: &Call, body: &mut RequestBody) -> Answer {
    let wanted: JoinTokenRequest = json(&body.read(MAX_BODY).await?)?;
    let material = with_ca(state).await?;
    let ttl_s = match wanted.ttl_s {
        0 => TOKEN_TTL_S,
        1..=MAX_TOKEN_TTL_S => wanted.ttl_s,
        _ => {
            return Err(Failure::bad_request(format!(
                "a join token is good for {MAX_TOKEN_TTL_S} s at most: make another one when it is needed"
            )));
        }
    };
    let name = wanted.name.clone();
    let (subject, role) = match wanted.role.as_str() {
        "" => {
            return Err(Failure::bad_request(
                "role is missing: use machine, or the role of a user (viewer, operator, admin, …)",
            ));
        }
        ROLE_MACHINE => ((!name.is_empty()).then_some(Subject::Machine(name)), None),
        role if name.is_empty() => {
            return Err(Failure::bad_request(format!(
                "a token for role {role} is for somebody: name the user"
            )));
        }
        role => (Some(Subject::User(name)), Some(role.to_owned())),
    };
    let whom = subject
        .as_ref()
        .map_or_else(|| "a machine".to_owned(), ToString::to_string);
    let expires_ms = clock::unix_ms() + ttl_s * 1_000;
    let claims = Claims {
        subject,
        role,
        names: wanted.hosts,
        expires_ms,
    };
    let token = ca(&material)?.token(claims)?;
    let why = format!(
        "a token was made with which {whom} may join as {}, for {ttl_s} s",
        wanted.role
    );
    let told = vec![events::of_cluster_wish(&why)];
    state
        .commit(Txn::default(), &call.permit.who(), told)
        .await?;
    Ok(Reply::json(&JoinToken {
        token: token.to_string(),
        expires_ms,
        endpoint: endpoint(state).await?,
    }))
}

/// Where this machine says that its API is; empty if it says nothing.
async fn endpoint(state: &Api) -> Result<String, Failure> {
    let key = keys::machine(state.pki.machine().as_str());
    let there = state.store.read_keys(std::slice::from_ref(&key)).await?;
    let record = there.entries.first();
    let record = record.and_then(|entry| MachineRecord::decode(&key, &entry.value).ok());
    let at = record.as_ref().and_then(peer::endpoint);
    Ok(at.map_or_else(String::new, |at| format!("https://{}", at.authority())))
}

/// Lets somebody in who shows a token, from this address.
pub(crate) async fn join(state: &Api, from: Option<IpAddr>, body: &mut RequestBody) -> Answer {
    let wanted: CertificateRequest = json(&body.read(MAX_BODY).await?)?;
    let answer = let_in(state, from, &wanted).await;
    if let Err(failure) = &answer
        && failure.status == 403
        && let Some(denials) = &state.denials
    {
        denials.note(Denial {
            by: from.map(|from| from.to_string()).unwrap_or_default(),
            verb: Verb::CertificateIssue,
            unit: None,
            machine: (!wanted.machine.is_empty()).then(|| wanted.machine.clone()),
            why: failure.message.clone(),
        });
    }
    answer
}

async fn let_in(state: &Api, from: Option<IpAddr>, wanted: &CertificateRequest) -> Answer {
    let material = with_ca(state).await?;
    let ca = ca(&material)?;
    let now_ms = clock::unix_ms();
    let token = Token::parse(&wanted.token)?;
    ca.check(&token, now_ms)?;
    if state.pki.used().has(&token.id) {
        return Err(used());
    }
    let claims = &token.claims;
    let subject = match &claims.subject {
        Some(subject) => subject.clone(),
        None => Subject::Machine(wanted.machine.clone()),
    };
    if let Subject::Machine(id) = &subject
        && *id != wanted.machine
    {
        return Err(Failure::new(
            403,
            format!(
                "this join token is for machine {id}, not for {}",
                wanted.machine
            ),
        ));
    }
    not_just_revoked(state, &subject, now_ms)?;
    let mut names = claims.names.clone();
    let lifetime_ms = match &subject {
        Subject::Machine(_) => {
            names.extend(public(from));
            MACHINE_LIFETIME_MS
        }
        Subject::User(_) => USER_LIFETIME_MS,
    };
    let grant = Grant {
        subject: subject.clone(),
        role: claims.role.clone(),
        names,
        lifetime_ms,
    };
    let certificate = ca.sign(&wanted.request, &grant, now_ms)?;
    // Whoever may be any machine may not be one that there is.
    let mut compares = vec![Compare::Absent(keys::used_token(&token.id))];
    let certified = certified(state, &subject, now_ms).await?;
    if let Some(entry) = &certified {
        if claims.subject.is_none() && entry.is_valid {
            return Err(Failure::new(
                409,
                format!(
                    "{subject} has a certificate already: if it was set up anew, make a token for it \
                     alone (fleetctl join-token --machine={}), or revoke the old one first",
                    subject.name()
                ),
            ));
        }
        compares.push(Compare::ModRevision(entry.key.clone(), entry.revision));
    } else if let Subject::Machine(id) = &subject {
        compares.push(Compare::Absent(keys::certified(id)));
    }
    let until_ms = claims.expires_ms + CLOCK_SKEW_MS;
    let life = Duration::from_millis(until_ms.saturating_sub(now_ms));
    let (lease, _) = state.store.grant(life).await?;
    let record = UsedTokenRecord {
        at_ms: now_ms,
        subject: subject.to_string(),
    };
    let mut ops = vec![Op::Put {
        key: keys::used_token(&token.id),
        value: record.encode(),
        lease: Some(lease),
    }];
    ops.extend(certifies(&subject, now_ms + lifetime_ms));
    let why = format!("{subject} has joined with a token");
    let told = vec![events::of_cluster_wish(&why)];
    let by = from.map(|from| from.to_string()).unwrap_or_default();
    let txn = Txn { compares, ops };
    match state.commit(txn, &by, told).await {
        Ok(_) => {}
        Err(error) => {
            // It holds nothing.
            let _ = state.store.revoke(lease).await;
            return Err(match error {
                store::Error::Conflict => used(),
                error => error.into(),
            });
        }
    }
    state.pki.used().note(&token.id, until_ms, now_ms);
    Ok(answer(ca, certificate, &subject, now_ms + lifetime_ms))
}

/// Another certificate for the machine that shows one.
pub(super) async fn renew(state: &Api, call: &Call, body: &mut RequestBody) -> Answer {
    let wanted: CertificateRequest = json(&body.read(MAX_BODY).await?)?;
    let shown = call.permit.caller().zip(call.identity.as_deref());
    let Some((Caller::Machine(id, from), identity)) = shown else {
        return Err(Failure::bad_request(
            "only a machine that shows its certificate gets another one here: people join anew \
             (fleetctl join-token, fleetctl join)",
        ));
    };
    let material = with_ca(state).await?;
    let now_ms = clock::unix_ms();
    let subject = Subject::Machine(id.to_string());
    let grant = Grant {
        names: renewed_names(identity, public(Some(from.ip()))),
        subject: subject.clone(),
        role: None,
        lifetime_ms: MACHINE_LIFETIME_MS,
    };
    let certificate = ca(&material)?.sign(&wanted.request, &grant, now_ms)?;
    let expires_ms = now_ms + MACHINE_LIFETIME_MS;
    let txn = Txn {
        ops: certifies(&subject, expires_ms).into_iter().collect(),
        ..Txn::default()
    };
    state.store.commit(txn).await?;
    Ok(answer(ca(&material)?, certificate, &subject, expires_ms))
}

/// The names of a machine that comes from this address: if it has moved, its old addresses may be
/// another one's by now.
fn renewed_names(identity: &Identity, from: Option<String>) -> Vec<String> {
    let mut names = identity.hosts();
    if let Some(from) = from
        && !names.contains(&from)
    {
        names.retain(|name| name.parse::<IpAddr>().is_err());
        names.push(from);
    }
    names
}

/// Says that somebody is not to be believed any more.
pub(super) async fn revoke(state: &Api, call: &Call, body: &mut RequestBody) -> Answer {
    let wanted: RevokeRequest = json(&body.read(MAX_BODY).await?)?;
    let name = wanted.name.as_str();
    let is_serial = |serial: &str| {
        (1..=40).contains(&serial.len()) && serial.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let is_known = match name.strip_prefix(pki::SERIAL) {
        Some(serial) => is_serial(serial),
        None => Subject::parse(name)
            .is_some_and(|subject| fleet_pki::check_name("user", subject.name()).is_ok()),
    };
    if !is_known {
        return Err(Failure::bad_request(format!(
            "{name:?} cannot be revoked: use user:<name>, machine:<id> or serial:<hex>"
        )));
    }
    if wanted.why.len() > MAX_WHY_BYTES {
        return Err(Failure::bad_request(format!(
            "the reason is longer than {MAX_WHY_BYTES} bytes"
        )));
    }
    if state.pki.revoked().is_full() {
        return Err(Failure::new(
            507,
            "too many revocations are kept: make a new CA (fleetctl init) and have all join again",
        ));
    }
    let record = RevokedRecord {
        at_ms: clock::unix_ms(),
        by: call.permit.who(),
        why: wanted.why.clone(),
    };
    // Serial numbers are compared letter by letter.
    let name = match name.starts_with(pki::SERIAL) {
        true => name.to_ascii_lowercase(),
        false => name.to_owned(),
    };
    let txn = Txn {
        ops: vec![Op::Put {
            key: keys::revoked(&name),
            value: record.encode(),
            lease: None,
        }],
        ..Txn::default()
    };
    let mut why = format!("{name} is revoked");
    if !wanted.why.is_empty() {
        why.push_str(&format!(": {}", wanted.why));
    }
    let told = vec![events::of_cluster_wish(&why)];
    state.commit(txn, &call.permit.who(), told).await?;
    // Not only when the store tells.
    state.pki.revoked().note([(name, record.at_ms)]);
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Who is not believed any more, by the store.
pub(super) async fn revocations(state: &Api) -> Answer {
    let range = Range {
        prefix: keys::REVOKED.to_owned(),
        limit: Some(pki::MAX_REVOKED),
        ..Range::default()
    };
    let there = state.store.read(range).await?;
    let revocations = there.entries.iter().filter_map(|entry| {
        let Key::Revoked(name) = keys::parse(&entry.key) else {
            return None;
        };
        let record = RevokedRecord::decode(&entry.key, &entry.value).ok()?;
        Some(RevocationView {
            name: name.to_owned(),
            at_ms: record.at_ms,
            by: record.by,
            why: record.why,
        })
    });
    Ok(Reply::json(&RevocationListing {
        revocations: revocations.collect(),
    }))
}

/// What is known of a machine's certificates.
struct Certified {
    key: String,
    revision: store::Revision,
    /// One of them may still be used.
    is_valid: bool,
}

async fn certified(
    state: &Api,
    subject: &Subject,
    now_ms: u64,
) -> Result<Option<Certified>, Failure> {
    let Subject::Machine(id) = subject else {
        return Ok(None);
    };
    let key = keys::certified(id);
    let there = state.store.read_keys(std::slice::from_ref(&key)).await?;
    let Some(entry) = there.entries.first() else {
        return Ok(None);
    };
    // What cannot be read lets nobody in.
    let record = CertifiedRecord::decode(&key, &entry.value)?;
    let revoked = state.pki.revoked().at(&subject.to_string());
    let is_revoked = revoked.is_some_and(|at_ms| at_ms >= record.at_ms);
    Ok(Some(Certified {
        is_valid: record.until_ms > now_ms && !is_revoked,
        revision: entry.mod_revision,
        key,
    }))
}

fn certifies(subject: &Subject, until_ms: u64) -> Option<Op> {
    let Subject::Machine(id) = subject else {
        return None;
    };
    let record = CertifiedRecord {
        at_ms: clock::unix_ms(),
        until_ms,
    };
    Some(Op::Put {
        key: keys::certified(id),
        value: record.encode(),
        lease: None,
    })
}

/// A certificate of now would be taken for one of before the revocation.
fn not_just_revoked(state: &Api, subject: &Subject, now_ms: u64) -> Result<(), Failure> {
    let revoked = state.pki.revoked().at(&subject.to_string());
    let since_ms = revoked.map(|at_ms| now_ms.saturating_sub(at_ms));
    match since_ms {
        Some(ms) if ms <= pki::REVOKED_SKEW_MS => Err(Failure::new(
            409,
            format!("{subject} was revoked a moment ago: it may join again in a minute or two"),
        )),
        _ => Ok(()),
    }
}

fn used() -> Failure {
    Failure::new(
        403,
        "this join token was used already: each lets in once, make another one with \
         `fleetctl join-token`",
    )
}

/// An address that is this machine's alone.
fn public(from: Option<IpAddr>) -> Option<String> {
    let from = from?.to_canonical();
    (!from.is_loopback() && !from.is_unspecified()).then(|| from.to_string())
}

fn answer(ca: &Ca, certificate: String, subject: &Subject, expires_ms: u64) -> Reply {
    Reply::json(&CertificateAnswer {
        certificate,
        ca: ca.bundle_pem().to_owned(),
        subject: subject.to_string(),
        expires_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_has_moved_does_not_keep_its_old_addresses() {
        let identity = |names: &[&str]| Identity {
            subject: Subject::Machine("148a18ff6e954cd892dac9de9bb90d5a".into()),
            roles: Vec::new(),
            serial: String::new(),
            issued_ms: 0,
            valid_from_ms: 0,
            expires_ms: 0,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let id = "148a18ff6e954cd892dac9de9bb90d5a";
        let names = identity(&[id, "a.example", "10.0.0.1", "fd00::1"]);
        let from = |from: &str| renewed_names(&names, Some(from.to_owned()));
        assert_eq!(from("10.0.0.1"), ["a.example", "10.0.0.1", "fd00::1"]);
        assert_eq!(from("10.0.0.2"), ["a.example", "10.0.0.2"]);
        assert_eq!(renewed_names(&names, None).len(), 3);
    }
}
