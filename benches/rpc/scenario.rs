//! What is asked: the tenants, their entries, and the calls on them, with the
//! answers that are right. It does not know how fast.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost_types::Duration;
use riptide_persistence::proto::v1::*;

use crate::{
    line::{Call, Line, decode},
    load::{Answers, Work},
    process::ADMIN_KEY,
};

/// Bytes of a value.
pub const VALUE_BYTES: usize = 1024;
/// Bytes of a value in a batch.
pub const BATCH_VALUE_BYTES: usize = 100;
/// What the twins are given for an API key: as long as one, so that their callers send
/// as much.
pub const NO_KEY: &str =
    "rtp_v8k3q0m5t1n7r2p6s4u9aobjcidh_Zk9-3xQmW7Lr2TyVb5NcJ8HsUe1GpAf4Dd6KoXi0RzMqYtSw";
/// Keys that begin so are never set.
pub const MISSING: &str = "missing";

/// Different keys of a scenario.
const KEYS: usize = 1000;
/// Keys of a batch.
pub const BATCH: usize = 100;
/// Tenants in the scenario of many.
pub const TENANTS: usize = 100;

const CACHE: &str = "/riptide.persistence.v1.CacheService";
/// The path of Get.
pub const GET: &str = "/riptide.persistence.v1.CacheService/Get";
const CHECK_QUOTA: &str = "/riptide.persistence.v1.TenantService/CheckQuota";
const CREATE_TENANT: &str = "/riptide.persistence.v1.TenantService/CreateTenant";

/// The limit of every rate that is counted and never reached.
pub const VAST: i64 = 1_000_000_000_000;
/// A rate of the platform's own.
const CUSTOM: &str = "pages_rendered";

/// The calls whose peak is measured.
pub struct Peaks {
    /// Gets of entries that are there, 1 KiB each.
    pub get: Arc<Work>,
    /// Sets of 1 KiB, counted against quotas.
    pub set: Arc<Work>,
    /// Gets of entries that are not there.
    pub miss: Arc<Work>,
    /// BatchGets of 100 entries of 100 B.
    pub batch: Arc<Work>,
    /// CheckQuota that consumes a rate of the platform's own.
    pub consume: Arc<Work>,
    /// CheckQuota that consumes operations_per_minute.
    pub consume_operations: Arc<Work>,
    /// The Gets and Sets of a tenant whose values are encrypted; `None` where there
    /// is none.
    pub sealed: Option<(Arc<Work>, Arc<Work>)>,
}

impl Peaks {
    /// The same with the Gets and Sets of these.
    pub fn beside(self, sealed: Self) -> Self {
        Self {
            sealed: Some((sealed.get, sealed.set)),
            ..self
        }
    }
}

