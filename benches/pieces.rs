//! What the pieces of a call cost by themselves: framing, opening and
//! compressing a value. It does not know the store or the network.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use riptide_persistence::{
    codec::{Entry, Frame, HEAD_BYTES, Head},
    config::Compression,
};

const SIZES: [usize; 4] = [100, 1 << 10, 64 << 10, 1 << 20];

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Bytes that compress as JSON does.
fn text(bytes: usize) -> Vec<u8> {
    let rows = (0_u64..).flat_map(|n| {
        let id = n.wrapping_mul(2_654_435_761);
        format!("{{\"id\":{id},\"name\":\"user {n}\",\"active\":true}},").into_bytes()
    });
    rows.take(bytes).collect()
}

fn entry(value: &[u8]) -> Entry<'_> {
    Entry {
        value,
        content_type: "",
        tags: &[],
        create_ms: 1_790_000_000_000,
    }
}

fn frames(c: &mut Criterion) {
    let rule = |enabled| Compression {
        enabled,
        min_bytes: 1024,
        min_saving_percent: 10,
    };
    let kinds = [
        ("plain", noise as fn(usize) -> Vec<u8>, rule(false)),
        ("noise", noise, rule(true)),
        ("text", text, rule(true)),
    ];
    for (kind, make, rule) in kinds {
        let mut group = c.benchmark_group(format!("frame/{kind}"));
        group.measurement_time(Duration::from_secs(2));
        for size in SIZES {
            let value = make(size);
            let frame = entry(&value).encode(&rule).unwrap().bytes;
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("encode", size), |bench| {
                bench.iter(|| entry(black_box(&value)).encode(&rule).unwrap());
            });
            group.bench_function(BenchmarkId::new("decode", size), |bench| {
                bench.iter(|| Frame::decode(black_box(&frame), 20 << 20).unwrap());
            });
        }
        group.finish();
    }
}

fn heads(c: &mut Criterion) {
    let value = noise(1024);
    let rule = Compression {
        enabled: false,
        min_bytes: 0,
        min_saving_percent: 0,
    };
    let frame = entry(&value).encode(&rule).unwrap().bytes;
    let head = frame.slice(..HEAD_BYTES);
    c.bench_function("frame/head", |bench| {
        bench.iter(|| Head::decode(black_box(&head)).unwrap());
    });
}

criterion_group!(pieces, frames, heads);
criterion_main!(pieces);
