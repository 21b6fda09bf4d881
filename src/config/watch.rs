//! What is set of WatchInvalidations. It does not know who watches.

use std::time::Duration;

use serde::Deserialize;

use super::{
    unit,
    validate::{KIB, MIB, Note, number, span},
};

/// WatchInvalidations.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// How often a watcher that is told nothing is given a sign of life.
    #[serde(deserialize_with = "unit::duration")]
    pub heartbeat: Duration,
    /// How long changes are noted after the last watcher has left.
    #[serde(deserialize_with = "unit::duration")]
    pub linger: Duration,
    /// Watchers of a tenant at one replica.
    #[serde(deserialize_with = "unit::number")]
    pub max_watchers: usize,
    /// Bytes of changes of a tenant that wait for its watchers at one replica.
    #[serde(deserialize_with = "unit::size")]
    pub max_backlog_bytes: usize,
}

pub(super) fn check(watch: &Watch, note: Note<'_>) {
    let second = Duration::from_secs(1);
    // A store that is lost is waited for some seconds, and the contract has 30.
    let (least, most) = (Duration::from_millis(10), 25 * second);
    span(note, "cache.watch.heartbeat", watch.heartbeat, least, most);
    span(
        note,
        "cache.watch.linger",
        watch.linger,
        second,
        3600 * second,
    );
    number(
        note,
        "cache.watch.max_watchers",
        watch.max_watchers,
        1,
        100_000,
    );
    number(
        note,
        "cache.watch.max_backlog_bytes",
        watch.max_backlog_bytes,
        256 * KIB,
        256 * MIB,
    );
}
