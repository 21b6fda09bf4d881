//! What a tenant's calls come to, counted in memory until it is flushed. It does
//! not know what is billed.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one call came to. A write's operation and bytes are not here: its commit
/// meters them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// 1 for a call that read and was answered.
    pub operations: u64,
    /// Keys read and found.
    pub hits: u64,
    /// Keys read and not found.
    pub misses: u64,
    /// 1 for a call that was refused for a quota or a rate.
    pub throttled: u64,
    /// Bytes of keys and values the caller of a read sent.
    pub bytes_in: u64,
    /// Bytes of keys and values the caller was sent.
    pub bytes_out: u64,
}

/// The counts of one tenant at one replica since the last flush.
#[derive(Debug, Default)]
pub struct Meter {
    operations: AtomicU64,
}

impl Meter {
    /// Counts a call.
    pub fn count(&self, counts: Counts) {
        self.operations
            .fetch_add(counts.operations, Ordering::Relaxed);
    }
}
