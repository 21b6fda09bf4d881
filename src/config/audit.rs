//! What is set of the audit log. It does not know what is told in it.

use std::time::Duration;

use serde::Deserialize;

use super::{
    unit,
    validate::{DAY, Note, span},
};

/// The audit log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Whether events are kept in the store.
    #[serde(deserialize_with = "unit::switch")]
    pub enabled: bool,
    /// How long an event is kept.
    #[serde(deserialize_with = "unit::duration")]
    pub keep: Duration,
}

impl Audit {
    /// No event is kept.
    pub const OFF: Self = Self {
        enabled: false,
        keep: Duration::from_secs(90 * 24 * 60 * 60),
    };
}

pub(super) fn check(audit: &Audit, note: Note<'_>) {
    let minute = Duration::from_secs(60);
    span(note, "audit.keep", audit.keep, minute, 3650 * DAY);
}
