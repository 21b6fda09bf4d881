//! The cache by itself, on a store in memory with a clock of the tests'. It does
//! not know gRPC.

mod budget;
mod flush;
mod invalidate;
mod lease;
mod near;
mod recorder;
mod rules;
mod values;
mod warm;
mod warm_start;
mod watching;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use riptide_persistence::{
    cache::{Cache, Condition, Entry, Freshness, Memory, Set, Sweeper, Written},
    config,
    error::{Error, Result},
    store::{Calls, Counters, Handle, Incarnation, Observed, Table, Watcher, embedded::Embedded},
    tenant::{Accounts, Directory, FRESH, Grant, Scopes, Tenancy, Terms},
};

/// Sweeps, and counts where nobody looks.
fn sweeper() -> Sweeper {
    Sweeper::new(Arc::new(Directory::new(FRESH)))
}

/// When the tests begin, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_790_000_000_000;

/// The memories of all replicas, each told of every change.
#[derive(Default)]
struct Told(Mutex<Vec<Arc<Memory>>>);

impl Told {
    /// A memory of its own, with these settings.
    fn memory(&self, settings: &config::Cache) -> Arc<Memory> {
        let memory = Arc::new(Memory::new(&settings.near));
        self.0.lock().unwrap().push(memory.clone());
        memory
    }
}

impl Watcher for Told {
    fn changed(&self, space: &str, generation: u64, table: Table, path: &[u8]) {
        for memory in &*self.0.lock().unwrap() {
            memory.changed(space, generation, table, path);
        }
    }
}
/// How long changes are noted after the last watcher has left.
const LINGER: Duration = Duration::from_secs(60);

/// A cache, the store below it, and the store's clock.
struct Rig {
    cache: Cache,
    memory: Arc<Memory>,
    told: Arc<Told>,
    store: Handle,
    counters: Arc<Counters>,
    clock: Arc<AtomicU64>,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(set: impl FnOnce(&mut config::Cache)) -> Self {
        let clock = Arc::new(AtomicU64::new(BEGIN_MS));
        let hands = clock.clone();
        let told = Arc::new(Told::default());
        let store = Embedded::in_memory_with_clock(move || hands.load(Ordering::Relaxed));
        let store = Arc::new(store.unwrap().watched_by(told.clone()));
        let counters = Arc::new(Counters::default());
        let store: Handle = Arc::new(Observed::new(store, counters.clone()));
        let mut settings = settings();
        set(&mut settings);
        let memory = told.memory(&settings);
        let cache = Cache::new(store.clone(), memory.clone(), Arc::new(settings));
        Self {
            cache,
            memory,
            told,
            store,
            counters,
            clock,
        }
    }

    /// Another replica on the same store.
    fn replica(&self) -> Cache {
        let settings = settings();
        let memory = self.told.memory(&settings);
        Cache::new(self.store.clone(), memory, Arc::new(settings))
    }

    fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// What a call asked of the store, and its answer.
    async fn calls<T>(&self, call: impl Future<Output = T>) -> (Calls, T) {
        let before = self.counters.calls();
        let answer = call.await;
        (self.counters.calls().since(before), answer)
    }

    async fn set(&self, tenancy: &Tenancy, key: &str, value: &str) -> Written {
        let written = self.cache.set(tenancy, "", &set(key, value)).await;
        written.unwrap()
    }

    async fn get(&self, tenancy: &Tenancy, key: &str) -> Option<Entry> {
        get(&self.cache, tenancy, "", key).await.unwrap()
    }

    /// The value under a key, as text.
    async fn text(&self, tenancy: &Tenancy, key: &str) -> Option<String> {
        let entry = self.get(tenancy, key).await?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }
}

pub fn settings() -> config::Cache {
    config::Cache {
        max_value_bytes: 20 << 20,
        max_ttl: Duration::from_secs(365 * 86_400),
        max_batch_items: 1000,
        max_tags: 16,
        max_tag_bytes: 128,
        near: config::Near {
            enabled: true,
            max_bytes: 64 << 20,
        },
        warm_start: config::WarmStart {
            enabled: true,
            keys: 1000,
            timeout: Duration::from_secs(5),
        },
        compression: config::Compression {
            enabled: true,
            min_bytes: 1024,
            min_saving_percent: 10,
        },
        lease: config::Lease {
            stale_for: Duration::from_secs(30),
        },
        watch: config::Watch {
            heartbeat: Duration::from_secs(15),
            linger: LINGER,
            max_watchers: 3,
            max_backlog_bytes: 256 << 10,
        },
    }
}

async fn get(
    cache: &Cache,
    tenancy: &Tenancy,
    namespace: &str,
    key: &str,
) -> Result<Option<Entry>> {
    cache
        .get(tenancy, namespace, key, &Freshness::default())
        .await
}

/// A call on a tenant that never was before.
fn tenancy() -> Tenancy {
    let account = Accounts::default().of(Incarnation::random());
    Tenancy::on(Arc::new(Terms::unlimited("acme", account)))
}

/// The same by a key that reaches less.
fn confined(tenancy: &Tenancy, namespaces: &[&str], key_prefixes: &[&str]) -> Tenancy {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let grant = Grant {
        key_id: "k".into(),
        tenant_id: "acme".into(),
        incarnation: tenancy.incarnation,
        scopes: Scopes::all(),
        namespaces: owned(namespaces),
        key_prefixes: owned(key_prefixes),
    };
    let mut tenancy = tenancy.clone();
    tenancy.confined = Some(Arc::new(grant));
    tenancy
}

pub(crate) fn set<'a>(key: &'a str, value: &'a str) -> Set<'a> {
    Set {
        key,
        value: value.as_bytes(),
        ttl_ms: None,
        content_type: "",
        tags: &[],
        condition: Some(Condition::None),
        if_version: 0,
        lease_token: "",
    }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

/// The fields that a request was refused for.
pub(crate) fn fields<T: std::fmt::Debug>(result: Result<T>) -> Vec<String> {
    match result {
        Err(Error::Invalid(violations)) => violations.into_iter().map(|v| v.field).collect(),
        other => panic!("not refused for its fields: {other:?}"),
    }
}

/// The version a condition found; `None` where it found no entry.
fn found<T: std::fmt::Debug>(result: Result<T>) -> Option<u64> {
    match result {
        Err(Error::ConditionNotMet {
            subject,
            description,
        }) => {
            assert_eq!(subject, "key");
            let version = description.strip_prefix("the entry exists, at version ");
            version.map(|version| version.parse().unwrap())
        }
        other => panic!("the condition was met: {other:?}"),
    }
}
