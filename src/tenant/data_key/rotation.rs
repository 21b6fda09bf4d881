//! A tenant gets a new data key. It does not know which entries are under which.

use super::MAX_DATA_KEYS;
use crate::{
    error::{Error, Result},
    tenant::{Change, DataKey, Tenant, Tenants},
};

impl Tenants {
    /// Gives an encrypted tenant a new data key, which seals what is written from
    /// now on; the keys before it stay, to open what they sealed. The tenant, and
    /// the key.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TenantDeleted`]; [`Error::ConditionNotMet`]
    /// where the tenant is not encrypted, there is no master key, or it has
    /// [`MAX_DATA_KEYS`]; [`Error::EtagMismatch`], [`Error::Invalid`],
    /// [`Error::RequestIdReused`]; those of the store.
    pub async fn rotate_data_key(
        &self,
        tenant_id: &str,
        change: Change,
    ) -> Result<(Tenant, DataKey)> {
        let unfit = |description: &str| Error::ConditionNotMet {
            subject: format!("tenant {tenant_id}"),
            description: description.to_owned(),
        };
        let tenant = self
            .change_tenant(
                "RotateDataKey",
                tenant_id,
                &tenant_id,
                change,
                |tenant, now_ms| {
                    let incarnation = tenant.incarnation;
                    let encryption = tenant.encryption.as_mut();
                    let encryption = encryption
                        .ok_or_else(|| unfit("it is not encrypted, and stays as it was created"))?;
                    if encryption.data_keys.len() >= MAX_DATA_KEYS {
                        return Err(unfit(&format!(
                            "it has {MAX_DATA_KEYS} data keys, and can have no more"
                        )));
                    }
                    encryption.draw(&self.masters, incarnation, now_ms)?;
                    Ok(Vec::new())
                },
            )
            .await?;
        let newest = tenant.encryption.as_ref().and_then(|e| e.data_keys.first());
        let newest = newest.cloned();
        let none = || Error::Internal("a data key was made and is not there".into());
        Ok((tenant, newest.ok_or_else(none)?))
    }
}
