//! What the pieces of a call cost by themselves: letting a caller in, framing,
//! opening and compressing a value. It does not know the network.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::{
    hint::black_box,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt;
use riptide_persistence::{
    cache::{Cache, Condition, Freshness, Memory, Set},
    codec::{
        Entry, Frame, HEAD_BYTES, Head, Keyring, Place,
        seal::{DataKey, Key},
    },
    config::{self, Compression},
    grpc::{Figures, METHODS},
    store::{Handle, Incarnation, embedded::Embedded},
    tenant::{Access, Accounts, Change, Counts, Directory, NewTenant, Tenancy, Tenants, Terms},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::{Builder, Runtime};
use tonic::Code;

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

fn place(keyring: Option<&Keyring>) -> Place<'_> {
    Place {
        incarnation: Incarnation::parse("0123456789abcdef").unwrap(),
        namespace: "default",
        key: "user:1234567",
        keyring,
    }
}

fn frames(c: &mut Criterion) {
    let rule = |enabled| Compression {
        enabled,
        min_bytes: 1024,
        min_saving_percent: 10,
    };
    let key = Ok(Key::new(&[7; 32]));
    let keyring = Keyring::new(vec![DataKey { id: 1, key }]);
    let kinds = [
        ("plain", noise as fn(usize) -> Vec<u8>, rule(false), None),
        ("noise", noise, rule(true), None),
        ("text", text, rule(true), None),
        // What sealing costs beside `plain`: encode seals, decode opens.
        ("sealed", noise, rule(false), Some(&keyring)),
    ];
    for (kind, make, rule, keyring) in kinds {
        let place = place(keyring);
        let mut group = c.benchmark_group(format!("frame/{kind}"));
        group.measurement_time(Duration::from_secs(2));
        for size in SIZES {
            let value = make(size);
            let frame = entry(&value).encode(&rule, &place).unwrap().bytes;
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("encode", size), |bench| {
                bench.iter(|| entry(black_box(&value)).encode(&rule, &place).unwrap());
            });
            group.bench_function(BenchmarkId::new("decode", size), |bench| {
                bench.iter(|| Frame::decode(black_box(&frame), 20 << 20, &place).unwrap());
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
    let frame = entry(&value).encode(&rule, &place(None)).unwrap().bytes;
    let head = frame.slice(..HEAD_BYTES);
    c.bench_function("frame/head", |bench| {
        bench.iter(|| Head::decode(black_box(&head)).unwrap());
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// More calls a minute than can be made, and yet a limit.
const LIMIT: i64 = 1_000_000_000_000;

/// A caller whom the replica knows, of a tenant with a rate: who it is, whether it
/// may, and a permit that is at hand. Permits are leased on another thread, as
/// another call's core does.
fn admission(c: &mut Criterion) {
    let store: Handle = Arc::new(Embedded::in_memory().unwrap());
    let directory = Arc::new(Directory::new(Duration::from_secs(3600)));
    let settings = config::Tenant {
        default_plan: "free".into(),
        max_tenants: -1,
        delete_grace: Duration::ZERO,
        plans: [("free".to_owned(), limited())].into(),
        ..config::Tenant::default()
    };
    let tenants = Tenants::new(
        store.clone(),
        directory.clone(),
        Arc::new(ArcSwap::from_pointee(settings)),
        SecretString::from("admin"),
    );
    let feed = directory.clone();
    thread::spawn(move || runtime().block_on(feed.follow(store)));
    while !directory.is_fresh() {
        thread::yield_now();
    }
    let secret = runtime().block_on(async {
        let created = tenants
            .create(NewTenant::default(), Change::default())
            .await
            .unwrap();
        let issued = created.issued.unwrap();
        let secret = issued.secret.unwrap();
        let caller = tenants
            .authenticate(Some(secret.expose_secret()))
            .await
            .unwrap();
        tenants.admit(&caller, "", Access::Read).await.unwrap();
        secret
    });
    // The feed tells of the creation once; after that both are remembered.
    thread::sleep(Duration::from_millis(300));
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let enter = async || {
        let key = secret.expose_secret();
        let caller = tenants.authenticate(Some(key)).await.unwrap();
        let tenancy = tenants.admit(&caller, "", Access::Read).await.unwrap();
        tenants.charge(&tenancy).await.unwrap();
        tenancy
    };
    let admitted = || match enter().now_or_never() {
        Some(tenancy) => tenancy,
        None => runtime.block_on(enter()),
    };
    c.bench_function("admission", |bench| {
        bench.iter(|| black_box(admitted()));
    });
    const CALLS: usize = 100_000;
    let count = |_| {
        allocation_counter::measure(|| {
            black_box(admitted());
        })
    };
    let counts = (0..CALLS).map(count);
    let allocating = counts.filter(|counted| counted.count_total > 0).count();
    println!("admission: {allocating} of {CALLS} calls allocated; those had permits leased");
}

/// What is counted of a read that was answered: on the meter alone, and with the
/// statistics of its namespace and how long it took.
fn counting(c: &mut Criterion) {
    let account = Accounts::default().of(Incarnation::random());
    let mut tenancy = Tenancy::on(Arc::new(Terms::unlimited("acme", account)));
    let counts = Counts {
        operations: 1,
        hits: 1,
        near_hits: 1,
        bytes_in: 10,
        bytes_out: 1024,
        ..Counts::default()
    };
    c.bench_function("counting/meter", |bench| {
        bench.iter(|| tenancy.account.meter.count(black_box(counts)));
    });
    tenancy.began = Some(Instant::now());
    c.bench_function("counting/meter and statistics", |bench| {
        bench.iter(|| tenancy.count_read(black_box("default"), black_box(counts)));
    });
}

/// What a call adds to the figures that `/metrics` tells, which cannot be switched off,
/// beside what it counts in: an entry read near, by the cache alone.
fn figures(c: &mut Criterion) {
    let stripe = Figures::default().stripe();
    let get = METHODS.iter().find(|method| method.name == "Get").unwrap();
    let began = Instant::now();
    c.bench_function("counting/figures of a call", |bench| {
        bench.iter(|| {
            stripe.begin(black_box(get.place));
            stripe.end(get.place, Code::Ok, began.elapsed(), black_box([1, 1]));
        });
    });

    let settings = config::Config::defaults().cache;
    let memory = Arc::new(Memory::new(&settings.near));
    let store = Embedded::in_memory().unwrap().watched_by(memory.clone());
    let cache = Cache::new(Arc::new(store), memory.clone(), Arc::new(settings));
    let account = Accounts::default().of(Incarnation::random());
    let tenancy = Tenancy::on(Arc::new(Terms::unlimited("acme", account)));
    let value = noise(1024);
    let (fresh, set) = (Freshness::default(), set("user:1234567", &value));
    let runtime = runtime();
    runtime.block_on(cache.set(&tenancy, "", &set)).unwrap();
    let read = || cache.get(&tenancy, "", set.key, &fresh);
    while memory.near().unwrap().size().0 == 0 {
        runtime.block_on(read()).unwrap();
    }
    c.bench_function("near hit of the cache", |bench| {
        bench.iter(|| black_box(read().now_or_never().unwrap().unwrap()));
    });
}

fn set<'a>(key: &'a str, value: &'a [u8]) -> Set<'a> {
    Set {
        key,
        value,
        ttl_ms: None,
        content_type: "",
        tags: &[],
        condition: Some(Condition::None),
        if_version: 0,
        lease_token: "",
    }
}

fn limited() -> config::Plan {
    config::Plan {
        quotas: config::Quotas {
            operations_per_minute: LIMIT,
            ..config::Quotas::default()
        },
        ..config::Plan::default()
    }
}

criterion_group!(pieces, frames, heads, admission, counting, figures);
criterion_main!(pieces);
