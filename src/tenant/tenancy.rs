//! An admitted call on a tenant's data, and how far it reaches. It does not know
//! how it was admitted or what the data are.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Instant,
};

use super::{Account, Grant, Quotas, data_key::Masters, level::Level, quota::Notes, rate, record};
use crate::{
    codec::{Keyring, Place},
    error::{Error, Result},
    store::{Handle, Incarnation, Limits, Space},
};

/// What a call on a tenant's data does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// An admitted call on a tenant's data. Holding one is the permission; the
/// space inside can be had no other way. Its fields beside those here are those
/// of its [`Terms`].
#[derive(Clone, Debug)]
pub struct Tenancy {
    terms: Arc<Terms>,
    /// The key that calls, where it is confined to namespaces or prefixes.
    pub confined: Option<Arc<Grant>>,
    /// What the call's answer will tell of limits.
    pub notes: Notes,
    /// When the call came; `None` where nobody wants to know how long it takes.
    pub began: Option<Instant>,
}

/// What all calls on a tenant's data have in common, until the tenant or its
/// plan changes: one allocation, so that admitting a call makes none.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The tenant's name.
    pub tenant_id: Arc<str>,
    /// The tenant's life.
    pub incarnation: Incarnation,
    /// Where its entries live.
    pub space: Space,
    /// The name of that.
    pub home: Incarnation,
    /// Where its sessions live.
    pub sessions: Space,
    /// What this replica keeps of the tenant.
    pub account: Arc<Account>,
    /// The quotas in force: the plan's, overlaid with its own.
    pub quotas: Quotas,
    /// The limits on its entries that a commit enforces.
    pub limits: Limits,
    /// The limits on its entries that let through.
    pub watched: Vec<Level>,
    /// The limits on its sessions that a commit enforces.
    pub session_limits: Limits,
    /// The limits on its sessions that let through.
    pub session_watched: Vec<Level>,
    /// The limit on its calls; `None` where there is none.
    pub operations: Option<rate::Rule>,
    /// The limits on rates of the platform's own.
    pub rates: Vec<rate::Rule>,
    /// The limit on its transfer; `None` where there is none.
    pub transfer: Option<Level>,
    /// Whether a limit is to warn: then each call keeps [`Notes`].
    pub warns: bool,
    /// How long entries live that are set without a time; `None` means for ever.
    pub default_ttl_ms: Option<u64>,
    /// The data keys that its entries are sealed with; `None` where they are not.
    pub keyring: Option<Arc<Keyring>>,
    /// The master keys that open data keys.
    pub(super) masters: Arc<Masters>,
}

impl Terms {
    /// The terms of a tenant without any limit.
    pub fn unlimited(tenant_id: &str, account: Arc<Account>) -> Self {
        let incarnation = account.incarnation;
        Self {
            tenant_id: tenant_id.into(),
            incarnation,
            space: Space::tenant(incarnation),
            home: incarnation,
            sessions: Space::sessions(incarnation),
            account,
            quotas: Quotas::default(),
            limits: Limits::default(),
            watched: Vec::new(),
            session_limits: Limits::default(),
            session_watched: Vec::new(),
            operations: None,
            rates: Vec::new(),
            transfer: None,
            warns: false,
            default_ttl_ms: None,
            keyring: None,
            masters: Arc::default(),
        }
    }
}

impl Deref for Tenancy {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// Terms that are changed become the tenancy's own.
impl DerefMut for Tenancy {
    fn deref_mut(&mut self) -> &mut Terms {
        Arc::make_mut(&mut self.terms)
    }
}

impl Tenancy {
    /// A call on these terms, by a key that is not confined.
    pub fn on(terms: Arc<Terms>) -> Self {
        let notes = if terms.warns {
            Notes::kept()
        } else {
            Notes::default()
        };
        Self {
            terms,
            confined: None,
            notes,
            began: None,
        }
    }

    /// Asks the registry whether this life of the tenant is still there; for
    /// whoever has reason to think that the store has lost it.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it is not; the store's.
    pub async fn confirm(&self, store: &Handle) -> Result<()> {
        match self.now(store).await? {
            Some(_) => Ok(()),
            None => Err(Error::no_tenant(&*self.tenant_id)),
        }
    }

    /// Why a space of the tenant's is gone: whoever is admitted anew finds it elsewhere
    /// ([`Error::RestoreInProgress`]), or nowhere ([`Error::NotFound`]).
    pub async fn departed(&self, store: &Handle) -> Error {
        match self.now(store).await {
            Ok(Some(now)) if now.home() != self.home || now.session_space() != self.sessions => {
                Error::RestoreInProgress
            }
            Ok(_) => Error::no_tenant(&*self.tenant_id),
            Err(error) => error,
        }
    }

