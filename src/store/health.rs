//! How a store is, and what it says of itself. It does not know who asks.

/// How the store is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Round trip, in microseconds.
    pub latency_us: u64,
    /// Whether usage is exact: false while the store may evict on its own.
    pub exact: bool,
    /// What it is, such as `redis 7.0.15`.
    pub version: String,
}

/// What a store says of itself. `None`: this backend cannot tell, or, of a limit,
/// there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Bytes it takes: of memory, or of the file.
    pub used_bytes: Option<u64>,
    /// Bytes it may take.
    pub limit_bytes: Option<u64>,
    /// Everything stored under a name of its own, of all spaces and kinds.
    pub records: Option<u64>,
    /// Commands a second, of late.
    pub operations_per_second: Option<u64>,
    /// What it let expire, of all kinds, since it was started.
    pub expired: Option<u64>,
    /// What it evicted for want of memory since it was started.
    pub evicted: Option<u64>,
}
