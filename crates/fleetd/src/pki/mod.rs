//! TLS of the API: this machine's certificate, whom it believes, and who was revoked.
//!
//! Nothing of it is there until a certificate is: a machine without one pays neither memory nor
//! time. What is read again (after a reload, a renewal) is for new connections; those that are open
//! go on with what they began with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fleet_api::client::{Dial, TcpEndpoint, TlsDial};
use fleet_api::v2::JOIN_PROTOCOL;
use fleet_core::records::MachineId;
use fleet_pki::{Ca, Identity, Subject};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::{info, warn};

use crate::clock;
use crate::config::Config;
use crate::peer::{Plaintext, Way};
use crate::shutdown::{Shutdown, stopped};
use crate::store::Store;

mod handshake;
mod renew;
mod revoked;
#[cfg(test)]
pub(crate) mod tests;
mod used;
mod verify;

pub(crate) use handshake::{Admitted, admit, ended, speaks_tls};
pub(crate) use renew::issuers;
pub use revoked::Revoked;
pub(crate) use revoked::{CLOCK_SKEW_MS as REVOKED_SKEW_MS, MAX_REVOKED, SERIAL};
use used::Used;
use verify::{ClientsOfCluster, MachinesOfCluster};

/// Handshakes at once: each costs a signature, and whoever makes one is not known yet. Further ones
/// are cut off, so that strangers do not keep members out for long.
const MAX_HANDSHAKES: usize = 128;

/// Where TLS takes its files from (PEM).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// This machine's certificate, and the chain behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs whose certificates are believed.
    pub ca: PathBuf,
    /// The key of the cluster's CA, on machines that issue certificates.
    pub ca_key: PathBuf,
    /// Somebody has said where they are: it is a fault if they are not there.
    pub are_named: bool,
}

impl Files {
    /// As configured.
    pub fn from_config(config: &Config) -> Files {
        let usual = Config::for_system();
        let are_usual =
            config.api_certfile == usual.api_certfile && config.api_keyfile == usual.api_keyfile;
        Files {
            are_named: !are_usual && !config.systemd_user,
            certificate: config.api_certfile.clone(),
            key: config.api_keyfile.clone(),
            ca: config.api_cafile.clone(),
            ca_key: config.api_cakeyfile.clone(),
        }
    }
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One holds something else.
    #[error("{path} holds no {kind} in PEM form")]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        kind: &'static str,
    },
    /// The key is another one's.
    #[error("{certificate} and {key} do not fit together: {why}")]
    BadPair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate that says nothing, or the CA's key does not fit.
    #[error("{path} cannot be used: {source}")]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why.
        source: fleet_pki::Error,
    },
    /// A certificate of another machine.
    #[error("{path} is for {subject}, this machine is {machine}")]
    OtherMachine {
        /// Which.
        path: PathBuf,
        /// Whom it is for.
        subject: Subject,
        /// Who this is.
        machine: MachineId,
    },
    /// An address that can stand in no certificate.
    #[error("failed to set up TLS: {0}")]
    Setup(String),
}

/// Everything that TLS is made of at one time.
pub struct Material {
    /// For whoever shows a certificate.
    server: Arc<ServerConfig>,
    /// For whoever wants one.
    join: Arc<ServerConfig>,
    /// For calls to other machines.
    client: Arc<ClientConfig>,
    /// Whose this machine's certificate is.
    identity: Identity,
    /// On a machine that issues certificates.
    ca: Option<Ca>,
    files: Files,
}

/// Files that were read, and can be used.
pub(crate) struct Ready {
    files: Files,
    material: Option<Arc<Material>>,
}

/// TLS of this machine, if it has any. It may come, and be renewed, while fleetd runs.
pub struct Pki {
    machine: MachineId,
    material: watch::Sender<Option<Arc<Material>>>,
    files: Mutex<Files>,
    revoked: Arc<Revoked>,
    used: Used,
    handshakes: Arc<Semaphore>,
}

