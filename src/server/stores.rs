//! The store of a server: opened once where it is in this process, and through
//! connections of its own for each core where it is Redis. It does not know
//! what is kept in it.

use std::{fmt, sync::Arc};

use super::{Error, Result};
use crate::{
    config::{Backend, Config},
    store::{Counters, Handle, Observed, embedded::Embedded},
};

/// The store, or the way to it.
pub(super) enum Stores {
    /// One for all.
    Embedded(Handle),
}

impl Stores {
    /// Opens what can be opened before anyone asks.
    pub(super) fn open(config: &Config) -> Result<Self> {
        if config.store.backend == Backend::Redis {
            return Err(Error::Store {
                setting: "store.backend",
                cause: crate::store::Error::Unusable("redis is not served".to_owned()),
            });
        }
        let (opened, setting) = if config.store.ephemeral {
            (Embedded::in_memory(), "store.ephemeral")
        } else {
            (Embedded::open(&config.store.path), "store.path")
        };
        match opened {
            Ok(store) => Ok(Self::Embedded(Arc::new(store))),
            Err(cause) => Err(Error::Store { setting, cause }),
        }
    }

    /// A handle for the runtime that asks, counting its calls.
    pub(super) async fn handle(&self, counters: Arc<Counters>) -> Handle {
        let store: Handle = match self {
            Self::Embedded(store) => store.clone(),
        };
        Arc::new(Observed::new(store, counters))
    }

    /// Lets go of a handle, in the runtime that asked for it.
    pub(super) async fn release(&self, _store: Handle) {
        match self {
            Self::Embedded(_) => {}
        }
    }

    /// Makes all durable, when every handle is released.
    pub(super) async fn close(&self) {
        match self {
            Self::Embedded(store) => end(store).await,
        }
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
        })
    }
}
