//! Usage: GetTenantUsage and RecordUsage. It does not know how anything is
//! counted.

use super::TenantApi;
use crate::{
    error::{Error, Result},
    grpc::Context,
    proto::v1,
};

impl TenantApi {
    pub(super) async fn usage(
        &self,
        _context: &Context,
        _request: v1::GetTenantUsageRequest,
    ) -> Result<v1::GetTenantUsageResponse> {
        Err(Error::Unimplemented("GetTenantUsage".into()))
    }

    pub(super) async fn record(
        &self,
        _request: v1::RecordUsageRequest,
    ) -> Result<v1::RecordUsageResponse> {
        Err(Error::Unimplemented("RecordUsage".into()))
    }
}
