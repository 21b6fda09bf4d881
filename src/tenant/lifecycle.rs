//! The life of a tenant: changed, suspended, resumed, deleted and brought back.
//! It does not know what a tenant's entries are, nor how they go.
//!
//! A change is one read and one commit, and the commit checks that the record is
//! still the one that was read.

use serde::Serialize;

use super::{
    Caller, Change, Mask, Profile, SuspensionMode, Tenant, Tenants, id,
    once::Once,
    plan, profile, purge,
    record::{self, State, Suspension},
};
use crate::{
    error::{Error, Result, Violations},
    store::{Batch, Check, Commit, Refusal, Space, Write},
};

/// How often a commit is tried again when others write the same record.
pub(super) const ATTEMPTS: usize = 32;

const REASON_CHARS: usize = 512;

/// Asks for a change of a tenant's fields.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Update {
    /// The tenant.
    pub tenant_id: String,
    /// The new values.
    pub profile: Profile,
    /// The fields to change; see [`Mask::parse`].
    pub update_mask: Vec<String>,
}

impl Tenants {
    /// A tenant, a deleted one included, as the store has it now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TenantMismatch`]; [`Error::KeyInvalid`] for a
    /// key of an earlier life of the tenant; those of the store.
    pub async fn get(&self, caller: &Caller, tenant_id: &str) -> Result<Tenant> {
        let tenant_id = caller.tenant_id(tenant_id)?;
        let found = if id::is_valid(tenant_id) {
            self.find_tenant(tenant_id).await?
        } else {
            None
        };
        match (caller, found) {
            (Caller::Admin | Caller::Certified(_), Some((tenant, _))) => Ok(tenant),
            (Caller::Admin | Caller::Certified(_), None) => Err(Error::no_tenant(tenant_id)),
            (Caller::Key(grant), Some((tenant, _))) if grant.incarnation == tenant.incarnation => {
                Ok(tenant)
            }
            (Caller::Key(_), _) => Err(Error::KeyInvalid),
        }
    }

    /// The quotas in force for a tenant.
    pub fn effective_quotas(&self, tenant: &Tenant) -> plan::Quotas {
        plan::effective(
            &plan::named(&self.settings.load(), &tenant.plan),
            &tenant.quotas,
        )
    }

    /// Changes the masked fields.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidFieldMask`], [`Error::NotFound`],
    /// [`Error::TenantDeleted`], [`Error::EtagMismatch`],
    /// [`Error::RequestIdReused`]; those of the store.
    pub async fn update(&self, update: Update, mut change: Change) -> Result<Tenant> {
        let settings = self.settings.load_full();
        update
            .profile
            .validate("tenant.", &settings, &mut change.violations);
        change.violations.require(
            !update.tenant_id.is_empty(),
            "tenant.tenant_id",
            "empty: name the tenant to change",
        );
        let mask = match Mask::parse(&update.update_mask, &update.profile) {
            Ok(mask) => mask,
            // Other violations are told first; with them the mask would only
            // change the reason.
            Err(error) => return change.violations.check().and(Err(error)),
        };
        let asked = update.clone();
        // A mask that names fields does not ask for this one: it could not.
        let all = update.update_mask.iter().all(|path| path == "*");
        self.change_tenant(
            "UpdateTenant",
            &asked.tenant_id,
            &asked,
            change,
            |tenant, _| {
                mask.apply(&update.profile, &settings.default_plan, tenant);
                let mut violations = Violations::default();
                violations.require(
                    !all || !update.profile.encryption_enabled || tenant.encryption.is_some(),
                    "tenant.encryption_enabled",
                    "fixed at creation: this tenant is not encrypted",
                );
                profile::validate_whole(tenant, &mut violations);
                violations.check()?;
                Ok(Vec::new())
            },
        )
        .await
    }

