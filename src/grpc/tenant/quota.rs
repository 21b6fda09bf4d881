//! Quotas: CheckQuota. It does not know what is allowed.

use super::{TenantApi, message};
use crate::{
    error::{Result, Violations},
    grpc::{Context, convert::int64},
    proto::v1::{self, CheckQuotaMode},
    tenant::check::{Check, Checked, Deed},
};

impl TenantApi {
    pub(super) async fn check(
        &self,
        context: &Context,
        request: v1::CheckQuotaRequest,
    ) -> Result<v1::CheckQuotaResponse> {
        let mut violations = Violations::default();
        let deed = deed(request.mode, &mut violations);
        let tenancy = self
            .tenants
            .admit_check(&context.caller, &request.tenant_id, deed)
            .await?;
        context.tell_of(&tenancy);
        let check = Check {
            metric: &request.metric,
            amount: request.amount,
            deed,
        };
        let checked = self
            .tenants
            .check_quota(&tenancy, &check, violations)
            .await?;
        Ok(response(&checked))
    }
}

fn deed(mode: i32, violations: &mut Violations) -> Deed {
    match CheckQuotaMode::try_from(mode) {
        Ok(CheckQuotaMode::Unspecified | CheckQuotaMode::Peek) => Deed::Peek,
        Ok(CheckQuotaMode::Consume) => Deed::Consume,
        Ok(CheckQuotaMode::Release) => Deed::Release,
        Err(_) => {
            violations.add("mode", "not a mode; PEEK, CONSUME and RELEASE are allowed");
            Deed::Peek
        }
    }
}

fn response(checked: &Checked) -> v1::CheckQuotaResponse {
    let used = int64(checked.used);
    let remaining = match checked.limit {
        // Unlimited.
        -1 => -1,
        limit => limit.saturating_sub(used).max(0),
    };
    v1::CheckQuotaResponse {
        allowed: checked.allowed,
        limit: checked.limit,
        used,
        remaining,
        retry_after: checked.retry_after.and_then(|after| after.try_into().ok()),
        mode: message::quota_mode(checked.mode).into(),
    }
}
