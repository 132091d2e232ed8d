//! The files of fleet's units: the unit files, the links by which systemd finds them, and the
//! launch records beside them. All of it lies below /run and ends with the boot.
//!
//! ```text
//! <units_directory>/web.service                  the unit file, 0644
//! <link_directory>/web.service -> …              how systemd finds it
//! <run_directory>/launched/web.service           what fleet has done with it
//!
//! <link_directory>/web.service.d/…               of an exclusive unit: binds it to the lease
//! <run_directory>/leased/web.service             it was started under the lease
//! ```
//!
//! Every write is whole or absent (a temporary file, renamed). What fleet does not recognise it
//! leaves alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::failpoint;
use fleet_core::agent::{LaunchRecord, Phase};
use fleet_core::exclusive;
use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::Decision;
use fleet_core::requirements::Requirements;
use fleet_core::unit_file::{INSTALL_SECTION, UnitFile};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

/// What exclusive units are bound to: reached while the lease lives.
pub(crate) const LEASE_TARGET: &str = "fleet-lease.target";

/// The drop-in of an exclusive unit; its name sorts behind those of others, so that its stop
/// timeout counts.
const BINDING: &str = "zz-fleet-exclusive.conf";

/// Temporary files begin with a dot, which no unit name does here, and end in this.
const TEMPORARY: &str = ".fleet-tmp";

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct UnitFiles {
    pub(crate) units: PathBuf,
    pub(crate) links: PathBuf,
    pub(crate) records: PathBuf,
    /// A file each for the exclusive units that were started and not yet seen to end.
    pub(crate) leased: PathBuf,
    /// Records of another boot do not count.
    pub(crate) boot_id: String,
}

/// What is found of one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The file's hash and text; None if it or its link is missing.
    pub(crate) file: Option<(UnitHash, String)>,
    pub(crate) record: Option<LaunchRecord>,
    /// There is a record that makes no sense here: why, and what to do.
    pub(crate) unreadable: Option<String>,
    /// It was started under the lease.
    pub(crate) leased: bool,
}

