//! TenantService: messages into calls of the tenant domain, and its answers
//! into messages. It does not know what may be asked for; the domain refuses.

mod api_key;
mod audit;
mod billing;
mod encryption;
mod message;
mod quota;
mod usage;

use tonic::{Request, Response, Status, async_trait};

use super::Context;
use crate::{
    error::{Error, Result, Violations},
    proto::v1::{self, tenant_service_server::TenantService},
    tenant::{Caller, Tenants, page},
};
use message::change;

/// TenantService, as one core serves it.
pub struct TenantApi {
    tenants: Tenants,
}

impl TenantApi {
    /// The service over these tenants.
    pub fn new(tenants: Tenants) -> Self {
        Self { tenants }
    }

    fn message(&self, tenant: crate::tenant::Tenant) -> Option<v1::Tenant> {
        let effective = self.tenants.effective_quotas(&tenant);
        Some(message::tenant(tenant, effective))
    }

    async fn create(&self, request: v1::CreateTenantRequest) -> Result<v1::CreateTenantResponse> {
        let mut change = change("", &request.request_id, request.validate_only);
        let new = message::new_tenant(request, &mut change.violations);
        let created = self.tenants.create(new, change).await?;
        let (api_key, secret) = created
            .issued
            .map_or_else(Default::default, message::issued);
        Ok(v1::CreateTenantResponse {
            tenant: self.message(created.tenant),
            api_key,
            secret,
        })
    }

    async fn get(
        &self,
        caller: &Caller,
        request: v1::GetTenantRequest,
    ) -> Result<v1::GetTenantResponse> {
        let tenant = self.tenants.get(caller, &request.tenant_id).await?;
        Ok(v1::GetTenantResponse {
            tenant: self.message(tenant),
        })
    }

    async fn list(&self, request: v1::ListTenantsRequest) -> Result<v1::ListTenantsResponse> {
        let mut violations = Violations::default();
        let size = page::size(request.page_size, &mut violations);
        let page_token = request.page_token.clone();
        let filter = message::filter(request, &mut violations);
        violations.check()?;
        let listed = self.tenants.list(&filter, size, &page_token).await?;
        Ok(v1::ListTenantsResponse {
            tenants: listed
                .tenants
                .into_iter()
                .filter_map(|tenant| self.message(tenant))
                .collect(),
            next_page_token: listed.next_page_token,
        })
    }

    async fn update(&self, request: v1::UpdateTenantRequest) -> Result<v1::UpdateTenantResponse> {
        let Some(tenant) = request.tenant else {
            return Err(Error::invalid(
                "tenant",
                "unset: name the tenant and its new values",
            ));
        };
        let mut change = change(&tenant.etag, &request.request_id, request.validate_only);
        let update = message::update(tenant, request.update_mask, &mut change.violations);
        let tenant = self.tenants.update(update, change).await?;
        Ok(v1::UpdateTenantResponse {
            tenant: self.message(tenant),
        })
    }

    async fn suspend(
        &self,
        request: v1::SuspendTenantRequest,
    ) -> Result<v1::SuspendTenantResponse> {
        let mut change = change(&request.etag, &request.request_id, request.validate_only);
        let mode = message::suspension_mode(request.mode, &mut change.violations);
        let tenant = self
            .tenants
            .suspend(&request.tenant_id, mode, &request.reason, change)
            .await?;
        Ok(v1::SuspendTenantResponse {
            tenant: self.message(tenant),
        })
    }

    async fn resume(&self, request: v1::ResumeTenantRequest) -> Result<v1::ResumeTenantResponse> {
        let change = change(&request.etag, &request.request_id, request.validate_only);
        let tenant = self.tenants.resume(&request.tenant_id, change).await?;
        Ok(v1::ResumeTenantResponse {
            tenant: self.message(tenant),
        })
    }

    async fn delete(&self, request: v1::DeleteTenantRequest) -> Result<v1::DeleteTenantResponse> {
        let change = change(&request.etag, &request.request_id, request.validate_only);
        let tenant = self
            .tenants
            .delete(&request.tenant_id, request.allow_missing, change)
            .await?;
        Ok(v1::DeleteTenantResponse {
            tenant: tenant.and_then(|tenant| self.message(tenant)),
        })
    }

    async fn undelete(
        &self,
        request: v1::UndeleteTenantRequest,
    ) -> Result<v1::UndeleteTenantResponse> {
        let change = change(&request.etag, &request.request_id, request.validate_only);
        let tenant = self.tenants.undelete(&request.tenant_id, change).await?;
        Ok(v1::UndeleteTenantResponse {
            tenant: self.message(tenant),
        })
    }

