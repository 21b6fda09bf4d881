//! GetCacheStats. It does not know how anything is counted.

use super::CacheApi;
use crate::{
    cache,
    error::Result,
    grpc::{Context, convert::int64},
    proto::v1,
    tenant::stats::{CacheStats, FleetStats, Latencies},
};

impl CacheApi {
    pub(super) async fn stats(
        &self,
        context: &Context,
        request: &v1::GetCacheStatsRequest,
    ) -> Result<v1::GetCacheStatsResponse> {
        let (caller, tenant_id) = (&context.caller, &*request.tenant_id);
        let of_fleet = caller.is_admin() && tenant_id.is_empty();
        let namespace = cache::stats_namespace(&request.namespace, of_fleet)?;
        if of_fleet {
            let FleetStats {
                cache,
                backend,
                health,
                gauges,
            } = self.tenants.fleet_stats().await?;
            let store = v1::StoreStats {
                backend: backend.into(),
                version: health.version,
                latency: Some(span(std::time::Duration::from_micros(health.latency_us))),
                exact: health.exact,
                used_bytes: gauges.used_bytes.map(int64),
                limit_bytes: gauges.limit_bytes.map(int64),
                records: gauges.records.map(int64),
                operations_per_second: gauges.operations_per_second.map(int64),
                expired: gauges.expired.map(int64),
                evicted: gauges.evicted.map(int64),
            };
            return Ok(v1::GetCacheStatsResponse {
                stats: None,
                fleet: Some(stats(&cache)),
                store: Some(store),
            });
        }
        let found = self.tenants.cache_stats(caller, tenant_id, namespace);
        Ok(v1::GetCacheStatsResponse {
            stats: Some(stats(&found.await?)),
            ..Default::default()
        })
    }
}

fn stats(stats: &CacheStats) -> v1::CacheStats {
    let CacheStats {
        deeds,
        reads,
        writes,
        held,
    } = stats;
    v1::CacheStats {
        hits: int64(deeds.hits),
        near_hits: int64(deeds.near_hits),
        misses: int64(deeds.misses),
        sets: int64(deeds.sets),
        deletes: int64(deeds.deletes),
        expired: held.map(|held| int64(held.expired)),
        invalidated: int64(deeds.invalidated),
        entries: held.map(|held| int64(held.entries)),
        logical_bytes: stats.logical_bytes().map(int64),
        stored_bytes: held.map(|held| int64(held.bytes)),
        compression_ratio: stats.compression_ratio(),
        read_latency: Some(latency(reads)),
        write_latency: Some(latency(writes)),
    }
}

fn latency(latencies: &Latencies) -> v1::LatencyStats {
    let below = |thousandths| latencies.below(thousandths).map(span);
    v1::LatencyStats {
        p50: below(500),
        p95: below(950),
        p99: below(990),
        calls: int64(latencies.calls()),
    }
}

/// A span that is no longer than a histogram or the store's patience reaches.
fn span(span: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}
