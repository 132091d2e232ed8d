//! Keys that unit files are signed with, and signing them.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fleet_core::signed::{self, PublicKey, SIGNATURE, Signature};
use fleet_core::unit_file::UnitFile;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// What the file of a secret key begins with.
const SECRET: &str = "fleet-secret-key ed25519";

/// A key's file is one line.
const MAX_KEY_BYTES: u64 = 4_096;

/// Somebody who signs.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
}

impl Signer {
    /// Reads a secret key.
    pub(crate) fn read(path: &Path) -> Result<Signer, String> {
        let fail = |why: &str| format!("unable to use key {}: {why}", path.display());
        let file = std::fs::File::open(path).map_err(|error| fail(&error.to_string()))?;
        let about = file.metadata().map_err(|error| fail(&error.to_string()))?;
        if about.mode() & 0o077 != 0 {
            return Err(fail("others can read it (chmod 600)"));
        }
        let mut text = String::new();
        file.take(MAX_KEY_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| fail(&error.to_string()))?;
        let digits = text.trim().strip_prefix(SECRET).map(str::trim);
        let secret = digits.and_then(signed::from_hex);
        let pair = secret.and_then(|secret| Ed25519KeyPair::from_pkcs8(&secret).ok());
        let pair = pair.ok_or_else(|| fail("it is no secret key of fleetctl keygen"))?;
        Ok(Signer { pair })
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        let mut key = [0; 32];
        // An Ed25519 key has as many bytes.
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// The unit file with a signature that holds under this name.
    pub(crate) fn sign(&self, name: &str, file: &UnitFile) -> UnitFile {
        let signed = signed::with_signature(file, &self.signature(name, file));
        // A file that can be sent has a serial form, with this line, too.
        signed.normalized().unwrap_or(signed)
    }

    /// The text of a unit file with a signature in it; nothing else of it is changed.
    pub(crate) fn sign_text(&self, name: &str, text: &str) -> Result<String, String> {
        let read = |text: &str| {
            let file = UnitFile::parse(text).and_then(|file| file.normalized());
            file.map_err(|error| error.to_string())
        };
        let file = read(text)?;
        let signature = self.signature(name, &file);
        let line = format!("{SIGNATURE}={signature}");
        let own = format!("{SIGNATURE}=ed25519:{}:", signature.key);
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with(&own))
            .collect();
        let section = lines.iter().position(|line| line.trim_end() == "[X-Fleet]");
        match section {
            Some(at) => lines.insert(at + 1, &line),
            None => lines.extend(["", "[X-Fleet]", &line]),
        }
        let text = lines.join("\n") + "\n";
        // Where the line came to stand it must be what it is meant to be.
        let is_meant = |signed: &UnitFile| {
            signed::message(name, signed) == signed::message(name, &file)
                && signed::signatures(signed).is_ok_and(|all| all.contains(&signature))
        };
        match read(&text) {
            Ok(signed) if is_meant(&signed) => Ok(text),
            Err(error) => Err(error),
            Ok(_) => Err("a signature cannot be written into it: write it plainer".to_owned()),
        }
    }

    fn signature(&self, name: &str, file: &UnitFile) -> Signature {
        let made = self.pair.sign(signed::message(name, file).as_bytes());
        let mut bytes = [0; 64];
        // An Ed25519 signature has as many bytes.
        bytes.copy_from_slice(made.as_ref());
        Signature {
            key: self.public_key().id(),
            bytes,
        }
    }
}

/// Makes a key: the secret one in `path`, the public one beside it, in `path` and `.pub`. Neither may
/// be there.
pub(crate) fn generate(path: &Path) -> Result<(PublicKey, PathBuf), String> {
    let mut public_path = path.as_os_str().to_owned();
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    if public_path.exists() {
        return Err(there_is(&public_path));
    }
    let secret = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let secret = secret.map_err(|_| "this computer gives no random numbers".to_owned())?;
    write_new(
        path,
        0o600,
        &format!("{SECRET} {}\n", signed::to_hex(secret.as_ref())),
    )?;
    let key = Signer::read(path)?.public_key();
    write_new(&public_path, 0o644, &format!("{key}\n"))?;
    Ok((key, public_path))
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), String> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => there_is(path),
        _ => format!("unable to write {}: {error}", path.display()),
    })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| format!("unable to write {}: {error}", path.display()))
}

fn there_is(path: &Path) -> String {
    format!(
        "{} is there already, and a key is never written over: take another name",
        path.display()
    )
}
