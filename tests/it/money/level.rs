//! Many callers burst at one tenant's levels, cache_entries and memory_bytes, over
//! all replicas: none is ever passed, and no write is refused below it. It does not
//! trust the service's own count: Redis is asked directly.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use riptide_persistence::{
    proto::v1::{
        BatchSetRequest, DeleteRequest, GetTenantUsageRequest, Quotas, SetEntry, SetRequest, Usage,
    },
    store::{Incarnation, Space, Store},
};
use tokio::task::JoinSet;

use super::{
    CALLERS, Dice, PRESSURE, REPLICAS, Refusal,
    census::{self, Census},
    fleet::{self, Caller, Fleet},
    form, row, show, tenant,
};
use crate::redis::{Redis, eventually};

const ENTRIES: &str = "cache_entries";
const BYTES: &str = "memory_bytes";
/// The longest time to live of what comes and goes.
const BRIEF_MS: u64 = 1200;

/// What one attempt to hold one entry came to.
#[derive(Clone, Debug)]
struct Attempt {
    name: String,
    value_bytes: u64,
    sent: Instant,
    answered: Instant,
    refused: Option<Refusal>,
}

/// A tenant whose limits are pressed on.
struct Pressed<'a> {
    redis: &'a Redis,
    fleet: &'a Fleet<'a>,
    key: String,
    tenant_id: String,
    space: String,
    /// Bytes that an entry counts beside its key and its value.
    overhead: u64,
    quotas: Quotas,
}

impl<'a> Pressed<'a> {
    /// A new tenant that holds one entry, named `first`, without a value.
    async fn new(redis: &'a Redis, fleet: &'a Fleet<'a>, tenant_id: &str, quotas: Quotas) -> Self {
        let before = census::spaces(redis);
        let key = tenant(&fleet.admin(0).await, tenant_id, quotas.clone()).await;
        let (mut clients, _) = fleet.caller(0, &key).clients().await;
        clients.cache.set(set("first", 0, 0)).await.unwrap();
        let space = census::space(redis, &before);
        let first = census::count(redis, &space);
        assert_eq!(first.entries, 1);
        Self {
            redis,
            fleet,
            tenant_id: tenant_id.into(),
            key,
            space,
            overhead: first.bytes - "first".len() as u64,
            quotas,
        }
    }

    fn callers(&self) -> impl Iterator<Item = (usize, Caller)> {
        (0..CALLERS).map(|number| (number, self.fleet.caller(number % REPLICAS, &self.key)))
    }

    fn charge(&self, name: &str, value_bytes: u64) -> u64 {
        self.overhead + name.len() as u64 + value_bytes
    }

    fn count(&self) -> Census {
        census::count(self.redis, &self.space)
    }

    fn limit(&self, metric: &str) -> u64 {
        let limit = match metric {
            ENTRIES => self.quotas.cache_entries,
            _ => self.quotas.memory_bytes,
        };
        limit.map_or(u64::MAX, |limit| limit as u64)
    }

    async fn usage(&self, replica: usize) -> Usage {
        let request = GetTenantUsageRequest {
            tenant_id: self.tenant_id.clone(),
            ..Default::default()
        };
        let mut admin = self.fleet.admin(replica).await;
        let answer = admin.tenant.get_tenant_usage(request).await.unwrap();
        answer.into_inner().usage.unwrap()
    }

    /// Whether a refusal tells of a limit that this entry would have passed.
    #[track_caller]
    fn justified(&self, attempt: &Attempt) {
        let Some(refusal) = &attempt.refused else {
            return;
        };
        assert_eq!(refusal.reason, "QUOTA_EXCEEDED", "{attempt:?}");
        assert_eq!(refusal.retry_after, None, "time does not help: {attempt:?}");
        let limit = self.limit(&refusal.metric);
        assert_eq!(refusal.limit, limit, "{attempt:?}");
        let growth = match refusal.metric.as_str() {
            ENTRIES => 1,
            BYTES => self.charge(&attempt.name, attempt.value_bytes),
            _ => panic!("another metric: {attempt:?}"),
        };
        assert!(
            refusal.used <= limit && refusal.used + growth > limit,
            "refused below the limit: {attempt:?}"
        );
    }

    /// What Redis holds is what the service says on every replica, what the store's
    /// audit finds, and no more than the limits.
    async fn agrees(&self) -> Census {
        let held = self.count();
        for replica in 0..REPLICAS {
            let usage = self.usage(replica).await;
            let told = (usage.cache_entries as u64, usage.memory_bytes as u64);
            assert_eq!(told, (held.entries, held.bytes), "replica {replica}");
            assert!(usage.exact);
        }
        assert!(held.entries <= self.limit(ENTRIES) && held.bytes <= self.limit(BYTES));
        let store = crate::store::patient(&self.redis.url()).await;
        let space = Space::tenant(Incarnation::parse(&self.space).unwrap());
        let audit = store.audit(&space).await.unwrap();
        assert!(audit.agrees(), "{audit:?}");
        store.close().await.unwrap();
        held
    }

