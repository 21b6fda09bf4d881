//! What is set of cache entries. It does not know what is cached.

use std::time::Duration;

use serde::Deserialize;

use super::{Watch, unit};

/// Cache entries.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Bytes of a value.
    #[serde(deserialize_with = "unit::size")]
    pub max_value_bytes: usize,
    /// The longest time to live.
    #[serde(deserialize_with = "unit::duration")]
    pub max_ttl: Duration,
    /// Items of a batch.
    #[serde(deserialize_with = "unit::number")]
    pub max_batch_items: usize,
    /// Tags of an entry.
    #[serde(deserialize_with = "unit::number")]
    pub max_tags: usize,
    /// Bytes of a tag.
    #[serde(deserialize_with = "unit::number")]
    pub max_tag_bytes: usize,
    /// Entries kept in this process.
    pub near: Near,
    /// What is in memory when a replica begins to serve.
    pub warm_start: WarmStart,
    /// Compression of values.
    pub compression: Compression,
    /// Leases of refills.
    pub lease: Lease,
    /// WatchInvalidations.
    pub watch: Watch,
}

/// Leases of refills.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// How long an entry that was refilled is kept beyond its end.
    #[serde(deserialize_with = "unit::duration")]
    pub stale_for: Duration,
}

/// Entries kept in this process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Near {
    /// Whether any are.
    #[serde(deserialize_with = "unit::switch")]
    pub enabled: bool,
    /// Bytes they may take, with what it takes to find them.
    #[serde(deserialize_with = "unit::size")]
    pub max_bytes: usize,
}

/// What is in a replica's memory when it begins to serve.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// Whether what was hot before is pulled near.
    #[serde(deserialize_with = "unit::switch")]
    pub enabled: bool,
    /// Keys of all tenants that are kept and pulled.
    #[serde(deserialize_with = "unit::number")]
    pub keys: usize,
    /// How long it may hold back SERVING.
    #[serde(deserialize_with = "unit::duration")]
    pub timeout: Duration,
}

/// Compression of values.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// Whether values are compressed.
    #[serde(deserialize_with = "unit::switch")]
    pub enabled: bool,
    /// Only values of at least so many bytes.
    #[serde(deserialize_with = "unit::size")]
    pub min_bytes: usize,
    /// Only where it saves so many per cent.
    #[serde(deserialize_with = "unit::number")]
    pub min_saving_percent: u8,
}
