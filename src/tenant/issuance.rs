//! API keys are issued and listed. It does not know how a key is checked when it
//! is used.

use secrecy::SecretString;
use serde::Serialize;

use super::{
    Change, Scope, Scopes, Tenant, Tenants,
    admission::pepper_key,
    api_key, id,
    lifecycle::ATTEMPTS,
    once::Once,
    page::Listing,
    profile,
    record::{self, ApiKey, SecretMac, State},
};
use crate::{
    error::{Error, Result, Violations},
    store::{Batch, Check, Commit, Cursor, Query, Record, Refusal, Space, Table, Write},
    tenant::Caller,
};

const NAMESPACES: usize = 32;
const KEY_PREFIXES: usize = 32;
const KEY_PREFIX_BYTES: usize = 1024;
/// A record's value is far smaller.
const VALUE_BYTES: usize = 1 << 20;

/// Asks for a new API key.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewApiKey {
    /// A name for people.
    pub display_name: String,
    /// What it may do, by the scopes' names.
    pub scopes: Vec<String>,
    /// The namespaces it is confined to; empty means all.
    pub namespaces: Vec<String>,
    /// The key prefixes it is confined to; empty means all.
    pub key_prefixes: Vec<String>,
    /// When it stops working, by the store's clock, in ms since 1970.
    pub expire_ms: Option<u64>,
}

/// An API key with its secret; a validation alone makes none.
#[derive(Debug)]
pub struct Issued {
    /// The key.
    pub api_key: ApiKey,
    /// Its whole text.
    pub secret: Option<SecretString>,
}

/// A page of API keys.
#[derive(Debug)]
pub struct ApiKeys {
    /// The keys.
    pub api_keys: Vec<ApiKey>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
}

impl NewApiKey {
    /// The key a new tenant gets.
    pub(super) fn first() -> Self {
        Self {
            display_name: "first".into(),
            scopes: Scopes::all()
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
            ..Self::default()
        }
    }

    fn validate(&self, now_ms: u64, violations: &mut Violations) {
        profile::validate_name("", &self.display_name, violations);
        violations.require(
            !self.scopes.is_empty(),
            "scopes",
            "empty: a key has at least one scope",
        );
        for (at, name) in self.scopes.iter().enumerate() {
            if Scope::parse(name).is_none() {
                let known = Scope::ALL.map(Scope::as_str).join(", ");
                violations.add(
                    format!("scopes[{at}]"),
                    format!("no such scope; there are {known}"),
                );
            }
        }
        violations.require(
            self.namespaces.len() <= NAMESPACES,
            "namespaces",
            "more than 32 namespaces",
        );
        for (at, namespace) in self.namespaces.iter().enumerate() {
            if !is_namespace(namespace) {
                let field = format!("namespaces[{at}]");
                violations.add(field, "not a namespace: 1 to 64 characters of a-z, 0-9, `.`, `_` and `-`, the first a letter or digit");
            }
        }
        violations.require(
            self.key_prefixes.len() <= KEY_PREFIXES,
            "key_prefixes",
            "more than 32 prefixes",
        );
        for (at, prefix) in self.key_prefixes.iter().enumerate() {
            if !(1..=KEY_PREFIX_BYTES).contains(&prefix.len()) {
                violations.add(
                    format!("key_prefixes[{at}]"),
                    "a prefix has 1 to 1024 bytes",
                );
            }
        }
        violations.require(
            self.expire_ms.is_none_or(|ms| ms > now_ms),
            "expire_time",
            "not in the future",
        );
    }

    /// The record of a key of this tenant.
    pub(super) fn draft(
        &self,
        key_id: String,
        tenant: &Tenant,
        mac: [u8; 32],
        now_ms: u64,
    ) -> ApiKey {
        let scopes: Scopes = self
            .scopes
            .iter()
            .filter_map(|name| Scope::parse(name))
            .collect();
        ApiKey {
            format: record::FORMAT,
            key_id,
            tenant_id: tenant.tenant_id.clone(),
            incarnation: tenant.incarnation,
            display_name: self.display_name.clone(),
            scopes: scopes
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
            namespaces: self.namespaces.clone(),
            key_prefixes: self.key_prefixes.clone(),
            create_ms: now_ms,
            expire_ms: self.expire_ms,
            revoke_ms: None,
            secrets: vec![SecretMac {
                mac,
                until_ms: None,
            }],
            last_used_ms: None,
        }
    }
}

