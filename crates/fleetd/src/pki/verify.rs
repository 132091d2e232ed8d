//! What a certificate must be besides signed and in its time: it names somebody, who was not
//! revoked; and who serves is a machine.

use std::fmt;
use std::sync::Arc;

use fleet_pki::{Identity, Subject};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
};

use super::Revoked;

/// Whose certificate a client shows.
pub(super) struct ClientsOfCluster {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) revoked: Arc<Revoked>,
}

/// Whose certificate a server shows that this machine calls.
pub(super) struct MachinesOfCluster {
    pub(super) servers: Arc<WebPkiServerVerifier>,
    pub(super) revoked: Arc<Revoked>,
}

fn identity(certificate: &CertificateDer<'_>, revoked: &Revoked) -> Result<Identity, Error> {
    let identity =
        Identity::read(certificate).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    match revoked.has(&identity) {
        false => Ok(identity),
        true => Err(CertificateError::Revoked.into()),
    }
}

impl ClientCertVerifier for ClientsOfCluster {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.clients.verify_client_cert(certificate, chain, now)?;
        identity(certificate, &self.revoked)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

impl ServerCertVerifier for MachinesOfCluster {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .servers
            .verify_server_cert(certificate, chain, name, ocsp, now)?;
        match identity(certificate, &self.revoked)?.subject {
            Subject::Machine(_) => Ok(verified),
            Subject::User(_) => Err(CertificateError::InvalidPurpose.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.servers.supported_verify_schemes()
    }
}

impl fmt::Debug for ClientsOfCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientsOfCluster")
    }
}

impl fmt::Debug for MachinesOfCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachinesOfCluster")
    }
}
