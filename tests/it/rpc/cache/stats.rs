//! GetCacheStats over a real socket, on both backends: every counter by exact
//! numbers, whoever calls and at whichever replica. It does not know how they are
//! kept.

use riptide_persistence::proto::v1::{
    BatchDeleteRequest, BatchGetRequest, BatchSetRequest, CacheStats, Consistency, DeleteRequest,
    DeleteTenantRequest, GetCacheStatsRequest, GetCacheStatsResponse, GetRequest,
    InvalidateCacheRequest, Keys, LatencyStats, SetRequest, SuspendTenantRequest, SuspensionMode,
    Tags, TouchRequest, invalidate_cache_request::Target,
};
use rstest::rstest;
use tonic::{Code, Status};

use super::{Clients, Kind, Server, flush, item, keys, reason, set};
use crate::{
    redis::Redis,
    server::{Backend, fields},
};

async fn ask(
    clients: &Clients,
    tenant_id: &str,
    namespace: &str,
) -> Result<GetCacheStatsResponse, Status> {
    let request = GetCacheStatsRequest {
        tenant_id: tenant_id.into(),
        namespace: namespace.into(),
    };
    let answer = clients.cache.clone().get_cache_stats(request).await?;
    Ok(answer.into_inner())
}

/// The statistics of a namespace, or of all with an empty one; without latencies.
async fn stats(clients: &Clients, namespace: &str) -> CacheStats {
    let answer = ask(clients, "", namespace).await.unwrap();
    assert_eq!((answer.fleet, answer.store), (None, None));
    bare(answer.stats.unwrap())
}

/// Without what takes its time.
fn bare(stats: CacheStats) -> CacheStats {
    CacheStats {
        read_latency: None,
        write_latency: None,
        // What a replica's own memory answers is for another test.
        near_hits: 0,
        ..stats
    }
}

/// The fleet's counters.
async fn fleet(server: &Server) -> CacheStats {
    let answer = ask(&server.admin(), "", "").await.unwrap();
    assert_eq!(answer.stats, None);
    bare(answer.fleet.unwrap())
}

fn within(namespace: &str, request: SetRequest) -> SetRequest {
    SetRequest {
        namespace: namespace.into(),
        ..request
    }
}

fn get(namespace: &str, key: &str) -> GetRequest {
    GetRequest {
        namespace: namespace.into(),
        key: key.into(),
        ..Default::default()
    }
}

