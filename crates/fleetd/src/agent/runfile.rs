//! Small facts that must outlive fleetd and end with the boot, one file each below the run
//! directory: lines of `key=value`, replaced as a whole.

use std::io;
use std::path::Path;

#[cfg(not(fleet_sim))]
use crate::failpoint;

/// A fact is a handful of short lines.
#[cfg(not(fleet_sim))]
const MAX_BYTES: u64 = 4_096;

/// The lines of the file; none when there is no such file, or it cannot be understood.
pub(crate) fn read(path: &Path) -> Vec<(String, String)> {
    text(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Whether there is no such file. One that cannot be read is one.
pub(crate) fn is_absent(path: &Path) -> bool {
    matches!(text(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// The value of a key.
pub(crate) fn value<'a>(lines: &'a [(String, String)], key: &str) -> Option<&'a str> {
    lines
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// Replaces the file: a reader sees the old lines or the new ones.
pub(crate) fn write(path: &Path, lines: &[(&str, &str)]) -> io::Result<()> {
    let mut text = String::new();
    for (key, value) in lines {
        text.push_str(key);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    }
    replace(path, text)
}

#[cfg(fleet_sim)]
use crate::sim::{replace_file as replace, text_of_file as text};

/// The text of a file that is not too large to be one of these.
#[cfg(not(fleet_sim))]
fn text(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > MAX_BYTES {
        return Err(io::Error::other("too large"));
    }
    std::fs::read_to_string(path)
}

#[cfg(not(fleet_sim))]
fn replace(path: &Path, text: String) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let fresh = path.with_extension("new");
    failpoint::file("file.run.write", || std::fs::write(&fresh, text))?;
    failpoint::file("file.run.rename", || std::fs::rename(&fresh, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lease");
        assert!(read(&path).is_empty());
        write(&path, &[("id", "7"), ("boot", "a=b")]).unwrap();
        let lines = read(&path);
        assert_eq!(value(&lines, "id"), Some("7"));
        assert_eq!(value(&lines, "boot"), Some("a=b"));
        assert_eq!(value(&lines, "other"), None);
        std::fs::write(&path, vec![b'x'; 5_000]).unwrap();
        assert!(read(&path).is_empty());
    }
}
