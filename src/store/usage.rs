//! What a space counts, and what each record counts in it. It does not know how a
//! backend keeps count.

/// What a space counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Metered records.
    pub entries: u64,
    /// Their bytes, each counted as [`charge`].
    pub bytes: u64,
    /// Bytes of flushed generations that still await reclaim, at most.
    pub orphaned_bytes: u64,
    /// Metered records that ended since the space's first commit. Each counts once:
    /// at its bucket's end, or where one that was over already is replaced or
    /// removed before. What a flush or a reclaim took first does not.
    pub expired: u64,
    /// Whether the figures are exact: false while the store may evict on its own.
    pub exact: bool,
}

/// What the counters say, and what the records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// By the counters.
    pub counted: Usage,
    /// By the records; its `orphaned_bytes` are those found of other generations.
    pub found: Usage,
}

impl Audit {
    /// Whether entries and bytes agree.
    pub fn agrees(&self) -> bool {
        (self.counted.entries, self.counted.bytes) == (self.found.entries, self.found.bytes)
    }
}

/// Bytes of header each record carries in the store.
pub const HEAD_BYTES: u64 = 20;

/// What a record of this path and value counts: both, and its header.
pub fn charge(path: &[u8], value_bytes: usize) -> u64 {
    HEAD_BYTES + path.len() as u64 + value_bytes as u64
}

/// The width of the bucket that an expiry so far away, lingering included, is
/// rounded up in: 50 ms below a minute, 1 s below an hour, 15 s above. A record
/// counts until the end of its bucket.
pub const fn bucket_ms(ttl_ms: u64) -> u64 {
    match ttl_ms {
        0..60_000 => 50,
        60_000..3_600_000 => 1_000,
        _ => 15_000,
    }
}

/// Expiries beyond this (the year 5138) are cut to it: 2^53 is far away, and so
/// is every script's arithmetic.
pub const MAX_EXPIRE_MS: u64 = 100_000_000_000_000;
