//! Statistics of caches as JSON; times are microseconds. It does not know which
//! command shows them.

use prost_types::Duration;
use serde_json::{Value, json};

use crate::proto::v1::{CacheStats, LatencyStats, StoreStats};

pub(in crate::cli) fn cache_stats(stats: &CacheStats) -> Value {
    json!({
        "hits": stats.hits,
        "near_hits": stats.near_hits,
        "misses": stats.misses,
        "sets": stats.sets,
        "deletes": stats.deletes,
        "expired": stats.expired,
        "invalidated": stats.invalidated,
        "entries": stats.entries,
        "logical_bytes": stats.logical_bytes,
        "stored_bytes": stats.stored_bytes,
        "compression_ratio": stats.compression_ratio,
        "read_latency": stats.read_latency.as_ref().map(latency),
        "write_latency": stats.write_latency.as_ref().map(latency),
    })
}

pub(in crate::cli) fn store_stats(store: &StoreStats) -> Value {
    json!({
        "backend": store.backend,
        "version": store.version,
        "latency_us": micros(store.latency.as_ref()),
        "exact": store.exact,
        "used_bytes": store.used_bytes,
        "limit_bytes": store.limit_bytes,
        "records": store.records,
        "operations_per_second": store.operations_per_second,
        "expired": store.expired,
        "evicted": store.evicted,
    })
}

fn latency(latency: &LatencyStats) -> Value {
    json!({
        "p50_us": micros(latency.p50.as_ref()),
        "p95_us": micros(latency.p95.as_ref()),
        "p99_us": micros(latency.p99.as_ref()),
        "calls": latency.calls,
    })
}

/// A span in whole microseconds; null where it is unset.
fn micros(span: Option<&Duration>) -> Option<i64> {
    let span = span?;
    let whole = span.seconds.saturating_mul(1_000_000);
    Some(whole.saturating_add(i64::from(span.nanos) / 1000))
}
