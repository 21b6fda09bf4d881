//! The RPCs of API keys. They do not know what a key may do.

use super::{TenantApi, change, message};
use crate::{
    error::{Error, Result, Violations},
    grpc::{Context, convert},
    proto::v1,
    tenant::page,
};

impl TenantApi {
    pub(super) async fn create_key(
        &self,
        request: v1::CreateApiKeyRequest,
    ) -> Result<v1::CreateApiKeyResponse> {
        let mut change = change("", &request.request_id, request.validate_only);
        let tenant_id = request.tenant_id.clone();
        let new = message::new_api_key(request, &mut change.violations);
        let (api_key, secret) =
            message::issued(self.tenants.create_api_key(&tenant_id, new, change).await?);
        Ok(v1::CreateApiKeyResponse { api_key, secret })
    }

    pub(super) async fn list_keys(
        &self,
        request: v1::ListApiKeysRequest,
    ) -> Result<v1::ListApiKeysResponse> {
        let mut violations = Violations::default();
        let size = page::size(request.page_size, &mut violations);
        violations.require(
            !request.tenant_id.is_empty(),
            "tenant_id",
            "empty: name the tenant",
        );
        violations.check()?;
        let page = self
            .tenants
            .list_api_keys(&request.tenant_id, size, &request.page_token)
            .await?;
        Ok(v1::ListApiKeysResponse {
            api_keys: page.api_keys.into_iter().map(message::api_key).collect(),
            next_page_token: page.next_page_token,
        })
    }

    pub(super) async fn rotate_key(
        &self,
        request: v1::RotateApiKeyRequest,
    ) -> Result<v1::RotateApiKeyResponse> {
        let mut change = change("", &request.request_id, request.validate_only);
        let overlap = request
            .overlap
            .as_ref()
            .and_then(|overlap| convert::span("overlap", overlap, &mut change.violations));
        let issued = self
            .tenants
            .rotate_api_key(&request.key_id, overlap.unwrap_or_default(), change)
            .await?;
        let (api_key, secret) = message::issued(issued);
        Ok(v1::RotateApiKeyResponse { api_key, secret })
    }

    pub(super) async fn revoke_key(
        &self,
        request: v1::RevokeApiKeyRequest,
    ) -> Result<v1::RevokeApiKeyResponse> {
        let change = change("", &request.request_id, request.validate_only);
        let key = self.tenants.revoke_api_key(&request.key_id, change).await?;
        Ok(v1::RevokeApiKeyResponse {
            api_key: Some(message::api_key(key)),
        })
    }
}

/// Notes whose key a call turned out to be about.
pub(super) fn about(context: &Context, key: std::result::Result<Option<&v1::ApiKey>, &Error>) {
    if let Ok(Some(key)) = key {
        context.about(&key.tenant_id);
    }
}