fn is_namespace(name: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(plain)
        && bytes
            .iter()
            .all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

impl Tenants {
    /// Issues a new API key of a tenant.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`], [`Error::TenantDeleted`],
    /// [`Error::RequestIdReused`]; those of the store.
    pub async fn create_api_key(
        &self,
        tenant_id: &str,
        new: NewApiKey,
        mut change: Change,
    ) -> Result<Issued> {
        let once = Once::of(
            "CreateApiKey",
            &change.request_id,
            &(tenant_id, &new),
            &mut change.violations,
        )?;
        change
            .violations
            .require(!tenant_id.is_empty(), "tenant_id", "empty: name the tenant");
        new.validate(self.store.now_ms(), &mut change.violations);
        change.violations.check()?;
        if !id::is_valid(tenant_id) {
            return Err(Error::no_tenant(tenant_id));
        }
        for _ in 0..ATTEMPTS {
            let pepper = self.pepper().await?;
            let key = record::tenant_key(tenant_id);
            let (tenant, answered) = self.find_or_replay(key, once.as_ref()).await?;
            if let (Some(once), Some(api_key)) = (&once, answered) {
                return self.reissued(once, api_key).await;
            }
            let (tenant, version) = live(tenant_id, tenant)?;
            let key_id = api_key::generate_id(tenant.incarnation);
            let secret = once.as_ref().map_or_else(crate::random::bytes, |o| {
                pepper.derive(&key_id, &o.request_id)
            });
            let key = new.draft(key_id, &tenant, pepper.mac(&secret), self.store.now_ms());
            if change.validate_only {
                return Ok(Issued {
                    api_key: key.bare(),
                    secret: None,
                });
            }
            let request = once
                .as_ref()
                .map(|once| once.write(&key.bare()))
                .transpose()?;
            let writes = [
                // So that no key appears behind a purge.
                Write::check(record::tenant_key(tenant_id), Check::Version(version)),
                Write::put(record::api_key_key(&key.key_id), record::encode(&key)?)
                    .when(Check::Absent),
                Write::check(pepper_key(), Check::Version(pepper.version)),
            ];
            if self
                .commit_issue(writes.into_iter().chain(request), &key.key_id)
                .await?
            {
                let text = SecretString::from(api_key::format(&key.key_id, &secret));
                return Ok(Issued {
                    api_key: key.bare(),
                    secret: Some(text),
                });
            }
        }
        Err(Error::RequestInProgress)
    }

    /// A page of a tenant's API keys, revoked ones included, by their ids.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidPageToken`]; those of the store.
    pub async fn list_api_keys(
        &self,
        tenant_id: &str,
        size: usize,
        page_token: &str,
    ) -> Result<ApiKeys> {
        let tenant = self.get(&Caller::Admin, tenant_id).await?;
        let prefix = tenant.incarnation.to_string();
        let listing = Listing {
            name: "ListApiKeys",
            filter: &[prefix.as_bytes()],
        };
        let query = Query {
            table: Table::ApiKey,
            generation: 0,
            prefix: prefix.clone().into_bytes().into(),
            after: self.open_page(&listing, page_token).await?,
            limit: size,
            value_bytes: VALUE_BYTES,
        };
        let page = self.store.list(&Space::registry(), query).await?;
        let api_keys: Vec<ApiKey> = page
            .items
            .iter()
            .map(|item| record::decode(&item.record.value))
            .collect::<Result<_>>()?;
        let next_page_token = self.next_page(&listing, page.next.as_ref()).await?;
        Ok(ApiKeys {
            api_keys: self.with_uses(api_keys).await?,
            next_page_token,
        })
    }

    /// The token of the page after this place; empty where there is none.
    pub(super) async fn next_page(
        &self,
        listing: &Listing<'_>,
        next: Option<&Cursor>,
    ) -> Result<String> {
        match next {
            Some(next) => self.seal_page(listing, next).await,
            None => Ok(String::new()),
        }
    }

    /// The answer to a replay: the key as it was, and its secret derived anew.
    pub(super) async fn reissued(&self, once: &Once, api_key: ApiKey) -> Result<Issued> {
        let pepper = self.pepper().await?;
        let secret = pepper.derive(&api_key.key_id, &once.request_id);
        let text = SecretString::from(api_key::format(&api_key.key_id, &secret));
        Ok(Issued {
            api_key,
            secret: Some(text),
        })
    }

    /// Commits; false where others were faster and the records must be read again.
    pub(super) async fn commit_issue(
        &self,
        writes: impl IntoIterator<Item = Write>,
        key_id: &str,
    ) -> Result<bool> {
        match self
            .store
            .commit(&Space::registry(), Batch::of(writes))
            .await?
        {
            Commit::Applied(_) => {
                self.directory.drop_key(&record::api_key_key(key_id));
                Ok(true)
            }
            Commit::Refused(Refusal::Conflict { .. }) => {
                // It may have been the check of the store's secret that failed.
                self.directory.drop_pepper();
                Ok(false)
            }
            Commit::Refused(refusal) => Err(super::unexpected(&refusal)),
        }
    }
}

fn live(tenant_id: &str, found: Option<Record>) -> Result<(Tenant, u64)> {
    let found = found.ok_or_else(|| Error::no_tenant(tenant_id))?;
    let tenant: Tenant = record::decode(&found.value)?;
    if tenant.state() == State::Deleted {
        return Err(Error::TenantDeleted(tenant_id.to_owned()));
    }
    Ok((tenant, found.version))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_broken_rule_of_a_key_is_named() {
        let new = NewApiKey {
            display_name: "n".repeat(129),
            scopes: vec!["cache.read".into(), "cache.*".into(), "admin".into()],
            namespaces: vec!["ok-1".into(), "No".into(), String::new()],
            key_prefixes: vec!["p".into(), String::new(), "p".repeat(1025)],
            expire_ms: Some(1000),
        };
        let mut violations = Violations::default();
        new.validate(1000, &mut violations);
        let Err(Error::Invalid(found)) = violations.check() else {
            unreachable!()
        };
        let fields: Vec<_> = found.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "display_name",
                "scopes[1]",
                "scopes[2]",
                "namespaces[1]",
                "namespaces[2]",
                "key_prefixes[1]",
                "key_prefixes[2]",
                "expire_time"
            ]
        );
        let mut violations = Violations::default();
        NewApiKey::default().validate(0, &mut violations);
        assert!(violations.check().is_err());
        let mut violations = Violations::default();
        NewApiKey::first().validate(0, &mut violations);
        violations.check().unwrap();
    }
}
