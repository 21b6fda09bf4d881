//! Tenants: who calls, whether they may, and what they hold. It does not know
//! how calls arrive or what entries look like.

mod account;
mod admission;
pub mod api_key;
pub mod audit;
pub mod billing;
mod caller;
pub mod check;
mod creation;
pub mod data_key;
mod directory;
pub mod event;
mod flush;
mod held;
pub mod id;
mod issuance;
mod key_use;
mod level;
mod lifecycle;
mod listing;
pub mod mask;
mod meter;
mod once;
pub mod page;
mod pepper;
pub mod period;
pub mod plan;
mod profile;
mod purge;
pub mod quota;
pub mod rate;
pub mod reclaim;
pub mod record;
mod replicas;
pub mod restoration;
mod rotation;
mod rows;
pub mod stats;
mod stored;
mod tenancy;
pub mod traffic;
pub mod usage;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use arc_swap::ArcSwap;
use secrecy::SecretString;

pub use account::{Account, Accounts};
pub use caller::{Caller, Certified, Grant, Peer, Permission, Scope, Scopes};
pub use creation::{Created, NewTenant};
pub use data_key::{DataKey, Encryption, Masters, Rewrapped};
pub use directory::{Directory, FRESH};
pub use event::Event;
pub use flush::Flushes;
pub use held::Readings;
pub use issuance::{ApiKeys, Issued, NewApiKey};
pub use level::{
    ACTIVE_SESSIONS, CACHE_ENTRIES, DATA_TRANSFER_BYTES, Level, MEMORY_BYTES, STORAGE_BYTES,
};
pub use lifecycle::Update;
pub use listing::{Filter, Listed};
pub use mask::Mask;
pub use meter::{Counts, Meter};
pub use once::{Change, Once};
pub use pepper::Pepper;
pub use period::Period;
pub use plan::Quotas;
pub use profile::Profile;
pub use purge::{PurgeReport, elsewhere};
pub use record::{ApiKey, Homes, Owner, State, Suspension, SuspensionMode, Tenant};
pub use stored::{KeptMeters, KeptRow, KeptUsage, Registered};
pub use tenancy::{Access, Tenancy, Terms};
pub use usage::Usage;

use crate::{
    config,
    error::{Error, Result},
    store::{Applied, Commit, Handle, Refusal},
};

/// The tenants of a store, and the admission of their callers. Cheap to clone:
/// each core has one, with a store of its own and a directory shared by all.
#[derive(Clone)]
pub struct Tenants {
    store: Handle,
    directory: Arc<Directory>,
    settings: Arc<ArcSwap<config::Tenant>>,
    billing: Arc<ArcSwap<config::Billing>>,
    admin_key: Arc<SecretString>,
    /// What wraps the data keys of encrypted tenants.
    masters: Arc<Masters>,
    /// Whether every new tenant is encrypted.
    encrypts_all: config::Live<bool>,
    /// Who makes what is kept elsewhere of purged tenants unreadable, if anything is.
    forgetting: Option<elsewhere::Forgetting>,
}

impl Tenants {
    /// The tenants of this store. An empty admin key admits nobody.
    pub fn new(
        store: Handle,
        directory: Arc<Directory>,
        settings: Arc<ArcSwap<config::Tenant>>,
        admin_key: SecretString,
    ) -> Self {
        Self {
            store,
            directory,
            settings,
            billing: Arc::default(),
            admin_key: Arc::new(admin_key),
            masters: Arc::default(),
            encrypts_all: false.into(),
            forgetting: None,
        }
    }

    /// The same tenants, encrypted by these master keys where they ask for it, or
    /// all that are new. Without it none can be, and none that is can be read.
    #[must_use]
    pub fn encrypted(self, masters: Arc<Masters>, all: impl Into<config::Live<bool>>) -> Self {
        Self {
            masters,
            encrypts_all: all.into(),
            ..self
        }
    }

    /// The same tenants, billed in this way; otherwise in USD, closed after 3 days.
    #[must_use]
    pub fn billed(self, billing: Arc<ArcSwap<config::Billing>>) -> Self {
        Self { billing, ..self }
    }

    /// The same tenants, forgotten elsewhere too when they are purged.
    #[must_use]
    pub fn forgotten_by(self, forgetting: elsewhere::Forgetting) -> Self {
        Self {
            forgetting: Some(forgetting),
            ..self
        }
    }

    /// The same tenants through another core's connection to the store.
    #[must_use]
    pub fn through(&self, store: Handle) -> Self {
        Self {
            store,
            ..self.clone()
        }
    }

    /// The work behind the calls, for as long as it is polled: bytes are reclaimed,
    /// by `sweep` those of hidden entries; overdue tenants purged, uses of keys and
    /// of tenants kept, billing periods closed. One a replica, beside
    /// [`Directory::follow`].
    pub async fn maintain(&self, sweep: impl reclaim::Sweep) {
        let reclaim = reclaim::run(self.store.clone(), sweep);
        tokio::join!(
            reclaim,
            self.purge_overdue(),
            self.keep_uses(),
            self.keep_meters(),
            self.keep_alive(),
            self.close_periods()
        );
    }

    /// How many replicas work on the store, this one included.
    fn replicas(&self) -> u64 {
        self.directory.replicas.load(Ordering::Relaxed).max(1)
    }

    /// The store it works on.
    pub fn store(&self) -> &Handle {
        &self.store
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants")
            .field("store", &self.store.backend())
            .finish_non_exhaustive()
    }
}

/// A commit that nothing can refuse.
fn applied(commit: Commit) -> Result<Applied> {
    match commit {
        Commit::Applied(applied) => Ok(applied),
        Commit::Refused(refusal) => Err(unexpected(&refusal)),
    }
}

/// A refusal that no batch of this module can meet.
fn unexpected(refusal: &Refusal) -> Error {
    Error::Internal(format!(
        "the store refused a commit of the registry: {refusal:?}"
    ))
}
