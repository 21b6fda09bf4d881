//! The audit log: ListAuditEvents. It does not know how events are kept.

use prost_types::Timestamp;

use super::TenantApi;
use crate::{
    error::{Result, Violations},
    grpc::convert::{int64, timestamp, timestamp_ms},
    proto::v1,
    tenant::{
        audit::{Entry, Head, Span},
        id, page,
    },
};

/// Nanoseconds of a millisecond.
const NANOS_PER_MS: i32 = 1_000_000;

impl TenantApi {
    pub(super) async fn audit_events(
        &self,
        request: v1::ListAuditEventsRequest,
    ) -> Result<v1::ListAuditEventsResponse> {
        let mut violations = Violations::default();
        let size = page::size(request.page_size, &mut violations);
        let span = span(&request, &mut violations);
        violations.check()?;
        let listed = self
            .tenants
            .list_audit_events(&span, size, &request.page_token)
            .await?;
        Ok(v1::ListAuditEventsResponse {
            events: listed.events.into_iter().map(event).collect(),
            next_page_token: listed.next_page_token,
            chains: listed.chains.into_iter().map(chain).collect(),
        })
    }
}

fn span(request: &v1::ListAuditEventsRequest, violations: &mut Violations) -> Span {
    let tenant_id = &request.tenant_id;
    if !tenant_id.is_empty() && !id::is_valid(tenant_id) {
        violations.add("tenant_id", format!("allowed are {}", id::RULE));
    }
    // Events have whole milliseconds: what begins or ends within one does so at its end.
    let mut bound = |field: &str, time: Option<&Timestamp>| {
        let time = time?;
        let ms = timestamp_ms(field, time, violations)?;
        Some(ms + u64::from(time.nanos % NANOS_PER_MS > 0))
    };
    let start_ms = bound("start_time", request.start_time.as_ref());
    let end_ms = bound("end_time", request.end_time.as_ref());
    if let (Some(start_ms), Some(end_ms)) = (start_ms, end_ms)
        && start_ms >= end_ms
    {
        violations.add("end_time", "not after start_time");
    }
    Span {
        tenant_id: tenant_id.clone(),
        start_ms,
        end_ms,
    }
}

fn event(entry: Entry) -> v1::AuditEvent {
    let set = |ms: u64| (ms > 0).then(|| timestamp(ms));
    v1::AuditEvent {
        time: Some(timestamp(entry.facts.time_ms)),
        actor: entry.facts.actor,
        rpc: entry.facts.rpc,
        tenant_id: entry.facts.tenant_id,
        outcome: entry.facts.outcome,
        request_id: entry.facts.request_id,
        peer: entry.facts.peer,
        count: int64(entry.facts.count),
        replica: entry.replica,
        sequence: int64(entry.sequence),
        expire_time: set(entry.expire_ms),
        previous_expire_time: set(entry.previous_expire_ms),
        previous_hash: entry.previous_hash,
        hash: entry.hash,
    }
}

fn chain(head: Head) -> v1::AuditChain {
    v1::AuditChain {
        replica: head.replica,
        sequence: int64(head.sequence),
        hash: head.hash,
        time: Some(timestamp(head.time_ms)),
        expire_time: Some(timestamp(head.expire_ms)),
    }
}