    /// At rest, exactly as many entries more as the limit leaves are let in, whichever
    /// replica is asked. How many that were.
    async fn fill_entries(&self) -> u64 {
        let held = self.count();
        let left = self.limit(ENTRIES) - held.entries;
        for number in 0..left + 5 {
            let (mut clients, _) = self.probe(number).await;
            let request = set(&format!("fill-{number}"), 0, 0);
            match clients.cache.set(request).await {
                Ok(_) => assert!(number < left, "entry {number} of {left} was let in"),
                Err(status) => {
                    let refusal = Refusal::of(&status);
                    assert!(number >= left, "entry {number} of {left}: {refusal:?}");
                    assert_eq!(refusal.metric, ENTRIES);
                    assert_eq!(refusal.used, refusal.limit);
                }
            }
        }
        left
    }

    /// At rest, an entry that fills the bytes to the last is let in, and one of a byte
    /// more is not.
    async fn fill_bytes(&self) -> u64 {
        let left = self.limit(BYTES) - self.count().bytes;
        let Some(value_bytes) = left.checked_sub(self.charge("last", 0)) else {
            return 0;
        };
        let (mut clients, _) = self.probe(0).await;
        let refused = clients.cache.set(set("last", value_bytes + 1, 0)).await;
        let refusal = Refusal::of(&refused.unwrap_err());
        assert_eq!(refusal.metric, BYTES);
        assert_eq!(refusal.used, refusal.limit - left);
        let (mut clients, _) = self.probe(1).await;
        clients
            .cache
            .set(set("last", value_bytes, 0))
            .await
            .unwrap();
        assert_eq!(self.count().bytes, self.limit(BYTES));
        left
    }

    async fn probe(&self, number: u64) -> (crate::server::Clients, fleet::Life) {
        let replica = (number % REPLICAS as u64) as usize;
        self.fleet.caller(replica, &self.key).clients().await
    }
}

/// A Set that no compressor helps (it is short), with the plan's time to live where
/// `ttl_ms` is 0.
fn set(name: &str, value_bytes: u64, ttl_ms: u64) -> SetRequest {
    let entry = entry(name, value_bytes, ttl_ms);
    SetRequest {
        key: entry.key,
        value: entry.value,
        ttl: entry.ttl,
        ..Default::default()
    }
}

fn entry(name: &str, value_bytes: u64, ttl_ms: u64) -> SetEntry {
    let mut dice = Dice::new(value_bytes as usize);
    let value: Vec<u8> = (0..value_bytes).map(|_| dice.roll(256) as u8).collect();
    SetEntry {
        key: name.into(),
        value: value.into(),
        ttl: (ttl_ms > 0).then(|| prost_types::Duration {
            seconds: (ttl_ms / 1000) as i64,
            nanos: (ttl_ms % 1000 * 1_000_000) as i32,
        }),
        ..Default::default()
    }
}

/// Sets each of these entries once: some alone, some in batches.
async fn insert(mut caller: Caller, entries: Vec<(String, u64)>) -> Vec<Attempt> {
    let (mut clients, _) = caller.clients().await;
    let mut attempts = Vec::new();
    for (number, part) in entries.chunks(4).enumerate() {
        let sent = Instant::now();
        let mut note = |(name, value_bytes): &(String, u64), sent, refused| {
            attempts.push(Attempt {
                name: name.clone(),
                value_bytes: *value_bytes,
                sent,
                answered: Instant::now(),
                refused,
            });
        };
        if number % 2 == 0 {
            let entries = part.iter().map(|(name, bytes)| entry(name, *bytes, 0));
            let request = BatchSetRequest {
                entries: entries.collect(),
                ..Default::default()
            };
            let results = clients.cache.batch_set(request).await.unwrap().into_inner();
            assert_eq!(results.results.len(), part.len());
            for (one, result) in part.iter().zip(results.results) {
                note(one, sent, result.status.as_ref().map(Refusal::of_item));
            }
        } else {
            for one in part {
                let sent = Instant::now();
                let answer = clients.cache.set(set(&one.0, one.1, 0)).await;
                note(one, sent, answer.err().map(|status| Refusal::of(&status)));
            }
        }
    }
    attempts
}

