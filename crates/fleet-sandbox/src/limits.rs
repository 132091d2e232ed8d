//! Limits of the computer that many hosts share: raised while there are sandboxes, put back after.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::record::{Lock, Record, list};

/// inotify instances of one user: Linux allows 128 for all of root's processes, which is
/// enough for about ten hosts.
const INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
/// A host has about ten at boot; fleetd and its units have theirs.
const PER_HOST: u64 = 40;
/// What the computer's own programs keep.
const OTHERS: u64 = 128;
/// The value that was there before us.
const MARK: &str = "/run/fleet-sandbox/inotify-before";

/// Makes room for all hosts that are recorded. Where it may not be changed (in a container),
/// hosts boot as far as the limit goes, and the console of the others says "Too many open files".
pub(crate) fn raise(_: &Lock) -> Result<()> {
    let hosts: usize = list()?
        .iter()
        .map(|record: &Record| record.hosts.len())
        .sum();
    let needed = OTHERS + PER_HOST * hosts as u64;
    if let Some(before) = read(INSTANCES)
        && before < needed
    {
        if !Path::new(MARK).exists() {
            // Without the mark the limit stays raised: harmless.
            let _ = fs::write(MARK, before.to_string());
        }
        let _ = fs::write(INSTANCES, needed.to_string());
    }
    Ok(())
}

/// Puts the limit back when the last sandbox has gone.
pub(crate) fn restore(_: &Lock) -> Result<()> {
    if list()?.is_empty()
        && let Some(before) = read(MARK)
    {
        let _ = fs::write(INSTANCES, before.to_string());
        let _ = fs::remove_file(MARK);
    }
    Ok(())
}

fn read(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
