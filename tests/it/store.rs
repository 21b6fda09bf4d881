//! The store's port against its backends. It does not know what the service
//! stores.

mod conformance;
mod differential;
mod durability;
mod embedded;
mod embedded_meters;
mod observed;
mod redis_counting;
mod redis_faults;
mod redis_group;
mod redis_index;
mod redis_killed;
mod redis_meters;
mod redis_peers;
mod redis_pins;
mod redis_shapes;
mod redis_stalled;
pub mod redis_tracking;
mod redis_tracking_groups;

use std::{sync::Arc, time::Duration};

use crate::redis_groups::{shared_cluster, shared_sentinels};
use conformance::watch::Recorder;
use riptide_persistence::store::{
    Counters, Handle, Observed, Store,
    embedded::Embedded,
    redis::{Redis, Settings},
};

/// A store to test, and what must live as long.
pub struct Stage {
    pub store: Handle,
    _keep: Box<dyn std::any::Any + Send>,
}

impl Stage {
    pub fn new(
        store: impl riptide_persistence::store::Store,
        keep: impl std::any::Any + Send,
    ) -> Self {
        Self {
            store: Arc::new(store),
            _keep: Box::new(keep),
        }
    }
}

/// All backends, each a function below that gives a store: a fresh one, or behind a
/// Cluster and Sentinels one that cases share. A new backend is added here and
/// nowhere else.
macro_rules! on_every_backend {
    ($run:ident, $cases:tt) => {
        $run!(embedded_file $cases);
        $run!(embedded_memory $cases);
        $run!(observed $cases);
        $run!(redis $cases);
        $run!(redis_cluster $cases);
        $run!(redis_sentinels $cases);
    };
}
pub(crate) use on_every_backend;

/// Backends that tell a watcher of changes.
macro_rules! on_every_watched_backend {
    ($run:ident, $cases:tt) => {
        $run!(embedded_watched $cases);
        $run!(observed_watched $cases);
        $run!(redis_watched $cases);
        $run!(cluster_watched $cases);
        $run!(sentinels_watched $cases);
    };
}
pub(crate) use on_every_watched_backend;

/// A store that tells of changes, and another handle to it that does not, or the same.
pub struct Watched {
    pub store: Handle,
    pub other: Handle,
    pub told: Arc<Recorder>,
    _keep: Box<dyn std::any::Any + Send>,
}

pub async fn embedded_watched() -> Watched {
    let told = Arc::<Recorder>::default();
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let store: Handle = Arc::new(store.watched_by(told.clone()));
    Watched {
        other: store.clone(),
        store,
        told,
        _keep: Box::new(folder),
    }
}

pub async fn observed_watched() -> Watched {
    let mut stage = embedded_watched().await;
    stage.store = Arc::new(Observed::new(stage.store, Arc::new(Counters::default())));
    stage
}

pub async fn redis_watched() -> Watched {
    let server = crate::redis::Redis::start();
    watched(&server.url(), server).await
}

pub async fn cluster_watched() -> Watched {
    watched(&shared_cluster().url(), ()).await
}

pub async fn sentinels_watched() -> Watched {
    watched(&shared_sentinels().url(), ()).await
}

async fn watched(url: &str, keep: impl std::any::Any + Send) -> Watched {
    let told = Arc::<Recorder>::default();
    let store = Redis::connect_watched(&settings(url), Some(told.clone())).unwrap();
    while store.ping().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Watched {
        store: Arc::new(store),
        other: Arc::new(patient(url).await),
        told,
        _keep: Box::new(keep),
    }
}

pub async fn embedded_file() -> Stage {
    let folder = tempfile::tempdir().unwrap();
    Stage::new(Embedded::open(folder.path()).unwrap(), folder)
}

pub async fn embedded_memory() -> Stage {
    Stage::new(Embedded::in_memory().unwrap(), ())
}

pub async fn observed() -> Stage {
    let store = Arc::new(Embedded::in_memory().unwrap());
    Stage::new(Observed::new(store, Arc::new(Counters::default())), ())
}

pub async fn redis() -> Stage {
    let server = crate::redis::Redis::start();
    Stage::new(patient(&server.url()).await, server)
}

pub async fn redis_cluster() -> Stage {
    Stage::new(patient(&shared_cluster().url()).await, ())
}

pub async fn redis_sentinels() -> Stage {
    Stage::new(patient(&shared_sentinels().url()).await, ())
}

/// Redis with time for large values on a busy machine.
pub async fn patient(url: &str) -> Redis {
    let store = Redis::connect(&settings(url)).unwrap();
    while store.ping().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store
}

/// With time for large values on a busy machine.
pub fn settings(url: &str) -> Settings {
    Settings {
        url: url.to_owned().into(),
        pool_size: 2,
        command_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(20),
        invalidation_buffer: 8192,
        tls: None,
    }
}