    /// Suspends a tenant, or changes how it is suspended.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TenantDeleted`], [`Error::EtagMismatch`],
    /// [`Error::Invalid`], [`Error::RequestIdReused`]; those of the store.
    pub async fn suspend(
        &self,
        tenant_id: &str,
        mode: SuspensionMode,
        reason: &str,
        mut change: Change,
    ) -> Result<Tenant> {
        change.violations.require(
            reason.chars().count() <= REASON_CHARS,
            "reason",
            "longer than 512 characters",
        );
        self.change_tenant(
            "SuspendTenant",
            tenant_id,
            &(tenant_id, mode, reason),
            change,
            |tenant, now_ms| {
                let same = tenant
                    .suspension
                    .as_ref()
                    .is_some_and(|s| s.mode == mode && s.reason == reason);
                if !same {
                    tenant.suspension = Some(Suspension {
                        mode,
                        reason: reason.to_owned(),
                        time_ms: now_ms,
                    });
                }
                Ok(Vec::new())
            },
        )
        .await
    }

    /// Puts a suspended tenant back in service; an active one stays as it is.
    ///
    /// # Errors
    /// As [`Tenants::suspend`].
    pub async fn resume(&self, tenant_id: &str, change: Change) -> Result<Tenant> {
        self.change_tenant(
            "ResumeTenant",
            tenant_id,
            &tenant_id,
            change,
            |tenant, _| {
                tenant.suspension = None;
                Ok(Vec::new())
            },
        )
        .await
    }

    /// Deletes a tenant: its data are closed at once, and purged after the grace.
    /// `None` where there is none and that is allowed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TenantDeleted`] (unless `allow_missing`),
    /// [`Error::DeleteProtected`], [`Error::EtagMismatch`],
    /// [`Error::RequestIdReused`]; those of the store.
    pub async fn delete(
        &self,
        tenant_id: &str,
        allow_missing: bool,
        change: Change,
    ) -> Result<Option<Tenant>> {
        let grace = self.settings.load().delete_grace;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.change_any(
            "DeleteTenant",
            tenant_id,
            &(tenant_id, allow_missing),
            change,
            |tenant, now_ms| {
                let Some(tenant) = tenant else {
                    return match allow_missing {
                        true => Ok(Vec::new()),
                        false => Err(Error::no_tenant(tenant_id)),
                    };
                };
                if tenant.state() == State::Deleted {
                    return match allow_missing {
                        true => Ok(Vec::new()),
                        false => Err(Error::TenantDeleted(tenant_id.to_owned())),
                    };
                }
                if tenant.delete_protection {
                    return Err(Error::DeleteProtected(tenant_id.to_owned()));
                }
                let purge_ms = now_ms.saturating_add(grace_ms);
                tenant.delete_ms = Some(now_ms);
                tenant.purge_ms = Some(purge_ms);
                Ok(vec![purge::due(tenant_id, purge_ms)?])
            },
        )
        .await
    }

    /// Brings a deleted tenant back with all it had; a live one stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ConditionNotMet`] once a purge has begun,
    /// [`Error::EtagMismatch`], [`Error::RequestIdReused`]; those of the store.
    pub async fn undelete(&self, tenant_id: &str, change: Change) -> Result<Tenant> {
        self.change_live_or_not(
            "UndeleteTenant",
            tenant_id,
            &tenant_id,
            change,
            |tenant, _| {
                if tenant.purging {
                    return Err(Error::ConditionNotMet {
                        subject: format!("tenant {tenant_id}"),
                        description: "its purge has begun".into(),
                    });
                }
                let due = tenant
                    .purge_ms
                    .map(|purge_ms| Write::delete(purge::due_key(tenant_id, purge_ms)));
                tenant.delete_ms = None;
                tenant.purge_ms = None;
                Ok(due.into_iter().collect())
            },
        )
        .await
    }

    /// Changes a tenant that is not deleted.
    pub(super) async fn change_tenant(
        &self,
        rpc: &str,
        tenant_id: &str,
        content: &impl Serialize,
        change: Change,
        edit: impl Fn(&mut Tenant, u64) -> Result<Vec<Write>>,
    ) -> Result<Tenant> {
        self.change_live_or_not(rpc, tenant_id, content, change, |tenant, now_ms| {
            if tenant.state() == State::Deleted {
                return Err(Error::TenantDeleted(tenant_id.to_owned()));
            }
            edit(tenant, now_ms)
        })
        .await
    }

