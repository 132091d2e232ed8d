//! The file of the embedded store: redb's tables, and what its failures mean.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableHandle,
};
use tokio::time::Instant;

use crate::store::model::{LeaseChange, Model, Staged, Stored};
use crate::store::{Error, LeaseId, Revision};

/// The version of the tables below; a file of a higher one is refused.
const FORMAT: u64 = 1;

/// redb's page cache. Everything is read once, at the start; only the tree's inner pages and what
/// is being written need to be near.
const CACHE_BYTES: usize = 8 << 20;

/// Key → create-revision, mod-revision, lease (0: none), value.
type Row<'a> = (Revision, Revision, i64, &'a [u8]);
const ENTRIES: TableDefinition<'_, &str, Row<'_>> = TableDefinition::new("entries");
/// Lease → its time in milliseconds.
const LEASES: TableDefinition<'_, i64, u64> = TableDefinition::new("leases");
/// Numbers about the store.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
const META_NEXT_LEASE: &str = "next-lease";
/// Counts the commits, so that after a fault it can be seen whether the last one is in the file.
const META_SERIAL: &str = "serial";

/// What became of a write that failed.
pub(super) enum Failure {
    /// The file is as before.
    NotWritten(Error),
    /// It may be in the file.
    Unknown(Error),
}

/// The open file.
pub(super) struct StoreFile {
    path: PathBuf,
    open: Opener,
    /// None after a fault, until it is opened anew.
    database: Option<Database>,
    /// Number of the last commit that is known to be in the file.
    serial: u64,
}

/// How to open the database; `bool`: read and check every page.
pub(super) type Opener = Box<dyn Fn(&Path, bool) -> Result<Database, DatabaseError> + Send>;

impl StoreFile {
    /// Opens or creates the file and checks every page of it.
    pub(super) fn open(path: &Path) -> Result<StoreFile, Error> {
        // redb would make a new file readable for all, and units may hold secrets.
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| io_error(path, "opened", &error))?;
        Self::open_with(path, Box::new(|path, check| builder(check).create(path)))
    }

    pub(super) fn open_with(path: &Path, open: Opener) -> Result<StoreFile, Error> {
        let database = open(path, true).map_err(|error| open_error(path, error))?;
        let mut file = StoreFile {
            path: path.to_owned(),
            open,
            database: Some(database),
            serial: 0,
        };
        file.prepare()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Reads everything.
    pub(super) fn load(&self, now: Instant) -> Result<Model, Error> {
        let read = || -> Result<Model, redb::Error> {
            let reading = self.database()?.begin_read()?;
            let mut entries = BTreeMap::new();
            for row in reading.open_table(ENTRIES)?.iter()? {
                let (key, row) = row?;
                let (create_revision, mod_revision, lease, value) = row.value();
                let stored = Stored {
                    value: value.into(),
                    create_revision,
                    mod_revision,
                    lease: (lease != 0).then_some(LeaseId(lease)),
                };
                entries.insert(key.value().to_owned(), stored);
            }
            let mut leases = Vec::new();
            for row in reading.open_table(LEASES)?.iter()? {
                let (id, ttl) = row?;
                leases.push((LeaseId(id.value()), Duration::from_millis(ttl.value())));
            }
            let meta = reading.open_table(META)?;
            let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|n| n.value()));
            let next_lease = number(META_NEXT_LEASE)?.unwrap_or_else(first_lease);
            let next_lease = i64::try_from(next_lease).unwrap_or(i64::MAX);
            let revision = number(META_REVISION)?.unwrap_or(1);
            Ok(Model::restore(
                revision,
                entries,
                leases,
                next_lease,
                Some(now),
            ))
        };
        read().map_err(|error| damaged(&self.path, &error))
    }

    /// Makes changes durable by one commit.
    pub(super) fn write(&mut self, staged: &Staged) -> Result<(), Failure> {
        let serial = self.serial + 1;
        let Err(error) = self
            .database()
            .and_then(|database| commit(database, staged, serial))
        else {
            self.serial = serial;
            return Ok(());
        };
        let failed = write_error(&self.path, &error);
        // After a fault redb wants the file opened anew; then it can be seen what is in it.
        match self.reopen() {
            Ok(found) if found == serial => {
                self.serial = serial;
                Ok(())
            }
            Ok(_) => Err(Failure::NotWritten(failed)),
            Err(_) => Err(Failure::Unknown(Error::OutcomeUnknown(failed.to_string()))),
        }
    }

    /// Opens the file anew after a fault and returns the number of the last commit in it.
    pub(super) fn reopen(&mut self) -> Result<u64, Error> {
        self.database = None;
        let database =
            (self.open)(&self.path, false).map_err(|error| open_error(&self.path, error))?;
        let serial = read_serial(&database).map_err(|error| damaged(&self.path, &error))?;
        self.database = Some(database);
        Ok(serial)
    }

    /// The commit that was in doubt is in the file.
    pub(super) fn accept(&mut self) {
        self.serial += 1;
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::PreviousIo)
    }

    /// Makes the tables of a new file, and refuses files that are not ours.
    fn prepare(&mut self) -> Result<(), Error> {
        let prepare = || -> Result<(u64, u64), redb::Error> {
            let database = self.database()?;
            let ours = {
                let reading = database.begin_read()?;
                let mut tables = reading.list_tables()?.peekable();
                tables.peek().is_none() || tables.any(|table| table.name() == META.name())
            };
            if !ours {
                return Ok((u64::MAX, 0));
            }
            let writing = database.begin_write()?;
            let numbers = {
                writing.open_table(ENTRIES)?;
                writing.open_table(LEASES)?;
                let mut meta = writing.open_table(META)?;
                let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|n| n.value()));
                let (format, serial) = (number(META_FORMAT)?, number(META_SERIAL)?);
                if format.is_none() {
                    meta.insert(META_FORMAT, FORMAT)?;
                }
                (format.unwrap_or(FORMAT), serial.unwrap_or(0))
            };
            writing.commit()?;
            Ok(numbers)
        };
        let path = self.path.display();
        match prepare() {
            Ok((FORMAT, serial)) => {
                self.serial = serial;
                Ok(())
            }
            Ok((u64::MAX, _)) => Err(Error::Refused(format!(
                "{path} holds other tables than fleet's: name another file"
            ))),
            Ok((format, _)) => Err(Error::Refused(format!(
                "{path} has format {format}, this fleetd knows {FORMAT}: run the newer fleetd again"
            ))),
            Err(error) => Err(write_error(&self.path, &error)),
        }
    }
}

