//! What callers hand to the cache and get from it. It knows neither the wire
//! nor the store.

use bytes::Bytes;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value as it was set.
    pub value: Bytes,
    /// Its media type; empty when none was set.
    pub content_type: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Grows with each write in the tenant's cache.
    pub version: u64,
    /// When it was set, in milliseconds since 1970 by the store's clock.
    pub create_ms: u64,
    /// When it expires, likewise; `None` means never.
    pub expire_ms: Option<u64>,
    /// Bytes of its value in the store, after compression.
    pub stored_bytes: u64,
}

/// An entry to be written.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// How many milliseconds it lives; `None` means the tenant's default.
    pub ttl_ms: Option<i64>,
    /// Its media type; empty means none.
    pub content_type: &'a str,
    /// Its tags.
    pub tags: &'a [String],
    /// When it may be written; `None` is a condition nobody knows.
    pub condition: Option<Condition>,
    /// Only over this version; 0 means any.
    pub if_version: i64,
    /// Only under this lease, where nothing else was written since; empty means none.
    pub lease_token: &'a str,
}

/// When a write may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    None,
    /// Only where there is no such entry.
    IfAbsent,
    /// Only where there is one.
    IfPresent,
}

/// A written entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its version.
    pub version: u64,
    /// When it expires, in milliseconds since 1970 by the store's clock.
    pub expire_ms: Option<u64>,
    /// Bytes of its value in the store, after compression.
    pub stored_bytes: u64,
}

/// What became of a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Whether there was an entry.
    pub found: bool,
    /// When it expires now, in milliseconds since 1970 by the store's clock.
    pub expire_ms: Option<u64>,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// Where the answer may come from; `None` is a consistency nobody knows.
    pub consistency: Option<Consistency>,
    /// How far behind the store an answer may be, in milliseconds; `None`, and what
    /// is beyond it, means [`STALENESS`](crate::store::STALENESS).
    pub max_age_ms: Option<i64>,
    /// The least version that memory may answer with.
    pub min_version: i64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            consistency: Some(Consistency::Eventual),
            max_age_ms: None,
            min_version: 0,
        }
    }
}

/// Where an answer may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// From memory, or from the store.
    Eventual,
    /// From the store's primary alone.
    Strong,
}
