//! The tenant domain over the embedded store in memory. It does not know gRPC.

mod admission;
mod billing;
pub mod cut;
mod data_key;
mod keys;
mod lifecycle;
mod listing;
mod purge;
mod rate;
mod reclaim;
mod replays;
mod usage;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use riptide_persistence::{
    cache::Sweeper,
    config,
    store::{
        Batch, Counters, Handle, Incarnation, Key, Observed, Query, Space, Table, Write,
        embedded::Embedded,
    },
    tenant::{Caller, Change, Created, Directory, FRESH, NewTenant, Tenant, Tenants},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

pub const ADMIN: &str = "the-admin-key";
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A store with a clock of its own, and the calls made to it.
pub struct Stage {
    pub store: Handle,
    pub counters: Arc<Counters>,
    pub settings: Arc<ArcSwap<config::Tenant>>,
    now_ms: Arc<AtomicU64>,
}

/// A replica: tenants with a directory of their own.
pub struct Replica {
    pub tenants: Tenants,
    pub directory: Arc<Directory>,
    feed: Option<JoinHandle<()>>,
}

impl Stage {
    pub fn new() -> Self {
        let now_ms = Arc::new(AtomicU64::new(1_800_000_000_000));
        let clock = now_ms.clone();
        let store = Embedded::in_memory_with_clock(move || clock.load(Ordering::SeqCst)).unwrap();
        let counters = Arc::new(Counters::default());
        let store = Arc::new(Observed::new(Arc::new(store), counters.clone()));
        Self {
            store,
            counters,
            settings: Arc::new(ArcSwap::from_pointee(settings())),
            now_ms,
        }
    }

    /// A replica that hears of changes only when it asks the store.
    pub fn deaf_replica(&self) -> Replica {
        self.replica_on(self.store.clone())
    }

    pub fn replica_on(&self, store: Handle) -> Replica {
        let directory = Arc::new(Directory::new(Duration::from_secs(60)));
        let tenants = Tenants::new(
            store,
            directory.clone(),
            self.settings.clone(),
            SecretString::from(ADMIN),
        );
        Replica {
            tenants,
            directory,
            feed: None,
        }
    }

    /// A replica that follows the change feed.
    pub async fn replica(&self) -> Replica {
        let mut replica = self.deaf_replica();
        let (directory, store) = (replica.directory.clone(), self.store.clone());
        replica.feed = Some(tokio::spawn(async move { directory.follow(store).await }));
        eventually(async || replica.directory.is_fresh()).await;
        replica
    }

    pub fn pass_time(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    /// Every record of an ordered table of the registry.
    pub async fn records(&self, table: Table) -> Vec<String> {
        let query = Query {
            table,
            generation: 0,
            prefix: "".into(),
            after: None,
            limit: 1000,
            value_bytes: 1 << 20,
        };
        let page = self.store.list(&Space::registry(), query).await.unwrap();
        page.items
            .iter()
            .map(|item| String::from_utf8_lossy(&item.path).into_owned())
            .collect()
    }

    /// Puts sessions into a tenant's space of those, as the state would.
    pub async fn fill_sessions(&self, incarnation: Incarnation, sessions: usize) {
        let session = |n| Key::new(Table::Session, format!("session-{n}"));
        let writes = (0..sessions).map(|n| Write::put(session(n), vec![7; 50]));
        let space = Space::sessions(incarnation);
        let commit = self.store.commit(&space, Batch::of(writes)).await.unwrap();
        assert!(
            matches!(commit, riptide_persistence::store::Commit::Applied(_)),
            "{commit:?}"
        );
    }

    /// Puts entries into a tenant's space, as its cache would.
    pub async fn fill(&self, incarnation: Incarnation, namespace: &str, entries: usize) {
        let writes = (0..entries)
            .map(|n| Write::put(Key::entry(namespace, &format!("key-{n}")), vec![7; 100]));
        let commit = self
            .store
            .commit(&Space::tenant(incarnation), Batch::of(writes))
            .await
            .unwrap();
        assert!(
            matches!(commit, riptide_persistence::store::Commit::Applied(_)),
            "{commit:?}"
        );
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            feed.abort();
        }
    }
}

impl Replica {
    pub async fn create(&self, tenant_id: &str) -> Created {
        self.tenants
            .create(named(tenant_id), Change::default())
            .await
            .unwrap()
    }

    /// A tenant and the text of its first key.
    pub async fn create_with_key(&self, tenant_id: &str) -> (Tenant, String) {
        let created = self.create(tenant_id).await;
        let secret = created.issued.unwrap().secret.unwrap();
        (created.tenant, secret.expose_secret().to_owned())
    }

    pub async fn caller(&self, key: &str) -> Caller {
        self.tenants.authenticate(Some(key)).await.unwrap()
    }
}

pub fn named(tenant_id: &str) -> NewTenant {
    NewTenant {
        tenant_id: tenant_id.into(),
        ..NewTenant::default()
    }
}

pub fn settings() -> config::Tenant {
    let plan = |entries| config::Plan {
        quotas: config::Quotas {
            memory_bytes: 1_000_000,
            cache_entries: entries,
            storage_bytes: -1,
            operations_per_minute: 60,
            data_transfer_bytes: -1,
            active_sessions: 5,
            ..config::Quotas::default()
        },
        default_ttl: Some(Duration::from_secs(90)),
        prices: config::Prices::default(),
    };
    config::Tenant {
        default_plan: "free".into(),
        max_tenants: 500,
        delete_grace: Duration::from_secs(7 * 24 * 60 * 60),
        plans: BTreeMap::from([
            ("free".to_owned(), plan(100)),
            ("basic".to_owned(), plan(-1)),
        ]),
        ..config::Tenant::default()
    }
}

/// Sweeps, and counts where nobody looks.
pub fn sweeper() -> Sweeper {
    Sweeper::new(Arc::new(Directory::new(FRESH)))
}

/// Waits for what another task is about to bring about.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("it comes about within ten seconds");
}
