//! Bills: statements, closed periods, plan changes, purges. It does not know
//! gRPC.

mod clocked;
mod closing;
mod month;
mod sessions;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use riptide_persistence::{
    config,
    store::Handle,
    tenant::{Directory, Tenants},
};
use secrecy::SecretString;

/// A replica that hears of changes only when it asks the store.
fn replica(store: Handle, settings: Arc<ArcSwap<config::Tenant>>) -> Tenants {
    let directory = Arc::new(Directory::new(Duration::from_secs(60)));
    Tenants::new(store, directory, settings, SecretString::from(super::ADMIN))
}
