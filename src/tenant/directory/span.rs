//! How long what was looked up is remembered, which may be changed while it is. It
//! does not know what was looked up.

use std::{sync::atomic::Ordering, time::Duration};

use super::Directory;

impl Directory {
    /// The same, with records remembered for so long for what must go on without
    /// the store; see [`Tenants::authenticate_remembering`].
    ///
    /// [`Tenants::authenticate_remembering`]: crate::tenant::Tenants::authenticate_remembering
    #[must_use]
    pub fn remembering(self, outage_ttl: Duration) -> Self {
        self.outage_ttl_ms.store(ms(outage_ttl), Ordering::Relaxed);
        self
    }

    /// Remembers records for so long from now on, also those that are remembered
    /// already: at most, and for what must go on without the store.
    pub fn remember_for(&self, ttl: Duration, outage_ttl: Duration) {
        self.ttl_ms.store(ms(ttl), Ordering::Relaxed);
        self.outage_ttl_ms.store(ms(outage_ttl), Ordering::Relaxed);
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms.load(Ordering::Relaxed))
    }

    pub(super) fn outage_ttl(&self) -> Duration {
        Duration::from_millis(self.outage_ttl_ms.load(Ordering::Relaxed))
    }
}

pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
