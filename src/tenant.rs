//! Tenants: who calls, whether they may, and what they hold. It does not know
//! how calls arrive or what entries look like.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    store::{Incarnation, Limits, Space},
};

/// Who calls, authenticated.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The admin key.
    Admin,
    /// A tenant's API key.
    Key(Arc<Grant>),
}

/// What an API key grants.
#[derive(Debug)]
pub struct Grant {
    /// The key's public half.
    pub key_id: String,
    /// The tenant it belongs to.
    pub tenant_id: String,
    /// The life of the tenant it belongs to.
    pub incarnation: Incarnation,
    /// What it may do.
    pub scopes: Scopes,
    /// The namespaces it is confined to; empty means all.
    pub namespaces: Vec<String>,
    /// The key prefixes it is confined to; empty means all.
    pub key_prefixes: Vec<String>,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

/// What an RPC needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Any valid key.
    Any,
    /// A tenant key with this scope, or the admin key.
    Scope(Scope),
    /// The admin key.
    Admin,
}

/// The scopes a tenant key can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scope {
    CacheRead,
    CacheWrite,
    CacheInvalidate,
    SessionRead,
    SessionWrite,
    UsageRead,
    TenantRead,
}

/// What a call on a tenant's data does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// An admitted call on a tenant's data. Holding one is the permission; the
/// space inside can be had no other way.
#[derive(Clone, Debug)]
pub struct Tenancy {
    /// The tenant's name.
    pub tenant_id: Arc<str>,
    /// The tenant's life.
    pub incarnation: Incarnation,
    /// Where its entries live.
    pub space: Space,
    /// The limits on them.
    pub limits: Limits,
    /// How long entries live that are set without a time; `None` means for ever.
    pub default_ttl_ms: Option<u64>,
    /// The key that calls, where it is confined to namespaces or prefixes.
    pub confined: Option<Arc<Grant>>,
}

impl Tenancy {
    /// Whether the caller reaches this namespace.
    pub fn reach_namespace(&self, namespace: &str) -> Result<()> {
        match &self.confined {
            Some(grant) if !grant.namespaces.is_empty() && !grant.namespaces.iter().any(|n| n == namespace) => {
                Err(Error::ScopeMissing { scope: format!("namespace {namespace}").into() })
            }
            _ => Ok(()),
        }
    }
}
