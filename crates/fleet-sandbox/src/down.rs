//! Taking a sandbox down from its record alone, whatever became of its maker.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::error::At;
use crate::program::UMOUNT;
use crate::record::{Claim, claim, list, lock, run_directory};
use crate::wait::wait_for;
use crate::{Error, Result, etcd, limits, network, nspawn};

/// A copy into a host's tree takes a fraction of it.
const LAST_COPY: Duration = Duration::from_secs(30);

/// Removes everything of a sandbox. A sandbox that does not exist, or is half gone, is no error.
///
/// # Errors
/// [`Error::Left`] with what could not be removed; the record stays, so that it can be tried again.
pub fn down(name: &str) -> Result<()> {
    match claim(name, FlockOperation::LockExclusive)? {
        Some(claim) => take_down(&claim),
        None => Ok(()),
    }
}

/// Takes down sandboxes whose owner is dead: nobody else will.
///
/// # Errors
/// As `down`.
pub fn sweep() -> Result<()> {
    for orphan in list()?.iter().filter(|record| record.is_orphan()) {
        // Whoever was faster may have made another one of that name meanwhile.
        if let Some(claim) = claim(&orphan.name, FlockOperation::LockExclusive)?
            && claim.record.is_orphan()
        {
            take_down(&claim)?;
        }
    }
    Ok(())
}

fn take_down(claim: &Claim) -> Result<()> {
    let record = &claim.record;
    let mut left = Vec::new();
    let mut note = |result: Result<()>| left.extend(result.err().map(|e| e.to_string()));
    std::thread::scope(|scope| {
        let hosts: Vec<_> = record
            .hosts
            .iter()
            .map(|host| {
                scope.spawn(move || {
                    nspawn::power_off(record, host).and_then(|()| remove_tree(&host.root))
                })
            })
            .collect();
        record
            .etcd
            .iter()
            .for_each(|member| note(etcd::remove(member)));
        for host in hosts {
            note(host.join().unwrap_or_else(|_| {
                Err(Error::Invalid("a thread that ended a host panicked".into()))
            }));
        }
    });
    note(network::remove_bridge(record));
    note(remove_tree(&record.directory));
    if !left.is_empty() {
        return Err(Error::Left {
            name: record.name.clone(),
            left: left.join("; "),
        });
    }
    let lock = lock()?;
    let own = run_directory(&record.name);
    fs::remove_dir_all(&own).at("remove", own)?;
    limits::restore(&lock)
}

/// Removes the trees; first whatever is mounted below, so that nothing of the computer's can
/// be removed through a mount.
fn remove_tree(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts_below(&mounts, directory).into_iter().rev() {
        UMOUNT.run(&["--lazy", &mount])?;
    }
    let failed = |source| Error::File {
        what: "remove",
        path: directory.to_owned(),
        source,
    };
    // A copy that an `up` which was killed had begun ends by itself, and fills the tree meanwhile.
    let what = format!("{} to be left alone", directory.display());
    wait_for(&what, LAST_COPY, || match fs::remove_dir_all(directory) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Err(e),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Ok(())),
        other => Ok(other.map_err(failed)),
    })?
}

fn mounts_below(mountinfo: &str, directory: &Path) -> Vec<String> {
    let at = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    mountinfo
        .lines()
        .filter_map(at)
        .filter(|at| Path::new(at).starts_with(directory))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_directory_are_its_own() {
        let mountinfo = "22 1 8:1 / / rw - ext4 /dev/x rw\n30 22 8:1 / /a/b/usr ro - ext4 /dev/x rw\n\
            31 22 8:1 / /a/bc rw - ext4 /dev/x rw\n";
        assert_eq!(mounts_below(mountinfo, Path::new("/a/b")), ["/a/b/usr"]);
    }

    #[test]
    fn a_sandbox_that_does_not_exist_is_down() {
        assert!(down("no-such-sandbox").is_ok());
    }
}
