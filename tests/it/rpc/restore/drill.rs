//! The disaster drill: tenants are filled, a checkpoint is taken, the store is emptied,
//! all is restored and compared. `make drill` runs it at size, with a table of what it
//! took; docs/runbook.md has it step by step. It does not know what was lost.

use std::time::{Duration, Instant};

use riptide_persistence::proto::v1::{BatchGetRequest, BatchSetRequest, SetEntry};

use super::*;

/// Entries of one call.
const AT_ONCE: usize = 100;

/// What differs from one drill to the next.
struct Size {
    tenants: usize,
    entries: usize,
    value_bytes: usize,
    seed: u64,
}

impl Size {
    /// A small one; as large as the environment says.
    fn asked() -> Self {
        let number = |name: &str, default: usize| {
            let given = std::env::var(name).ok();
            given
                .and_then(|given| given.parse().ok())
                .unwrap_or(default)
        };
        Self {
            tenants: number("DRILL_TENANTS", 3).max(1),
            entries: number("DRILL_ENTRIES", 400),
            value_bytes: number("DRILL_VALUE_BYTES", 1024),
            seed: number("SEED", 1) as u64,
        }
    }
}

/// Numbers that look random, and are the same for the same seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes that do not compress, or do.
    fn value(&mut self, bytes: usize) -> Vec<u8> {
        if self.next().is_multiple_of(4) {
            return vec![self.next() as u8; bytes];
        }
        let mut value = Vec::with_capacity(bytes + 8);
        while value.len() < bytes {
            value.extend_from_slice(&self.next().to_le_bytes());
        }
        value.truncate(bytes);
        value
    }
}

fn entries(size: &Size, tenant: usize) -> impl Iterator<Item = Vec<SetEntry>> {
    let mut draw = Draw((size.seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (tenant as u64 + 1));
    let (count, bytes) = (size.entries, size.value_bytes);
    (0..count).step_by(AT_ONCE).map(move |first| {
        let entry = |n: usize| SetEntry {
            key: format!("entry:{n}"),
            value: draw.value(bytes).into(),
            ttl: n.is_multiple_of(2).then_some(prost_types::Duration {
                seconds: 7200 + (n % 1000) as i64,
                nanos: 0,
            }),
            tags: if n.is_multiple_of(3) {
                vec![format!("tag-{}", n % 10)]
            } else {
                Vec::new()
            },
            ..Default::default()
        };
        (first..(first + AT_ONCE).min(count)).map(entry).collect()
    })
}

/// When each entry ends, in seconds, in the order of the entries; every value is the one
/// that was set.
async fn compare(clients: &Clients, size: &Size, tenant: usize) -> Vec<Option<i64>> {
    let mut ends = Vec::new();
    for expected in entries(size, tenant) {
        let request = BatchGetRequest {
            keys: expected.iter().map(|entry| entry.key.clone()).collect(),
            ..Default::default()
        };
        let found = clients.cache.clone().batch_get(request).await.unwrap();
        for (found, expected) in found.into_inner().results.into_iter().zip(expected) {
            let entry = found
                .entry
                .unwrap_or_else(|| panic!("{} is lost", expected.key));
            assert_eq!(entry.value, expected.value, "{}", expected.key);
            assert_eq!(entry.tags, expected.tags, "{}", expected.key);
            ends.push(entry.expire_time.map(|time| time.seconds));
        }
    }
    ends
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drill(#[case] kind: Kind) {
    let size = Size::asked();
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let mut table: Vec<(&str, Duration, u64)> = Vec::new();
    let bytes = (size.tenants * size.entries * (size.value_bytes + 10)) as u64;

    let began = Instant::now();
    let mut secrets = Vec::new();
    for tenant in 0..size.tenants {
        let request = CreateTenantRequest {
            tenant_id: format!("drill-{tenant}"),
            encryption_enabled: tenant % 2 == 1,
            ..Default::default()
        };
        let created = server.admin().tenant.create_tenant(request).await.unwrap();
        let secret = created.into_inner().secret;
        let clients = server.with_key(&secret);
        for entries in entries(&size, tenant) {
            let request = BatchSetRequest {
                entries,
                ..Default::default()
            };
            let set = clients.cache.clone().batch_set(request).await.unwrap();
            assert!(set.into_inner().results.iter().all(|r| r.status.is_none()));
        }
        secrets.push(secret);
    }
    table.push(("fill", began.elapsed(), bytes));
    let mut ends = Vec::new();
    for (tenant, secret) in secrets.iter().enumerate() {
        ends.push(compare(&server.with_key(secret), &size, tenant).await);
    }
    let first = server.with_key(&secrets[0]);
    let session_ids = begin_sessions(&first, 50).await;
    let open = sessions(&first, &session_ids).await;
    let used = settled(&server.with_key(&secrets[0])).await;

    let began = Instant::now();
    let id = checkpoint(&server.admin(), &ALL).await;
    table.push(("checkpoint", began.elapsed(), bytes));

    let server = match &stage.redis {
        Some(redis) => {
            redis.cli(&["flushall"]);
            redis.cli(&["config", "set", "slowlog-log-slower-than", "2000"]);
            redis.cli(&["slowlog", "reset"]);
            server
        }
        None => {
            server.stop().await;
            stage.serve().await
        }
    };
    let began = Instant::now();
    let result = restored(&server.admin(), asked(&id, RestoreConflict::Fail)).await;
    table.push(("restore", began.elapsed(), bytes));
    assert_eq!(result.created, size.tenants as i64);

    let began = Instant::now();
    for (tenant, secret) in secrets.iter().enumerate() {
        let found = compare(&server.with_key(secret), &size, tenant).await;
        for (found, expected) in found.iter().zip(&ends[tenant]) {
            match (found, expected) {
                (Some(found), Some(expected)) => assert!((found - expected).abs() <= 1),
                (found, expected) => assert_eq!(found, expected),
            }
        }
    }
    let first = server.with_key(&secrets[0]);
    assert_eq!(sessions(&first, &session_ids).await, open);
    table.push(("compare", began.elapsed(), bytes));
    let now = |usage: &GetTenantUsageResponse| usage.usage.clone().unwrap();
    let after = now(&usage(&server.with_key(&secrets[0])).await);
    let used = now(&used);
    assert_eq!(after.memory_bytes, used.memory_bytes);
    assert_eq!(after.cache_entries, used.cache_entries);
    assert!(after.operations >= used.operations);
    if let Some(redis) = &stage.redis {
        let slow = redis.cli(&["slowlog", "get", "5"]);
        audit(redis).await;
        println!("commands over 2 ms during restore and comparison:\n{slow}");
    }

    println!(
        "\n{kind:?}: {} tenants, {} entries of {} bytes each, seed {}",
        size.tenants, size.entries, size.value_bytes, size.seed
    );
    for (step, took, bytes) in table {
        let seconds = took.as_secs_f64();
        let rate = bytes as f64 / 1e6 / seconds;
        println!("  {step:<12} {seconds:>8.2} s {rate:>8.1} MB/s");
    }
    println!("  every value, tag and end is as it was; keys work; usage agrees");
}
