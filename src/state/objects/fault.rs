//! What can be wrong with an object store, in the kinds that a caller can act on. It
//! does not know which call failed.

use std::{error::Error as _, io, time::Duration};

use crate::error::Error;

/// What is wrong with an object store; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has no room.
    #[error("it has no room: {0}")]
    Full(String),
    /// It may not be written, or not with these credentials.
    #[error("it denies access: {0}")]
    Denied(String),
    /// It is not there, or did not answer in time.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

/// What S3 calls a bucket that is not there.
const NO_BUCKET: &str = "NoSuchBucket";

impl Fault {
    pub(super) fn of(error: object_store::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                return Self::of_io(io);
            }
            source = cause.source();
        }
        let text = plain(&error.to_string());
        match error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Self::Denied(text),
            _ if ["QuotaExceeded", "StorageFull", "507 Insufficient"]
                .iter()
                .any(|full| text.contains(full)) =>
            {
                Self::Full(text)
            }
            _ => Self::Unreachable(text),
        }
    }

    /// That of one who does not answer.
    pub(super) fn late(patience: Duration) -> Self {
        Self::Unreachable(format!("no answer within {patience:?}"))
    }

    pub(super) fn of_io(error: &io::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(text),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::Denied(text)
            }
            _ => Self::Unreachable(text),
        }
    }

    /// Whether the bucket itself is missing, and not an object.
    pub(super) fn is_of_the_bucket(&self) -> bool {
        matches!(self, Self::Unreachable(text) if text.contains(NO_BUCKET))
    }
}

/// One line of bounded length.
fn plain(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(400)
        .collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full(why) => Self::ObjectsFull(why),
            Fault::Denied(_) | Fault::Unreachable(_) => Self::ObjectsUnavailable(fault.to_string()),
        }
    }
}
