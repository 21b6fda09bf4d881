//! What is remembered for calls that go on without the store. It does not know
//! which they are.

use std::sync::{Arc, atomic::Ordering};

use super::{Directory, KnownKey, KnownTenant};

/// How long the store is left alone after it did not answer, by what can go on
/// without it.
const DOWN_MS: u64 = 250;

impl Directory {
    /// What was looked up of an API key not too long ago for what must go on
    /// without the store.
    pub(in crate::tenant) fn key_of_old(&self, key_id: &str) -> Option<KnownKey> {
        let (known, since) = self.keys.get(key_id)?;
        (since.elapsed() < self.outage_ttl()).then_some(known)
    }

    /// The same of a tenant.
    pub(in crate::tenant) fn tenant_of_old(&self, tenant_id: &str) -> Option<Arc<KnownTenant>> {
        let (known, since) = self.tenants.get(tenant_id)?;
        (since.elapsed() < self.outage_ttl()).then_some(known)
    }

    /// Notes that the store did not answer: for a moment, what can go on without it
    /// does not wait for it.
    pub(in crate::tenant) fn note_down(&self) {
        let until = self.elapsed_ms().saturating_add(DOWN_MS);
        self.down_until_ms.store(until, Ordering::Relaxed);
    }

    /// Whether the store did not answer a moment ago, and nothing was heard of it
    /// since.
    pub(in crate::tenant) fn is_down(&self) -> bool {
        self.elapsed_ms() < self.down_until_ms.load(Ordering::Relaxed) && !self.is_fresh()
    }
}
