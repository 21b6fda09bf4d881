//! GetOrLease as messages have it. It does not know who holds a lease.

use super::{CacheApi, Context, message};
use crate::{
    cache::{Freshness, Leased},
    error::{Error, Result},
    grpc::home::at_home,
    proto::v1::{GetOrLeaseRequest, GetOrLeaseResponse},
    tenant::{Access, Permission, Scope},
};

impl CacheApi {
    pub(super) async fn read_or_lease(
        &self,
        context: &Context,
        request: GetOrLeaseRequest,
    ) -> Result<GetOrLeaseResponse> {
        context
            .caller
            .require(Permission::Scope(Scope::CacheRead))?;
        let (namespace, refill) = (&request.namespace, message::refill(&request));
        let admitted = self.admit(context, &request.tenant_id, Access::Write).await;
        let suspended = match admitted {
            Ok(mut tenancy) => {
                let leased = at_home!(
                    self,
                    (context, Access::Write),
                    tenancy,
                    self.cache
                        .get_or_lease(&tenancy, namespace, &request.key, &refill)
                );
                return Ok(message::leased(request.key, leased));
            }
            Err(
                error @ Error::TenantSuspended {
                    read_only: true, ..
                },
            ) => error,
            Err(error) => return Err(error),
        };
        // What is there may be read; what is not may not be refilled.
        let tenancy = self
            .admit(context, &request.tenant_id, Access::Read)
            .await?;
        let found = self
            .cache
            .get(&tenancy, namespace, &request.key, &Freshness::default())
            .await?;
        let entry = found.ok_or(suspended)?;
        Ok(message::leased(request.key, Leased::Entry(entry)))
    }
}
