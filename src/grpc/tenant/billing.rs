//! Bills: GetTenantBilling and ListStatements. It does not know what anything
//! costs.

use super::TenantApi;
use crate::{
    error::Result,
    grpc::{
        Context,
        convert::{int64, timestamp},
    },
    proto::v1,
    tenant::billing::{Line, Statement},
};

impl TenantApi {
    pub(super) async fn billing(
        &self,
        context: &Context,
        request: v1::GetTenantBillingRequest,
    ) -> Result<v1::GetTenantBillingResponse> {
        let bill = self
            .tenants
            .billing(&context.caller, &request.tenant_id, &request.period)
            .await?;
        Ok(v1::GetTenantBillingResponse {
            statement: Some(statement(bill.statement)),
            previous: bill.previous.into_iter().map(statement).collect(),
        })
    }

    pub(super) async fn statements(
        &self,
        request: v1::ListStatementsRequest,
    ) -> Result<v1::ListStatementsResponse> {
        let listed = self
            .tenants
            .list_statements(&request.period, request.page_size, &request.page_token)
            .await?;
        Ok(v1::ListStatementsResponse {
            statements: listed.statements.into_iter().map(statement).collect(),
            next_page_token: listed.next_page_token,
            complete: listed.complete,
            total_size: int64(listed.total),
        })
    }
}

fn statement(statement: Statement) -> v1::Statement {
    v1::Statement {
        tenant_id: statement.tenant_id,
        period: statement.period.to_string(),
        start_time: Some(timestamp(statement.start_ms)),
        end_time: Some(timestamp(statement.end_ms)),
        lines: statement.lines.into_iter().map(line).collect(),
        total_micros: statement.total_micros,
        currency: statement.currency,
        projected_total_micros: statement.projected_total_micros,
        closed: statement.close_ms.is_some(),
        close_time: statement.close_ms.map(timestamp),
    }
}

fn line(line: Line) -> v1::StatementLine {
    v1::StatementLine {
        metric: line.metric,
        quantity: line.quantity,
        included: line.included,
        unit_price_micros: line.unit_price_micros,
        amount_micros: line.amount_micros,
        unit: line.unit,
        plan: line.plan,
        start_time: Some(timestamp(line.start_ms)),
        end_time: Some(timestamp(line.end_ms)),
    }
}