    /// Changes a tenant that there is, deleted or not.
    async fn change_live_or_not(
        &self,
        rpc: &str,
        tenant_id: &str,
        content: &impl Serialize,
        change: Change,
        edit: impl Fn(&mut Tenant, u64) -> Result<Vec<Write>>,
    ) -> Result<Tenant> {
        let none = || Error::no_tenant(tenant_id);
        let changed = self
            .change_any(rpc, tenant_id, content, change, |tenant, now_ms| {
                edit(tenant.ok_or_else(none)?, now_ms)
            })
            .await?;
        changed.ok_or_else(none)
    }

    /// Reads a tenant, lets `edit` change it, if there is one, and commits that
    /// with the writes `edit` returns and the request's record. Repeats where
    /// others were faster, unless the caller named the etag it relied on.
    async fn change_any(
        &self,
        rpc: &str,
        tenant_id: &str,
        content: &impl Serialize,
        mut change: Change,
        edit: impl Fn(Option<&mut Tenant>, u64) -> Result<Vec<Write>>,
    ) -> Result<Option<Tenant>> {
        let etag = change.etag.as_str();
        let once = Once::of(
            rpc,
            &change.request_id,
            &(content, etag),
            &mut change.violations,
        )?;
        change
            .violations
            .require(!tenant_id.is_empty(), "tenant_id", "empty: name the tenant");
        std::mem::take(&mut change.violations).check()?;
        if !id::is_valid(tenant_id) {
            // There never will be one: nothing that a record could keep from
            // being done twice.
            return edit(None, self.store.now_ms()).map(|_| None);
        }
        let key = record::tenant_key(tenant_id);
        for _ in 0..ATTEMPTS {
            let (found, answered) = self
                .find_or_replay::<Option<Tenant>>(key.clone(), once.as_ref())
                .await?;
            if let Some(answer) = answered {
                return Ok(answer);
            }
            let unchanged = found
                .as_ref()
                .map_or(Check::Absent, |found| Check::Version(found.version));
            let before: Option<Tenant> = found
                .map(|found| record::decode(&found.value))
                .transpose()?;
            if before
                .as_ref()
                .is_some_and(|tenant| !etag.is_empty() && etag != tenant.etag)
            {
                return Err(Error::EtagMismatch);
            }
            let now_ms = self.store.now_ms();
            let mut after = before.clone();
            let more = edit(after.as_mut(), now_ms)?;
            if let (Some(before), Some(after)) = (&before, &mut after) {
                self.begin_segment(before, after).await?;
            }
            let changed = after != before;
            if change.validate_only || (!changed && once.is_none()) {
                return Ok(after);
            }
            let write = match after.as_mut().filter(|_| changed) {
                Some(tenant) => {
                    tenant.changed(now_ms);
                    Write::put(key.clone(), record::encode(tenant)?).when(unchanged)
                }
                None => Write::check(key.clone(), unchanged),
            };
            let answer = after.as_ref().map(Tenant::bare);
            let request = once.as_ref().map(|once| once.write(&answer)).transpose()?;
            let batch = Batch::of([write].into_iter().chain(request).chain(more));
            match self.store.commit(&Space::registry(), batch).await? {
                Commit::Applied(_) => {
                    self.directory.drop_key(&key);
                    return Ok(after);
                }
                Commit::Refused(Refusal::Conflict { write: 0, .. })
                    if !etag.is_empty() && once.is_none() =>
                {
                    return Err(Error::EtagMismatch);
                }
                // The next read tells what happened: another change, or this very
                // request through another replica.
                Commit::Refused(Refusal::Conflict { .. }) => {}
                Commit::Refused(refusal) => return Err(super::unexpected(&refusal)),
            }
        }
        Err(Error::RequestInProgress)
    }
}
