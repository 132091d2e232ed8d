//! The file with the keys of known hosts.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Users by name, with their home directories in the sixth field.
const PASSWD: &str = "/etc/passwd";

/// Only its owner may look into the directory.
const DIRECTORY_MODE: u32 = 0o700;

/// `~`, `~/…` and `~user/…`. What cannot be expanded stays as it is.
pub(crate) fn expand_tilde(path: &str, home: &str) -> PathBuf {
    let passwd = || std::fs::read_to_string(PASSWD).unwrap_or_default();
    expand(path, home, &passwd)
}

/// Makes the directory of the file, which ssh itself makes only for its own.
///
/// # Errors
/// Which directory could not be made, and why.
pub(crate) fn prepare(file: &Path) -> io::Result<()> {
    let Some(directory) = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE);
    builder.create(directory).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "failed to make the directory {}: {error}",
                directory.display()
            ),
        )
    })
}

fn expand(path: &str, home: &str, passwd: &dyn Fn() -> String) -> PathBuf {
    let Some(rest) = path.strip_prefix('~') else {
        return path.into();
    };
    let (user, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let home = match user {
        "" => home.to_owned(),
        user => home_of(user, &passwd()).unwrap_or_default(),
    };
    match home.as_str() {
        "" => path.into(),
        home => format!("{home}{rest}").into(),
    }
}

fn home_of(user: &str, passwd: &str) -> Option<String> {
    let mut entries = passwd.lines().map(|line| line.split(':'));
    let mut entry = entries.find(|entry| entry.clone().next() == Some(user))?;
    entry.nth(5).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tildes() {
        let passwd = || "root:x:0:0:root:/root:/bin/sh\nme:x:7:7::/home/me:/bin/sh\n".to_owned();
        for (path, home, expanded) in [
            ("~/.fleetctl/known_hosts", "/h", "/h/.fleetctl/known_hosts"),
            ("~", "/h", "/h"),
            ("~me/k", "/h", "/home/me/k"),
            ("~you/k", "/h", "~you/k"),
            ("~/k", "", "~/k"),
            ("/a/~/k", "/h", "/a/~/k"),
        ] {
            assert_eq!(expand(path, home, &passwd), Path::new(expanded));
        }
    }

    #[test]
    fn the_directory_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/known_hosts");
        prepare(&file).unwrap();
        prepare(&file).unwrap();
        let mode = file
            .parent()
            .unwrap()
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        prepare(Path::new("known_hosts")).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = prepare(&file.path().join("d/known_hosts"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("{}/d", file.path().display())),
            "{error}"
        );
    }
}
