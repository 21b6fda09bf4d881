//! Opens the store's file, or memory, and checks that it is one. It does not
//! know what happens in it afterwards.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase,
    backends::{FileBackend, InMemoryBackend},
};

use super::{
    super::Error,
    fault::{Fault, Result, contained},
    layout::{
        BUCKETS, EXPIRIES, FORMAT, META, META_CLOCK, META_COMMIT, META_FORMAT, META_RUN, OPENINGS,
        RECORDS, SPACES,
    },
    ledger::Ledger,
    shelter::Shelter,
};

/// The store's file in its folder.
const FILE: &str = "store.redb";

/// Memory for pages of the file.
const CACHE_BYTES: usize = 256 << 20;

/// Up to this size a file is read and checked whole when it is opened; a page
/// damaged from outside is found then.
const CHECKED_BYTES: u64 = 32 << 20;

/// How to open a database: on its disk, or sheltered from it.
pub(super) type Open = Box<dyn Fn(Disk) -> std::result::Result<Database, DatabaseError> + Send>;

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// They go to the disk.
    Written,
    /// They stay in memory, over a disk that is only read.
    Sheltered,
}

/// Where the database is, and how it is opened.
pub(super) struct Opening {
    open: Open,
    /// The file; `None` in memory.
    pub(super) file: Option<PathBuf>,
}

/// A database that was opened.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) run: u64,
    pub(super) number: u64,
    pub(super) clock_ms: u64,
}

impl Opening {
    /// Opens it in any way.
    pub(super) fn by(open: Open) -> Self {
        Self { open, file: None }
    }

    /// In memory; gone when it is closed.
    pub(super) fn memory() -> Self {
        Self::by(Box::new(|_| {
            builder(0).create_with_backend(InMemoryBackend::new())
        }))
    }

    /// A file in a folder, which is made where it is missing.
    pub(super) fn folder(folder: &Path) -> std::result::Result<Self, Error> {
        let unusable = |error: std::io::Error| {
            Error::Unusable(format!("folder {}: {error}", folder.display()))
        };
        fs::create_dir_all(folder).map_err(unusable)?;
        let path = folder.join(FILE);
        create(&path).map_err(unusable)?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(unusable)?;
        Ok(Self {
            file: Some(path.clone()),
            ..Self::by(Box::new(move |disk| file(&path, disk)))
        })
    }

    /// Opens it for the first time in this process. `what` names it in errors.
    pub(super) fn first(&self, what: &str) -> std::result::Result<Opened, Error> {
        let database = match contained(|| Ok((self.open)(Disk::Written))) {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(Error::Unusable(format!(
                    "{what} is in use by another process, or opened twice"
                )));
            }
            Ok(Err(error)) => return Err(Error::Unusable(format!("{what}: {error}"))),
            Err(fault) => return Err(Error::Unusable(format!("{what}: {}", Error::from(fault)))),
        };
        contained(|| begin(database)).map_err(|fault| match Error::from(fault) {
            error @ Error::Full(_) => error,
            Error::Unusable(why) | Error::Corrupt(why) | Error::Unavailable(why) => {
                Error::Unusable(format!("{what}: {why}"))
            }
            error => error,
        })
    }

    /// Opens it again after a fault; with the number of its last commit.
    pub(super) fn again(&self, disk: Disk) -> Result<(Database, u64)> {
        let database = (self.open)(disk)?;
        let transaction = database.begin_read()?;
        let number = transaction
            .open_table(META)?
            .get(META_COMMIT)?
            .map_or(0, |number| number.value());
        Ok((database, number))
    }
}

/// A file of so many bytes is opened so.
fn builder(bytes: u64) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_check_integrity_on_open(bytes > 0 && bytes <= CHECKED_BYTES);
    builder
}

fn file(path: &Path, disk: Disk) -> std::result::Result<Database, DatabaseError> {
    let bytes = fs::metadata(path)?.len();
    match disk {
        Disk::Written => builder(bytes).create(path),
        Disk::Sheltered => {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            builder(bytes).create_with_backend(Shelter::over(FileBackend::new(file)?)?)
        }
    }
}

/// Makes the file where it is missing, for its owner alone.
fn create(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

/// Begins a new run.
fn begin(database: Database) -> Result<Opened> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    let mut ledger = Ledger::open(&transaction, 0)?;
    let format = ledger.fact(META_FORMAT)?;
    if format != 0 && format != FORMAT {
        return Err(Fault::Damaged(format!(
            "its format is {format}, and only {FORMAT} can be read"
        )));
    }
    let run = ledger.fact(META_RUN)? + 1;
    let number = ledger.fact(META_COMMIT)?;
    let clock_ms = ledger.fact(META_CLOCK)?;
    ledger.set_fact(META_FORMAT, FORMAT)?;
    ledger.set_fact(META_RUN, run)?;
    ledger.finish()?;
    transaction.commit()?;
    let reading = database.begin_read()?;
    reading.open_table(RECORDS)?;
    reading.open_table(SPACES)?;
    reading.open_table(BUCKETS)?;
    reading.open_table(EXPIRIES)?;
    reading.open_table(OPENINGS)?;
    Ok(Opened {
        database,
        run,
        number,
        clock_ms,
    })
}
