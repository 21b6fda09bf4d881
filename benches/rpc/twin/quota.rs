//! CheckQuota with none of its work: it always allows. It does not know a limit.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use riptide_persistence::proto::v1::{tenant_service_server::TenantService, *};
use tonic::{Request, Response, Status};

use crate::scenario::VAST;

/// Answers CheckQuota, with messages of the same size as the service's.
pub struct Quota {
    used: AtomicI64,
}

impl Quota {
    pub fn new() -> Self {
        Self {
            used: AtomicI64::new(1_000_000),
        }
    }
}

macro_rules! serve {
    ($($rpc:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl TenantService for Quota {
            async fn check_quota(
                &self,
                _: Request<CheckQuotaRequest>,
            ) -> Result<Response<CheckQuotaResponse>, Status> {
                let used = self.used.fetch_add(1, Relaxed);
                Ok(Response::new(CheckQuotaResponse {
                    allowed: true,
                    limit: VAST,
                    used,
                    remaining: VAST - used,
                    retry_after: None,
                    mode: QuotaMode::Enforce.into(),
                }))
            }

            $(async fn $rpc(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented(stringify!($rpc)))
            })*
        }
    };
}

serve! {
    create_tenant(CreateTenantRequest) -> CreateTenantResponse;
    get_tenant(GetTenantRequest) -> GetTenantResponse;
    list_tenants(ListTenantsRequest) -> ListTenantsResponse;
    update_tenant(UpdateTenantRequest) -> UpdateTenantResponse;
    suspend_tenant(SuspendTenantRequest) -> SuspendTenantResponse;
    resume_tenant(ResumeTenantRequest) -> ResumeTenantResponse;
    delete_tenant(DeleteTenantRequest) -> DeleteTenantResponse;
    undelete_tenant(UndeleteTenantRequest) -> UndeleteTenantResponse;
    purge_tenant(PurgeTenantRequest) -> PurgeTenantResponse;
    get_tenant_usage(GetTenantUsageRequest) -> GetTenantUsageResponse;
    get_tenant_billing(GetTenantBillingRequest) -> GetTenantBillingResponse;
    list_statements(ListStatementsRequest) -> ListStatementsResponse;
    record_usage(RecordUsageRequest) -> RecordUsageResponse;
    create_api_key(CreateApiKeyRequest) -> CreateApiKeyResponse;
    list_api_keys(ListApiKeysRequest) -> ListApiKeysResponse;
    rotate_api_key(RotateApiKeyRequest) -> RotateApiKeyResponse;
    revoke_api_key(RevokeApiKeyRequest) -> RevokeApiKeyResponse;
    rotate_data_key(RotateDataKeyRequest) -> RotateDataKeyResponse;
    rewrap_data_keys(RewrapDataKeysRequest) -> RewrapDataKeysResponse;
    list_audit_events(ListAuditEventsRequest) -> ListAuditEventsResponse;
    who_am_i(WhoAmIRequest) -> WhoAmIResponse;
}
