//! Usage over a real socket, on both backends: every counter by exact numbers,
//! whoever calls and at whichever replica. It does not know how they are kept.

use std::collections::HashMap;

use prost_types::Timestamp;
use riptide_persistence::proto::v1::{
    BatchDeleteRequest, BatchGetRequest, BatchSetRequest, CreateTenantRequest, CustomQuota,
    DeleteRequest, DeleteTenantRequest, GetRequest, GetTenantUsageRequest, GetTenantUsageResponse,
    InvalidateCacheRequest, Keys, ListKeysRequest, PurgeTenantRequest, QuotaMode, Quotas,
    RecordUsageRequest, SetCondition, SetEntry, SetRequest, TouchRequest, Usage, UsageGranularity,
    invalidate_cache_request::Target,
};
use rstest::rstest;
use tonic::{Code, Status};

use super::assert_refused;
use crate::{
    redis::Redis,
    server::{Backend, Clients, Kind, Server, fields},
};

/// A tenant that nothing is refused to, with metrics of the platform's own.
async fn tenant(server: &Server, tenant_id: &str) -> Clients {
    let quotas = Quotas {
        memory_bytes: Some(-1),
        cache_entries: Some(1000),
        operations_per_minute: Some(-1),
        data_transfer_bytes: Some(1_000_000_000),
        custom: HashMap::from([
            ("seats".to_owned(), level(10)),
            ("renders".to_owned(), rate(1000, 3600)),
        ]),
        modes: HashMap::from([("cache_entries".to_owned(), QuotaMode::Warn.into())]),
        ..Default::default()
    };
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        quotas: Some(quotas),
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await;
    server.with_key(&created.unwrap().into_inner().secret)
}

fn level(limit: i64) -> CustomQuota {
    CustomQuota {
        limit,
        window: None,
    }
}

fn rate(limit: i64, seconds: i64) -> CustomQuota {
    CustomQuota {
        limit,
        window: Some(prost_types::Duration { seconds, nanos: 0 }),
    }
}

async fn ask(clients: &Clients, request: GetTenantUsageRequest) -> GetTenantUsageResponse {
    let answer = clients.tenant.clone().get_tenant_usage(request).await;
    answer.unwrap().into_inner()
}

async fn usage(clients: &Clients, tenant_id: &str) -> Usage {
    let request = GetTenantUsageRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    };
    ask(clients, request).await.usage.unwrap()
}

async fn record(clients: &Clients, request: RecordUsageRequest) -> Result<bool, Status> {
    let answer = clients.tenant.clone().record_usage(request).await?;
    Ok(answer.into_inner().recorded)
}

fn set(key: &str, bytes: usize) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: vec![7; bytes].into(),
        ..Default::default()
    }
}

fn get(key: &str) -> GetRequest {
    GetRequest {
        key: key.into(),
        ..Default::default()
    }
}

fn entry(key: &str, bytes: usize) -> SetEntry {
    SetEntry {
        key: key.into(),
        value: vec![7; bytes].into(),
        ..Default::default()
    }
}

fn delete(key: &str, if_version: i64) -> DeleteRequest {
    DeleteRequest {
        key: key.into(),
        if_version,
        ..Default::default()
    }
}

fn invalidate(target: Target) -> InvalidateCacheRequest {
    InvalidateCacheRequest {
        target: Some(target),
        ..Default::default()
    }
}

