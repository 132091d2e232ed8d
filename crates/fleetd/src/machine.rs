//! Who this machine is: its id, and whether a systemd runs on it.

use std::path::{Path, PathBuf};

use fleet_core::records::MachineId;

/// What makes this computer unfit for fleetd.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No id.
    #[error(
        "unable to determine local machine ID from {path}: {why}. \
         `systemd-machine-id-setup` makes one"
    )]
    NoId {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No systemd.
    #[error(
        "no systemd runs on this computer ({0} is missing), and fleetd drives systemd. To try \
         fleet here, `make demo` boots real systemd machines on this computer (fleet-sandbox)"
    )]
    NoSystemd(PathBuf),
    /// No systemd of this user.
    #[error(
        "no systemd of this user runs ({0} is missing). Log in through logind, or \
         `loginctl enable-linger`"
    )]
    NoUserSystemd(PathBuf),
}

/// Where a machine's id is written: machine-id(5).
pub const ID_FILE: &str = "/etc/machine-id";

/// The id in `/etc/machine-id`: 32 hex digits.
pub fn id(path: &Path) -> Result<MachineId, Error> {
    let fail = |why: &str| Error::NoId {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let text = std::fs::read_to_string(path).map_err(|err| fail(&err.to_string()))?;
    let id = text.trim();
    if id.is_empty() {
        return Err(fail("it is empty"));
    }
    // machine-id(5). Anything else would also be unsafe as a part of keys.
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(fail(&format!("{id:?} is not 32 hex digits")));
    }
    Ok(MachineId::new(&id.to_ascii_lowercase()))
}

/// Says whether the systemd to drive is there: the computer's, or that of the user whose
/// `$XDG_RUNTIME_DIR` is given.
pub fn systemd_runs(user_runtime: Option<&Path>) -> Result<(), Error> {
    match user_runtime {
        None => {
            // What sd_booted(3) looks at.
            let sign = PathBuf::from("/run/systemd/system");
            if sign.is_dir() {
                Ok(())
            } else {
                Err(Error::NoSystemd(sign))
            }
        }
        Some(runtime) => {
            let sign = runtime.join("systemd/private");
            if sign.exists() {
                Ok(())
            } else {
                Err(Error::NoUserSystemd(sign))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_an_id_is_named_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        assert!(
            id(&path)
                .unwrap_err()
                .to_string()
                .contains("systemd-machine-id-setup")
        );
        std::fs::write(&path, "\n").unwrap();
        assert!(id(&path).unwrap_err().to_string().contains("it is empty"));
        std::fs::write(&path, "../x\n").unwrap();
        assert!(
            id(&path)
                .unwrap_err()
                .to_string()
                .contains("is not 32 hex digits")
        );
        std::fs::write(&path, "148a18ff6e954cd892dac9de9bb90d5a\n").unwrap();
        assert_eq!(
            id(&path).unwrap().as_str(),
            "148a18ff6e954cd892dac9de9bb90d5a"
        );
    }
}