fn assert_latency(latency: Option<LatencyStats>, calls: i64) {
    let latency = latency.unwrap();
    assert_eq!(latency.calls, calls);
    let [p50, p95, p99] = [latency.p50, latency.p95, latency.p99].map(|span| {
        let span = span.map(|span| span.seconds * 1_000_000_000 + i64::from(span.nanos));
        assert_eq!(span.is_some(), calls > 0, "{latency:?}");
        span.unwrap_or_default()
    });
    assert!(p50 <= p95 && p95 <= p99, "{latency:?}");
    assert!(calls == 0 || p50 >= 1_024, "{latency:?}");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_call_counts_what_it_did(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let nothing = CacheStats {
        compression_ratio: 1.0,
        expired: Some(0),
        entries: Some(0),
        logical_bytes: Some(0),
        stored_bytes: Some(0),
        ..Default::default()
    };
    assert_eq!(stats(&clients, "").await, nothing);

    let mut cache = clients.cache.clone();
    // Reads 9, writes 12.
    cache.set(set("k1", "value")).await.unwrap();
    cache.set(set("k1", "other")).await.unwrap();
    cache.get(get("", "k1")).await.unwrap();
    cache.get(get("", "absent")).await.unwrap();
    let batch = BatchSetRequest {
        entries: vec![item("k2", "v"), item("", "refused"), item("k3", "v")],
        ..Default::default()
    };
    cache.batch_set(batch).await.unwrap();
    let batch = BatchGetRequest {
        keys: keys(&["k2", "k2", "absent", "", "k3"]),
        ..Default::default()
    };
    cache.batch_get(batch).await.unwrap();
    let touch = TouchRequest {
        key: "k2".into(),
        ..Default::default()
    };
    cache.touch(touch).await.unwrap();
    let delete = |key: &str| DeleteRequest {
        key: key.into(),
        ..Default::default()
    };
    cache.delete(delete("k3")).await.unwrap();
    cache.delete(delete("k3")).await.unwrap();
    let batch = BatchDeleteRequest {
        keys: keys(&["k2", "absent"]),
        ..Default::default()
    };
    cache.batch_delete(batch).await.unwrap();
    // Refused, so it did nothing.
    let conditional = SetRequest {
        if_version: 1 << 40,
        ..set("k1", "v")
    };
    cache.set(conditional).await.unwrap_err();
    cache.get(get("", "")).await.unwrap_err();

    let found = ask(&clients, "", "").await.unwrap().stats.unwrap();
    assert_latency(found.read_latency, 3);
    assert_latency(found.write_latency, 7);
    let charged = 20 + "default:k1".len() as i64;
    let stored = found.stored_bytes.unwrap();
    assert!(stored > charged + 5, "{stored}");
    // 5 bytes are left, but the sets were of 5, 5, 1 and 1.
    let logical = found.logical_bytes.unwrap();
    assert!((2..=5).contains(&logical), "{logical}");
    let did = CacheStats {
        hits: 4,
        misses: 2,
        sets: 4,
        deletes: 2,
        entries: Some(1),
        stored_bytes: Some(stored),
        logical_bytes: Some(logical),
        ..nothing
    };
    assert_eq!(bare(found), did);

    let invalidate = flush(Target::Keys(Keys {
        keys: keys(&["k1", "absent"]),
    }));
    cache.invalidate_cache(invalidate).await.unwrap();
    for key in ["a", "b", "c"] {
        cache.set(set(key, "v")).await.unwrap();
    }
    cache
        .invalidate_cache(flush(Target::WholeTenant(true)))
        .await
        .unwrap();
    let flushed = CacheStats {
        sets: 7,
        invalidated: 4,
        entries: Some(0),
        stored_bytes: Some(0),
        logical_bytes: Some(0),
        ..did
    };
    assert_eq!(stats(&clients, "").await, flushed);
    // The namespace does not know of the flush of the tenant, nor what it holds.
    let of_namespace = CacheStats {
        invalidated: 1,
        expired: None,
        entries: None,
        logical_bytes: None,
        stored_bytes: None,
        ..flushed
    };
    assert_eq!(stats(&clients, "default").await, of_namespace);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn near_hits_are_hits_and_are_counted_apart(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    clients.cache.set(set("k", "v")).await.unwrap();
    let near = async || {
        let found = ask(&clients, "", "default").await.unwrap();
        found.stats.unwrap().near_hits
    };
    let strong = GetRequest {
        consistency: Consistency::Strong.into(),
        ..get("", "k")
    };
    clients.cache.clone().get(strong).await.unwrap();
    assert_eq!(near().await, 0);
    let mut gets = 1;
    let reads = clients.cache.clone();
    while near().await == 0 {
        reads.clone().get(get("", "k")).await.unwrap();
        gets += 1;
        assert!(gets < 1000, "it never comes near");
    }
    let found = ask(&clients, "", "").await.unwrap().stats.unwrap();
    assert_eq!((found.near_hits, found.hits), (1, gets));
    let of_fleet = ask(&server.admin(), "", "").await.unwrap().fleet.unwrap();
    assert_eq!((of_fleet.near_hits, of_fleet.hits), (1, gets));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_expired_is_counted_once(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let short = prost_types::Duration {
        seconds: 0,
        nanos: 20_000_000,
    };
    for key in 0..10 {
        let request = SetRequest {
            ttl: (key % 2 == 0).then_some(short),
            ..set(&format!("k{key}"), "v")
        };
        clients.cache.set(request).await.unwrap();
    }
    // Of the namespace's there is no such figure; of the tenant's it comes to be 5.
    assert_eq!(stats(&clients, "default").await.expired, None);
    let settled = async {
        loop {
            let found = stats(&clients, "").await;
            if found.entries == Some(5) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let settled = tokio::time::timeout(std::time::Duration::from_secs(20), settled);
    let found = settled.await.expect("they expire");
    assert_eq!(found.expired, Some(5));
    assert_eq!(stats(&clients, "").await.expired, Some(5));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_was_invalidated_counts_as_it_leaves(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut cache = server.tenant("acme").await.clients.cache;
    let clients = server.with_key(&server.key("acme", &["usage.read"]).await);
    let mut sets = 0;
    for (namespace, count) in [("images", 5), ("pages", 7)] {
        for n in 0..count {
            let request = SetRequest {
                tags: keys(if n == 0 { &["red"] } else { &[] }),
                ..set(&format!("k{n}"), "v")
            };
            cache.set(within(namespace, request)).await.unwrap();
            sets += 1;
        }
    }
    for (namespace, target) in [
        ("images", Target::WholeNamespace(true)),
        ("pages", Target::Prefix("k6".into())),
        (
            "pages",
            Target::Tags(Tags {
                tags: keys(&["red"]),
            }),
        ),
    ] {
        let request = InvalidateCacheRequest {
            namespace: namespace.into(),
            ..flush(target)
        };
        cache.invalidate_cache(request).await.unwrap();
    }
    // One is set anew before it leaves, or after.
    cache.set(within("images", set("k0", "v"))).await.unwrap();
    let settled = async {
        loop {
            let found = stats(&clients, "").await;
            // What has left is counted a moment after it has.
            if found.entries == Some(6) && found.invalidated >= 6 {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let settled = tokio::time::timeout(std::time::Duration::from_secs(30), settled);
    let found = settled.await.expect("they leave");
    assert_eq!(found.sets, sets + 1);
    assert!((6..=7).contains(&found.invalidated), "{found:?}");
    let pages = stats(&clients, "pages").await;
    assert_eq!(pages.invalidated, 2);
    let images = stats(&clients, "images").await;
    assert_eq!(images.invalidated + pages.invalidated, found.invalidated);
    assert_eq!(fleet(&server).await.invalidated, found.invalidated);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn values_are_told_as_they_were_set_and_as_they_are_stored(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let value = vec![7_u8; 100_000];
    let mut stored = 0;
    for key in ["a", "b"] {
        let written = clients.cache.set(set(key, value.clone())).await.unwrap();
        stored += written.into_inner().stored_bytes;
    }
    let found = stats(&clients, "").await;
    // Nothing has left, so it is exact.
    assert_eq!(found.logical_bytes, Some(200_000));
    let ratio = 200_000.0 / stored as f64;
    assert!((found.compression_ratio - ratio).abs() < 1e-9, "{found:?}");
    assert!(ratio > 50.0, "it packs: {ratio}");
    let taken = found.stored_bytes.unwrap();
    assert!(
        (stored..stored + 200).contains(&taken),
        "{taken} of {stored}"
    );
    let delete = DeleteRequest {
        key: "a".into(),
        ..Default::default()
    };
    clients.cache.delete(delete).await.unwrap();
    // What left was as what stays.
    assert_eq!(stats(&clients, "").await.logical_bytes, Some(100_000));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn namespaces_and_tenants_are_counted_apart_and_the_fleet_has_all(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    let other = server.tenant("other").await.clients;
    for (clients, namespace, sets, hits) in [
        (&acme, "", 1, 2),
        (&acme, "images", 3, 4),
        (&other, "images", 5, 6),
    ] {
        let mut cache = clients.cache.clone();
        for n in 0..sets {
            let request = within(namespace, set(&format!("k{n}"), "v"));
            cache.set(request).await.unwrap();
        }
        for _ in 0..hits {
            cache.get(get(namespace, "k0")).await.unwrap();
        }
        cache.get(get(namespace, "absent")).await.unwrap();
    }
    let counts = |stats: CacheStats| (stats.sets, stats.hits, stats.misses);
    assert_eq!(counts(stats(&acme, "").await), (4, 6, 2));
    assert_eq!(counts(stats(&acme, "default").await), (1, 2, 1));
    assert_eq!(counts(stats(&acme, "images").await), (3, 4, 1));
    assert_eq!(counts(stats(&acme, "empty").await), (0, 0, 0));
    assert_eq!(counts(stats(&other, "").await), (5, 6, 1));
    assert_eq!(counts(stats(&other, "default").await), (0, 0, 0));
    let all = fleet(&server).await;
    assert_eq!(counts(all), (9, 12, 3));
    assert_eq!((all.entries, all.expired), (None, None));
    // Who is gone has still been there.
    let delete = DeleteTenantRequest {
        tenant_id: "other".into(),
        ..Default::default()
    };
    server.admin().tenant.delete_tenant(delete).await.unwrap();
    assert_eq!(counts(fleet(&server).await), (9, 12, 3));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn namespaces_beyond_the_most_share_a_name(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    for n in 0..40 {
        let request = within(&format!("n{n}"), set("k", "v"));
        clients.cache.set(request).await.unwrap();
    }
    assert_eq!(stats(&clients, "").await.sets, 40);
    let mut apart = 0;
    for n in 0..40 {
        apart += stats(&clients, &format!("n{n}")).await.sets;
    }
    assert_eq!((apart, stats(&clients, "(other)").await.sets), (32, 8));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn who_may_ask_is_told_and_others_are_not(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut acme = server.tenant("acme").await.clients;
    server.tenant("other").await;
    acme.cache.set(set("k", "v")).await.unwrap();
    let refused = async |clients: &Clients, tenant_id: &str, namespace: &str| {
        let status = ask(clients, tenant_id, namespace).await.unwrap_err();
        (status.code(), reason(&status))
    };
    let denied = |reason: &str| (Code::PermissionDenied, reason.to_owned());

    let unable = server.with_key(&server.key("acme", &["cache.read", "cache.write"]).await);
    assert_eq!(refused(&unable, "", "").await, denied("SCOPE_MISSING"));
    let able = server.with_key(&server.key("acme", &["usage.read"]).await);
    let found = ask(&able, "acme", "").await.unwrap();
    assert_eq!(found.stats.unwrap().sets, 1);
    // A tenant's key sees its tenant, and never the fleet.
    assert_eq!((found.fleet, found.store), (None, None));
    for tenant_id in ["other", "nobody"] {
        let refused = refused(&able, tenant_id, "").await;
        assert_eq!(refused, denied("TENANT_MISMATCH"));
    }

    let admin = server.admin();
    let found = ask(&admin, "acme", "").await.unwrap();
    assert_eq!(found.stats.unwrap().sets, 1);
    assert_eq!((found.fleet, found.store), (None, None));
    let found = ask(&admin, "", "").await.unwrap();
    assert_eq!(found.fleet.unwrap().sets, 1);
    let store = found.store.unwrap();
    assert!(["embedded", "redis"].contains(&&*store.backend));
    assert!(store.exact && !store.version.is_empty() && store.latency.is_some());
    assert!(store.records.unwrap() > 0 && store.evicted == Some(0));
    assert_eq!(store.used_bytes.is_some(), kind == Kind::Redis);
    let absent = refused(&admin, "nobody", "").await;
    assert_eq!(absent, (Code::NotFound, "TENANT_NOT_FOUND".to_owned()));
    for (tenant_id, namespace) in [("", "default"), ("acme", "No"), ("acme", "(others)")] {
        let status = ask(&admin, tenant_id, namespace).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(fields(&status), ["namespace"]);
    }

    // An operator looks at a tenant that is suspended, too.
    let suspend = SuspendTenantRequest {
        tenant_id: "acme".into(),
        mode: SuspensionMode::Blocked.into(),
        ..Default::default()
    };
    admin.tenant.clone().suspend_tenant(suspend).await.unwrap();
    let found = ask(&admin, "acme", "").await.unwrap();
    assert_eq!(found.stats.unwrap().sets, 1);
}

#[tokio::test]
async fn replicas_answer_for_all_and_a_restart_forgets_nothing() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let mut here = one.tenant("acme").await;
    let mut there = two.with_key(&here.secret);
    for n in 0..10 {
        here.clients
            .cache
            .set(set(&format!("k{n}"), "v"))
            .await
            .unwrap();
        there.cache.get(get("", &format!("k{n}"))).await.unwrap();
        there.cache.get(get("", "absent")).await.unwrap();
    }
    // Each has its own at once, and the other's before long.
    assert_eq!(stats(&here.clients, "").await.sets, 10);
    let own = stats(&there, "").await;
    assert_eq!((own.sets, own.hits, own.misses), (10, 10, 10));
    let found = ask(&here.clients, "", "default")
        .await
        .unwrap()
        .stats
        .unwrap();
    assert_eq!((found.sets, found.hits, found.misses), (10, 10, 10));
    assert_latency(found.read_latency, 20);
    assert_latency(found.write_latency, 10);
    assert_eq!(fleet(&two).await.sets, 10);

    here.clients.cache.get(get("", "k0")).await.unwrap();
    one.stop().await;
    two.stop().await;
    let again = Server::start(Backend::Redis(&redis)).await;
    let clients = again.with_key(&here.secret);
    let found = stats(&clients, "").await;
    assert_eq!((found.sets, found.hits, found.misses), (10, 11, 10));
    let found = ask(&clients, "", "").await.unwrap().stats.unwrap();
    assert_latency(found.read_latency, 21);
    assert_eq!(fleet(&again).await.hits, 11);
}
