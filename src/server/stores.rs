//! The store of a server: opened once where it is in this process, and through
//! connections of its own for each core where it is Redis. It does not know
//! what is kept in it.

use std::{fmt, sync::Arc};

use super::{Error, Parts, Result};
use crate::{
    config::{Backend, Config},
    store::{
        self, Counters, Handle, Observed, Watcher,
        embedded::Embedded,
        redis::{self, Connector, Redis},
    },
};

/// The store, or the way to it.
pub(super) enum Stores {
    /// One for all.
    Embedded(Handle),
    /// One for each who asks, and whom each tells of changes.
    Redis(redis::Settings, Option<Arc<dyn Watcher>>),
}

impl Stores {
    /// Opens what can be opened before anyone asks; where there is a watcher, it is
    /// told of changes. Must be called in a runtime.
    pub(super) fn open(config: &Config, watcher: Option<Arc<dyn Watcher>>) -> Result<Self> {
        let failed = |setting| move |cause| Error::Store { setting, cause };
        if config.store.backend == Backend::Redis {
            // Begun once and dropped, so that a URL that cannot be read stops the
            // start and not a core.
            let settings = redis::Settings::of(&config.redis).map_err(failed("redis.url"))?;
            Redis::connect(&settings).map_err(failed("redis.url"))?;
            return Ok(Self::Redis(settings, watcher));
        }
        let (opened, setting) = if config.store.ephemeral {
            (Embedded::in_memory(), "store.ephemeral")
        } else {
            (Embedded::open(&config.store.path), "store.path")
        };
        let mut store = opened.map_err(failed(setting))?;
        if let Some(watcher) = watcher {
            store = store.watched_by(watcher);
        }
        Ok(Self::Embedded(Arc::new(store)))
    }

    /// How connections to it begin in TLS, where they do.
    pub(super) fn connector(&self) -> Option<Connector> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(settings, _) => settings.tls.clone(),
        }
    }

    /// A handle for the runtime it is called in, counting its calls.
    fn handle(&self, counters: Arc<Counters>) -> store::Result<Handle> {
        let store: Handle = match self {
            Self::Embedded(store) => store.clone(),
            Self::Redis(settings, watcher) => {
                Arc::new(Redis::connect_watched(settings, watcher.clone())?)
            }
        };
        Ok(Arc::new(Observed::new(store, counters)))
    }

    /// Lets go of a handle, in the runtime that asked for it.
    pub(super) async fn release(&self, store: Handle) {
        match self {
            Self::Embedded(_) => {}
            Self::Redis(..) => end(&store).await,
        }
    }

    /// Makes all durable, when every handle is released.
    pub(super) async fn close(&self) {
        match self {
            Self::Embedded(store) => end(store).await,
            Self::Redis(..) => {}
        }
    }
}

impl Parts {
    /// A handle to the store for the runtime it is called in, counting its calls.
    pub(super) fn store(&self, counters: &Arc<Counters>) -> store::Result<Handle> {
        let handle = self.stores.handle(counters.clone())?;
        self.handles.add(&handle);
        Ok(handle)
    }
}

async fn end(store: &Handle) {
    if let Err(error) = store.close().await {
        tracing::error!(%error, "store not closed");
    }
}

/// The backend's name.
pub(super) fn backend(config: &Config) -> &'static str {
    match config.store.backend {
        Backend::Embedded => "embedded",
        Backend::Redis => "redis",
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded(_) => "Embedded",
            Self::Redis(..) => "Redis",
        })
    }
}
