//! Bills: GetTenantBilling and ListStatements. It does not know what anything
//! costs.

use super::TenantApi;
use crate::{
    error::{Error, Result},
    grpc::Context,
    proto::v1,
};

impl TenantApi {
    pub(super) async fn billing(
        &self,
        _context: &Context,
        _request: v1::GetTenantBillingRequest,
    ) -> Result<v1::GetTenantBillingResponse> {
        Err(Error::Unimplemented("GetTenantBilling".into()))
    }

    pub(super) async fn statements(
        &self,
        _request: v1::ListStatementsRequest,
    ) -> Result<v1::ListStatementsResponse> {
        Err(Error::Unimplemented("ListStatements".into()))
    }
}
