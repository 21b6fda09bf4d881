//! What this replica tells of itself and of the tenants that call it. It does not know
//! who asks.

use std::sync::Arc;

use bytes::Bytes;

use super::Directory;
use crate::tenant::{Flushes, traffic::Traffic};

impl Directory {
    /// What is told of the tenants that call.
    pub fn traffic(&self) -> &Arc<Traffic> {
        self.accounts.traffic()
    }

    /// What the flushes of usage came to.
    pub fn flushes(&self) -> Flushes {
        self.outbox.flushes()
    }

    /// This process among all that ever work on the store.
    pub fn replica(&self) -> &Bytes {
        self.accounts.replica()
    }
}
