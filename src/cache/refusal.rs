//! Why nothing was written, as the caller learns of it. It does not know what was
//! to be written.

use std::time::Duration;

use crate::{
    error::Error,
    store::{Metric, Refusal},
    tenant::{CACHE_ENTRIES, MEMORY_BYTES, Tenancy},
};

/// When a write can succeed that flushed entries leave no room for: the background
/// looks for them that often.
pub(super) const RECLAIM: Duration = Duration::from_secs(1);

/// That a write showed a record, which none of the cache's asks for.
pub(super) fn unasked() -> Error {
    Error::Internal("the store showed a record that was not asked for".to_owned())
}

/// Whether it is for a quota.
pub(super) fn is_quota(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Exceeded { .. })
}

/// A refusal as the caller learns of it; counted where it is for a quota.
pub(super) fn refused(tenancy: &Tenancy, refusal: &Refusal) -> Error {
    match refusal {
        Refusal::Conflict { found, .. } => Error::ConditionNotMet {
            subject: "key".to_owned(),
            description: match found {
                Some(version) => format!("the entry exists, at version {version}"),
                None => "the entry does not exist".to_owned(),
            },
        },
        Refusal::Exceeded {
            metric,
            limit,
            used,
        } => {
            let name = match metric {
                Metric::Entries => CACHE_ENTRIES,
                Metric::Bytes | Metric::Flushed => MEMORY_BYTES,
            };
            let retry_after = matches!(metric, Metric::Flushed).then_some(RECLAIM);
            tenancy.exceeded(name, *limit, *used, retry_after)
        }
        Refusal::Stale(_) | Refusal::Gone => Error::RequestInProgress,
        Refusal::Fenced => Error::RestoreInProgress,
    }
}