impl Pki {
    /// None at all, until it is told of files ([`Pki::load`]). `state` is where it is remembered who
    /// was revoked; None: nowhere.
    pub fn new(machine: MachineId, state: Option<&Path>) -> Arc<Pki> {
        Arc::new(Pki {
            machine,
            material: watch::Sender::new(None),
            files: Mutex::default(),
            revoked: Revoked::open(state),
            used: Used::open(state),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        })
    }

    /// None at all: no files, nothing remembered.
    pub fn off() -> Arc<Pki> {
        Pki::new(MachineId::new(""), None)
    }

    /// Reads the files; with neither certificate nor key at their usual places there is no TLS.
    ///
    /// # Errors
    /// What is wrong with them; then everything stays as it was.
    pub fn load(&self, files: &Files) -> Result<(), Error> {
        let ready = self.read(files)?;
        self.take(ready);
        Ok(())
    }

    /// The first half of [`Pki::load`]: nothing is changed yet.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(crate) fn read(&self, files: &Files) -> Result<Ready, Error> {
        let are_there = files.certificate.exists() || files.key.exists();
        let material = match files.are_named || are_there {
            true => Some(Arc::new(Material::read(
                files,
                &self.machine,
                &self.revoked,
            )?)),
            false => None,
        };
        Ok(Ready {
            files: files.clone(),
            material,
        })
    }

    /// The second half of [`Pki::load`].
    pub(crate) fn take(&self, ready: Ready) {
        let Ready { files, material } = ready;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        if let Some(material) = &material {
            material.tell();
        }
        self.material.send_if_modified(|current| {
            let is_new = material.is_some() || current.is_some();
            *current = material;
            is_new
        });
    }

    /// Reads the same files again.
    ///
    /// # Errors
    /// What is wrong with them; then everything stays as it was.
    pub(crate) fn load_again(&self) -> Result<(), Error> {
        let files = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.clone()
        };
        self.load(&files)
    }

    /// What there is now.
    pub(crate) fn material(&self) -> Option<Arc<Material>> {
        self.material.borrow().clone()
    }

    /// Hears of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<Material>>> {
        self.material.subscribe()
    }

    /// Whose TLS it is.
    pub(crate) fn machine(&self) -> &MachineId {
        &self.machine
    }

    /// Who was revoked.
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Which join tokens were used here.
    pub(crate) fn used(&self) -> &Used {
        &self.used
    }

    /// Whether the API is served over TLS here.
    pub fn has_tls(&self) -> bool {
        self.material.borrow().is_some()
    }
}

/// Mutual TLS with this machine's certificate, and only with a machine whose certificate says that it
/// is the one that is meant, wherever it is. As long as this machine has no certificate: plaintext, which
/// only fleetds with `api_insecure` answer to. Never plaintext because TLS has failed.
impl Way for Pki {
    fn to(&self, machine: &MachineId, at: &TcpEndpoint) -> Arc<dyn Dial> {
        let below = Plaintext.to(machine, at);
        let Some(material) = self.material() else {
            return below;
        };
        let Ok(name) = ServerName::try_from(machine.as_str().to_owned()) else {
            return below;
        };
        let config = Arc::clone(&material.client);
        let ca = material.files.ca.clone();
        Arc::new(TlsDial::with_config(below, at, name, config, ca))
    }
}

impl Material {
    /// The CA with its key, if this machine has it.
    pub(crate) fn ca(&self) -> Option<&Ca> {
        self.ca.as_ref()
    }

