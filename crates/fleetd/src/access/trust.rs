//! Which unit files a machine takes: all of them, or those that are signed by a key that it holds.
//!
//! The keys are files on the machine, and so is the demand for signatures: whoever has the store, or
//! may hand in units, can have nothing run here that nobody with a key has signed. A unit that runs is
//! never stopped for want of a signature.

use std::path::Path;

use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::AssignmentRecord;
use fleet_core::signed::{self, PublicKey};
use fleet_core::unit_file::UnitFile;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::load::{self, Error};

/// What a machine demands of unit files. The default: nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trust {
    keys: Option<Vec<PublicKey>>,
}

impl Trust {
    /// Only what one of these keys has signed is taken.
    pub fn only(keys: Vec<PublicKey>) -> Trust {
        Trust { keys: Some(keys) }
    }

    /// How many keys there are; None: nothing is demanded.
    pub fn n_keys(&self) -> Option<usize> {
        self.keys.as_ref().map(Vec::len)
    }

    /// Whether a unit file in serial form is taken.
    ///
    /// # Errors
    /// Why it is not, and what to do.
    pub fn check(&self, name: &UnitName, text: &str) -> Result<(), String> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let refuse = |why: String| Err(refusal(&why));
        let file = match UnitFile::parse(text) {
            // What is signed is the serial form: systemd is to read nothing else.
            Ok(file) if file.to_text() == text => file,
            _ => return refuse("this machine cannot tell what is signed of it".to_owned()),
        };
        let signatures = match signed::signatures(&file) {
            Ok(signatures) => signatures,
            Err(malformed) => return refuse(malformed.to_string()),
        };
        if signatures.is_empty() {
            return refuse("it is not signed".to_owned());
        }
        let messages: Vec<String> = signed::names(name)
            .iter()
            .map(|name| signed::message(name, &file))
            .collect();
        let mut trusted = signatures.iter().filter_map(|signature| {
            let key = keys.iter().find(|key| key.id() == signature.key)?;
            Some((key, signature))
        });
        let mut of_another = None;
        let is_good = trusted.any(|(key, signature)| {
            of_another = Some(&signature.key);
            let key = UnparsedPublicKey::new(&ED25519, &key.0);
            let mut messages = messages.iter();
            messages.any(|message| key.verify(message.as_bytes(), &signature.bytes).is_ok())
        });
        match (is_good, of_another) {
            (true, _) => Ok(()),
            (false, Some(key)) => refuse(format!(
                "its signature by key {key} is not of this name and these contents, which were \
                 changed after it was signed"
            )),
            (false, None) => {
                let by: Vec<&str> = signatures.iter().map(|one| one.key.as_str()).collect();
                refuse(format!(
                    "it is signed by key {}, which this machine does not hold",
                    by.join(", ")
                ))
            }
        }
    }

    /// Whether what a store orders may be written and started here.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn check_order(
        &self,
        name: &UnitName,
        order: &AssignmentRecord,
    ) -> Result<(), String> {
        if self.keys.is_none() {
            return Ok(());
        }
        // A file that is here already is known by its hash: it must be this text's.
        if UnitHash::of(order.text.as_bytes()) != order.hash {
            return Err(refusal("its hash is not that of its contents"));
        }
        self.check(name, &order.text)
    }
}

fn refusal(why: &str) -> String {
    format!(
        "{why}: this machine takes only unit files that are signed by a key that it trusts \
         (require_signed_units; fleetctl sign)"
    )
}

/// Reads what a machine demands: `*.pub` below a directory, a key each line.
///
/// # Errors
/// A key that is none, or that others than root and `owner` could have put there.
pub fn load(required: bool, directory: &Path, owner: u32) -> Result<Trust, Error> {
    if !required {
        return Ok(Trust::default());
    }
    let mut keys = Vec::new();
    for (path, text) in load::texts(directory, "pub", owner)? {
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let key = PublicKey::parse(line).map_err(|error| Error::Meaning {
                path: path.clone(),
                why: format!("{line}: {error}"),
            })?;
            keys.push(key);
        }
    }
    Ok(Trust::only(keys))
}

#[cfg(test)]
pub(crate) mod tests;
