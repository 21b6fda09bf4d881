//! Who calls, and whether they may: answered from memory, and from the store
//! only what is not remembered. It does not know what the call will do.

mod remembering;

use std::sync::Arc;

use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::{
    Access, Caller, Pepper, Tenancy, Tenants, api_key,
    directory::{Credential, KnownKey, KnownTenant},
    id,
    record::{self, SuspensionMode},
};
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Key, Space, Table, Write},
};

impl Tenants {
    /// Whom a credential belongs to; `bearer` is the key itself, without
    /// `Bearer `. Calls the store only where the key is not remembered.
    ///
    /// # Errors
    /// [`Error::KeyMissing`]; [`Error::KeyInvalid`] for a key that is unknown,
    /// wrong, expired or revoked; those of the store.
    pub async fn authenticate(&self, bearer: Option<&str>) -> Result<Caller> {
        let Some(given) = self.given(bearer)? else {
            return Ok(Caller::Admin);
        };
        self.authenticate_given(&given).await
    }

    async fn authenticate_given(&self, given: &api_key::Credential<'_>) -> Result<Caller> {
        let (pepper, known) = (self.directory.pepper(), self.directory.key(given.key_id));
        if let (Some(pepper), Some(known)) = (pepper, known) {
            match self.compare(&pepper, &known, &given.secret) {
                Err(Error::KeyInvalid) if matches!(known, KnownKey::Present(_)) => {
                    // The key may have been rotated through another replica a
                    // moment ago, and what a rotation returned works at once.
                }
                answer => return answer,
            }
        }
        // Boxed, so that calls whose key is remembered do not carry the room of this.
        let (known, pepper) = Box::pin(async {
            let pepper = self.pepper().await?;
            self.look_up_key(given.key_id, pepper).await
        })
        .await?;
        self.compare(&pepper, &known, &given.secret)
    }

