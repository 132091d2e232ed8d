//! TLS over any way to fleetd. The server's certificate is always verified.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError,
    RootCertStore, SignatureScheme,
};

use super::dial::{ByteStream, Dial, Dialing, NoWay};
use super::endpoint::TcpEndpoint;
use super::error::plain;

/// Where distributions keep the CAs that the computer trusts.
const SYSTEM_CAS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Files in PEM form.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFiles {
    /// Certificates of the CAs by which fleetd's is verified; None: those that the computer trusts.
    pub ca: Option<PathBuf>,
    /// Our certificate, and the chain behind it.
    pub certificate: Option<PathBuf>,
    /// The key of our certificate.
    pub key: Option<PathBuf>,
}

/// Why there can be no TLS: a file is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read; worded as by the original.
    #[error("open {}: {}", .path.display(), plain(.source))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no {kind} in PEM form", .path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        kind: &'static str,
    },
    /// A certificate without its key, or the other way round.
    #[error("our {0} is given without the {1}")]
    Half(&'static str, &'static str),
    /// The key is not that of the certificate, or of a kind that is not understood.
    #[error("{} and {} do not fit together: {source}", .certificate.display(), .key.display())]
    BadPair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: RustlsError,
    },
    /// There is nothing to verify fleetd by.
    #[error("this computer has no list of CAs that it trusts")]
    NoSystemCas,
    /// The endpoint's host can stand in no certificate.
    #[error("no certificate can be for \"{0}\"")]
    BadName(String),
    /// No version of TLS is left to speak.
    #[error("{0}")]
    Setup(RustlsError),
}

/// Whether a certificate (DER) is that of the CA that is meant.
pub type IsCa = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Verifies a server by a CA that it shows itself, if it is the one that is meant.
struct Pinned {
    is_ca: IsCa,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pinned")
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let unknown = || RustlsError::from(CertificateError::UnknownIssuer);
        let mut shown = chain.iter();
        let ca = shown.find(|der| (self.is_ca)(der)).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| unknown())?
            .verify_server_cert(certificate, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// TLS on top of another way.
pub struct TlsDial {
    below: Arc<dyn Dial>,
    connector: TlsConnector,
    to: TcpEndpoint,
    name: ServerName<'static>,
    /// For messages.
    ca: PathBuf,
    has_certificate: bool,
    /// By a fingerprint alone.
    is_pinned: bool,
}

impl TlsDial {
    /// TLS with the endpoint over its own TCP connection.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn over_tcp(to: &TcpEndpoint, files: &TlsFiles) -> Result<TlsDial, TlsError> {
        let below = super::dial::TcpDial { to: to.clone() };
        TlsDial::over(Arc::new(below), to, files)
    }

    /// TLS with the endpoint over a way that leads there: a tunnel.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn over(
        below: Arc<dyn Dial>,
        to: &TcpEndpoint,
        files: &TlsFiles,
    ) -> Result<TlsDial, TlsError> {
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| TlsError::BadName(to.host.clone()))?;
        let ca = match &files.ca {
            Some(ca) => ca.clone(),
            None => system_cas()?,
        };
        let config = config(&ca, files)?;
        Ok(TlsDial {
            below,
            connector: TlsConnector::from(Arc::new(config)),
            to: to.clone(),
            name,
            ca,
            has_certificate: files.certificate.is_some(),
            is_pinned: false,
        })
    }

    /// TLS over a way that leads to the endpoint, as set up by the caller, who says whose certificate
    /// is expected; `ca` is for messages.
    pub fn with_config(
        below: Arc<dyn Dial>,
        to: &TcpEndpoint,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
        ca: PathBuf,
    ) -> TlsDial {
        TlsDial {
            below,
            has_certificate: config.client_auth_cert_resolver.has_certs(),
            is_pinned: false,
            connector: TlsConnector::from(config),
            to: to.clone(),
            name,
            ca,
        }
    }

    /// TLS with a fleetd that lets newcomers in, which is verified by a CA that is known by what
    /// `is_ca` says of its certificate (DER) alone. Nothing is believed at first sight.
    ///
    /// # Errors
    /// The endpoint's host can stand in no certificate.
    pub fn pinned(to: &TcpEndpoint, is_ca: IsCa) -> Result<TlsDial, TlsError> {
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| TlsError::BadName(to.host.clone()))?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { is_ca, provider }))
            .with_no_client_auth();
        config.alpn_protocols = vec![crate::v2::JOIN_PROTOCOL.to_vec()];
        let below = Arc::new(super::dial::TcpDial { to: to.clone() });
        let ca = PathBuf::from("the token");
        Ok(TlsDial {
            is_pinned: true,
            ..TlsDial::with_config(below, to, name, Arc::new(config), ca)
        })
    }

    /// The certificates (DER) in a text of PEM; none if it holds anything else.
    pub fn certificates_in(pem: &str) -> Vec<Vec<u8>> {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes());
        let all: Result<Vec<_>, _> = all.map(|der| der.map(|der| der.to_vec())).collect();
        all.unwrap_or_default()
    }

    /// What a failure of TLS means to the user.
    fn no_way(&self, error: &RustlsError) -> NoWay {
        let at = format!("https://{}", self.to.authority());
        let (message, cure) = match error {
            RustlsError::InvalidCertificate(CertificateError::UnknownIssuer) if self.is_pinned => (
                format!(
                    "fleetd at {at} is not trusted: it is not of the cluster that made the token"
                ),
                "is the endpoint right? A machine without the CA's key lets nobody in, either"
                    .to_owned(),
            ),
            RustlsError::InvalidCertificate(CertificateError::UnknownIssuer) => (
                format!(
                    "fleetd at {at} is not trusted: its certificate is signed by no CA in {}",
                    self.ca.display()
                ),
                "name the file of the CA that signed it: --ca-file=FILE or FLEETCTL_CA_FILE"
                    .to_owned(),
            ),
            RustlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => (
                format!(
                    "fleetd at {at} is not trusted: its certificate is for another name than {}",
                    self.to.host
                ),
                "write the endpoint with a name or address that is in the certificate".to_owned(),
            ),
            RustlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => (
                format!("fleetd at {at} is not trusted: its certificate has expired"),
                "renew fleetd's certificate, and look at this computer's clock".to_owned(),
            ),
            RustlsError::InvalidCertificate(CertificateError::Revoked) => (
                format!("fleetd at {at} is not trusted: its certificate was revoked"),
                "another machine may have joined since: look at fleetctl list-machines".to_owned(),
            ),
            RustlsError::InvalidCertificate(why) => (
                format!("fleetd at {at} is not trusted: {why}"),
                "look at fleetd's certificate, and at --ca-file".to_owned(),
            ),
            RustlsError::InvalidMessage(_) => (
                format!("what listens at {} speaks no TLS", self.to.authority()),
                format!("is http://{} meant?", self.to.authority()),
            ),
            RustlsError::AlertReceived(alert) => return self.refused(&at, *alert),
            error => (
                format!("TLS with fleetd at {at} failed: {error}"),
                "look at fleetd's certificate, and at --ca-file".to_owned(),
            ),
        };
        NoWay {
            message,
            cures: vec![cure],
        }
    }

    /// fleetd has ended it.
    fn refused(&self, at: &str, alert: AlertDescription) -> NoWay {
        let (message, cure) = match self.has_certificate {
            false => (
                format!("fleetd at {at} wants a certificate of ours ({alert:?})"),
                "give --cert-file=FILE and --key-file=FILE, signed by a CA that fleetd trusts",
            ),
            true if alert == AlertDescription::CertificateExpired => (
                format!("fleetd at {at} does not accept our certificate: it has expired"),
                "get another one with `fleetctl join` and a new token, and look at this computer's \
                 clock",
            ),
            true if alert == AlertDescription::CertificateRevoked => (
                format!("fleetd at {at} does not accept our certificate: it was revoked"),
                "get another one with `fleetctl join`: an admin makes the token, fleetctl join-token",
            ),
            true => (
                format!("fleetd at {at} does not accept our certificate ({alert:?})"),
                "it must be signed by a CA that fleetd trusts, and be meant for clients: \
                 look at --cert-file",
            ),
        };
        NoWay {
            message,
            cures: vec![cure.to_owned()],
        }
    }
}

