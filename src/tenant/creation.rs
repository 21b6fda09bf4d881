//! A tenant comes into being, with its first API key, in one commit. It does not
//! know what becomes of it.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    Change, Encryption, Profile, Tenant, Tenants,
    admission::pepper_key,
    api_key, id,
    issuance::{Issued, NewApiKey},
    lifecycle::ATTEMPTS,
    once::Once,
    record::{self, ApiKey, Homes},
};
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Incarnation, Limits, Refusal, Space, Write},
};

/// Asks for a new tenant.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewTenant {
    /// The id; generated when empty.
    pub tenant_id: String,
    /// Its fields.
    pub profile: Profile,
}

/// A new tenant and its first API key; a validation alone makes no key.
#[derive(Debug)]
pub struct Created {
    /// The tenant.
    pub tenant: Tenant,
    /// Its first key, which has every tenant scope.
    pub issued: Option<Issued>,
}

/// What a creation answers, for a replay.
#[derive(Serialize, Deserialize)]
struct CreatedAnswer {
    tenant: Tenant,
    api_key: ApiKey,
}

impl Tenants {
    /// Creates a tenant and its first API key, in one commit.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TenantExists`], [`Error::MaxTenants`],
    /// [`Error::ConditionNotMet`] where it is to be encrypted and there is no master
    /// key, [`Error::RequestIdReused`]; those of the store.
    pub async fn create(&self, new: NewTenant, mut change: Change) -> Result<Created> {
        let once = Once::of(
            "CreateTenant",
            &change.request_id,
            &new,
            &mut change.violations,
        )?;
        let settings = self.settings.load_full();
        change.violations.require(
            new.tenant_id.is_empty() || id::is_valid(&new.tenant_id),
            "tenant_id",
            id::RULE,
        );
        new.profile.validate("", &settings, &mut change.violations);
        change.violations.check()?;
        let max_tenants = u64::try_from(settings.max_tenants).ok();
        if change.validate_only {
            return self.rehearse(&new, once.as_ref(), max_tenants).await;
        }
        for _ in 0..ATTEMPTS {
            let pepper = self.pepper().await?;
            let tenant = self.draft(&new)?;
            let first = NewApiKey::first();
            let key_id = api_key::generate_id(tenant.incarnation);
            let secret = once.as_ref().map_or_else(crate::random::bytes, |o| {
                pepper.derive(&key_id, &o.request_id)
            });
            let key = first.draft(key_id, &tenant, pepper.mac(&secret), tenant.create_ms);
            let answer = CreatedAnswer {
                tenant: tenant.bare(),
                api_key: key.bare(),
            };
            let writes = [
                Write::put(
                    record::tenant_key(&tenant.tenant_id),
                    record::encode(&tenant)?,
                )
                .when(Check::Absent),
                Write::put(record::api_key_key(&key.key_id), record::encode(&key)?)
                    .when(Check::Absent),
                // Were the store another by now, the key could never be compared.
                Write::check(pepper_key(), Check::Version(pepper.version)),
            ];
            // The request first: a replay finds its record before it finds its tenant.
            let request = once.as_ref().map(|once| once.write(&answer)).transpose()?;
            let mut batch = Batch::of(request.into_iter().chain(writes));
            batch.limits = Limits {
                entries: max_tenants,
                bytes: None,
            };
            let at = usize::from(once.is_some());
            match self.store.commit(&Space::registry(), batch).await? {
                Commit::Applied(_) => {
                    self.directory
                        .drop_key(&record::tenant_key(&answer.tenant.tenant_id));
                    let text = SecretString::from(api_key::format(&key.key_id, &secret));
                    let issued = Issued {
                        api_key: answer.api_key,
                        secret: Some(text),
                    };
                    return Ok(Created {
                        tenant: answer.tenant,
                        issued: Some(issued),
                    });
                }
                Commit::Refused(Refusal::Exceeded { limit, used, .. }) => {
                    return Err(Error::MaxTenants { limit, used });
                }
                Commit::Refused(Refusal::Conflict { write, .. }) if write == at => {
                    if !new.tenant_id.is_empty() {
                        return Err(Error::TenantExists(new.tenant_id));
                    }
                }
                Commit::Refused(Refusal::Conflict { write, .. }) if write < at => {
                    if let Some(created) = self.replay_creation(once.as_ref()).await? {
                        return Ok(created);
                    }
                }
                Commit::Refused(Refusal::Conflict { .. }) => self.directory.drop_pepper(),
                Commit::Refused(refusal) => return Err(super::unexpected(&refusal)),
            }
        }
        Err(Error::RequestInProgress)
    }

    fn draft(&self, new: &NewTenant) -> Result<Tenant> {
        let now_ms = self.store.now_ms();
        let incarnation = Incarnation::random();
        let encrypted = new.profile.encryption_enabled || **self.encrypts_all.load();
        let encryption = encrypted.then(|| Encryption::begin(&self.masters, incarnation, now_ms));
        let profile = new.profile.clone();
        let settings = self.settings.load();
        Ok(Tenant {
            format: if encrypted {
                record::ENCRYPTED_FORMAT
            } else {
                record::FORMAT
            },
            tenant_id: if new.tenant_id.is_empty() {
                id::generate()
            } else {
                new.tenant_id.clone()
            },
            incarnation,
            display_name: profile.display_name,
            plan: if profile.plan.is_empty() {
                settings.default_plan.clone()
            } else {
                profile.plan
            },
            segments: Vec::new(),
            owner: profile.owner.unwrap_or_default(),
            labels: profile.labels,
            settings: profile.settings.unwrap_or_default(),
            quotas: profile.quotas.unwrap_or_default(),
            encryption: encryption.transpose()?,
            homes: Homes::default(),
            delete_protection: profile.delete_protection,
            suspension: None,
            create_ms: now_ms,
            update_ms: now_ms,
            delete_ms: None,
            purge_ms: None,
            purging: false,
            etag: record::new_etag(),
        })
    }

    /// Every check of a creation, and nothing written.
    async fn rehearse(
        &self,
        new: &NewTenant,
        once: Option<&Once>,
        max_tenants: Option<u64>,
    ) -> Result<Created> {
        if let Some(created) = self.replay_creation(once).await? {
            return Ok(created);
        }
        let tenant = self.draft(new)?;
        if self.find_tenant(&tenant.tenant_id).await?.is_some() {
            return Err(Error::TenantExists(tenant.tenant_id));
        }
        if let Some(limit) = max_tenants {
            let used = self.store.usage(&Space::registry()).await?.entries;
            if used >= limit {
                return Err(Error::MaxTenants { limit, used });
            }
        }
        Ok(Created {
            tenant,
            issued: None,
        })
    }

    async fn replay_creation(&self, once: Option<&Once>) -> Result<Option<Created>> {
        let Some(once) = once else { return Ok(None) };
        let read = self
            .store
            .read(&Space::registry(), 0, &[once.key()])
            .await?;
        let Some(found) = read.records.into_iter().next().flatten() else {
            return Ok(None);
        };
        let answer: CreatedAnswer = once.replay(&found)?;
        let issued = self.reissued(once, answer.api_key).await?;
        Ok(Some(Created {
            tenant: answer.tenant,
            issued: Some(issued),
        }))
    }
}
