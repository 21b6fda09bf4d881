//! Usage: GetTenantUsage and RecordUsage. It does not know how anything is
//! counted.

use super::TenantApi;
use crate::{
    error::{Result, Violations},
    grpc::{
        Context,
        convert::{int64, timestamp, timestamp_ms},
    },
    proto::v1,
    store::Unit,
    tenant::{
        Event, Usage,
        usage::{Range, Standing, Totals},
    },
};

impl TenantApi {
    pub(super) async fn usage(
        &self,
        context: &Context,
        request: v1::GetTenantUsageRequest,
    ) -> Result<v1::GetTenantUsageResponse> {
        let range = range(&request);
        let usage = self
            .tenants
            .usage(&context.caller, &request.tenant_id, range)
            .await?;
        Ok(answer(usage))
    }

    pub(super) async fn record(
        &self,
        request: v1::RecordUsageRequest,
    ) -> Result<v1::RecordUsageResponse> {
        let mut violations = Violations::default();
        let event_ms = request
            .event_time
            .and_then(|time| timestamp_ms("event_time", &time, &mut violations));
        let event = Event {
            tenant_id: request.tenant_id,
            event_id: request.event_id,
            event_ms,
            operations: request.operations,
            data_transfer_bytes: request.data_transfer_bytes,
            compute_ms: request.compute_ms,
            custom: request.custom.into_iter().collect(),
            violations,
        };
        let recorded = self.tenants.record(event).await?;
        Ok(v1::RecordUsageResponse { recorded })
    }
}

fn range(request: &v1::GetTenantUsageRequest) -> Range {
    let mut violations = Violations::default();
    let unit = match v1::UsageGranularity::try_from(request.granularity) {
        Ok(v1::UsageGranularity::Unspecified) => None,
        Ok(v1::UsageGranularity::Minute) => Some(Unit::Minute),
        Ok(v1::UsageGranularity::Hour) => Some(Unit::Hour),
        Ok(v1::UsageGranularity::Day) => Some(Unit::Day),
        Err(_) => {
            violations.add(
                "granularity",
                "no such granularity; there are MINUTE, HOUR and DAY",
            );
            // So that the times are not refused for a granularity that is unset.
            Some(Unit::Day)
        }
    };
    let mut time = |field, time: &Option<prost_types::Timestamp>| {
        timestamp_ms(field, time.as_ref()?, &mut violations)
    };
    let start_ms = time("start_time", &request.start_time);
    let end_ms = time("end_time", &request.end_time);
    Range {
        unit,
        start_ms,
        end_ms,
        violations,
    }
}

fn answer(usage: Usage) -> v1::GetTenantUsageResponse {
    let Usage {
        held,
        sessions,
        totals,
        quotas,
        points,
        as_of_ms,
    } = usage;
    let data_transfer_bytes = int64(totals.data_transfer_bytes());
    let message = v1::Usage {
        memory_bytes: int64(held.bytes),
        cache_entries: int64(held.entries),
        storage_bytes: int64(sessions.bytes),
        active_sessions: int64(sessions.entries),
        operations: int64(totals.operations),
        hits: int64(totals.hits),
        misses: int64(totals.misses),
        throttled: int64(totals.throttled),
        bytes_in: int64(totals.bytes_in),
        bytes_out: int64(totals.bytes_out),
        data_transfer_bytes,
        compute_ms: int64(totals.compute_ms),
        memory_byte_seconds: int64(totals.memory_byte_seconds),
        storage_byte_seconds: int64(totals.storage_byte_seconds),
        exact: held.exact,
        custom: custom(totals),
    };
    v1::GetTenantUsageResponse {
        usage: Some(message),
        quotas: quotas
            .into_iter()
            .map(|(metric, standing)| (metric, quota(standing)))
            .collect(),
        points: points.into_iter().map(point).collect(),
        as_of: Some(timestamp(as_of_ms)),
    }
}

fn quota(standing: Standing) -> v1::QuotaUsage {
    let unlimited = |figure: Option<u64>| figure.map_or(-1, int64);
    v1::QuotaUsage {
        limit: unlimited(standing.limit),
        used: int64(standing.used),
        remaining: unlimited(standing.remaining()),
        reset_time: standing.reset_ms.map(timestamp),
        mode: super::message::quota_mode(standing.mode).into(),
    }
}

fn point((start_ms, totals): (u64, Totals)) -> v1::UsagePoint {
    v1::UsagePoint {
        start_time: Some(timestamp(start_ms)),
        operations: int64(totals.operations),
        hits: int64(totals.hits),
        misses: int64(totals.misses),
        throttled: int64(totals.throttled),
        bytes_in: int64(totals.bytes_in),
        bytes_out: int64(totals.bytes_out),
        data_transfer_bytes: int64(totals.data_transfer_bytes()),
        compute_ms: int64(totals.compute_ms),
        memory_byte_seconds: int64(totals.memory_byte_seconds),
        storage_byte_seconds: int64(totals.storage_byte_seconds),
        custom: custom(totals),
    }
}

fn custom(totals: Totals) -> std::collections::HashMap<String, i64> {
    let custom = totals.custom.into_iter();
    custom.map(|(metric, sum)| (metric, int64(sum))).collect()
}