/// All callers insert entries that are new, ten times what the limits allow.
async fn burst(pressed: &Pressed<'_>, each: usize, sizes: u64) -> Vec<Attempt> {
    let mut callers = JoinSet::new();
    for (number, caller) in pressed.callers() {
        let mut dice = Dice::new(number);
        let entries = (0..each).map(|n| {
            let value_bytes = if sizes == 0 { 0 } else { dice.roll(sizes) };
            (format!("new-{number:02}-{n:05}"), value_bytes)
        });
        callers.spawn(insert(caller, entries.collect()));
    }
    let attempts: Vec<Attempt> = callers.join_all().await.concat();
    for attempt in &attempts {
        pressed.justified(attempt);
    }
    attempts
}

/// Only new entries, so that what is used only grows: exactly as many as the limit
/// are let in, whatever the callers do.
async fn entries(redis: &Redis, fleet: &Fleet<'_>) -> [String; 7] {
    let limit = form(300, 5000);
    let quotas = Quotas {
        cache_entries: Some(limit as i64),
        ..Default::default()
    };
    let pressed = Pressed::new(redis, fleet, "entries", quotas).await;
    let attempts = burst(&pressed, (limit * PRESSURE) as usize / CALLERS, 0).await;
    let let_in = attempts.iter().filter(|one| one.refused.is_none()).count() as u64;
    // The first came before the burst.
    assert_eq!(let_in + 1, limit, "of {} attempts", attempts.len());
    let held = pressed.agrees().await;
    assert_eq!(held.entries, limit);
    assert_eq!(pressed.fill_entries().await, 0);
    summary("new entries", &pressed, &attempts, held, 0)
}

/// The same in bytes, of entries of all sizes.
async fn bytes(redis: &Redis, fleet: &Fleet<'_>) -> [String; 7] {
    let limit = form(150_000, 2_000_000);
    let quotas = Quotas {
        memory_bytes: Some(limit as i64),
        ..Default::default()
    };
    let pressed = Pressed::new(redis, fleet, "bytes", quotas).await;
    // On average an entry counts about 500 bytes.
    let attempts = burst(&pressed, (limit * PRESSURE) as usize / 500 / CALLERS, 900).await;
    let charge = |one: &Attempt| pressed.charge(&one.name, one.value_bytes);
    let first = pressed.charge("first", 0);
    let let_in = || attempts.iter().filter(|one| one.refused.is_none());
    let held = pressed.agrees().await;
    assert_eq!(first + let_in().map(charge).sum::<u64>(), held.bytes);
    // What a refusal says was used lies between what had been acknowledged when it was
    // asked for and what had been asked for when it was answered.
    for one in &attempts {
        let Some(refusal) = &one.refused else {
            continue;
        };
        let sum = |holds: &dyn Fn(&Attempt) -> bool| {
            first
                + let_in()
                    .filter(|other| holds(other))
                    .map(charge)
                    .sum::<u64>()
        };
        let certain = sum(&|other| other.answered < one.sent);
        let possible = sum(&|other| other.sent < one.answered);
        assert!(
            (certain..=possible).contains(&refusal.used),
            "{certain} <= {} <= {possible}: {one:?}",
            refusal.used
        );
    }
    let filled = pressed.fill_bytes().await;
    pressed.agrees().await;
    summary("new bytes", &pressed, &attempts, held, filled)
}

/// One caller's names: `true` where an entry is there that stays.
type Names = Vec<bool>;

/// Sets, overwrites and deletes names of its own, with and without a time to live,
/// until it is told to stop.
async fn churn(
    number: usize,
    mut caller: Caller,
    mut names: Names,
    stop: Arc<AtomicBool>,
    reached: Arc<[AtomicBool; 2]>,
) -> (Names, Vec<Attempt>) {
    let (mut clients, _) = caller.clients().await;
    let mut dice = Dice::new(number);
    let mut attempts = Vec::new();
    while !stop.load(Relaxed) {
        let place = dice.roll(names.len() as u64) as usize;
        let name = format!("own-{number:02}-{place:03}");
        let kind = dice.roll(10);
        if kind == 0 {
            let request = DeleteRequest {
                key: name,
                ..Default::default()
            };
            clients.cache.delete(request).await.unwrap();
            names[place] = false;
            continue;
        }
        let ttl_ms = if kind < 7 { 1 + dice.roll(BRIEF_MS) } else { 0 };
        let value_bytes = dice.roll(900);
        let sent = Instant::now();
        let answer = clients.cache.set(set(&name, value_bytes, ttl_ms)).await;
        let refused = answer.err().map(|status| Refusal::of(&status));
        if let Some(refusal) = &refused {
            reached[usize::from(refusal.metric == BYTES)].store(true, Relaxed);
        } else {
            names[place] = ttl_ms == 0;
        }
        attempts.push(Attempt {
            name,
            value_bytes,
            sent,
            answered: Instant::now(),
            refused,
        });
    }
    (names, attempts)
}

