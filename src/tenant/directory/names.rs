//! What tenants are called that are known by the home of their caches alone. It does
//! not know whether they still live.

use std::{collections::HashMap, sync::Arc};

use super::Directory;
use crate::{store::Incarnation, tenant::Tenants};

impl Tenants {
    /// The names of the tenants that called of late, by the homes
    /// of their caches.
    pub fn names(&self) -> HashMap<Incarnation, Arc<str>> {
        self.directory.names()
    }
}

impl Directory {
    fn names(&self) -> HashMap<Incarnation, Arc<str>> {
        let name = |(known, _): &(Arc<super::KnownTenant>, _)| {
            (known.terms.home, known.terms.tenant_id.clone())
        };
        self.tenants.iter().map(|(_, known)| name(&known)).collect()
    }
}
