//! Quotas: CheckQuota. It does not know what is allowed.

use super::TenantApi;
use crate::{
    error::{Error, Result},
    grpc::Context,
    proto::v1,
};

impl TenantApi {
    pub(super) async fn check(
        &self,
        _context: &Context,
        _request: v1::CheckQuotaRequest,
    ) -> Result<v1::CheckQuotaResponse> {
        Err(Error::Unimplemented("CheckQuota".into()))
    }
}