fn event(event_id: &str) -> RecordUsageRequest {
    RecordUsageRequest {
        tenant_id: "acme".into(),
        event_id: event_id.into(),
        operations: 1,
        ..Default::default()
    }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_call_counts_what_it_came_to(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = tenant(&server, "acme").await;
    let mut cache = clients.cache.clone();
    // Beside each call: what it adds to operations, bytes in, and bytes out.
    cache.set(set("k1", 100)).await.unwrap(); // 1, 102
    cache.set(set("k2", 5000)).await.unwrap(); // 1, 5002 though it is compressed
    cache.get(get("k1")).await.unwrap(); // 1, 2, 100
    cache.get(get("nope")).await.unwrap(); // 1, 4
    let batch = BatchGetRequest {
        keys: keys(&["k1", "k2", "k1", "nope", ""]),
        ..Default::default()
    };
    cache.batch_get(batch).await.unwrap(); // 1, 10, 5200
    let batch = BatchSetRequest {
        entries: vec![entry("b1", 10), entry("", 99), entry("b2", 20)],
        ..Default::default()
    };
    cache.batch_set(batch).await.unwrap(); // 1, 34
    let nothing = BatchSetRequest {
        entries: vec![entry("", 99)],
        ..Default::default()
    };
    cache.batch_set(nothing).await.unwrap();
    for key in ["k1", "nope"] {
        let touch = TouchRequest {
            key: key.into(),
            ..Default::default()
        };
        cache.touch(touch).await.unwrap(); // 1, 2; 1, 4
    }
    cache.delete(delete("nope", 0)).await.unwrap(); // 1, 4
    cache.delete(delete("b1", 0)).await.unwrap(); // 1, 2
    let absent = cache.delete(delete("nope", 7)).await.unwrap(); // 1, 4
    assert!(!absent.into_inner().deleted);
    cache.delete(delete("k1", i64::MAX)).await.unwrap_err();
    let mut taken = set("k1", 9);
    taken.condition = SetCondition::IfAbsent.into();
    cache.set(taken).await.unwrap_err();
    cache.get(get("")).await.unwrap_err();
    let batch = BatchDeleteRequest {
        keys: keys(&["b2", "nope"]),
        ..Default::default()
    };
    cache.batch_delete(batch).await.unwrap(); // 1, 6
    let mut pages = 0;
    let mut list = ListKeysRequest::default();
    loop {
        pages += 1; // 1 each; 4 out in all
        let page = cache.list_keys(list.clone()).await.unwrap().into_inner();
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() {
            break;
        }
    }
    let two = Target::Keys(Keys {
        keys: keys(&["k2", "nope"]),
    });
    cache.invalidate_cache(invalidate(two)).await.unwrap(); // 1, 6
    let namespace = Target::WholeNamespace(true);
    cache.invalidate_cache(invalidate(namespace)).await.unwrap(); // 1
    cache.set(set("k3", 7)).await.unwrap(); // 1, 9
    let all = Target::WholeTenant(true);
    cache.invalidate_cache(invalidate(all)).await.unwrap(); // 1
    cache.set(set("k4", 8)).await.unwrap(); // 1, 10

    let request = GetTenantUsageRequest {
        granularity: UsageGranularity::Minute.into(),
        ..Default::default()
    };
    let answer = ask(&clients, request).await;
    let usage = answer.usage.clone().unwrap();
    let expected = Usage {
        memory_bytes: usage.memory_bytes,
        cache_entries: 1,
        operations: 17 + pages,
        hits: 4,
        misses: 2,
        bytes_in: 5201,
        bytes_out: 5304,
        data_transfer_bytes: 10_505,
        memory_byte_seconds: usage.memory_byte_seconds,
        exact: usage.exact,
        custom: HashMap::from([("seats".to_owned(), 0), ("renders".to_owned(), 0)]),
        ..Default::default()
    };
    assert_eq!(usage, expected);
    assert!(usage.memory_bytes > 8);

    let quota = |metric: &str| answer.quotas.get(metric).cloned().unwrap();
    let memory = quota("memory_bytes");
    assert_eq!(
        (memory.limit, memory.used, memory.remaining),
        (-1, usage.memory_bytes, -1)
    );
    let entries = quota("cache_entries");
    assert_eq!((entries.limit, entries.remaining), (1000, 999));
    assert_eq!(entries.mode(), QuotaMode::Warn);
    assert_eq!(entries.reset_time, None);
    let transfer = quota("data_transfer_bytes");
    assert_eq!((transfer.used, transfer.remaining), (10_505, 999_989_495));
    assert!(transfer.reset_time.unwrap().seconds > answer.as_of.unwrap().seconds);
    assert_eq!((quota("seats").limit, quota("renders").limit), (10, 1000));
    assert_eq!(answer.quotas.len(), 8);

    let sum = |figure: fn(&riptide_persistence::proto::v1::UsagePoint) -> i64| -> i64 {
        answer.points.iter().map(figure).sum()
    };
    assert_eq!(answer.points.len(), 60);
    assert_eq!(sum(|point| point.operations), usage.operations);
    assert_eq!(sum(|point| point.hits), usage.hits);
    assert_eq!(sum(|point| point.misses), usage.misses);
    assert_eq!(sum(|point| point.bytes_in), usage.bytes_in);
    assert_eq!(sum(|point| point.bytes_out), usage.bytes_out);
    assert_eq!(sum(|point| point.data_transfer_bytes), 10_505);
}

/// 16 callers, each reading and writing so often.
const CALLERS: i64 = 16;
const EACH: i64 = 25;

async fn load(servers: &[&Server], clients: &[Clients]) {
    let calls = (0..CALLERS).map(|caller| {
        let at = usize::try_from(caller).unwrap() % servers.len();
        let mut cache = clients[at].cache.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                cache.set(set("k", 98)).await.unwrap();
                cache.get(get("k")).await.unwrap();
                cache.get(get("none")).await.unwrap();
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

fn assert_load(usage: &Usage) {
    let calls = CALLERS * EACH;
    assert_eq!(usage.operations, 3 * calls);
    assert_eq!((usage.hits, usage.misses), (calls, calls));
    assert_eq!((usage.bytes_in, usage.bytes_out), (104 * calls, 98 * calls));
    assert_eq!(usage.data_transfer_bytes, 202 * calls);
}

#[tokio::test]
async fn callers_at_once_are_counted_exactly() {
    let server = Kind::Embedded.start().await;
    let clients = tenant(&server, "acme").await;
    load(&[&server], std::slice::from_ref(&clients)).await;
    assert_load(&usage(&clients, "").await);
}

#[tokio::test]
async fn replicas_count_together_and_a_drain_loses_nothing() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let first = tenant(&one, "acme").await;
    let request = riptide_persistence::proto::v1::CreateApiKeyRequest {
        tenant_id: "acme".into(),
        scopes: keys(&["cache.read", "cache.write", "usage.read"]),
        ..Default::default()
    };
    let key = one.admin().tenant.create_api_key(request).await.unwrap();
    let second = two.with_key(&key.into_inner().secret);
    load(&[&one, &two], &[first, second.clone()]).await;
    // The drain flushes what the last second has not.
    one.stop().await;
    assert_load(&usage(&second, "").await);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_reported_counts_once_and_towards_quotas(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = server.admin();
    tenant(&server, "acme").await;
    let full = RecordUsageRequest {
        operations: 5,
        data_transfer_bytes: 1000,
        compute_ms: 77,
        custom: HashMap::from([("seats".to_owned(), 3), ("renders".to_owned(), 400)]),
        ..event("one")
    };
    let reports: Vec<_> = (0..8)
        .map(|_| {
            let (admin, full) = (admin.clone(), full.clone());
            tokio::spawn(async move { record(&admin, full).await.unwrap() })
        })
        .collect();
    let mut recorded = 0;
    for report in reports {
        recorded += usize::from(report.await.unwrap());
    }
    assert_eq!(recorded, 1);
    let other = RecordUsageRequest {
        operations: 1_000_000,
        ..event("one")
    };
    assert!(!record(&admin, other).await.unwrap(), "the same name");
    assert!(record(&admin, event("two")).await.unwrap());

    let request = GetTenantUsageRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let answer = ask(&admin, request).await;
    let usage = answer.usage.unwrap();
    assert_eq!((usage.operations, usage.compute_ms), (6, 77));
    assert_eq!((usage.bytes_in, usage.data_transfer_bytes), (0, 1000));
    let custom = HashMap::from([("seats".to_owned(), 3), ("renders".to_owned(), 400)]);
    assert_eq!(usage.custom, custom);
    for (metric, used, remaining) in [
        ("seats", 3, 7),
        ("renders", 400, 600),
        ("data_transfer_bytes", 1000, 999_999_000),
    ] {
        let quota = answer.quotas.get(metric).unwrap();
        assert_eq!((quota.used, quota.remaining), (used, remaining), "{metric}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_makes_no_sense_is_refused(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = server.admin();
    let clients = tenant(&server, "acme").await;
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let now = ask(&clients, GetTenantUsageRequest::default()).await;
    let now = now.as_of.unwrap().seconds;

    for (request, expected) in [
        (
            RecordUsageRequest::default(),
            &["tenant_id", "event_id", "operations"][..],
        ),
        (
            RecordUsageRequest {
                operations: -1,
                compute_ms: 1_000_000_000_000_001,
                custom: HashMap::from([("nobody_knows".to_owned(), 1)]),
                ..event("e\n")
            },
            &[
                "event_id",
                "operations",
                "compute_ms",
                "custom.nobody_knows",
            ],
        ),
        (
            RecordUsageRequest {
                event_time: at(now - 3600),
                ..event("e")
            },
            &["event_time"],
        ),
        (
            RecordUsageRequest {
                event_time: at(now - 36 * 86_400),
                ..event("e")
            },
            &["event_time", "event_time"],
        ),
        (
            RecordUsageRequest {
                event_time: at(now + 400),
                ..event("e")
            },
            &["event_time"],
        ),
        (
            RecordUsageRequest {
                event_time: at(-1),
                ..event("e")
            },
            &["event_time"],
        ),
    ] {
        let status = record(&admin, request).await;
        let status = assert_refused(status, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(fields(&status), expected);
    }
    let unknown = RecordUsageRequest {
        tenant_id: "nobody".into(),
        ..event("e")
    };
    assert_refused(
        record(&admin, unknown).await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    assert_refused(
        record(&clients, event("e")).await,
        Code::PermissionDenied,
        "SCOPE_MISSING",
    );

    for (granularity, start_time, end_time, expected) in [
        (0, at(now), None, &["start_time"][..]),
        (99, None, None, &["granularity"]),
        (1, at(now - 60), at(now - 120), &["start_time"]),
        (1, at(now - 3 * 86_400), None, &["start_time", "start_time"]),
        (1, at(-5), None, &["start_time"]),
        (2, None, at(now + 3600), &["end_time"]),
    ] {
        let request = GetTenantUsageRequest {
            granularity,
            start_time,
            end_time,
            ..Default::default()
        };
        let answer = clients.tenant.clone().get_tenant_usage(request).await;
        let status = assert_refused(answer, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(fields(&status), expected, "{granularity} {start_time:?}");
    }
    let usage = usage(&clients, "").await;
    assert_eq!((usage.operations, usage.compute_ms), (0, 0));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_deleted_tenants_usage_is_told_and_taken_until_it_is_purged(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let clients = tenant(&server, "acme").await;
    clients.cache.clone().set(set("k", 10)).await.unwrap();
    let before = ask(&clients, GetTenantUsageRequest::default()).await.as_of;
    let request = DeleteTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    admin.tenant.delete_tenant(request).await.unwrap();
    let late = |event_id| RecordUsageRequest {
        event_time: before,
        ..event(event_id)
    };
    assert!(record(&admin, late("before")).await.unwrap());
    // The store's clock has moved on since the deletion, if only a little.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_refused(
        record(&admin, event("after")).await,
        Code::FailedPrecondition,
        "TENANT_DELETED",
    );
    assert_eq!(usage(&admin, "acme").await.operations, 2);

    let request = PurgeTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    admin.tenant.purge_tenant(request).await.unwrap();
    assert_refused(
        record(&admin, late("e")).await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    let request = GetTenantUsageRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let answer = admin.tenant.get_tenant_usage(request).await;
    assert_refused(answer, Code::NotFound, "TENANT_NOT_FOUND");
}