    /// This life of the tenant as the registry has it now.
    async fn now(&self, store: &Handle) -> Result<Option<record::Tenant>> {
        let key = record::tenant_key(&self.tenant_id);
        let read = store.read(&Space::registry(), 0, &[key]).await?;
        let Some(found) = read.records.into_iter().next().flatten() else {
            return Ok(None);
        };
        let found: record::Tenant = record::decode(&found.value)?;
        Ok((found.incarnation == self.incarnation).then_some(found))
    }

    /// Where something of the tenant lives, for what is to be sealed or opened. Beside
    /// entries' own, a namespace has a name that none of theirs can have.
    pub fn place<'a>(&'a self, namespace: &'a str, key: &'a str) -> Place<'a> {
        Place {
            incarnation: self.incarnation,
            namespace,
            key,
            keyring: self.keyring.as_deref(),
        }
    }

    /// Whether the caller reaches into this namespace, if only to some of its keys.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`] naming the namespace.
    pub fn reach_namespace(&self, namespace: &str) -> Result<()> {
        match &self.confined {
            Some(grant) => grant.reach_namespace(namespace),
            None => Ok(()),
        }
    }

    /// Whether the caller reaches this key of this namespace.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`]; it does not repeat the key.
    pub fn reach_key(&self, namespace: &str, key: &str) -> Result<()> {
        self.reach_prefix(namespace, key)
    }

    /// Whether the caller reaches every key of this namespace that begins so.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`]; it does not repeat the prefix.
    pub fn reach_prefix(&self, namespace: &str, prefix: &str) -> Result<()> {
        self.reach_namespace(namespace)?;
        match &self.confined {
            Some(grant)
                if !grant.key_prefixes.is_empty()
                    && !grant
                        .key_prefixes
                        .iter()
                        .any(|p| prefix.starts_with(p.as_str())) =>
            {
                Err(Error::ScopeMissing {
                    scope: "keys beyond its key_prefixes".into(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller reaches every key of this namespace.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`] for a key confined to other namespaces or to prefixes.
    pub fn reach_whole_namespace(&self, namespace: &str) -> Result<()> {
        self.reach_prefix(namespace, "")
    }

    /// Whether the caller reaches the whole tenant.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`] for a key confined to namespaces or prefixes.
    pub fn reach_whole_tenant(&self) -> Result<()> {
        match &self.confined {
            Some(_) => Err(Error::ScopeMissing {
                scope: "the whole tenant".into(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{Accounts, Scopes};

    fn tenancy(namespaces: &[&str], key_prefixes: &[&str]) -> Tenancy {
        let incarnation = Incarnation::random();
        let grant = Grant {
            key_id: "k".into(),
            tenant_id: "acme".into(),
            incarnation,
            scopes: Scopes::all(),
            namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
            key_prefixes: key_prefixes.iter().map(|p| (*p).to_owned()).collect(),
        };
        let terms = Terms::unlimited("acme", Accounts::default().of(incarnation));
        let mut tenancy = Tenancy::on(Arc::new(terms));
        tenancy.confined = grant.is_confined().then(|| Arc::new(grant));
        tenancy
    }

    #[test]
    fn a_confined_key_reaches_no_further() {
        // namespaces, prefixes, (namespace, key) -> key, whole namespace
        for (namespaces, prefixes, namespace, key, reaches_key, reaches_namespace) in [
            (&[][..], &[][..], "any", "k", true, true),
            (&["a"], &[], "a", "k", true, true),
            (&["a"], &[], "b", "k", false, false),
            (&[], &["user:"], "a", "user:1", true, false),
            (&[], &["user:"], "a", "use", false, false),
            (&["a"], &["x", "user:"], "a", "user:", true, false),
            (&["a"], &["user:"], "b", "user:1", false, false),
        ] {
            let tenancy = tenancy(namespaces, prefixes);
            let case = format!("{namespaces:?} {prefixes:?} {namespace} {key}");
            assert_eq!(
                tenancy.reach_key(namespace, key).is_ok(),
                reaches_key,
                "{case}"
            );
            assert_eq!(
                tenancy.reach_whole_namespace(namespace).is_ok(),
                reaches_namespace,
                "{case}"
            );
            let unconfined = namespaces.is_empty() && prefixes.is_empty();
            assert_eq!(tenancy.reach_whole_tenant().is_ok(), unconfined, "{case}");
        }
    }
}