    /// The parts of an API key; `None` for the admin key.
    fn given<'a>(&self, bearer: Option<&'a str>) -> Result<Option<api_key::Credential<'a>>> {
        let bearer = bearer.ok_or(Error::KeyMissing)?;
        let admin = self.admin_key.expose_secret().as_bytes();
        // Slices of unequal length differ at once; the length is no secret.
        if !admin.is_empty() && bool::from(bearer.as_bytes().ct_eq(admin)) {
            return Ok(None);
        }
        api_key::parse(bearer).map(Some).ok_or(Error::KeyInvalid)
    }

    fn compare(&self, pepper: &Pepper, known: &KnownKey, secret: &[u8; 32]) -> Result<Caller> {
        // One MAC for every key, known or not: the time does not tell which.
        let mac = pepper.mac(secret);
        let KnownKey::Present(key) = known else {
            return Err(Error::KeyInvalid);
        };
        let now_ms = self.store.now_ms();
        let mut matches = false;
        for candidate in &key.secrets {
            let alive = candidate.until_ms.is_none_or(|until| now_ms < until);
            matches |= alive & bool::from(candidate.mac.ct_eq(&mac));
        }
        if !matches || key.revoked || key.expire_ms.is_some_and(|expire| expire <= now_ms) {
            return Err(Error::KeyInvalid);
        }
        self.directory.uses.note(key, now_ms);
        Ok(Caller::Key(key.grant.clone()))
    }

    /// A key as it is stored, and the secret it is compared by at that moment: a restore
    /// may have brought another one.
    async fn look_up_key(
        &self,
        key_id: &str,
        pepper: Arc<Pepper>,
    ) -> Result<(KnownKey, Arc<Pepper>)> {
        let token = self.directory.token(Table::ApiKey, key_id);
        let of_pepper = self.directory.token(Table::Meta, "pepper");
        let keys = [record::api_key_key(key_id), pepper_key()];
        let read = self.store.read(&Space::registry(), 0, &keys).await?;
        let mut found = read.records.into_iter();
        let known = match found.next().flatten() {
            Some(found) => {
                let key: record::ApiKey = record::decode(&found.value)?;
                KnownKey::Present(Arc::new(Credential::of(&key)))
            }
            None => KnownKey::Absent,
        };
        self.directory.remember_key(token, key_id, known.clone());
        let pepper = match found.next().flatten() {
            Some(found) if found.version != pepper.version => {
                let pepper = Arc::new(Pepper::new(&found.value, found.version));
                self.directory.remember_pepper(of_pepper, pepper.clone());
                pepper
            }
            _ => pepper,
        };
        Ok((known, pepper))
    }

    /// Admits a call on a tenant's data. `tenant_id` is the request's; a tenant
    /// key may leave it empty. Calls the store only where the tenant is not
    /// remembered, or where what is remembered would refuse the call although it
    /// may have been created anew.
    ///
    /// # Errors
    /// [`Error::TenantMismatch`], [`Error::Invalid`] (see [`Caller::tenant_id`]);
    /// [`Error::NotFound`]; [`Error::KeyInvalid`] for a key of an earlier life of
    /// the tenant; [`Error::TenantSuspended`], [`Error::TenantDeleted`]; those of
    /// the store.
    pub async fn admit(&self, caller: &Caller, tenant_id: &str, access: Access) -> Result<Tenancy> {
        let tenant_id = caller.tenant_id(tenant_id)?;
        if let Some(known) = self.directory.tenant(tenant_id) {
            match self.enter(&known, caller, access) {
                Err(Error::TenantDeleted(_) | Error::KeyInvalid) => {}
                answer => return answer,
            }
        }
        let known = self.look_up_tenant(tenant_id).await?;
        let known = known.ok_or_else(|| match caller {
            Caller::Admin | Caller::Certified(_) => Error::no_tenant(tenant_id),
            Caller::Key(_) => Error::KeyInvalid,
        })?;
        self.enter(&known, caller, access)
    }

    /// Admits a call anew, by the tenant as the store has it now: for one that found
    /// its space gone.
    ///
    /// # Errors
    /// As [`Tenants::admit`].
    pub async fn admit_anew(
        &self,
        caller: &Caller,
        tenant_id: &str,
        access: Access,
    ) -> Result<Tenancy> {
        self.look_anew(tenant_id);
        self.admit(caller, tenant_id, access).await
    }

    /// Forgets what is remembered of a tenant, so that the next call asks the store.
    pub fn look_anew(&self, tenant_id: &str) {
        self.directory.drop_key(&record::tenant_key(tenant_id));
    }

    fn enter(&self, known: &Arc<KnownTenant>, caller: &Caller, access: Access) -> Result<Tenancy> {
        let tenant_id = || known.terms.tenant_id.to_string();
        if let Caller::Key(grant) = caller
            && grant.incarnation != known.incarnation
        {
            return Err(Error::KeyInvalid);
        }
        if known.deleted {
            return Err(Error::TenantDeleted(tenant_id()));
        }
        match (known.suspended, access) {
            (None, _) | (Some(SuspensionMode::ReadOnly), Access::Read) => {}
            (Some(mode), _) => {
                let read_only = mode == SuspensionMode::ReadOnly;
                return Err(Error::TenantSuspended {
                    tenant_id: tenant_id(),
                    read_only,
                });
            }
        }
        let settings = self.settings.load();
        let terms = if known.is_under(&settings) {
            known.terms.clone()
        } else {
            // The settings were reloaded: the plan may grant something else now.
            let token = self.directory.token(Table::Tenant, &known.terms.tenant_id);
            let renewed = Arc::new(known.under(&settings));
            let terms = renewed.terms.clone();
            self.directory.renew_tenant(token, known, renewed);
            terms
        };
        let mut tenancy = Tenancy::on(terms);
        if let Caller::Key(grant) = caller
            && grant.is_confined()
        {
            tenancy.confined = Some(grant.clone());
        }
        Ok(tenancy)
    }

    async fn look_up_tenant(&self, tenant_id: &str) -> Result<Option<Arc<KnownTenant>>> {
        if !id::is_valid(tenant_id) {
            return Ok(None);
        }
        let token = self.directory.token(Table::Tenant, tenant_id);
        let Some((tenant, _)) = self.find_tenant(tenant_id).await? else {
            return Ok(None);
        };
        let account = self.account(&tenant);
        let settings = self.settings.load_full();
        let known = KnownTenant::of(&tenant, account, &settings, &self.masters);
        let known = Arc::new(known);
        self.directory
            .remember_tenant(token, tenant_id, known.clone());
        Ok(Some(known))
    }

    /// A tenant's record and its version in the store.
    pub(super) async fn find_tenant(
        &self,
        tenant_id: &str,
    ) -> Result<Option<(record::Tenant, u64)>> {
        self.find(record::tenant_key(tenant_id)).await
    }

    pub(super) async fn find<T: serde::de::DeserializeOwned>(
        &self,
        key: Key,
    ) -> Result<Option<(T, u64)>> {
        let read = self.store.read(&Space::registry(), 0, &[key]).await?;
        match read.records.into_iter().next().flatten() {
            Some(found) => Ok(Some((record::decode(&found.value)?, found.version))),
            None => Ok(None),
        }
    }

    /// The store's secret; made at the first need of the first replica.
    pub(super) async fn pepper(&self) -> Result<Arc<Pepper>> {
        if let Some(pepper) = self.directory.pepper() {
            return Ok(pepper);
        }
        let registry = Space::registry();
        loop {
            let token = self.directory.token(Table::Meta, "pepper");
            let read = self.store.read(&registry, 0, &[pepper_key()]).await?;
            if let Some(found) = read.records.into_iter().next().flatten() {
                let pepper = Arc::new(Pepper::new(&found.value, found.version));
                self.directory.remember_pepper(token, pepper.clone());
                return Ok(pepper);
            }
            let secret = crate::random::bytes::<{ Pepper::BYTES }>();
            let write = Write::put(pepper_key(), secret.to_vec()).when(Check::Absent);
            // Whether this replica's was taken or another's, the next read tells.
            if let Commit::Applied(_) = self.store.commit(&registry, Batch::of([write])).await? {
                tracing::info!("made the store's secret");
            }
        }
    }
}

/// Where the store's secret is.
pub(super) fn pepper_key() -> Key {
    Key::new(Table::Meta, &b"pepper"[..])
}
