//! Unit files, signed and tampered with.

use fleet_core::records::{Decision, Order};
use fleet_core::signed::{Signature, with_signature};
use fleet_core::unit_file::UnitOption;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

const UNIT: &str = "[Service]\nExecStart=/bin/sleep 9\n\n[X-Fleet]\nGlobal=no\n";

fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    (pair, PublicKey(public))
}

/// The key that [`sign`] signs with.
pub(crate) fn public_key(seed: u8) -> PublicKey {
    pair(seed).1
}

/// The unit file, signed under this name.
pub(crate) fn sign(text: &str, name: &str, seed: u8) -> String {
    let file = UnitFile::parse(text).unwrap();
    let (pair, public) = pair(seed);
    let made = pair.sign(signed::message(name, &file).as_bytes());
    let signature = Signature {
        key: public.id(),
        bytes: made.as_ref().try_into().unwrap(),
    };
    with_signature(&file, &signature)
        .normalized()
        .unwrap()
        .to_text()
}

fn check(trust: &Trust, name: &str, text: &str) -> Result<(), String> {
    trust.check(&UnitName::parse(name).unwrap(), text)
}

#[test]
fn only_what_a_trusted_key_has_signed_under_its_name_is_taken() {
    let trust = Trust::only(vec![pair(1).1, pair(2).1]);
    let signed = sign(UNIT, "a.service", 1);
    assert_eq!(check(&trust, "a.service", &signed), Ok(()));
    let both = sign(&sign(UNIT, "a.service", 9), "a.service", 2);
    assert_eq!(check(&trust, "a.service", &both), Ok(()));
    for (name, text, why) in [
        ("a.service", UNIT.to_owned(), "it is not signed"),
        (
            "b.service",
            signed.clone(),
            "is not of this name and these contents",
        ),
        (
            "a.service",
            signed.replace("sleep 9", "sleep 8"),
            "is not of this name",
        ),
        (
            "a.service",
            signed.replace("[Service]", "[Service]\nUser=root"),
            "is not of this name",
        ),
        (
            "a.service",
            signed.replace("Global=no", "Global=yes"),
            "is not of this name",
        ),
        (
            "a.service",
            sign(UNIT, "a.service", 9),
            "which this machine does not hold",
        ),
        (
            "a.service",
            signed.replace("Signature=ed25519:", "Signature="),
            "its Signature= is none",
        ),
        // The comment is no part of the serial form, and of no signature.
        (
            "a.service",
            format!("# x\n{signed}"),
            "cannot tell what is signed",
        ),
        (
            "a.service",
            signed.replace("sleep 9\n", "sleep 9 \n"),
            "cannot tell what is signed",
        ),
    ] {
        let said = check(&trust, name, &text).unwrap_err();
        assert!(
            said.contains(why) && said.contains("fleetctl sign"),
            "{said}"
        );
        // Elsewhere everything is taken.
        assert_eq!(check(&Trust::default(), name, &text), Ok(()));
    }
    assert!(check(&Trust::only(Vec::new()), "a.service", &signed).is_err());
}

#[test]
fn a_templates_signature_covers_its_instances_and_no_other_units() {
    let trust = Trust::only(vec![pair(1).1]);
    let template = sign(UNIT, "web@.service", 1);
    assert_eq!(check(&trust, "web@1.service", &template), Ok(()));
    assert!(check(&trust, "web.service", &template).is_err());
    assert!(check(&trust, "other@1.service", &template).is_err());
    let instance = sign(UNIT, "web@1.service", 1);
    assert_eq!(check(&trust, "web@1.service", &instance), Ok(()));
    assert!(check(&trust, "web@2.service", &instance).is_err());
}

#[test]
fn a_text_hidden_behind_a_signature_is_refused() {
    let trust = Trust::only(vec![pair(1).1]);
    let file = UnitFile::parse(sign(UNIT, "a.service", 1)).unwrap();
    for value in ["x\\\n[Service]\\\nExecStart=/bin/evil", "[Service]"] {
        let more = UnitOption::new("X-Fleet", "Signature", value);
        let options = file.options().iter().cloned().chain([more]).collect();
        let text = UnitFile::from_options(options).to_text();
        assert!(check(&trust, "a.service", &text).is_err(), "{text}");
    }
}

#[test]
fn a_hash_of_other_contents_lets_nothing_start() {
    let trust = Trust::only(vec![pair(1).1]);
    let text = sign(UNIT, "a.service", 1);
    let mut order = AssignmentRecord {
        hash: UnitHash::of(text.as_bytes()),
        text: text.as_str().into(),
        decision: Decision::default(),
        order: Order::Launched,
        restarts: 0,
        reason: String::new(),
    };
    let name = UnitName::parse("a.service").unwrap();
    assert_eq!(trust.check_order(&name, &order), Ok(()));
    // That of a file which is here already, and was taken before signatures were demanded.
    order.hash = UnitHash::of(UNIT.as_bytes());
    assert!(trust.check_order(&name, &order).is_err());
    assert_eq!(Trust::default().check_order(&name, &order), Ok(()));
}

#[test]
fn keys_are_read_from_files_that_only_root_can_write() {
    let directory = tempfile::tempdir().unwrap();
    let owner = load::myself();
    let path = directory.path().join("ops.pub");
    let text = format!("# ours\n{} alice\n\n{}\n", pair(1).1, pair(2).1);
    std::fs::write(&path, text).unwrap();
    std::fs::write(directory.path().join("ops.key"), "nonsense").unwrap();
    let trust = load(true, directory.path(), owner).unwrap();
    assert_eq!(trust, Trust::only(vec![pair(1).1, pair(2).1]));
    assert_eq!(
        load(false, directory.path(), owner).unwrap(),
        Trust::default()
    );
    // Nothing is taken by keys that are not there.
    let none = load(true, &directory.path().join("absent"), owner).unwrap();
    assert_eq!(none.n_keys(), Some(0));
    std::fs::write(&path, "ed25519 zz\n").unwrap();
    let error = load(true, directory.path(), owner).unwrap_err().to_string();
    assert!(
        error.contains("ops.pub") && error.contains("no public key"),
        "{error}"
    );
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).unwrap();
    let error = load(true, directory.path(), owner).unwrap_err().to_string();
    assert!(error.contains("has mode 0646"), "{error}");
}
