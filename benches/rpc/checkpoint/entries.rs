//! Entries that differ all from each other, and the calls on them with the answers that
//! are right. It does not know that a checkpoint is taken of them.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use riptide_persistence::proto::v1::{
    BatchSetRequest, BatchSetResponse, GetResponse, SetEntry, SetRequest, SetResponse,
};

use crate::{
    line::{Call, Line, decode},
    load::{Answers, Work},
    scenario,
};

/// Tenants that have the entries, evenly.
const TENANTS: usize = 4;
/// Different calls, each on an entry that is drawn from all: more than are kept near.
const CALLS: usize = 100_000;
/// One call of so many is a Set, the others are Gets.
const SETS: usize = 10;
/// Entries stored by one call.
const PART: usize = 500;
/// How long they live: longer than all of this takes.
const TTL_SECONDS: i64 = 86_400;

const CACHE: &str = "/riptide.persistence.v1.CacheService";

/// Stores the entries, and tells the calls on them: each answer is held against what
/// was stored.
pub async fn fill(address: SocketAddr, entries: usize) -> Result<Work> {
    let mut line = Line::open(address).await?;
    let mut keys = Vec::new();
    let mut versions = Vec::new();
    for tenant in 0..TENANTS {
        let key = scenario::create_tenant(address, &format!("kept-{tenant}")).await?;
        let numbers: Vec<usize> = (tenant..entries).step_by(TENANTS).collect();
        let mut version = 0;
        for part in numbers.chunks(PART) {
            let entries = part.iter().map(|number| SetEntry {
                key: name(*number),
                value: value(*number),
                ttl: Some(ttl()),
                ..SetEntry::default()
            });
            let request = BatchSetRequest {
                entries: entries.collect(),
                ..BatchSetRequest::default()
            };
            let call = Call::new(&format!("{CACHE}/BatchSet"), &key, &request)?;
            let results = decode::<BatchSetResponse>(&line.call(&call).await?)?.results;
            ensure!(results.len() == part.len(), "BatchSet: {results:?}");
            for result in results {
                ensure!(result.status.is_none(), "BatchSet: {result:?}");
                version = version.max(result.version);
            }
        }
        keys.push(key);
        versions.push(version);
    }
    let drawn: Vec<usize> = (0..CALLS).map(|call| drawn(call) % entries).collect();
    let calls = drawn.iter().enumerate().map(|(call, number)| {
        let key = keys.get(number % TENANTS).context("a key each")?;
        if !is_set(call) {
            return Call::new(scenario::GET, key, &scenario::get(&name(*number)));
        }
        let request = SetRequest {
            key: name(*number),
            value: value(*number),
            ttl: Some(ttl()),
            ..SetRequest::default()
        };
        Call::new(&format!("{CACHE}/Set"), key, &request)
    });
    let calls = calls.collect::<Result<_>>()?;
    let right = move |call: usize, answer: &Bytes| {
        let number = *drawn.get(call).context("a number each")?;
        if is_set(call) {
            let version = decode::<SetResponse>(answer)?.version;
            let filled = versions.get(number % TENANTS).copied();
            ensure!(filled < Some(version), "version {version} after {filled:?}");
        } else {
            let entry = decode::<GetResponse>(answer)?.entry.context("a miss")?;
            ensure!(entry.value == value(number), "another value than was set");
        }
        Ok(())
    };
    Ok(Work {
        calls,
        answers: Answers::Right(Box::new(right)),
    })
}

fn is_set(call: usize) -> bool {
    call % SETS == SETS - 1
}

fn name(number: usize) -> String {
    format!("entry-{number:07}")
}

fn ttl() -> prost_types::Duration {
    prost_types::Duration {
        seconds: TTL_SECONDS,
        nanos: 0,
    }
}

/// The value of an entry: noise, and another one than all others have.
fn value(number: usize) -> Bytes {
    let mut state = drawn(number) as u64 | 1;
    let words = (0..scenario::VALUE_BYTES / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// A number that looks as if it were drawn, the same in each run: splitmix64.
fn drawn(number: usize) -> usize {
    let mut z = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as usize
}