    async fn purge(&self, request: v1::PurgeTenantRequest) -> Result<v1::PurgeTenantResponse> {
        let change = change(&request.etag, &request.request_id, request.validate_only);
        let report = self.tenants.purge(&request.tenant_id, change).await?;
        Ok(v1::PurgeTenantResponse {
            report: Some(message::purge_report(report)),
        })
    }
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[async_trait]
impl TenantService for TenantApi {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Answer<v1::CreateTenantResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        let created = self.create(request).await;
        if let Ok(tenant) = created.as_ref().map(|created| created.tenant.as_ref()) {
            context.about(tenant.map_or("", |tenant| &tenant.tenant_id));
        }
        context.answer(created)
    }

    async fn get_tenant(
        &self,
        request: Request<v1::GetTenantRequest>,
    ) -> Answer<v1::GetTenantResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.get(&context.caller, request).await)
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Answer<v1::ListTenantsResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.list(request).await)
    }

    async fn update_tenant(
        &self,
        request: Request<v1::UpdateTenantRequest>,
    ) -> Answer<v1::UpdateTenantResponse> {
        let (context, request) = Context::of(request)?;
        let tenant = request.tenant.as_ref();
        context.about(tenant.map_or("", |tenant| &tenant.tenant_id));
        context.answer(self.update(request).await)
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Answer<v1::SuspendTenantResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.suspend(request).await)
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Answer<v1::ResumeTenantResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.resume(request).await)
    }

    async fn delete_tenant(
        &self,
        request: Request<v1::DeleteTenantRequest>,
    ) -> Answer<v1::DeleteTenantResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.delete(request).await)
    }

    async fn undelete_tenant(
        &self,
        request: Request<v1::UndeleteTenantRequest>,
    ) -> Answer<v1::UndeleteTenantResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.undelete(request).await)
    }

    async fn purge_tenant(
        &self,
        request: Request<v1::PurgeTenantRequest>,
    ) -> Answer<v1::PurgeTenantResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.purge(request).await)
    }

    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Answer<v1::CreateApiKeyResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.create_key(request).await)
    }

    async fn list_api_keys(
        &self,
        request: Request<v1::ListApiKeysRequest>,
    ) -> Answer<v1::ListApiKeysResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.list_keys(request).await)
    }

    async fn rotate_api_key(
        &self,
        request: Request<v1::RotateApiKeyRequest>,
    ) -> Answer<v1::RotateApiKeyResponse> {
        let (context, request) = Context::of(request)?;
        let answer = self.rotate_key(request).await;
        api_key::about(
            &context,
            answer.as_ref().map(|answer| answer.api_key.as_ref()),
        );
        context.answer(answer)
    }

    async fn revoke_api_key(
        &self,
        request: Request<v1::RevokeApiKeyRequest>,
    ) -> Answer<v1::RevokeApiKeyResponse> {
        let (context, request) = Context::of(request)?;
        let answer = self.revoke_key(request).await;
        api_key::about(
            &context,
            answer.as_ref().map(|answer| answer.api_key.as_ref()),
        );
        context.answer(answer)
    }

    async fn rotate_data_key(
        &self,
        request: Request<v1::RotateDataKeyRequest>,
    ) -> Answer<v1::RotateDataKeyResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(TenantApi::rotate_data_key(self, request).await)
    }

    async fn rewrap_data_keys(
        &self,
        request: Request<v1::RewrapDataKeysRequest>,
    ) -> Answer<v1::RewrapDataKeysResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(TenantApi::rewrap_data_keys(self, request).await)
    }

    async fn get_tenant_usage(
        &self,
        request: Request<v1::GetTenantUsageRequest>,
    ) -> Answer<v1::GetTenantUsageResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.usage(&context, request).await)
    }

    async fn get_tenant_billing(
        &self,
        request: Request<v1::GetTenantBillingRequest>,
    ) -> Answer<v1::GetTenantBillingResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.billing(&context, request).await)
    }

    async fn list_statements(
        &self,
        request: Request<v1::ListStatementsRequest>,
    ) -> Answer<v1::ListStatementsResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.statements(request).await)
    }

    async fn check_quota(
        &self,
        request: Request<v1::CheckQuotaRequest>,
    ) -> Answer<v1::CheckQuotaResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.check(&context, request).await)
    }

    async fn record_usage(
        &self,
        request: Request<v1::RecordUsageRequest>,
    ) -> Answer<v1::RecordUsageResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.record(request).await)
    }

    async fn list_audit_events(
        &self,
        request: Request<v1::ListAuditEventsRequest>,
    ) -> Answer<v1::ListAuditEventsResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.audit_events(request).await)
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        let (context, _) = Context::of(request)?;
        context.answer(Ok(message::who(&context.caller)))
    }
}
