//! The cluster's CA, and requests to it.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{SERIAL_BYTES, SERIAL_MARK};
use crate::{
    CA_LIFETIME_MS, CLOCK_SKEW_MS, Error, Subject, check_dns_name, check_machine_id, check_name,
    hex, random,
};

/// Largest request that is looked at; fleet's own are half a kilobyte.
const MAX_REQUEST_BYTES: usize = 8 << 10;

/// SHA-256 of a CA's certificate (DER).
pub type Fingerprint = [u8; 32];

/// The fingerprint of a certificate (DER).
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, der).as_ref());
    fingerprint
}

/// A CA with its key: whoever has it says who belongs to the cluster.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    bundle_pem: String,
    fingerprint: Fingerprint,
}

impl std::fmt::Debug for Ca {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ca").field(&hex(&self.fingerprint)).finish()
    }
}

/// What the CA is to sign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// For whom.
    pub subject: Subject,
    /// A user's role.
    pub role: Option<String>,
    /// Host names and addresses of a machine, besides its id.
    pub names: Vec<String>,
    /// How long it shall be valid.
    pub lifetime_ms: u64,
}

/// A new key, and the request to certify it. The key stays where it was made.
pub struct KeyAndRequest {
    /// The private key (PEM, PKCS #8).
    pub key_pem: String,
    /// The request (PEM, PKCS #10).
    pub request_pem: String,
}

impl KeyAndRequest {
    /// A new key (ECDSA P-256) and its request.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn new(subject: &Subject) -> Result<KeyAndRequest, Error> {
        let key = KeyPair::generate().map_err(crypto)?;
        Ok(KeyAndRequest {
            request_pem: request(&key, subject)?,
            key_pem: key.serialize_pem(),
        })
    }

    /// A new request for a key that there is.
    ///
    /// # Errors
    /// It is no key.
    pub fn again(key_pem: &str, subject: &Subject) -> Result<KeyAndRequest, Error> {
        let key = key_pair(key_pem)?;
        Ok(KeyAndRequest {
            request_pem: request(&key, subject)?,
            key_pem: key_pem.to_owned(),
        })
    }
}

fn request(key: &KeyPair, subject: &Subject) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(subject.name());
    let request = params.serialize_request(key).map_err(crypto)?;
    request.pem().map_err(crypto)
}

impl Ca {
    /// A new CA, and its key (PEM).
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn create(now_ms: u64) -> Result<(Ca, String), Error> {
        let key = KeyPair::generate().map_err(crypto)?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        // CAs of two clusters are told apart by it.
        let name = format!("fleet CA {}", hex(&random::<4>()?));
        params.distinguished_name = common_name(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now_ms, CA_LIFETIME_MS)?;
        let certificate = params.self_signed(&key).map_err(crypto)?;
        Ok((Ca::open(&certificate.pem(), &key_pem)?, key_pem))
    }

    /// A CA from its files (PEM). In that of the certificates others may stand, too, which are
    /// believed as well: the old one, while another takes over.
    ///
    /// # Errors
    /// They cannot be read, or the key is that of none of them.
    pub fn open(bundle_pem: &str, key_pem: &str) -> Result<Ca, Error> {
        let bad = |why: &dyn std::fmt::Display| Error::BadCertificate(why.to_string());
        let key = key_pair(key_pem)?;
        let mut own = None;
        for pem in Pem::iter_from_buffer(bundle_pem.as_bytes()) {
            let pem = pem.map_err(|error| bad(&error))?;
            let (_, certificate) =
                X509Certificate::from_der(&pem.contents).map_err(|error| bad(&error))?;
            if certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
                own = Some(pem.contents);
                break;
            }
        }
        let Some(der) = own else {
            return Err(Error::OtherKey);
        };
        let issuer =
            Issuer::from_ca_cert_der(&der.as_slice().into(), key).map_err(|error| bad(&error))?;
        Ok(Ca {
            issuer,
            bundle_pem: bundle_pem.to_owned(),
            fingerprint: fingerprint(&der),
            der,
        })
    }

    /// Its certificate (PEM), and those of others that are believed: everybody may have them.
    pub fn bundle_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// Its certificate (DER).
    pub fn certificate_der(&self) -> &[u8] {
        &self.der
    }

    /// Of its certificate.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// A key that only this CA can have, for this use.
    pub(crate) fn secret(&self, purpose: &str) -> ring::hmac::Key {
        let of_ca =
            ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.issuer.key().serialized_der());
        let secret = ring::hmac::sign(&of_ca, purpose.as_bytes());
        ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_ref())
    }

    /// Signs a certificate for the key of a request. Of the request nothing else counts: who it is
    /// for, and what it may, is the grant's.
    ///
    /// # Errors
    /// The request is none, or is not signed by its own key; a name in the grant is none.
    pub fn sign(&self, request_pem: &str, grant: &Grant, now_ms: u64) -> Result<String, Error> {
        if request_pem.len() > MAX_REQUEST_BYTES {
            return Err(Error::BadRequest(format!(
                "it is longer than {MAX_REQUEST_BYTES} bytes"
            )));
        }
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|error| Error::BadRequest(error.to_string()))?;
        let params = self.params(grant, now_ms)?;
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(crypto)?;
        Ok(certificate.pem())
    }

    fn params(&self, grant: &Grant, now_ms: u64) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(grant.subject.name());
        let mut names = vec![SanType::URI(
            grant.subject.uri().try_into().map_err(crypto)?,
        )];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        match &grant.subject {
            Subject::Machine(id) => {
                check_machine_id(id)?;
                params
                    .extended_key_usages
                    .push(ExtendedKeyUsagePurpose::ServerAuth);
                names.push(SanType::DnsName(id.as_str().try_into().map_err(crypto)?));
                for name in &grant.names {
                    check_dns_name(name)?;
                    names.push(match name.parse::<IpAddr>() {
                        Ok(ip) => SanType::IpAddress(ip),
                        Err(_) => SanType::DnsName(name.as_str().try_into().map_err(crypto)?),
                    });
                }
            }
            Subject::User(name) => check_name("user", name)?,
        }
        if let Some(role) = &grant.role {
            check_name("role", role)?;
            params
                .distinguished_name
                .push(DnType::OrganizationName, role.as_str());
        }
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(now_ms)?);
        valid(&mut params, now_ms, grant.lifetime_ms)?;
        Ok(params)
    }
}

/// When it is signed, and chance: a revocation counts from a time, and `valid from` is before it.
fn serial(now_ms: u64) -> Result<SerialNumber, Error> {
    let mut serial = random::<SERIAL_BYTES>()?;
    serial[0] = SERIAL_MARK;
    serial[1..7].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    Ok(SerialNumber::from_slice(&serial))
}

fn valid(params: &mut CertificateParams, now_ms: u64, lifetime_ms: u64) -> Result<(), Error> {
    params.not_before = date(now_ms.saturating_sub(CLOCK_SKEW_MS))?;
    params.not_after = date(now_ms + lifetime_ms)?;
    Ok(())
}

fn date(ms: u64) -> Result<OffsetDateTime, Error> {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| Error::Crypto(format!("there is no date {ms} ms after 1970")))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn key_pair(key_pem: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pem(key_pem).map_err(|error| Error::BadKey(error.to_string()))
}

fn crypto(error: rcgen::Error) -> Error {
    Error::Crypto(error.to_string())
}

#[cfg(test)]
mod tests;
