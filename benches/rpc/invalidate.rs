//! How long it takes to make entries disappear, by how many there are: the calls one
//! after another, and the sweep behind them beside. It does not know how it is done.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use riptide_persistence::proto::v1::{
    BatchSetRequest, BatchSetResponse, GetTenantUsageRequest, GetTenantUsageResponse,
    InvalidateCacheRequest, InvalidateCacheResponse, SetEntry, Tags,
    invalidate_cache_request::Target,
};
use serde::Serialize;

use crate::{
    line::{Call, Line, decode},
    load::Tally,
    process::{On, Process},
    redis::Redis,
    report::{Sample, Subject},
    scenario,
    slow::{self, Slow},
};

/// How many entries the tenant has.
const SIZES: [usize; 2] = [100, 1_000_000];
/// Calls of each kind.
const CALLS: usize = 400;
/// Calls between which a caller of one after another rests.
const REST: Duration = Duration::from_millis(2);
/// Tags and prefixes that the entries have, evenly.
const KINDS: usize = 100;
/// A sweep that removes nothing for so long is taken to stand still. How long all of
/// it takes depends on the machine: it rests as long as it works.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is told how far a sweep has come.
const TOLD: Duration = Duration::from_secs(10);

const CACHE: &str = "/riptide.persistence.v1.CacheService";
const USAGE: &str = "/riptide.persistence.v1.TenantService/GetTenantUsage";

/// What was measured with so many entries.
#[derive(Serialize)]
pub struct Invalidation {
    /// On which store.
    pub subject: Subject,
    /// Entries there were.
    pub entries: usize,
    /// What was named: tags, a prefix, a namespace, the tenant.
    pub calls: Vec<(&'static str, Sample)>,
    /// From the first call until nothing hidden was left, in seconds.
    pub swept_seconds: f64,
    /// Commands of Redis meanwhile that took more than 2 ms.
    pub slow_commands: Option<Vec<Slow>>,
}

/// Measures both stores with few entries and with many.
pub fn measure(scratch: &Path, log: &Path) -> Result<Vec<Invalidation>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut all = Vec::new();
    for entries in SIZES {
        let redis = Redis::start();
        let process = Process::server(&On::Redis(&redis.url()), scratch, log)?;
        let one = runtime.block_on(one(&process, Subject::Redis, entries, Some(&redis)))?;
        all.push(one);
        process.stop()?;
        let store = scratch.join(format!("invalidated-{entries}"));
        let process = Process::server(&On::Embedded(&store), scratch, log)?;
        all.push(runtime.block_on(one_of(&process, entries))?);
        process.stop()?;
    }
    Ok(all)
}

async fn one_of(process: &Process, entries: usize) -> Result<Invalidation> {
    one(process, Subject::Embedded, entries, None).await
}

async fn one(
    process: &Process,
    subject: Subject,
    entries: usize,
    redis: Option<&Redis>,
) -> Result<Invalidation> {
    let key = scenario::create_tenant(process.address, "invalidated").await?;
    fill(process.address, &key, entries).await?;
    if let Some(redis) = redis {
        slow::watch(redis);
    }
    let mut line = Line::open(process.address).await?;
    let begun = Instant::now();
    let tags = calls(&mut line, &key, |n| {
        let tags = vec![format!("tag-{}", n % KINDS), format!("none-{n}")];
        Target::Tags(Tags { tags })
    });
    let tags = tags.await.context("tags")?;
    let prefix = calls(&mut line, &key, |n| {
        Target::Prefix(format!("{:02}:{n}", n % KINDS))
    });
    let prefix = prefix.await.context("a prefix")?;
    let namespace = calls(&mut line, &key, |_| Target::WholeNamespace(true));
    let namespace = namespace.await.context("a namespace")?;
    swept(&mut line, &key).await.context("a sweep")?;
    let swept_seconds = begun.elapsed().as_secs_f64();
    let slow_commands = redis.map(slow::all);
    // What is flushed as a whole is another mechanism, and another tenant.
    let key = scenario::create_tenant(process.address, "flushed").await?;
    fill(process.address, &key, entries).await?;
    let tenant = calls(&mut line, &key, |_| Target::WholeTenant(true));
    let tenant = tenant.await.context("a tenant")?;
    Ok(Invalidation {
        subject,
        entries,
        calls: vec![
            ("tags", tags),
            ("prefix", prefix),
            ("namespace", namespace),
            ("tenant", tenant),
        ],
        swept_seconds,
        slow_commands,
    })
}

/// Stores entries, each with a tag and a prefix that many have.
async fn fill(address: SocketAddr, key: &str, count: usize) -> Result<()> {
    const PART: usize = 1000;
    let value = scenario::noise(100);
    let mut line = Line::open(address).await?;
    for first in (0..count).step_by(PART) {
        let numbers = first..count.min(first + PART);
        let entries = numbers.map(|n| SetEntry {
            key: format!("{:02}:{n}", n % KINDS),
            value: value.clone(),
            tags: vec![format!("tag-{}", n % KINDS)],
            ..SetEntry::default()
        });
        let request = BatchSetRequest {
            entries: entries.collect(),
            ..BatchSetRequest::default()
        };
        let call = Call::new(&format!("{CACHE}/BatchSet"), key, &request)?;
        let results = decode::<BatchSetResponse>(&line.call(&call).await?)?.results;
        let failed = results.iter().find(|result| result.status.is_some());
        ensure!(failed.is_none(), "BatchSet: {failed:?}");
    }
    Ok(())
}

/// Calls one after another, with a rest between them.
async fn calls(line: &mut Line, key: &str, target: impl Fn(usize) -> Target) -> Result<Sample> {
    let mut latency = Histogram::new(3)?;
    let begun = Instant::now();
    for n in 0..CALLS {
        let request = InvalidateCacheRequest {
            target: Some(target(n)),
            ..InvalidateCacheRequest::default()
        };
        let call = Call::new(&format!("{CACHE}/InvalidateCache"), key, &request)?;
        let begun = Instant::now();
        let answer = line.call(&call).await?;
        latency.record(u64::try_from(begun.elapsed().as_nanos())?)?;
        decode::<InvalidateCacheResponse>(&answer)?;
        tokio::time::sleep(REST).await;
    }
    Ok(Sample::of(&Tally {
        calls: CALLS as u64,
        refused: 0,
        seconds: begun.elapsed().as_secs_f64(),
        latency,
        cpu_seconds: Vec::new(),
    }))
}

/// Waits until the tenant has no entry left, for as long as they become fewer.
async fn swept(line: &mut Line, key: &str) -> Result<()> {
    let call = Call::new(USAGE, key, &GetTenantUsageRequest::default())?;
    let (mut least, mut moved, mut told) = (i64::MAX, Instant::now(), Instant::now());
    loop {
        let answer = decode::<GetTenantUsageResponse>(&line.call(&call).await?)?;
        let left = answer.usage.context("no usage")?.cache_entries;
        if left == 0 {
            return Ok(());
        }
        if left < least {
            (least, moved) = (left, Instant::now());
        }
        ensure!(
            moved.elapsed() < PATIENCE,
            "{left} entries are left, and none was removed in {PATIENCE:?}"
        );
        if told.elapsed() >= TOLD {
            println!("{left} entries are still to be swept");
            told = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