impl Dial for TlsDial {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let stream = self.below.dial().await?;
            let stream = self.connector.connect(self.name.clone(), stream).await?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }

    fn describe(&self) -> String {
        self.below.describe()
    }

    fn bound(&self) -> Duration {
        self.below.bound()
    }

    fn explain(&self, error: &io::Error) -> Option<NoWay> {
        let inner = error.get_ref().and_then(|e| e.downcast_ref());
        match inner {
            Some(error) => Some(self.no_way(error)),
            None => self.below.explain(error),
        }
    }
}

fn system_cas() -> Result<PathBuf, TlsError> {
    let mut known = SYSTEM_CAS.iter().map(Path::new);
    let existing = known.find(|path| path.exists());
    existing.map(PathBuf::from).ok_or(TlsError::NoSystemCas)
}

fn config(ca: &Path, files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // A list of the computer's may hold some that we do not understand; one good one is enough.
    let (n_added, _) = roots.add_parsable_certificates(certificates(ca)?);
    if n_added == 0 {
        return Err(not_pem(ca, CERTIFICATE));
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots);
    match (&files.certificate, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|source| TlsError::BadPair {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            }),
        (Some(_), None) => Err(TlsError::Half("certificate", "key")),
        (None, Some(_)) => Err(TlsError::Half("key", "certificate")),
    }
}

const CERTIFICATE: &str = "certificate";

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(not_pem(path, CERTIFICATE)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| not_pem(path, "private key"))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn not_pem(path: &Path, kind: &'static str) -> TlsError {
    TlsError::NotPem {
        path: path.to_owned(),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>) -> String {
        let to = TcpEndpoint {
            host: "fleet.example".into(),
            port: 443,
            base: String::new(),
            tls: true,
        };
        let files = TlsFiles {
            ca: ca.map(PathBuf::from),
            certificate: certificate.map(PathBuf::from),
            key: key.map(PathBuf::from),
        };
        TlsDial::over_tcp(&to, &files).err().unwrap().to_string()
    }

    #[test]
    fn files_that_are_missing_or_hold_something_else() {
        let none = Path::new("/nonexistent/ca.pem");
        assert_eq!(
            error(Some(none), None, None),
            "open /nonexistent/ca.pem: no such file or directory"
        );
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("odd.pem");
        for text in [
            "",
            "no certificate\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&odd, text).unwrap();
            assert_eq!(
                error(Some(&odd), None, None),
                format!("{} holds no certificate in PEM form", odd.display())
            );
        }
    }
}
