//! The cache of a tenant: entries by namespace and key, read and written in one
//! call of the store each. It does not know who may call; a [`Tenancy`] is the
//! proof that somebody may, and the only way to a space.
//!
//! # One round trip
//!
//! A snapshot of each tenant's space is kept in memory: its view
//! (epoch and generation) and the floors below which entries are gone. A read is asked for
//! under the snapshot's generation and answers with the view it saw; a write
//! names the view it relies on. Only where the space has moved on is the
//! snapshot taken anew and the call repeated.
//!
//! # No round trip
//!
//! Entries that are asked for often are kept [near](Near). One is answered from
//! there if the store vouches, at that moment, for what was read of it and for the
//! snapshot that it is seen under.

mod doings;
mod entry;
mod floors;
mod flush;
mod gone;
mod hidden;
mod lease;
mod list;
mod memory;
mod near;
mod note;
mod precedence;
mod read;
mod recall;
mod refusal;
mod remove;
mod rules;
mod snapshot;
mod sweep;
mod touch;
mod warm;
mod warm_start;
mod watching;
mod write;

use std::sync::Arc;

pub use doings::Group;
pub use entry::{Condition, Consistency, Entry, Freshness, Set, Touched, Written};
pub use flush::{Flushed, Invalidation};
pub use gone::Gone;
pub use lease::{LEASE_MS, Leased, Refill};
pub use list::{KeyInfo, Listing, Range};
pub use memory::Memory;
pub use near::{Hot, Left, Near};
pub use note::Change;
pub use recall::Pulled;
pub use rules::{DEFAULT_NAMESPACE, MAX_KEY_BYTES, stats_namespace};
pub use sweep::Sweeper;
pub use warm::{Failed, NewEntry, Part, Warmed};
pub use warm_start::{Began, WarmStart};
pub use watching::{Reach, Told, Watcher};

#[cfg(doc)]
use crate::tenant::Tenancy;
use crate::{config, store};

/// The cache of all tenants, as one core sees it. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    store: store::Handle,
    memory: Arc<Memory>,
    settings: config::Live<config::Cache>,
    /// Of this core.
    flights: Arc<lease::Flights>,
    /// What this core did.
    doings: Arc<doings::Doings>,
}

impl Cache {
    /// A cache in `store`. Cores share the memory; each has its own handle.
    pub fn new(
        store: store::Handle,
        memory: Arc<Memory>,
        settings: impl Into<config::Live<config::Cache>>,
    ) -> Self {
        Self {
            store,
            doings: memory.doings.place(),
            memory,
            settings: settings.into(),
            flights: Arc::default(),
        }
    }
}