impl UnitFiles {
    /// Makes the directories and reads what is there.
    pub(crate) fn scan(&self) -> io::Result<BTreeMap<UnitName, Found>> {
        let mut found: BTreeMap<UnitName, Found> = BTreeMap::new();
        for directory in [&self.units, &self.records, &self.leased, &self.links] {
            make_directory(directory)?;
            remove_temporaries(directory)?;
        }
        for (name, path) in named_files(&self.units)? {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "unit file cannot be read");
                    // It is there all the same, and is written anew when it is wanted.
                    found.entry(name).or_default();
                    continue;
                }
            };
            let entry = found.entry(name.clone()).or_default();
            // Without its link systemd does not find it: it counts as not written.
            if self.is_in_place(&name) {
                entry.file = Some((UnitHash::of(text.as_bytes()), text));
            }
        }
        for (name, path) in named_files(&self.records)? {
            // What cannot be read says nothing, least of all that it is of another boot.
            let text = match fs::read(&path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match UnitFiles::parse_record(&text, &self.boot_id) {
                Ok(record) => found.entry(name).or_default().record = Some(record),
                Err(NoRecord::OfAnotherBoot) => {
                    tracing::info!(path = %path.display(), "launch record of another boot removed");
                    remove(RECORD, &path)?;
                }
                Err(error @ NoRecord::Unknown(_)) => {
                    let path = path.display();
                    tracing::error!(%path, %error, "launch record makes no sense: unit left alone");
                    found.entry(name).or_default().unreadable = Some(format!(
                        "left alone: {error} in {path}, as a newer fleetd may write it: install \
                         that one again, or remove the file and restart fleetd"
                    ));
                }
            }
        }
        for (name, _) in named_files(&self.leased)? {
            found.entry(name).or_default().leased = true;
        }
        self.remove_stray_bindings(&found)?;
        Ok(found)
    }

    /// Where the unit file is.
    pub(crate) fn unit(&self, name: &UnitName) -> PathBuf {
        self.units.join(name.as_str())
    }

    /// Where systemd finds it.
    pub(crate) fn link(&self, name: &UnitName) -> PathBuf {
        self.links.join(name.as_str())
    }

    /// Whether the unit file is there, and the link by which systemd finds it.
    pub(crate) fn is_in_place(&self, name: &UnitName) -> bool {
        self.is_own_link(&self.link(name), name) && self.unit(name).exists()
    }

    /// When the directories of unit files and of links last changed; None for one that is not
    /// there.
    pub(crate) fn changed_at(&self) -> [Option<SystemTime>; 2] {
        [&self.units, &self.links].map(|directory| fs::metadata(directory).ok()?.modified().ok())
    }

    /// Writes the unit file, and its link if there is none.
    pub(crate) fn write_unit(&self, name: &UnitName, text: &str) -> io::Result<()> {
        // First what binds it: without that its text must not be found.
        match binding(text) {
            Some(binding) => self.write_binding(name, &binding)?,
            None => self.remove_binding(name)?,
        }
        match write_whole(UNIT, &self.unit(name), text.as_bytes()) {
            // Somebody has taken the directory away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(&self.units)?;
                write_whole(UNIT, &self.unit(name), text.as_bytes())?;
            }
            result => result?,
        }
        let link = self.link(name);
        if !self.is_own_link(&link, name) {
            let temporary = temporary_of(&link);
            remove(LINK, &temporary)?;
            failpoint::file("file.link.make", || symlink(self.unit(name), &temporary))?;
            failpoint::file("file.link.rename", || fs::rename(&temporary, &link))?;
        }
        Ok(())
    }

    /// Removes the unit file and its link.
    pub(crate) fn remove_unit(&self, name: &UnitName) -> io::Result<()> {
        let link = self.link(name);
        if self.is_own_link(&link, name) {
            remove(LINK, &link)?;
        }
        remove(UNIT, &self.unit(name))?;
        self.remove_binding(name)?;
        self.forget_leased(name)
    }

    /// It is about to be started under the lease.
    pub(crate) fn remember_leased(&self, name: &UnitName) -> io::Result<()> {
        write_whole(LEASED, &self.leased.join(name.as_str()), b"")
    }

    /// Its end was looked into.
    pub(crate) fn forget_leased(&self, name: &UnitName) -> io::Result<()> {
        remove(LEASED, &self.leased.join(name.as_str()))
    }

    /// Writes systemd's files of the lease, if they are not there.
    pub(crate) fn write_lease_files(&self, files: &[(&str, &str)]) -> io::Result<()> {
        for (name, text) in files {
            let path = self.links.join(name);
            if fs::read_to_string(&path).ok().as_deref() != Some(*text) {
                write_whole(BOUND, &path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Whether any of them is there.
    pub(crate) fn has_lease_files(&self, files: &[(&str, &str)]) -> bool {
        files.iter().any(|(name, _)| self.links.join(name).exists())
    }

    /// Removes them.
    pub(crate) fn remove_lease_files(&self, files: &[(&str, &str)]) -> io::Result<()> {
        files
            .iter()
            .try_for_each(|(name, _)| remove(BOUND, &self.links.join(name)))
    }

    fn binding_directory(&self, name: &UnitName) -> PathBuf {
        self.links.join(format!("{name}.d"))
    }

    fn write_binding(&self, name: &UnitName, text: &str) -> io::Result<()> {
        let directory = self.binding_directory(name);
        make_directory(&directory)?;
        write_whole(BOUND, &directory.join(BINDING), text.as_bytes())
    }

    fn remove_binding(&self, name: &UnitName) -> io::Result<()> {
        let directory = self.binding_directory(name);
        // Most units have none, and are asked about once.
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
        remove(BOUND, &directory.join(BINDING))?;
        match fs::remove_dir(&directory) {
            // Others have drop-ins there, too.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Removes the bindings of units that are not here any more: fleetd was killed in between. What
    /// was started under the lease keeps its binding though its file is lost: it may run.
    fn remove_stray_bindings(&self, found: &BTreeMap<UnitName, Found>) -> io::Result<()> {
        for entry in fs::read_dir(&self.links)? {
            let entry = entry?;
            let name = entry.file_name();
            let unit = name
                .to_str()
                .and_then(|name| name.strip_suffix(".d"))
                .and_then(|name| UnitName::parse(name).ok());
            if let Some(unit) = unit
                && entry.path().join(BINDING).exists()
                && found
                    .get(&unit)
                    .is_none_or(|found| found.file.is_none() && !found.leased)
            {
                self.remove_binding(&unit)?;
            }
        }
        Ok(())
    }

    /// Remembers what was done.
    pub(crate) fn write_record(&self, name: &UnitName, record: &LaunchRecord) -> io::Result<()> {
        let text = UnitFiles::record_text(record, &self.boot_id);
        write_whole(RECORD, &self.records.join(name.as_str()), text.as_bytes())
    }

    /// Forgets it.
    pub(crate) fn remove_record(&self, name: &UnitName) -> io::Result<()> {
        remove(RECORD, &self.records.join(name.as_str()))
    }

    /// A file of that name in one of systemd's directories which is not fleet's: the machine's
    /// own unit, mask or alias.
    pub(crate) fn clash(&self, name: &UnitName, unit_path: &[String]) -> Option<PathBuf> {
        unit_path
            .iter()
            .map(|directory| Path::new(directory).join(name.as_str()))
            .find(|path| fs::symlink_metadata(path).is_ok() && !self.is_own_link(path, name))
    }

    /// Says that the directory has changed. systemd notices new files by its time, and on old
    /// kernels two changes within one clock tick look like one.
    pub(crate) fn touch_links(&self) -> io::Result<()> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: now,
        };
        let touch = || Ok(utimensat(CWD, &self.links, &times, AtFlags::empty())?);
        failpoint::file("file.links.touch", touch)
    }

    /// Whether a path is fleet's link to that unit. A link to another unit of fleet's is none: it
    /// is an alias of that one.
    pub(crate) fn is_own_link(&self, path: &Path, name: &UnitName) -> bool {
        fs::read_link(path).is_ok_and(|target| target == self.unit(name))
    }

    pub(crate) fn record_text(record: &LaunchRecord, boot_id: &str) -> String {
        format!(
            "boot={boot_id}\ngeneration={}\nseq={}\nphase={}\nhash={}\nrestarts={}\ninvocation={}\n",
            record.decision.generation,
            record.decision.seq,
            record.phase.as_str(),
            record.hash,
            record.restarts,
            record.invocation_id,
        )
    }

    pub(crate) fn parse_record(text: &str, boot_id: &str) -> Result<LaunchRecord, NoRecord> {
        let fields: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let field = |name| fields.get(name).copied().ok_or(NoRecord::Unknown(name));
        if field("boot")? != boot_id {
            return Err(NoRecord::OfAnotherBoot);
        }
        let number = |name| {
            let number = field(name)?.parse::<u64>();
            number.map_err(|_| NoRecord::Unknown(name))
        };
        let hash = field("hash")?.parse();
        Ok(LaunchRecord {
            decision: Decision {
                generation: number("generation")?,
                seq: number("seq")?,
            },
            phase: Phase::parse(field("phase")?).ok_or(NoRecord::Unknown("phase"))?,
            hash: hash.map_err(|_| NoRecord::Unknown("hash"))?,
            restarts: number("restarts")?,
            invocation_id: field("invocation")?.to_owned(),
        })
    }
}

/// Why a text is no launch record of this boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NoRecord {
    #[error("it is of another boot")]
    OfAnotherBoot,
    #[error("unknown {0}")]
    Unknown(&'static str),
}

/// Whether a unit with this text is enabled when it is loaded.
pub(crate) fn has_install(text: &str) -> bool {
    UnitFile::parse(text).is_ok_and(|file| file.has_section(INSTALL_SECTION))
}

/// Whether a unit with this text is exclusive.
pub(crate) fn is_exclusive(text: &str) -> bool {
    // Most are not, and need not be read twice.
    text.contains("Exclusive")
        && UnitFile::parse(text).is_ok_and(|file| Requirements::parse(&file, None).0.exclusive)
}

/// Why a unit with this text cannot be bound to the lease, if it is exclusive.
pub(crate) fn why_not_bound(text: &str) -> Option<String> {
    if !is_exclusive(text) {
        return None;
    }
    let file = UnitFile::parse(text).ok()?;
    let error = exclusive::stop_timeouts(&file).err()?;
    Some(error.to_string())
}

/// What is put beside an exclusive unit's file. It starts only while the lease lives
/// (`Requisite=`, which pulls nothing in), and is stopped with it, in a time that is known.
fn binding(text: &str) -> Option<String> {
    if !is_exclusive(text) {
        return None;
    }
    let file = UnitFile::parse(text).ok()?;
    let timeouts = exclusive::stop_timeouts(&file).unwrap_or_default();
    let mut binding = format!(
        "# Written by fleet: the unit says Exclusive=yes in [X-Fleet].\n\
         [Unit]\nRequisite={LEASE_TARGET}\nAfter={LEASE_TARGET}\n"
    );
    for (section, timeout) in timeouts {
        let key = match section {
            "Service" => "TimeoutStopSec",
            _ => "TimeoutSec",
        };
        let milliseconds = timeout.as_millis();
        binding += &format!("[{section}]\n{key}={milliseconds}ms\nSendSIGKILL=yes\n");
    }
    Some(binding)
}

/// Whether systemd calls a unit with this text started before its program has begun.
pub(crate) fn is_simple(text: &str) -> bool {
    UnitFile::parse(text).is_ok_and(|file| {
        let kind = file.value("Service", "Type").unwrap_or("");
        file.has_section("Service")
            && matches!(kind, "" | "simple" | "exec" | "idle")
            && file.value("Service", "BusName").is_none()
    })
}

/// A kind of files, by the failpoints of what is done to them.
#[derive(Clone, Copy)]
struct Kind {
    write: &'static str,
    rename: &'static str,
    remove: &'static str,
}

const UNIT: Kind = Kind {
    write: "file.unit.write",
    rename: "file.unit.rename",
    remove: "file.unit.remove",
};

const RECORD: Kind = Kind {
    write: "file.record.write",
    rename: "file.record.rename",
    remove: "file.record.remove",
};

/// What binds an exclusive unit to the lease, and the lease's own units.
const BOUND: Kind = Kind {
    write: "file.bound.write",
    rename: "file.bound.rename",
    remove: "file.bound.remove",
};

const LEASED: Kind = Kind {
    write: "file.leased.write",
    rename: "file.leased.rename",
    remove: "file.leased.remove",
};

const LINK: Kind = Kind {
    write: "file.link.make",
    rename: "file.link.rename",
    remove: "file.link.remove",
};

/// Writes a file whole or not at all, 0644 whatever the umask: people's tools read these files,
/// and fleetd's own umask is nobody else's matter. It is not synced: it lives below /run.
fn write_whole(kind: Kind, path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = temporary_of(path);
    failpoint::file(kind.write, || write_new(&temporary, contents))?;
    failpoint::file(kind.rename, || fs::rename(&temporary, path))
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)?;
    if umask_takes_away() {
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.write_all(contents)
}

/// Whether this process's umask takes away something of 0644. It is asked once: nobody here changes it.
fn umask_takes_away() -> bool {
    static TAKES_AWAY: OnceLock<bool> = OnceLock::new();
    *TAKES_AWAY.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
        umask.is_none_or(|umask| umask & 0o644 != 0)
    })
}

/// Makes a directory and its parents, 0755 whatever the umask. One that is there stays as it is.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    let make = |path: &Path| {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    missing
        .into_iter()
        .rev()
        .try_for_each(make)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Removes a file; none there is well.
fn remove(kind: Kind, path: &Path) -> io::Result<()> {
    match failpoint::file(kind.remove, || fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn temporary_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMPORARY}"))
}

fn remove_temporaries(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') && name.to_string_lossy().ends_with(TEMPORARY) {
            remove(UNIT, &entry.path())?;
        }
    }
    Ok(())
}

