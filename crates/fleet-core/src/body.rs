//! What of a unit file makes its process: everything but where the unit may run.
//!
//! Two files of one body are the same unit with other requirements. It may be moved as it is, the
//! new copy before the old one, and a running copy takes the new file without a restart.

use sha1::{Digest, Sha1};

use crate::requirements::{EXCLUSIVE, SECTION};
use crate::unit_file::UnitFile;

/// A fingerprint of all options but the requirements. Eight bytes of a SHA-1: it is kept for every
/// assignment, and is only ever compared with that of the same unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BodyHash(u64);

impl BodyHash {
    /// Of a unit file.
    pub fn of(file: &UnitFile) -> BodyHash {
        let mut sha1 = Sha1::new();
        for option in file.options() {
            // Exclusive changes how a machine runs the unit, not only where.
            if option.section == SECTION && option.name != EXCLUSIVE {
                continue;
            }
            for part in [&option.section, &option.name, &option.value] {
                sha1.update(part);
                // No part contains it.
                sha1.update([0]);
            }
        }
        let digest: [u8; 20] = sha1.finalize().into();
        let (first, _) = digest.split_at(8);
        BodyHash(
            first
                .iter()
                .fold(0, |hash, byte| hash << 8 | u64::from(*byte)),
        )
    }

    /// Of a unit file's text. What is no unit file is like nothing but itself.
    pub fn of_text(text: &str) -> BodyHash {
        match UnitFile::parse(text) {
            Ok(file) => BodyHash::of(&file),
            Err(_) => BodyHash::of(&UnitFile::from_options(vec![
                crate::unit_file::UnitOption::new("", "", text),
            ])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_the_process_counts() {
        let body = |fleet: &str, install: &str| {
            BodyHash::of_text(&format!(
                "[Service]\nExecStart=/bin/a\n\n[X-Fleet]\n{fleet}\n[Install]\n{install}\n"
            ))
        };
        let plain = body("", "");
        assert_eq!(plain, BodyHash::of_text("[Service]\nExecStart=/bin/a\n"));
        assert_eq!(plain, body("MachineMetadata=a=b\nConflicts=c*\n", ""));
        assert_ne!(plain, body("Exclusive=yes\n", ""));
        assert_ne!(plain, body("", "WantedBy=multi-user.target"));
        assert_ne!(plain, BodyHash::of_text("[Service]\nExecStart=/bin/b\n"));
        assert_ne!(plain, BodyHash::of_text("[Service]\nExecStartPre=/bin/a\n"));
        // A value of several lines is one value, whatever it looks like.
        let lines = |last: &str| {
            BodyHash::of_text(&format!(
                "[Service]\nExecStart=/bin/a \\\n[X-Fleet] \\\n{last}\n"
            ))
        };
        assert_ne!(lines("a"), lines("b"));
        assert_ne!(
            BodyHash::of_text("[Service\nx"),
            BodyHash::of_text("[Service\ny")
        );
    }
}
