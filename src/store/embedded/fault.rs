//! What goes wrong inside the backend, and the words it leaves it with. It does
//! not know who asked for what.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::super::Error;

/// A fault of this backend.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file or the disk failed; what was being written is not.
    Disk(redb::Error),
    /// Something stored cannot be read.
    Damaged(String),
    /// The caller broke the port's contract.
    Misuse(String),
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

macro_rules! disk {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Disk(error.into())
            }
        })*
    };
}

disk!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Disk(redb::Error::Io(error)) => match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    Self::Full(error.to_string())
                }
                _ => Self::Unavailable(error.to_string()),
            },
            Fault::Disk(redb::Error::Corrupted(what)) | Fault::Damaged(what) => Self::Corrupt(what),
            Fault::Disk(error) => Self::Unavailable(error.to_string()),
            Fault::Misuse(what) => Self::Misuse(what),
        }
    }
}

/// Runs what reads pages of the file. A page that was damaged from outside can
/// make the tree code panic; that is a damaged store, and no reason to die.
pub(super) fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Fault::Damaged(
            "the store's file holds what no store wrote".into(),
        ))
    })
}