/// The files whose names are those of units.
fn named_files(directory: &Path) -> io::Result<Vec<(UnitName, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(name) = entry
            .file_name()
            .to_str()
            .and_then(|n| UnitName::parse(n).ok())
        else {
            continue;
        };
        if entry.file_type()?.is_file() {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(root: &Path) -> UnitFiles {
        UnitFiles {
            units: root.join("units"),
            links: root.join("system"),
            records: root.join("launched"),
            leased: root.join("leased"),
            boot_id: "b1".to_owned(),
        }
    }

    fn name(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    #[test]
    fn a_unit_file_that_cannot_be_read_is_there_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let files = files(root.path());
        files.scan().unwrap();
        // Bytes that are no text.
        std::fs::write(files.units.join("a.service"), b"\xff\xfe").unwrap();
        let found = files.scan().unwrap();
        assert!(found.contains_key(&name("a.service")), "{found:?}");
        assert!(found[&name("a.service")].file.is_none());
    }

    #[test]
    fn what_was_written_is_found_again_and_strangers_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let files = files(root.path());
        assert!(files.scan().unwrap().is_empty());
        let (a, b) = (name("a.service"), name("b@1.timer"));
        let record = LaunchRecord {
            decision: Decision {
                generation: 7,
                seq: 9,
            },
            phase: Phase::Launched,
            hash: UnitHash::of(b"x"),
            restarts: 2,
            invocation_id: "abc".to_owned(),
        };
        files.write_unit(&a, "[Unit]\n").unwrap();
        files.write_record(&a, &record).unwrap();
        files.write_unit(&b, "[Timer]\n").unwrap();
        fs::write(files.units.join("README"), "mine").unwrap();
        fs::write(files.units.join(".c.service.fleet-tmp"), "half").unwrap();
        fs::write(files.records.join("old.service"), "boot=b0\n").unwrap();

        let found = files.scan().unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&a, &b]);
        assert_eq!(found[&a].record, Some(record));
        assert_eq!(
            found[&a].file,
            Some((UnitHash::of(b"[Unit]\n"), "[Unit]\n".to_owned()))
        );
        assert_eq!(fs::read_link(files.link(&a)).unwrap(), files.unit(&a));
        assert!(files.units.join("README").exists());
        assert!(!files.units.join(".c.service.fleet-tmp").exists());
        assert!(!files.records.join("old.service").exists());

        // Without its link a file counts as not written.
        fs::remove_file(files.link(&b)).unwrap();
        assert!(files.scan().unwrap()[&b].file.is_none());
        files.remove_unit(&a).unwrap();
        files.remove_record(&a).unwrap();
        files.remove_unit(&a).unwrap();
        assert!(!files.scan().unwrap().contains_key(&a));
    }

    #[test]
    fn lines_of_a_newer_fleetd_are_passed_over() {
        let record = LaunchRecord {
            decision: Decision {
                generation: 7,
                seq: 9,
            },
            phase: Phase::Launched,
            hash: UnitHash::of(b"x"),
            restarts: 2,
            invocation_id: "abc".to_owned(),
        };
        let text = UnitFiles::record_text(&record, "b1");
        let newer = format!("since=5\n{text}what=a=b\nno sense\n");
        assert_eq!(UnitFiles::parse_record(&newer, "b1"), Ok(record));
    }

    /// A downgrade: what the newer fleetd has remembered is there when it comes back.
    #[test]
    fn a_record_that_makes_no_sense_is_kept_and_said() {
        let root = tempfile::tempdir().unwrap();
        let files = files(root.path());
        files.scan().unwrap();
        let whole = "boot=b1\ngeneration=7\nseq=9\nphase=launched\n\
            hash=86943ac9f3754cb90f8dd38bf6da7b0cad074592\nrestarts=2\ninvocation=abc\n";
        assert!(UnitFiles::parse_record(whole, "b1").is_ok());
        for (text, unknown) in [
            (whole.replace("=launched", "=frozen"), "unknown phase"),
            (whole.replace("=7", "=seven"), "unknown generation"),
            (whole.replace("hash=8", "hash=sha256:8"), "unknown hash"),
            (whole.replace("boot=", "boots="), "unknown boot"),
            (String::new(), "unknown boot"),
        ] {
            let record = files.records.join("a.service");
            fs::write(&record, &text).unwrap();
            let found = files.scan().unwrap().remove(&name("a.service")).unwrap();
            assert_eq!(found.record, None);
            let why = found.unreadable.unwrap();
            assert!(why.contains(unknown), "{why}");
            assert!(why.contains(&record.display().to_string()), "{why}");
            assert!(why.contains("restart fleetd"), "{why}");
            assert_eq!(fs::read_to_string(&record).unwrap(), text);
        }
    }

    #[test]
    fn a_name_of_the_machines_own_is_a_clash_and_an_own_link_is_none() {
        let root = tempfile::tempdir().unwrap();
        let files = files(root.path());
        files.scan().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let path = [&etc, &files.links].map(|p| p.to_str().unwrap().to_owned());
        let (a, b) = (name("a.service"), name("b.service"));
        files.write_unit(&a, "").unwrap();
        assert_eq!(files.clash(&a, &path), None);
        assert_eq!(files.clash(&b, &path), None);
        // A mask is the machine's own, too.
        symlink("/dev/null", etc.join("a.service")).unwrap();
        assert_eq!(files.clash(&a, &path), Some(etc.join("a.service")));
        fs::write(files.links.join("b.service"), "").unwrap();
        assert_eq!(files.clash(&b, &path), Some(files.links.join("b.service")));
    }

    #[test]
    fn only_programs_that_systemd_does_not_wait_for_need_a_second_look() {
        for (text, simple) in [
            ("[Service]\nExecStart=/a\n", true),
            ("[Service]\nType=simple\nExecStart=/a\n", true),
            ("[Service]\nType=oneshot\nExecStart=/a\n", false),
            ("[Service]\nType=notify\nExecStart=/a\n", false),
            ("[Service]\nBusName=a.b\nExecStart=/a\n", false),
            ("[Timer]\nOnCalendar=daily\n", false),
        ] {
            assert_eq!(is_simple(text), simple, "{text}");
        }
        assert!(has_install("[Install]\nWantedBy=a.target\n"));
        assert!(!has_install("[Install]\n"));
    }
}
