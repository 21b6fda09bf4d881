//! Admission that goes on while the store cannot be asked, by what was looked up
//! before. It does not know which calls are worth that.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    error::{Error, Result},
    tenant::{Access, Caller, Tenancy, Tenants},
};

/// How long the store may take; after that it counts as down.
const WAIT: Duration = Duration::from_millis(250);

impl Tenants {
    /// Whom a credential belongs to, as [`Tenants::authenticate`]; where the store
    /// does not answer, by what was looked up before.
    ///
    /// # Errors
    /// As [`Tenants::authenticate`].
    pub async fn authenticate_remembering(&self, bearer: Option<&str>) -> Result<Caller> {
        let Some(given) = self.given(bearer)? else {
            return Ok(Caller::Admin);
        };
        if self.directory.is_fresh() {
            let answer = self.authenticate_given(&given).await;
            if !matches!(answer, Err(Error::StoreUnavailable)) {
                return answer;
            }
        }
        let recalled = || {
            let (pepper, known) = (
                self.directory.pepper()?,
                self.directory.key_of_old(given.key_id)?,
            );
            // A secret that is unknown here may be a new one.
            let caller = self.compare(&pepper, &known, &given.secret).ok()?;
            Some(Ok(caller))
        };
        let answer = self.authenticate_given(&given);
        Box::pin(self.unless_down(answer, recalled)).await
    }

    /// Admits a call as [`Tenants::admit`]; where the store does not answer, by
    /// what was looked up before.
    ///
    /// # Errors
    /// As [`Tenants::admit`].
    pub async fn admit_remembering(
        &self,
        caller: &Caller,
        tenant_id: &str,
        access: Access,
    ) -> Result<Tenancy> {
        if self.directory.is_fresh() {
            let answer = self.admit(caller, tenant_id, access).await;
            if !matches!(answer, Err(Error::StoreUnavailable)) {
                return answer;
            }
        }
        let recalled = || {
            let tenant_id = caller.tenant_id(tenant_id).ok()?;
            let known = self.directory.tenant_of_old(tenant_id)?;
            Some(self.enter(&known, caller, access))
        };
        let answer = self.admit(caller, tenant_id, access);
        Box::pin(self.unless_down(answer, recalled)).await
    }

    /// What the store's answer comes to, in a short time; else what is recalled.
    async fn unless_down<T>(
        &self,
        answer: impl Future<Output = Result<T>>,
        recalled: impl FnOnce() -> Option<Result<T>>,
    ) -> Result<T> {
        if !self.directory.is_down() {
            match timeout(WAIT, answer).await {
                Ok(Err(Error::StoreUnavailable)) | Err(_) => self.directory.note_down(),
                Ok(answer) => return answer,
            }
        }
        recalled().unwrap_or(Err(Error::StoreUnavailable))
    }
}
