use super::*;
use crate::{Identity, MACHINE_LIFETIME_MS};

const NOW: u64 = 1_800_000_000_123;
const MACHINE: &str = "148a18ff6e954cd892dac9de9bb90d5a";

fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .unwrap()
        .1
        .contents
}

fn machine() -> Grant {
    Grant {
        subject: Subject::Machine(MACHINE.into()),
        role: None,
        names: vec!["node1.example".into(), "10.0.0.1".into(), "::1".into()],
        lifetime_ms: MACHINE_LIFETIME_MS,
    }
}

fn signed(ca: &Ca, grant: &Grant) -> Identity {
    let request = KeyAndRequest::new(&grant.subject).unwrap();
    Identity::read(&der(&ca.sign(&request.request_pem, grant, NOW).unwrap())).unwrap()
}

#[test]
fn a_certificate_says_whose_it_is_and_until_when() {
    let (ca, key) = Ca::create(NOW).unwrap();
    let ca = Ca::open(ca.bundle_pem(), &key).unwrap();
    let identity = signed(&ca, &machine());
    assert_eq!(identity.subject, Subject::Machine(MACHINE.into()));
    assert_eq!(identity.roles, [""; 0]);
    assert_eq!(identity.issued_ms, NOW, "to the millisecond");
    assert_eq!(identity.valid_from_ms, NOW - 123 - CLOCK_SKEW_MS);
    assert_eq!(identity.expires_ms, NOW - 123 + MACHINE_LIFETIME_MS);
    assert_eq!(
        identity.names,
        [MACHINE, "node1.example", "10.0.0.1", "::1"]
    );
    let alice = Grant {
        subject: Subject::User("alice".into()),
        role: Some("operator".into()),
        names: vec!["node1.example".into()],
        ..machine()
    };
    let identity = signed(&ca, &alice);
    assert_eq!(identity.subject, Subject::User("alice".into()));
    assert_eq!(identity.roles, ["operator"]);
    assert_eq!(identity.names, [""; 0], "a person is no server");
    assert_eq!(
        format!("{:?}", ca).len(),
        "Ca(\"\")".len() + 64,
        "no key in logs"
    );
}

/// A request is only a key: what else it asks for is not given.
#[test]
fn what_a_request_asks_for_does_not_count() {
    let (ca, _) = Ca::create(NOW).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    params.distinguished_name = common_name("root");
    params
        .distinguished_name
        .push(DnType::OrganizationName, crate::ADMIN);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let pem = ca.sign(&request, &machine(), NOW).unwrap();
    let identity = Identity::read(&der(&pem)).unwrap();
    assert_eq!(identity.subject, Subject::Machine(MACHINE.into()));
    assert_eq!(identity.roles, [""; 0]);
    assert!(!identity.names.contains(&"other.example".to_owned()));
    let der = der(&pem);
    let (_, certificate) = x509_parser::prelude::X509Certificate::from_der(&der).unwrap();
    assert!(!certificate.is_ca());
}

#[test]
fn a_request_must_be_signed_by_its_own_key() {
    let (ca, _) = Ca::create(NOW).unwrap();
    let good = KeyAndRequest::new(&machine().subject).unwrap().request_pem;
    let mut bytes = der(&good);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let bad = CertificateSigningRequestParams::from_der(&bytes.as_slice().into());
    assert!(bad.is_err());
    for request in ["", "nonsense", &"x".repeat(MAX_REQUEST_BYTES + 1)] {
        let refused = ca.sign(request, &machine(), NOW);
        assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let (ca, _) = Ca::create(NOW).unwrap();
    let request = KeyAndRequest::new(&machine().subject).unwrap().request_pem;
    let user = |name: &str| Grant {
        subject: Subject::User(name.into()),
        ..machine()
    };
    let named = |name: &str| Grant {
        names: vec![name.into()],
        ..machine()
    };
    let role = Grant {
        role: Some(String::new()),
        ..user("alice")
    };
    let id = Grant {
        subject: Subject::Machine("m1".into()),
        ..machine()
    };
    for grant in [
        user(""),
        user("a/b"),
        user("a b"),
        named("*.example"),
        named("f00018ff6e954cd892dac9de9bb90d5a"),
        role,
        id,
    ] {
        let refused = ca.sign(&request, &grant, NOW);
        assert!(matches!(refused, Err(Error::BadName(_))), "{grant:?}");
    }
}

#[test]
fn a_ca_is_opened_with_its_own_key_only() {
    let (ca, key) = Ca::create(NOW).unwrap();
    let (_, other) = Ca::create(NOW).unwrap();
    let open = |certificate: &str, key: &str| Ca::open(certificate, key).map(|_| ());
    assert!(matches!(
        open(ca.bundle_pem(), &other),
        Err(Error::OtherKey)
    ));
    assert!(matches!(open(ca.bundle_pem(), "x"), Err(Error::BadKey(_))));
    assert!(matches!(open("x", &key), Err(Error::OtherKey)));
    // While one takes over from another, both are believed.
    let (next, next_key) = Ca::create(NOW).unwrap();
    let both = format!("{}{}", ca.bundle_pem(), next.bundle_pem());
    let opened = Ca::open(&both, &next_key).unwrap();
    assert_eq!(opened.fingerprint(), next.fingerprint());
    assert_eq!(opened.bundle_pem(), both);
}
