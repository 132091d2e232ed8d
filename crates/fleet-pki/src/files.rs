//! Where certificates and keys are kept, and how they are written: a key can be read by its owner
//! alone, from the first moment, and no key is ever overwritten.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where a machine's are.
pub const MACHINE_DIRECTORY: &str = "/etc/fleet/pki";
/// The CA's certificate.
pub const CA: &str = "ca.pem";
/// The CA's key.
pub const CA_KEY: &str = "ca.key";
/// The machine's certificate.
pub const MACHINE: &str = "machine.pem";
/// The machine's key.
pub const MACHINE_KEY: &str = "machine.key";
/// A person's certificate.
pub const USER: &str = "user.pem";
/// A person's key.
pub const USER_KEY: &str = "user.key";

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {}: {source}", .path.display())]
pub struct Error {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes a key: only its owner can read it, and if there is one already it stays and this fails.
///
/// # Errors
/// There is one, or it cannot be written.
pub fn write_key(path: &Path, pem: &str) -> Result<(), Error> {
    let write = || {
        let mut file = new_file(path, 0o600)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| error(path, source))
}

/// Replaces a file that anybody may read: readers see the old one or the new one.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    let write = || {
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = new_file(&fresh, 0o644)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|source| error(path, source))
}

/// Makes the directory that the files go to: others may enter it, the keys are closed themselves.
///
/// # Errors
/// It cannot be made.
pub fn directory(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| error(path, source))
}

fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

fn error(path: &Path, source: io::Error) -> Error {
    Error {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_its_owners_alone_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write_key(&path, "one").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = write_key(&path, "two").unwrap_err();
        assert_eq!(refused.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    }

    #[test]
    fn a_certificate_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pki/a.pem");
        assert!(replace(&path, "one").is_err());
        directory(path.parent().unwrap()).unwrap();
        // What a crash left over.
        std::fs::write(path.with_extension("new"), "half").unwrap();
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert!(!path.with_extension("new").exists());
    }
}