impl Peaks {
    /// Stores what the calls need, where there is a store (`keep`), and learns the
    /// answers.
    pub async fn prepare(address: SocketAddr, key: &str, keep: bool) -> Result<Self> {
        let value = noise(VALUE_BYTES);
        let batch_value = noise(BATCH_VALUE_BYTES);
        let get = each(|n| Call::new(&format!("{CACHE}/Get"), key, &get(&format!("get-{n:04}"))))?;
        let set = each(|n| {
            Call::new(
                &format!("{CACHE}/Set"),
                key,
                &set(&format!("set-{n:04}"), &value),
            )
        })?;
        let miss = each(|n| Call::new(&format!("{CACHE}/Get"), key, &get_of_missing(n)))?;
        let batch = each(|n| {
            let keys = (0..BATCH)
                .map(|item| format!("batch-{:04}", (n + item) % KEYS))
                .collect();
            Call::new(
                &format!("{CACHE}/BatchGet"),
                key,
                &BatchGetRequest {
                    keys,
                    ..BatchGetRequest::default()
                },
            )
        })?;
        if keep {
            fill(address, key, "get", KEYS, &value).await?;
            fill(address, key, "batch", KEYS, &batch_value).await?;
        }
        let right = |entry: Option<CacheEntry>, prefix: &str, value: &Bytes| {
            let entry = entry.context("a miss")?;
            ensure!(entry.key.starts_with(prefix), "key {}", entry.key);
            ensure!(
                entry.value.len() == value.len() && (!keep || entry.value == value),
                "another value than was set"
            );
            Ok(())
        };
        let get = Work::learn(address, get, |_, answer| {
            right(decode::<GetResponse>(answer)?.entry, "get-", &value)
        });
        let miss = Work::learn(address, miss, |_, answer| {
            ensure!(decode::<GetResponse>(answer)?.entry.is_none(), "a hit");
            Ok(())
        });
        let batch = Work::learn(address, batch, |_, answer| {
            let results = decode::<BatchGetResponse>(answer)?.results;
            ensure!(results.len() == BATCH, "{} results", results.len());
            results
                .into_iter()
                .try_for_each(|result| right(result.entry, "batch-", &batch_value))
        });
        Ok(Self {
            get: Arc::new(get.await.context("Get")?),
            set: Arc::new(Work {
                calls: set,
                answers: Answers::GrowingVersions,
            }),
            miss: Arc::new(miss.await.context("Get of a missing key")?),
            batch: Arc::new(batch.await.context("BatchGet")?),
            consume: consume(key, CUSTOM)?,
            consume_operations: consume(key, "operations_per_minute")?,
            sealed: None,
        })
    }
}

/// Gets of `count` entries of 1 KiB that are there.
pub async fn hits(address: SocketAddr, key: &str, count: usize) -> Result<Arc<Work>> {
    let value = noise(VALUE_BYTES);
    fill(address, key, "get", count, &value).await?;
    let calls = (0..count).map(|n| Call::new(GET, key, &get(&format!("get-{n:04}"))));
    let check = |_, answer: &Bytes| {
        let entry = decode::<GetResponse>(answer)?.entry;
        ensure!(entry.is_some_and(|entry| entry.value == value), "a miss");
        Ok(())
    };
    let calls = calls.collect::<Result<_>>()?;
    Ok(Arc::new(Work::learn(address, calls, check).await?))
}

fn consume(key: &str, metric: &str) -> Result<Arc<Work>> {
    let request = CheckQuotaRequest {
        metric: metric.into(),
        amount: 1,
        mode: CheckQuotaMode::Consume.into(),
        ..CheckQuotaRequest::default()
    };
    let call = Call::new(CHECK_QUOTA, key, &request)?;
    Ok(Arc::new(Work {
        calls: vec![call],
        answers: Answers::Allowed,
    }))
}

/// Gets spread over tenants, 10 entries of 1 KiB each.
pub async fn many_tenants(address: SocketAddr) -> Result<Arc<Work>> {
    let value = noise(VALUE_BYTES);
    let mut keys = Vec::new();
    for number in 0..TENANTS {
        let key = create_tenant(address, &format!("many-{number}")).await?;
        fill(address, &key, "get", 10, &value).await?;
        keys.push(key);
    }
    // Neighbouring calls are of different tenants.
    let calls = each(|n| {
        let key = keys.get(n % TENANTS).context("a key each")?;
        Call::new(
            &format!("{CACHE}/Get"),
            key,
            &get(&format!("get-{:04}", n / TENANTS)),
        )
    })?;
    let check = |_, answer: &Bytes| {
        ensure!(
            decode::<GetResponse>(answer)?
                .entry
                .is_some_and(|entry| entry.value == value),
            "a miss, or another value"
        );
        Ok(())
    };
    Ok(Arc::new(Work::learn(address, calls, check).await?))
}

/// Creates a tenant with limits nobody reaches, and returns its API key.
pub async fn create_tenant(address: SocketAddr, tenant_id: &str) -> Result<String> {
    create_limited(address, tenant_id, VAST).await
}