/// Entries come, go and expire at both limits: no count of Redis, taken at any
/// moment, is above them, and none is refused below.
async fn coming_and_going(redis: &Redis, fleet: &Fleet<'_>) -> [String; 7] {
    let limit = form(200, 1000);
    let quotas = Quotas {
        cache_entries: Some(limit as i64),
        // About what as many entries of the middle size take: either can bite.
        memory_bytes: Some(limit as i64 * 480),
        ..Default::default()
    };
    let pressed = Pressed::new(redis, fleet, "churn", quotas).await;
    let names = (limit * PRESSURE) as usize / CALLERS;
    let stop = Arc::new(AtomicBool::new(false));
    let reached: Arc<[AtomicBool; 2]> = Arc::default();
    let mut callers = JoinSet::new();
    for (number, caller) in pressed.callers() {
        let names = vec![false; names];
        callers.spawn(churn(number, caller, names, stop.clone(), reached.clone()));
    }
    let (mut most, mut samples) = (Census::default(), 0);
    // Until both limits were reached, which a busy machine takes longer for.
    let (begin, length) = (Instant::now(), form(4, 60));
    let both = || reached.iter().all(|one| one.load(Relaxed));
    while begin.elapsed().as_secs() < length || !both() && begin.elapsed().as_secs() < 60 {
        let held = pressed.count();
        assert!(
            held.entries <= limit && held.bytes <= pressed.limit(BYTES),
            "Redis holds {held:?}"
        );
        most.entries = most.entries.max(held.entries);
        most.bytes = most.bytes.max(held.bytes);
        samples += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Relaxed);
    let (names, attempts): (Vec<Names>, Vec<Vec<Attempt>>) =
        callers.join_all().await.into_iter().unzip();
    let attempts = attempts.concat();
    for attempt in &attempts {
        pressed.justified(attempt);
    }
    assert!(both(), "a limit was never reached: {reached:?}");
    // At rest: what stays is what the callers were told, and the rest has expired.
    let stay = 1 + names.iter().flatten().filter(|stays| **stays).count() as u64;
    eventually("what was brief has expired", || {
        pressed.count().entries <= stay
    });
    tokio::time::sleep(Duration::from_millis(60)).await; // the last bucket's end
    let held = pressed.agrees().await;
    assert_eq!(held.entries, stay);
    println!(
        "at most {} entries and {} bytes in {samples} counts of Redis meanwhile",
        most.entries, most.bytes
    );
    // Room for all the entries that are left: what stays is made small.
    let filled = pressed.make_room().await;
    summary("come and go", &pressed, &attempts, held, filled)
}

impl Pressed<'_> {
    /// Lifts the limit of bytes, and fills up the entries.
    async fn make_room(&self) -> u64 {
        use riptide_persistence::proto::v1::{Tenant, UpdateTenantRequest};
        let quotas = Quotas {
            memory_bytes: Some(-1),
            ..Default::default()
        };
        let request = UpdateTenantRequest {
            tenant: Some(Tenant {
                tenant_id: self.tenant_id.clone(),
                quotas: Some(quotas),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["quotas.memory_bytes".into()],
            }),
            ..Default::default()
        };
        let mut admin = self.fleet.admin(0).await;
        admin.tenant.update_tenant(request).await.unwrap();
        // In force on every replica within a second.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        self.fill_entries().await
    }
}

fn summary(
    what: &str,
    pressed: &Pressed<'_>,
    attempts: &[Attempt],
    held: Census,
    filled: u64,
) -> [String; 7] {
    let let_in = attempts.iter().filter(|one| one.refused.is_none()).count();
    let limit = |metric| match pressed.limit(metric) {
        u64::MAX => "-".to_owned(),
        limit => limit.to_string(),
    };
    row([
        &what,
        &attempts.len(),
        &let_in,
        &(attempts.len() - let_in),
        &format!("{} / {}", held.entries, limit(ENTRIES)),
        &format!("{} / {}", held.bytes, limit(BYTES)),
        &filled,
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_never_passes_a_level_and_is_never_refused_below_it() {
    let redis = Redis::start();
    let folders = fleet::folders(REPLICAS, &redis);
    let mut fleet = Fleet::start(&folders);
    let rows = vec![
        entries(&redis, &fleet).await,
        bytes(&redis, &fleet).await,
        coming_and_going(&redis, &fleet).await,
    ];
    show(
        &format!(
            "levels: {CALLERS} callers, {REPLICAS} replicas, 0 over-admissions, 0 false refusals"
        ),
        [
            "",
            "attempts",
            "let in",
            "refused",
            "entries in Redis / limit",
            "bytes in Redis / limit",
            "then filled up by",
        ],
        rows,
    );
    fleet.stop();
}