/// Opens as fleet does; `check` reads every page first, so that damage is an error and no surprise
/// later.
pub(super) fn builder(check: bool) -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(check);
    builder
}

fn commit(database: &Database, staged: &Staged, serial: u64) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut entries = writing.open_table(ENTRIES)?;
        for change in staged.steps.iter().flatten() {
            match &change.after {
                Some(stored) => {
                    let row = (
                        stored.create_revision,
                        stored.mod_revision,
                        stored.lease.map_or(0, |lease| lease.0),
                        &*stored.value,
                    );
                    entries.insert(change.key.as_str(), row)?;
                }
                None => {
                    entries.remove(change.key.as_str())?;
                }
            }
        }
        let mut leases = writing.open_table(LEASES)?;
        for change in &staged.leases {
            match change {
                LeaseChange::Grant(id, ttl) => {
                    leases.insert(id.0, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
                }
                LeaseChange::End(id) => {
                    leases.remove(id.0)?;
                }
            }
        }
        let mut meta = writing.open_table(META)?;
        meta.insert(META_REVISION, staged.revision)?;
        meta.insert(META_NEXT_LEASE, staged.next_lease.unsigned_abs())?;
        meta.insert(META_SERIAL, serial)?;
    }
    writing.commit()?;
    Ok(())
}

fn read_serial(database: &Database) -> Result<u64, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(meta.get(META_SERIAL)?.map_or(0, |serial| serial.value()))
}

fn open_error(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Error::Unavailable(format!(
                "{} is in use by another process: stop the other fleetd (`fuser {}` names it)",
                path.display(),
                path.display()
            ))
        }
        DatabaseError::Storage(StorageError::Io(error)) if is_environment(&error) => {
            io_error(path, "opened", &error)
        }
        damage => damaged(path, &damage),
    }
}

fn write_error(path: &Path, error: &redb::Error) -> Error {
    match error {
        redb::Error::Io(error) => io_error(path, "written", error),
        redb::Error::Corrupted(_) => damaged(path, error),
        other => Error::Unavailable(format!("{} cannot be written: {other}", path.display())),
    }
}

/// An error of the file system, with its cure.
fn io_error(path: &Path, done: &str, error: &io::Error) -> Error {
    use io::ErrorKind::{
        FileTooLarge, IsADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    let why = format!("{} cannot be {done}: {error}", path.display());
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            Error::NoSpace(format!("{why}: free some space on its disk"))
        }
        NotFound => Error::Unavailable(format!("{why}: make its directory")),
        PermissionDenied => {
            Error::Unavailable(format!("{why}: run fleetd as the user that owns the file"))
        }
        ReadOnlyFilesystem => {
            Error::Unavailable(format!("{why}: mount its file system for writing"))
        }
        IsADirectory => Error::Unavailable(format!("{why}: name a file")),
        _ => Error::Unavailable(why),
    }
}

/// Whether the file system is at fault, and not what stands in the file.
fn is_environment(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// Where the ids of a new file's leases begin: at random, so that another file's are not taken
/// for them. Without chance they begin at 1, as revisions do.
fn first_lease() -> u64 {
    let id = crate::clock::uuid().unwrap_or_default();
    // 48 of the 122 random bits leave room to count in a signed number.
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect();
    u64::from_str_radix(&digits, 16).map_or(1, |first| first.max(1))
}

fn damaged(path: &Path, error: &dyn fmt::Display) -> Error {
    Error::Refused(format!(
        "{path} is damaged ({error}); it was left as it is: put a copy of it in its place, or move it \
         away to begin with an empty store",
        path = path.display()
    ))
}
