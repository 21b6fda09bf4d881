//! The RPCs of data keys. They do not see a key.

use crate::{
    error::{Result, Violations},
    grpc::convert::{int64, timestamp},
    proto::v1,
    tenant::{DataKey, Rewrapped, data_key::Lost, page},
};

use super::{TenantApi, change};

impl TenantApi {
    pub(super) async fn rotate_data_key(
        &self,
        request: v1::RotateDataKeyRequest,
    ) -> Result<v1::RotateDataKeyResponse> {
        let change = change(&request.etag, &request.request_id, request.validate_only);
        let (tenant, newest) = self
            .tenants
            .rotate_data_key(&request.tenant_id, change)
            .await?;
        let keys = tenant.encryption.as_ref().map_or(0, |e| e.data_keys.len());
        Ok(v1::RotateDataKeyResponse {
            data_key: Some(data_key(&newest)),
            data_keys: i32::try_from(keys).unwrap_or(i32::MAX),
            tenant: self.message(tenant),
        })
    }

    pub(super) async fn rewrap_data_keys(
        &self,
        request: v1::RewrapDataKeysRequest,
    ) -> Result<v1::RewrapDataKeysResponse> {
        let mut violations = Violations::default();
        let size = page::size(request.page_size, &mut violations);
        violations.check()?;
        let done = self
            .tenants
            .rewrap_data_keys(size, &request.page_token, request.validate_only)
            .await?;
        let next_page_token = done.next_page_token.clone();
        Ok(v1::RewrapDataKeysResponse {
            report: Some(report(done)),
            next_page_token,
        })
    }
}

fn data_key(key: &DataKey) -> v1::DataKey {
    v1::DataKey {
        data_key_id: number(key.id),
        master_key_id: key.master_key.clone(),
        create_time: Some(timestamp(key.create_ms)),
    }
}

fn report(done: Rewrapped) -> v1::RewrapReport {
    let lost = |key: Lost| v1::LostDataKey {
        tenant_id: key.tenant_id,
        data_key_id: number(key.data_key),
        master_key_id: key.master_key,
        reason: key.why,
    };
    let counts = done.data_keys.into_iter();
    v1::RewrapReport {
        master_key_id: done.master_key,
        tenants: int64(done.tenants),
        rewrapped: int64(done.rewrapped),
        data_keys: counts.map(|(id, count)| (id, int64(count))).collect(),
        lost: done.lost.into_iter().map(lost).collect(),
    }
}

fn number(data_key: u32) -> i32 {
    i32::try_from(data_key).unwrap_or(i32::MAX)
}