    /// Whose this machine's certificate is.
    #[cfg(test)]
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read(files: &Files, machine: &MachineId, revoked: &Arc<Revoked>) -> Result<Material, Error> {
        let chain = certificates(&files.certificate)?;
        let key = private_key(&files.key)?;
        let unfit = |path: &Path| {
            let path = path.to_owned();
            |source| Error::Unfit { path, source }
        };
        let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let identity = Identity::read(first).map_err(unfit(&files.certificate))?;
        if let subject @ Subject::Machine(id) = &identity.subject
            && id != machine.as_str()
        {
            return Err(Error::OtherMachine {
                path: files.certificate.clone(),
                subject: subject.clone(),
                machine: machine.clone(),
            });
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&files.ca)?);
        let roots = Arc::new(roots);
        let ca = match files.ca_key.exists() {
            true => {
                warn_of_readers(&files.ca_key);
                let (bundle, key) = (text(&files.ca)?, text(&files.ca_key)?);
                Some(Ca::open(&bundle, &key).map_err(unfit(&files.ca_key))?)
            }
            false => None,
        };
        warn_of_readers(&files.key);
        let setup = |why: String| Error::Setup(why);
        let bad_pair = |error: tokio_rustls::rustls::Error| Error::BadPair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            why: error.to_string(),
        };
        let provider = Arc::new(ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| setup(error.to_string()))?;
        let servers =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| setup(error.to_string()))?;
        let serving = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| setup(error.to_string()))
        };
        let mut server = serving()?
            .with_client_cert_verifier(Arc::new(ClientsOfCluster {
                clients,
                revoked: Arc::clone(revoked),
            }))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(bad_pair)?;
        // Who comes back is looked at like everybody else: meanwhile its certificate may have ended.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        // A newcomer knows the CA by its fingerprint alone.
        let mut with_ca = chain.clone();
        with_ca.extend(ca.iter().map(|ca| ca.certificate_der().to_vec().into()));
        let mut join = serving()?
            .with_no_client_auth()
            .with_single_cert(with_ca, key.clone_key())
            .map_err(bad_pair)?;
        join.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
        join.session_storage = Arc::new(NoServerSessionStorage {});
        join.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(MachinesOfCluster {
                servers,
                revoked: Arc::clone(revoked),
            }))
            .with_client_auth_cert(chain, key)
            .map_err(bad_pair)?;
        client.resumption = Resumption::disabled();
        Ok(Material {
            server: Arc::new(server),
            join: Arc::new(join),
            client: Arc::new(client),
            identity,
            ca,
            files: files.clone(),
        })
    }

    fn tell(&self) {
        let left_ms = self.identity.expires_ms.saturating_sub(clock::unix_ms());
        let subject = self.identity.subject.to_string();
        info!(
            subject,
            serial = self.identity.serial,
            valid_for_s = left_ms / 1_000,
            issues_certificates = self.ca.is_some(),
            "the API is served over TLS"
        );
        if left_ms == 0 {
            warn!(
                subject,
                certificate = %self.files.certificate.display(),
                "this machine's certificate has expired: nobody believes it. `fleetctl join` with a \
                 new token gets another one"
            );
        }
    }
}

/// Keeps TLS what it should be, while there is any, until told to stop.
pub(crate) async fn run(pki: Arc<Pki>, store: Arc<dyn Store>, mut shutdown: Shutdown) {
    let mut material = pki.watch();
    tokio::select! {
        // Where there is no TLS, nothing is asked of the store.
        there = material.wait_for(Option::is_some) => {
            if there.is_err() {
                return;
            }
        }
        () = stopped(&mut shutdown) => return,
    }
    let work = async {
        let heard = pki.revoked.follow(Arc::clone(&store), shutdown.clone());
        tokio::join!(
            heard,
            renew::run(&pki, &*store),
            renew::announce(&pki, &*store)
        );
    };
    let mut stop = shutdown.clone();
    tokio::select! {
        () = work => {}
        () = stopped(&mut stop) => {}
    }
}

/// Who can read a key can be whom it is of.
fn warn_of_readers(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & 0o077 != 0 {
        warn!(
            key = %path.display(),
            "others than its owner can read this key: chmod 0600 it"
        );
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = text(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Error::NotPem {
            path: path.to_owned(),
            kind: "certificate",
        }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text(path)?.as_bytes()).map_err(|_| Error::NotPem {
        path: path.to_owned(),
        kind: "private key",
    })
}

fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}
