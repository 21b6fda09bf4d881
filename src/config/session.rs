//! What is set of sessions. It does not know what is kept in them.

use std::time::Duration;

use serde::Deserialize;

use super::{
    unit,
    validate::{DAY, KIB, MIB, Note, number, span},
};

/// Sessions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// How long a session lives that is created without a time to live.
    #[serde(deserialize_with = "unit::duration")]
    pub default_ttl: Duration,
    /// How long it lives without activity, where that is not said.
    #[serde(deserialize_with = "unit::duration")]
    pub default_idle_timeout: Duration,
    /// The longest time to live.
    #[serde(deserialize_with = "unit::duration")]
    pub max_ttl: Duration,
    /// Bytes of data as JSON.
    #[serde(deserialize_with = "unit::size")]
    pub max_data_bytes: usize,
}

pub(super) fn check(session: &Session, note: Note<'_>) {
    let second = Duration::from_secs(1);
    let max_ttl = session.max_ttl;
    span(note, "session.max_ttl", max_ttl, second, 3650 * DAY);
    let most = max_ttl.max(second);
    let default_ttl = session.default_ttl;
    span(note, "session.default_ttl", default_ttl, second, most);
    let idle = session.default_idle_timeout;
    span(note, "session.default_idle_timeout", idle, second, most);
    let bytes = session.max_data_bytes;
    number(note, "session.max_data_bytes", bytes, KIB, MIB);
}
