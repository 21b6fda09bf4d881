//! Who calls, and what a credential grants. It does not know how a credential
//! is checked or kept.

mod certified;

use std::{fmt, sync::Arc};

pub use certified::{Certified, Peer};

use crate::{
    error::{Error, Result},
    store::Incarnation,
};

/// Who calls, authenticated.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The admin key.
    Admin,
    /// A certificate that is an admin's; it may do what the admin key may.
    Certified(Arc<Certified>),
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

impl Grant {
    /// Whether the key reaches less than its whole tenant.
    pub fn is_confined(&self) -> bool {
        !self.namespaces.is_empty() || !self.key_prefixes.is_empty()
    }

    /// Whether the key reaches into this namespace, if only to some of its keys.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`] naming the namespace.
    pub fn reach_namespace(&self, namespace: &str) -> Result<()> {
        if self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace) {
            return Ok(());
        }
        Err(Error::ScopeMissing {
            scope: format!("namespace {namespace}").into(),
        })
    }
}

impl Caller {
    /// Whether the caller may do what needs this permission.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`] with the name of what it lacks.
    pub fn require(&self, permission: Permission) -> Result<()> {
        match (self, permission) {
            (Self::Admin | Self::Certified(_), _) | (Self::Key(_), Permission::Any) => Ok(()),
            (Self::Key(grant), Permission::Scope(scope)) if grant.scopes.contains(scope) => Ok(()),
            (Self::Key(_), Permission::Scope(scope)) => Err(Error::ScopeMissing {
                scope: scope.as_str().into(),
            }),
            (Self::Key(_), Permission::Admin) => Err(Error::ScopeMissing {
                scope: "admin".into(),
            }),
        }
    }

    /// The tenant a request is about, where `requested` is its `tenant_id`: a
    /// tenant key's own; for an admin the one that is named.
    ///
    /// # Errors
    /// [`Error::TenantMismatch`] where a tenant key names another tenant, whether
    /// that one exists or not; [`Error::Invalid`] where an admin names none.
    pub fn tenant_id<'a>(&'a self, requested: &'a str) -> Result<&'a str> {
        match self {
            Self::Key(grant) if requested.is_empty() || requested == grant.tenant_id => {
                Ok(&grant.tenant_id)
            }
            Self::Key(_) => Err(Error::TenantMismatch),
            Self::Admin | Self::Certified(_) if requested.is_empty() => Err(Error::invalid(
                "tenant_id",
                "an admin belongs to no tenant: name one",
            )),
            Self::Admin | Self::Certified(_) => Ok(requested),
        }
    }

    /// Whether it is an admin, by the key or by a certificate.
    pub fn is_admin(&self) -> bool {
        self.grant().is_none()
    }

    /// What an API key grants, where the caller is a tenant's.
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        match self {
            Self::Admin | Self::Certified(_) => None,
            Self::Key(grant) => Some(grant),
        }
    }

    /// The caller of a call that lasts, as far as that can be told without the store: a
    /// certificate may have expired since, or its identity may be an admin's no more.
    ///
    /// # Errors
    /// [`Error::KeyInvalid`].
    pub fn lasting(&self) -> Result<Self> {
        match self {
            Self::Certified(certified) if !certified.holds() => Err(Error::KeyInvalid),
            _ => Ok(self.clone()),
        }
    }

    /// The public half of the credential; `admin` for the admin key, and for a
    /// certificate `cert:` and whose it is.
    pub fn key_id(&self) -> &str {
        match self {
            Self::Admin => "admin",
            Self::Certified(certified) => certified.key_id(),
            Self::Key(grant) => &grant.key_id,
        }
    }
}

/// What an RPC needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Any valid key.
    Any,
    /// A tenant key with this scope, or an admin.
    Scope(Scope),
    /// An admin.
    Admin,
}

impl Permission {
    /// Reads the proto option `permission`: a scope's name, `admin` or `any`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "any" => Some(Self::Any),
            "admin" => Some(Self::Admin),
            scope => Scope::parse(scope).map(Self::Scope),
        }
    }
}

/// The scopes a tenant key can hold, as the contract names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `cache.read`
    CacheRead,
    /// `cache.write`
    CacheWrite,
    /// `cache.invalidate`
    CacheInvalidate,
    /// `session.read`
    SessionRead,
    /// `session.write`
    SessionWrite,
    /// `usage.read`
    UsageRead,
    /// `tenant.read`
    TenantRead,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CacheRead,
        Self::CacheWrite,
        Self::CacheInvalidate,
        Self::SessionRead,
        Self::SessionWrite,
        Self::UsageRead,
        Self::TenantRead,
    ];

    /// The scope's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CacheRead => "cache.read",
            Self::CacheWrite => "cache.write",
            Self::CacheInvalidate => "cache.invalidate",
            Self::SessionRead => "session.read",
            Self::SessionWrite => "session.write",
            Self::UsageRead => "usage.read",
            Self::TenantRead => "tenant.read",
        }
    }

    /// The scope of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope.
    pub const NONE: Self = Self(0);

    /// Every scope a tenant key can hold.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// The set with this scope added.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }

    /// Whether the scope is in the set.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether the set has no scope.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in the order of the contract.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(scopes: Scopes) -> Caller {
        Caller::Key(Arc::new(Grant {
            key_id: "k".into(),
            tenant_id: "acme".into(),
            incarnation: Incarnation::random(),
            scopes,
            namespaces: vec![],
            key_prefixes: vec![],
        }))
    }

    #[test]
    fn each_scope_opens_only_its_own_door() {
        for held in Scope::ALL {
            let caller = key(Scopes::NONE.with(held));
            for asked in Scope::ALL {
                let allowed = caller.require(Permission::Scope(asked)).is_ok();
                assert_eq!(allowed, held == asked, "{held} for {asked}");
            }
            assert!(caller.require(Permission::Any).is_ok());
            assert_eq!(
                caller.require(Permission::Admin),
                Err(Error::ScopeMissing {
                    scope: "admin".into()
                })
            );
        }
        assert!(Caller::Admin.require(Permission::Admin).is_ok());
    }

    #[test]
    fn names_read_back() {
        for scope in Scope::ALL {
            assert_eq!(
                Permission::parse(scope.as_str()),
                Some(Permission::Scope(scope))
            );
        }
        assert_eq!(Permission::parse("cache"), None);
        assert_eq!(Scopes::all().iter().count(), 7);
        assert_eq!(
            Scopes::NONE
                .with(Scope::UsageRead)
                .iter()
                .collect::<Vec<_>>(),
            [Scope::UsageRead]
        );
    }

    #[test]
    fn a_key_speaks_for_its_own_tenant_alone() {
        let caller = key(Scopes::all());
        assert_eq!(caller.tenant_id("").unwrap(), "acme");
        assert_eq!(caller.tenant_id("acme").unwrap(), "acme");
        assert_eq!(caller.tenant_id("other"), Err(Error::TenantMismatch));
        assert_eq!(Caller::Admin.tenant_id("other").unwrap(), "other");
        assert!(matches!(
            Caller::Admin.tenant_id(""),
            Err(Error::Invalid(_))
        ));
    }
}
