//! `cache stats`: what a cache holds and did, as a table with its hit rate as a
//! bar. It does not know how it is counted.

use clap::Args;
use prost_types::Duration;
use serde_json::json;

use crate::{
    cli::{
        amount,
        client::{Client, Global},
        failure::Failure,
        json,
        output::{self, show},
        plot::Canvas,
    },
    proto::v1::{CacheStats, GetCacheStatsRequest, LatencyStats, StoreStats},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct Stats {
    /// Of all tenants together, and of their store, whatever tenant and namespace
    /// are named elsewhere; needs the admin key.
    #[arg(long)]
    fleet: bool,
}

impl Stats {
    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        // A tenant or a namespace of the environment is not meant.
        let named = |name: String| if self.fleet { String::new() } else { name };
        let request = GetCacheStatsRequest {
            tenant_id: named(global.tenant_id()),
            namespace: named(global.namespace()),
        };
        let mut caches = client.caches();
        let answer = caches.get_cache_stats(client.request(request)).await?;
        let answer = answer.into_inner();
        let result = json!({
            "stats": answer.stats.as_ref().map(json::cache_stats),
            "fleet": answer.fleet.as_ref().map(json::cache_stats),
            "store": answer.store.as_ref().map(json::store_stats),
        });
        show(global.output, &result, || {
            let canvas = Canvas::of_process();
            let caches = answer.stats.iter().chain(&answer.fleet);
            let caches = caches.map(|stats| cache(stats, &canvas));
            let parts: Vec<_> = caches.chain(answer.store.iter().map(store)).collect();
            parts.join("\n\n")
        })
    }
}

/// Cells of the bar.
const BAR: usize = 40;

fn cache(stats: &CacheStats, canvas: &Canvas) -> String {
    let reads = stats.hits.saturating_add(stats.misses);
    let bar = canvas.bar(stats.hits, reads, BAR);
    let rate = match share(stats.hits, reads) {
        share if share.is_empty() => "no reads yet".to_owned(),
        share => share,
    };
    let did = [
        ("hits", stats.hits, reads),
        ("near_hits", stats.near_hits, reads),
        ("misses", stats.misses, reads),
        ("sets", stats.sets, 0),
        ("deletes", stats.deletes, 0),
        ("invalidated", stats.invalidated, 0),
    ];
    let did =
        did.map(|(name, count, of)| vec![name.to_owned(), amount::count(count), share(count, of)]);
    let expired = stats
        .expired
        .map(|expired| vec!["expired".to_owned(), amount::count(expired), String::new()]);
    let did = output::grid(
        &["keys", "count", "of reads"],
        &[1, 2],
        did.into_iter().chain(expired),
    );
    let times = [
        ("read", &stats.read_latency),
        ("write", &stats.write_latency),
    ];
    let times = times.map(|(name, latency)| latencies(name, latency.as_ref()));
    let header = ["latency", "p50", "p95", "p99", "calls"];
    let times = output::grid(&header, &[1, 2, 3, 4], times);
    let holds = [
        ("entries", stats.entries.map(amount::count)),
        ("stored_bytes", stats.stored_bytes.map(amount::bytes)),
        ("logical_bytes", stats.logical_bytes.map(amount::bytes)),
        (
            "compression",
            Some(format!("{:.2} : 1", stats.compression_ratio)),
        ),
    ];
    let holds = holds
        .into_iter()
        .filter_map(|(name, amount)| Some(vec![name.to_owned(), amount?]));
    let holds = output::grid(&["holds", ""], &[1], holds);
    [format!("hit rate  {bar}  {rate}"), did, times, holds].join("\n\n")
}

fn latencies(name: &str, latency: Option<&LatencyStats>) -> Vec<String> {
    let latency = latency.cloned().unwrap_or_default();
    let [p50, p95, p99] = [&latency.p50, &latency.p95, &latency.p99]
        .map(|span| span.as_ref().map(time).unwrap_or_default());
    vec![name.to_owned(), p50, p95, p99, amount::count(latency.calls)]
}

fn store(store: &StoreStats) -> String {
    let count = |count: Option<i64>| count.map(amount::count);
    let bytes = |bytes: Option<i64>| bytes.map(amount::bytes);
    let exact = match store.exact {
        true => "yes",
        false => "no: it may evict on its own",
    };
    let rows = [
        ("backend", Some(store.backend.clone())),
        ("version", Some(store.version.clone())),
        ("latency", store.latency.as_ref().map(time)),
        ("usage exact", Some(exact.to_owned())),
        ("used", bytes(store.used_bytes)),
        ("limit", bytes(store.limit_bytes)),
        ("records", count(store.records)),
        ("operations / s", count(store.operations_per_second)),
        ("expired", count(store.expired)),
        ("evicted", count(store.evicted)),
    ];
    let rows = rows
        .into_iter()
        .filter_map(|(name, value)| Some(vec![name.to_owned(), value?]));
    output::grid(&["store", ""], &[], rows)
}

/// What part of all something is, with one decimal, rounded down; nothing where
/// there is nothing.
fn share(part: i64, whole: i64) -> String {
    if whole <= 0 {
        return String::new();
    }
    let thousandths = i128::from(part) * 1000 / i128::from(whole);
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// A span in the unit that suits it, with three digits.
fn time(span: &Duration) -> String {
    let us = span.seconds as f64 * 1e6 + f64::from(span.nanos) / 1e3;
    let (value, unit) = match us {
        _ if us < 1e3 => (us, "us"),
        _ if us < 1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let decimals = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (seconds, nanos, text) in [
            (0, 1_024, "1.02 us"),
            (0, 15_500, "15.5 us"),
            (0, 999_000, "999 us"),
            (0, 1_234_567, "1.23 ms"),
            (0, 250_000_000, "250 ms"),
            (68, 719_000_000, "68.7 s"),
        ] {
            assert_eq!(time(&Duration { seconds, nanos }), text);
        }
    }

    #[test]
    fn a_share_is_never_said_to_be_more_than_it_is() {
        for (part, whole, text) in [
            (0, 0, ""),
            (0, 7, "0.0 %"),
            (999_999, 1_000_000, "99.9 %"),
            (7, 7, "100.0 %"),
            (i64::MAX, i64::MAX, "100.0 %"),
        ] {
            assert_eq!(share(part, whole), text);
        }
    }
}