/// The same with this limit of operations in a minute.
pub async fn create_limited(address: SocketAddr, tenant_id: &str, limit: i64) -> Result<String> {
    let call = creation_limited(tenant_id, limit)?;
    secret(&Line::open(address).await?.call(&call).await?)
}

/// The same for a tenant whose values are encrypted.
pub async fn create_sealed(address: SocketAddr, tenant_id: &str) -> Result<String> {
    let request = CreateTenantRequest {
        encryption_enabled: true,
        ..request_of(tenant_id, VAST)
    };
    let call = Call::new(CREATE_TENANT, ADMIN_KEY, &request)?;
    secret(&Line::open(address).await?.call(&call).await?)
}

/// The API key in the answer to a creation.
pub fn secret(answer: &Bytes) -> Result<String> {
    Ok(decode::<CreateTenantResponse>(answer)?.secret)
}

/// The call that creates a tenant.
pub fn creation(tenant_id: &str) -> Result<Call> {
    creation_limited(tenant_id, VAST)
}

fn creation_limited(tenant_id: &str, operations_per_minute: i64) -> Result<Call> {
    let request = request_of(tenant_id, operations_per_minute);
    Call::new(CREATE_TENANT, ADMIN_KEY, &request)
}

/// Every limit is finite, so that all that is counted for a limit is measured.
fn request_of(tenant_id: &str, operations_per_minute: i64) -> CreateTenantRequest {
    let custom = CustomQuota {
        limit: VAST,
        window: Some(Duration {
            seconds: 60,
            nanos: 0,
        }),
    };
    let quotas = Quotas {
        memory_bytes: Some(1 << 40),
        cache_entries: Some(1 << 40),
        operations_per_minute: Some(operations_per_minute),
        data_transfer_bytes: Some(1 << 50),
        custom: [(CUSTOM.to_owned(), custom)].into(),
        ..Quotas::default()
    };
    CreateTenantRequest {
        tenant_id: tenant_id.into(),
        quotas: Some(quotas),
        ..CreateTenantRequest::default()
    }
}

/// Sets `count` entries `<prefix>-0000` and so on, in batches.
pub async fn fill(
    address: SocketAddr,
    key: &str,
    prefix: &str,
    count: usize,
    value: &Bytes,
) -> Result<()> {
    let mut line = Line::open(address).await?;
    let numbers: Vec<usize> = (0..count).collect();
    for part in numbers.chunks(BATCH) {
        let entries = part.iter().map(|n| SetEntry {
            key: format!("{prefix}-{n:04}"),
            value: value.clone(),
            ttl: Some(hour()),
            ..SetEntry::default()
        });
        let request = BatchSetRequest {
            entries: entries.collect(),
            ..BatchSetRequest::default()
        };
        let answer = line
            .call(&Call::new(&format!("{CACHE}/BatchSet"), key, &request)?)
            .await?;
        let results = decode::<BatchSetResponse>(&answer)?.results;
        ensure!(
            results.len() == part.len() && results.iter().all(|result| result.status.is_none()),
            "BatchSet: {results:?}"
        );
    }
    Ok(())
}

/// Bytes that no compressor makes smaller, the same in each run.
pub fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

fn each(call: impl Fn(usize) -> Result<Call>) -> Result<Vec<Call>> {
    (0..KEYS).map(call).collect()
}

/// A Get of this key.
pub fn get(key: &str) -> GetRequest {
    GetRequest {
        key: key.into(),
        ..GetRequest::default()
    }
}

fn get_of_missing(number: usize) -> GetRequest {
    get(&format!("{MISSING}-{number:04}"))
}

fn set(key: &str, value: &Bytes) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: value.clone(),
        ttl: Some(hour()),
        ..SetRequest::default()
    }
}

fn hour() -> Duration {
    Duration {
        seconds: 3600,
        nanos: 0,
    }
}
