//! Why nothing was written, as the caller learns of it. It does not know what was
//! to be written.

use crate::{
    error::Error,
    store::{Metric, Refusal},
    tenant::{CACHE_ENTRIES, MEMORY_BYTES, Tenancy},
};

/// Whether it is for a quota.
pub(super) fn is_quota(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Exceeded { .. })
}

/// A refusal as the caller learns of it.
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
        } => Error::QuotaExceeded {
            metric: match metric {
                Metric::Entries => CACHE_ENTRIES.into(),
                Metric::Bytes => MEMORY_BYTES.into(),
            },
            limit: i64::try_from(*limit).unwrap_or(i64::MAX),
            used: i64::try_from(*used).unwrap_or(i64::MAX),
            scope: tenancy.scope(),
            retry_after: None,
        },
        Refusal::Stale(_) | Refusal::Gone => Error::RequestInProgress,
    }
}
