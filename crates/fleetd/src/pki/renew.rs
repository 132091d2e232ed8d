//! A machine's certificate is renewed when half of its life is over: by the machine itself if it has
//! the CA's key, else through one that has. Its key stays the same, and stays where it is.

use std::sync::Arc;
use std::time::Duration;

use fleet_api::v2::CertificateRequest;
use fleet_core::records::{MachineId, MachineRecord};
use fleet_pki::{Grant, Identity, KeyAndRequest, MACHINE_LIFETIME_MS, Subject, files};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tracing::{info, warn};

use super::{Material, Pki};
use crate::clock;
use crate::peer::Peers;
use crate::store::codec::{Document, IssuerRecord};
use crate::store::{Compare, Op, Range, Store, Txn, keys};

/// Between two attempts: there are days left.
const RETRY: Duration = Duration::from_secs(60);

/// The clock may be set: it is looked at this often.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(3_600);

/// So many machines are asked in one attempt.
const MAX_ASKED: usize = 16;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the store does not say who issues certificates: {0}")]
    Store(#[from] crate::store::Error),
    #[error("no machine that is present has the CA's key: start one, or put ca.key back on one")]
    NoIssuer,
    #[error("{0}")]
    Asked(String),
    #[error("failed to read this machine's key: {0}")]
    Key(std::io::Error),
    #[error(transparent)]
    Pki(#[from] fleet_pki::Error),
    #[error(transparent)]
    Write(#[from] files::Error),
    #[error("{0} has signed a certificate of {1}")]
    OfAnother(String, Subject),
    #[error(transparent)]
    Load(#[from] super::Error),
}

/// When a certificate is to be renewed; None: it is not for us to renew.
fn due_ms(identity: &Identity, machine: &MachineId) -> Option<u64> {
    let is_ours = identity.subject == Subject::Machine(machine.to_string());
    is_ours.then(|| identity.issued_ms.midpoint(identity.expires_ms))
}

/// Renews this machine's certificate, again and again.
pub(super) async fn run(pki: &Arc<Pki>, store: &dyn Store) {
    let mut material = pki.watch();
    let mut has_failed = false;
    loop {
        let now = material.borrow_and_update().clone();
        let due = now.as_ref().and_then(|material| {
            due_ms(&material.identity, &pki.machine).map(|due_ms| (Arc::clone(material), due_ms))
        });
        let pause = match due {
            None => {
                if material.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Some((_, due_ms)) if due_ms > clock::unix_ms() => {
                Duration::from_millis(due_ms - clock::unix_ms()).min(LOOK_AT_CLOCK)
            }
            Some((material, _)) => match once(pki, &material, store).await {
                Ok(by) => {
                    has_failed = false;
                    info!(by, "this machine's certificate was renewed");
                    continue;
                }
                Err(error) => {
                    let left_ms = material.identity.expires_ms;
                    let left_s = left_ms.saturating_sub(clock::unix_ms()) / 1_000;
                    if !has_failed {
                        warn!(
                            %error,
                            valid_for_s = left_s,
                            "this machine's certificate cannot be renewed at present: {error}"
                        );
                    }
                    has_failed = true;
                    // Machines that have lost the last issuer together do not come back in step.
                    let jitter = f64::from(clock::boottime().subsec_millis()) / 1_000.0;
                    RETRY.mul_f64(1.0 + jitter)
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = material.changed() => if changed.is_err() { return },
        }
    }
}

/// Gets another certificate, and puts it in place. Says who has signed it.
async fn once(pki: &Arc<Pki>, material: &Material, store: &dyn Store) -> Result<String, Error> {
    let subject = &material.identity.subject;
    let key = std::fs::read_to_string(&material.files.key).map_err(Error::Key)?;
    let request = KeyAndRequest::again(&key, subject)?.request_pem;
    let (by, pem) = match &material.ca {
        Some(ca) => {
            let grant = Grant {
                subject: subject.clone(),
                role: None,
                names: material.identity.hosts(),
                lifetime_ms: MACHINE_LIFETIME_MS,
            };
            let pem = ca.sign(&request, &grant, clock::unix_ms())?;
            (pki.machine.to_string(), pem)
        }
        None => ask(pki, store, request).await?,
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| Error::Asked(format!("{by} has answered with no certificate: {error}")))?;
    let signed = Identity::read(&der)?;
    if signed.subject != *subject {
        return Err(Error::OfAnother(by, signed.subject));
    }
    files::replace(&material.files.certificate, &pem)?;
    pki.load_again()?;
    Ok(by)
}

/// Asks the machines that have the CA's key, one after the other.
async fn ask(
    pki: &Arc<Pki>,
    store: &dyn Store,
    request: String,
) -> Result<(String, String), Error> {
    let peers = Peers::new(pki.machine.clone(), Arc::clone(pki) as _);
    let mut last = Error::NoIssuer;
    for (id, record) in issuers(store).await? {
        let wanted = CertificateRequest {
            request: request.clone(),
            ..CertificateRequest::default()
        };
        let asked = match peers.peer(&id, record.as_ref(), None) {
            Ok(peer) => {
                let answer = peer.client.renew(&wanted).await;
                answer.map_err(|error| peer.failed(&error))
            }
            Err(error) => Err(error),
        };
        match asked {
            Ok(answer) => return Ok((id.to_string(), answer.certificate)),
            Err(error) => last = Error::Asked(error.to_string()),
        }
    }
    Err(last)
}

/// The machines that issue certificates, and their presence.
pub(crate) async fn issuers(
    store: &dyn Store,
) -> Result<Vec<(MachineId, Option<MachineRecord>)>, crate::store::Error> {
    let range = Range {
        prefix: keys::ISSUERS.to_owned(),
        limit: Some(MAX_ASKED),
        ..Range::default()
    };
    let there = store.read(range).await?;
    let ids: Vec<MachineId> = there
        .entries
        .iter()
        .filter_map(|entry| match keys::parse(&entry.key) {
            keys::Key::Issuer(id) => Some(MachineId::new(id)),
            _ => None,
        })
        .collect();
    let presence: Vec<String> = ids.iter().map(|id| keys::machine(id.as_str())).collect();
    let presence = store.read_keys(&presence).await?;
    let record = |id: &MachineId| {
        let key = keys::machine(id.as_str());
        let entry = presence.entries.iter().find(|entry| entry.key == key)?;
        MachineRecord::decode(&key, &entry.value).ok()
    };
    Ok(ids
        .into_iter()
        .map(|id| {
            let record = record(&id);
            (id, record)
        })
        .collect())
}

/// Says in the store that this machine issues certificates, when it has the CA's key.
pub(super) async fn announce(pki: &Pki, store: &dyn Store) {
    let mut material = pki.watch();
    let has_ca = |there: &Option<Arc<Material>>| there.as_ref().is_some_and(|m| m.ca.is_some());
    if material.wait_for(has_ca).await.is_err() {
        return;
    }
    let key = keys::issuer(pki.machine.as_str());
    let record = IssuerRecord {
        since_ms: clock::unix_ms(),
    };
    let txn = Txn {
        compares: vec![Compare::Absent(key.clone())],
        ops: vec![Op::Put {
            key,
            value: record.encode(),
            lease: None,
        }],
    };
    loop {
        match store.commit(txn.clone()).await {
            // It says so already.
            Ok(_) | Err(crate::store::Error::Conflict) => return,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MACHINE, Machine, OTHER};
    use super::*;

    /// The certificate of a machine is renewed through another one while its connections go on.
    #[tokio::test]
    async fn a_certificate_past_half_of_its_life_is_renewed_through_a_machine_with_the_cas_key() {
        let issuer = Machine::new().await;
        issuer.announced().await;
        let old_ms = 40 * 60 * 1_000;
        let other = issuer.other(old_ms);
        let before = other.material().unwrap();
        let mut material = other.watch();
        let renewing = Arc::clone(&other);
        let store: Arc<dyn Store> = Arc::clone(&issuer.store) as _;
        let running = tokio::spawn(async move { run(&renewing, &*store).await });
        let is_new = |there: &Option<Arc<Material>>| {
            let there = there.as_ref().unwrap();
            there.identity.serial != before.identity.serial
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), material.wait_for(is_new));
        let after = waited
            .await
            .expect("it is renewed")
            .unwrap()
            .clone()
            .unwrap();
        assert_eq!(after.identity.subject, Subject::Machine(OTHER.into()));
        assert_eq!(
            after.identity.expires_ms / 60_000,
            (after.identity.issued_ms + MACHINE_LIFETIME_MS) / 60_000
        );
        // By its key it is the same machine, and its names are the same.
        assert_eq!(after.identity.names, before.identity.names);
        running.abort();
    }

    #[tokio::test]
    async fn a_machine_with_the_cas_key_renews_its_own_and_without_any_it_is_said() {
        let issuer = Machine::new().await;
        let before = issuer.pki.material().unwrap();
        let alice = issuer.client("user:alice");
        alice.machines().await.unwrap();
        let by = once(&issuer.pki, &before, &*issuer.store).await.unwrap();
        assert_eq!(by, MACHINE);
        let after = issuer.pki.material().unwrap();
        assert_ne!(after.identity.serial, before.identity.serial);
        assert_eq!(after.identity.names, before.identity.names);
        // On the connection that it had, and on another one.
        alice.machines().await.unwrap();
        issuer.client("user:bob").machines().await.unwrap();
        let other = issuer.other(0);
        let material = other.material().unwrap();
        let nobody = crate::store::memory::MemoryStore::new();
        let error = once(&other, &material, &*nobody).await.unwrap_err();
        assert!(error.to_string().contains("has the CA's key"), "{error}");
    }

    /// Somebody who is revoked gets no other certificate.
    #[tokio::test]
    async fn a_revoked_machine_is_not_renewed() {
        let issuer = Machine::new().await;
        issuer.announced().await;
        let other = issuer.other(0);
        let name = format!("machine:{OTHER}");
        issuer.pki.revoked().note([(name, clock::unix_ms())]);
        let material = other.material().unwrap();
        let error = once(&other, &material, &*issuer.store).await.unwrap_err();
        assert!(error.to_string().contains("it was revoked"), "{error}");
    }
}
